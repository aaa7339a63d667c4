"""The folder of a server's prompts: changed by requests, and watched for what others change."""

import contextlib
import io
import logging
import lzma
import os
import pathlib
import re
import shutil
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from ptune.base import files
from ptune.errors import PtuneError, StoreError
from ptune.serving.bank.prompt_bank import PromptBank
from ptune.serving.bank.prompt_files import NAMES, PromptFiles, Stamp, prompts_in, stamp_of
from ptune.serving.problems import Problem, refused
from ptune.storage.prompt_folder import earlier_files, folders_in

log = logging.getLogger("ptune.serving")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
REPLACED = ".replaced-"
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
)
"""What a ZIP file that is damaged or encrypted raises."""
INTERVAL = 1.0  # seconds between two looks at the folder, at least
SHARE = 0.05  # of the time that looking may take
InWorker = Callable[[Callable[[], None]], "Future[None]"]


def recover(folder: pathlib.Path) -> None:
    """Put back what a killed server had moved away, and remove what it left unfinished."""
    for moved in folder.glob(f"{REPLACED}*"):
        place = folder / moved.name.removeprefix(REPLACED)
        if place.exists():
            _clear(moved, place)
        else:
            moved.rename(place)
    files.remove_unfinished(folder)


def put(bank: PromptBank, folder: pathlib.Path, name: str, *, archive: bytes, most: int) -> bool:
    """Take a prompt that was sent, whole or not at all; in the thread of the LM.

    Args:
        archive: a ZIP file of ``prompt.json`` and ``prompt.safetensors``.
        most: how many bytes they may have.

    Returns:
        Whether it is new.

    Raises:
        Problem: it is no prompt for this LM, or what has its name is no folder; what was there
            before stays, and goes on answering.
    """
    place = folder / name
    is_new = not _is_prompt(place)
    if os.path.lexists(place) and not place.is_dir():
        detail = f"The server's folder holds something of the name {name!r} that is no folder."
        raise Problem(409, "The name is taken", detail, field="id")
    contents = _contents(archive, most)
    temporary = pathlib.Path(tempfile.mkdtemp(dir=folder, prefix=files.TEMPORARY))
    try:
        for file_name, content in contents.items():
            (temporary / file_name).write_bytes(content)
            files.sync(temporary / file_name)
        files.sync_folder(temporary)
        try:
            PromptBank(bank.lm, [], 0).put(PromptFiles(name, (temporary,)))
        except PtuneError as error:
            reason = str(error).replace(str(temporary), name)
            raise refused(f"The prompt cannot be used: {reason}", "body") from error
        _exchange(temporary, place)
        bank.put(PromptFiles(name, (place,)))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return is_new


def remove(bank: PromptBank, folder: pathlib.Path, name: str) -> None:
    """Remove a prompt from the server and from the disk, where files beside it stay.

    Raises:
        KeyError: there is none of that name.
    """
    bank.remove(name)
    place = folder / name
    if _is_prompt(place):  # unless it was taken away on the disk before
        parts = [place] if place.is_symlink() else [place / part for part in _parts(place)]
        _discard(parts, folder)
    with contextlib.suppress(OSError):
        place.rmdir()


def _is_prompt(place: pathlib.Path) -> bool:
    """Whether a prompt, or several that answer together, lie in a folder."""
    try:
        return bool(folders_in(place))
    except StoreError:
        return False


def _exchange(new: pathlib.Path, place: pathlib.Path) -> None:
    """Put a folder in the place of another, whose files that are no part of a prompt stay there."""
    moved = place.with_name(REPLACED + place.name)
    if place.exists():
        place.rename(moved)
    new.chmod(0o755)
    new.rename(place)
    files.sync_folder(place.parent)
    if os.path.lexists(moved):
        _clear(moved, place)


def _clear(moved: pathlib.Path, place: pathlib.Path) -> None:
    """Remove a prompt that gave way to another; what is no part of it goes into the new one's
    folder."""
    if moved.is_dir() and not moved.is_symlink():
        for other in sorted(set(os.listdir(moved)) - set(_parts(moved))):
            (moved / other).rename(place / other)
    _discard([moved], place.parent)


def _parts(place: pathlib.Path) -> list[str]:
    """What belongs to the prompt among the names in its folder, ``prompt.json`` first."""
    folders = folders_in(place) if _is_prompt(place) else []
    members = {folder.relative_to(place).parts[0] for folder in folders if folder != place}
    return [*earlier_files(place), *members]


def _discard(paths: Sequence[pathlib.Path], folder: pathlib.Path) -> None:
    """Remove files and folders, of a link the link alone: they are moved away within the server's
    folder before, in their order, so that no half of a prompt is ever there."""
    away = pathlib.Path(tempfile.mkdtemp(dir=folder, prefix=files.TEMPORARY))
    for path in filter(os.path.lexists, paths):
        path.rename(away / path.name)
    shutil.rmtree(away, ignore_errors=True)


def _contents(archive: bytes, most: int) -> dict[str, bytes]:
    """The two files of a prompt; no name in the archive is used as a path."""
    wanted = " and ".join(NAMES)
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            if sorted(opened.namelist()) != sorted(NAMES):
                raise refused(f"The ZIP file should hold {wanted}, and nothing else.", "body")
            if sum(entry.file_size for entry in opened.infolist()) > most:
                raise Problem(413, "Too large", f"A prompt may have {most:,} bytes.", field="body")
            return {name: opened.read(name) for name in NAMES}
    except UNREADABLE as error:
        raise refused(f"The body should be a ZIP file of {wanted}.", "body") from error


class Watcher:
    """Looks at the prompts on disk now and then, and takes over what has changed and has then
    stayed as it is from one look to the next, so that half of a change is never seen.

    Args:
        folder: the bank's folder, whose new prompts are taken and whose missing ones are removed;
            of prompts elsewhere new versions alone are taken.
        in_worker: does some work in the thread of the LM.
    """

    def __init__(self, bank: PromptBank, folder: pathlib.Path | None, in_worker: InWorker):
        self.bank, self.folder, self.in_worker = bank, folder, in_worker
        self._seen: dict[str, Stamp | None] = {}
        self._refused: dict[str, Stamp | None] = {}
        self._stopped = threading.Event()

    def run(self, after_each: Callable[[], Any] = lambda: None) -> None:
        """Look until ``stop`` is called, and do something after each look, also after one that
        failed; for a thread of its own."""
        pause, last_fault = INTERVAL, ""
        while not self._stopped.wait(pause):
            began = time.monotonic()
            fault = ""
            for step in (self.check, after_each):
                try:
                    step()
                except Exception as error:
                    fault = fault or str(error)
            if fault and fault != last_fault:
                log.warning("The prompts on disk could not be looked at: %s", fault)
            last_fault = fault
            pause = max(INTERVAL, (time.monotonic() - began) / SHARE)

    def stop(self) -> None:
        """Let ``run`` end before it looks again."""
        self._stopped.set()

    def check(self) -> None:
        """Take over what is as it was at the last look and not as it is served."""
        known = self.bank.files()
        present = {one.id: one for one in prompts_in(self.folder)} if self.folder else {}
        for name, (prompt_files, _) in known.items():
            if not self._is_ours(prompt_files):
                present[name] = prompt_files
        seen: dict[str, Stamp | None] = {}
        for name in {*known, *present}:
            stamp = stamp_of(present.get(name))
            served = known[name][1] if name in known else None
            if name in present and stamp in (served, self._refused.get(name, served)):
                continue
            seen[name] = stamp
            if name in self._seen and self._seen[name] == stamp:
                self._take(name, present.get(name), stamp)
        self._seen = seen

    def _is_ours(self, prompt_files: PromptFiles) -> bool:
        return self.folder is not None and prompt_files.folders[0].is_relative_to(self.folder)

    def _take(self, name: str, prompt_files: PromptFiles | None, stamp: Stamp | None) -> None:
        if prompt_files is None:
            known = self.bank.files().get(name)
            if known is not None and self._is_ours(known[0]):
                self.bank.remove(name)
                log.info("The prompt %s was removed.", name)
            return
        if stamp is None:
            self._refused[name] = None
            log.warning("The prompt %s on the disk is not whole: a file is missing.", name)
            return
        try:
            self.in_worker(lambda: self.bank.put(prompt_files)).result()
            self._refused.pop(name, None)
            log.info("The prompt %s was taken from the disk.", name)
        except (PtuneError, OSError) as error:
            self._refused[name] = stamp
            log.warning("The prompt %s on the disk cannot be used: %s", name, error)
