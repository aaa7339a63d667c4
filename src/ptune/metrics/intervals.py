"""How much a figure depends on the rows that happen to be in the test file: intervals by the
bootstrap (Efron and Tibshirani 1993), of rows that are drawn from the test rows with repetition."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ptune.metrics import trust
from ptune.metrics.labels import label_of_metric, row_figures

RESAMPLES = 1000
LEVEL = 0.95
Interval = tuple[float, float]
Statistic = Callable[[np.ndarray], float]  # a figure of the rows of these numbers


def interval(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    predictions: Sequence[str],
    target: str = "label",
    labels: Sequence[str] = (),
    shares: Sequence[Sequence[float]] = (),
) -> Interval | None:
    """The interval that holds the figure of 95 of 100 redraws of the rows; None of fewer than two
    rows, or where no redraw has the figure. Of "em" questions are drawn, not rows.

    Args:
        name: one of ``LABELLED``, with its label where it is of one; see ``labelled``, as for all
            other arguments.
    """
    figures_of_rows = row_figures(name, rows, predictions, target, labels, shares)
    if figures_of_rows is not None:
        count, statistic = len(figures_of_rows), _mean_of(np.array(figures_of_rows))
    else:
        count, statistic = len(rows), _statistic(name, rows, predictions, target, labels, shares)
    return of_statistic(count, statistic)


def of_statistic(count: int, statistic: Statistic) -> Interval | None:
    """The interval that holds a figure of 95 of 100 redraws of so many rows; None of fewer than
    two, or where no redraw has the figure."""
    if count < 2:
        return None
    generator = np.random.default_rng(0)
    drawn = [statistic(generator.integers(count, size=count)) for _ in range(RESAMPLES)]
    known = np.array(drawn)[np.isfinite(drawn)]
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


def _mean_of(values: np.ndarray) -> Statistic:
    return lambda drawn: float(values[drawn].mean())


def _statistic(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    predictions: Sequence[str],
    target: str,
    labels: Sequence[str],
    shares: Sequence[Sequence[float]],
) -> Statistic:
    """The figure as a function of the numbers of the rows that are drawn."""
    right = [str(row[target]) for row in rows]
    kind, known = name.partition(":")[0], list(labels) or list(dict.fromkeys(right))
    if kind == trust.ECE:
        best = trust.best_shares(shares)
        hits = np.array([a == b for a, b in zip(right, predictions)])
        return lambda drawn: trust.calibration_error(best[drawn], hits[drawn])
    if kind == "auc":
        return _auc(name, np.array(right), known, np.array(shares))
    names = list(dict.fromkeys([*known, *right, *predictions]))
    pairs = np.array(
        [names.index(a) * len(names) + names.index(b) for a, b in zip(right, predictions)]
    )
    label = label_of_metric(name, known)
    number = None if label is None else names.index(label)
    return lambda drawn: _of_confusion(kind, _confusion(pairs[drawn], len(names)), number)


def _confusion(pairs: np.ndarray, labels: int) -> np.ndarray:
    """How often each right label (rows) got each answer (columns) [C, C]."""
    return np.bincount(pairs, minlength=labels * labels).reshape(labels, labels)


def _of_confusion(kind: str, counts: np.ndarray, label: int | None) -> float:
    """A figure of the counts of right labels and answers, 0 where it divides by nothing."""
    hits, right, answered = counts.diagonal(), counts.sum(1), counts.sum(0)
    if kind == "mcc":
        rows = counts.sum()
        spread = (rows**2 - (answered**2).sum()) * (rows**2 - (right**2).sum())
        return (
            float((hits.sum() * rows - (right * answered).sum()) / spread**0.5) if spread else 0.0
        )
    whole = {"precision": answered, "recall": right}.get(kind, (right + answered) / 2)
    figures = hits / np.maximum(whole, 0.5)
    if label is not None:
        return float(figures[label])
    if kind == "f1-weighted":
        return float((figures * right).sum() / right.sum())
    return float(figures[whole > 0].mean())


def _auc(name: str, right: np.ndarray, labels: Sequence[str], shares: np.ndarray) -> Statistic:
    """The area under the ROC curve; the mean over labels where it is of all, and no number where a
    label is in no row or in all."""
    label = label_of_metric(name, labels)
    of_two = list(labels)[:1] if len(labels) == 2 else list(labels)
    areas = [
        _area(right == one, shares[:, list(labels).index(one)])
        for one in ([label] if label else of_two)
    ]
    return lambda drawn: float(np.mean([area(drawn) for area in areas]))


def _area(is_positive: np.ndarray, values: np.ndarray) -> Statistic:
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
