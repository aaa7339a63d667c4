"""Rows with none, one or several labels: each label is a decision, by the sigmoid of its score."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ptune.metrics import label_sets
from ptune.model.rows.examples import Example, LabelSetExample

if TYPE_CHECKING:
    from ptune.model.prompt_model import PromptModel


def present_in(examples: Sequence[Example]) -> np.ndarray:
    """Whether each row has each label [N, C]."""
    return np.array([row.present for row in examples if isinstance(row, LabelSetExample)])


def probabilities(scores: Sequence[torch.Tensor]) -> np.ndarray:
    """The probability of each label of each row [N, C], from their scores [C]."""
    return torch.stack(list(scores)).double().sigmoid().numpy()


def f1_on_dev(
    scores: Sequence[torch.Tensor], examples: Sequence[Example], threshold: float | None
) -> float:
    """The F1 of all decisions together, at a threshold or at the one that is best on these rows.

    Args:
        scores: of the labels of each row [C].
    """
    present, shares = present_in(examples), probabilities(scores)
    if threshold is None:
        threshold = label_sets.best_threshold(present, shares)
    return label_sets.f1_micro(present, shares >= threshold)


def choose_threshold(model: "PromptModel", task: int, examples: Sequence[Example]) -> None:
    """Set the probability from which a row has a label: that of the task, or the one that is best
    on these rows. A task whose rows have one label stays as it is."""
    bound = model.tasks[task]
    if not bound.task.multi_label:
        return
    threshold = bound.task.threshold
    if threshold is None:
        shares = probabilities(model.scores(examples))
        threshold = label_sets.best_threshold(present_in(examples), shares)
    model.tasks[task] = replace(bound, threshold=threshold)
