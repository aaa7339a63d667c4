"""Text that an LM writes for the rows of a batch, handed out token by token; rows that have ended
leave the batch."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache, GenerationConfig
from transformers.generation.streamers import BaseStreamer

from ptune.lm.batch import Batch
from ptune.lm.writing import whole_texts
from ptune.lm.writing.draws import Draws
from ptune.lm.writing.read_ahead import read_ahead
from ptune.lm.writing.roomy_cache import RoomyCache
from ptune.prompts.bank import PrefixBatch

if TYPE_CHECKING:
    from ptune.lm.language_model import LanguageModel

OnTokens = Callable[[list[int]], Sequence[bool]]
"""Gets the next token of each row [B] as soon as it is there, and says which rows go on [B]."""
OF_THE_PAST = ("no_repeat_ngram_size", "bad_words_ids", "stop_strings")
"""Settings whose next token depends on more than scores, so that no row leaves the batch."""
STAYING = 0.75
"""The share of rows that go on from which all stay, since leaving copies what is kept."""


class _Enough(Exception):
    """Nobody waits for more tokens."""


class _Fewer(Exception):
    """Many of the rows have ended."""


class _TokenListener(BaseStreamer):
    """Hands each step's tokens on; the first call of transformers, with the input, has none.

    Attributes:
        staying: the places in the batch of the rows that go on.
        tokens: the last token of each row in the batch.
        steps: how many tokens a row has got.

    Args:
        rows: the numbers of the rows in the batch.
        count: of all rows.
        leaves: whether the writing ends for rows to leave.
    """

    def __init__(
        self,
        lm: "LanguageModel",
        on_tokens: OnTokens,
        rows: Sequence[int],
        *,
        count: int,
        leaves: bool,
    ):
        self.lm, self.on_tokens, self.rows, self.count = lm, on_tokens, rows, count
        self.leaves, self.begun, self.steps = leaves, False, 0
        self.tokens: list[int] = []
        self.staying: list[int] = []

    def put(self, value: torch.Tensor) -> None:
        if not self.begun:
            self.begun = True
            return
        self.tokens = value.tolist()
        self.steps += 1
        by_row = dict(zip(self.rows, self.tokens))
        pad = self.lm.tokens.pad
        going_on = self.on_tokens([by_row.get(row, pad) for row in range(self.count)])
        if not any(going_on[row] for row in self.rows):
            raise _Enough
        self.staying = [
            place
            for place, (row, token) in enumerate(zip(self.rows, self.tokens))
            if going_on[row] and token not in self.lm.ends
        ]
        if self.leaves and 0 < len(self.staying) < STAYING * len(self.rows):
            raise _Fewer

    def end(self) -> None:
        """The text is whole; each row's end is seen by its tokens."""


@torch.no_grad()
def write_step_by_step(
    lm: "LanguageModel",
    batch: Batch,
    vectors: torch.Tensor | None,
    prefixes: PrefixBatch | None,
    *,
    on_tokens: OnTokens,
    settings: dict[str, Any],
    draws: Draws | None = None,
) -> None:
    """Write as ``whole_texts.write`` does, one text a row and without beams, and hand out the
    tokens of each step until ``on_tokens`` says that no row goes on. A row that has ended gets
    padding.

    Raises:
        ModelError: as ``whole_texts.write``.
    """
    rows, leaves = range(len(batch.prompts)), _may_leave(lm, settings)
    listener = _TokenListener(lm, on_tokens, rows, count=len(rows), leaves=leaves)
    cache: DynamicCache | None = None
    if leaves:
        cache = read_ahead(lm, batch.to(lm.device), vectors, prefixes) or RoomyCache()
    try:
        whole_texts.write(
            lm,
            batch,
            vectors,
            prefixes,
            copies=1,
            settings=settings,
            draws=draws,
            streamer=listener,
            cache=cache,
        )
    except _Enough:
        return
    except _Fewer:
        assert cache is not None
        _go_on(
            lm,
            batch.to(lm.device),
            prefixes,
            cache,
            listener=listener,
            settings=settings,
            draws=draws,
        )


def _may_leave(lm: "LanguageModel", settings: dict[str, Any]) -> bool:
    """Whether rows may leave a batch: the next tokens depend on keys and values alone."""
    depends = any(settings.get(name) for name in OF_THE_PAST)
    return lm.takes_contexts and not lm.switches and not depends


def _go_on(
    lm: "LanguageModel",
    batch: Batch,
    prefixes: PrefixBatch | None,
    cache: DynamicCache,
    *,
    listener: _TokenListener,
    settings: dict[str, Any],
    draws: Draws | None,
) -> None:
    """Write on for the rows that go on, until none does.

    Args:
        cache: the keys and values of all tokens but the last of each row.
        listener: what has seen the tokens so far.
    """
    attention, positions = batch.attention, lm.forward.positions(batch)[:, -1:]
    while True:
        kept, steps = torch.tensor(listener.staying, device=lm.device), listener.steps
        cache.batch_select_indices(kept)
        draws = draws and draws.of_rows(listener.staying)
        new = attention.new_ones(len(attention), steps)
        attention = torch.cat([attention, new], 1)[kept]
        positions = (positions + steps)[kept]
        batch = replace(
            batch,
            prompts=batch.prompts[kept],
            starts=None if batch.starts is None else batch.starts[kept],
            field_tokens=None if batch.field_tokens is None else batch.field_tokens[kept],
            visibility=batch.visibility and batch.visibility.of_rows(kept),
        )
        ids = torch.tensor(listener.tokens, device=lm.device)[kept, None]
        settings = settings | {"max_new_tokens": settings["max_new_tokens"] - steps}
        if least := settings.get("min_new_tokens"):
            settings["min_new_tokens"] = max(0, least - steps)
        rows = [listener.rows[place] for place in listener.staying]
        listener = _TokenListener(lm, listener.on_tokens, rows, count=listener.count, leaves=True)
        try:
            with lm.length_switches.lock, lm.prefixed(batch, prefixes, groups=("self",)):
                whole_texts.generate(
                    lm.model,
                    input_ids=ids,
                    attention_mask=attention,
                    position_ids=positions,
                    generation_config=GenerationConfig(**settings),
                    logits_processor=[draws] if draws else None,
                    streamer=listener,
                    **{lm.forward.cache_name: cache},
                )
            return
        except _Enough:
            return
        except _Fewer:
            continue
