"""Figures over ranked answers, and over labels as SuperGLUE counts them."""

import operator
import re
import string
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ptune.errors import ConfigError, DataError, DivergedError, nearest
from ptune.metrics import trust

MAJORITY, TFIDF, PROBE = "majority", "tf-idf", "linear-probe"  # what a user gets without prompts
BASELINES = {
    MAJORITY: "Majority",
    TFIDF: "TF-IDF, logistic regression",
    PROBE: "Linear probe on the LM",
}
FREQUENT = "most-frequent-label"  # the same where words have labels
BASELINES_OF_WORDS = {
    FREQUENT: "Each word's most frequent label",
    PROBE: BASELINES[PROBE],
}

LABELLED = (
    "accuracy",
    "f1",
    "precision",
    "recall",
    "f1-macro",
    "f1-weighted",
    "mcc",
    "auc",
    "f1a",
    "em",
    "record-em",
    "record-f1",
    "gender-parity",
    *trust.TRUST,
)
OF_PROBABILITIES = ("auc", *trust.TRUST)  # metrics that read the labels' shares
OF_A_LABEL = ("f1", "precision", "recall", "auc")  # "f1:good" names the label
POSITIVE = (
    ("true", "false"),
    ("1", "0"),
)  # the label that those are of where none is named, and the other
FIELDS = {
    "em": "group",
    "record-em": "answers",
    "record-f1": "answers",
    "gender-parity": "pair",
}  # what a metric reads of a row beside its label


def rank(scores: torch.Tensor, label: int, without: Collection[int] = ()) -> int:
    """The place of a label among all, best first, beginning at 1; labels of an equal score all come
    before it, so that scores that tell nothing apart never count as right.

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
    return {
        "p@1": sum(r <= 1 for r in ranks) / count,
        "p@10": sum(r <= 10 for r in ranks) / count,
        "mrr": sum(1 / r for r in ranks) / count,
    }


def mean(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    return sum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """The standard deviation over runs (of a sample, n - 1); 0 for a single run."""
    middle = mean(values)
    return (
        (sum((value - middle) ** 2 for value in values) / (len(values) - 1)) ** 0.5
        if len(values) > 1
        else 0.0
    )


def most_frequent(answers: Iterable[Any]) -> list[str]:
    """The most frequent of some answers, in the order in which they come; several where they are
    equally frequent."""
    counts = Counter(map(str, answers))
    return [answer for answer, count in counts.items() if count == max(counts.values())]


def labelled(
    names: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    predictions: Sequence[str],
    target: str = "label",
    *,
    labels: Sequence[str] = (),
    shares: Sequence[Sequence[float]] = (),
) -> dict[str, float]:
    """Figures over rows with right answers, by scikit-learn or as SuperGLUE (Wang et al. 2019)
    counts them; higher is better but for "brier" and "ece", and all are from 0 to 1 but for "mcc",
    which is from -1.

    - "accuracy": the share of rows answered rightly.
    - "f1", "precision", "recall": of one label, which is named behind a colon, "f1:good"; of two
      labels that are true and false, or 1 and 0, it is the first unless another is named.
    - "f1-macro", "f1-weighted": the mean over labels of their F1, or weighted by their rows; the
      labels are those that occur among the right ones or the predictions.
    - "mcc": Matthews' correlation coefficient, 0 where the predictions or the right labels are all
      the same.
    - "auc": the area under the ROC curve; of more than two labels the mean of each against the
      rest, or of the named one.
    - "f1a": the F1 of "true" over all rows, whatever question they belong to (MultiRC).
    - "em": the share of questions, rows of one ``group``, that are answered rightly in every row
      (MultiRC).
    - "record-em", "record-f1": the best exact match, and the best F1 of words, with one of the
      row's ``answers``, texts or a single one, mean over rows (ReCoRD). Lower case, without ASCII
      punctuation and the articles, as SQuAD's script compares texts (Rajpurkar et al. 2016).
    - "gender-parity": the share of pairs, two rows of one ``pair`` which differ in the gender of a
      pronoun alone, that get the same answer, right or wrong (AX-g); a row without its other half
      is left out.
    - "brier": half of the squared distance between the labels' probabilities and the truth (Brier
      1950), mean over rows; less is better.
    - "ece": the expected calibration error, how far the probabilities of the answers are from the
      shares of them that are right, by tenths (Naeini et al. 2015); less is better.

    Args:
        names: of ``LABELLED``, each with its label where it is of one.
        predictions: one for each row: labels; texts for ReCoRD's figures.
        target: the field with the right label.
        labels: all labels, in the order of the shares; those of the rows by default.
        shares: for "auc", "brier" and "ece": each row's share of every label [N, C].

    Raises:
        ConfigError: a metric is unknown or cannot be computed on these labels, there are no rows,
            or another number of predictions than of rows.
        DataError: a row lacks a field that a metric needs, or has a value of another kind there;
            its number is told.
    """
    check(names, rows, target, labels)
    if not rows or len(rows) != len(predictions):
        raise ConfigError(
            f"A prediction for each row is expected, and there are {len(predictions)} for "
            f"{len(rows)} rows."
        )
    reads_shares = [name for name in names if name.partition(":")[0] in OF_PROBABILITIES]
    if reads_shares and len(shares) != len(rows):
        raise ConfigError(
            f"The metric {reads_shares[0]} takes the labels' shares of each row, and there are "
            "none."
        )
    return {
        name: _figure(name, rows, predictions, target, labels=labels, shares=shares)
        for name in names
    }


def check(
    names: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    target: str = "label",
    labels: Sequence[str] = (),
) -> None:
    """Refuse metrics that cannot be computed on rows of these labels.

    Args:
        rows: that will be scored; without any, names and labels alone are looked at.
        labels: all that the task has; those of the rows by default, as where every row brings its
            own choices.

    Raises:
        ConfigError: a metric is unknown, or of a label that is not there or not named.
        DataError: a row lacks a field that a metric needs, or has a value of another kind there;
            its number is told.
    """
    known = list(labels) or list(dict.fromkeys(str(row[target]) for row in rows if target in row))
    for text in names:
        name, label = _of_label(text, known)
        compared = _compared(rows, name) if name in FIELDS else []
        if name == "gender-parity" and rows and not parities(compared, [""] * len(rows)):
            raise DataError(
                "gender-parity compares two rows that have the same value in the field 'pair', and "
                "there are none such."
            )
        if name.startswith("record-"):
            continue
        true_labels = [str(label_value) for label_value in _column(rows, target)]
        if name in OF_PROBABILITIES and not labels:
            raise ConfigError(
                f"The metric {name} compares labels that all rows share, and here every row brings "
                "its own answers."
            )
        positives = [label] if label else known
        if (
            name == "auc"
            and rows
            and (
                constant_label := next(
                    (
                        positive
                        for positive in positives
                        if not 0 < true_labels.count(positive) < len(true_labels)
                    ),
                    None,
                )
            )
        ):
            share = "all" if constant_label in true_labels else "none"
            raise ConfigError(
                f"The metric auc compares rows of a label with others, and {share} of the "
                f"{len(rows)} rows have the label {constant_label!r}."
            )


def check_first(names: Sequence[str]) -> None:
    """Refuse metrics whose first one, by which methods are compared, is better where it is less.

    Raises:
        ConfigError: it is.
    """
    if names and names[0] in trust.TRUST:
        raise ConfigError(
            f"The first metric is the one by which methods are compared, and {names[0]} speaks of "
            f"probabilities, not of answers: write another before it, such as accuracy, {names[0]}."
        )


def _of_label(text: str, labels: Sequence[str]) -> tuple[str, str | None]:
    """A metric's name, and the label that it is of, if it is of one."""
    name, colon, label = text.partition(":")
    if name not in LABELLED:
        raise ConfigError(
            f"There is no metric {text!r} of labelled rows. {nearest(name, LABELLED)}"
        )
    if colon and name not in OF_A_LABEL:
        raise ConfigError(
            f"The metric {name} is of all labels together, so none is named behind it: it is "
            f"{text!r}."
        )
    if colon and label not in labels:
        raise ConfigError(
            f"The metric {text!r} is of a label that is not there. {nearest(label, labels)}"
        )
    if name == "f1a" and "true" not in labels:
        raise ConfigError(
            "The metric f1a is MultiRC's, of the labels true and false, and the labels are "
            f"{', '.join(labels)}: "
            f"take f1 of one of them, such as f1:{(*labels, 'LABEL')[0]}."
        )
    if colon or name not in OF_A_LABEL or name == "auc":
        return name, label or None
    positive = next(
        (pair[0] for pair in POSITIVE if set(labels) <= set(pair) and pair[0] in labels), None
    )
    if positive is None:
        raise ConfigError(
            f"The metric {name} is of one label, which is named behind it: "
            f"{' or '.join(f'{name}:{label}' for label in labels[:3]) or f'{name}:LABEL'}."
        )
    return name, positive


def label_of_metric(text: str, labels: Sequence[str]) -> str | None:
    """The label that a metric is of, such as good of "f1:good"; None where it is of all."""
    return "true" if text == "f1a" else _of_label(text, labels)[1]


def row_figures(
    text: str,
    rows: Sequence[Mapping[str, Any]],
    predictions: Sequence[str],
    target: str = "label",
    *,
    labels: Sequence[str] = (),
    shares: Sequence[Sequence[float]] = (),
) -> list[float] | None:
    """What each row adds to a metric that is a mean over rows (of "em" over questions, of
    "gender-parity" over pairs); None where the metric is none. See ``labelled`` for the
    arguments."""
    if text == "gender-parity":
        return parities(_compared(rows, text), predictions)
    if text.startswith("record-"):
        likeness = _word_f1 if text == "record-f1" else operator.eq
        pairs = zip(_compared(rows, text), predictions)
        return [
            float(max(likeness(_words(prediction), _words(answer)) for answer in answers))
            for answers, prediction in pairs
        ]
    true_labels = [str(label) for label in _column(rows, target)]
    hits = [label == prediction for label, prediction in zip(true_labels, predictions)]
    if text == "accuracy":
        return list(map(float, hits))
    if text == "em":
        by_group: dict[Any, bool] = {}
        for group, is_right in zip(_compared(rows, text), hits):
            by_group[group] = by_group.get(group, True) and is_right
        return list(map(float, by_group.values()))
    if text == trust.BRIER:
        numbers = {label: number for number, label in enumerate(labels)}
        right = np.array([numbers.get(label, -1) for label in true_labels])
        return trust.squared_distances(np.array(shares), right).tolist()
    return None


def parities(pairs: Sequence[Any], predictions: Sequence[str]) -> list[float]:
    """For each pair of rows whether its two predictions agree; nothing for a row whose other half
    is not there.

    Args:
        pairs: the pair of each row.
    """
    by_pair: dict[Any, list[str]] = {}
    for pair, prediction in zip(pairs, predictions, strict=True):
        by_pair.setdefault(pair, []).append(prediction)
    return [float(two[0] == two[1]) for two in by_pair.values() if len(two) == 2]


def _figure(
    text: str,
    rows: Sequence[Mapping[str, Any]],
    predictions: Sequence[str],
    target: str,
    *,
    labels: Sequence[str],
    shares: Sequence[Sequence[float]],
) -> float:
    figures_of_rows = row_figures(text, rows, predictions, target, labels=labels, shares=shares)
    if figures_of_rows is not None:
        return mean(figures_of_rows)
    name = text.partition(":")[0]
    true_labels = [str(label) for label in _column(rows, target)]
    predicted_labels = list(predictions)
    if name == trust.ECE:
        hits = [label == prediction for label, prediction in zip(true_labels, predicted_labels)]
        return trust.calibration_error(trust.best_shares(shares), np.array(hits))
    from sklearn import metrics

    if name in ("f1-macro", "f1-weighted"):
        return float(
            metrics.f1_score(
                true_labels, predicted_labels, average=name.removeprefix("f1-"), zero_division=0
            )
        )
    if name == "mcc":
        return (
            float(metrics.matthews_corrcoef(true_labels, predicted_labels))
            if len({*true_labels, *predicted_labels}) > 1
            else 0.0
        )
    known = list(labels) or list(dict.fromkeys(true_labels))
    label = label_of_metric(text, known)
    if name == "auc":
        positives = [label] if label else known[:1] if len(known) == 2 else known
        return mean([_auc(true_labels, known, shares, positive) for positive in positives])
    scorer = {"precision": metrics.precision_score, "recall": metrics.recall_score}.get(
        name, metrics.f1_score
    )
    return float(
        scorer(
            [value == label for value in true_labels],
            [value == label for value in predicted_labels],
            zero_division=0,
        )
    )


def _auc(
    true_labels: Sequence[str], labels: Sequence[str], shares: Sequence[Sequence[float]], label: str
) -> float:
    from sklearn.metrics import roc_auc_score

    column = list(labels).index(label)
    return float(
        roc_auc_score(
            [value == label for value in true_labels], [float(value[column]) for value in shares]
        )
    )


def _compared(rows: Sequence[Mapping[str, Any]], metric: str) -> list[Any]:
    """What a metric reads of each row beside its label; of ``answers`` a list of texts.

    Raises:
        DataError: a row lacks it, or has a value of another kind.
    """
    name, has_texts = FIELDS[metric], metric.startswith("record-")
    expected, is_right = (
        ("a text or a list of texts", _are_texts)
        if has_texts
        else ("a text or a number", _is_plain)
    )
    values = _column(rows, name)
    for number, (row, value) in enumerate(zip(rows, values), 1):
        if not is_right(value):
            raise DataError(
                f"{_place(row, number)}, field {name!r}: {expected} is expected, which the metric "
                f"{metric} compares, and it is {repr(value)[:60]}."
            )
    return [[value] if has_texts and isinstance(value, str) else value for value in values]


def _are_texts(value: Any) -> bool:
    texts = [value] if isinstance(value, str) else value
    return isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts)


def _is_plain(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _place(row: Mapping[str, Any], number: int) -> str:
    return getattr(row, "place", f"Row {number}")


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    for number, row in enumerate(rows, 1):
        place = _place(row, number)
        if name not in row:
            raise DataError(
                f"{place} has no field {name!r}, which the metric needs. {_fields(name, row)}"
            )
        if row[name] in (None, "", []):
            raise DataError(f"{place} has nothing in {name!r}, which the metric needs.")
    return [row[name] for row in rows]


def _fields(name: str, row: Mapping[str, Any]) -> str:
    """The field of a row that may be meant, and all that it has."""
    hint, listed = nearest(name, row), ", ".join(map(repr, row))
    return f"{hint} Its fields: {listed}." if hint.startswith("Did you mean") else hint


def _word_f1(words: list[str], right: list[str]) -> float:
    shared = (Counter(words) & Counter(right)).total()
    return 2 * shared / (len(words) + len(right)) if shared else 0.0


def _words(text: str) -> list[str]:
    return re.sub(
        r"\b(a|an|the)\b", " ", text.lower().translate(str.maketrans("", "", string.punctuation))
    ).split()
