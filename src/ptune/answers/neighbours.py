"""What the members of an ensemble know of labelled rows, by which each row is answered: a member
counts for as much as it got the labels of the nearest of these rows right.

Nearest is by TF-IDF over the tokens that the LM reads (Salton and Buckley 1988). Whole numbers are
kept and no LM runs, so that the nearest rows are the same wherever a row is answered. What the
members did there is weighed as by Bayesian model averaging; Woods et al. 1997 choose among
classifiers by their local accuracy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Labelled rows as one member of an ensemble reads them.

    Attributes:
        tokens: the different tokens of all N rows, those of one row after those of another [S].
        counts: how often each stands in its row [S].
        sizes: how many different tokens each row has [N].
        log_probs: the member's log probability of each row's label [N].

    Raises:
        ValueError: the values do not go together.
    """

    tokens: np.ndarray
    counts: np.ndarray
    sizes: np.ndarray
    log_probs: np.ndarray

    def __post_init__(self) -> None:
        numbers = (self.tokens, self.counts, self.sizes)
        if (
            any(one.dtype != np.int64 or one.ndim != 1 for one in numbers)
            or self.log_probs.dtype != np.float64
            or len(self.tokens) != len(self.counts)
            or len(self.tokens) != self.sizes.sum()
            or self.log_probs.shape != self.sizes.shape
            or not len(self.sizes)
            or min(self.counts.min(), self.sizes.min()) < 1
            or not np.isfinite(self.log_probs).all()
        ):
            raise ValueError("The tokens, counts, sizes and log probabilities do not fit.")

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[int]], log_probs: Sequence[float]) -> "Neighbours":
        """From the tokens of each row, and the log probability of its label."""
        counted = [_counted(row) for row in rows]
        return cls(
            tokens=np.concatenate([tokens for tokens, _ in counted]),
            counts=np.concatenate([counts for _, counts in counted]),
            sizes=np.array([len(tokens) for tokens, _ in counted]),
            log_probs=np.array(log_probs, dtype=np.float64),
        )

    def nearest(self, row: Sequence[int], count: int) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of the rows that are nearest to one of some tokens, the nearest first, of
        equally near ones the earlier; and how near each is, from 0 to 1."""
        nearness = self._nearness(row)
        numbers = np.argsort(-nearness, kind="stable")[:count]
        return numbers, nearness[numbers]

    def _nearness(self, row: Sequence[int]) -> np.ndarray:
        """The cosine of each row's TF-IDF vector with that of a row of some tokens [N]. A token
        that all rows have, as those of the template, weighs nothing."""
        tokens, counts = _counted(row)
        places = np.searchsorted(self._vocabulary, tokens).clip(max=len(self._vocabulary) - 1)
        is_known = self._vocabulary[places] == tokens
        weights = counts * self._rarity(np.where(is_known, self._frequencies[places], 0))
        asked = np.zeros(len(self._vocabulary))
        asked[places[is_known]] = weights[is_known]
        length = np.sqrt((weights**2).sum())
        return self._of_rows(self._weights * asked[self._numbers]) / (length or 1.0)

    @cached_property
    def _vocabulary(self) -> np.ndarray:
        """The tokens that any row has, in their order."""
        return np.unique(self.tokens)

    @cached_property
    def _numbers(self) -> np.ndarray:
        """The place of each of ``tokens`` in the vocabulary [S]."""
        return np.searchsorted(self._vocabulary, self.tokens)

    @cached_property
    def _frequencies(self) -> np.ndarray:
        """How many rows have each token of the vocabulary."""
        return np.bincount(self._numbers)

    @cached_property
    def _weights(self) -> np.ndarray:
        """The TF-IDF vectors of the rows, each of length 1, or 0 where it holds nothing [S]."""
        weights = self.counts * self._rarity(self._frequencies[self._numbers])
        lengths = np.sqrt(self._of_rows(weights**2))
        return weights / np.repeat(np.where(lengths, lengths, 1.0), self.sizes)

    def _rarity(self, frequencies: np.ndarray) -> np.ndarray:
        """The inverse document frequency of tokens that so many rows have."""
        return np.log((1 + len(self.sizes)) / (1 + frequencies))

    def _of_rows(self, values: np.ndarray) -> np.ndarray:
        """The sum over the tokens of each row [N] of values [S]."""
        owners = np.repeat(np.arange(len(self.sizes)), self.sizes)
        return np.bincount(owners, values, len(self.sizes))


def member_weights(members: Sequence[Neighbours], row: Sequence[int], count: int) -> list[float]:
    """How much each member counts for a row; they sum to 1. That is how probable the labels of the
    nearest rows are by the member, a row that is half as near counted by half; so a row that is
    near none gets the answer of all members alike.

    Args:
        members: what each knows of the same rows; the nearest are those by the first one.
        row: the tokens of the row.
        count: how many of the nearest rows count.
    """
    numbers, nearness = members[0].nearest(row, count)
    sums = np.array([(nearness * member.log_probs[numbers]).sum() for member in members])
    shares = np.exp(sums - sums.max())
    return (shares / shares.sum()).tolist()


def _counted(row: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The different tokens of a row, and how often each stands in it."""
    return np.unique(np.array(row, dtype=np.int64), return_counts=True)
