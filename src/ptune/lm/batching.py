"""How rows of any prompts become batches of one LM: which rows share a call, whether they are
padded or packed, and which of them stand behind keys and values that are kept. All of it is decided
here, when a batch is made; what runs a batch asks nothing more."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import torch

from ptune.errors import ModelError
from ptune.lm.batch import Batch, Side, collate
from ptune.lm.forward import LMOutput
from ptune.lm.patches.packing import Packing
from ptune.lm.patches.text_cache import Context
from ptune.template.language import EncodedRow

if TYPE_CHECKING:
    from ptune.lm.language_model import LanguageModel

PADDED = 0.1
"""The share of padding from which rows are packed: below, packing costs more than it saves."""


def batches(
    lm: "LanguageModel", rows: Sequence[EncodedRow], prompts: Sequence[int]
) -> list[tuple[list[int], Batch]]:
    """Rows as batches, each with the numbers of its rows: one batch, or one for each side of the
    lengths from which the LM computes otherwise."""
    sides = [lm.side(row) for row in rows]
    groups = [
        [n for n, of_row in enumerate(sides) if of_row == side] for side in sorted(set(sides))
    ]
    return [
        (numbers, _one_batch(lm, [rows[n] for n in numbers], [prompts[n] for n in numbers]))
        for numbers in groups
    ]


def _one_batch(lm: "LanguageModel", rows: Sequence[EncodedRow], prompts: Sequence[int]) -> Batch:
    if lm.contexts is not None and (parts := lm.contexts.split(rows)):
        context, tails = parts
        return make_batch(lm, tails, prompts, context=context)
    return make_batch(lm, rows, prompts)


def make_batch(
    lm: "LanguageModel",
    rows: Sequence[EncodedRow],
    prompts: Sequence[int],
    *,
    side: Side = "right",
    context: Context | None = None,
) -> Batch:
    """Rows as one batch, as ``LanguageModel.collate`` says.

    Raises:
        ModelError: a row has a prefix, and this LM cannot take any, or none at that side of the
            padding.
    """
    if any(row.prefix for row in rows):
        if lm.kind == "encoder-decoder" and side == "left":
            raise ModelError(
                "A prefix stands just before its row's text, which padding on the left moves "
                "away in an encoder-decoder; pad on the right."
            )
        rows = [row.spelt_out() for row in rows] if lm.route.in_text else rows
    batch = collate(rows, prompts, lm.tokens.pad, side)
    if context is not None:
        return replace(batch, context=context)
    if lm.packs and batch.padded > PADDED:
        return replace(batch, packing=Packing(batch.attention, lm.device))
    return batch


def in_order(
    rows: Sequence[EncodedRow], numbers: Sequence[Sequence[int]], outputs: Sequence[LMOutput]
) -> LMOutput:
    """What was read of several batches, in the order of the rows.

    Args:
        numbers: for each batch the numbers of its rows.
        outputs: what was read of each batch.
    """
    if len(outputs) == 1:
        return outputs[0]
    hidden, features, scores = zip(*outputs)

    def ordered(values: Sequence[torch.Tensor], rows_read: Sequence[int]) -> torch.Tensor:
        """The values at all places that are read, in the order of the rows."""
        order = [n for n in chain.from_iterable(numbers) for _ in range(rows_read[n])]
        places = torch.tensor(order, device=values[0].device).argsort(stable=True)
        return torch.cat(list(values))[places]

    read = [len(row.answer_positions) for row in rows]
    scored = [len(row.answer_positions) if row.is_scored else 0 for row in rows]
    return LMOutput(
        ordered(hidden, read),
        None if features[0] is None else ordered(features, scored),
        ordered(scores, scored),
    )
