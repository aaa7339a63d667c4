"""Options are parsed by tyro; what its messages repeat of the arguments is shown to the terminal
and not obeyed, and what it refuses is told in a sentence."""

import contextlib
import io
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import tyro

from ptune.base import terminal
from ptune.cli.parsing import flags
from ptune.cli.parsing.flags import AnyConfig
from ptune.settings import Config

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

    Raises:
        ConfigError: an option is not one of the command's, or is given twice.
    """
    flags.check(options, arguments, command)
    arguments = flags.with_truths(options, arguments)
    if default is not None:
        arguments, default = flags.with_keys(options, arguments, default)
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
        message = _in_a_sentence(errors.getvalue(), options, arguments, command)
        sys.stderr.write(terminal.clean(message) if obeyed else message)


def _in_a_sentence(
    message: str, options: type[Config], arguments: Sequence[str], command: str
) -> str:
    """What is wrong with the arguments, in a sentence; empty where the parser refused nothing.

    Args:
        message: the parser's, a box with its title, the option's name, its type and its help.
    """
    if not message.strip():
        return message
    sentence = (
        _refused_value(message)
        or _value_of_another_type(message, arguments)
        or _other_fault(_text_of(message), options, command)
    )
    return f"ptune: {sentence} Its help: {command} --help\n"


def _text_of(message: str) -> str:
    """What stands in the parser's box, in one line and without its title and its last sentence."""
    lines = [line.strip(" \u2502|") for line in message.splitlines()]
    text = " ".join(line for line in lines[1:] if line.strip("-\u2500\u2570\u256f+ "))
    return text.partition(" For full helptext,")[0].partition(" Perhaps you meant:")[0].strip()


def _other_fault(text: str, options: type[Config], command: str) -> str:
    """What is wrong where it is not an option's value by its type."""
    if choice := re.match(r"invalid choice '(.*)' for argument '(.*?)'\. Expected one of", text):
        known = {flag.name: flag for flag in flags.flags_of(options)}
        words = re.findall(r"'([^']*)'", text[choice.end() :])
        order = known[choice[2]].choices if choice[2] in known else ()
        *others, last = sorted(words, key=[*order, *sorted(words)].index)
        return f"{choice[2]} takes {', '.join(others)} or {last}, and it is {choice[1]!r}."
    if lacking := re.match(r"Missing value for argument '(.*?)'\. Expected (\d+)", text):
        count = "a value" if lacking[2] == "1" else f"{lacking[2]} values"
        return f"{lacking[1]} needs {count}."
    if text.startswith("Missing from "):
        needed = [
            (flags.in_usage(name, field), " ".join(str(field.description).split()))
            for name, field in options.model_fields.items()
            if field.is_required()
        ]
        lacks = [f"{name} ({about})" for name, about in needed if about in text]
        return f"{command} lacks {' and '.join(lacks)}." if lacks else f"{text}."
    if needless := re.match(r"Unrecognized (?:or misplaced )?options: (.*)", text):
        return f"{command} has no place for {needless[1]}."
    return text if text.endswith(".") else f"{text}."


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
    option = fault[1].replace("_", "-") if fault else ""
    if fault and not kind and re.search(rf"{re.escape(fault[1])} .*STR (?:STR|FLOAT)", message):
        return f"{option} takes pairs with spaces between, each a name and its value."
    if not fault or not kind:
        return ""
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
