"""What is wrong with a task's YAML file, as a sentence: a key that stands nowhere or elsewhere, a
value that does not fit."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import ValidationError

from ptune.data.yaml_files import IN_QUOTES
from ptune.errors import FORMS, fault_within, nearest, reason
from ptune.settings import Config
from ptune.tasks.schema import TaskConfig

WORDS_OF_LABELS = ("labels", "verbalizers", "relations")  # keys that map each label to its words


def explained(error: ValidationError) -> str:
    """The first fault of a task's file; a key that is unknown explains one that is missing."""
    faults = error.errors()
    first = min(faults, key=lambda detail: detail["type"] != "extra_forbidden")
    first = fault_within(faults, first)
    names = [name for name in map(str, first["loc"]) if not name.startswith(FORMS)]
    key = ".".join(names)
    if first["type"] == "extra_forbidden":
        section = ".".join(name for name in names[:-1] if not name.isdecimal())
        return f"there is no key {key!r}{_where_it_belongs(section, names[-1])}"
    if first["type"] == "missing":
        return f"the key {key!r} is missing."
    if first["type"] == "dict_type" and names[0] in WORDS_OF_LABELS:
        return f"{key} is a mapping of each label to its word, such as {_mapping(first)}."
    if first["type"] == "string_type" and _is_unquoted(first["input"]):
        field = "{" + ", ".join(first["input"]) + "}"
        return f"{key}: {field} without quotation marks is keys with values in YAML. {IN_QUOTES}."
    return f"{key}: {reason(first)}." if key else f"{reason(first)}."


def _is_unquoted(value: Any) -> bool:
    """Whether a mapping is what YAML reads in braces that were to be a text."""
    return isinstance(value, dict) and set(value.values()) == {None}


def _mapping(detail: Mapping[str, Any]) -> str:
    """A mapping of labels as YAML has it, of the labels that stand there as a list."""
    value = detail["input"]
    is_list = isinstance(value, list) and value and all(isinstance(name, str) for name in value)
    names = value if is_list else ["post", "noise"]
    return "{" + ", ".join(f"{name}: {name}" for name in names[:3]) + "}"


def _where_it_belongs(section: str, name: str) -> str:
    """The end of the sentence on an unknown key: the section or the name that is meant."""
    sections = dict(_sections(TaskConfig))
    name = name.rpartition(".")[2].replace("-", "_")
    fields = sections[section].model_fields
    here = [field.alias or other for other, field in fields.items()]
    if name in (options := _names_of_options(section, sections[section])):
        return f": in a file it is called {options[name]!r}."
    if elsewhere := _sections_with(name, sections):
        return f" here; it belongs {' or '.join(map(_under, elsewhere))}."
    if close := difflib.get_close_matches(name, here, n=1):
        return f". Did you mean {'.'.join(filter(None, (section, *close)))!r}?"
    known = [other for config in sections.values() for other in config.model_fields]
    for other in difflib.get_close_matches(name, known, n=1, cutoff=0.8):
        under = " or ".join(map(_under, _sections_with(other, sections)))
        return f". Did you mean {other!r} {under}?"
    return f". {nearest(name, here, len(here))}"


def _sections(config: type[Config], key: str = "") -> Iterator[tuple[str, type[Config]]]:
    """The settings that a file may have under a key, with that key, such as "pet.distil"; first
    those at the top level, whose key is empty."""
    yield key, config
    for name, field in config.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Config):
                yield from _sections(kind, f"{key}.{name}" if key else name)


def _sections_with(name: str, sections: Mapping[str, type[Config]]) -> list[str]:
    """The sections that have a key, those that lie deepest left out where another has it."""
    having = [section for section, config in sections.items() if name in config.model_fields]
    least = min((section.count(".") for section in having), default=0)
    return [section for section in having if section.count(".") == least and section != "code"]


def _under(section: str) -> str:
    return f"under {section}:" if section else "at the top level"


def _names_of_options(section: str, config: type[Config]) -> dict[str, str]:
    """The keys whose option has another name on the command line, by that name."""
    names: dict[str, str] = {}
    for name, field in config.model_fields.items():
        options = [getattr(argument, "name", None) for argument in field.metadata]
        names |= {option: f"{section}.{name}" if section else name for option in options if option}
    return names
