"""Figures over ranked answers, and over labels as SuperGLUE counts them."""
import operator
import re
import string
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from ptune.errors import ConfigError, DataError, DivergedError, nearest

LABELLED = ("accuracy", "f1-macro", "f1a", "em", "record-em", "record-f1")


def rank(scores: torch.Tensor, label: int, without: Collection[int] = ()) -> int:
    """The place of a label among all, best first, beginning at 1; labels of an equal score all come before it, so that
    scores that tell nothing apart never count as right.

    Args:
        scores: [C].
        without: labels that leave the ranking, such as other right answers.

    Raises:
        DivergedError: a score is no finite number.
    """
    if not torch.isfinite(scores).all():
        raise DivergedError("A label's score is no finite number, and such scores have no order.")
    rivals = torch.ones(len(scores), dtype=torch.bool)
    rivals[[label, *without]] = False
    return 1 + int(((scores >= scores[label]) & rivals).sum())


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


def labelled(names: Sequence[str], rows: Sequence[Mapping[str, Any]], predictions: Sequence[str], target: str = "label",
             positive: str = "true") -> dict[str, float]:
    """Figures from 0 to 1 over rows with right answers, as SuperGLUE (Wang et al. 2019) counts them; higher is better.

    - "accuracy": the share of rows answered rightly.
    - "f1-macro": the mean over labels of their F1; the labels are those that occur among the right ones or the predictions.
    - "f1a": the F1 of the positive label over all rows, whatever question they belong to (MultiRC).
    - "em": the share of questions, rows of one ``group``, that are answered rightly in every row (MultiRC).
    - "record-em", "record-f1": the best exact match, and the best F1 of words, with one of the row's ``answers``, mean over rows (ReCoRD).
      Lower case, without ASCII punctuation and the articles, as SQuAD's script compares texts (Rajpurkar et al. 2016).

    Args:
        names: of ``LABELLED``.
        predictions: one for each row: labels; texts for ReCoRD's figures.
        target: the field with the right label.
        positive: the label whose F1 is "f1a".

    Raises:
        ConfigError: an unknown metric, no rows, or another number of predictions than of rows.
        DataError: a row lacks a field that a metric needs; its number is told.
    """
    for name in names:
        if name not in LABELLED:
            raise ConfigError(f"There is no metric {name!r} of labelled rows. {nearest(name, LABELLED)}")
    if not rows or len(rows) != len(predictions):
        raise ConfigError(f"A prediction for each row is expected, and there are {len(predictions)} for {len(rows)} rows.")
    return {name: _figure(name, rows, predictions, target, positive) for name in names}


def _figure(name: str, rows: Sequence[Mapping[str, Any]], predictions: Sequence[str], target: str, positive: str) -> float:
    if name.startswith("record-"):
        likeness = _word_f1 if name == "record-f1" else operator.eq
        pairs = zip(_column(rows, "answers"), predictions)
        return mean([max(likeness(_words(own), _words(answer)) for answer in answers) for answers, own in pairs])
    right = [str(label) for label in _column(rows, target)]
    if name == "accuracy":
        return mean([wanted == own for wanted, own in zip(right, predictions)])
    if name == "em":
        wrong = {group for group, wanted, own in zip(_column(rows, "group"), right, predictions) if wanted != own}
        return 1 - len(wrong) / len({row["group"] for row in rows})
    from sklearn.metrics import f1_score
    if name == "f1-macro":
        return float(f1_score(right, list(predictions), average="macro", zero_division=0))
    return float(f1_score([wanted == positive for wanted in right], [own == positive for own in predictions], zero_division=0))


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    for number, row in enumerate(rows, 1):
        if row.get(name) in (None, "", []):
            raise DataError(f"Row {number} has no {name!r}, which the metric needs.")
    return [row[name] for row in rows]


def _word_f1(words: list[str], right: list[str]) -> float:
    shared = (Counter(words) & Counter(right)).total()
    return 2 * shared / (len(words) + len(right)) if shared else 0.0


def _words(text: str) -> list[str]:
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(str.maketrans("", "", string.punctuation))).split()
