"""A process of its own for what is killed or interrupted: a fork of this one, which has loaded the
libraries already."""

import os
import pathlib
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence

from ptune.cli import main


class Forked:
    """A process that does some work.

    Attributes:
        returncode: as of ``subprocess.Popen``; None until its end was seen.
        errors: the file of what it writes to standard error.
    """

    def __init__(self, work: Callable[[], None], folder: pathlib.Path):
        self.returncode: int | None = None
        self.errors = folder / "standard-error"
        with warnings.catch_warnings():  # of other threads, which this process does not have
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            self._be(work)

    def _be(self, work: Callable[[], None]) -> None:
        """Do the work, and end without a trace of pytest's own end."""
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(self.errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
            signal.signal(signal.SIGINT, signal.default_int_handler)
            work()
            status = 0
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:
            traceback.print_exc()
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            status = 120  # as Python's own end
        finally:
            os._exit(status)

    def poll(self) -> int | None:
        return self._status(os.WNOHANG)

    def wait(self) -> int | None:
        return self._status(0)

    def end(self) -> None:
        """Kill it, if it has not ended by itself."""
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)
            self.wait()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def _status(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def command(arguments: Sequence[object], folder: pathlib.Path) -> Forked:
    """``ptune`` with these arguments, as a process that works in a folder."""

    def work() -> None:
        os.chdir(folder)
        main.main(list(map(str, arguments)))

    return Forked(work, folder)
