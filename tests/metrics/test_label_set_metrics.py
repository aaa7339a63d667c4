"""Figures of rows with several labels, and the threshold, beside a plain computation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptune.errors import ConfigError
from ptune.metrics import label_sets

LABELS = ("a", "b", "c")
PRESENT = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0]], bool)
SAID = np.array([[1, 0, 0], [0, 0, 1], [0, 1, 1], [1, 0, 0]], bool)


def test_figures_by_hand():
    names = (*label_sets.FIGURES, "f1:b", "precision:c", "recall:b", "auc:a")
    shares = np.array([[0.9, 0.2, 0.1], [0.3, 0.1, 0.8], [0.95, 0.7, 0.9], [0.8, 0.1, 0.1]])
    figures = label_sets.figures(names, LABELS, present=PRESENT, predicted=SAID, shares=shares)
    assert figures == pytest.approx(
        {
            "f1-micro": 8 / 10,  # 4 hits, 5 present, 5 said
            "f1-macro": (1 + 2 / 3 + 2 / 3) / 3,
            "f1-samples": (2 / 3 + 0 + 1 + 1) / 4,
            "subset-accuracy": 0.5,
            "hamming-score": 10 / 12,
            "f1:b": 2 / 3,
            "precision:c": 0.5,
            "recall:b": 0.5,
            "auc:a": 0.5,  # of four pairs two are in order
        }
    )


def test_a_row_without_labels_that_gets_none_is_right():
    """All figures of answers that are all right are 1, whatever share of the rows has no label."""
    figures = label_sets.figures(
        label_sets.FIGURES, LABELS, present=PRESENT, predicted=PRESENT, shares=PRESENT
    )
    assert set(figures.values()) == {1.0}


@pytest.mark.parametrize(
    "name, message",
    [
        ("accuracy", "no metric 'accuracy' of rows with several labels.*f1-micro"),
        ("f1", "no metric 'f1'"),
        ("f1:d", "of a label that is not there"),
        ("f1-micro:a", "no metric"),
        ("auc:a", "all of the 2 rows"),
    ],
)
def test_what_cannot_be_computed_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        label_sets.check([name], LABELS, np.array([[1, 0, 0], [1, 1, 0]], bool))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=14))
def test_no_threshold_is_better_than_the_best(cells):
    present = np.array([[is_there] for is_there, _ in cells])
    shares = np.array([[share / 6] for _, share in cells])
    best = label_sets.best_threshold(present, shares)
    reached = label_sets.f1_micro(present, shares >= best)
    for other in np.linspace(-0.01, 1.01, 40):
        assert label_sets.f1_micro(present, shares >= other) <= reached + 1e-12
    assert 0 <= best <= 1 and (best == label_sets.MIDDLE or present.any())
