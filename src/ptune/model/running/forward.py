"""The LM run for rows of any tasks as one batch, with their prompts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from ptune.answers.readers.reader import FillOutput
from ptune.model.rows.examples import Example
from ptune.prompts.bank import PrefixBatch
from ptune.template.language import EncodedRow

if TYPE_CHECKING:
    from ptune.model.prompt_model import PromptModel

WHOLE = 32
"""Shorter rows share a batch with more others: a CPU multiplies a few hundred tokens at once a
quarter faster than half as many."""


@dataclass(frozen=True)
class PromptVectors:
    """The soft tokens [N, P, E] and deep prefixes of N prompts.

    Attributes:
        places: for the number of each prompt in the bank its index among the N.
    """

    vectors: torch.Tensor | None
    prefixes: PrefixBatch | None
    places: dict[int, int]

    def apart(self) -> tuple["PromptVectors", list[torch.Tensor], Callable[[], None]]:
        """The same values detached from the encoders that made them, the tensors that get their
        gradients, and a function that carries those to the encoders."""
        vectors, prefixes = self.vectors, self.prefixes
        pairs: list[tuple[torch.Tensor, torch.Tensor]] = []

        def detached(attached: torch.Tensor) -> torch.Tensor:
            if not attached.requires_grad:
                return attached
            pairs.append((attached, attached.detach().requires_grad_()))
            return pairs[-1][1]

        if vectors is not None:
            vectors = detached(vectors)
        if prefixes is not None:
            if (gates := prefixes.gates) is not None:
                openings = detached(gates.openings)
                gates = replace(gates, slopes=detached(gates.slopes), openings=openings)
            prefixes = replace(prefixes, values=detached(prefixes.values), gates=gates)

        def carry_gradients() -> None:
            reached = [(source, copy.grad) for source, copy in pairs if copy.grad is not None]
            if reached:
                torch.autograd.backward(*zip(*reached))

        copies = [copy for _, copy in pairs]
        return PromptVectors(vectors, prefixes, self.places), copies, carry_gradients


def prompt_vectors(model: "PromptModel", tasks: Sequence[int]) -> PromptVectors:
    """The soft tokens and prefixes of the tasks' prompts; each encoder runs once."""
    numbers = sorted({model.tasks[task].prompt for task in tasks} - {-1})
    return PromptVectors(
        model.bank.vectors(numbers),
        model.bank.deep(numbers),
        {number: index for index, number in enumerate(numbers)},
    )


def run_examples(
    model: "PromptModel",
    examples: Sequence[Example],
    learned: PromptVectors | None = None,
    learning: bool = False,
) -> list[list[FillOutput]]:
    """Run examples of any tasks as one batch: the outputs of the fills of each.

    Args:
        learning: run what the examples learn from (``Example.learn``), not what scores them.
    """
    fills = [example.learn if learning else example.fills for example in examples]
    rows = [(example.task, row) for example, rows in zip(examples, fills) for row in rows]
    outputs = iter(run_rows(model, rows, learned))
    return [[next(outputs) for _ in rows] for rows in fills]


def run_rows(
    model: "PromptModel",
    rows: Sequence[tuple[int, EncodedRow]],
    learned: PromptVectors | None = None,
) -> list[FillOutput]:
    """Run rows, each with the number of its task, as one batch. Where nothing is learned, the LM
    runs rows that are the same for it once, such as a text that several verbalizers read."""
    learned = learned or prompt_vectors(model, [task for task, _ in rows])
    prompts = [
        learned.places.get(model.tasks[task].prompt, -1) if row.has_prompt else -1
        for task, row in rows
    ]
    asked = list(zip(prompts, [row for _, row in rows]))
    distinct = asked if torch.is_grad_enabled() else list(dict.fromkeys(asked))
    outputs = _read(model, distinct, learned)
    if len(distinct) == len(asked):
        return outputs
    output_of = dict(zip(distinct, outputs))
    return [output_of[row] for row in asked]


def _read(
    model: "PromptModel", rows: Sequence[tuple[int, EncodedRow]], learned: PromptVectors
) -> list[FillOutput]:
    """What the LM says to rows, each with the place of its prompt, or -1."""
    prompts, encoded = [prompt for prompt, _ in rows], [row for _, row in rows]
    hidden, features, scores = model.lm.read_rows(
        encoded, prompts, learned.vectors, learned.prefixes
    )
    sizes = [len(row.answer_positions) for row in encoded]
    scored = [len(row.answer_positions) if row.is_scored else 0 for row in encoded]
    parts = [None] * len(sizes) if features is None else features.split(scored)
    log_probs = scores.log_softmax(-1).split(scored)
    return [FillOutput(*values) for values in zip(log_probs, hidden.split(sizes), parts)]


def group_alike(examples: Sequence[Example], numbers: Sequence[int]) -> list[list[int]]:
    """The numbers of the examples, those of the same kind, task, labels and
    number of fills together."""
    groups: dict[Any, list[int]] = {}
    for number in numbers:
        example = examples[number]
        labels = id(example.labels) if example.has_labels else None
        key = (type(example), example.task, labels, len(example.fills))
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def room(rows_of_examples: Sequence[Sequence[EncodedRow]]) -> list[int]:
    """How much of a batch each example takes, in tokens, from the rows that are run for it: a row
    of ``WHOLE`` tokens or more counts as so many, for its length slows a batch by itself."""
    return [
        sum(min(len(row.ids) + len(row.decoder or ()), WHOLE) for row in rows)
        for rows in rows_of_examples
    ]


def fill_counts(examples: Sequence[Example]) -> list[int]:
    """How many rows each example is for the LM."""
    return [len(example.fills) for example in examples]


def batches_of(order: Sequence[int], sizes: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Numbers in batches whose sizes sum up to ``limit`` at most, with one number at least."""
    batch: list[int] = []
    size = 0
    for number in order:
        if batch and size + sizes[number] > limit:
            yield batch
            batch, size = [], 0
        batch.append(number)
        size += sizes[number]
    if batch:
        yield batch
