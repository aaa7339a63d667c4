"""Rows out, each with its answer, in the form that the file's name says.

JSON lines (``.jsonl``, and standard output): the row's fields as they are, and one more, ``ptune``,
with the answer: ``{"text": "...", "ptune": {"prediction": "good", "scores": {"good": 0.9, "bad":
0.1}}}``; of written text ``{"ptune": {"text": "..."}}``, or ``"texts"`` where several are asked
for. Tables (``.csv``, ``.tsv``): the file's columns, and one for each part of the answer:
``ptune_prediction`` and ``ptune_probability``, or ``ptune_text``.
"""

import csv
import pathlib
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

from ptune.data.json_rows import written
from ptune.errors import ConfigError, DataError, nearest

KEY = "ptune"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
FORMS = (".jsonl", *DELIMITERS)


class Writer(Protocol):
    """Puts rows out."""

    def check(self, row: Mapping[str, Any]) -> None:
        """Refuse a row that cannot be put out with an answer.

        Raises:
            DataError: the reason.
        """

    def put(self, row: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Put out a row with its answer."""


def check(path: pathlib.Path | None) -> None:
    """Refuse a file name of no known form.

    Raises:
        ConfigError: the name does not say how answers are written.
    """
    if path is not None and path.suffix not in FORMS:
        raise ConfigError(f"{path} is of no known form: its name should end in {', '.join(FORMS)}.")


def writer(path: pathlib.Path | None, stream: TextIO) -> Writer:
    """What writes rows and answers in the form of a file's name (``check``); JSON lines where there
    is none."""
    if path is None or path.suffix not in DELIMITERS:
        return JsonLines(stream)
    return Table(stream, DELIMITERS[path.suffix])


class JsonLines:
    """One JSON object a line."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def check(self, row: Mapping[str, Any]) -> None:
        if KEY in row:
            raise DataError(
                f"The row has a field {KEY!r} already, where its answer should go: rename that "
                "field."
            )

    def put(self, row: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        self.stream.write(written({**row, KEY: answer}) + "\n")


class Table:
    """A table whose columns are those of the first row, and the answer's."""

    def __init__(self, stream: TextIO, delimiter: str):
        self.rows = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
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
        cells = _cells(answer)
        columns = self.columns or []
        if not self.begun:
            self.rows.writerow([*columns, *(f"{KEY}_{name}" for name in cells)])
            self.begun = True
        self.rows.writerow(
            [*(_cell(row.get(name)) for name in columns), *map(_cell, cells.values())]
        )


def _cells(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of an answer that have a column: of the labels' scores only the best one's."""
    cells = dict(answer)
    if "scores" in cells:
        scores = cells.pop("scores")
        probability = scores[answer["prediction"]]
        rest = {name: value for name, value in cells.items() if name != "prediction"}
        return {"prediction": answer["prediction"], "probability": probability, **rest}
    return cells


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return value if isinstance(value, str) else written(value)
