"""Ctrl-C, SIGTERM and SIGHUP during long work: the current step is finished first, so that saved
files are complete."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Interrupted(Exception):
    """Work was stopped by a signal; what was done is saved."""


@contextlib.contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a signal to stop has arrived. After the first signal,
    Ctrl-C stops the process at once."""
    received: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    if (
        threading.current_thread() is not threading.main_thread()
    ):  # signals reach the main thread only
        yield lambda: False
        return
    before = {
        number: signal.signal(number, ask)
        for number in SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ignoring_ctrl_c() -> Iterator[None]:
    """Ctrl-C has no effect during this block, nor ever in the processes that are started in it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
