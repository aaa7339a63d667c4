"""The fields of a row, as a template takes them: looked up, filtered and cut."""

import math
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ptune.errors import TemplateError, nearest
from ptune.template.parts import Field
from ptune.writing_systems import ends_word, splits_no_character

SENTENCE_ENDS = frozenset(".?!…。？！")  # these are taken off at a text's end only: .22 is a number


def field_of(row: Mapping[str, Any], name: str) -> Any:
    """The value of a row's field. Where the row has no field of that name, the dots of the name
    lead into nested mappings, and its numbers into lists.

    Raises:
        KeyError: there is no such field.
    """
    if name in row:
        return row[name]
    value: Any = row
    for key in name.split("."):
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, list) and _is_index(key, len(value)):
            value = value[int(key)]
        else:
            raise KeyError(name)
    return value


def _is_index(key: str, length: int) -> bool:
    """Whether the text is the number of an item in a list of that length."""
    return key.isdecimal() and len(key) < 10 and int(key) < length


def text_of(row: Mapping[str, Any], part: Field) -> str:
    """The text that a row has for a field of a template.

    Raises:
        TemplateError: the row has no such field, or the field holds no text.
    """
    try:
        value = field_of(row, part.name)
    except KeyError:
        raise TemplateError(
            f"The row has no field {part.name!r}. {nearest(part.name, map(str, row))}"
        ) from None
    if value is None or isinstance(value, float) and math.isnan(value):
        raise TemplateError(
            f"The field {part.name!r} is missing (null or NaN): give it a text, or leave the row "
            "out."
        )
    if isinstance(value, list) and part.joint is not None and all(map(_is_text, value)):
        return part.joint.join(map(str, value))
    if not _is_text(value):
        hint = ""
        if isinstance(value, list):
            joined = replace(part, filters=(("join", ", "),))
            hint = f" Its texts are joined by {joined.shown}."
        raise TemplateError(
            f"The field {part.name!r} should be text, and it is {type(value).__name__}: "
            f"{str(value)[:60]!r}.{hint}"
        )
    return str(value)


def joined_texts(row: Mapping[str, Any], fields: Iterable[Field]) -> str:
    """The texts that a row has for some fields, joined; of a field without a text, nothing."""
    texts = []
    for field in fields:
        try:
            texts.append(text_of(row, field))
        except TemplateError:
            continue
    return " ".join(texts)


def same_text(text: str) -> str:
    """A text as it is compared with others: in lower case, with one blank between words."""
    return " ".join(text.lower().split())


def numbers_by_text(
    rows: Iterable[Mapping[str, Any]], fields: Sequence[Field]
) -> dict[str, list[int]]:
    """For each text that the fields read the numbers of its rows, in the order of the rows. What a
    row has besides, such as an id, does not tell it from others with its text. Rows without a text
    are told apart by all that they hold."""
    numbers: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        text = same_text(joined_texts(row, fields)) or repr(sorted(row.items(), key=repr))
        numbers.setdefault(text, []).append(number)
    return numbers


def _is_text(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def filtered(value: str, filters: Sequence[tuple[str, str]]) -> str:
    """The value after its filters, in their order."""
    for name, argument in filters:
        if name == "lower":
            value = value.lower()
        elif name == "capitalize":
            value = value[:1].upper() + value[1:]
        elif name == "trim:start":
            value = value.lstrip()
        elif name == "trim:end":
            value = value.rstrip()
        elif name == "strip":
            start_signs = "".join(set(argument) - SENTENCE_ENDS)
            end_signs = argument or string.punctuation
            value = value.strip().lstrip(start_signs).rstrip(end_signs)
    return value


def cut(text: str, spans: list[tuple[int, int]], limit: int, side: str | None) -> str:
    """At most ``limit`` tokens of the text, from its start or, with side "start", from its end. No
    word is split where the rest holds a whole one; in a script without spaces, no character.

    Args:
        spans: the first character and the end of each token of the text.
    """
    if len(spans) <= limit:
        return text
    if limit == 0:
        return ""
    if side == "start":
        start = spans[len(spans) - limit][0]
        if start and not text[start - 1].isspace():
            start = _next(range(start, len(text)), text, start)
        return text[start:].lstrip()
    end = spans[limit - 1][1]
    if not text[end : end + 1].isspace():
        end = _next(range(end, 0, -1), text, end)
    return text[:end].rstrip()


def _next(positions: Sequence[int], text: str, position: int) -> int:
    """The first of some positions at which the text may be cut between words; where there is none,
    the first between characters."""
    for tells in (ends_word, splits_no_character):
        for near in positions:
            if tells(text, near):
                return near
    return position
