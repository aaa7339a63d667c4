"""How a written text differs from the reference that it is nearest to, word by word."""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["same", "added", "missing"]


@dataclass(frozen=True)
class Piece:
    """A stretch of words that both texts have, that was added, or that is missing."""

    text: str
    kind: Kind

    @property
    def words(self) -> str:
        """The text without the white space at its end."""
        return self.text.rstrip()

    @property
    def space(self) -> str:
        """The white space at its end."""
        return self.text[len(self.words) :]


def differences(text: str, references: Sequence[str]) -> list[Piece]:
    """A text in pieces, beside the reference that shares the most words with it.

    Case is of no account; words and marks between them are told apart. Without a reference the text
    is one piece.
    """
    if not references or not text.strip():
        return [Piece(text, "same")]
    words = _words(text)
    compared = [_Comparison(words, _words(reference)) for reference in references]
    return list(max(compared, key=lambda comparison: comparison.likeness).pieces())


class _Comparison:
    """The words of a text beside those of one reference."""

    def __init__(self, words: Sequence[str], reference: Sequence[str]):
        self.words, self.reference = words, reference
        plain, plain_reference = _plain(words), _plain(reference)
        self.matcher = difflib.SequenceMatcher(None, plain, plain_reference, autojunk=False)

    @property
    def likeness(self) -> float:
        """The share of words that both have, from 0 to 1."""
        return self.matcher.ratio()

    def pieces(self) -> Iterator[Piece]:
        for change, start, end, other_start, other_end in self.matcher.get_opcodes():
            if end > start:
                kind: Kind = "same" if change == "equal" else "added"
                yield Piece("".join(self.words[start:end]), kind)
            if change in ("replace", "insert"):
                yield Piece("".join(self.reference[other_start:other_end]), "missing")


def _plain(words: Sequence[str]) -> list[str]:
    return [word.strip().lower() for word in words]


def _words(text: str) -> list[str]:
    """Words and single marks, each with the white space behind it."""
    return re.findall(r"^\s+|\w+\s*|[^\w\s]\s*", text)
