"""Rows whose right label should be ahead of each other one by a margin."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from ptune.answers.readers.reader import FillOutput, Reader
from ptune.model.rows.examples import LabelExample
from ptune.model.task import BoundTask

MARGIN = 1.0


@dataclass(frozen=True, kw_only=True)
class MarginExample(LabelExample):
    """A row with one label. Its loss is the hinge loss over the wrong labels: by how much the log
    probability of each comes nearer to that of the right one than 1 (Schick and Schütze 2021, "It's
    Not Just Size That Matters", section 3.1; so P-tuning's code learns choices)."""

    def couples_rows(self, task: BoundTask) -> bool:
        return False

    @classmethod
    def losses(
        cls,
        examples: Sequence[Self],
        outputs: Sequence[list[FillOutput]],
        task: BoundTask,
        reader: Reader,
    ) -> torch.Tensor:
        bound = examples[0].bound
        scores = task.label_scores(reader, task.read(reader, outputs, bound), bound)
        return torch.stack([row.loss_of(values) for row, values in zip(examples, scores)])

    def loss_of(self, scores: torch.Tensor) -> torch.Tensor:
        """The loss from the labels' scores [C]."""
        right = self.label or 0
        nearness = MARGIN - scores[right] + scores
        wrong = torch.arange(len(scores), device=scores.device) != right
        return nearness.clamp(min=0)[wrong].sum()

    def loss_of_scores(self, scores: torch.Tensor) -> float:
        return float(self.loss_of(scores))
