"""How much a figure depends on the rows that happen to be in the test file: intervals by the
bootstrap (Efron and Tibshirani 1993), of rows that are drawn from the test rows with repetition."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ptune.metrics import trust
from ptune.metrics.labels import label_of_metric, row_figures

RESAMPLES = 1000
LEVEL = 0.95
MOST_NUMBERS = 2**20  # in the arrays of the redraws that are looked at together
Interval = tuple[float, float]
# the figures [D] of D redraws of N rows, which are given by the rows' numbers [D, N]
Statistic = Callable[[np.ndarray], np.ndarray]


def interval(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    predictions: Sequence[str],
    target: str = "label",
    *,
    labels: Sequence[str] = (),
    shares: Sequence[Sequence[float]] = (),
) -> Interval | None:
    """The interval that holds the figure of 95 of 100 redraws of the rows; None of fewer than two
    rows, or where no redraw has the figure. Of "em" questions are drawn, not rows.

    Args:
        name: one of ``LABELLED``, with its label where it is of one; see ``labelled``, as for all
            other arguments.
    """
    figures_of_rows = row_figures(name, rows, predictions, target, labels=labels, shares=shares)
    if figures_of_rows is not None:
        count, statistic = len(figures_of_rows), _mean_of(np.array(figures_of_rows))
    else:
        count = len(rows)
        statistic = _statistic(name, rows, predictions, target, labels=labels, shares=shares)
    return of_statistic(count, statistic)


def of_statistic(count: int, statistic: Statistic) -> Interval | None:
    """The interval that holds a figure of 95 of 100 redraws of so many rows; None of fewer than
    two, or where no redraw has the figure."""
    if count < 2:
        return None
    generator = np.random.default_rng(0)
    together = max(1, MOST_NUMBERS // count)
    drawn = np.concatenate(
        [
            statistic(generator.integers(count, size=(min(together, RESAMPLES - first), count)))
            for first in range(0, RESAMPLES, together)
        ]
    )
    known = drawn[np.isfinite(drawn)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def of_mean(figures_of_rows: np.ndarray) -> Interval | None:
    """The interval of the mean of rows' figures (``of_statistic``)."""
    return of_statistic(len(figures_of_rows), _mean_of(figures_of_rows))


def sentence(intervals: Mapping[str, Interval]) -> str:
    """Intervals in words."""
    listed = ", ".join(f"{name} {low:.3f} to {high:.3f}" for name, (low, high) in intervals.items())
    return f"With other test rows of this kind (95 % intervals, bootstrap): {listed}"


def one_by_one(figure: Callable[[np.ndarray], float]) -> Statistic:
    """A figure of one redraw, which is given by its rows' numbers [N], for several redraws."""
    return lambda drawn: np.array([figure(numbers) for numbers in drawn])


def _mean_of(values: np.ndarray) -> Statistic:
    return lambda drawn: values[drawn].mean(1)


def _statistic(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    predictions: Sequence[str],
    target: str,
    *,
    labels: Sequence[str],
    shares: Sequence[Sequence[float]],
) -> Statistic:
    """The figure as a function of the numbers of the rows that are drawn."""
    right = [str(row[target]) for row in rows]
    kind, known = name.partition(":")[0], list(labels) or list(dict.fromkeys(right))
    if kind == trust.ECE:
        best = trust.best_shares(shares)
        hits = np.array([a == b for a, b in zip(right, predictions)])
        return one_by_one(lambda drawn: trust.calibration_error(best[drawn], hits[drawn]))
    if kind == "auc":
        return one_by_one(_auc(name, np.array(right), known, np.array(shares)))
    names = list(dict.fromkeys([*known, *right, *predictions]))
    pairs = np.array(
        [names.index(a) * len(names) + names.index(b) for a, b in zip(right, predictions)]
    )
    label = label_of_metric(name, known)
    number = None if label is None else names.index(label)

    def figures(drawn: np.ndarray) -> np.ndarray:
        together = max(1, MOST_NUMBERS // len(names) ** 2)
        parts = [drawn[first : first + together] for first in range(0, len(drawn), together)]
        return np.concatenate(
            [_of_confusion(kind, _confusion(pairs[part], len(names)), number) for part in parts]
        )

    return figures


def _confusion(pairs: np.ndarray, labels: int) -> np.ndarray:
    """How often each right label (rows) got each answer (columns) in each redraw [D, C, C].

    Args:
        pairs: the number of each row's pair of right label and answer [D, N].
    """
    redraws, cells = len(pairs), labels * labels
    numbers = (pairs + cells * np.arange(redraws)[:, None]).ravel()
    return np.bincount(numbers, minlength=redraws * cells).reshape(redraws, labels, labels)


def _of_confusion(kind: str, counts: np.ndarray, label: int | None) -> np.ndarray:
    """A figure [D] of the counts of right labels and answers [D, C, C], 0 where it divides by
    nothing."""
    hits, right, answered = counts.diagonal(axis1=1, axis2=2), counts.sum(2), counts.sum(1)
    if kind == "mcc":
        rows = counts.sum((1, 2)).astype(float)  # whose fourth power is no 64-bit integer
        spread = (rows**2 - (answered**2).sum(1)) * (rows**2 - (right**2).sum(1))
        covered = hits.sum(1) * rows - (right * answered).sum(1)
        return np.where(spread > 0, covered / np.maximum(spread, 1) ** 0.5, 0.0)
    whole = {"precision": answered, "recall": right}.get(kind, (right + answered) / 2)
    figures = hits / np.maximum(whole, 0.5)
    if label is not None:
        return figures[:, label]
    if kind == "f1-weighted":
        return (figures * right).sum(1) / right.sum(1)
    return figures.sum(1) / (whole > 0).sum(1)  # a label that occurs nowhere has no hits


def _auc(
    name: str, right: np.ndarray, labels: Sequence[str], shares: np.ndarray
) -> Callable[[np.ndarray], float]:
    """The area under the ROC curve; the mean over labels where it is of all, and no number where a
    label is in no row or in all."""
    label = label_of_metric(name, labels)
    of_two = list(labels)[:1] if len(labels) == 2 else list(labels)
    areas = [
        _area(right == one, shares[:, list(labels).index(one)])
        for one in ([label] if label else of_two)
    ]
    return lambda drawn: float(np.mean([area(drawn) for area in areas]))


def _area(is_positive: np.ndarray, values: np.ndarray) -> Callable[[np.ndarray], float]:
    """The share of pairs of a positive and a negative row in which the positive one has the larger
    value; equal values count half. The values are sorted once for all redraws.

    Args:
        is_positive: [N].
        values: [N].
    """
    distinct, places = np.unique(values, return_inverse=True)
    cells = 2 * places + is_positive

    def area(drawn: np.ndarray) -> float:
        counts = np.bincount(cells[drawn], minlength=2 * len(distinct))
        negative, positive = counts.reshape(-1, 2).T
        pairs = negative.sum() * positive.sum()
        smaller = negative.cumsum() - negative / 2
        return float((positive * smaller).sum() / pairs) if pairs else float("nan")

    return area
