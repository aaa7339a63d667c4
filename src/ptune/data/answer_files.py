"""Rows out, each with its answer, in the form that the file's name says.

JSON lines (``.jsonl``, and standard output): the row's fields as they are, and one more, ``ptune``,
with the answer: ``{"text": "...", "ptune": {"prediction": "good", "scores": {"good": 0.9, "bad":
0.1}}}``; of written text ``{"ptune": {"text": "..."}}``, or ``"texts"`` where several are asked
for. Tables (``.csv``, ``.tsv``): the file's columns, and one for each part of the answer:
``ptune_prediction`` (empty where no answer was given) and ``ptune_probability``, with a
``ptune_set`` where sets of labels are asked for; or ``ptune_text``. CoNLL (``.conll``): the lines
of the rows' own file, with the label of each word in one more column (``tasks/layouts/conll.py``).
"""

import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TextIO

from ptune.base import terminal
from ptune.base.file_names import partial_file, partial_note
from ptune.data import output_files
from ptune.data.formats import delimited
from ptune.data.formats.json_rows import written
from ptune.errors import ConfigError, DataError, nearest

KEY = "ptune"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
CONLL = ".conll"
FORMS = (".jsonl", *DELIMITERS, CONLL)
LABEL_SEPARATOR = ";"
OVERWRITE = "give --overwrite to replace it"


class Writer(Protocol):
    """Puts rows out."""

    def check(self, row: Mapping[str, Any]) -> None:
        """Refuse a row that cannot be put out with an answer.

        Raises:
            DataError: the reason.
        """

    def put(self, row: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Put out a row with its answer."""

    def begin(self, columns: Sequence[str], parts: Sequence[str]) -> None:
        """Put out what stands above the rows, where no row follows.

        Args:
            columns: the names of the rows' columns; parts: those of an answer's (``cells``).
        """

    def has(self, row: Mapping[str, Any], record: str) -> bool:
        """Whether a record that was put out before is this row's; the first record of a table
        names its columns and belongs to the first row."""


def is_folder(path: pathlib.Path | None) -> bool:
    """Whether answers go into a folder of files: one that is there, or a name without an ending."""
    return path is not None and (not path.suffix or path.is_dir() and path.suffix not in FORMS)


def is_conll(path: pathlib.Path | None) -> bool:
    """Whether answers go into a CoNLL file."""
    return path is not None and path.suffix == CONLL


def check(
    path: pathlib.Path | None, read_from: pathlib.Path | None = None, may_replace: bool = True
) -> None:
    """Refuse a file that answers cannot be written to.

    Args:
        read_from: the file of the rows.
        may_replace: whether a file that stands there may be lost.

    Raises:
        ConfigError: the name does not say how answers are written, or a folder, the rows
            themselves, or what may not be lost stand there.
    """
    if path is None:
        return
    if path.suffix not in FORMS:
        raise ConfigError(
            f"{path} is of no known form: its name should end in {', '.join(FORMS)}. A name "
            "without an ending is a folder's, which takes any number of answers, Parquet too."
        )
    output_files.check(
        path,
        "--out",
        may_replace=may_replace,
        advice=OVERWRITE,
        read_from=read_from,
        beside=(partial_file(path), partial_note(path)),
    )


def records(path: pathlib.Path) -> Iterator[tuple[str, int]]:
    """The records of the file that becomes this one, as they stand there by now, each with the
    number of bytes up to its end; one that is not whole ends them."""
    in_table = path.suffix in DELIMITERS
    record, end = "", 0
    with open(partial_file(path), "rb") as stream:
        for line in stream:
            end += len(line)
            record += line.decode(errors="replace")
            is_whole = not in_table or record.count('"') % 2 == 0
            if is_whole and record.endswith("\n"):
                yield record, end
                record = ""


def writer(path: pathlib.Path | None, stream: TextIO, label_separator: str | None = None) -> Writer:
    """What writes rows and answers in the form of a file's name (``check``); JSON lines where there
    is none.

    Args:
        label_separator: what stands in a table's cell between the labels of a row that may have
            several.
    """
    if path is None or path.suffix not in DELIMITERS:
        return JsonLines(stream)
    return Table(stream, DELIMITERS[path.suffix], label_separator or LABEL_SEPARATOR)


class JsonLines(Writer):
    """One JSON object a line; a terminal gets nothing in it to obey."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.spelt = terminal.clean_json if stream.isatty() else str

    def check(self, row: Mapping[str, Any]) -> None:
        if KEY in row:
            raise DataError(
                f"The row has a field {KEY!r} already, where its answer should go: rename that "
                "field."
            )

    def put(self, row: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        self.stream.write(self.spelt(written({**row, KEY: answer})) + "\n")

    def begin(self, columns: Sequence[str], parts: Sequence[str]) -> None:
        """Nothing stands above the lines."""

    def has(self, row: Mapping[str, Any], record: str) -> bool:
        return record.startswith(written({**row, KEY: None}).removesuffix("null}"))


class Table(Writer):
    """A table whose columns are those of the first row, and the answer's."""

    def __init__(self, stream: TextIO, delimiter: str, label_separator: str = LABEL_SEPARATOR):
        self.stream, self.delimiter, self.label_separator = stream, delimiter, label_separator
        self.columns: list[str] | None = None
        self.begun = False

    def check(self, row: Mapping[str, Any]) -> None:
        if self.columns is None:
            self.columns = list(row)
            taken = [name for name in self.columns if name.startswith(f"{KEY}_")]
            if taken:
                raise DataError(
                    f"The rows have a column {taken[0]!r} already, and the answers' columns begin "
                    "so: rename it."
                )
        if unknown := next((name for name in row if name not in self.columns), None):
            raise DataError(
                f"The row has a field {unknown!r}, and the table has the columns of the first row. "
                f"{nearest(unknown, self.columns)} JSON lines (.jsonl) take any fields."
            )

    def put(self, row: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        parts = cells(answer)
        if isinstance(parts.get("prediction"), list) and isinstance(answer.get("scores"), Mapping):
            for name in ("prediction", "probability"):
                parts[name] = self.label_separator.join(map(_cell, parts[name]))
        columns = self.columns or []
        if not self.begun:
            self.begin(columns, list(parts))
        self._write([*(_cell(row.get(name)) for name in columns), *map(_cell, parts.values())])

    def begin(self, columns: Sequence[str], parts: Sequence[str]) -> None:
        self._write([*columns, *(f"{KEY}_{name}" for name in parts)])
        self.begun = True

    def _write(self, fields: Sequence[str]) -> None:
        self.stream.write(delimited.written(fields, self.delimiter))

    def has(self, row: Mapping[str, Any], record: str) -> bool:
        columns = self.columns or []
        expected = [_cell(row.get(name)) for name in columns] if self.begun else columns
        lines = io.StringIO(record, newline="\n")
        fields = next(delimited.records(lines, self.delimiter, quoting="csv")).fields
        self.begun = True
        return fields[: len(columns)] == expected


def cells(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of an answer that have a column: of the labels' scores only the best one's, of
    several labels theirs, in the same order."""
    rest = dict(answer)
    if "scores" not in rest:
        return rest
    scores, prediction = rest.pop("scores"), rest.pop("prediction")
    if isinstance(scores, list):  # of the row's words
        return {"prediction": prediction, "probability": scores, **rest}
    probability = max(scores.values())
    if isinstance(prediction, list):
        probability = [scores[label] for label in prediction]
    return {"prediction": prediction, "probability": probability, **rest}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else written(value)
