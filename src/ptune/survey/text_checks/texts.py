"""The texts of a split: how long they are, in which script, which of them are empty or damaged."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from ptune.survey.text_checks.unknown_text import SCRIPTS, is_visible

DAMAGE = re.compile("Ã[\x80-\xbf©¨¤¶¼]|â€[\x80-\xbf™œ˜“”]|Â[\xa0-\xbf]|ï»¿|\ufffd")
MARKUP = re.compile(
    r"&(amp|lt|gt|quot|nbsp|#\d+|#x[0-9a-fA-F]+);|</?(br|p|div|span|b|i|a)\b[^<>]*>"
)
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u200e\u200f\u202a-\u202e\u2060\ufeff]")
PLACEHOLDERS = frozenset(
    ("nan", "null", "none", "n/a", "na", "#n/a", "<na>", "nil", "#value!", "undefined", "\\n")
)
"""What data frames, tables and programs write in the place of a missing text."""
SMALLEST = 8
SHORT = 16
WIDTH = 30
"""Signs of the longest bar of a histogram."""


@dataclass
class Lengths:
    """How long texts are, in some unit."""

    unit: str
    counts: Counter[int] = field(default_factory=Counter)

    def add(self, length: int) -> None:
        """Count a text."""
        self.counts[length] += 1

    def at_share(self, share: float) -> int:
        """The length that this share of the texts has at most."""
        rest = share * self.counts.total()
        for length in sorted(self.counts):
            rest -= self.counts[length]
            if rest <= 0:
                return length
        return 0

    @property
    def summary(self) -> dict[str, int]:
        """The shortest, the median, the length of 95 in 100 at most, the longest."""
        return {
            "shortest": min(self.counts, default=0),
            "median": self.at_share(0.5),
            "95 %": self.at_share(0.95),
            "longest": max(self.counts, default=0),
        }

    def histogram(self) -> list[tuple[str, int]]:
        """How many texts are of which length; each range is as long as all before it."""
        ranges: Counter[int] = Counter()
        for length, count in self.counts.items():
            end = SMALLEST
            while end < length:
                end *= 2
            ranges[end] += count
        if not ranges:
            return []
        bars, end = [], min(ranges)
        while end <= max(ranges):
            start = 0 if end == SMALLEST else end // 2 + 1
            bars.append((f"{start}-{end}", ranges[end]))
            end *= 2
        return bars


def drawn(bars: Sequence[tuple[str, int]]) -> list[str]:
    """A histogram as lines of text."""
    most = max((count for _, count in bars), default=0)
    broad = max((len(name) for name, _ in bars), default=0)
    return [
        f"{name:>{broad}}  {'█' * max(bool(count), round(WIDTH * count / most))} {count:,}"
        for name, count in bars
    ]


@dataclass
class Texts:
    """What was counted over the texts of a split.

    Attributes:
        rows: how many there are; empty: without a visible sign.
        damaged: with signs of an encoding that was read as another; marked_up: with HTML;
            with_controls: with signs that cannot be seen; placeholders: such as "nan".
        scripts: of how many texts most letters are of a script, by its name.
        places: for each of these kinds of texts the first lines that have them.
    """

    rows: int = 0
    empty: int = 0
    damaged: int = 0
    marked_up: int = 0
    with_controls: int = 0
    placeholders: int = 0
    characters: Lengths = field(default_factory=lambda: Lengths("characters"))
    scripts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[int]] = field(default_factory=dict)

    def add(self, text: str, line: int) -> None:
        """Count a text."""
        self.rows += 1
        self.characters.add(len(text))
        if not is_visible(text):
            self.empty += 1
            self._note("empty", line)
            return
        self.scripts[main_script(text)] += 1
        if len(text) < SHORT and text.strip().lower() in PLACEHOLDERS:
            self.placeholders += 1
            self._note("placeholders", line)
        if not text.isascii() and DAMAGE.search(text):
            self.damaged += 1
            self._note("damaged", line)
        if ("&" in text or "<" in text) and MARKUP.search(text):
            self.marked_up += 1
            self._note("marked_up", line)
        if not text.isprintable() and CONTROLS.search(text):
            self.with_controls += 1
            self._note("with_controls", line)

    def _note(self, kind: str, line: int) -> None:
        lines = self.places.setdefault(kind, [])
        if len(lines) < 3:
            lines.append(line)


def main_script(text: str) -> str:
    """The script of most of a text's letters: "Latin", "Chinese characters", ...; "no letters"."""
    if text.isascii():
        return "Latin" if re.search("[A-Za-z]", text) else "no letters"
    scripts = Counter(map(_script_of, text))
    del scripts[""]
    if "Japanese" in scripts:
        return "Japanese"
    return max(scripts, key=scripts.__getitem__, default="no letters")


@lru_cache(65536)
def _script_of(sign: str) -> str:
    """The script of a letter; empty for any other sign."""
    if not unicodedata.category(sign).startswith("L"):
        return ""
    name = unicodedata.name(sign, "other").split()[0]
    return SCRIPTS.get(name, name.capitalize())


def script_shares(scripts: Mapping[str, int]) -> str:
    """Scripts with the share of the texts in each, in words."""
    total = sum(scripts.values())
    ordered = sorted(scripts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count / total:.1%}" for name, count in ordered)
