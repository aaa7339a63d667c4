"""CoNLL's files: a word on each line with its label in the last column, and an empty line behind
each sentence (Tjong Kim Sang and De Meulder 2003); read, and written with one more column for
answers."""

import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TextIO

from ptune.data import row_files
from ptune.data.answer_files import Writer
from ptune.data.formats.header import given_names
from ptune.data.row import FileRow
from ptune.data.rows import JSON
from ptune.errors import ConfigError, DataError
from ptune.metrics.entities import OUTSIDE
from ptune.settings import FileConfig

DOCUMENT = "-DOCSTART-"  # the word of a line that begins a document, and is no sentence
BLANKS = " \t\r\f\v"
WORDS, LABELS = "words", "label"
FORMS = ("conll",)
_PARTED = {"\t": "a tab", " ": "white space"}


def read(
    path: pathlib.Path, options: FileConfig, skipped: list[str] | None = None
) -> list[FileRow]:
    """The sentences of a file, each a row whose fields are lists: ``words``, the first column, and
    ``label``, the last, where there is more than one; the columns between are ``column 2`` and so
    on. ``columns`` gives them other names; a file without the last of those has no labels.

    Columns are parted by tabs, or in a file whose first line has none by white space. A line
    that begins with # and has no tab is a comment where the others have tabs; where they have white
    space, one that stands above the first word, or that begins with the same two words (`# id`).

    Args:
        skipped: where given, sentences with a bad line are left out and what was wrong with them
            is put here.

    Raises:
        DataError: it cannot be read, holds no sentences, or a line lacks a word or a label.
        ConfigError: the names of the columns are not as many as the columns.
    """
    path = pathlib.Path(path)
    if row_files.form_of(path) in JSON:
        raise DataError(f"{path} is named as JSON, and a CoNLL file has a word on each line.")
    rows: list[FileRow] = []
    with _opened(path, options) as stream:
        file = _File(path, options)
        for lines in _sentences(stream):
            try:
                if row := file.row(lines):
                    rows.append(row)
            except DataError as error:
                if skipped is None:
                    raise
                skipped.append(str(error))
    if not rows and not skipped:
        raise DataError(f"{path} holds no sentences.")
    return rows


class Answers(Writer):
    """Answers as a CoNLL file: the lines of the rows' own file, those of words with one more
    column, the predicted label. It is written whole, when every word has one.

    Args:
        path, options: the file of the rows, and how it is read.
        labels: all labels that there are.

    Raises:
        ConfigError: a label has a blank that would part it into columns.
    """

    def __init__(self, path: pathlib.Path, options: FileConfig, labels: Sequence[str]):
        self.path, self.options = path, options
        self.predicted: list[str] = []
        with _opened(path, options) as stream:
            file = _File(path, options)
            lines = ((n, line.rstrip("\r\n")) for n, line in enumerate(stream, 1) if line.strip())
            any(file.has_word(*line) for line in lines)
        blanks = "\t\r\n" if file.separator_of_labels == "\t" else f"{BLANKS}\n"
        if unfit := next((name for name in labels if set(name) & set(blanks)), None):
            raise ConfigError(
                f"The columns of {path} have {_PARTED[file.separator_of_labels]} between them, and "
                f"the label {unfit!r} has it within: give --out a name that ends in .jsonl."
            )

    def check(self, row: Mapping[str, Any]) -> None:
        """Any row of the file has its lines there."""

    def put(self, row: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        self.predicted += answer["prediction"]

    def begin(self, columns: Sequence[str], parts: Sequence[str]) -> None:
        """Nothing stands above the lines."""

    def has(self, row: Mapping[str, Any], record: str) -> bool:
        return False  # nothing is put out before the whole

    @property
    def text(self) -> str:
        """The file's text."""
        file, labels = _File(self.path, self.options), iter(self.predicted)
        with _opened(self.path, self.options) as stream:
            return "".join(file.labelled(n, line, labels) for n, line in enumerate(stream, 1))


def _opened(path: pathlib.Path, options: FileConfig) -> AbstractContextManager[TextIO]:
    newline = row_files.line_end(path, options.encoding)
    return row_files.opened(path, options.encoding, newline, lenient=True)


def _sentences(stream: TextIO) -> Iterator[list[tuple[int, str]]]:
    """The lines of each sentence with their numbers. White space alone makes an empty line, and
    what stands before a document's first line is of another sentence."""
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(stream, 1):
        if lines and line.split()[:1] in ([], [DOCUMENT]):
            yield lines
            lines = []
        if line.strip():
            lines.append((number, line.rstrip("\r\n")))
    if lines:
        yield lines


class _File:
    """A file whose first line of a word says how many columns there are, and what parts them."""

    def __init__(self, path: pathlib.Path, options: FileConfig):
        self.path, self.options, self.names = path, options, given_names(path, options)
        self.separator: str | None = None
        self.columns: Sequence[str] = ()
        self.beginnings_of_remarks: set[tuple[str, ...]] = set()
        self.first = 0

    def row(self, lines: list[tuple[int, str]]) -> FileRow | None:
        """The row of a sentence; None where its lines are no words.

        Raises:
            DataError: a line is at fault.
        """
        cells, begin = [], 0
        for number, line in lines:
            if not self.has_word(number, line):
                continue
            words = self._cells(line)
            self._check(number, line, words)
            if words[0] != DOCUMENT:
                begin = begin or number
                cells.append(words)
        if not cells:
            return None
        values = {name: [cell[n] for cell in cells] for n, name in enumerate(self.columns)}
        return FileRow(values, str(self.path), begin)

    def has_word(self, number: int, line: str) -> bool:
        """Whether a line has columns and is no comment; the first one that has says how the others
        are written.

        Raises:
            ConfigError: the names of the columns are not as many.
        """
        if not self.columns and not _is_remark(line):
            self._take_first(number, line)
        beginning = tuple(line.split()[:2])
        if not self.columns:
            self.beginnings_of_remarks.add(beginning)
            return False
        return not (
            _is_remark(line) and (self.separator or beginning in self.beginnings_of_remarks)
        )

    @property
    def separator_of_labels(self) -> str:
        """What parts one more column from the others: what parts these."""
        return self.separator or (" " if len(self.columns) > 1 else "\t")

    def labelled(self, number: int, line: str, labels: Iterator[str]) -> str:
        """A line with its end, and with the next label behind it where it has a word."""
        text = line.rstrip("\r\n")
        if not text.strip() or not self.has_word(number, text):
            return line
        label = OUTSIDE if self._cells(text)[0] == DOCUMENT else next(labels)
        return f"{text.rstrip(BLANKS)}{self.separator_of_labels}{label}{line[len(text) :]}"

    def _cells(self, line: str) -> list[str]:
        """The columns of a line; spaces that belong to words, such as the one that breaks no line,
        part none."""
        if self.separator:
            return [word.strip(BLANKS) for word in line.split(self.separator)]
        return re.split(f"[{BLANKS}]+", line.strip(BLANKS))

    def _take_first(self, number: int, line: str) -> None:
        """Learn from the first line how the others are written.

        Raises:
            ConfigError: the names of the columns are not as many.
        """
        self.separator = "\t" if "\t" in line else None
        count = len(self._cells(line))
        between = [f"column {n}" for n in range(2, count)]
        default = [WORDS, *between, LABELS] if count > 1 else [WORDS]
        self.columns, self.first = self.names or default, number
        if count > 1 and count == len(self.columns) - 1:
            self.columns = self.columns[:-1]  # a file that is to be labelled
        if len(self.columns) != count:
            raise ConfigError(
                f"{self.path}, line {number} has {count} columns, and columns names "
                f"{len(self.columns)}: {', '.join(self.columns)}."
            )

    def _check(self, number: int, line: str, words: Sequence[str]) -> None:
        """Refuse a line that lacks a column, or whose text is no Unicode.

        Raises:
            DataError: it is one.
        """
        if row_files.is_undecoded(line):
            raise DataError(row_files.undecoded(self.path, number, self.options.encoding, False))
        count = len(self.columns)
        if len(words) != count or not all(map(str.strip, words)):
            parted = _PARTED["\t" if self.separator else " "]
            expected = {
                1: "a word alone is",
                2: f"a word and its label with {parted} between them are",
            }.get(count, f"{count} columns with {parted} between them are")
            raise DataError(
                f"{self.path}, line {number}: {expected} expected, as in line {self.first}, and "
                f"it is: {line[:60]!r}."
            )


def _is_remark(line: str) -> bool:
    """Whether a line may be a comment: it begins with #, has no tab, and is more than a word and a
    label."""
    return line.startswith("#") and "\t" not in line and len(line.split()) > 2
