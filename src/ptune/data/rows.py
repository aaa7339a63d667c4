"""Rows from files as people have them: CSV, TSV and their kin, JSON lines, JSON; a fault is told
with its line."""

import os
import pathlib
from collections.abc import Iterator, Mapping

from ptune.data import row_files
from ptune.data.formats.columnar import COLUMNAR, columnar_rows
from ptune.data.formats.header import TABLES
from ptune.data.formats.json_files import json_file_rows
from ptune.data.formats.json_rows import row_of as row_of
from ptune.data.formats.table_rows import table_rows
from ptune.data.row import FileRow
from ptune.errors import DataError, nearest
from ptune.settings import FileConfig

JSON = (".jsonl", ".json", ".ndjson")
FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow")
AS_IT_IS = FileConfig()


def read_rows(
    path: str | os.PathLike[str],
    skipped: list[str] | None = None,
    options: FileConfig = AS_IT_IS,
    notes: list[str] | None = None,
) -> list[FileRow]:
    """The rows of a file.

    Args:
        skipped: where given, bad lines are left out and what was wrong with them is put here.
        options: how to read it, where it is not to be decided by the file itself.
        notes: where given, what was decided and could have been otherwise is put here.

    Raises:
        DataError: the file is missing, empty, or of no known format, or a line is bad: its number
            is told.
    """
    rows = list(iterate_rows(path, skipped, options, notes))
    if not rows:
        raise DataError(f"{path} holds no rows.")
    return rows


def iterate_rows(
    path: str | os.PathLike[str],
    skipped: list[str] | None = None,
    options: FileConfig = AS_IT_IS,
    notes: list[str] | None = None,
) -> Iterator[FileRow]:
    """The rows of a file one by one; see ``read_rows``."""
    path, notes = pathlib.Path(path), [] if notes is None else notes
    form = row_files.form_of(path)
    rows: Iterator[FileRow]
    if form in JSON:
        rows = json_file_rows(path, form, options, skipped=skipped, notes=notes)
    elif form in COLUMNAR:
        rows = columnar_rows(path, options)
    elif form in TABLES or options.separator:
        rows = table_rows(path, options, skipped, notes)
    else:
        with row_files.opened(path, options.encoding):
            pass  # what it is by its first bytes is more useful to know
        raise DataError(
            f"{path} is of no known format ({', '.join(FORMATS)}); .jsonl holds one JSON object a "
            "line. A table with another ending is read "
            f'by data: {{separator: ","}}, a text on each line by data: {{form: lines}}.'
        )
    for row in rows:
        yield _renamed(row, options.rename) if options.rename else row


def _renamed(row: FileRow, names: Mapping[str, str]) -> FileRow:
    for name in names:
        if name not in row and names[name] not in row:
            raise DataError(
                f"{row.place}: rename speaks of {name!r}, and there is no such column. "
                f"{nearest(name, row)}"
            )
    renamed = {names.get(name, name): value for name, value in row.items()}
    if len(renamed) < len(row):
        twice = next(
            new for new in names.values() if [names.get(name, name) for name in row].count(new) > 1
        )
        raise DataError(f"{row.place}: by rename two columns would be called {twice!r}.")
    return row.changed(renamed)
