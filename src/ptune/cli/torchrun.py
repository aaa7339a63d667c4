"""torchrun: this process as one of several that train together. The first one alone speaks."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from ptune.errors import ConfigError

if TYPE_CHECKING:
    from ptune.base.ranks import Ranks

TOGETHER = ("train", "compare", "probe")  # the commands that several processes can run together


def place() -> tuple[int, int]:
    """The number of this process, and how many torchrun started; one by itself without it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def check_command(name: str) -> None:
    """Refuse a command that several processes cannot run together, each of which would do all of
    the work.

    Raises:
        ConfigError: it is one.
    """
    _, count = place()
    if count > 1 and name not in TOGETHER:
        raise ConfigError(
            f"torchrun started {count} processes, and ptune {name} runs in one: start it as ptune "
            f"{name}, or with --nproc-per-node 1. Several run ptune {', '.join(TOGETHER)} together."
        )


def is_one_of_several() -> bool:
    """Whether torchrun started other processes beside this one."""
    return place()[1] > 1


def check_arguments(arguments: Sequence[str], is_table: bool) -> None:
    """Refuse what comes before a training and is done by one process.

    Args:
        is_table: the first argument names a table, of which a task's file would be made.

    Raises:
        ConfigError: it is so.
    """
    if is_table:
        raise ConfigError(
            "Several processes train what a task's file describes: make one of "
            f"{arguments[0]} by ptune new."
        )
    if "--estimate" in arguments:
        raise ConfigError(
            f"--estimate runs in one process, and torchrun started {place()[1]}: leave it out, or "
            "start ptune without torchrun."
        )


@contextlib.contextmanager
def joined() -> Iterator["Ranks"]:
    """The processes that train together."""
    from ptune.base.ranks import joined

    with joined(*place()) as ranks:
        yield ranks


def fall_silent() -> None:
    """Let a process that is not the first one print nothing but faults of the program."""
    if place()[0] == 0:
        return
    errors = sys.stderr
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

    def show(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        traceback.print_exception(kind, error, where, file=errors)

    sys.excepthook = show


def command(name: str) -> str:
    """How a command of several processes is started again."""
    return f"torchrun --nproc-per-node {os.environ.get('LOCAL_WORLD_SIZE', '1')} -m ptune {name}"
