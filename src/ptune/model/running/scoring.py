"""Label scores of examples, from what the LM says at their answers."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ptune.answers.ensemble import combine
from ptune.answers.neighbours import member_weights
from ptune.answers.readers.reader import FillOutput
from ptune.errors import ConfigError, DivergedError
from ptune.model.rows.examples import Example, ScoredExample, SpanExample
from ptune.model.running.forward import (
    WHOLE,
    PromptVectors,
    batches_of,
    fill_counts,
    group_alike,
    prompt_vectors,
    room,
    run_examples,
)
from ptune.model.running.stepwise import is_stepwise, spelt_scores, stepwise_words
from ptune.model.task import Row
from ptune.template.language import EncodedRow

if TYPE_CHECKING:
    from ptune.model.prompt_model import PromptModel


def score_examples(
    model: "PromptModel", examples: Sequence[Example], limit: int | None
) -> list[torch.Tensor]:
    """The label scores [C] of each example, on the CPU; see ``PromptModel.scores``.

    Args:
        limit: how many rows the LM runs at once; by default as many as it does well, more where
            they are short.
    """
    rows = limit or model.evaluation_rows
    learned = prompt_vectors(model, [example.task for example in examples])
    numbers = range(len(examples))
    stepwise = [i for i in numbers if is_stepwise(model, examples[i])]
    spelt = {i: row for i in numbers if isinstance(row := examples[i], SpanExample)}
    together = _in_order(model, examples, sorted(set(numbers) - {*stepwise, *spelt}))
    scores: dict[int, torch.Tensor] = {}
    for batch in _batches(examples, together, limit, rows):
        scores |= _scores_of_batch(model, examples, batch, learned)
    words = stepwise_words(model, [examples[i] for i in stepwise], learned, rows)
    for number, words_of_row in zip(stepwise, words):
        task, bound = examples[number].task, examples[number].labels
        inputs = model.tasks[task].corrected(words_of_row[:, None])
        scores[number] = model.reader(task).scores(inputs, bound)[0].cpu()
    scores |= dict(zip(spelt, spelt_scores(model, list(spelt.values()), learned, rows)))
    return [scores[number] for number in numbers]


def _in_order(
    model: "PromptModel", examples: Sequence[Example], numbers: Sequence[int]
) -> list[int]:
    """The numbers of the examples, those of like length beside each other, and among them those
    that are the same for the LM, which runs the latter once."""
    first_of: dict[tuple[int, tuple[EncodedRow, ...]], int] = {}

    def place(number: int) -> tuple[int, int]:
        example = examples[number]
        same_for_lm = model.tasks[example.task].prompt, example.fills
        return example.length, first_of.setdefault(same_for_lm, number)

    return sorted(numbers, key=place)


def _batches(
    examples: Sequence[Example], numbers: Sequence[int], limit: int | None, rows: int
) -> Iterator[list[int]]:
    """The numbers of the examples that are scored at once."""
    if limit is not None:
        return batches_of(numbers, fill_counts(examples), limit)
    return batches_of(numbers, room([example.fills for example in examples]), rows * WHOLE)


def _scores_of_batch(
    model: "PromptModel", examples: Sequence[Example], batch: Sequence[int], learned: PromptVectors
) -> dict[int, torch.Tensor]:
    """The label scores [C] of the examples of a batch, by number."""
    outputs = dict(zip(batch, run_examples(model, [examples[i] for i in batch], learned)))
    scores: dict[int, torch.Tensor] = {}
    for members in group_alike(examples, batch):
        group = [example for i in members if isinstance(example := examples[i], ScoredExample)]
        task, reader = model.tasks[group[0].task], model.reader(group[0].task)
        values = type(group[0]).scores(group, [outputs[i] for i in members], task, reader)
        scores |= dict(zip(members, values, strict=True))
    return scores


def check_finite(
    model: "PromptModel", examples: Sequence[Example], scores: Sequence[torch.Tensor]
) -> None:
    """Refuse scores that are no finite numbers.

    Raises:
        DivergedError: some are none.
    """
    diverged = [
        example for example, values in zip(examples, scores) if not torch.isfinite(values).all()
    ]
    if diverged:
        task = model.tasks[diverged[0].task].task.name
        raise DivergedError(
            f"The scores of {len(diverged)} of {len(scores)} rows ({task}) are no finite numbers: "
            f"the LM or the prompt is damaged, or the number format {model.lm.dtype} is too narrow "
            "for them (try --dtype float32)."
        )


def check_labels(model: "PromptModel", examples: Sequence[Example]) -> None:
    """Refuse examples without labels.

    Raises:
        ConfigError: a task has none.
    """
    unlabelled = [example.task for example in examples if not example.has_labels]
    if unlabelled:
        raise ConfigError(
            f"{model.tasks[unlabelled[0]].task.name} has no labels to score: its answers are "
            "text, which ptune.generate writes."
        )


def word_scores(model: "PromptModel", rows: Sequence[Row], task: int) -> torch.Tensor:
    """The log probability of every word for some rows [B, W], of a row that is read in windows for
    the first; see ``PromptModel.word_scores``."""
    examples = model.encode(task, rows, labelled=False)
    learned = prompt_vectors(model, [task])
    if model.tasks[task].task.windows != "none":
        examples = [
            replace(row, fills=row.fills[: len(model.tasks[task].answers(row.labels))])
            for row in examples
        ]
    if examples and is_stepwise(model, examples[0]):
        words = stepwise_words(model, examples, learned, model.evaluation_rows)
        return torch.stack([words_of_row[0] for words_of_row in words]).cpu()
    outputs: list[list[FillOutput]] = []
    for batch in batches_of(range(len(examples)), fill_counts(examples), model.evaluation_rows):
        outputs += run_examples(model, [examples[i] for i in batch], learned)
    return model.reader(task).read(outputs, examples[0].labels)[0].cpu()


def combined_shares(
    model: "PromptModel", examples: Sequence[Example], scores: Sequence[torch.Tensor]
) -> torch.Tensor:
    """The labels' probabilities [C] of one row by all its tasks; see ``PromptModel.together``."""
    leader = model.tasks[examples[0].task].task
    labels = examples[0].labels.labels
    if leader.multi_label:
        if len(examples) > 1:
            raise ConfigError(
                f"{leader.name} has rows with several labels, for which one prompt answers, and "
                f"here are {len(examples)}. Name the task of each row."
            )
        return scores[0].sigmoid()
    for example in examples[1:]:
        if example.labels.labels != labels:
            raise ConfigError(
                f"{model.tasks[example.task].task.name} has the labels "
                f"{list(example.labels.labels)}, and {leader.name} "
                f"{list(labels)}: they cannot answer together. Name the task of each row."
            )
    by_rows = leader.combine == "neighbours" and len(examples) > 1
    weights = (_weights_of_row if by_rows else _kept_weights)(model, examples)
    shares = combine(scores, leader.combine, weights)
    confidence = model.tasks[examples[0].task].confidence
    return shares if confidence is None else confidence.corrected(shares)


def _kept_weights(model: "PromptModel", examples: Sequence[Example]) -> list[float]:
    """The weights of the members that answer a row."""
    return [model.tasks[example.task].weight for example in examples]


def _weights_of_row(model: "PromptModel", examples: Sequence[Example]) -> list[float]:
    """The weights of the members that answer a row, by what they know of its nearest rows.

    Raises:
        ConfigError: they do not know the same number of labelled rows.
    """
    bound_tasks = [model.tasks[example.task] for example in examples]
    known = [bound.neighbours for bound in bound_tasks if bound.neighbours is not None]
    if len(known) < len(examples) or len({len(one.sizes) for one in known}) > 1:
        raise ConfigError(
            f"{bound_tasks[0].task.name} answers by the nearest labelled rows (combine: "
            f"neighbours), and its {len(examples)} prompts do not keep the same ones: train them "
            "together, with ptune train, and load all of them."
        )
    return member_weights(known, examples[0].read_ids, bound_tasks[0].task.neighbours)
