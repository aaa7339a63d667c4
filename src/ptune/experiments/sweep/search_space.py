"""What a search may choose from, as ``--search`` says it: a range or a list for each setting."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ptune.errors import ConfigError

RANGE = re.compile(r"(?P<scale>log:)?(?P<low>[^,]+?)\.\.(?P<high>[^,]+)")
DIGITS = 4  # of a number that is drawn, so that it is short in the command that trains it again
FORMS = "KEY=LOW..HIGH, KEY=log:LOW..HIGH, or KEY=A,B,C"
Value = int | float | bool | str


@dataclass(frozen=True)
class Range:
    """The numbers between two, these included.

    Attributes:
        is_whole: whole numbers alone, as both ends are.
        is_log: drawn by their logarithms.
    """

    low: float
    high: float
    is_whole: bool
    is_log: bool

    @property
    def ends(self) -> tuple[Value, Value]:
        """The lowest and the highest number."""
        return self.value(self.low), self.value(self.high)

    def value(self, drawn: float) -> Value:
        """A number of the range, of few digits."""
        if self.is_whole:
            return round(drawn)
        return min(self.high, max(self.low, float(f"{drawn:.{DIGITS}g}")))


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Value, ...]

    @property
    def ends(self) -> tuple[Value, ...]:
        """All of them."""
        return self.values

    def value(self, drawn: Value) -> Value:
        """The one that was drawn."""
        return drawn


Space = Mapping[str, Range | Choice]


def parse(texts: Sequence[str]) -> dict[str, Range | Choice]:
    """What ``--search`` says of each setting.

    Raises:
        ConfigError: one is no range and no list, or a setting is named twice.
    """
    space: dict[str, Range | Choice] = {}
    for text in texts:
        key, _, values = text.partition("=")
        if not key.strip() or not values.strip():
            raise ConfigError(f"--search {text}: it is {FORMS}, and this is neither.")
        if key in space:
            raise ConfigError(f"--search names {key} twice: which is meant?")
        matched = RANGE.fullmatch(values)
        space[key] = _range(text, **matched.groupdict()) if matched else _choice(text, values)
    return space


def _range(text: str, scale: str | None, low: str, high: str) -> Range:
    ends = [_number(text, end) for end in (low, high)]
    if not ends[0] < ends[1]:
        raise ConfigError(f"--search {text}: a range goes from a number to a larger one.")
    if scale and ends[0] <= 0:
        raise ConfigError(
            f"--search {text}: the logarithm of {low} is no number, so that a range of log: begins "
            "above 0."
        )
    is_whole = all(isinstance(end, int) for end in ends)
    return Range(ends[0], ends[1], is_whole=is_whole, is_log=scale is not None)


def _number(text: str, end: str) -> int | float:
    value = value_of(end)
    if isinstance(value, bool | str) or not math.isfinite(value):
        raise ConfigError(f"--search {text}: {end!r} is no number, as the end of a range is.")
    return value


def _choice(text: str, values: str) -> Choice:
    if ".." in values or values.startswith("log:"):
        raise ConfigError(f"--search {text}: it is {FORMS}, and this is neither.")
    names = [name.strip() for name in values.split(",")]
    if len(names) < 2 or "" in names or len(set(names)) < len(names):
        raise ConfigError(f"--search {text}: a list has two different values or more: A,B,C.")
    return Choice(tuple(map(value_of, names)))


def value_of(text: str) -> Value:
    """A value as it is written: a whole number, a number, true or false, or a text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)
