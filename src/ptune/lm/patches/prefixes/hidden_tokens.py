"""How tokens are hidden from others: where the LM calls an attention function, what the rules of
the rows hide is taken out of the family's own mask."""

from collections.abc import Sequence
from contextvars import ContextVar

import torch

from ptune.errors import ModelError
from ptune.lm.visibility import BatchVisibility


class ActiveVisibility:
    """Who sees whom in the rows of the call that runs now.

    Attributes:
        reached: the numbers of the attentions that have taken it.

    Args:
        groups: the group of each attention, in the order in which a call goes through them.
        before: how many kept keys stand before the tokens of the batch.
    """

    def __init__(self, groups: Sequence[str], visibility: BatchVisibility, before: int):
        self.groups, self.visibility, self.before = groups, visibility, before
        self.reached: set[int] = set()
        self._last: dict[str, tuple[tuple[int, int], torch.Tensor]] = {}

    def hide(
        self, sites: Sequence[int], mask: torch.Tensor | None, query: torch.Tensor, keys: int
    ) -> torch.Tensor:
        """The mask of an attention [B, 1, Q, K] without what the rules hide.

        Args:
            sites: the numbers of the attentions that the module computes.
            mask: boolean (True is seen) or added to the scores; None hides nothing.
            query: [B, H, Q, D].
            keys: K.

        Raises:
            ModelError: the rows are not those of the batch.
        """
        rows, _, queries, _ = query.shape
        if rows != len(self.visibility.tokens):
            raise ModelError(
                f"What {len(self.visibility.tokens)} rows do not see does not fit {rows} rows in "
                "attention."
            )
        self.reached.update(sites)
        unseen = self._unseen(self.groups[sites[0]], queries, keys)
        if mask is None:
            mask = query.new_zeros(rows, 1, queries, keys)
        if mask.dtype == torch.bool:
            return mask & ~unseen
        return mask.masked_fill(unseen, torch.finfo(mask.dtype).min)

    def hide_prefix(self, site: int, seen: torch.Tensor, queries: int, keys: int) -> torch.Tensor:
        """Which vectors of a prefix each query may see [B, Q or 1, P], without what the rules
        hide."""
        unseen = self.visibility.unseen_prefix(self.groups[site], queries, keys, self.before)
        return seen & ~unseen

    def _unseen(self, group: str, queries: int, keys: int) -> torch.Tensor:
        """As all attentions of a group have it in one call: [B, 1, Q or 1, K]."""
        shape, unseen = self._last.get(group, ((-1, -1), None))
        if unseen is None or shape != (queries, keys):
            unseen = self.visibility.unseen(group, queries, keys, self.before)[:, None]
            self._last[group] = (queries, keys), unseen
        return unseen


hiding: ContextVar[ActiveVisibility | None] = ContextVar("hiding", default=None)
"""Who sees whom in the call that runs now."""
