"""An answer that is a part of a text of the row (extractive question answering): where it stands,
and the best parts by the scores of where they begin and end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.errors import DataError, nearest
from ptune.template.language import Kind
from ptune.template.tokenizer import Place, Tokens

LONGEST = 30  # tokens of an answer at most, by default


@dataclass(frozen=True)
class Extraction:
    """The answer is a part of a text of the row.

    Attributes:
        field: the row's field with the text.
        longest: the most tokens of an answer.
        no_answer: a text may have no answer, as in SQuAD 2.0.
    """

    field: str
    longest: int = LONGEST
    no_answer: bool = False

    def bind(
        self, row: Mapping[str, Any], tokens: Tokens, place: Place, kind: Kind
    ) -> BoundVerbalizer:
        """What is read at each token: whether the answer begins there, and whether it ends."""
        return _ends(kind)

    def text(self, row: Mapping[str, Any]) -> str:
        """The text of a row.

        Raises:
            DataError: it has none.
        """
        if self.field not in row:
            raise DataError(
                f"The row has no field {self.field!r}, in whose text its answer should stand. "
                f"{nearest(self.field, map(str, row))}"
            )
        if not isinstance(text := row[self.field], str) or not text.strip():
            raise DataError(
                f"The field {self.field!r}, in which the answer should stand, should hold a text, "
                f"and holds {str(text)[:60]!r}."
            )
        return text

    def right(self, row: Mapping[str, Any], target: str) -> list[tuple[int, int]]:
        """The first character and the end of each right answer in the row's text.

        Args:
            target: the field with the right answer, a text; a list of them; or SQuAD's form, with
                ``text`` and ``answer_start``.

        Raises:
            DataError: there is none, it does not stand there, or there must be one.
        """
        if target not in row:
            raise DataError(
                f"The field {target!r}, which should hold the right answer, is missing. "
                f"{nearest(target, map(str, row))}"
            )
        text = self.text(row)
        answers = [_located(text, *answer, self.field) for answer in _answers(row[target], target)]
        if not answers and not self.no_answer:
            raise DataError(
                f"The field {target!r} holds no right answer: leave the row out, or say no_answer: "
                "true under reading where a text may have none."
            )
        return answers

    def best(self, log_probs: torch.Tensor, most: int = 1) -> list[tuple[int, int, float]]:
        """The best parts of a text of T tokens, likeliest first: the numbers of the first and the
        last token of each, and the log probability; (-1, -1) where there is no answer.

        Args:
            log_probs: that the answer begins and ends at each token [T, 2], behind those that there
                is none [T + 1, 2], where that may be.
        """
        start, end = log_probs.double().unbind(1)
        nothing: list[tuple[int, int, float]] = []
        if self.no_answer:
            nothing = [(-1, -1, float(start[-1] + end[-1]))]
            start, end = start[:-1], end[:-1]
        longest = min(self.longest, len(start))
        padded = torch.cat([end, end.new_full((longest - 1,), -torch.inf)])
        spans = start[:, None] + padded.unfold(0, longest, 1)  # [T, longest]
        values, places = spans.flatten().topk(min(most, spans.numel()))
        parts = [
            (place // longest, place // longest + place % longest, value)
            for value, place in zip(values.tolist(), places.tolist())
            if value > -torch.inf
        ]
        return sorted([*nothing, *parts], key=lambda part: -part[2])[:most]


def _answers(value: Any, target: str) -> list[tuple[str, int | None]]:
    """The right answers that a field holds, each with its first character where that is said."""
    if isinstance(value, str):
        return [(value, None)] if value.strip() else []
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):
        starts = value.get("answer_start") or [None] * len(value["text"])
        if not isinstance(starts, list) or len(starts) != len(value["text"]):
            raise DataError(
                f"The field {target!r} should hold as many under answer_start as under text, and "
                f"holds {str(dict(value))[:60]!r}."
            )
        value = [
            {"text": text, "answer_start": start} for text, start in zip(value["text"], starts)
        ]
    answers = value if isinstance(value, list) else [value]
    pairs: list[tuple[Any, Any]] = [
        (one.get("text"), one.get("answer_start")) if isinstance(one, Mapping) else (one, None)
        for one in answers
    ]
    for text, start in pairs:
        if not isinstance(text, str) or not text.strip() or not isinstance(start, int | None):
            raise DataError(
                f"The field {target!r} should hold the right answer, a list of such, or SQuAD's "
                f"text and answer_start, and holds {str(value)[:60]!r}."
            )
    return pairs


def _located(text: str, answer: str, start: int | None, field: str) -> tuple[int, int]:
    """Where an answer stands in a text: where it is said to, or at its first place."""
    if start is not None and text[start : start + len(answer)] != answer:
        raise DataError(
            f"The answer {answer[:60]!r} should begin at character {start} of {field!r}, and there "
            f"stands {text[max(0, start) : max(0, start) + len(answer)][:60]!r}."
        )
    answer_text = answer if start is not None else answer.strip()
    begin = text.find(answer_text) if start is None else start
    if begin < 0:
        raise DataError(
            f"The answer {answer_text[:60]!r} does not stand in the text of {field!r}, of which it "
            "should be a part."
        )
    return begin, begin + len(answer_text)


def tokens_of(spans: Sequence[tuple[int, int]], begin: int, end: int) -> tuple[int, int]:
    """The numbers of the first and the last token of some characters.

    Args:
        spans: the first character and the end of each token.

    Raises:
        DataError: no token has one of them.
    """
    inside = [n for n, (first, last) in enumerate(spans) if first < end and last > begin]
    if not inside:
        raise DataError(
            f"The answer, characters {begin} to {end}, has no token: the LM's tokenizer leaves "
            "it out."
        )
    return inside[0], inside[-1]


@lru_cache
def _ends(kind: Kind) -> BoundVerbalizer:
    return BoundVerbalizer(("start", "end"), (), (), kind)
