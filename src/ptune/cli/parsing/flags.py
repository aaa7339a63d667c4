"""The names of a command's options: one that it does not have, or that stands twice, is refused
before anything is parsed."""

import itertools
import pathlib
import re
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin

import tyro
from pydantic.fields import FieldInfo

from ptune.errors import ConfigError, nearest
from ptune.settings import Config

AnyConfig = TypeVar("AnyConfig", bound=Config)
HELP = ("-h", "--help")
NUMBERS = ("-inf", "-infinity", "-nan")  # values that begin like an option


@dataclass(frozen=True)
class Flag:
    """An option of a command.

    Attributes:
        names: what it may be called, its name first.
        choices: the words that it takes, in the order of its annotation.
        is_list: whether it takes several values.
        is_mapping: whether these have names, which may stand behind a dot: --data.take.test.
        is_truth: whether it takes True and False as values.
        keys: the names that these may have, where they cannot have all.
    """

    names: tuple[str, ...]
    choices: tuple[str, ...] = ()
    is_list: bool = False
    is_mapping: bool = False
    is_truth: bool = False
    keys: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self.names[0]


def flags_of(options: type[Config], prefix: str = "") -> Iterator[Flag]:
    """The options of a command, those of its sections too.

    Args:
        prefix: of a section its name and a dot, such as "train.".
    """
    for key, field in options.model_fields.items():
        if tyro.conf.Positional in field.metadata or tyro.conf.Suppress in field.metadata:
            continue
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Config):
            yield from flags_of(kind, f"{prefix}{key}.".replace("_", "-"))
            continue
        name, aliases = _names(key, field)
        negated = (f"--{prefix}no-{name}",) if kind is bool else ()
        yield Flag(
            names=(f"--{prefix}{name}", *negated, *aliases),
            choices=tuple(_choices(kind)),
            is_list=get_origin(kind) in (list, tuple, set, dict),
            is_mapping=get_origin(kind) is dict,
            keys=tuple(_choices(get_args(kind)[0])) if get_origin(kind) is dict else (),
            is_truth=bool in get_args(kind) or "True" in _choices(kind),
        )


def check(options: type[Config], arguments: Sequence[str], command: str) -> None:
    """Refuse an option that a command does not have, or that is given twice. Where help is asked
    for, nothing is refused.

    Args:
        command: as it is typed, such as "ptune probe".

    Raises:
        ConfigError: there is one.
    """
    before = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    if any(name in before for name in HELP):
        return
    known = {name: flag for flag in flags_of(options) for name in flag.names}
    mappings = tuple(f"{flag.name}." for flag in known.values() if flag.is_mapping)
    given: dict[str, str] = {}
    for argument in before:
        typed = argument.partition("=")[0]
        name = typed if typed in known else typed.replace("_", "-")
        if name in known or name.startswith(mappings):
            flag = known.get(name, Flag((name,)))
            if flag.name in given:
                raise ConfigError(_is_double(flag, given[flag.name], name))
            given[flag.name] = name
        elif _is_like_an_option(argument) and argument[:2] not in known:
            raise ConfigError(_is_unknown(argument, typed, known, command))


def with_truths(options: type[Config], arguments: Sequence[str]) -> list[str]:
    """The arguments, with true and false as YAML and JSON write them also where an option takes
    True and False."""
    flags = [flag for flag in flags_of(options) if flag.is_truth]
    takes_truths = {name for flag in flags for name in flag.names}
    spelled: list[str] = []
    for argument in arguments:
        name, joined, value = argument.partition("=")
        if name.replace("_", "-") in takes_truths and joined and value in ("true", "false"):
            argument = f"{name}={value.capitalize()}"
        elif spelled and spelled[-1].replace("_", "-") in takes_truths:
            argument = argument.capitalize() if argument in ("true", "false") else argument
        spelled.append(argument)
    return spelled


def with_keys(
    options: type[Config], arguments: Sequence[str], default: AnyConfig
) -> tuple[list[str], AnyConfig]:
    """The arguments and the default, changed so that the parser takes a mapping in both forms,
    --data.take train 50 and --data.take.train 50: it knows an option for each key of the default
    alone, and pairs where that has none.

    Args:
        default: what stands where nothing is given.

    Raises:
        ConfigError: a mapping cannot have that key, or a key has no value.
    """
    arguments = list(arguments)
    for flag in [flag for flag in flags_of(options) if flag.is_mapping]:
        path = flag.name.removeprefix("--").replace("-", "_").split(".")
        mapping: Any = default
        for name in path:
            mapping = getattr(mapping, name)
        if mapping or _keys(flag, arguments):
            arguments = _as_options(flag, arguments)
        keys = _keys(flag, arguments)
        if unknown := [key for key in keys if flag.keys and key not in flag.keys]:
            raise ConfigError(f"{flag.name} has no {unknown[0]}. {nearest(unknown[0], flag.keys)}")
        if mapping:  # what stands there for a key is overwritten
            anything = next(iter(mapping.values()))
            default = _replaced(default, path, mapping | dict.fromkeys(keys, anything))
        else:
            arguments = _as_pairs(flag, arguments)
    return arguments, default


def _keys(flag: Flag, arguments: Sequence[str]) -> list[str]:
    """The keys of a mapping of which each is an option among the arguments."""
    names = [argument.partition("=")[0] for argument in arguments]
    start = f"{flag.name}."
    return [name.removeprefix(start) for name in names if name.startswith(start)]


def _as_options(flag: Flag, arguments: Sequence[str]) -> list[str]:
    """Arguments in which a mapping's pairs are an option each.

    Raises:
        ConfigError: they are no pairs.
    """
    if flag.name not in arguments:
        return list(arguments)
    start = arguments.index(flag.name) + 1
    values = list(itertools.takewhile(lambda value: not value.startswith("--"), arguments[start:]))
    if not values or len(values) % 2:
        raise ConfigError(
            f"{flag.name} takes pairs with spaces between, each a name and its value."
        )
    pairs = zip(values[::2], values[1::2])
    as_options = [part for key, value in pairs for part in (f"{flag.name}.{key}", value)]
    return [*arguments[: start - 1], *as_options, *arguments[start + len(values) :]]


def _as_pairs(flag: Flag, arguments: Sequence[str]) -> list[str]:
    """Arguments in which the options of a mapping's keys are pairs behind one option."""
    others: list[str] = []
    pairs: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        name, joined, value = argument.partition("=")
        if not name.startswith(f"{flag.name}."):
            others.append(argument)
            continue
        value = value if joined else next(remaining, "--")
        if value.startswith("--"):
            raise ConfigError(f"{name} needs a value.")
        pairs += [name.removeprefix(f"{flag.name}."), value]
    return [*others, flag.name, *pairs] if pairs else others


def _replaced(config: AnyConfig, path: Sequence[str], value: Any) -> AnyConfig:
    """A copy with another value at a path of names."""
    name, *rest = path
    inner = _replaced(getattr(config, name), rest, value) if rest else value
    return config.model_copy(update={name: inner})


def in_usage(key: str, field: FieldInfo) -> str:
    """What an option that a command needs is called in its help: by its name, or where it stands
    without one by what it takes."""
    if tyro.conf.Positional not in field.metadata:
        return f"--{_names(key, field)[0]}"
    kinds = get_args(field.annotation) or (field.annotation,)
    return "PATH" if pathlib.Path in kinds else "STR"


def _names(key: str, field: FieldInfo) -> tuple[str, tuple[str, ...]]:
    """How an option is called without its section, and its short names."""
    named = [entry for entry in field.metadata if hasattr(entry, "aliases")]
    names = [entry.name for entry in named if entry.name]
    aliases = tuple(alias for entry in named for alias in entry.aliases or ())
    return (names or [key.replace("_", "-")])[0], aliases


def _choices(kind: Any) -> Iterator[str]:
    """The words that a type names, in order."""
    if get_origin(kind) is Literal:
        yield from map(str, get_args(kind))
    elif kind in (None, types.NoneType):
        yield "None"
    else:
        for part in get_args(kind):
            yield from _choices(part)


def _is_like_an_option(argument: str) -> bool:
    return bool(re.match(r"--?[^\W\d_]", argument)) and argument.lower() not in NUMBERS


def _is_double(flag: Flag, first: str, second: str) -> str:
    if first != second:
        return f"{first} and {second} are one option, which is given twice: leave one out."
    several = f", with all of its values behind it: {flag.name} A B" if flag.is_list else ""
    return f"{flag.name} is given twice: give it once{several}."


def _is_unknown(argument: str, typed: str, known: dict[str, Flag], command: str) -> str:
    close = nearest(typed, [*known, *HELP])
    hint = f" {close}" if close.startswith("Did") else ""
    if not typed.startswith("--") or pathlib.Path(argument).exists():
        hint += f" A file of that name is given as ./{argument}."
    return f"{command} has no option {typed}.{hint} Its help: {command} --help"
