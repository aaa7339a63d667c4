"""Leases: which process does which piece of work, where several share a folder.

A lease is a file that its holder touches every few seconds. It is free again when the holder gives
it back, when its process has ended, or, where that ran on another machine, when it was not touched
for a minute.
"""

import contextlib
import os
import pathlib
import socket
import threading
from collections.abc import Iterator, Sequence

import psutil
from filelock import FileLock

from ptune.base import files
from ptune.errors import StoreError

BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0


class Leases:
    """The leases in a folder, which is made where it is missing."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.one_by_one = FileLock(folder / ".lock")

    @contextlib.contextmanager
    def taken(self, names: Sequence[str], most: int = 1) -> Iterator[list[str]]:
        """Hold, for the time of the block, the first leases of some that no other process holds.

        Args:
            most: how many are taken at most.
        """
        mine = self._take(names, most)
        if not mine:
            yield mine
            return
        over = threading.Event()
        beats = threading.Thread(target=self._beat, args=(mine, over), daemon=True)
        beats.start()
        try:
            yield mine
        finally:
            over.set()
            beats.join()
            for name in mine:
                (self.folder / name).unlink(missing_ok=True)

    def _take(self, names: Sequence[str], most: int) -> list[str]:
        process, mine = psutil.Process(), list[str]()
        machine, began = socket.gethostname(), process.create_time()
        holder = {"host": machine, "process": process.pid, "began": began}
        with self.one_by_one:
            for name in names:
                lease = self.folder / name
                if len(mine) < most and (not lease.exists() or self._is_free(lease)):
                    files.write_json(lease, holder)
                    mine.append(name)
        return mine

    def _is_free(self, lease: pathlib.Path) -> bool:
        """Whether the holder of a lease has ended, as far as can be seen from here."""
        try:
            holder = files.read_json(lease)
            is_here = holder["host"] == socket.gethostname()
            process, began = holder["process"], holder["began"]
        except (StoreError, KeyError, TypeError):
            return True
        if is_here:
            return not _runs(process, began)
        clock = self.folder / ".clock"  # the clock of the machine that keeps the files
        clock.touch()
        return clock.stat().st_mtime - lease.stat().st_mtime > STALE_SECONDS

    def _beat(self, names: Sequence[str], over: threading.Event) -> None:
        while not over.wait(BEAT_SECONDS):
            for name in names:
                with contextlib.suppress(OSError):
                    os.utime(self.folder / name)


def _runs(process: int, began: float) -> bool:
    """Whether a process of this machine still runs, and is no other one with its number."""
    try:
        running = psutil.Process(process)
        return running.create_time() == began and running.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
