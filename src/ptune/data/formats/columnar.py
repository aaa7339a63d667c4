"""The rows of Parquet and Arrow files, which pyarrow reads."""

import pathlib
from collections.abc import Iterator
from typing import Any

from ptune.data.row import FileRow
from ptune.errors import DataError
from ptune.settings import FileConfig

COLUMNAR = (".parquet", ".arrow", ".feather")
KINDS = {".parquet": ("a Parquet file", "pandas: read_parquet(...).to_json(..., orient='records'")}
ARROW = ("an Arrow file", "datasets: Dataset.from_file(...).to_json(...")
AT_ONCE = 1024  # rows that are read together
OF_TEXT_FILES = ("separator", "quoting", "columns", "skip_lines", "encoding", "record_path")


def columnar_rows(path: pathlib.Path, form: str, options: FileConfig) -> Iterator[FileRow]:
    """The rows of a file, each with its number from 1 in the place of a line.

    Raises:
        DataError: it cannot be read, pyarrow is not installed, or an option is of other files.
    """
    for name in OF_TEXT_FILES:
        if getattr(options, name) is not None:
            raise DataError(
                f"{path} is {_kind(form)[0]} by its name, and {name} is an option of text files: "
                "leave it out."
            )
    number = 0
    for batch in _batches(path, form):
        for row in batch.to_pylist():
            number += 1
            yield FileRow(row, str(path), number)


def _kind(form: str) -> tuple[str, str]:
    return KINDS.get(form, ARROW)


def _batches(path: pathlib.Path, form: str) -> Iterator[Any]:
    """The record batches of a file.

    Raises:
        DataError: it cannot be read, or pyarrow is not installed.
    """
    what, how = _kind(form)
    try:
        import pyarrow
        from pyarrow import ipc, parquet
    except ImportError as error:
        raise DataError(
            f"{path} is {what} by its name, and pyarrow, which reads such, is not installed: pip "
            f"install 'ptune[data]'; or write it as JSON lines, as by {how}, lines=True)."
        ) from error
    try:
        if form == ".parquet":
            yield from parquet.ParquetFile(path).iter_batches(AT_ONCE)
            return
        with pyarrow.memory_map(str(path)) as stream:
            is_file = stream.read(6) == b"ARROW1"
            stream.seek(0)
            opened = (ipc.open_file if is_file else ipc.open_stream)(stream)
            if is_file:
                yield from (opened.get_batch(n) for n in range(opened.num_record_batches))
            else:
                yield from opened
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "it is damaged"
        raise DataError(f"{path} cannot be read as {what}: {reason}") from error
