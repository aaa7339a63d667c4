"""How far a task's probabilities can be trusted, as rows that it did not learn from show: a
temperature by which they are corrected, and sets of labels that hold the right one as often as is
asked for."""

import math
from collections.abc import Sequence
from typing import Annotated, Self

import torch
from pydantic import BaseModel, ConfigDict, Field

LEAST = 10  # rows by which a temperature is fitted
ROUNDING = 1e-6  # by which one probability differs from batch to batch
LARGEST = 20.0  # a temperature lies between this and its inverse


class Confidence(BaseModel):
    """What rows that were not learned from say about the probabilities of labels.

    Attributes:
        temperature: what the logarithms of the probabilities are divided by (Guo et al. 2017,
            section 4.2): above 1 where the answers were too sure of themselves. It never changes
            which label is the most probable.
        nonconformity: for each of those rows 1 less the corrected probability of its right label,
            in rising order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    nonconformity: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()

    @classmethod
    def fitted(cls, shares: torch.Tensor, labels: Sequence[int], scaled: bool = True) -> Self:
        """What rows say whose right labels are known.

        Args:
            shares: the labels' probabilities of the rows [N, C], before any correction.
            labels: the numbers of their right labels [N].
            scaled: fit the temperature; else it is 1.
        """
        temperature = _best_temperature(shares, labels) if scaled else 1.0
        corrected = _scaled(shares, temperature)
        right = corrected[torch.arange(len(labels)), torch.tensor(labels, dtype=torch.long)]
        return cls(
            temperature=temperature,
            nonconformity=tuple(sorted((1 - right.clamp(0, 1)).tolist())),
        )

    def corrected(self, shares: torch.Tensor) -> torch.Tensor:
        """The labels' probabilities of a row [C] or of several [N, C], corrected by the
        temperature."""
        return _scaled(shares, self.temperature)

    def label_set(self, shares: Sequence[float], coverage: float) -> list[int]:
        """The numbers of the labels of a set that holds the right one with a probability of at
        least ``coverage``, the most probable first: split conformal prediction (Sadinle et al.
        2019). That holds on average over rows of the kind of those whose scores are kept. The most
        probable label is always in it.

        Args:
            shares: the corrected probabilities of the labels [C].
            coverage: between 0 and 1.
        """
        ranked = sorted(range(len(shares)), key=lambda label: -shares[label])
        place = math.ceil(round((len(self.nonconformity) + 1) * coverage, 9))
        if place > len(self.nonconformity):
            return ranked
        most = self.nonconformity[place - 1] + ROUNDING
        return [label for label in ranked if label == ranked[0] or 1 - shares[label] <= most]


def rows_for(coverage: float) -> int:
    """How many rows must be known for a set of this coverage to leave out a label."""
    return math.ceil(round(coverage / (1 - coverage), 9))


def _best_temperature(shares: torch.Tensor, labels: Sequence[int]) -> float:
    """The temperature of the least mean loss, minus the log probability of the right label; 1 where
    there are fewer than ten rows, or where all are answered rightly, since the smaller the
    temperature, the less the loss then."""
    from scipy.optimize import minimize_scalar

    right = torch.tensor(labels, dtype=torch.long)
    if len(labels) < LEAST or bool((shares.argmax(1) == right).all()):
        return 1.0
    logs = _logarithms(shares.double())

    def loss(log_temperature: float) -> float:
        scaled = logs / math.exp(log_temperature)
        return float(torch.nn.functional.cross_entropy(scaled, right))

    bounds = (-math.log(LARGEST), math.log(LARGEST))
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(math.exp(best.x))


def _scaled(shares: torch.Tensor, temperature: float) -> torch.Tensor:
    return shares if temperature == 1 else (_logarithms(shares) / temperature).softmax(-1)


def _logarithms(shares: torch.Tensor) -> torch.Tensor:
    """The logarithms of probabilities, of which none is minus infinity."""
    return shares.clamp(min=torch.finfo(torch.float32).tiny).log()
