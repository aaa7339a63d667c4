"""Options are parsed by tyro; what its messages repeat of the arguments is shown to the terminal
and not obeyed, and a value of the wrong type is refused in a sentence."""

import contextlib
import io
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tyro

from ptune.base import terminal
from ptune.settings import Config

AnyConfig = TypeVar("AnyConfig", bound=Config)
TYPES = {"INT": "a whole number", "FLOAT": "a number", "PATH": "a path", "{None}": "None"}


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
    obeyed = any(map(terminal.COMMANDS.search, shown))
    prog = terminal.clean(command) if obeyed else command
    output, errors = io.StringIO() if obeyed else sys.stdout, io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            return tyro.cli(options, args=arguments, prog=prog, **settings)
    finally:
        if isinstance(output, io.StringIO):
            sys.stdout.write(terminal.clean(output.getvalue()))
        message = _in_a_sentence(errors.getvalue(), arguments, command) or errors.getvalue()
        sys.stderr.write(terminal.clean(message) if obeyed else message)


def _in_a_sentence(message: str, arguments: Sequence[str], command: str) -> str:
    """What is wrong with an option's value, in a sentence; empty where the message is of another
    fault.

    Args:
        message: the parser's, a box with the option's name, its type and its help.
    """
    sentence = _refused_value(message) or _value_of_another_type(message, arguments)
    return f"ptune: {sentence} Its help: {command} --help\n" if sentence else ""


def _refused_value(message: str) -> str:
    """Why a setting cannot have its value; empty where the message is of another fault."""
    text = " ".join(line.strip(" │") for line in message.splitlines())
    refused = re.search(r"Error parsing (\w+): (?:([\w.]+): )?(.*?) [─-]{9}", text)
    if not refused:
        return ""
    section, key, reason = refused.groups()
    names = [name for name in (section, key) if name and not name.endswith("Config")]
    return f"--{'.'.join(names).replace('_', '-')}: {reason}" if names else reason


def _value_of_another_type(message: str, arguments: Sequence[str]) -> str:
    """Which type an option takes; empty where the message is of another fault."""
    fault = re.search(r"Error parsing (--[\w.-]+):", message)
    kind = fault and re.search(rf"^\W*{re.escape(fault[1])} (\S+)\s*│?$", message, re.M)
    if not fault or not kind:
        return ""
    option = fault[1].replace("_", "-")
    value = ""
    for argument, following in zip(arguments, [*arguments[1:], ""]):
        name, is_joined, joined = argument.partition("=")
        if name.replace("_", "-") == option:
            value = joined if is_joined else following
    *others, last = [TYPES.get(name, name) for name in kind[1].split("|")[::-1]]
    takes = f"{', '.join(others)} or {last}" if others else last
    return f"{option} takes {takes}, and it is {value!r}."


def _texts(value: Any) -> Iterator[str]:
    """All texts within a value."""
    if isinstance(value, dict):
        yield from _texts([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple | set):
        for element in value:
            yield from _texts(element)
    elif value is not None:
        yield str(value)
