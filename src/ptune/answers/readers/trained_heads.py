"""Readers that are trained: a soft verbalizer, prototypes, a classification head.

Each scores the labels from a vector of the LM at the answer: its last hidden state, or the features
that the vocabulary head compares with the vectors of its words.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader import FillOutput, Reader
from ptune.errors import ModelError
from ptune.lm.language_model import LanguageModel

DROPOUT, NEARNESS = 0.1, 10.0
PROTOTYPE_WIDTH = 64


class SoftWords(Reader):
    """A soft verbalizer (WARP, section 3.1; OpenPrompt): a trained vector for each label in place
    of its words' vectors.

    Args:
        vectors: what it starts from [C, F], such as the vectors of the label words, so that it
            begins as those.
        bias: [C].
    """

    name = "soft"
    binds_words = True

    def __init__(self, vectors: torch.Tensor, bias: torch.Tensor):
        super().__init__()
        self.vectors = nn.Parameter(vectors.detach().float().clone())
        self.bias = nn.Parameter(bias.detach().float().clone())

    @classmethod
    def start(
        cls, lm: LanguageModel, verbalizer: Verbalizer | None, bound: BoundVerbalizer | None
    ) -> Self:
        """A soft verbalizer that begins as the labels' words.

        Raises:
            ModelError: the LM has no vectors of its words.
        """
        assert bound is not None
        if (vocabulary := lm.vocabulary) is None:
            raise ModelError(
                f"{type(lm.model).__name__} has no vectors of its words behind the head, so a soft "
                "verbalizer has nothing to stand for."
            )
        words = [
            [ids for ids, owner in zip(bound.ids, bound.owners) if owner == label]
            for label in range(len(bound.labels))
        ]
        return cls.from_words(vocabulary.weight, vocabulary.bias, words)

    @classmethod
    def from_words(
        cls,
        vectors: torch.Tensor,
        bias: torch.Tensor | None,
        words: Sequence[Sequence[Sequence[int]]],
    ) -> Self:
        """A soft verbalizer that begins, for each label, as the mean of the vectors of all tokens
        of its words.

        Args:
            vectors: the head's vectors of the vocabulary [V, F].
            bias: [V], or None.
            words: for each label the token ids of its words.
        """
        ids = [
            torch.tensor([token for word in label_words for token in word], device=vectors.device)
            for label_words in words
        ]
        biases = vectors.new_zeros(len(vectors)) if bias is None else bias
        return cls(
            torch.stack([vectors[label_ids].mean(0) for label_ids in ids]),
            torch.stack([biases[label_ids].mean() for label_ids in ids]),
        )

    def features(self, output: FillOutput) -> torch.Tensor:
        """The features at the answer [F]."""
        assert output.features is not None
        return output.features[0]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The scores of the labels [B, C] from the features at the answers [B, F]."""
        return nn.functional.linear(features.float(), self.vectors, self.bias)


class Head(Reader):
    """A classification head: dense layer, tanh, linear layer, as BERT's pooler with its classifier;
    dropout before both while it is trained.

    Args:
        width: of the hidden states, H.
        labels: how many labels there are, C.
    """

    name = "head"
    mask = "optional"
    pools = True

    def __init__(self, width: int, labels: int):
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.classifier = nn.Linear(width, labels)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The scores of the labels [B, C] from the hidden states at the answers [B, H]."""
        return self.classifier(self.dropout(torch.tanh(self.dense(self.dropout(hidden.float())))))


class Prototypes(Reader):
    """A prototypical verbalizer (ProtoVerb, section 3): labels are points, and a row's scores are
    its nearness (cosine, times 10) to them after a trained projection. Learned by contrast: a row
    is drawn to rows of its label and to the label's prototype, away from the others; the pair of a
    row with itself is left out.

    Args:
        width: of the hidden states, H.
        labels: how many labels there are, C.
        inner: how many dimensions the points have.
    """

    name = "prototypes"
    pools = couples_rows = starts_from_rows = True
    decides_apart = False

    def __init__(self, width: int, labels: int, inner: int):
        super().__init__()
        self.projection = nn.Linear(width, inner, bias=False)
        self.points = nn.Parameter(torch.randn(labels, inner))

    @classmethod
    def start(
        cls, lm: LanguageModel, verbalizer: Verbalizer | None, bound: BoundVerbalizer | None
    ) -> Self:
        """A projection and prototypes with random values."""
        assert bound is not None
        return cls(lm.hidden_width, len(bound.labels), PROTOTYPE_WIDTH)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The scores of the labels [B, C] from the hidden states at the answers [B, H]."""
        return self._near(self._placed(hidden), normalize(self.points, dim=-1))

    def losses(
        self, inputs: torch.Tensor, bound: BoundVerbalizer, labels: torch.Tensor
    ) -> torch.Tensor:
        """Each row's contrast to the other rows, plus that to the prototypes [B]."""
        return self.contrast(inputs.sum(0), labels)

    def contrast(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of each row [B] from its hidden state.

        Args:
            hidden: [B, H].
            labels: the numbers of the right labels [B].
        """
        placed = self._placed(hidden)
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        near = self._near(placed, placed).masked_fill(itself, -torch.inf)
        same = (labels[:, None] == labels) & ~itself
        shares = torch.zeros_like(near)
        if len(labels) > 1:
            shares = near.log_softmax(1).masked_fill(~same, 0.0)
        rows = -shares.sum(1) / same.sum(1).clamp(min=1)
        nearness = self._near(placed, normalize(self.points, dim=-1))
        return rows + cross_entropy(nearness, labels, reduction="none")

    @torch.no_grad()
    def start_from(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        """Put each prototype at the mean of its label's rows (prototypical networks), where it has
        any."""
        placed = self._placed(inputs.sum(0))
        for label in labels.unique().tolist():
            self.points[label] = placed[labels == label].mean(0)

    def _placed(self, hidden: torch.Tensor) -> torch.Tensor:
        """Where hidden states [B, H] lie among the points [B, inner]."""
        return normalize(self.projection(hidden.float()), dim=-1)

    @staticmethod
    def _near(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """How near each of some points [A, inner] is to each of others [B, inner]: [A, B]."""
        return NEARNESS * a @ b.T
