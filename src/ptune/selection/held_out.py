"""Answers to labelled rows that were held out, and how those of two candidates compare."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ptune.answers.confidence import Confidence
from ptune.metrics.labels import labelled
from ptune.model.prompt_model import Row
from ptune.selection.cross_validation import ALWAYS_LEARNED
from ptune.tasks.resolved.task_form import TaskForm

Shares = dict[int, list[float]]
"""The labels' probabilities of rows, by the rows' numbers."""


@dataclass(frozen=True)
class HeldOut:
    """The rows with their right labels, and in which fold each is held out."""

    form: TaskForm
    rows: Sequence[Row]
    fold_of: Sequence[int]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the rows that are held out in some fold."""
        return [n for n, fold in enumerate(self.fold_of) if fold != ALWAYS_LEARNED]

    def of_folds(self, count: int) -> list[int]:
        """The fold in which each row is held out, of the first folds alone; the rows of the others
        are learned from in each of these."""
        return [fold if fold < count else ALWAYS_LEARNED for fold in self.fold_of]

    @property
    def metric(self) -> str:
        """The name of the figure that decides."""
        return (self.form.judging.metrics or ("accuracy",))[0]

    def label(self, number: int) -> str:
        """The right label of a row."""
        return str(self.rows[number][self.form.target])

    def figure(self, shares: Shares, numbers: Sequence[int]) -> float:
        """The main figure on some rows."""
        labels = self.form.answers.names
        values = [shares[number] for number in numbers]
        answers = [labels[int(np.argmax(value))] for value in values]
        rows = [self.rows[number] for number in numbers]
        figures = labelled(
            [self.metric], rows, answers, self.form.target, labels=labels, shares=values
        )
        return next(iter(figures.values()))

    def loss(self, shares: Shares, numbers: Sequence[int]) -> float:
        """The mean of minus the log probability of the right labels of some rows."""
        labels = self.form.answers.names
        right = [shares[n][labels.index(self.label(n))] for n in numbers]
        return float(-np.log(np.clip(right, 1e-6, 1)).mean())

    def order(self, shares: Shares, others: Shares) -> int:
        """Which of two candidates' answers come first: below 0 where the first ones have the better
        figure on the rows that both answered, or with equal figures the lower loss."""
        common = [number for number in shares if number in others]
        difference = self.figure(others, common) - self.figure(shares, common)
        difference = difference or self.loss(shares, common) - self.loss(others, common)
        return int(np.sign(difference))

    def more_right(self, shares: Shares, others: Shares) -> dict[int, int]:
        """For each row that two candidates answered, 1 where the first alone is right and -1 where
        the second alone is."""
        common = [number for number in shares if number in others]
        pairs = zip(self.is_right(shares, common), self.is_right(others, common))
        return {n: int(one) - int(other) for n, (one, other) in zip(common, pairs)}

    def is_clearly_ahead(self, shares: Shares, others: Shares) -> bool:
        """Whether the first answers are right more often, by more than a standard error: the root
        of the number of rows that one alone answers rightly, as in McNemar's test."""
        differences = self.more_right(shares, others).values()
        return sum(differences) > sum(map(abs, differences)) ** 0.5

    def is_better_in_both(self, shares: Shares, others: Shares) -> bool:
        """Whether the first answers have a better figure and a lower loss on their rows, which the
        others answer too."""
        numbers = list(shares)
        is_ahead = self.figure(shares, numbers) > self.figure(others, numbers)
        return is_ahead and self.loss(shares, numbers) < self.loss(others, numbers)

    def confidence(self, shares: Shares) -> Confidence:
        """What the answers say about the probabilities."""
        labels = self.form.answers.names
        values = torch.tensor(list(shares.values()))
        right = [labels.index(self.label(number)) for number in shares]
        return Confidence.fitted(values, right, self.form.reading.temperature == "dev")

    def is_right(self, shares: Shares, numbers: Sequence[int]) -> np.ndarray:
        """Which of some rows are answered rightly."""
        labels = self.form.answers.names
        best = [labels[int(np.argmax(shares[n]))] for n in numbers]
        return np.array([answer == self.label(n) for n, answer in zip(numbers, best)])
