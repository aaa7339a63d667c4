"""Files that commands write: none takes the place of what a command reads or did not write."""

import os
import pathlib
from collections.abc import Sequence

from ptune.errors import ConfigError


def check(
    path: pathlib.Path,
    option: str,
    *,
    may_replace: bool,
    advice: str,
    read_from: pathlib.Path | None = None,
    beside: Sequence[pathlib.Path] = (),
) -> None:
    """Refuse a file that cannot be written, or whose place is taken.

    Args:
        option: the one that names it.
        may_replace: whether a file that stands there may be lost.
        advice: what to do about such a file, other than to choose another name.
        read_from: the file of the rows.
        beside: further files that are written with it.

    Raises:
        ConfigError: it is a folder or below a file, the rows are read from it, or it is there and
            may not be lost.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder: give {option} the name of a file.")
    if above := next((folder for folder in path.parents if folder.is_file()), None):
        raise ConfigError(
            f"{path} cannot be: {above} is a file, and no folder. Choose another {option}."
        )
    if read_from and any(is_same(written_to, read_from) for written_to in (path, *beside)):
        raise ConfigError(
            f"The rows are read from {read_from}, and {option} {path} would overwrite it: choose "
            "another name."
        )
    if path.exists() and not may_replace:
        raise ConfigError(f"{path} is there already: choose another {option}, or {advice}.")


def is_same(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Whether two names are of one file, be it there or not."""
    if one.exists() and other.exists():
        return os.path.samefile(one, other)
    return one.resolve() == other.resolve()
