"""How far the probabilities of answers are from the truth: the Brier score, and the expected
calibration error. Of both less is better."""

from collections.abc import Sequence

import numpy as np

BRIER, ECE = "brier", "ece"
TRUST = (BRIER, ECE)
PARTS = 10


def squared_distances(shares: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Half of the squared distance between the labels' probabilities of each row and the truth [N],
    from 0 to 1; its mean is the Brier score, of two labels as it is usually given.

    Args:
        shares: [N, C].
        right: the number of each row's right label [N]; -1 where it is none of them.
    """
    truth = (right[:, None] == np.arange(shares.shape[1])).astype(float)
    return ((shares - truth) ** 2).sum(1) / 2


def calibration_error(probabilities: np.ndarray, is_right: np.ndarray) -> float:
    """The expected calibration error (Naeini et al. 2015): rows are parted by the probability of
    their answer into tenths, and the distances between a part's mean probability and its share of
    right answers are averaged, each weighted by its rows.

    Args:
        probabilities: of the answer of each row [N].
        is_right: whether that answer is right [N].
    """
    parts = tenths(probabilities)
    differences = np.bincount(parts, probabilities - is_right, minlength=PARTS)
    return float(np.abs(differences).sum() / len(probabilities))


def tenths(probabilities: np.ndarray) -> np.ndarray:
    """The tenth in which each probability lies, from 0 to 9; 1 lies in the last."""
    return np.minimum((probabilities * PARTS).astype(int), PARTS - 1)


def best_shares(shares: Sequence[Sequence[float]]) -> np.ndarray:
    """The largest probability of each row, which is its answer's [N]."""
    return np.array([max(values) for values in shares])
