"""The losses of examples, and their gradients."""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from ptune.base.ranks import Ranks
from ptune.model.rows.examples import Example, LabelExample
from ptune.model.running.forward import (
    WHOLE,
    PromptVectors,
    batches_of,
    group_alike,
    prompt_vectors,
    room,
    run_examples,
)

if TYPE_CHECKING:
    from ptune.model.prompt_model import PromptModel

CPU_TOKENS = 2048  # of a training batch that a CPU runs at once


def losses(
    model: "PromptModel", examples: Sequence[Example], learned: PromptVectors | None
) -> torch.Tensor:
    """The loss of each example [B]; see ``PromptModel.losses``."""
    outputs = run_examples(model, examples, learned, learning=True)
    by_number: dict[int, torch.Tensor] = {}
    for members in group_alike(examples, range(len(examples))):
        group = [examples[i] for i in members]
        task, reader = model.tasks[group[0].task], model.reader(group[0].task)
        values = type(group[0]).losses(group, [outputs[i] for i in members], task, reader)
        by_number |= dict(zip(members, values))
    return torch.stack([by_number[number] for number in range(len(examples))])


def backward(
    model: "PromptModel",
    examples: Sequence[Example],
    weights: Sequence[float],
    *,
    sizes: Sequence[int],
    ranks: Ranks,
) -> torch.Tensor:
    """Add the gradient of the weighted losses [B], and return them; see
    ``PromptModel.backward``."""
    if not examples:
        return torch.zeros(0, device=model.lm.device)
    tasks = [example.task for example in examples]
    learned, copies, carry_gradients = prompt_vectors(model, tasks).apart()
    factors = torch.tensor(list(weights), device=model.lm.device)
    weighted: dict[int, torch.Tensor] = {}
    inputs: dict[int, dict[int, torch.Tensor]] = {}  # of coupled examples, by task
    for couples_rows, whole_part in _parts(model, examples, sizes, ranks):
        numbers, share = _share(whole_part, tasks, couples_rows, ranks)
        if not numbers:
            continue
        factors[numbers] *= share
        part = [examples[i] for i in numbers]
        if couples_rows:
            for number, values in zip(numbers, _coupled_inputs(model, part, learned)):
                inputs.setdefault(tasks[number], {})[number] = values
            continue
        part_losses = losses(model, part, learned) * factors[numbers]
        part_losses.sum().backward()
        weighted |= dict(zip(numbers, part_losses.detach()))
    weighted |= _backward_coupled(model, examples, inputs, factors)
    none = factors.new_zeros(())  # the loss of an example that another process runs
    of_examples = torch.stack([weighted.get(number, none) for number in range(len(examples))])
    total = ranks.sum_gradients([*copies, *_of_readers(model, tasks)], of_examples)
    carry_gradients()
    return total


def _share(
    part: Sequence[int], tasks: Sequence[int], couples_rows: bool, ranks: Ranks
) -> tuple[Sequence[int], float]:
    """The numbers of the examples of a part that this process runs, and which share of their losses
    is its own. Those of a task whose loss couples them are run by one process, or by all where they
    call the LM together: none of them leaves a call out then.

    Args:
        tasks: the task of each example.
    """
    if not ranks.splits_rows:
        return part, 1.0
    if couples_rows and ranks.calls_together:
        return part, 1 / ranks.count
    numbers = [number for number in part if ranks.runs(tasks[number] if couples_rows else number)]
    if not numbers and ranks.calls_together:
        return part[:1], 0.0
    return numbers, 1.0


def _of_readers(model: "PromptModel", tasks: Sequence[int]) -> list[torch.nn.Parameter]:
    """What is trained of the readers of some tasks, which no encoder makes."""
    readers = [model.reader(task) for task in dict.fromkeys(tasks)]
    parameters = itertools.chain.from_iterable(reader.parameters() for reader in readers)
    return [parameter for parameter in parameters if parameter.requires_grad]


def _coupled_inputs(
    model: "PromptModel", examples: Sequence[Example], learned: PromptVectors
) -> list[torch.Tensor]:
    """What the reader of each example reads of it [variants, 1, F]."""
    inputs = []
    for example, output in zip(examples, run_examples(model, examples, learned, learning=True)):
        task, reader = model.tasks[example.task], model.reader(example.task)
        inputs.append(task.read(reader, [output], example.labels))
    return inputs


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
        members = [row for i in numbers if isinstance(row := examples[i], LabelExample)]
        task_inputs = torch.cat(list(inputs_of_task.values()), 1)
        task_losses = LabelExample.losses_of_inputs(members, task_inputs, model.reader(task))
        task_losses = task_losses * factors[numbers]
        weighted |= dict(zip(numbers, task_losses.detach()))
        sums.append(task_losses.sum())
    if sums:
        torch.stack(sums).sum().backward()
    return weighted


def _parts(
    model: "PromptModel", examples: Sequence[Example], sizes: Sequence[int], ranks: Ranks
) -> Iterator[tuple[bool, list[int]]]:
    """The numbers of the examples that the LM runs at once, in all processes together, and whether
    their losses couple them to the others of their task."""
    start = 0
    for size in sizes or [len(examples)]:
        for couples_rows in (False, True):
            numbers = [
                i
                for i in range(start, start + size)
                if examples[i].couples_rows(model.tasks[examples[i].task]) == couples_rows
            ]
            numbers.sort(key=lambda i: examples[i].load)  # rows of like length need no padding
            tokens = [examples[i].load for i in numbers]
            at_once = CPU_TOKENS * (ranks.count if ranks.splits_rows and not couples_rows else 1)
            limit = at_once if model.lm.device.type == "cpu" else sum(tokens)
            for part in batches_of(range(len(numbers)), tokens, limit):
                yield couples_rows, [numbers[i] for i in part]
        start += size


def text_losses(model: "PromptModel", examples: Sequence[Example], rows: int) -> list[float]:
    """The loss of each example as a number, ``rows`` at once; more where they are short."""
    by_number: dict[int, float] = {}
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].learn[0].ids))
    learned = prompt_vectors(model, [example.task for example in examples])
    sizes = room([example.learn for example in examples])
    for batch in batches_of(order, sizes, rows * WHOLE):
        values = losses(model, [examples[i] for i in batch], learned)
        by_number |= dict(zip(batch, values.tolist()))
    return [by_number[number] for number in range(len(examples))]
