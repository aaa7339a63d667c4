"""Runs that end by themselves, as by a kill: between two checkpoints, or right after a file was
written."""

import contextlib

import pytest

from ptune.base import files
from ptune.training import loop


class Stop(BaseException):
    """Nothing catches it."""


@contextlib.contextmanager
def killed_after(steps: int, monkeypatch):
    """What is run within this is killed after so many optimizer steps."""
    done, step = [], loop.take_step

    def stopping(*arguments):
        if len(done) == steps:
            raise Stop
        done.append(1)
        step(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(loop, "take_step", stopping)
        yield


def killed_after_every_file(run, monkeypatch, most: int = 60) -> list[str]:
    """Start ``run`` again and again; each start is killed as soon as it has written a file or a
    folder that none before it wrote.

    Returns their names in order, when a start has come to its end.
    """
    place, written = files.place, []

    def dying(whole, path):
        place(whole, path)
        unfinished = any(part.startswith(files.TEMPORARY) for part in path.parts)
        if path not in written and not unfinished:
            written.append(path)
            raise Stop

    for _ in range(most):
        with monkeypatch.context() as patch:
            patch.setattr(files, "place", dying)
            try:
                run()
            except Stop:
                continue
        return [path.name for path in written]
    pytest.fail(f"it never ends: {written}")
