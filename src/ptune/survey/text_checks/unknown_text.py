"""Texts that an LM cannot read: the share of their pieces that its tokenizer does not know, and of
those without a visible sign."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ptune.errors import DataError
from ptune.template.tokenizer import Tokens

TOLD = 0.01
REFUSED = 0.1
ROW_REFUSED = 0.5
"""Of one row's pieces: a single emoji in a short text is no reason to stop."""
PLACES = 5
SCRIPTS = {
    "CJK": "Chinese characters",
    "HIRAGANA": "Japanese",
    "KATAKANA": "Japanese",
    "HANGUL": "Korean",
}
READERS = {
    "CJK": "a Chinese LM (bert-base-chinese)",
    "HIRAGANA": "a Japanese LM (tohoku-nlp/bert-base-japanese-v3)",
    "KATAKANA": "a Japanese LM (tohoku-nlp/bert-base-japanese-v3)",
    "HANGUL": "a Korean LM (klue/bert-base)",
    "LATIN": "a cased LM or one of that language",
}


@dataclass
class Unknown:
    """What was counted over texts.

    Attributes:
        pieces: all pieces; unknown: those that the tokenizer does not know.
        texts: all texts; empty: those without a visible sign, and the numbers of the first of them,
            from 1.
        scripts: the letters of each script, by Unicode's name, in texts that have unknown pieces.
    """

    pieces: int = 0
    unknown: int = 0
    texts: int = 0
    empty: int = 0
    first_empty: list[int] = field(default_factory=list)
    scripts: Counter[str] = field(default_factory=Counter)

    def count(self, texts: Iterable[str], tokens: Tokens) -> None:
        """Count texts."""
        mark = tokens.tokenizer.unk_token_id
        for text in texts:
            ids = [] if mark is None or not text else tokens.plain(text)
            self.add(text, len(ids), ids.count(mark) if ids else 0)

    def add(self, text: str, pieces: int, unknown: int) -> None:
        """Count a text of so many pieces, of which so many are unknown."""
        self.texts += 1
        if not is_visible(text):
            self.empty += 1
            self.first_empty += [self.texts] if self.empty <= PLACES else []
        self.pieces += pieces
        self.unknown += unknown
        if unknown:
            self.scripts.update(
                unicodedata.name(sign, "OTHER").split()[0]
                for sign in set(text)
                if not sign.isascii()
            )

    def merge(self, other: "Unknown") -> None:
        """Count the texts that another one counted, behind those that were counted here."""
        behind = [self.texts + number for number in other.first_empty]
        self.first_empty = [*self.first_empty, *behind][:PLACES]
        self.texts += other.texts
        self.empty += other.empty
        self.pieces += other.pieces
        self.unknown += other.unknown
        self.scripts.update(other.scripts)

    @property
    def share(self) -> float:
        """The unknown pieces' share."""
        return self.unknown / self.pieces if self.pieces else 0.0

    @property
    def unread(self) -> float:
        """The share that cannot be read, which is all of texts without a visible sign."""
        return 1.0 if self.texts == self.empty else self.share

    def sentence(self, where: str) -> str:
        """What is to be told; empty where nothing is."""
        sentences = []
        if self.share > TOLD:
            script = max(self.scripts, key=self.scripts.__getitem__, default=None)
            signs = "" if script is None else SCRIPTS.get(script, f"{script.capitalize()} signs")
            reader = READERS.get(script or "", "one of that language")
            sentences.append(
                f"{where}: {self.share:.1%} of the pieces of the texts are unknown to this LM's "
                f"vocabulary{signs and ', which cannot read '}{signs}. Take {reader}, or one for "
                "many languages (xlm-roberta-base, bert-base-multilingual-cased)."
            )
        if self.empty:
            numbers = ", ".join(map(str, self.first_empty)) + ", ..." * (self.empty > PLACES)
            sentences.append(
                f"{where}: {self.empty} of {self.texts} texts are empty or have no visible sign "
                f"(row {numbers})."
            )
        return " ".join(sentences)

    @property
    def is_refused(self) -> bool:
        """Whether so much cannot be read that nothing should be learned from it."""
        return self.share > REFUSED or self.texts > 0 and self.empty / self.texts > REFUSED


def is_visible(text: str) -> bool:
    """Whether a text has a sign that can be seen."""
    return any(unicodedata.category(sign)[0] not in "CZM" for sign in text)


def of_row(text: str, ids: Sequence[int], tokens: Tokens) -> Unknown:
    """What of a single row's text an LM cannot read.

    Args:
        ids: the token ids of the whole row, its template among them.
    """
    row, mark = Unknown(), tokens.tokenizer.unk_token_id
    if mark is not None and mark in ids:
        row.count([text], tokens)
    else:
        row.add(text, len(ids), 0)
    return row


class UnknownRows:
    """What of rows that are answered one by one an LM cannot read."""

    def __init__(self) -> None:
        self.all, self.rows = Unknown(), 0
        self.places: list[str] = []

    def count(self, text: str, row: Unknown, place: str) -> float:
        """Count a row; return the share of its text that cannot be read, which is all of a text
        without a visible sign.

        Args:
            row: what of it cannot be read (``of_row``).
            place: where the row stands, in words.
        """
        self.all.add(text, row.pieces, row.unknown)
        share = row.unread
        if share > ROW_REFUSED:
            self.rows += 1
            if len(self.places) < PLACES:
                self.places.append(place)
        return share

    def merge(self, other: "UnknownRows") -> None:
        """Count the rows that another one counted, behind those that were counted here."""
        self.all.merge(other.all)
        self.rows += other.rows
        self.places = [*self.places, *other.places][:PLACES]

    def sentence(self) -> str:
        """What is to be told when all rows are answered; empty where nothing is."""
        sentence = self.all.sentence("The rows")
        if self.rows:
            listed = ", ".join(self.places) + (", ..." if self.rows > len(self.places) else "")
            counted = "1 row is" if self.rows == 1 else f"{self.rows} rows are"
            sentence = (
                f"{sentence} {counted} mostly unknown to the LM, or without a visible sign, and "
                f"answered nonetheless: {listed}."
            ).strip()
        return sentence


def check(groups: Sequence[tuple[str, Sequence[str]]], tokens: Tokens, allow: bool) -> list[str]:
    """Count the texts of each group (a split's field) and return what is to be told.

    Raises:
        DataError: of a group more than a tenth cannot be read, and that is not allowed.
    """
    sentences = []
    for where, texts in groups:
        unknown = Unknown()
        unknown.count(texts, tokens)
        if sentence := unknown.sentence(where):
            if unknown.is_refused and not allow:
                raise DataError(f"{sentence} With --allow-unknown they are taken as they are.")
            sentences.append(sentence)
    return sentences
