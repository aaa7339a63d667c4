"""A row that knows where it stands, and what its values mean."""

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ptune.data.formats import json_rows
from ptune.data.formats.json_rows import row_of as row_of
from ptune.errors import DataError

QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")
LIST_IN_A_CELL = re.compile(r"""\[\s*(('[^']*'|"[^"]*")\s*(,\s*|(?=\])))*\]""")


class FileRow(dict[str, Any]):
    """A row that knows where it stands.

    Attributes:
        file: the file; line: the number of its first line there; split: what it is for, such as
            "train", where that is known.
    """

    __slots__ = ("file", "line", "split")

    def __init__(self, values: Mapping[str, Any], file: str = "", line: int = 0, split: str = ""):
        super().__init__(values)
        self.file, self.line, self.split = file, line, split

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return f"{self.file}, line {self.line}{f' ({self.split})' if self.split else ''}"

    def changed(self, values: Mapping[str, Any], split: str = "") -> "FileRow":
        """Other values in the same place."""
        return FileRow(values, self.file, self.line, split or self.split)


def place_of(row: Mapping[str, Any], number: int) -> str:
    """Where a row stands: its line in its file, or the number that it has among others."""
    return row.place if isinstance(row, FileRow) and row.file else f"Row {number}"


def spelled(value: Any) -> str:
    """A value as its file spells it: JSON's true, 5.00, a text as it is."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def label_of(value: Any, labels: Sequence[str]) -> str:
    """The label that a row's value stands for; a truth may be a task's label True as well as
    true."""
    name = spelled(value)
    return (
        str(value)
        if isinstance(value, bool) and name not in labels and str(value) in labels
        else name
    )


def chosen(value: Any) -> Any:
    """A value, of an object with nothing but "choices" those."""
    return value["choices"] if isinstance(value, dict) and list(value) == ["choices"] else value


def label_names(value: Any, separator: str | None) -> list[str]:
    """The labels of a row that may have several: a list, an object with a list of "choices" (Label
    Studio), or a cell of a table, which is split by the separator, or is written as a list, as
    pandas writes one. An empty cell has none.

    Raises:
        DataError: it is neither a list nor a text.
    """
    value = chosen(value)
    if isinstance(value, str):
        if LIST_IN_A_CELL.fullmatch(value.strip()):
            value = [name[1:-1] for name in QUOTED.findall(value)]
        else:
            value = value.split(separator) if separator else [value]
    if not isinstance(value, list) or any(isinstance(name, list | dict) for name in value):
        raise DataError(
            'A row that may have several labels (multi_label) holds a list of them, ["a", "b"], or '
            f"[] where it has none, and this one holds {json_rows.written(value)[:60]}."
        )
    if any(is_missing(name) for name in value):
        raise DataError("A list of labels holds null: leave that out.")
    names = [spelled(name).strip() for name in value]
    return list(dict.fromkeys(name for name in names if name))


def is_missing(value: Any) -> bool:
    """Whether a value is none: null, or the NaN or NaT that data frames write in its place."""
    if isinstance(value, datetime.datetime):
        return value != value  # pandas' NaT is a datetime, and equal to nothing
    return value is None or isinstance(value, float) and math.isnan(value)


def refuse_or_skip(message: str, skipped: list[str] | None) -> None:
    """Note what is wrong with a row that is to be left out.

    Raises:
        DataError: nothing is to be left out, as ``skipped`` is None.
    """
    if skipped is None:
        raise DataError(message)
    skipped.append(message)
