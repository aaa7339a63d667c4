"""A training run that ends by itself, as by a kill, between two checkpoints."""
import contextlib

import pytest

from ptune import train


class Stop(BaseException):
    """Nothing catches it."""


@contextlib.contextmanager
def killed_after(steps: int, monkeypatch):
    """What is run within this is killed after so many optimizer steps."""
    done, step = [], train._step

    def stopping(*arguments):
        if len(done) == steps:
            raise Stop
        done.append(1)
        step(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(train, "_step", stopping)
        yield
