"""A file's rows in pieces of a fixed number, so that memory does not grow with the file."""

import itertools
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ptune.data.formats.columnar import (
    COLUMNAR,
    batches_of,
    check_names,
    check_options,
    rows_of,
    schema_of,
)
from ptune.data.shards.listing import ShardFile
from ptune.errors import DataError, nearest
from ptune.settings import FileConfig


@dataclass(frozen=True)
class Piece:
    """Rows that stand behind each other in a file.

    Attributes:
        rows: the rows.
        columns: the Arrow table that they are of, which has their types; None for other files.
        first: the line of the first of its rows in that table.
    """

    rows: Sequence[Mapping[str, Any]]
    columns: Any = None
    first: int = 1


def pieces(rows: Iterable[Mapping[str, Any]], size: int) -> Iterator[Piece]:
    """Rows in pieces of ``size``; the last one may be smaller."""
    following = iter(rows)
    while piece := list(itertools.islice(following, size)):
        yield Piece(piece)


def columnar_pieces(path: pathlib.Path, options: FileConfig, size: int) -> Iterator[Piece]:
    """The rows of a Parquet or Arrow file in pieces that keep its columns' types.

    Raises:
        DataError: it cannot be read.
    """
    check_options(path, options)
    first = 1
    for table in _tables(path, size):
        columns = _renamed(table, path, options)
        yield Piece(rows_of(columns, path, first), columns, first)
        first += columns.num_rows


def _tables(path: pathlib.Path, size: int) -> Iterator[Any]:
    """The Arrow tables of ``size`` rows each that a file is cut into."""
    kept: list[Any] = []
    for batch in batches_of(path):
        while batch.num_rows:
            lacking = size - sum(part.num_rows for part in kept)
            kept.append(batch.slice(0, lacking))
            batch = batch.slice(lacking)
            if kept[-1].num_rows == lacking:
                yield _table(kept)
                kept = []
    if kept:
        yield _table(kept)


def _table(batches: Sequence[Any]) -> Any:
    import pyarrow

    return pyarrow.Table.from_batches(batches)


def _renamed(table: Any, path: pathlib.Path, options: FileConfig) -> Any:
    """A table whose columns are called as is asked for.

    Raises:
        DataError: two would be called alike, or one is not there.
    """
    for name, new in (options.rename or {}).items():
        if not {name, new} & set(table.column_names):
            raise DataError(
                f"{path}: rename speaks of {name!r}, and there is no such column. "
                f"{nearest(name, table.column_names)}"
            )
    names = [(options.rename or {}).get(name, name) for name in table.column_names]
    check_names(names, path)
    return table.rename_columns(names)


def check_same_columns(table: Sequence[ShardFile]) -> int | None:
    """Refuse a table of Parquet or Arrow files whose columns or types differ; return the number of
    rows, where the files say it without being read.

    Raises:
        DataError: they differ, or a file is damaged.
    """
    if table[0].ending not in COLUMNAR:
        return None
    total: int | None = 0
    first: Any = None
    for file in table:
        with file.opened() as stream:
            schema, rows = schema_of(stream, file.name, file.ending)
        check_names(schema.names, pathlib.Path(file.name))
        total = None if rows is None or total is None else total + rows
        first = schema if first is None else first
        if differs := _difference(first, schema):
            raise DataError(
                f"{file.name} has other columns than {table[0].name}: {differs}. All files of a "
                "table have the same."
            )
    return total


def _difference(first: Any, schema: Any) -> str:
    """What differs between the columns of two files, in words; empty where nothing does."""
    for name in dict.fromkeys((*first.names, *schema.names)):
        if name not in schema.names:
            return f"{name!r} is missing"
        if name not in first.names:
            return f"{name!r} is one more"
        if schema.field(name).type != first.field(name).type:
            return f"{name!r} is {schema.field(name).type}, and {first.field(name).type} there"
    return "" if first.names == schema.names else "they stand in another order"
