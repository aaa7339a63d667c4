"""Rows one behind the other as one row without padding: every layer runs on the tokens that there
are, and attention alone sees the rows apart. A batch of short and long texts costs its tokens, not
its longest text times its rows.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch


class Packing:
    """Where the N tokens of a padded batch [B, T] stand.

    Args:
        attention: 1 at tokens, 0 at padding [B, T].
        device: where the batch will be.
    """

    def __init__(self, attention: torch.Tensor, device: torch.device):
        places = attention.flatten().nonzero()[
            :, 0
        ]  # [N]; counted where the mask is, so that no GPU waits
        self.attention, self.places = attention.bool().to(device), places.to(device)
        self._numbers = (self.attention.flatten().cumsum(0) - 1).view_as(attention)

    def pack(self, values: torch.Tensor) -> torch.Tensor:
        """The tokens' values of a batch, [B, T, ...], as [1, N, ...]."""
        return values.flatten(0, 1).index_select(0, self.places)[None]

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """The tokens' values [1, N, ...] in their rows [B, T, ...], zeros at padding."""
        values = packed[0]
        return (
            values.new_zeros(self.attention.numel(), *values.shape[1:])
            .index_copy(0, self.places, values)
            .unflatten(0, self.attention.shape)
        )

    def spread(self, packed: torch.Tensor) -> torch.Tensor:
        """The values of all heads [1, H, N, D] in their rows [B, H, T, D]."""
        return self.unpack(packed.transpose(1, 2)).transpose(1, 2)

    def numbers(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Where the tokens at these places of the batch stand among the N."""
        return self._numbers[rows, columns]

    @property
    def width(self) -> int:
        """T, the length of the longest row."""
        return self.attention.shape[1]

    def mask_arguments(self) -> dict[str, Any]:
        """What the mask of attention is made for."""
        rows, width = self.attention.shape
        return {
            "batch_size": rows,
            "q_length": width,
            "kv_length": width,
            "attention_mask": self.attention,
        }


_packing: ContextVar[Packing | None] = ContextVar("packing", default=None)


def current() -> Packing | None:
    """How the rows of the call that runs now are packed, if they are."""
    return _packing.get()


@contextlib.contextmanager
def packed(packing: Packing | None) -> Iterator[None]:
    """While this is open, attention takes its rows to be packed so."""
    token = _packing.set(packing)
    try:
        yield
    finally:
        _packing.reset(token)
