"""The folder that a run writes: held by one process at a time, marked with what the run is, and
never shared with another.

``settings.json`` in it says which command began the run and with what (``ptune.runs.identity``). A
run that was stopped goes on there with the same; anything else is refused before a file is touched.
"""

import contextlib
import json
import pathlib
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from filelock import FileLock, Timeout

from ptune.base import files
from ptune.errors import ConfigError, DataError, StoreError
from ptune.runs.identity import differing, versions

NOTE, LOCK = "settings.json", ".lock"
FORMAT = 1
NAMED = 3  # files that a message names


@dataclass(frozen=True)
class RunFolder:
    """A folder that is held, as it was when the run entered it.

    Attributes:
        begun: the identity of the run that was begun there; None where there is none.
        kept: what that run noted beside it.
    """

    path: pathlib.Path
    command: str
    begun: Mapping[str, Any] | None = None
    kept: Mapping[str, Any] | None = None

    def claim(
        self,
        identity: Mapping[str, Any],
        kept: Mapping[str, Any] | None = None,
        *,
        free: Collection[str] = (),
        grows: str | None = None,
    ) -> Mapping[str, Any]:
        """Write down what the run is, or check that it is the run that was begun here; return what
        was kept at its beginning.

        Args:
            identity: all that decides the results; the versions of the libraries are added.
            kept: what the run needs again when it goes on, though it decides no result.
            free: names in the identity that may have changed.
            grows: a name in the identity whose value, a mapping, may get more keys.

        Raises:
            ConfigError: another run was begun here; what differs is named.
        """
        now = json.loads(json.dumps({**identity, "versions": versions()}))
        if self.begun is None:
            self._write(now, kept or {})
            return kept or {}
        before = {name: value for name, value in self.begun.items() if name not in free}
        expected = {name: value for name, value in now.items() if name not in free}
        if grows:
            both = before[grows].keys() & expected[grows].keys()
            before[grows], expected[grows] = (
                {key: record[grows][key] for key in sorted(both)} for record in (before, expected)
            )
        if changed := differing(before, expected):
            raise ConfigError(
                f"The run in {self.path} was begun with another {', '.join(changed)}: go on with "
                "the same, or begin anew in another --out."
            )
        if grows and (grown := {**self.begun[grows], **now[grows]}) != self.begun[grows]:
            self._write({**self.begun, grows: grown}, self.kept or {})
        return self.kept or {}

    @contextlib.contextmanager
    def left_as_it_was(self) -> Iterator[None]:
        """What a run that begins here writes in this block is removed where its data are refused,
        so that the folder is free for others.

        Raises:
            DataError: they are.
        """
        try:
            yield
        except DataError:
            if self.begun is None:
                for path in map(self.path.joinpath, contents(self.path)):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            raise

    def _write(self, identity: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
        note = {"command": self.command, "format": FORMAT, "identity": identity, "kept": kept}
        files.write_json(self.path / NOTE, note)


@contextlib.contextmanager
def working_in(
    folder: files.Path, command: str, resume: bool = False, adds: bool = False
) -> Iterator[RunFolder]:
    """Hold a folder for a run, until the end of the block or of the process.

    Args:
        command: what writes there, such as "ptune train".
        resume: go on with the run in the folder.
        adds: the command adds to a run that it finds in the folder, and begins one where there is
            none.

    Raises:
        ConfigError: another process holds it; it holds what another command wrote, or a run that is
            not to be resumed; or there is nothing to resume.
        StoreError: it cannot be written.
    """
    folder = pathlib.Path(folder)
    with held(folder):
        run = _entered(folder, command, resume, adds)
        files.remove_unfinished(folder)
        yield run


@contextlib.contextmanager
def held(folder: files.Path) -> Iterator[None]:
    """Keep all other processes out of a folder, which is made where it is missing. The system lets
    go of it when the process ends, however it ends.

    Raises:
        ConfigError: another process holds it.
        StoreError: it cannot be written.
    """
    folder = pathlib.Path(folder)
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise ConfigError(
            f"Another process is working in {folder}: wait until it has ended, or choose another "
            "folder."
        ) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError(_not_a_folder(folder)) from error
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror or error}.") from error
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):
            folder.rmdir()  # where nothing was written


def _not_a_folder(folder: pathlib.Path) -> str:
    """Which file stands where a folder should be, and what to do."""
    file = next((path for path in (folder, *folder.parents) if path.is_file()), folder)
    return f"{file} is a file, and {folder} is to be a folder: choose another."


def contents(folder: files.Path) -> list[str]:
    """The names of what stands in a folder, in order, hidden files aside; none where there is no
    folder."""
    folder = pathlib.Path(folder)
    return (
        sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
        if folder.is_dir()
        else []
    )


def check_empty(folder: files.Path) -> None:
    """Refuse a folder that holds anything, since it would be overwritten or mixed with something
    else.

    Raises:
        ConfigError: it does; what is named.
        StoreError: it is a file, or lies below one.
    """
    check_is_folder(folder)
    if names := contents(folder):
        others = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        raise ConfigError(
            f"{folder} holds {', '.join(names[:NAMED])}{others}, which this run did not write: "
            "choose another --out, or "
            f"empty it."
        )


def check_is_folder(folder: files.Path) -> None:
    """Refuse a place that is not, and cannot become, a folder.

    Raises:
        StoreError: it is a file, or lies below one.
    """
    if any(path.is_file() for path in (pathlib.Path(folder), *pathlib.Path(folder).parents)):
        raise StoreError(_not_a_folder(pathlib.Path(folder)))


def _entered(folder: pathlib.Path, command: str, resume: bool, adds: bool) -> RunFolder:
    """The folder as it stands, if the command may work in it."""
    names = contents(folder)
    note = files.read_json(folder / NOTE) if NOTE in names else None
    if note is None or not isinstance(note, dict) or "identity" not in note:
        if resume:
            raise ConfigError(
                f"There is no run of {command} in {folder} to go on with: leave --resume out to "
                "begin one, or choose "
                f"the folder of another run."
            )
        check_empty(folder)
        return RunFolder(folder, command)
    if note.get("format") != FORMAT or note.get("command") != command:
        raise ConfigError(
            f"{folder} holds a run of {note.get('command')}, and not one that this {command} can "
            "go on with: choose "
            f"another --out."
        )
    if not (resume or adds) and names != [NOTE]:
        raise ConfigError(
            f"{folder} holds a run of {command} already: go on with --resume, or choose another "
            "--out."
        )
    if names == [NOTE] and not resume:
        return RunFolder(folder, command)  # it ended before it had done anything
    return RunFolder(folder, command, note["identity"], note.get("kept"))
