"""The Brier score and the expected calibration error, by hand and beside scikit-learn."""

import inspect

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from ptune.errors import ConfigError
from ptune.metrics.labels import check_first, labelled


def test_the_calibration_error_by_hand():
    """Three rows in the tenth from 0.9, of which two are right, and one at 0.6 that is right."""
    rows = [{"label": label} for label in "aaba"]
    shares = [[0.9, 0.1], [0.96, 0.04], [1.0, 0.0], [0.6, 0.4]]
    by_hand = 3 / 4 * abs((0.9 + 0.96 + 1.0) / 3 - 2 / 3) + 1 / 4 * abs(0.6 - 1)
    figures = labelled(["accuracy", "ece"], rows, ["a"] * 4, labels=["a", "b"], shares=shares)
    assert figures == {"accuracy": 0.75, "ece": pytest.approx(by_hand)}


@pytest.mark.parametrize("labels", ["ab", "abc"])
def test_the_brier_score_is_that_of_scikit_learn(labels):
    generator = np.random.default_rng(0)
    shares = generator.dirichlet(np.ones(len(labels)), 20)
    right = [labels[n] for n in generator.integers(len(labels), size=20)]
    answers = [labels[n] for n in shares.argmax(1)]
    rows = [{"label": label} for label in right]
    figure = labelled(["brier"], rows, answers, labels=labels, shares=shares.tolist())["brier"]
    if len(labels) == 2:
        binary = brier_score_loss([label == "b" for label in right], shares[:, 1])
        assert figure == pytest.approx(binary)
    if "scale_by_half" in inspect.signature(brier_score_loss).parameters:
        of_all = brier_score_loss(right, shares, labels=list(labels), scale_by_half=True)
        assert figure == pytest.approx(of_all)


def test_figures_of_probabilities_are_refused_where_there_are_none_or_in_front():
    rows = [{"label": "a"}, {"label": "b"}]
    for name in ("brier", "ece"):
        with pytest.raises(ConfigError, match=f"{name} takes the labels' shares"):
            labelled([name], rows, ["a", "b"], labels="ab")
        with pytest.raises(ConfigError, match=f"{name} compares labels that all rows share"):
            labelled([name], rows, ["a", "b"], shares=[[1.0, 0.0]] * 2)
        with pytest.raises(ConfigError, match=f"such as accuracy, {name}"):
            check_first([name, "accuracy"])
        check_first(["accuracy", name])
