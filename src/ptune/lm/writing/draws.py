"""Tokens that are drawn by chance: each row draws by numbers of its own, so that the rows beside it
change no text."""

import random
from collections.abc import Sequence
from typing import Self

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

Key = tuple[int, ...]
"""What decides a row's draws: a seed, and which of the rows of that seed it is."""


class Draws(LogitsProcessor):
    """Leaves each row one token, the next: the first by which the probabilities of the tokens,
    added up, come to more than the row's next number between 0 and 1.

    Args:
        numbers: of each row in the batch a source of such numbers.
        narrowing: what is done to the scores before, such as to divide them by a temperature.
    """

    def __init__(self, numbers: Sequence[random.Random], narrowing: LogitsProcessorList):
        self.numbers, self.narrowing = numbers, narrowing

    @classmethod
    def of(
        cls,
        keys: Sequence[Key],
        *,
        temperature: float,
        top_k: int,
        top_p: float,
        copies: int = 1,
    ) -> Self:
        """The draws of rows with these keys.

        Args:
            keys: equal ones draw equal numbers.
            temperature: by which the scores are divided.
            top_k: the number of likeliest tokens that are drawn from; 0 for all.
            top_p: the probability that the likeliest tokens have together which are drawn from.
            copies: how many texts are written for each row, beside each other in the batch.
        """
        narrowing = LogitsProcessorList()
        if temperature != 1:
            narrowing.append(TemperatureLogitsWarper(temperature))
        if top_k:
            narrowing.append(TopKLogitsWarper(top_k))
        if top_p < 1:
            narrowing.append(TopPLogitsWarper(top_p))
        numbers = [random.Random(repr((*key, copy))) for key in keys for copy in range(copies)]
        return cls(numbers, narrowing)

    def of_rows(self, places: Sequence[int]) -> "Draws":
        """The draws of the rows at these places alone, which go on."""
        return Draws([self.numbers[place] for place in places], self.narrowing)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores [B, V] in which the drawn token of each row has 0, and all others minus
        infinity."""
        sums = self.narrowing(input_ids, scores).double().softmax(-1).cumsum(-1)
        drawn = [row.random() for row in self.numbers]
        limits = torch.tensor(drawn, dtype=sums.dtype, device=sums.device)[:, None] * sums[:, -1:]
        tokens = torch.searchsorted(sums, limits, right=True).clamp(max=sums.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens, 0.0)
