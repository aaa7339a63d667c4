"""Rows of any prompts as one batch of tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from ptune.lm.patches.packing import Packing
from ptune.lm.patches.text_cache import Context
from ptune.lm.visibility import BatchVisibility
from ptune.template.language import EncodedRow

Side = Literal["left", "right"]


@dataclass(frozen=True)
class Batch:
    """What the LM runs on.

    Attributes:
        ids: token ids [B, T].
        attention: 1 at tokens, 0 at padding [B, T].
        soft_slots: the number of the prompt vector at each position, -1 at real tokens and padding
            [B, T].
        prompts: the number of each row's prompt in the bank [B], -1 for a row without one.
        types: token type ids [B, T], or None.
        rows, columns: where answers are read: the A places (row, position) [A], row by row.
        decoder, decoder_attention: the same for a decoder's input [B, Td], or None.
        decoder_slots: as ``soft_slots``, of a decoder's input [B, Td], or None without any.
        side: where the padding of ``ids`` is; a decoder's is on the right.
        ahead: how many prefix vectors stand before each position [B, T], which moves its number;
            None without prefixes.
        starts: for each prefix vector, aligned on the right, the first position that may see it [B,
            P], or None.
        deep: for an LM that takes prefixes as layer inputs: the prefix vector at each position, -1
            elsewhere [B, T], or None.
        pooled: which answer places are read as the mean over their row's tokens [A], or None.
        layers: the layer that is read at each answer place, -1 for the last [A], or None where the
            last is read everywhere.
        scored: at which answer places the vocabulary head runs [A], or None for all.
        packing: how the rows run as one row without padding (those of an encoder-decoder in its
            encoder); None where they are padded.
        context: kept keys and values of what stands before the rows, or None.
        field_tokens: the tokens that gates read of each row [B, R], -1 behind the last, or None
            where they read nothing.
        visibility: which tokens do not attend to which; None where no row's task has rules.
    """

    ids: torch.Tensor
    attention: torch.Tensor
    soft_slots: torch.Tensor
    prompts: torch.Tensor
    types: torch.Tensor | None
    rows: torch.Tensor
    columns: torch.Tensor
    decoder: torch.Tensor | None = None
    decoder_attention: torch.Tensor | None = None
    decoder_slots: torch.Tensor | None = None
    side: Side = "right"
    ahead: torch.Tensor | None = None
    starts: torch.Tensor | None = None
    deep: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    layers: torch.Tensor | None = None
    scored: torch.Tensor | None = None
    packing: Packing | None = None
    context: Context | None = None
    field_tokens: torch.Tensor | None = None
    visibility: BatchVisibility | None = None

    @property
    def padded(self) -> float:
        """The share of padding among the B x T places."""
        return 1 - float(self.attention.sum()) / self.attention.numel()

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with all its tensors on a device."""
        moved: dict[str, Any] = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor | BatchVisibility)
        }
        return replace(self, **moved)


def collate(
    rows: Sequence[EncodedRow], prompts: Sequence[int], pad: int, side: Side = "right"
) -> Batch:
    """Pad rows to one length; each carries the number of its prompt.

    Args:
        prompts: the number of each row's prompt in the bank, -1 for none.
        pad: the token id of padding.
        side: where the padding stands; a decoder's input is always padded on the right.
    """
    width = max(len(row.ids) for row in rows)
    offset = [width - len(row.ids) if side == "left" and row.decoder is None else 0 for row in rows]
    shift = [width - len(row.ids) if side == "left" else 0 for row in rows]
    decoders = [row.decoder for row in rows if row.decoder is not None]
    prefixed = any(row.prefix for row in rows)
    return Batch(
        ids=_padded([row.ids for row in rows], pad, side),
        attention=_padded([(1,) * len(row.ids) for row in rows], 0, side),
        soft_slots=_padded([row.soft_slots for row in rows], -1, side),
        prompts=torch.tensor(prompts),
        types=_padded([row.types or () for row in rows], 0, side) if rows[0].types else None,
        rows=torch.tensor([i for i, row in enumerate(rows) for _ in row.answer_positions]),
        columns=torch.tensor(
            [
                position + start
                for row, start in zip(rows, offset)
                for position in row.answer_positions
            ]
        ),
        decoder=_padded(decoders, pad, "right") if decoders else None,
        decoder_attention=_padded([(1,) * len(d) for d in decoders], 0, "right")
        if decoders
        else None,
        decoder_slots=_padded(
            [row.decoder_slots or (-1,) * len(row.decoder or ()) for row in rows], -1, "right"
        )
        if any(row.decoder_slots for row in rows)
        else None,
        side=side,
        ahead=_padded([_prefix_before(row) for row in rows], 0, side) if prefixed else None,
        starts=_padded(
            [
                [start + padding if start else 0 for start in row.prefix]
                for row, padding in zip(rows, shift)
            ],
            0,
            "left",
        )
        if prefixed
        else None,
        deep=_padded([row.deep or (-1,) * len(row.ids) for row in rows], -1, side)
        if any(row.deep for row in rows)
        else None,
        pooled=torch.tensor([row.pooled for row in rows for _ in row.answer_positions])
        if any(row.pooled for row in rows)
        else None,
        layers=torch.tensor(
            [-1 if row.layer is None else row.layer for row in rows for _ in row.answer_positions]
        )
        if any(row.layer is not None for row in rows)
        else None,
        scored=None
        if all(row.is_scored for row in rows)
        else torch.tensor([row.is_scored for row in rows for _ in row.answer_positions]),
        field_tokens=_padded([row.field_tokens for row in rows], -1, "right")
        if any(row.field_tokens for row in rows)
        else None,
        visibility=BatchVisibility.of(rows, side),
    )


def _prefix_before(row: EncodedRow) -> list[int]:
    """How many prefix vectors stand before each position of a row."""
    return [sum(start <= position for start in row.prefix) for position in range(len(row.ids))]


def _padded(rows: Sequence[Sequence[int]], value: int, side: Side) -> torch.Tensor:
    """Rows of numbers as one tensor [B, T], with a value at the padding."""
    width = max(map(len, rows))
    out = torch.full((len(rows), width), value)
    for line, row in zip(out, rows):
        line[slice(0, len(row)) if side == "right" else slice(width - len(row), width)] = (
            torch.tensor(row, dtype=torch.long)
        )
    return out
