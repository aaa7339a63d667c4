"""What a frozen causal LM makes of the text before a row's first soft token never changes while a prompt is trained: its keys and values
are computed once, and kept over steps and epochs.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import DynamicCache

from ptune.template import Encoded

Ids = tuple[int, ...]
WORTH = 0.25  # the share of a batch's tokens that must stand in contexts


@dataclass(frozen=True)
class Context:
    """Keys and values of what stands before the rows of a batch.

    Attributes:
        values: [L, 2, B, Hkv, S, D], zeros before the shorter ones.
        lengths: how many tokens each row's own has [B].
    """

    values: torch.Tensor
    lengths: torch.Tensor

    @property
    def seen(self) -> torch.Tensor:
        """1 at tokens, 0 at padding [B, S]."""
        size = self.values.shape[4]
        return (torch.arange(size, device=self.lengths.device) >= size - self.lengths[:, None]).long()

    def cache(self) -> DynamicCache:
        """As transformers takes it; a call adds to it, so each needs its own."""
        made = DynamicCache()
        for layer, (keys, values) in enumerate(self.values):
            made.update(keys, values, layer)
        return made


class Contexts:
    """The contexts of many rows, as far as they fit into the memory that they may take; others are computed each time.

    Args:
        compute: keys and values of texts, each [L, 2, Hkv, S, D].
        budget: bytes.
    """

    def __init__(self, compute: Callable[[Sequence[Ids]], Sequence[torch.Tensor]], budget: int):
        self.compute, self.left = compute, budget
        self.kept: dict[Ids, torch.Tensor] = {}

    def of(self, texts: Sequence[Ids]) -> Context:
        """The contexts of a batch, some of which may be empty, but not all."""
        unknown = [text for text in dict.fromkeys(texts) if text and text not in self.kept]
        now = dict(zip(unknown, self.compute(unknown))) if unknown else {}
        for text, values in now.items():
            if (size := values.numel() * values.element_size()) <= self.left:
                self.kept[text] = values
                self.left -= size
        found = [now[text] if text in now else self.kept[text] if text else None for text in texts]
        some = next(values for values in found if values is not None)
        layers, two, heads, _, width = some.shape
        longest = max(map(len, texts))
        whole = some.new_zeros(layers, two, len(texts), heads, longest, width)
        for row, values in enumerate(found):
            if values is not None:
                whole[:, :, row, :, longest - values.shape[3]:] = values
        return Context(whole, torch.tensor([len(text) for text in texts], device=some.device))


def split(rows: Sequence[Encoded]) -> tuple[list[Ids], list[Encoded]] | None:
    """What stands before each row's first soft token and first answer, and the rest; None where the first is too little to be worth it,
    or a deep prefix changes it."""
    starts = [min([*row.reads, *(at for at, slot in enumerate(row.slots) if slot >= 0)]) for row in rows]
    if any(row.prefix for row in rows) or sum(starts) < WORTH * sum(len(row.ids) for row in rows):
        return None
    return [row.ids[:start] for row, start in zip(rows, starts)], [behind(row, start) for row, start in zip(rows, starts)]


def behind(row: Encoded, start: int) -> Encoded:
    """The row from a token on."""
    return replace(row, ids=row.ids[start:], slots=row.slots[start:], types=row.types and row.types[start:], reads=tuple(read - start for read in row.reads))
