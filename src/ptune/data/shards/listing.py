"""The files of a table: one file, those of a folder or of a pattern, here or where fsspec finds
them."""

import contextlib
import pathlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ptune.base.file_names import like_file
from ptune.data.row_files import form_of
from ptune.errors import ConfigError, DataError, PtuneError

ENDINGS = {
    ".parquet": ".parquet",
    ".arrow": ".arrow",
    ".feather": ".feather",
    ".jsonl": ".jsonl",
    ".ndjson": ".jsonl",
    ".json": ".jsonl",
    ".csv": ".csv",
    ".tsv": ".tsv",
}
"""The endings of files of rows, and of the answers to them."""
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
PATTERN = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class ShardFile:
    """A file of a table.

    Attributes:
        name: what it is called among the table's files, and in messages where it is elsewhere.
        path: where it is.
        system: the file system of fsspec that holds it; None where it is on this machine's.
    """

    name: str
    path: str
    system: Any = None

    @property
    def ending(self) -> str:
        """Of what form it is, by its name."""
        return form_of(pathlib.Path(self.path))

    @contextlib.contextmanager
    def on_disk(self) -> Iterator[pathlib.Path]:
        """The file as one of this machine: itself, or a copy for as long as the block lasts.

        Raises:
            DataError: it cannot be fetched.
        """
        if self.system is None:
            yield pathlib.Path(self.path)
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / pathlib.PurePosixPath(self.path).name
            with _speaking_of(self.name):
                self.system.get_file(self.path, str(copy))
            try:
                yield copy
            except PtuneError as error:
                raise type(error)(str(error).replace(str(copy), self.name)) from error

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        """Its bytes, which are not fetched before they are read.

        Raises:
            DataError: it cannot be read.
        """
        with _speaking_of(self.name):
            opening = self.system.open if self.system else open
            stream = opening(self.path, "rb")
        with stream:
            yield stream


def is_table_of_files(data: str) -> bool:
    """Whether rows are named that are not those of one plain file of this machine."""
    if URL.match(data):
        return True
    path = pathlib.Path(data)
    return path.is_dir() or bool(PATTERN.search(data)) and not path.exists()


def shard_files(data: str) -> list[ShardFile]:
    """The files of a table, in the order of their names.

    Args:
        data: a file, a folder (with those within it), a pattern with ``*``, or a URL of these.

    Raises:
        ConfigError: there are none, or not all are of one known form.
        DataError: they cannot be listed.
    """
    table = _elsewhere(data) if URL.match(data) else _here(data)
    if not table:
        raise _no_file(data)
    _check_forms(data, table)
    return table


def check_matches(data: str) -> None:
    """Refuse a folder or a pattern of this machine without files.

    Raises:
        ConfigError: it has none.
    """
    if not URL.match(data) and not _here(data):
        raise _no_file(data)


def _no_file(data: str) -> ConfigError:
    reason = "No file matches" if PATTERN.search(data) else "There is no file of rows in"
    return ConfigError(f"{reason} {data}.")


def _here(data: str) -> list[ShardFile]:
    path = pathlib.Path(data)
    if path.is_dir():
        names = (file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
        return [ShardFile(name, str(path / name)) for name in sorted(names) if _is_data(name)]
    if not path.exists() and not PATTERN.search(data):
        raise ConfigError(f"There is no file or folder {data}.{like_file(path)}")
    if path.exists():
        return [ShardFile(path.name, data)]
    root = pathlib.Path(path.anchor or ".")
    with _speaking_of(data):
        matches = sorted(root.glob(str(path.relative_to(path.anchor))))
    return [ShardFile(str(file), str(file)) for file in matches if file.is_file()]


def _elsewhere(data: str) -> list[ShardFile]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise DataError(
            f"{data} is a URL, and fsspec, which reads such, is not installed: pip install "
            "'ptune[data]'."
        ) from error
    with _speaking_of(data):
        system, path = url_to_fs(data)
        if PATTERN.search(path):
            paths = [match for match in system.glob(path) if system.isfile(match)]
        elif system.isdir(path):
            inner = path.rstrip("/") + "/"
            paths = [file for file in system.find(path) if _is_data(file.removeprefix(inner))]
        else:
            paths = [path]
            system.info(path)
    return [ShardFile(system.unstrip_protocol(file), file, system) for file in sorted(paths)]


def passed_over(data: str) -> list[str]:
    """The files of a folder of this machine that are none of its table, since they are hidden or
    marks."""
    path = pathlib.Path(data)
    if URL.match(data) or not path.is_dir():
        return []
    names = (file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    return sorted(name for name in names if not _is_data(name))


@contextlib.contextmanager
def _speaking_of(name: str) -> Iterator[None]:
    """What a file system cannot do, in a sentence.

    Raises:
        DataError: it cannot do it.
    """
    try:
        yield
    except (OSError, ImportError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{name} cannot be read: {reason.rstrip('.')}.") from error


def _is_data(name: str) -> bool:
    """Whether a file of a folder is one of rows: neither hidden nor a mark such as _SUCCESS."""
    return not any(part.startswith((".", "_")) for part in pathlib.PurePosixPath(name).parts)


def _check_forms(data: str, table: Sequence[ShardFile]) -> None:
    """Refuse files of an unknown form, and files of several.

    Raises:
        ConfigError: there are such.
    """
    for file in table:
        if file.ending not in ENDINGS:
            raise ConfigError(
                f"{file.name} is of no known form ({', '.join(ENDINGS)}): name the files of rows "
                "alone, as by a pattern in quotation marks: --data 'folder/*.parquet'."
            )
    if other := next((file for file in table if file.ending != table[0].ending), None):
        raise ConfigError(
            f"{data} holds files of several forms, such as {table[0].name} and {other.name}: name "
            f"those of one, as by a pattern in quotation marks: --data "
            f"'folder/*{table[0].ending}'."
        )
