"""Label words, each with a weight among those of its label."""

from typing import Self

import torch
from torch import nn

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.word_reader import WordReader
from ptune.errors import VerbalizerError
from ptune.lm.language_model import LanguageModel


class WeightedWords(WordReader):
    """Reads the labels from their words: a label's score is the weighted mean of its words' logits,
    with weights that are learned (KPT, Hu et al. 2022, section 3.3). They are positive, those of a
    label sum to 1, and they begin equal, as the aggregate "logit".

    Args:
        words: how many words there are, W.
    """

    name = "weighted-words"
    is_trained = True

    def __init__(self, words: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(words))

    @classmethod
    def start(
        cls, lm: LanguageModel, verbalizer: Verbalizer | None, bound: BoundVerbalizer | None
    ) -> Self:
        """A reader with equal weights.

        Raises:
            VerbalizerError: there are no labels that all rows share, or each has one word.
        """
        if bound is None or len(bound.ids) == len(bound.labels):
            raise VerbalizerError(
                "Weights are learned among the words of a label (weighted-words), and here no "
                "label has two words: give some label several, or read by words."
            )
        return cls(len(bound.ids))

    def weights(self, bound: BoundVerbalizer) -> torch.Tensor:
        """The weight of each word [W]."""
        owners = torch.tensor(bound.owners, device=self.logits.device)
        zeros = self.logits.new_zeros(len(bound.labels))
        largest = zeros.scatter_reduce(0, owners, self.logits.detach(), "amax", include_self=False)
        positive = (self.logits - largest[owners]).exp()
        return positive / zeros.index_add(0, owners, positive)[owners]

    def scores(self, inputs: torch.Tensor, bound: BoundVerbalizer) -> torch.Tensor:
        """The scores of the labels [B, C]: the mean over the variants of a row."""
        owners = torch.tensor(bound.owners, device=inputs.device)
        words = inputs.mean(0) * self.weights(bound)
        return words.new_zeros(len(words), len(bound.labels)).index_add(1, owners, words)
