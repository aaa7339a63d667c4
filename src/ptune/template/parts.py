"""The parts of a template, and how each is written in the template language."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["masked", "causal", "encoder-decoder"]
RESERVED = ("soft", "prefix", "mask", "sep", "decoder")
BEGINS_AS_A_PART = re.compile(rf"({'|'.join(RESERVED)})(?!\w)")
"""A bare name such as ``soft-drink`` or ``mask.id`` would be read as another part."""


@dataclass(frozen=True)
class Text:
    """Text that stands in the template."""

    text: str

    @property
    def is_blank(self) -> bool:
        """Whether it is nothing but white space."""
        return not self.text.strip()


@dataclass(frozen=True)
class Field:
    """A field of the row, and its filters as pairs of a name and an argument."""

    name: str
    filters: tuple[tuple[str, str], ...] = ()

    @property
    def shorten(self) -> str | None:
        """The side at which the field may be cut, "end" or "start"; None where it may not."""
        return next(
            (argument or "end" for name, argument in self.filters if name == "shorten"), None
        )

    @property
    def joint(self) -> str | None:
        """What stands between the texts of a list; None where the field should be a text."""
        return next((argument for name, argument in self.filters if name == "join"), None)

    @property
    def shown(self) -> str:
        """The field as it is written in a template."""
        bare = is_bare_name(self.name) and not BEGINS_AS_A_PART.match(self.name)
        name = self.name if bare else quoted(self.name)
        return "{" + "|".join([name, *map(_shown_filter, self.filters)]) + "}"


@dataclass(frozen=True)
class Soft:
    """A run of pseudo tokens: ``length`` of them, or as many as ``words`` have tokens, or those of
    another run by ``name``."""

    length: int | None = None
    words: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class PrefixPart:
    """A deep prefix: ``length`` vectors at every layer, or as many as ``words`` have tokens."""

    length: int | None = None
    words: str | None = None


@dataclass(frozen=True)
class Mask:
    """The place of the answer."""


@dataclass(frozen=True)
class Sep:
    """The tokenizer's separator of a pair of texts."""


@dataclass(frozen=True)
class Decoder:
    """Where the input of an encoder-decoder's encoder ends, and that of its decoder begins."""


@dataclass(frozen=True)
class Role:
    """The beginning of a chat's message, and who speaks it: system, user or assistant."""

    name: str


@dataclass(frozen=True)
class Control:
    """A token that a chat template writes, such as the one that ends a message.

    Attributes:
        begins: text behind it is split into tokens as at the start of a text.
        strips: whether it takes the white space before it, and behind it, with it.
    """

    text: str
    id: int
    begins: bool
    strips: tuple[bool, bool] = (False, False)


Part = Text | Field | Soft | PrefixPart | Mask | Sep | Decoder | Role | Control


def shown(part: Part) -> str:
    """The part as it is written in a template."""
    if isinstance(part, Text):
        return part.text
    if isinstance(part, Field):
        return part.shown
    if isinstance(part, Soft):
        name = f"@{part.name}" if part.name else ""
        return "{soft" + _shown_length(part) + name + "}"
    if isinstance(part, PrefixPart):
        return "{prefix" + _shown_length(part) + "}"
    if isinstance(part, Role):
        return "{role:" + part.name + "}"
    if isinstance(part, Control):
        return part.text
    if isinstance(part, Decoder):
        return "{decoder}"
    return "{mask}" if isinstance(part, Mask) else "{sep}"


def with_soft_words(parts: Sequence[Part]) -> str:
    """A template of these parts with soft tokens in the place of its words, as which they begin.
    Signs stay, but where there are no words they take the place of those; quotes and braces always
    do, since soft tokens cannot begin as them."""
    has_words = any(isinstance(part, Text) and _has_words(part.text) for part in parts)
    is_softened = _has_words if has_words else _has_signs
    return "".join(
        _with_soft(part.text, is_softened) if isinstance(part, Text) else shown(part)
        for part in parts
    )


def _with_soft(text: str, is_softened: Callable[[str], bool]) -> str:
    """A text with soft tokens for the pieces between quotes and braces that are to become such."""
    pieces = re.split(r'([{}"]+)', text)
    return "".join(_soft(piece) if is_softened(piece) else _doubled(piece) for piece in pieces)


def _has_words(text: str) -> bool:
    return any(sign.isalnum() for sign in text)


def _has_signs(text: str) -> bool:
    return text.strip().strip('{}"') != ""


def _soft(text: str) -> str:
    """Soft tokens that begin as a text, with the white space around it."""
    words = text.strip()
    before, behind = text.split(words)
    return f'{before}{{soft:"{words}"}}{behind}'


def _doubled(text: str) -> str:
    """A text as it is written in a template, with its braces doubled."""
    return text.replace("{", "{{").replace("}", "}}")


def _shown_length(part: Soft | PrefixPart) -> str:
    if part.length is not None:
        return f":{part.length}"
    return "" if part.words is None else f':"{part.words}"'


def _shown_filter(name_and_argument: tuple[str, str]) -> str:
    name, argument = name_and_argument
    if name == "join":
        return f"{name}:{quoted(argument)}"
    return f"{name}:{argument}" if argument else name


def is_bare_name(name: str) -> bool:
    """Whether a field's name needs no quotes: it begins with a letter of any script or _, its
    marks, digits, - and _ follow, and dots stand between such names, or numbers."""
    names = name.split(".")
    return all(map(_is_word, names)) and (
        names[0][0] == "_" or unicodedata.category(names[0][0])[0] == "L"
    )


def _is_word(name: str) -> bool:
    return name != "" and all(
        sign in "_-" or unicodedata.category(sign)[0] in "LMN" for sign in name
    )


def quoted(name: str) -> str:
    """The name in double quotes; a quote within it is doubled."""
    return '"' + name.replace('"', '""') + '"'


def unquoted(text: str) -> str:
    """The text between double quotes, in which two quotes stand for one; an empty text where there
    are no quotes around it."""
    matched = re.fullmatch(r'"((?:[^"]|"")*)"', text)
    return matched[1].replace('""', '"') if matched else ""
