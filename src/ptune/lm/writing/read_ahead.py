"""Rows of unlike lengths are read without their padding before an LM writes on behind them: all
their tokens but the last run as one packed row, and their keys and values are spread into the
padded cache from which transformers' ``generate`` goes on.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache

from ptune.lm.batch import Batch
from ptune.lm.batching import PADDED
from ptune.lm.patches import answer_positions
from ptune.lm.patches.packing import Packing
from ptune.lm.writing.roomy_cache import RoomyCache
from ptune.prompts.bank import PrefixBatch

if TYPE_CHECKING:
    from ptune.lm.language_model import LanguageModel


def read_ahead(
    lm: "LanguageModel",
    batch: Batch,
    vectors: torch.Tensor | None,
    prefixes: PrefixBatch | None,
) -> DynamicCache | None:
    """The keys and values of all tokens of a batch but the last of each row; None where the batch
    is read whole instead.

    Args:
        batch: of a causal LM, padded on the left.
        vectors: the soft tokens of the bank's prompts [N, P, E].
    """
    fits = lm.packs and lm.takes_contexts and not lm.switches  # which a last token may cause
    if not fits or batch.padded <= PADDED or batch.deep is not None:
        return None
    ahead = _without_last(batch)
    packing = Packing(ahead.attention, lm.device)
    nowhere = ahead.rows[:0]  # no score is asked for
    packed, padded = DynamicCache(), RoomyCache()
    with (
        lm.prefixed(ahead, prefixes, groups=("self",)),
        answer_positions.reading(nowhere, nowhere),
    ):
        options = {"use_cache": True, lm.forward.cache_name: packed}
        lm.forward.run(replace(ahead, packing=packing), vectors, **options)
    for number, layer in enumerate(packed.layers):
        padded.update(packing.spread(layer.keys), packing.spread(layer.values), number)
    return padded


def _without_last(batch: Batch) -> Batch:
    """The same rows without their last tokens."""
    per_token = ("ids", "attention", "soft_slots", "types", "ahead")
    cut = {
        name: values[:, :-1] for name in per_token if (values := getattr(batch, name)) is not None
    }
    return replace(batch, **cut, visibility=batch.visibility and batch.visibility.without_last())
