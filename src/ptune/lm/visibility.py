"""Who sees whom among the tokens of a batch, where the tasks of its rows have rules for that."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from ptune.template.encoding.visibility import PLAIN, RowVisibility
from ptune.template.language import EncodedRow

HIDDEN, BLIND = 0, 1


@dataclass(frozen=True)
class BatchVisibility:
    """What the rules of the tasks make of the tokens of a batch: two numbers for each, a bit for
    each rule that hides it and a bit for each rule by which it does not see what that hides. A row
    whose task has no rules has zeros.

    Attributes:
        tokens: of each token, zeros at padding [B, T, 2].
        written: of the tokens that are written behind a row, or by a decoder [B, 2].
        prefix: of the vectors of a row's prefix [B, 2].
    """

    tokens: torch.Tensor
    written: torch.Tensor
    prefix: torch.Tensor

    @classmethod
    def of(
        cls, rows: Sequence[EncodedRow], side: Literal["left", "right"]
    ) -> "BatchVisibility | None":
        """That of some rows, padded to one length; None where no row's task has rules."""
        if not any(row.visibility for row in rows):
            return None
        width = max(len(row.ids) for row in rows)
        seen = [row.visibility or RowVisibility((PLAIN,) * len(row.ids)) for row in rows]
        sights = [one for row in seen for one in (*row.tokens, row.prefix, row.written)]
        # every pair of tokens gets such a number
        dtype = torch.uint8 if max(map(max, sights)) < 2**8 else torch.long
        tokens = torch.zeros(len(rows), width, 2, dtype=dtype)
        for line, row in zip(tokens, seen):
            count = len(row.tokens)
            line[slice(0, count) if side == "right" else slice(width - count, width)] = (
                torch.tensor(row.tokens, dtype=dtype)
            )
        return cls(
            tokens,
            torch.tensor([row.written for row in seen], dtype=dtype),
            torch.tensor([row.prefix for row in seen], dtype=dtype),
        )

    def to(self, device: torch.device | str) -> "BatchVisibility":
        """The same on a device."""
        return BatchVisibility(*(part.to(device) for part in vars(self).values()))

    def of_rows(self, numbers: torch.Tensor) -> "BatchVisibility":
        """That of some of the rows, in this order."""
        return BatchVisibility(*(part[numbers] for part in vars(self).values()))

    def copied(self, copies: int) -> "BatchVisibility":
        """Each row several times, one copy behind the other."""
        return BatchVisibility(*(part.repeat_interleave(copies, 0) for part in vars(self).values()))

    def without_last(self) -> "BatchVisibility":
        """The same rows without their last tokens."""
        return replace(self, tokens=self.tokens[:, :-1])

    def unseen(self, group: str, queries: int, keys: int, before: int = 0) -> torch.Tensor:
        """Which keys of an attention each query does not see [B, Q or 1, K].

        Args:
            group: the attention's, one of ``GROUPS``; the queries of "self", "encoder" and
                "decoder" are the last of its keys.
            before: how many keys stand before the batch, hidden from nobody.
        """
        if group == "cross":
            return _meet(self.written[:, None], self.tokens)
        of_keys = self._line(group, keys, before)
        unseen = _meet(of_keys[:, keys - queries :], of_keys)
        places = torch.arange(keys, device=unseen.device)
        return unseen & (places != places[keys - queries :, None])

    def unseen_prefix(self, group: str, queries: int, keys: int, before: int = 0) -> torch.Tensor:
        """For each query whether the prefix of its row is hidden from it [B, Q or 1, 1]."""
        looking = self.written[:, None]
        if group != "cross":
            looking = self._line(group, keys, before)[:, keys - queries :]
        return _meet(looking, self.prefix[:, None])

    def _line(self, group: str, count: int, before: int) -> torch.Tensor:
        """What is what among the keys of a self-attention [B, K, 2]: what stands before the batch,
        its tokens, and what is written behind them."""
        tokens = self.tokens[:, :0] if group == "decoder" else self.tokens
        ahead = tokens.new_zeros(len(tokens), before, 2)
        behind = max(0, count - before - tokens.shape[1])
        written = self.written[:, None].expand(-1, behind, -1)
        return torch.cat([ahead, tokens, written], 1)


def _meet(looking: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Whether a rule hides each of some tokens [B, K, 2] from each of others [B, Q, 2]: [B, Q,
    K]."""
    return (looking[:, :, None, BLIND] & others[:, None, :, HIDDEN]) != 0
