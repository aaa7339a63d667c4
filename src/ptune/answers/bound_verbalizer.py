"""Label words as token ids of one LM, and the scores of words and labels from what the LM says."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch.nn.functional import logsigmoid

from ptune.errors import VerbalizerError
from ptune.survey.findings import likest_label
from ptune.template.language import Kind

Aggregate = Literal["probability", "logit", "max", "vote"]
Order = Literal["parallel", "left-to-right", "most-probable-first"]
Length = Literal["closed", "sum", "token", "character"]
ORDERS: dict[Kind, Order] = {
    "masked": "parallel",
    "causal": "left-to-right",
    "encoder-decoder": "left-to-right",
}
"""The order in which a kind of LM scores the tokens of a word by default."""
TIE = 1e-3  # the share of the mean beside votes, which decides between equally many
# of a word's going on: short of all, so that the log of its stopping is finite
MOST_SURE = 1 - 1e-6


@dataclass(frozen=True)
class Fill:
    """One way to fill the answer's place: its tokens (None where a mask stands), the words that are
    read from it, and the positions of those tokens in the answer."""

    answer: tuple[int | None, ...]
    words: tuple[int, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True)
class BoundVerbalizer:
    """A verbalizer whose words are token ids: ``ids[w]`` of each word, ``owners[w]`` the number of
    its label, ``characters[w]`` how many it has; ``notes`` is what a user should be told of
    them."""

    labels: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    owners: tuple[int, ...]
    kind: Kind
    aggregate: Aggregate = "probability"
    order: Order = "parallel"
    length: Length = "sum"
    characters: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each label, from 0, by its name."""
        return {label: number for number, label in enumerate(self.labels)}

    @cached_property
    def fills(self) -> tuple[Fill, ...]:
        """How the answer's place must be filled to score every word. A masked LM is given masks,
        which words of like length share, or from left to right a word's tokens one by one; another
        LM reads a word's tokens in one go, so only words of one token share a fill."""
        shared: dict[tuple[tuple[int | None, ...], tuple[int, ...]], list[int]] = {}
        for number, ids in enumerate(self.ids):
            places = tuple(range(len(ids)))
            if len(ids) == 1 or self.kind == "masked" and self.order != "left-to-right":
                answers: list[tuple[tuple[int | None, ...], tuple[int, ...]]] = [
                    ((None,) * len(ids), places)
                ]
            elif self.kind == "masked":
                answers = [
                    ((*ids[:place], *(None,) * (len(ids) - place)), (place,)) for place in places
                ]
            else:
                answers = [((*ids[:-1], None), places)]
            for answer in answers:
                shared.setdefault(answer, []).append(number)
        return tuple(
            Fill(answer, tuple(words), positions) for (answer, positions), words in shared.items()
        )

    def number(self, label: str) -> int:
        """The number of a label.

        Raises:
            VerbalizerError: there is none of that name.
        """
        if label not in self.numbers:
            raise VerbalizerError(
                f"There is no label {label!r}. {likest_label(label, self.labels)}"
            )
        return self.numbers[label]

    def first_word(self, label: int) -> tuple[int, ...]:
        """The token ids of the label's first word."""
        return self.ids[self.owners.index(label)]

    def scores(self, log_probs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Scores of the labels [B, C] (``of_labels``) from log probabilities of the vocabulary
        (``of_words``)."""
        return self.of_labels(self.of_words(log_probs))

    @cached_property
    def continued(self) -> dict[int, tuple[int, ...]]:
        """For each word that begins words of other labels, those; not those that begin with another
        of them. None of a masked LM, which fills as many places as a word has."""
        if self.kind == "masked":
            return {}
        numbers: dict[tuple[int, ...], list[int]] = {}
        for number, ids in enumerate(self.ids):
            numbers.setdefault(ids, []).append(number)
        longer: dict[int, dict[tuple[int, ...], int]] = {}
        for number, ids in enumerate(self.ids):
            for short in (
                short for end in range(1, len(ids)) for short in numbers.get(ids[:end], ())
            ):
                if self.owners[short] != self.owners[number]:
                    longer.setdefault(short, {}).setdefault(ids, number)
        return {short: tuple(_shortest(words)) for short, words in longer.items()}

    def of_words(self, log_probs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Log probabilities of the words [B, W], compared by their ``length``; a word of several
        tokens has the product of their probabilities.

        Args:
            log_probs: for each fill, log probabilities of the vocabulary [B, K, V] where its K
                tokens are read.
        """
        device = log_probs[0].device
        words = log_probs[0].new_zeros(len(log_probs[0]), len(self.ids))
        rest: dict[tuple[int, int], torch.Tensor] = {}  # of a word from a token on [B]
        for (numbers, positions, ids), values in zip(self._columns, log_probs):
            ids = ids.to(device)
            token_scores = torch.stack(
                [values[:, place, ids[:, k]] for k, place in enumerate(positions)]
            )
            words = words.index_add(1, numbers.to(device), token_scores.sum(0))
            for place, word in enumerate(numbers.tolist()):
                rest |= {
                    (word, start): token_scores[start:, :, place].sum(0)
                    for start in self._joints.get(word, ())
                }
        return self.compared(words if self.length != "closed" else self._closed(words, rest))

    def compared(self, words: torch.Tensor) -> torch.Tensor:
        """The words' log probabilities [.., W] as they are compared: as they are, or by token or by
        character."""
        if self.length == "token":
            return words / words.new_tensor([len(ids) for ids in self.ids])
        return words / words.new_tensor(self.characters) if self.length == "character" else words

    def _closed(
        self, words: torch.Tensor, rest: Mapping[tuple[int, int], torch.Tensor]
    ) -> torch.Tensor:
        """The words' log probabilities [B, W], of one that begins others that of not going on as
        one of them."""
        for short, longer in self.continued.items():
            goes_on = torch.stack([rest[word, len(self.ids[short])].exp() for word in longer]).sum(
                0
            )
            stops = torch.log1p(-goes_on.clamp(max=MOST_SURE))
            words = words.index_add(1, torch.tensor([short], device=words.device), stops[:, None])
        return words

    @cached_property
    def _joints(self) -> dict[int, set[int]]:
        """For each word that goes on behind others, after how many of its tokens."""
        joints: dict[int, set[int]] = {}
        for short, longer in self.continued.items():
            for word in longer:
                joints.setdefault(word, set()).add(len(self.ids[short]))
        return joints

    def of_labels(self, words: torch.Tensor) -> torch.Tensor:
        """Scores of the labels [B, C] from those of the words [B, W]: the log of the mean
        probability of each label's words, the mean of their logits, the largest of them, or the log
        of the share of votes for each label."""
        if len(self.ids) == len(self.labels):
            return words
        return self._voted(words) if self.aggregate == "vote" else self._averaged(words)

    def _averaged(self, words: torch.Tensor) -> torch.Tensor:
        """The mean, or the largest, of the scores of each label's words [B, C]; by default of their
        probabilities."""
        owners = torch.tensor(self.owners, device=words.device)
        counts = torch.bincount(owners, minlength=len(self.labels))
        zeros = words.new_zeros(len(words), len(self.labels))
        if self.aggregate == "logit":
            return zeros.index_add(1, owners, words) / counts
        best = zeros.fill_(-torch.inf).scatter_reduce(1, owners.expand_as(words), words, "amax")
        if self.aggregate == "max":
            return best
        summed = torch.zeros_like(best).scatter_add(
            1, owners.expand_as(words), (words - best[:, owners]).exp()
        )
        return best + summed.log() - counts.log()

    def _voted(self, words: torch.Tensor) -> torch.Tensor:
        """The log of the share of votes for each label [B, C], with a little of their mean. Each
        way to take one word of every label votes, for the label of its likeliest word.

        A vote has no slope: the gradient is that of the same count with, for each pair of words,
        the probability that one is ahead (straight-through, Bengio et al. 2013).
        """
        won = self._won(words, lambda gaps: ((gaps.sign() + 1) / 2).mean(2).log())
        smooth = self._won(
            words, lambda gaps: logsigmoid(gaps).logsumexp(2) - math.log(gaps.shape[2])
        )
        mean = self._averaged(words).log_softmax(1) + math.log(TIE)
        votes = torch.logaddexp(won, mean) - math.log(1 + TIE)
        return votes.detach() + smooth - smooth.detach()

    def _won(
        self, words: torch.Tensor, ahead: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """The log of the share of the ways to take one word of every label in which each label's is
        ahead of all others [B, C].

        Args:
            ahead: for how much larger a word's score is than those of n others [B, W, n], the log
                of the share of these that it is ahead of [B, W].
        """
        owners = torch.tensor(self.owners, device=words.device)
        of_words = torch.zeros_like(words)
        for label, numbers in enumerate(self._numbers_of_labels):
            of_others = ahead(words[:, :, None] - words[:, None, numbers])
            of_words = of_words + torch.where(owners == label, 0.0, of_others)
        of_labels = [
            of_words[:, numbers].logsumexp(1) - math.log(len(numbers))
            for numbers in self._numbers_of_labels
        ]
        return torch.stack(of_labels, 1).log_softmax(1)

    @cached_property
    def _numbers_of_labels(self) -> list[list[int]]:
        """For each label the numbers of its words."""
        numbers: list[list[int]] = [[] for _ in self.labels]
        for number, owner in enumerate(self.owners):
            numbers[owner].append(number)
        return numbers

    @cached_property
    def _columns(self) -> list[tuple[torch.Tensor, tuple[int, ...], torch.Tensor]]:
        """For each fill, the numbers of its words [W], where in the answer they are read, and their
        token ids there [W, K]."""
        return [
            (
                torch.tensor(fill.words),
                fill.positions,
                torch.tensor(
                    [[self.ids[word][place] for place in fill.positions] for word in fill.words]
                ),
            )
            for fill in self.fills
        ]


def _shortest(words: Mapping[tuple[int, ...], int]) -> Iterator[int]:
    """Of words by their tokens, the numbers of those that begin with none of the others."""
    for ids, number in words.items():
        if not any(ids[:end] in words for end in range(1, len(ids))):
            yield number
