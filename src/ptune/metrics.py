"""Figures over ranked answers."""
from collections.abc import Collection, Sequence

import torch


def rank(scores: torch.Tensor, label: int, without: Collection[int] = ()) -> int:
    """The place of a label among all, best first, beginning at 1; of equal scores the earlier label comes first.

    Args:
        scores: [C].
        without: labels that leave the ranking, such as other right answers.
    """
    kept = torch.ones(len(scores), dtype=torch.bool)
    kept[[other for other in without if other != label]] = False
    own = scores[label]
    before = (scores > own) | ((scores == own) & (torch.arange(len(scores)) < label))
    return 1 + int((before & kept).sum())


def ranked(ranks: Sequence[int]) -> dict[str, float]:
    """Precision at 1 and at 10, and the mean reciprocal rank."""
    count = len(ranks)
    return {"p@1": sum(r <= 1 for r in ranks) / count, "p@10": sum(r <= 10 for r in ranks) / count,
            "mrr": sum(1 / r for r in ranks) / count}


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """The standard deviation over runs (of a sample, n - 1); 0 for a single run."""
    middle = mean(values)
    return (sum((value - middle) ** 2 for value in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else 0.0
