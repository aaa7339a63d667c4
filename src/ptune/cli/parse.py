"""Options are parsed by tyro; what its messages repeat of the arguments is shown to the terminal
and not obeyed."""

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tyro

from ptune.base import terminal
from ptune.settings import Config

AnyConfig = TypeVar("AnyConfig", bound=Config)


def parse(
    options: type[AnyConfig],
    arguments: Sequence[str],
    command: str,
    default: AnyConfig | None = None,
) -> AnyConfig:
    """The options of a command; exits with the parser's message where they are invalid.

    Args:
        command: as it is typed, such as "ptune probe".
        default: what stands where nothing is given.
    """
    settings: dict[str, Any] = {} if default is None else {"default": default}
    shown = [command, *arguments, *_texts(None if default is None else default.model_dump())]
    if not any(map(terminal.COMMANDS.search, shown)):
        return tyro.cli(options, args=arguments, prog=command, **settings)
    output, errors = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            return tyro.cli(options, args=arguments, prog=terminal.clean(command), **settings)
    finally:
        sys.stdout.write(terminal.clean(output.getvalue()))
        sys.stderr.write(terminal.clean(errors.getvalue()))


def _texts(value: Any) -> Iterator[str]:
    """All texts within a value."""
    if isinstance(value, dict):
        yield from _texts([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple | set):
        for element in value:
            yield from _texts(element)
    elif value is not None:
        yield str(value)
