"""Intervals over test rows: each figure of redrawn rows is that of scikit-learn."""

import numpy as np
import pytest
from scipy import stats

from ptune.metrics import intervals
from ptune.metrics.intervals import interval
from ptune.metrics.labels import labelled

OF_ALL = ["accuracy", "f1-macro", "f1-weighted", "mcc", "auc", "brier", "ece"]
OF_ONE = ["f1:{}", "precision:{}", "recall:{}", "auc:{}"]


def answered(labels, rows=40, seed=0):
    generator = np.random.default_rng(seed)
    shares = generator.dirichlet(np.ones(len(labels)), rows)
    right = [labels[n] for n in generator.integers(len(labels), size=rows)]
    return [{"label": label} for label in right], [labels[n] for n in shares.argmax(1)], shares


@pytest.mark.parametrize("decimals", [1, 9])
@pytest.mark.parametrize("labels", [["a", "b", "c"], ["true", "false"]])
def test_each_figure_of_redrawn_rows_is_that_of_labelled(labels, decimals, monkeypatch):
    """The ends are the quantiles of what ``labelled`` says of the very same redraws; with rounded
    shares many rows are equal."""
    monkeypatch.setattr(intervals, "RESAMPLES", 12)
    rows, answers, shares = answered(labels)
    shares = shares.round(decimals)
    names = [*OF_ALL, *(name.format(labels[-1]) for name in OF_ONE)]
    for name in [*names, *(["f1", "f1a"] if labels[0] == "true" else [])]:
        generator, figures = np.random.default_rng(0), []
        for _ in range(12):
            drawn = generator.integers(len(rows), size=len(rows))
            redrawn = [rows[n] for n in drawn], [answers[n] for n in drawn]
            figures += labelled(
                [name], *redrawn, labels=labels, shares=shares[drawn].tolist()
            ).values()
        ends = interval(name, rows, answers, labels=labels, shares=shares.tolist())
        assert ends == pytest.approx(np.quantile(figures, [0.025, 0.975])), name


def test_a_label_that_occurs_nowhere_does_not_lower_a_mean_over_labels():
    rows, answers, _ = answered("ab")
    for name in ("f1-macro", "f1-weighted"):
        assert interval(name, rows, answers, labels="abc") == interval(name, rows, answers)


def test_redraws_that_are_counted_in_parts_are_those_of_one_part(monkeypatch):
    rows, answers, _ = answered("abcdefg", rows=10)
    whole = interval("f1-macro", rows, answers, labels="abcdefg")
    monkeypatch.setattr(intervals, "MOST_NUMBERS", 100)  # 10 redraws at once, counted 2 by 2
    assert interval("f1-macro", rows, answers, labels="abcdefg") == whole


def test_the_interval_of_the_accuracy_is_scipys_bootstrap():
    rows, answers, _ = answered("ab", rows=200)
    hits = np.array([float(row["label"] == answer) for row, answer in zip(rows, answers)])
    of_scipy = stats.bootstrap((hits,), np.mean, n_resamples=4000, method="percentile")
    low, high = of_scipy.confidence_interval
    assert interval("accuracy", rows, answers) == pytest.approx((low, high), abs=0.02)


def test_questions_are_redrawn_whole_and_too_few_rows_have_no_interval():
    rows = [{"label": "a", "group": n // 2} for n in range(8)]
    answers = ["a"] * 7 + ["b"]
    low, high = interval("em", rows, answers)
    assert (low, high) == (0.25, 1.0)
    assert interval("accuracy", rows[:1], answers[:1]) is None
    one_label = [{"label": "a"}] * 3
    assert interval("auc:a", one_label, ["a"] * 3, labels="ab", shares=[[1.0, 0.0]] * 3) is None


def test_so_many_rows_that_their_fourth_power_is_no_integer(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 3)
    rows, answers, _ = answered("ab", rows=120_000)
    answers = [
        row["label"] if n % 2 else answer for n, (row, answer) in enumerate(zip(rows, answers))
    ]
    (whole,) = labelled(["mcc"], rows, answers, labels="ab").values()
    low, high = interval("mcc", rows, answers, labels="ab")
    assert low < high and low == pytest.approx(whole, abs=0.02)
