"""A label for each word of a row (sequence labelling): which labels there are, how words are read,
and the likeliest labels that their scheme allows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.errors import DataError, VerbalizerError, nearest
from ptune.metrics import entities
from ptune.metrics.entities import Scheme
from ptune.settings import PiecesOfWord
from ptune.survey.findings import likest_label
from ptune.template.language import Kind
from ptune.template.tokenizer import Place, Tokens

FORBIDDEN = -1e9  # the score of a label that may not stand behind another


@dataclass(frozen=True)
class WordLabels:
    """Each word of a row has a label (named entities, parts of speech).

    Attributes:
        field: the row's field that holds the list of its words.
        labels: all labels that a word may have.
        pieces: at which of a word's tokens the LM is read: its first, its last, or all, whose
            scores are averaged; None for the first, and of a causal LM, which has not seen a word
            before its end, the last.
        scheme: which labels may stand behind each other; None for what the labels look like.
    """

    field: str
    labels: tuple[str, ...]
    pieces: PiecesOfWord | None = None
    scheme: Scheme | None = None

    @cached_property
    def rules(self) -> Scheme:
        """The scheme, where none is set by what the labels look like."""
        return self.scheme or entities.scheme_of(self.labels)

    def read_pieces(self, kind: Kind) -> PiecesOfWord:
        """At which of a word's tokens an LM of this kind is read."""
        return self.pieces or ("last" if kind == "causal" else "first")

    def bind(
        self, row: Mapping[str, Any], tokens: Tokens, place: Place, kind: Kind
    ) -> BoundVerbalizer:
        """The labels, which are the same for all rows."""
        return _without_words(self.labels, kind)

    def words(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The words of a row.

        Raises:
            DataError: it has none, or something else.
        """
        if self.field not in row:
            raise DataError(
                f"The row has no field {self.field!r}, which should hold its words. "
                f"{nearest(self.field, map(str, row))}"
            )
        words = row[self.field]
        if not isinstance(words, list | tuple) or not all(map(_is_word, words)):
            raise DataError(
                f"The field {self.field!r} should hold a list of words, and holds "
                f"{str(words)[:60]!r}. "
                'Write ["EU", "rejects", "call"].'
            )
        if not words:
            raise DataError(f"The field {self.field!r} holds no words: leave the row out.")
        return tuple(map(str, words))

    def right(self, row: Mapping[str, Any], target: str) -> tuple[int, ...]:
        """The numbers of the right labels of a row's words.

        Raises:
            DataError: the target holds no list with a label for each word.
            VerbalizerError: it holds a label that there is not.
        """
        words, labels = self.words(row), row.get(target)
        if not isinstance(labels, list | tuple) or len(labels) != len(words):
            counted = f"{len(labels)} labels" if isinstance(labels, list | tuple) else "no list"
            raise DataError(
                f"The field {target!r} should hold a list with a label for each of the row's "
                f"{len(words)} words, and holds {counted}."
            )
        names = list(map(str, labels))
        if unknown := next((name for name in names if name not in self.labels), None):
            raise VerbalizerError(
                f"There is no label {unknown!r}. {likest_label(unknown, self.labels)}"
            )
        return tuple(self._numbers[name] for name in names)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {label: number for number, label in enumerate(self.labels)}

    def best(self, log_probs: torch.Tensor) -> list[int]:
        """The numbers of the likeliest labels of a row's words, all together, of those rows of
        labels that the scheme allows (Viterbi).

        Args:
            log_probs: of each word's labels [W, C].
        """
        between, start, end = self._transitions
        scores = log_probs.double().cpu().numpy()
        total, arrows = scores[0] + start, []
        for word in scores[1:]:
            candidates = total[:, None] + between
            arrows.append(candidates.argmax(0))
            total = candidates.max(0) + word
        labels = [int((total + end).argmax())]
        for arrow in reversed(arrows):
            labels.append(int(arrow[labels[-1]]))
        return labels[::-1]

    @cached_property
    def _transitions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is added to the score of a label behind another [C, C], at the beginning of a
        sentence [C] and at its end [C]: nothing where it may stand there."""

        def penalty(before: str | None, label: str | None) -> float:
            return 0.0 if entities.may_follow(before, label, self.rules) else FORBIDDEN

        labels = self.labels
        return (
            np.array([[penalty(before, label) for label in labels] for before in labels]),
            np.array([penalty(None, label) for label in labels]),
            np.array([penalty(label, None) for label in labels]),
        )

    def names(self, numbers: Sequence[int]) -> list[str]:
        """Labels by their numbers."""
        return [self.labels[number] for number in numbers]


@lru_cache
def _without_words(labels: tuple[str, ...], kind: Kind) -> BoundVerbalizer:
    """Labels that no word of the LM stands for."""
    return BoundVerbalizer(labels, (), (), kind)


def _is_word(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)
