"""The losses of examples, and their gradients."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from ptune.answers.label_words import Span
from ptune.answers.reader import FillOutput
from ptune.model.forward import (
    PromptVectors,
    batches_of,
    group_alike,
    read_labels,
    run_examples,
)
from ptune.model.task import Example

if TYPE_CHECKING:
    from ptune.model.prompt_model import PromptModel

CPU_TOKENS = 2048  # of a training batch that a CPU runs at once


def losses(
    model: "PromptModel", examples: Sequence[Example], learned: PromptVectors | None
) -> torch.Tensor:
    """The loss of each example [B]; see ``PromptModel.losses``."""
    outputs = run_examples(model, examples, learned, learning=True)
    by_number: dict[int, torch.Tensor] = {}
    labelled = [i for i, example in enumerate(examples) if example.bound and not example.answer]
    for members in group_alike(examples, labelled):
        values = _label_losses(model, [examples[i] for i in members], [outputs[i] for i in members])
        by_number |= dict(zip(members, values))
    for number in set(range(len(examples))) - set(labelled):
        by_number[number] = _answer_loss(model, examples[number], outputs[number][0].log_probs)
    return torch.stack([by_number[number] for number in range(len(examples))])


def _answer_loss(model: "PromptModel", example: Example, log_probs: torch.Tensor) -> torch.Tensor:
    """The loss of an answer's tokens from the log probabilities of the vocabulary [K, V]: their
    sum, smoothed for a written text; their mean for a span and for hidden words."""
    answer = torch.tensor(example.answer, device=log_probs.device)
    token_losses = -log_probs.gather(1, answer[:, None])
    task = model.tasks[example.task].task
    if example.auxiliary or isinstance(task.verbalizer, Span):
        return token_losses.mean()
    smoothing = task.smoothing if task.verbalizer is None else 0.0
    if not smoothing:
        return token_losses.sum()
    return (1 - smoothing) * token_losses.sum() - smoothing * log_probs.mean(1).sum()


def _label_losses(
    model: "PromptModel", examples: Sequence[Example], outputs: Sequence[list[FillOutput]]
) -> torch.Tensor:
    """The losses [B] of examples of one task and verbalizer."""
    number, bound = examples[0].task, examples[0].labels
    inputs, reader = read_labels(model, examples, outputs), model.reader(number)
    if examples[0].shares is None:
        labels = torch.tensor([example.label for example in examples], device=model.lm.device)
        return reader.losses(inputs, bound, labels)
    temperature = model.tasks[number].task.temperature
    scores = reader.scores(inputs, bound)
    shares = scores.new_tensor([example.shares for example in examples])
    return temperature**2 * nn.functional.kl_div(
        (scores / temperature).log_softmax(1), shares, reduction="none"
    ).sum(1)


def backward(
    model: "PromptModel",
    examples: Sequence[Example],
    weights: Sequence[float],
    sizes: Sequence[int],
) -> torch.Tensor:
    """Add the gradient of the weighted losses [B], and return them; see
    ``PromptModel.backward``."""
    tasks = [example.task for example in examples]
    learned, carry_gradients = model.learned(tasks).apart()
    factors = torch.tensor(list(weights), device=model.lm.device)
    weighted: dict[int, torch.Tensor] = {}
    inputs: dict[int, dict[int, torch.Tensor]] = {}  # of coupled examples, by task
    for couples_rows, numbers in _parts(model, examples, sizes):
        part = [examples[i] for i in numbers]
        if couples_rows:
            for number, values in zip(numbers, _coupled_inputs(model, part, learned)):
                inputs.setdefault(tasks[number], {})[number] = values
            continue
        part_losses = model.losses(part, learned) * factors[numbers]
        part_losses.sum().backward()
        weighted |= dict(zip(numbers, part_losses.detach()))
    weighted |= _backward_coupled(model, examples, inputs, factors)
    carry_gradients()
    return torch.stack([weighted[number] for number in range(len(examples))])


def _coupled_inputs(
    model: "PromptModel", examples: Sequence[Example], learned: PromptVectors
) -> list[torch.Tensor]:
    """What the reader of each example reads of it [variants, 1, F]."""
    outputs = run_examples(model, examples, learned, learning=True)
    return [
        read_labels(model, [example], [outputs_of_row])
        for example, outputs_of_row in zip(examples, outputs)
    ]


def _backward_coupled(
    model: "PromptModel",
    examples: Sequence[Example],
    inputs: dict[int, dict[int, torch.Tensor]],
    factors: torch.Tensor,
) -> dict[int, torch.Tensor]:
    """Add the gradient of the losses that couple the rows of a task, each over all of its rows.

    Args:
        inputs: for each task what its reader reads [variants, 1, F] of each of its examples, by
            number.

    Returns:
        The weighted loss of each example, by number.
    """
    weighted: dict[int, torch.Tensor] = {}
    sums = []
    for task, inputs_of_task in inputs.items():
        numbers = list(inputs_of_task)
        labels = torch.tensor([examples[i].label for i in numbers], device=model.lm.device)
        task_inputs = torch.cat(list(inputs_of_task.values()), 1)
        task_losses = model.reader(task).losses(task_inputs, examples[numbers[0]].labels, labels)
        task_losses = task_losses * factors[numbers]
        weighted |= dict(zip(numbers, task_losses.detach()))
        sums.append(task_losses.sum())
    if sums:
        torch.stack(sums).sum().backward()
    return weighted


def _parts(
    model: "PromptModel", examples: Sequence[Example], sizes: Sequence[int]
) -> Iterator[tuple[bool, list[int]]]:
    """The numbers of the examples that the LM runs at once, and whether their losses couple them to
    the others of their task."""
    start = 0
    for size in sizes or [len(examples)]:
        for couples_rows in (False, True):
            numbers = [
                i
                for i in range(start, start + size)
                if _couples_rows(model, examples[i]) == couples_rows
            ]
            tokens = [sum(len(row.ids) for row in examples[i].learn) for i in numbers]
            limit = CPU_TOKENS if model.lm.device.type == "cpu" else sum(tokens)
            for part in batches_of(range(len(numbers)), tokens, limit):
                yield couples_rows, [numbers[i] for i in part]
        start += size


def _couples_rows(model: "PromptModel", example: Example) -> bool:
    """Whether the loss of an example depends on the others of its task in the batch."""
    reader = model.tasks[example.task].task.reader
    return reader.couples_rows and not example.auxiliary and example.shares is None


def text_losses(model: "PromptModel", examples: Sequence[Example], rows: int) -> list[float]:
    """The loss of each example as a number, ``rows`` at once."""
    by_number: dict[int, float] = {}
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].learn[0].ids))
    learned = model.learned([example.task for example in examples])
    for start in range(0, len(order), rows):
        batch = order[start : start + rows]
        values = model.losses([examples[i] for i in batch], learned)
        by_number |= dict(zip(batch, values.tolist()))
    return [by_number[number] for number in range(len(examples))]
