"""Files that are whole or absent: tensors as safetensors, everything else as JSON. Nothing is ever
unpickled."""

import contextlib
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ptune.base import plain_files
from ptune.base.file_names import partial_file
from ptune.errors import PtuneError, StoreError

Path = str | os.PathLike[str]
TEMPORARY = ".writing-"  # how the name of a file begins that is not whole yet


def write(path: Path, fill: Callable[[str], None]) -> None:
    """Let ``fill`` write a temporary file beside ``path``, sync it to disk, and rename it over
    ``path``.

    Raises:
        StoreError: the disk is full or the folder cannot be written; ``path`` is then as it was
            before.
    """
    path = pathlib.Path(path)
    temporary: pathlib.Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_in(path.parent)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        fill(str(temporary))
        sync(temporary)
        temporary.chmod(mode)
        place(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StoreError(
            f"{path} could not be written: {reason}. What stood there before is unchanged."
        ) from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def write_folder(path: Path, fill: Callable[[str], None], replaces: Sequence[str] = ()) -> None:
    """Let ``fill`` write files into a temporary folder, and put them at ``path``: the folder whole
    or not at all where it is new, else each of its files whole, in place of the one of its name.

    Args:
        replaces: names of files and folders at ``path`` that are removed before the first new file
            is put there, in this order. A new file of the first name is put there last: while it is
            not there, the folder is not whole.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    path = pathlib.Path(path)
    temporary: pathlib.Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_in(path if path.is_dir() else path.parent)
        temporary.mkdir()
        mode = temporary.stat().st_mode & 0o666
        fill(str(temporary))
        for file in [inner_path for inner_path in temporary.rglob("*") if inner_path.is_file()]:
            sync(file)
            file.chmod(mode)
        sync_folder(temporary)
        if path.exists():
            for name in replaces:
                _remove(path / name)
            sync_folder(path)
            for name in sorted(
                os.listdir(temporary), key=lambda name: (name in replaces[:1], name)
            ):
                place(temporary / name, path / name)
        else:
            place(temporary, path)
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"{path} could not be written: {getattr(error, 'strerror', None) or error}."
        ) from error
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)


def _remove(path: pathlib.Path) -> None:
    """Remove a file or a folder, if it is there."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def place(whole: pathlib.Path, path: pathlib.Path) -> None:
    """Put a file or a folder that is whole where it belongs, in place of what stood there. All that
    is written passes here."""
    if whole.is_dir() and path.is_dir():
        shutil.rmtree(path)
    os.replace(whole, path)
    sync_folder(path.parent)


def _temporary_in(folder: pathlib.Path) -> pathlib.Path:
    """A name that nothing has. What is made there gets the permissions that the system gives to
    any new file, which ``tempfile`` withholds."""
    return folder / f"{TEMPORARY}{secrets.token_hex(8)}"


def sync(file: pathlib.Path) -> None:
    """Bring a file's content to the disk. Windows does so for files open for writing alone."""
    with open(file, "r+b") as stream:
        os.fsync(stream.fileno())


def sync_folder(folder: pathlib.Path) -> None:
    """Bring the names in a folder to the disk, where the system can open a folder (Windows
    cannot)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process left unfinished in a folder that no other process writes."""
    for path in pathlib.Path(folder).rglob(f"{TEMPORARY}*"):
        _remove(path)


@contextlib.contextmanager
def streaming(path: Path, kept: int = 0) -> Iterator[TextIO]:
    """A text file that grows beside ``path``, as ``path.partial``, and is renamed to ``path`` when
    it is whole.

    Where a fault ends the block, what is finished stays in the partial file, and the fault's
    message says so.

    Args:
        kept: so many bytes of a partial file that is there already stay.

    Raises:
        StoreError: the disk is full or the folder cannot be written; ``path`` is then as it was
            before.
    """
    path, partial = pathlib.Path(path), partial_file(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "r+" if kept else "w", encoding="utf-8", newline="") as stream:
            stream.seek(kept)
            stream.truncate()
            try:
                yield stream
            except PtuneError as error:
                stream.flush()
                if not stream.tell():
                    partial.unlink()
                    raise
                raise type(error)(
                    f"{error} The answers that were finished by then are in {partial}; --resume "
                    "goes on behind them."
                ) from error
            stream.flush()
            os.fsync(stream.fileno())
        place(partial, path)
    except OSError as error:
        raise StoreError(
            f"{path} could not be written: {error.strerror or error}. What stood there before is "
            "unchanged."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""

    def put(temporary: str) -> None:
        pathlib.Path(temporary).write_text(text, encoding="utf-8")

    write(path, put)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all; a NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], note: Any = None) -> None:
    """Write a safetensors file, whole or not at all, with ``note`` (anything JSON can say) in its
    header. Tensors that share memory are written apart."""
    apart = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"note": json.dumps(note, allow_nan=False)}
    write(path, lambda temporary: save_file(apart, temporary, metadata))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        StoreError: the file is missing or is not JSON.
    """
    try:
        text = plain_files.read_text(path)
        value = json.loads(text, parse_constant=_refuse_constant)
        if "\\ud" in text.lower():  # half of a sign, which no text can hold
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(
            f"{path} is not valid JSON ({error}): it is damaged, or another program wrote it."
        ) from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it has the number {name}, which JSON does not know")


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises:
        StoreError: the file is missing, cut short, or not in that format.
    """
    return read_noted(path)[0]


def read_noted(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    """Read a safetensors file and the note in its header (None without one). The tensors are copies
    and no views of the file, which may be written anew while they are in use.

    Raises:
        StoreError: the file is missing, cut short, or not in that format.
    """
    try:
        plain_files.check(path)
        open(path, "rb").close()  # safe_open says of every file that it cannot open: not there
        with safe_open(path, "pt") as stream:
            note = (stream.metadata() or {}).get("note", "null")
            tensors = {name: stream.get_tensor(name).clone() for name in stream.keys()}
            return tensors, json.loads(note)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (SafetensorError, ValueError) as error:
        raise StoreError(
            f"{path} is damaged ({error}): it was cut short or is not a safetensors file."
        ) from error


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimiser's memory as named tensors: "<parameter>.<name>", parameters numbered in
    order."""
    return {
        f"{number}.{name}": torch.as_tensor(value)
        for number, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Put back what ``optimiser_tensors`` took out; the optimiser has the same parameters in the
    same order."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".")
        state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
