"""Candidates scored by an LM: all of a step as rows of the same batches."""

from collections.abc import Iterator, Sequence

import torch

from ptune.errors import PtuneError
from ptune.model.calibration import calibrate
from ptune.model.prompt_model import Example, PromptModel, Row
from ptune.model.rows.examples import ScoredExample
from ptune.reports.search_results import CandidateScore
from ptune.search.common.searched_task import SearchedTask

SCORES = 40_000_000  # scores of labels that are held at once: 160 megabytes
TOGETHER = 16  # candidates that are scored at once at most


def added(
    model: PromptModel, task: SearchedTask, candidate: CandidateScore
) -> tuple[int | None, str]:
    """The number of a candidate in the model; or None, and why this LM cannot be asked so."""
    try:
        return task.add(model, candidate), ""
    except PtuneError as error:
        return None, str(error)


def cost(task: SearchedTask, candidate: CandidateScore, rows: Sequence[Row]) -> int:
    """How many rows the LM reads to score a candidate: nothing where it cannot be asked so."""
    return fill_count(task, candidate, rows) * (len(rows) + task.calibrated_by)


def fill_count(task: SearchedTask, candidate: CandidateScore, rows: Sequence[Row]) -> int:
    """How many rows the LM reads to score one row: none where it cannot be asked so."""
    model = PromptModel(task.lm, max_length=task.max_length)
    number, _ = added(model, task, candidate)
    if number is None:
        return 0
    try:
        return len(model.encode(number, rows[:1])[0].fills)
    except PtuneError:
        return 0


def score(
    task: SearchedTask, candidates: Sequence[CandidateScore], rows: Sequence[Row]
) -> list[tuple[float, float] | str]:
    """The figure and the loss of each candidate; or why it is impossible. This is where every
    candidate of a step becomes rows of the same batches.

    Args:
        rows: all candidates are asked for all of them.
    """
    model = PromptModel(task.lm, max_length=task.max_length)
    reasons: list[str] = []
    examples: list[list[Example]] = []
    for candidate in candidates:
        number, reason = added(model, task, candidate)
        try:
            examples.append([] if number is None else model.encode(number, rows))
            if number is not None:
                calibrate(model, number, task.calibration, task.train)
        except PtuneError as error:
            examples.append([])
            reason = str(error)
        reasons.append(reason)
    scores = iter(model.scores([example for one in examples for example in one]))
    return [
        _figure_and_loss(task, [next(scores) for _ in one], one) if one else reason
        for one, reason in zip(examples, reasons)
    ]


def figure_and_loss(
    model: PromptModel, number: int, task: SearchedTask, rows: Sequence[Row]
) -> tuple[float, float]:
    """The figure and the loss of a candidate that is in a model, under its number there."""
    examples = model.encode(number, rows)
    return _figure_and_loss(task, model.scores(examples), examples)


def _figure_and_loss(
    task: SearchedTask, scores: Sequence[torch.Tensor], examples: Sequence[Example]
) -> tuple[float, float]:
    losses = [
        example.loss_of_scores(one)
        for one, example in zip(scores, examples)
        if isinstance(example, ScoredExample)
    ]
    return task.figure(scores, examples), sum(losses) / len(losses)


def chunks(
    candidates: Sequence[CandidateScore], rows: int, labels: int
) -> Iterator[Sequence[CandidateScore]]:
    """Candidates in lists that are scored at once."""
    size = max(1, min(TOGETHER, SCORES // max(1, rows * labels)))
    for start in range(0, len(candidates), size):
        yield candidates[start : start + size]
