"""Temperatures and sets of labels, beside plain references."""

import numpy as np
import pytest
import torch

from ptune.answers.confidence import LARGEST, LEAST, Confidence, rows_for


def drawn(rows, temperature, seed=0, labels=4):
    """Probabilities that are wrong by a temperature, and labels as the true ones have them."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, (rows, labels))
    true = torch.tensor(logits).softmax(1).numpy()
    right = [int(generator.choice(labels, p=values)) for values in true]
    return torch.tensor(logits * temperature).softmax(1).float(), right


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_has_the_least_loss_and_finds_what_was_planted(temperature):
    shares, right = drawn(1000, temperature)
    fitted = Confidence.fitted(shares, right)
    grid = np.exp(np.linspace(-2, 2, 201))
    losses = [
        torch.nn.functional.cross_entropy(shares.double().log() / step, torch.tensor(right))
        for step in grid
    ]
    assert fitted.temperature == pytest.approx(grid[int(np.argmin(losses))], rel=0.02)
    assert fitted.temperature == pytest.approx(temperature, rel=0.15)
    corrected = fitted.corrected(shares)
    assert torch.allclose(corrected, (shares.log() / fitted.temperature).softmax(1), atol=1e-6)
    assert torch.equal(corrected.argmax(1), shares.argmax(1))
    right_shares = corrected[torch.arange(len(right)), torch.tensor(right)]
    assert fitted.nonconformity == tuple(sorted((1 - right_shares).tolist()))


def test_no_temperature_is_fitted_where_rows_say_nothing_about_it():
    shares = torch.tensor([[0.9, 0.1]] * LEAST)
    assert Confidence.fitted(shares, [0] * LEAST).temperature == 1
    mixed = [1, *[0] * (LEAST - 1)]
    assert Confidence.fitted(shares[1:], mixed[:-1]).temperature == 1
    assert Confidence.fitted(shares, mixed, scaled=False).temperature == 1
    assert Confidence.fitted(shares, mixed).temperature == pytest.approx(1, abs=0.01)
    wrong = Confidence.fitted(torch.tensor([[1.0, 0.0]] * LEAST), mixed)
    assert 1 < wrong.temperature <= LARGEST and wrong.corrected(shares).isfinite().all()


@pytest.mark.parametrize("coverage", [0.6, 0.9])
def test_a_set_holds_the_right_label_as_often_as_is_asked(coverage):
    """Of 1,000 draws of exchangeable rows, 30 to keep and one to answer."""
    generator, hits = np.random.default_rng(0), []
    shares, right = drawn(3000, 2.0)
    for _ in range(1000):
        *known, asked = generator.choice(3000, 31, replace=False)
        kept = Confidence.fitted(shares[known], [right[n] for n in known], scaled=False)
        hits.append(right[asked] in kept.label_set(shares[asked].tolist(), coverage))
    error = (coverage * (1 - coverage) / 1000) ** 0.5
    assert np.mean(hits) > coverage - 3 * error
    assert coverage == 0.6 or np.mean(hits) < coverage + 1 / 31 + 3 * error


def test_rows_that_were_counted_are_covered_where_all_of_them_tie():
    for share in torch.linspace(0.01, 0.49, 40).tolist():
        shares = torch.tensor([[share, 0.9 - 0.9 * share, 0.1 - 0.1 * share]] * 30)
        kept = Confidence.fitted(shares, [0] * 30, scaled=False)
        assert 0 in kept.label_set(shares[0].tolist(), 0.9)
        assert 0 in kept.label_set([shares[0, 0].item() - 1e-7, 0.9, 0.1], 0.9)


def test_a_set_is_never_empty_and_whole_where_rows_are_too_few():
    kept = Confidence(nonconformity=(0.1, 0.2, 0.3, 0.4))
    assert kept.label_set([0.2, 0.5, 0.3], 0.5) == [1]
    assert kept.label_set([0.2, 0.7, 0.1], 0.8) == [1]
    assert kept.label_set([0.05, 0.6, 0.35], 0.81) == [1, 2, 0]
    assert Confidence().label_set([0.4, 0.6], 0.1) == [1, 0]
    assert (rows_for(0.8), rows_for(0.9), rows_for(0.95), rows_for(0.5)) == (4, 9, 19, 1)
    for coverage in (0.5, 0.8, 0.9, 0.95):
        enough = Confidence(nonconformity=(0.0,) * rows_for(coverage))
        few = Confidence(nonconformity=(0.0,) * (rows_for(coverage) - 1))
        assert enough.label_set([0.9, 0.1], coverage) == [0]
        assert few.label_set([0.9, 0.1], coverage) == [0, 1]
