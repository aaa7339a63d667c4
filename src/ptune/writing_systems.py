"""Scripts: which of them put no spaces between words, where a text may be cut, and how wide it is
on a screen."""

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Literal

Script = Literal["latin", "han", "japanese", "unspaced", "other"]
KANA = "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9d"
HAN = "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
HAN += "\U00020000-\U000323af"
SOUTH_EAST = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\uaa60-\uaa7f\ua9e0-\ua9ff"  # Thai to Khmer
PUNCTUATION = "\u3000-\u3004\u3008-\u3020\u302a-\u303f\uff01-\uff65"  # of full width
OF_KIND = {
    "japanese": re.compile(f"[{KANA}]"),
    "han": re.compile(f"[{HAN}]"),
    "unspaced": re.compile(f"[{SOUTH_EAST}]"),
}
UNSPACED = re.compile(f"[{KANA}{HAN}{SOUTH_EAST}{PUNCTUATION}]")
JOINER = "\u200d"


def script_of(texts: Iterable[str]) -> Script:
    """The script of most letters of some texts. Chinese is "han"; Japanese is told from it by its
    kana; "unspaced" are Thai, Lao, Khmer and Burmese; "other" are scripts with spaces that are not
    Latin."""
    signs = itertools.chain.from_iterable(texts)
    counts = Counter(_kind(sign) for sign in signs if sign.isalpha())
    if counts["japanese"] * 20 > counts["han"] and counts["japanese"]:
        counts["japanese"] += counts.pop("han", 0)
    return counts.most_common(1)[0][0] if counts else "latin"


def _kind(sign: str) -> Script:
    if sign.isascii():
        return "latin"
    for kind in ("han", "japanese", "unspaced"):
        if OF_KIND[kind].match(sign):
            return kind
    return "latin" if "LATIN" in unicodedata.name(sign, "") else "other"


def ends_word(text: str, position: int) -> bool:
    """Whether a text may be cut before the character at a position, so that neither part begins or
    ends within a word: at a space, and between characters of a script without spaces."""
    if not 0 < position < len(text):
        return True
    before, sign = text[position - 1], text[position]
    if sign == " ":
        return True
    return splits_no_character(text, position) and any(map(UNSPACED.match, (before, sign)))


def splits_no_character(text: str, position: int) -> bool:
    """Whether a text may be cut before the character at a position without taking a mark, such as
    an accent or a vowel sign, from its letter."""
    if not 0 < position < len(text):
        return True
    before, sign = text[position - 1], text[position]
    return unicodedata.category(sign)[0] != "M" and JOINER not in (before, sign)


def width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(
        0
        if unicodedata.category(sign) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(sign) in "WF"
        else 1
        for sign in text
    )
