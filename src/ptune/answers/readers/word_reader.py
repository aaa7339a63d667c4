"""Label words read as they are: nothing is trained beside the prompt."""

from collections.abc import Sequence
from typing import ClassVar, Self

import torch

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader import Answer, FillOutput, Reader
from ptune.lm.language_model import LanguageModel
from ptune.settings import ReaderName


class WordReader(Reader):
    """Reads the labels from their words; also the reader of tasks whose answer is a text."""

    name: ClassVar[ReaderName] = "words"
    scores_words = binds_words = True
    is_trained = False

    @classmethod
    def start(
        cls, lm: LanguageModel, verbalizer: Verbalizer | None, bound: BoundVerbalizer | None
    ) -> Self:
        """A reader of words, which has no values of its own."""
        return cls()

    @staticmethod
    def answers(bound: BoundVerbalizer) -> list[Answer]:
        """How the place of the answer is filled in turn so that every word can be scored: None for
        a mask."""
        return [fill.answer for fill in bound.fills]

    def read(self, outputs: Sequence[list[FillOutput]], bound: BoundVerbalizer) -> torch.Tensor:
        """The log probabilities of the W words [variants, B, W].

        Args:
            outputs: for each row the outputs of the fills of all its variants.
        """
        size = len(bound.fills)
        variants = [
            bound.of_words(_log_probs(outputs, range(start, start + size)))
            for start in range(0, len(outputs[0]), size)
        ]
        return torch.stack(variants)

    def scores(self, inputs: torch.Tensor, bound: BoundVerbalizer) -> torch.Tensor:
        """The scores of the labels [B, C]: the mean over the variants of a row."""
        return torch.stack([bound.of_labels(words) for words in inputs]).mean(0)


def _log_probs(outputs: Sequence[list[FillOutput]], fills: Sequence[int]) -> list[torch.Tensor]:
    """For each of the fills the log probabilities of the vocabulary [B, K, V]."""
    return [
        torch.stack([outputs_of_row[fill].log_probs for outputs_of_row in outputs])
        for fill in fills
    ]
