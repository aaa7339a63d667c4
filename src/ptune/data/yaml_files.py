"""YAML as data: every plain scalar is the text that is written, and whoever asks for a number or a
truth makes it of that.

So a label 010, 7:30, 1.10, true or No is that text, as the core rules of YAML 1.2 have it and more;
only null, ~ and nothing at all are None. No tag makes an object, a key stands once, and the size,
the depth and the number of values are bounded, aliases counted as often as they are used.
"""

import pathlib
import re
from collections.abc import Collection, Iterator
from typing import Any, NoReturn

import yaml

from ptune.errors import ConfigError

MOST_CHARACTERS = 1_000_000
MOST_DEPTH = 50
MOST_VALUES = 100_000
NULLS = ("", "~", "null", "Null", "NULL")
TEMPLATE = re.compile(r"^\s*(?:-|[\w-]+:)\s+[^\"'#]*\{[^{}]*\}")
"""A value with braces that no quotation mark stands before."""
IN_QUOTES = (
    'Put the template in quotation marks, as in template: "{text} {mask}", since YAML takes an '
    "unquoted { or : for its own"
)
CORE = "tag:yaml.org,2002:"
SCALAR_TAGS = (None, "!", *(CORE + name for name in ("str", "int", "float", "bool", "null")))


def parse(text: str, path: pathlib.Path, as_text: Collection[str] = ()) -> Any:
    """What a YAML document says: texts, None, lists and dictionaries.

    Args:
        path: of the file, which is told with a fault.
        as_text: keys under which null is a text too.

    Raises:
        ConfigError: it is no YAML, has a key twice or a tag that stands for an object, or is beyond
            the bounds; the line is told.
    """
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(
            f"{path} is {len(text):,} characters long, and {MOST_CHARACTERS:,} are the most that "
            "is read as a task."
        )
    try:
        return _Document(text, path, as_text).value()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{path}{place} is not valid YAML: {error.problem or error.context}."
            f"{_quoting(text, mark.line) if mark else ''}"
        ) from error
    except (
        yaml.YAMLError,
        ValueError,
        OverflowError,
    ) as error:  # those of an escape beyond Unicode
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error


def _quoting(text: str, line: int) -> str:
    """What to do where a line that is no YAML holds a template without quotation marks.

    Args:
        line: its number, from 0.
    """
    if not TEMPLATE.search(text.split("\n")[line] if line <= text.count("\n") else ""):
        return ""
    return f" {IN_QUOTES}."


class _Document:
    """A document, read event by event."""

    def __init__(self, text: str, path: pathlib.Path, as_text: Collection[str]):
        self._events: Iterator[Any] = yaml.parse(text, yaml.SafeLoader)
        self._path, self._as_text = path, as_text
        self._anchors: dict[
            str, tuple[Any, int] | None
        ] = {}  # a value, and how many it holds; None while it is open
        self._count = 0

    def value(self) -> Any:
        """The one document's value; None where there is none."""
        next(self._events)
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            return None
        document = self._value(next(self._events), 0, False)
        next(self._events)
        if not isinstance(after := next(self._events), yaml.StreamEndEvent):
            self._fail(after, "a second document begins here, and a task is one")
        return document

    def _value(self, event: Any, depth: int, texts: bool) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        before = self._count
        self._add(event, 1)
        if depth > MOST_DEPTH:
            self._fail(event, f"this is nested more than {MOST_DEPTH} deep")
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, texts)
        elif event.tag not in (None, "!", f"{CORE}seq", f"{CORE}map"):
            self._fail(
                event,
                f"the tag {event.tag!r} makes an object, and only texts, lists and keys with "
                "values are read",
            )
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._list(depth, texts)
        else:
            value = self._mapping(depth, texts)
        if event.anchor is not None:
            self._anchors[event.anchor] = value, self._count - before
        return value

    def _alias(self, event: Any) -> Any:
        if event.anchor not in self._anchors:
            self._fail(event, f"nothing is named &{event.anchor} before")
        if (named := self._anchors[event.anchor]) is None:
            self._fail(event, f"*{event.anchor} stands within what it names")
        value, size = named
        self._add(event, size)
        return value

    def _scalar(self, event: Any, texts: bool) -> str | None:
        if event.tag not in SCALAR_TAGS:
            self._fail(event, f"the tag {event.tag!r} makes an object, and only texts are read")
        if event.tag == f"{CORE}null":
            return None
        plain = event.style is None and event.tag is None
        return (
            None if plain and event.value in NULLS and not (texts and event.value) else event.value
        )

    def _list(self, depth: int, texts: bool) -> list[Any]:
        elements = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            elements.append(self._value(event, depth + 1, texts))
        return elements

    def _mapping(self, depth: int, texts: bool) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._value(event, depth + 1, True)
            if not isinstance(key, str):
                self._fail(
                    event,
                    "a key should be a text, and this is a list, keys with values, or nothing"
                    + (f". {IN_QUOTES}" if isinstance(key, dict) else ""),
                )
            if key in lines:
                self._fail(
                    event, f"the key {key!r} stands twice; the first is in line {lines[key]}"
                )
            lines[key] = event.start_mark.line + 1
            mapping[key] = self._value(next(self._events), depth + 1, texts or key in self._as_text)
        return mapping

    def _add(self, event: Any, values: int) -> None:
        self._count += values
        if self._count > MOST_VALUES:
            self._fail(
                event,
                f"there are more than {MOST_VALUES:,} values by here, those of aliases counted "
                "each time",
            )

    def _fail(self, event: Any, message: str) -> NoReturn:
        mark = event.start_mark
        raise ConfigError(
            f"{self._path}, line {mark.line + 1}, column {mark.column + 1}: {message}."
        )
