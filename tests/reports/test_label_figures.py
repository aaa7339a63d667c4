"""Counts of right and answered labels, and what is computed from them."""

import pytest

from ptune.reports import label_figures
from ptune.reports.label_figures import ConfusionTable


def test_precision_recall_and_f1():
    """Of "good" 3 of 4 rows are right, and one "bad" row is called good: 3/4 and 3/4."""
    table = ConfusionTable("t", 1, ["good", "bad", "ugly"], [[3, 1, 0], [1, 1, 0], [0, 0, 0]])
    good, bad, ugly = table.figures()
    assert (good.rows, good.precision, good.recall, good.f1) == (4, 0.75, 0.75, 0.75)
    assert (bad.rows, bad.precision, bad.recall, bad.f1) == (2, 0.5, 0.5, 0.5)
    assert (ugly.rows, ugly.precision, ugly.recall, ugly.f1) == (0, 0, 0, 0)
    assert table.share(0, 1) == pytest.approx(0.25) and table.share(2, 2) == 0


def test_counts_of_seeds_are_added():
    labels, counts = label_figures.added(
        [{"a": {"a": 2, "b": 1}, "b": {"b": 3}}, {"b": {"a": 1}, "a": {"a": 1, "c": 1}}]
    )
    assert labels == ["a", "b", "c"] and counts == [[3, 1, 1], [1, 3, 0], [0, 0, 0]]
