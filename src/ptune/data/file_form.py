"""How a file of rows is written, by its name and its content, and what has to be said so that it is
read as that."""

import pathlib
import re
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ptune.data import row_files
from ptune.data.formats import delimited, dialect, json_rows
from ptune.data.formats.columnar import COLUMNAR, check_options
from ptune.data.formats.header import TABLES, looks_like_data
from ptune.data.formats.table_rows import table_dialect, table_lines
from ptune.data.rows import AS_IT_IS, JSON, iterate_rows
from ptune.errors import DataError
from ptune.settings import FileConfig, Form

QUESTION = re.compile(r"[A-Z]{2,}:[a-z]+ \S")
"""A line of TREC's files."""
WORD_LABEL = re.compile(r"O|[BIES]-\S+")
"""The label of a word in CoNLL's files of entities."""
CONLL = (".conll", ".iob", ".iob2", ".bio", ".ner")
QUOTED = re.compile(r'"[^"]*(?:"|\Z)')
LOOKED_AT = 50  # lines that decide what a file without a known ending is
MARK = b"\xef\xbb\xbf"
SAMPLED_BYTES = 1 << 20
GUESS = " (a guess)"
FIRST_LINE_IS_A_ROW = (
    "its first line looks like a row, so its columns get names here; if it names the columns, "
    "leave `columns` out"
)
QUOTING = {
    "csv": "quotation marks enclose fields",
    "none": "quotation marks are plain text",
    **dialect.VARIANTS,
}


@dataclass(frozen=True)
class FileForm:
    """How a file is written.

    Attributes:
        kind: "a table", "JSON lines", "a JSON array", "an object of JSON", "lines of text",
            "words with labels".
        form: the form under ``data:`` that reads it.
        encoding: in words; line_ends: "LF", "CRLF", "CR", or several of them.
        options: all that was decided, with which it is read.
        needed: the keys under ``data:`` that say what its name does not.
        notes: what was decided and could have been otherwise, and what is odd.
        is_guessed: whether the encoding is a guess.
        first_line: the fields of a table's first line, where that was taken for a row.
    """

    kind: str
    form: Form
    encoding: str
    line_ends: str
    is_packed: bool
    options: FileConfig
    needed: dict[str, Any]
    notes: list[str]
    is_guessed: bool = False
    first_line: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """All of it, as the end of a sentence."""
        parts = [self.kind, self.encoding]
        if self.kind == "a table":
            separator = self.options.separator or ","
            parts.append(f"fields with a {delimited.SEPARATORS.get(separator, repr(separator))}")
            parts.append(QUOTING[self.options.quoting or "csv"])
        if self.line_ends:
            parts.append(f"lines end with {self.line_ends}")
        return ", ".join([*parts, *(["packed by gzip"] if self.is_packed else [])])


def seen(path: pathlib.Path, options: FileConfig = AS_IT_IS, form: Form | None = None) -> FileForm:
    """How a file is written.

    Args:
        options, form: what is not in question.

    Raises:
        DataError: it cannot be read, or is of a kind that holds no plain rows.
    """
    if row_files.form_of(path) in COLUMNAR and form in (None, "rows"):
        return _columnar(path, options)
    notes: list[str] = []
    encoding, encoding_words, needed = _encoding(path, options, notes)
    options = options.model_copy(update={"encoding": encoding})
    if form is None:
        form, kind, separator = _kind(path, options)
    else:
        kind, separator = "a table" if row_files.form_of(path) in TABLES else form, None
    for name in ("separator", "quoting", "columns", "skip_lines", "rename", "record_path"):
        if (value := getattr(options, name)) is not None:
            needed[name] = value
    if form != "rows":
        needed["form"] = form
    if form == "rows" and (record_path := _record_path(path, options)):
        options = options.model_copy(update={"record_path": record_path})
        needed["record_path"] = record_path
        notes.append(f"its rows stand deeper, under {record_path}")
    first_line: tuple[str, ...] = ()
    if kind == "a table":
        options, needed, first_line = _table(path, options, separator, needed=needed, notes=notes)
    ends = _line_ends(path, encoding, kind == "a table" and options.quoting != "none")
    if len(ends) > 1:
        notes.append(f"its lines end in several ways: {', '.join(ends)}")
    return FileForm(
        kind=kind,
        form=form,
        encoding=encoding_words,
        line_ends=" and ".join(ends) or "nothing",
        is_packed=row_files.is_packed(path),
        options=options,
        needed=needed,
        notes=notes,
        is_guessed=encoding_words.endswith(GUESS),
        first_line=first_line,
    )


def _columnar(path: pathlib.Path, options: FileConfig) -> FileForm:
    """How a file is written that knows its columns and their types itself."""
    check_options(path, options)
    kind = "Parquet" if row_files.form_of(path) == ".parquet" else "Arrow"
    return FileForm(
        kind=kind,
        form="rows",
        encoding="a table with types",
        line_ends="",
        is_packed=False,
        options=options,
        needed={"rename": options.rename} if options.rename else {},
        notes=[],
    )


def _encoding(
    path: pathlib.Path, options: FileConfig, notes: list[str]
) -> tuple[str | None, str, dict[str, Any]]:
    """The encoding to read by, in words, and what is needed under ``data:``."""
    if options.encoding:
        with row_files.opened(path, options.encoding):
            return options.encoding, options.encoding, {"encoding": options.encoding}
    start = row_files.start_of(path)
    for mark, name in row_files.BYTE_ORDER_MARKS:
        if start.startswith(mark):
            return name, f"{name.upper()} by its byte order mark", {"encoding": name}
    if name := row_files.two_bytes_each(start):
        return name, f"{name.upper()} by its bytes", {"encoding": name}
    with row_files.opened(path):
        pass  # what holds no rows at all is refused here
    if row_files.is_utf8(path):
        has_mark = start.startswith(MARK)
        return None, "UTF-8 with a byte order mark" if has_mark else "UTF-8", {}
    guess = row_files.guessed_encoding(path)
    if guess is None:
        with row_files.opened(path) as stream:
            while stream.read(1 << 16):
                pass  # raises, and says which line is at fault
        guess = "utf-8"
    notes.append(
        f"it is not UTF-8, and is read here as {guess}, which is a guess: look at the examples, "
        "and name another encoding if they are wrong"
    )
    return guess, f"{guess}{GUESS}", {"encoding": guess}


def _line_ends(path: pathlib.Path, encoding: str | None, is_quoted: bool) -> list[str]:
    """What ends the lines of the first part of a file.

    Args:
        is_quoted: what stands between quotation marks belongs to a cell.
    """
    with row_files.opened(path, encoding, newline="") as stream:
        text = stream.read(SAMPLED_BYTES)
    if is_quoted:
        text = QUOTED.sub("", text) or text
    pairs = text.count("\r\n")
    counts = Counter(
        {"LF": text.count("\n") - pairs, "CRLF": pairs, "CR": text.count("\r") - pairs}
    )
    ends = [name for name, count in counts.most_common() if count > 0]
    return [name for name in ends if name != "CR" or counts["LF"] + pairs == 0] or ends


def _kind(path: pathlib.Path, options: FileConfig) -> tuple[Form, str, str | None]:
    """The form under ``data:``, the kind in words, and for a table without a known ending its
    separator."""
    ending = row_files.form_of(path)
    with row_files.opened(path, options.encoding, row_files.line_end(path, options.encoding)) as s:
        lines = list(islice(s, LOOKED_AT))
    sample = [line for line in lines if line.strip()]
    start = sample[0].lstrip()[:1] if sample else ""
    if ending in JSON:
        kinds = {"[": "a JSON array", "{": "JSON lines" if ending != ".json" else "JSON"}
        return "rows", kinds.get(start, "JSON lines"), None
    if ending in CONLL or ending not in JSON and _is_conll(lines):
        return "conll", "words with labels", None
    if ending in TABLES or options.separator:
        return "rows", "a table", None
    if sample and all(QUESTION.match(line) for line in sample):
        return "trec", "TREC's questions", None
    if start in ("{", "["):
        raise DataError(
            f"{path} begins as JSON does: {sample[0][:60].strip()!r}. Name it .jsonl if each line "
            "is an object, else .json."
        )
    if sample and all(line.startswith("__label__") for line in sample):
        raise DataError(
            f"{path} has the form of fastText: make a table of it, with a tab behind the label, by "
            r"sed -E 's/^__label__([^ ]+) /\1\t/' FILE > FILE.tsv, and name its columns by data: "
            "{columns: [label, text]}."
        )
    separator = dialect.separator_of(sample)
    return ("rows", "a table", separator) if separator else ("lines", "lines of text", None)


def _is_conll(lines: list[str]) -> bool:
    """Whether lines are words with labels of entities in their last column, with empty lines
    between sentences."""
    cells = [line.split() for line in lines if line.strip()]
    return (
        len(cells) < len(lines)
        and len({len(cell) for cell in cells}) == 1
        and len(cells[0]) > 1
        and all(WORD_LABEL.fullmatch(cell[-1]) for cell in cells)
    )


def _record_path(path: pathlib.Path, options: FileConfig) -> str:
    """The names that lead to the rows of a file with one object; empty where it has more, or no
    list of objects."""
    if row_files.form_of(path) != ".json" or options.record_path:
        return ""
    try:
        if len(list(islice(iterate_rows(path, None, options), 2))) != 1:
            return ""
        with row_files.opened(path, options.encoding) as stream:
            values = [value for _, value in json_rows.values(stream.read())]
    except (DataError, ValueError):
        return ""  # told by who reads the rows
    return json_rows.path_to_rows(values[0]) if len(values) == 1 else ""


def _table(
    path: pathlib.Path,
    options: FileConfig,
    separator: str | None,
    *,
    needed: dict[str, Any],
    notes: list[str],
) -> tuple[FileConfig, dict[str, Any], tuple[str, ...]]:
    """How a table is written: the options that read it, those that have to be given, and its first
    line, where that is a row."""
    options = options.model_copy(update={"separator": options.separator or separator})
    opened = table_lines(path, options)
    if options.skip_lines is None and (before := _lines_before(path, options, opened)):
        options = options.model_copy(update={"skip_lines": before})
        needed = {**needed, "skip_lines": before}
        lines, are = ("line has", "is") if before == 1 else (f"{before} lines have", "are")
        notes.append(
            f"its first {lines} another number of fields than those behind, and {are} left "
            "out as a title or comments (skip_lines)"
        )
    try:
        dialect = table_dialect(path, options, opened)
    except DataError as error:
        notes.append(str(error).removeprefix(f"{path}, ").rstrip("."))
        dialect = table_dialect(path, options, opened, lenient=True)
    if dialect.note:
        notes.append(dialect.note)
    usual = delimited.BY_ENDING.get(row_files.form_of(path))
    if dialect.separator != usual:
        needed = {**needed, "separator": dialect.separator}
    if "quoting" in dialect.note:
        needed = {**needed, "quoting": dialect.quoting}
    first_line: tuple[str, ...] = ()
    if options.columns is None:
        names = _first_record(path, options, dialect)
        if looks_like_data(names):
            first_line = tuple(names)
            columns = tuple(f"column {number}" for number in range(1, len(names) + 1))
            options = options.model_copy(update={"columns": columns})
            notes.append(FIRST_LINE_IS_A_ROW)
    settled = {"separator": dialect.separator, "quoting": dialect.quoting}
    return options.model_copy(update=settled), needed, first_line


def _lines_before(path: pathlib.Path, options: FileConfig, opened: delimited.Opened) -> int:
    """How many lines seem to stand before the one that names the columns."""
    with opened() as lines:
        sample = list(islice(lines, dialect.SAMPLE))
    usual = delimited.BY_ENDING.get(row_files.form_of(path), ",")
    if options.columns or re.match(r'\s*"?sep=', sample[0] if sample else "", re.IGNORECASE):
        return 0
    candidates = [options.separator] if options.separator else [usual, *delimited.SEPARATORS]
    quotings: tuple[delimited.Quoting, ...] = ("csv", "backslash", "single")
    if any(dialect.separator_of(sample, quoting) for quoting in quotings):
        return 0  # all lines are even from the first one on
    return next(filter(None, (dialect.lines_before(sample, sign) for sign in candidates)), 0)


def _first_record(path: pathlib.Path, options: FileConfig, dialect: dialect.Dialect) -> list[str]:
    """The fields of a table's first line, which should name its columns."""
    with table_lines(path, options)() as lines:
        rest = islice(lines, dialect.skip, None)
        for record in delimited.records(
            rest, dialect.separator, quoting=dialect.quoting, first_number=dialect.skip + 1
        ):
            if not record.is_blank:
                return record.fields
    return []
