"""The losses of examples, and their gradients."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from ptune.answers.label_words import Span
from ptune.model.forward import (
    FillOutput,
    PromptVectors,
    batches_of,
    group_alike,
    reader_inputs,
    run_examples,
)
from ptune.model.scoring import label_scores
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
    task = model.tasks[examples[0].task]
    labels = torch.tensor([example.label for example in examples], device=model.lm.device)
    has_shares = examples[0].shares is not None
    if not has_shares and task.task.reader not in ("words", "pair"):
        reader = model.bank.readers[task.prompt]
        return reader.losses(reader_inputs(task, reader, outputs).sum(0), labels)
    scores = label_scores(model, examples, outputs)
    if not has_shares:
        return nn.functional.cross_entropy(scores, labels, reduction="none")
    temperature = task.task.temperature
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
    """What the reader of each example reads of it [1, F]."""
    inputs = []
    for example, outputs in zip(examples, run_examples(model, examples, learned, learning=True)):
        task = model.tasks[example.task]
        inputs.append(reader_inputs(task, model.bank.readers[task.prompt], [outputs]).sum(0))
    return inputs


def _backward_coupled(
    model: "PromptModel",
    examples: Sequence[Example],
    inputs: dict[int, dict[int, torch.Tensor]],
    factors: torch.Tensor,
) -> dict[int, torch.Tensor]:
    """Add the gradient of the losses that couple the rows of a task, each over all of its rows.

    Args:
        inputs: for each task what its reader reads [1, F] of each of its examples, by number.

    Returns:
        The weighted loss of each example, by number.
    """
    weighted: dict[int, torch.Tensor] = {}
    sums = []
    for task, inputs_of_task in inputs.items():
        numbers = list(inputs_of_task)
        reader = model.bank.readers[model.tasks[task].prompt]
        labels = torch.tensor([examples[i].label for i in numbers], device=model.lm.device)
        task_losses = reader.losses(torch.cat(list(inputs_of_task.values())), labels)
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
    prompt = model.tasks[example.task].prompt
    if example.auxiliary or example.shares is not None or prompt < 0:
        return False
    return getattr(model.bank.readers[prompt], "couples_rows", False)


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
