"""The rows of Parquet and Arrow files, which pyarrow reads."""

import contextlib
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
        DataError: it cannot be read, pyarrow is not installed, or an option is of other files.
    """
    check_options(path, options)
    number = 0
    for batch in batches_of(path):
        for row in batch.to_pylist():
            number += 1
            yield FileRow(row, str(path), number)


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
