"""The rows of Parquet and Arrow files, which pyarrow reads."""

import contextlib
import datetime
import decimal
import pathlib
from collections.abc import Iterator
from typing import Any

from ptune.data.row import FileRow
from ptune.data.row_files import form_of
from ptune.errors import DataError
from ptune.settings import FileConfig

COLUMNAR = (".parquet", ".arrow", ".feather")
KINDS = {".parquet": ("a Parquet file", "pandas: read_parquet(...).to_json(..., orient='records'")}
ARROW = ("an Arrow file", "datasets: Dataset.from_file(...).to_json(...")
AT_ONCE = 1024  # rows that are read together
OF_TEXT_FILES = ("separator", "quoting", "columns", "skip_lines", "encoding", "record_path")


def columnar_rows(path: pathlib.Path, options: FileConfig) -> Iterator[FileRow]:
    """The rows of a file, each with its number from 1 in the place of a line.

    Raises:
        DataError: it cannot be read, pyarrow is not installed, an option is of other files, or a
            column holds bytes that are no text.
    """
    check_options(path, options)
    first = 1
    for batch in batches_of(path):
        rows = rows_of(batch, path, first)
        for row in rows:
            if name := next((name for name, value in row.items() if _has_bytes(value)), None):
                raise DataError(
                    f"{path}: the column {name!r} holds bytes that are no text (row {row.line} has "
                    "the first), which rows cannot hold: leave that column out of the file."
                )
            yield row
        first += len(rows)


def rows_of(columns: Any, path: pathlib.Path, first: int) -> list[FileRow]:
    """The rows of an Arrow table or record batch. Dates, times, exact numbers, and bytes of UTF-8
    are texts in them; other bytes stay what they are.

    Args:
        path: the file that it is of.
        first: the number of the first row there.

    Raises:
        DataError: two columns have the same name, or a value is none of Python's.
    """
    check_names(columns.schema.names, path)
    try:
        rows = columns.to_pylist()
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"{path} cannot be read: a value behind row {first - 1} is none of Python's: {error}"
        ) from error
    return [FileRow(_plain(row), str(path), line) for line, row in enumerate(rows, first)]


def check_names(names: list[str], path: pathlib.Path) -> None:
    """Refuse columns of the same name.

    Raises:
        DataError: there are two.
    """
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"{path}: two columns are called {twice!r}, by their names or by rename.")


def _plain(value: Any) -> Any:
    """A value as JSON may hold it, but for bytes that are no text."""
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta | decimal.Decimal):
        return str(value)
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode()
    return value


def _has_bytes(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_has_bytes, value.values() if isinstance(value, dict) else value))
    return isinstance(value, bytes)


def check_options(path: pathlib.Path, options: FileConfig) -> None:
    """Refuse options that such files do not have.

    Raises:
        DataError: one is given.
    """
    for name in OF_TEXT_FILES:
        if getattr(options, name) is not None:
            raise DataError(
                f"{path} is {_kind(form_of(path))[0]} by its name, and {name} is an option of "
                "text files: leave it out."
            )


def batches_of(path: pathlib.Path) -> Iterator[Any]:
    """The record batches of a file.

    Raises:
        DataError: it cannot be read, or pyarrow is not installed.
    """
    form = form_of(path)
    with _read_by_pyarrow(str(path), form) as pyarrow:
        if form == ".parquet":
            yield from _parquet_batches(path)
            return
        with pyarrow.memory_map(str(path)) as stream:
            yield from _arrow_batches(stream)


def _parquet_batches(path: pathlib.Path) -> Iterator[Any]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        yield from file.iter_batches(AT_ONCE)


def _arrow_batches(stream: Any) -> Iterator[Any]:
    opened = _opened_arrow(stream)
    if hasattr(opened, "num_record_batches"):
        return (opened.get_batch(number) for number in range(opened.num_record_batches))
    return iter(opened)


def _opened_arrow(stream: Any) -> Any:
    """The reader of an Arrow file, or of a stream in a file."""
    from pyarrow import ipc

    is_file = stream.read(6) == b"ARROW1"
    stream.seek(0)
    return (ipc.open_file if is_file else ipc.open_stream)(stream)


def schema_of(stream: Any, name: str, form: str) -> tuple[Any, int | None]:
    """The columns of a file with their types, and the number of its rows where it says that.

    Args:
        stream: its bytes.
        name: the file, for messages.

    Raises:
        DataError: it cannot be read, or pyarrow is not installed.
    """
    with _read_by_pyarrow(name, form):
        from pyarrow import parquet

        if form != ".parquet":
            return _opened_arrow(stream).schema, None
        file = parquet.ParquetFile(stream)
        return file.schema_arrow, file.metadata.num_rows


def _kind(form: str) -> tuple[str, str]:
    return KINDS.get(form, ARROW)


@contextlib.contextmanager
def _read_by_pyarrow(name: str, form: str) -> Iterator[Any]:
    """The library, whose errors within the block become sentences.

    Raises:
        DataError: the file cannot be read, or pyarrow is not installed.
    """
    what, how = _kind(form)
    try:
        import pyarrow
    except ImportError as error:
        raise DataError(
            f"{name} is {what} by its name, and pyarrow, which reads such, is not installed: pip "
            f"install 'ptune[data]'; or write it as JSON lines, as by {how}, lines=True)."
        ) from error
    try:
        yield pyarrow
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "it is damaged"
        raise DataError(f"{name} cannot be read as {what}: {reason}") from error
