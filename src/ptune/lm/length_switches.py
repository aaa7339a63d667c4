"""Lengths from which an LM computes otherwise for all rows of a call (longrope): rows on both sides
of one share no call."""

import bisect
import contextlib
import threading
from collections.abc import Sequence
from typing import Any

from ptune.errors import ModelError


class LengthSwitches:
    """The switch lengths of one LM.

    Attributes:
        lengths: from more positions than these on the LM computes otherwise, in order.
        lock: held in a call, since an LM that switches by length keeps the state of its last call.

    Args:
        name: what the LM is called in errors.
    """

    def __init__(self, name: str, lengths: tuple[int, ...]):
        self.name, self.lengths = name, lengths
        self.lock: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if lengths:
            self.lock = threading.RLock()

    def side(self, positions: int) -> int:
        """How many of the lengths so many positions go beyond."""
        return bisect.bisect_left(self.lengths, positions)

    def check_batch(self, positions: Sequence[int]) -> None:
        """Refuse rows of which one would change the others by its length.

        Args:
            positions: how many positions each row has.

        Raises:
            ModelError: there are rows on both sides of a length.
        """
        if len({self.side(count) for count in positions}) > 1:
            raise ModelError(
                f"{self.name} computes otherwise for all rows of a batch where one has more than "
                f"{' or '.join(map(str, self.lengths))} tokens: run longer rows apart from "
                "shorter ones."
            )

    def check_room(self, positions: int, new_tokens: int) -> None:
        """Refuse to write so many tokens behind a row where the LM would compute otherwise midway,
        since the keys and values that it keeps of the row are then of no use.

        Raises:
            ModelError: it would.
        """
        side = self.side(positions)
        if side != self.side(positions + new_tokens - 1):
            raise ModelError(
                f"{self.name} computes otherwise from {self.lengths[side]} tokens on, and "
                f"{new_tokens} new ones behind a row of {positions} would go beyond: set "
                "max_new_tokens lower, or shorten the row."
            )
