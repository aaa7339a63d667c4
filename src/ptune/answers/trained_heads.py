"""Trained ways to read labels off an LM's vectors, beside label words: soft verbalizers,
prototypes, classification heads.

A reader turns the LM's vectors at the answers [B, F] into scores of the labels [B, C].
``answer_positions`` says which vectors: the last hidden states, or the features that the vocabulary
head compares with its words. One with ``couples_rows`` has a loss for all rows of its task's batch
together.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from ptune.answers.next_sentence import PairHead
from ptune.errors import VerbalizerError, nearest

Reads = Literal["hidden", "features"]
DROPOUT, NEARNESS = 0.1, 10.0


class SoftWords(nn.Module):
    """A soft verbalizer (WARP, section 3.1; OpenPrompt): a trained vector for each label in place
    of its words' vectors.

    Args:
        vectors: what it starts from [C, F], such as the vectors of the label words, so that it
            begins as those.
        bias: [C].
    """

    answer_positions: Reads = "features"

    def __init__(self, vectors: torch.Tensor, bias: torch.Tensor):
        super().__init__()
        self.vectors, self.bias = (
            nn.Parameter(vectors.detach().float().clone()),
            nn.Parameter(bias.detach().float().clone()),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[B, F] to [B, C]."""
        return nn.functional.linear(features.float(), self.vectors, self.bias)

    def losses(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Minus the log probability of each row's label [B]."""
        return cross_entropy(self(features), labels, reduction="none")


class Head(nn.Module):
    """A classification head: dense layer, tanh, linear layer, as BERT's pooler with its classifier;
    dropout before both while it is trained."""

    answer_positions: Reads = "hidden"

    def __init__(self, width: int, labels: int):
        super().__init__()
        self.dense, self.classifier, self.dropout = (
            nn.Linear(width, width),
            nn.Linear(width, labels),
            nn.Dropout(DROPOUT),
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[B, H] to [B, C]."""
        return self.classifier(self.dropout(torch.tanh(self.dense(self.dropout(hidden.float())))))

    def losses(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Minus the log probability of each row's label [B]."""
        return cross_entropy(self(hidden), labels, reduction="none")


class Prototypes(nn.Module):
    """A prototypical verbalizer (ProtoVerb, section 3): labels are points, and a row's scores are
    its nearness (cosine, times 10) to them after a trained projection. Learned by contrast: a row
    is drawn to rows of its label and to the label's prototype, away from the others; the pair of a
    row with itself is left out."""

    answer_positions: Reads = "hidden"
    couples_rows = True

    def __init__(self, width: int, labels: int, inner: int):
        super().__init__()
        self.projection, self.points = (
            nn.Linear(width, inner, bias=False),
            nn.Parameter(torch.randn(labels, inner)),
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[B, H] to [B, C]."""
        return self._near(self._placed(hidden), normalize(self.points, dim=-1))

    def losses(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Each row's contrast to the other rows, plus that to the prototypes [B]."""
        placed = self._placed(hidden)
        near = self._near(placed, placed).masked_fill(
            torch.eye(len(labels), dtype=torch.bool, device=labels.device), -torch.inf
        )
        same = (labels[:, None] == labels) & ~torch.eye(
            len(labels), dtype=torch.bool, device=labels.device
        )
        shares = (
            near.log_softmax(1).masked_fill(~same, 0.0)
            if len(labels) > 1
            else torch.zeros_like(near)
        )
        rows = -shares.sum(1) / same.sum(1).clamp(min=1)
        return rows + cross_entropy(
            self._near(placed, normalize(self.points, dim=-1)), labels, reduction="none"
        )

    @torch.no_grad()
    def start_at(self, hidden: torch.Tensor, labels: torch.Tensor) -> None:
        """Put each prototype at the mean of its label's rows (prototypical networks), where it has
        any.

        Args:
            hidden: [B, H].
            labels: [B].
        """
        placed = self._placed(hidden)
        for label in labels.unique().tolist():
            self.points[label] = placed[labels == label].mean(0)

    def _placed(self, hidden: torch.Tensor) -> torch.Tensor:
        return normalize(self.projection(hidden.float()), dim=-1)

    @staticmethod
    def _near(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return NEARNESS * a @ b.T


class Relations(nn.Module):
    """A pair head of pretraining (next-sentence prediction) read as labels: a label's score is the
    log probability of the relations that stand for it. Nothing is trained.

    Args:
        head: tells relations from the first token's hidden state.
        words: for each label the names of its relations; those that this head does not tell have no
            say.

    Raises:
        VerbalizerError: the head tells none of a label's relations.
    """

    answer_positions: Reads = "hidden"

    def __init__(self, head: PairHead, words: Sequence[Sequence[str]]):
        super().__init__()
        self.head, self.columns = (
            head.requires_grad_(False),
            [[head.labels.index(word) for word in names if word in head.labels] for names in words],
        )
        if unknown := next(
            (names for names, columns in zip(words, self.columns) if not columns), None
        ):
            raise VerbalizerError(
                f"This LM's pair head tells no relation {unknown[0]!r} for a label to stand for. "
                f"{nearest(unknown[0], head.labels)}"
            )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[B, H] to [B, C]."""
        shares = self.head(hidden.float()).log_softmax(-1)
        return torch.stack([shares[:, columns].logsumexp(1) for columns in self.columns], 1)


def soft_words(
    vectors: torch.Tensor, bias: torch.Tensor | None, words: Sequence[Sequence[Sequence[int]]]
) -> SoftWords:
    """A soft verbalizer that begins as the labels' words: the mean of the vectors of all their
    tokens.

    Args:
        vectors: the head's vectors of the vocabulary [V, F].
        bias: [V], or None.
        words: for each label its words' token ids.
    """
    ids = [
        torch.tensor([token for word in label_words for token in word], device=vectors.device)
        for label_words in words
    ]
    zeros = vectors.new_zeros(len(vectors))
    return SoftWords(
        torch.stack([vectors[label_ids].mean(0) for label_ids in ids]),
        torch.stack([(zeros if bias is None else bias)[label_ids].mean() for label_ids in ids]),
    )
