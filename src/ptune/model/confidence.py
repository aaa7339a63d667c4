"""What dev rows say about the probabilities of tasks."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.answers.confidence import Confidence
from ptune.model.prompt_model import PromptModel, Row

MOST_ROWS = 1000


def fit_confidence(
    model: PromptModel, tasks: Sequence[int], rows: Sequence[Row], scaled: bool = True
) -> None:
    """Let tasks that answer together keep what rows say about their probabilities
    (``Confidence``). Of many rows 1,000 are taken, evenly spread. Nothing is kept where there are
    no rows, where labels are not the same for all rows or a row may have several, or where a score
    is no finite number.

    Args:
        tasks: the numbers of the tasks: one, or all of an ensemble.
        rows: with their right labels; rows that nothing was learned from.
        scaled: correct the probabilities by a temperature.

    Raises:
        TemplateError, DataError: a row does not fit.
    """
    keep_confidence(model, tasks, None)
    if not rows or not all(
        isinstance(model.tasks[task].verbalizer, BoundVerbalizer)
        and not model.tasks[task].task.multi_label
        for task in tasks
    ):
        return
    some = rows[:: -(-len(rows) // MOST_ROWS)]
    by_task = [model.encode(task, some) for task in tasks]
    scores = [model.scores(examples, finite=False) for examples in by_task]
    shares = [
        model.together(examples, scores_of_row)
        for examples, scores_of_row in zip(zip(*by_task), zip(*scores))
    ]
    labels = [example.label for example in by_task[0] if example.label is not None]
    if all(torch.isfinite(values).all() for values in shares):
        keep_confidence(model, tasks, Confidence.fitted(torch.stack(shares), labels, scaled))


def keep_confidence(
    model: PromptModel, tasks: Sequence[int], confidence: Confidence | None
) -> None:
    """Let tasks that answer together keep what is known about their probabilities."""
    for task in tasks:
        model.tasks[task] = replace(model.tasks[task], confidence=confidence)
