"""The names of a table's columns, and what to do where its first line is a row."""

import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ptune.data import row_files
from ptune.data.formats import delimited, json_rows
from ptune.data.formats.json_rows import row_of as row_of
from ptune.data.row import FileRow
from ptune.errors import DataError, nearest
from ptune.settings import FileConfig

TABLES = tuple(delimited.BY_ENDING)


def column_names(record: delimited.Record, path: pathlib.Path) -> tuple[str, ...]:
    """The columns' names from a table's first line; those without a name are numbered where there
    are several.

    Raises:
        DataError: a name stands twice.
    """
    names = record.fields
    if names.count("") > 1:
        names = [name or f"column {number}" for number, name in enumerate(names, 1)]
    for name in names:
        if names.count(name) > 1:
            places = [number for number, other in enumerate(names, 1) if other == name]
            advice = headerless_hint(names) or "Rename one of them in the file."
            raise DataError(
                f"{path}, line {record.line}: the column {name!r} stands twice, as columns "
                f"{places[0]} and {places[1]}: "
                f"which is meant? {advice}"
            )
    return tuple(names)


def given_names(path: pathlib.Path, options: FileConfig) -> tuple[str, ...]:
    """The columns' names that ``columns`` gives; none where it gives none.

    Raises:
        DataError: a name stands twice.
    """
    names = tuple(options.columns or ())
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(
            f"{path}: data: {{columns: ...}} names {twice[0]!r} twice: which column is meant? Give "
            "each another name."
        )
    return names


def looks_like_data(names: Iterable[str]) -> bool:
    """Whether names of columns look like a row: a number or a long text among them."""
    return any(re.fullmatch(r"[-+]?\d[\d.,:-]*", name.strip()) or len(name) > 100 for name in names)


HEADER_TAKEN = (
    "The first line of the file was taken for the names of its {} columns and looks like a row: "
    "if it is one,"
)


def headerless_hint(names: Iterable[str]) -> str:
    """What to do where a table's first line seems to be a row; empty where it does not."""
    names = list(names)
    if not looks_like_data(names) and not any(
        len(name) > 40 or name.strip().endswith((".", "?", "!")) for name in names
    ):
        return ""
    return header_advice(names)


def header_advice(names: Sequence[str]) -> str:
    """What to do where a table's first line is a row."""
    return (
        f"{HEADER_TAKEN.format(len(names))} name the columns by "
        f"data: {{columns: [{', '.join(likely_names(names))}]}} (a name for each of the "
        f"{len(names)})."
    )


def likely_names(first_line: Sequence[str]) -> list[str]:
    """A name for each column of a table whose first line is a row: its longest value is taken for
    the text, its shortest for the label."""
    lengths = list(map(len, first_line))
    names = [f"column{number}" for number in range(1, len(lengths) + 1)]
    names[lengths.index(min(lengths))] = "label"
    names[lengths.index(max(lengths))] = "text"
    return names


def field_hint(name: str, row: Mapping[str, Any]) -> str:
    """Where a field that a row lacks may be: under a like name, in a file without a header, deeper
    in a nested file."""
    if (
        isinstance(row, FileRow)
        and row_files.form_of(pathlib.Path(row.file)) in TABLES
        and (hint := headerless_hint(map(str, row)))
    ):
        return hint
    if path := json_rows.path_to(dict(row), name):
        return (
            f"It stands deeper in the file: data: {{record_path: {path}}} takes the rows from "
            "there."
        )
    return nearest(name, map(str, row))
