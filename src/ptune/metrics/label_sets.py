"""Figures over rows that have none, one or several labels, by scikit-learn, and the threshold from
which a row has a label."""

from collections.abc import Sequence

import numpy as np

from ptune.errors import ConfigError, nearest

FIGURES = ("f1-micro", "f1-macro", "f1-samples", "subset-accuracy", "hamming-score")
OF_A_LABEL = ("f1", "precision", "recall", "auc")  # "f1:noise" names the label
DEFAULT = ("f1-micro", "f1-macro", "subset-accuracy")
MIDDLE = 0.5  # the threshold where there are no rows to choose one by


def check(names: Sequence[str], labels: Sequence[str], present: np.ndarray) -> None:
    """Refuse metrics that cannot be computed.

    Args:
        names: such as "f1-micro" or "f1:noise".
        labels: all labels, C.
        present: whether each row that will be scored has each label [N, C]; without rows, names and
            labels alone are looked at.

    Raises:
        ConfigError: a metric is unknown, or of a label that is not there, or compares rows of a
            label with others where there are none of one kind.
    """
    for text in names:
        name, colon, label = text.partition(":")
        if name not in (OF_A_LABEL if colon else FIGURES):
            known = [*FIGURES, *(f"{name}:{labels[0]}" for name in OF_A_LABEL)]
            raise ConfigError(
                f"There is no metric {text!r} of rows with several labels. "
                f"{nearest(text, known)} There are {', '.join(known)}."
            )
        if colon and label not in labels:
            raise ConfigError(
                f"The metric {text!r} is of a label that is not there. {nearest(label, labels)}"
            )
        if name == "auc" and len(present):
            rows = int(present[:, list(labels).index(label)].sum())
            if rows in (0, len(present)):
                share = "all" if rows else "none"
                raise ConfigError(
                    f"The metric {text!r} compares rows of a label with others, and {share} of the "
                    f"{len(present)} rows have it."
                )


def figures(
    names: Sequence[str],
    labels: Sequence[str],
    *,
    present: np.ndarray,
    predicted: np.ndarray,
    shares: np.ndarray,
) -> dict[str, float]:
    """Figures over N rows and C labels, from 0 to 1; higher is better.

    - "f1-micro": the F1 of all decisions together; "f1-macro": the mean of the labels' F1;
      "f1-samples": the mean of the rows' F1; 1 of a row that has no label and gets none, where
      scikit-learn has 0 by default.
    - "subset-accuracy": the share of rows whose labels are all right, and none too many.
    - "hamming-score": the share of the N x C decisions that are right, which is one minus the
      Hamming loss.
    - "f1", "precision", "recall", "auc" of a label, which is named behind a colon.

    Args:
        present, predicted: whether a row has a label, and whether it was said to [N, C].
        shares: the probability of each label [N, C].
    """
    return {
        name: _figure(
            name, list(labels), present=present, predicted=predicted, shares=np.asarray(shares)
        )
        for name in names
    }


def _figure(
    text: str, labels: list[str], *, present: np.ndarray, predicted: np.ndarray, shares: np.ndarray
) -> float:
    from sklearn import metrics

    name, _, label = text.partition(":")
    if label:
        column = labels.index(label)
        if name == "auc":
            return float(metrics.roc_auc_score(present[:, column], shares[:, column]))
        score = getattr(metrics, {"f1": "f1_score"}.get(name, f"{name}_score"))
        return float(score(present[:, column], predicted[:, column], zero_division=0))
    if name == "subset-accuracy":
        return float(metrics.accuracy_score(present, predicted))
    if name == "hamming-score":
        return 1 - float(metrics.hamming_loss(present, predicted))
    average = name.removeprefix("f1-")
    of_nothing = 1 if average == "samples" else 0
    return float(metrics.f1_score(present, predicted, average=average, zero_division=of_nothing))


def f1_micro(present: np.ndarray, predicted: np.ndarray) -> float:
    """The F1 of all decisions together, 0 where there are neither right nor predicted ones."""
    hits = int((present & predicted).sum())
    return 2 * hits / max(1, int(present.sum()) + int(predicted.sum()))


def best_threshold(present: np.ndarray, shares: np.ndarray) -> float:
    """The threshold of the probabilities with the best F1 of all decisions together, in the middle
    between two probabilities that occur; of equally good ones the one nearest to 0.5.

    Args:
        present: whether a row has a label [N, C].
        shares: the probability of each label [N, C].
    """
    order = np.argsort(-shares, axis=None, kind="stable")
    sorted_shares, is_right = shares.ravel()[order], present.ravel()[order]
    if not is_right.any():
        return MIDDLE
    hits, counts = np.cumsum(is_right), np.arange(1, len(order) + 1)
    f1 = 2 * hits / (counts + is_right.sum())
    f1[:-1][sorted_shares[:-1] == sorted_shares[1:]] = -1.0  # equal ones lie on one side
    middles = (sorted_shares + np.append(sorted_shares[1:], 0.0)) / 2
    best = np.flatnonzero(f1 == f1.max())
    return float(min(middles[best], key=lambda threshold: abs(threshold - MIDDLE)))
