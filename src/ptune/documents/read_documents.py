"""Documents from files: texts, Markdown, web pages, JSON, tables with a document a row, and folders
of these."""

import html.parser
import pathlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from ptune.base import plain_files
from ptune.data.formats import json_rows
from ptune.data.row import is_missing, spelled
from ptune.data.row_files import form_of
from ptune.data.rows import read_rows
from ptune.errors import DataError, StoreError, nearest
from ptune.runs import identity

TEXTS, PAGES, TABLES = (".txt", ".md", ".markdown"), (".html", ".htm"), (".csv", ".tsv", ".jsonl")
ENDINGS = (*TEXTS, *PAGES, ".json", *TABLES)
SAVED = "documents.jsonl"
NAME_COLUMNS = ("name", "title", "id")
BLOCKS = set(
    "p div br li tr table ul ol section article header footer blockquote pre td th".split()
)
HIDDEN = {"script", "style", "head", "template", "noscript"}
IN_HEAD = {*HIDDEN, "title", "meta", "link", "base"}
"""What may stand in a page's head, whose end tag may be left out before anything else."""
INLINE = set("a abbr b code em font i mark s small span strong sub sup u".split())
MARKUP = re.compile(
    rf"</(?:{'|'.join(sorted(BLOCKS | INLINE))}|h[1-6]|body|html)\s*>|<(?:br|hr|img)\b[^<>]*>", re.I
)
"""What a text has that is a piece of a web page; other signs < and > are of the text."""


Saved = TypeVar("Saved", bound=BaseModel)


@dataclass(frozen=True)
class Document:
    """A text with a name.

    Attributes:
        place: where it was read, for messages.
    """

    name: str
    text: str
    place: str

    @property
    def identity(self) -> str:
        """A hash of its text."""
        return identity.of_value(self.text)


class SavedDocument(BaseModel):
    """A document as the out folder of a run keeps it."""

    model_config = ConfigDict(extra="forbid")

    name: str
    text: str


def read_lines(file: pathlib.Path, kind: type[Saved]) -> list[Saved]:
    """What the JSON lines of a run's file hold. A line ends with a line feed: other signs that end
    one, such as U+2028, may stand in a text.

    Raises:
        OSError, ValueError: the file cannot be read, or a line does not hold that.
    """
    lines = plain_files.read_text(file).split("\n")
    return [kind.model_validate_json(line) for line in lines if line]


def saved_in(folder: pathlib.Path) -> list[SavedDocument]:
    """The documents of a run, from its out folder.

    Raises:
        StoreError: there are none, or the file is damaged.
    """
    file = folder / SAVED
    if not file.exists():
        raise StoreError(f"{folder} is no out folder of ptune distil: it has no {SAVED}.")
    try:
        return read_lines(file, SavedDocument)
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} is damaged: a document is missing or is no JSON.") from error


def read(
    paths: Sequence[pathlib.Path], text: str = "text", name: str | None = None
) -> list[Document]:
    """All documents of some files and folders, in the order of their names.

    Args:
        text, name: the columns of a table that hold the documents' texts and names; without a name
            it is the column name, title or id.

    Raises:
        DataError: something cannot be read, a document is empty, or two have one name.
    """
    files = {file.resolve(): file for path in paths for file in _files(path)}
    documents = [document for file in files.values() for document in _read(file, text, name)]
    if not documents:
        raise DataError(
            f"There is no document in {', '.join(map(str, paths))}: files that end with "
            f"{', '.join(ENDINGS)} are read."
        )
    seen: dict[str, Document] = {}
    for document in documents:
        if not document.text:
            raise DataError(f"{document.place} is an empty document: it has nothing to be asked.")
        if document.name in seen:
            raise DataError(
                f"{seen[document.name].place} and {document.place} would both be the document "
                f"{document.name!r}, by which it is asked: rename one of them."
            )
        seen[document.name] = document
    return sorted(documents, key=lambda document: document.name)


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    """The file itself, or those of a folder and its folders that may hold documents."""
    if not path.is_dir():
        return [path]
    return sorted(
        file
        for file in path.rglob("*")
        if form_of(file) in ENDINGS and file.is_file() and not file.name.startswith(".")
    )


def _read(path: pathlib.Path, text: str, name: str | None) -> Iterator[Document]:
    form = form_of(path)
    if form in TABLES:
        yield from _of_table(path, text, name)
        return
    if form not in ENDINGS:
        raise DataError(
            f"{path} is of no kind that documents are read from: {', '.join(ENDINGS)}, or a folder."
        )
    if path.suffix.lower() == ".gz":
        raise DataError(f"{path} is packed by gzip: unpack it first.")
    content = _content(path)
    if form in PAGES:
        content = text_of_page(content)
    elif form == ".json":
        content = _text_of_json(path, content)
    yield Document(path.name[: -len("".join(path.suffixes[-1:]))], tidy(content), str(path))


def _content(path: pathlib.Path) -> str:
    """The text of a file.

    Raises:
        DataError: it cannot be read, or is not in UTF-8.
    """
    try:
        return plain_files.read_text(path, "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _of_table(path: pathlib.Path, text: str, name: str | None) -> Iterator[Document]:
    """The documents of a table, one in each row."""
    for row in read_rows(path):
        names = [name] if name else [column for column in NAME_COLUMNS if column in row]
        for column in (text, *names[:1]):
            if column not in row:
                raise DataError(
                    f"{row.place}: there is no column {column!r}. {nearest(column, map(str, row))}"
                )
        called = spelled(row[names[0]]).strip() if names and not is_missing(row[names[0]]) else ""
        if not called:
            raise DataError(
                f"{row.place}: the document has no name; --name tells the column that holds it "
                f"({', '.join(NAME_COLUMNS)} by default)."
            )
        content = "" if is_missing(row[text]) else spelled(row[text])
        yield Document(called, tidy(content), row.place)


def _text_of_json(path: pathlib.Path, content: str) -> str:
    """The fields of a JSON file as text: a heading for each part, a line for each value."""
    try:
        return "\n".join(_lines(json_rows.parsed(content), (), 0))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error


def _lines(value: Any, names: tuple[str, ...], depth: int) -> Iterator[str]:
    """The lines of a value; a field called "text" is what its part says."""
    if isinstance(value, dict):
        if names and any(isinstance(part, dict | list) for part in value.values()):
            yield f"\n{'#' * min(depth, 6)} {names[-1]}"
            names = ()
        for name, part in value.items():
            yield from _lines(part, names if name == "text" else (*names, str(name)), depth + 1)
    elif isinstance(value, list):
        for part in value:
            yield from _lines(part, names, depth)
    elif not is_missing(value):
        text = spelled(value)
        text = tidy(text_of_page(text)) if MARKUP.search(text) else text
        yield ": ".join([*names[-2:], text])


class _Page(html.parser.HTMLParser):
    """Gathers the text of a web page that can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.hidden: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if self.hidden == ["head"] and tag not in IN_HEAD:
            self.hidden.clear()
        if tag in HIDDEN:
            self.hidden.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.parts.append(f"\n\n{'#' * int(tag[1])} ")
        elif tag in BLOCKS:
            self.parts.append(" " if tag in ("td", "th") else "\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.hidden:
            del self.hidden[self.hidden.index(tag) :]
        if tag in BLOCKS - {"br", "td", "th"} or re.fullmatch("h[1-6]", tag):
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(re.sub(r"\s+", " ", data))


def text_of_page(content: str) -> str:
    """The text of a web page that can be seen, its headings as Markdown's."""
    page = _Page()
    page.feed(content)
    page.close()
    return "".join(page.parts)


def tidy(text: str) -> str:
    """A text without white space at the ends of its lines, or more than one empty line."""
    lines = "\n".join(re.sub(r"[^\S\n]+", " ", line).strip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines).strip()
