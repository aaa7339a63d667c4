"""What a frozen causal LM makes of the text before a row's first soft token never changes while a
prompt is trained: its keys and values are computed once, and kept over steps and epochs.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import DynamicCache

from ptune.template.language import EncodedRow

Ids = tuple[int, ...]
SHORTEST = 16  # tokens of a text from which it is worth keeping, where rows come as they come
SEEN = 1000  # texts that are known to have come once
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
        return (
            torch.arange(size, device=self.lengths.device) >= size - self.lengths[:, None]
        ).long()

    def cache(self) -> DynamicCache:
        """As transformers takes it; a call adds to it, so each needs its own."""
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self.values):
            cache.update(keys, values, layer)
        return cache


class Contexts:
    """The contexts of many rows, as many as fit into the memory that they may take. Which those are
    is settled from the start, and each is computed alone, when it is first needed: what is trained
    is then the same whether a run was stopped and resumed or not.

    Args:
        compute: keys and values of a text [L, 2, Hkv, S, D].
        rows: those that are to come, again and again; the first take what room there is.
        budget: bytes.
    """

    def __init__(
        self, compute: Callable[[Ids], torch.Tensor], rows: Sequence[EncodedRow], budget: int
    ):
        self.compute = compute
        self.kept: dict[Ids, torch.Tensor] = {}
        self.chosen: set[Ids] = set()
        texts = list(dict.fromkeys(row.ids[:start] for row in rows if (start := _start(row))))
        room = budget // compute(texts[0][:1]).nbytes if texts else 0
        for text in texts:
            if len(text) <= room:
                self.chosen.add(text)
                room -= len(text)

    def split(self, rows: Sequence[EncodedRow]) -> tuple[Context, list[EncodedRow]] | None:
        """The contexts of a batch, and what stands behind them; None where they are too little to
        be worth it. A row that has none is whole."""
        starts = [self._kept_start(row) for row in rows]
        if any(row.prefix for row in rows) or sum(starts) < WORTH * sum(
            len(row.ids) for row in rows
        ):
            return None
        return self.run_together([row.ids[:start] for row, start in zip(rows, starts)]), [
            _behind(row, start) for row, start in zip(rows, starts)
        ]

    def _kept_start(self, row: EncodedRow) -> int:
        """The first token behind the row's context; 0 where its context is not kept."""
        start = _start(row)
        return start if row.ids[:start] in self.chosen else 0

    def run_together(self, texts: Sequence[Ids]) -> Context:
        """The kept keys and values of B texts as one context, zeros before the shorter ones.

        Args:
            texts: the token ids of each; none for a row whose context is not kept.
        """
        longest = max(map(len, texts))
        longest_values = self._values(max(texts, key=len))
        layers, two, heads, _, width = longest_values.shape
        whole = longest_values.new_zeros(layers, two, len(texts), heads, longest, width)
        for row, text in enumerate(texts):
            if text:
                whole[:, :, row, :, longest - len(text) :] = self._values(text)
        return Context(
            whole, torch.tensor([len(text) for text in texts], device=longest_values.device)
        )

    def _values(self, text: Ids) -> torch.Tensor:
        if text not in self.kept:
            self.kept[text] = self.compute(text)
        return self.kept[text]


class RepeatedContexts(Contexts):
    """The contexts of rows that come one after the other, as a server gets them: a text is kept
    from the second time that it comes, for as long as others do not need the room more.

    Args:
        compute: keys and values of a text [L, 2, Hkv, S, D].
        budget: bytes.
    """

    def __init__(self, compute: Callable[[Ids], torch.Tensor], budget: int):
        super().__init__(compute, (), budget)
        self.budget, self.used = budget, 0
        self.seen: dict[Ids, None] = {}
        self._too_long = float("inf")
        self._lock = threading.RLock()

    def split(self, rows: Sequence[EncodedRow]) -> tuple[Context, list[EncodedRow]] | None:
        """As ``Contexts.split``; for any thread."""
        with self._lock:
            return super().split(rows)

    def _kept_start(self, row: EncodedRow) -> int:
        start = _start(row)
        text = row.ids[:start]
        if start < SHORTEST or start >= self._too_long or max(row.soft_slots) < 0:
            return 0
        if text in self.kept or text in self.seen:
            return start
        self.seen[text] = None
        while len(self.seen) > SEEN:
            del self.seen[next(iter(self.seen))]
        return 0

    def _values(self, text: Ids) -> torch.Tensor:
        if text in self.kept:
            self.kept[text] = values = self.kept.pop(text)  # the last one is the one used last
            return values
        values = self.compute(text)
        if values.nbytes > self.budget:
            self._too_long = min(self._too_long, len(text))
            return values
        self.kept[text] = values
        self.used += values.nbytes
        while self.used > self.budget:
            self.used -= self.kept.pop(next(iter(self.kept))).nbytes
        return values


def _start(row: EncodedRow) -> int:
    """The first token that is not of the context: a soft token, or one where an answer is read; 0
    in rows that a deep prefix changes from the start, whose mean is read, or in which not all see
    each other."""
    if row.prefix or row.pooled or row.visibility:
        return 0
    soft_tokens = [position for position, slot in enumerate(row.soft_slots) if slot >= 0]
    return min([*row.answer_positions, *soft_tokens])


def _behind(row: EncodedRow, start: int) -> EncodedRow:
    """The row from a token on."""
    return replace(
        row,
        ids=row.ids[start:],
        soft_slots=row.soft_slots[start:],
        types=row.types and row.types[start:],
        answer_positions=tuple(position - start for position in row.answer_positions),
    )
