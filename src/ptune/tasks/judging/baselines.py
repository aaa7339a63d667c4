"""What a user would get without prompts on the same rows: the majority of the data, TF-IDF with
logistic regression, and a linear probe on the LM's vectors. Each is a second's work by
scikit-learn, and stands beside every figure of a method."""

import inspect
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ptune.errors import TemplateError
from ptune.lm.language_model import LanguageModel
from ptune.metrics import label_sets as metrics
from ptune.metrics.labels import BASELINES, MAJORITY, TFIDF, labelled, mean, most_frequent
from ptune.tasks.judging import judge_label_sets
from ptune.tasks.rows.few_shot import Row
from ptune.tasks.schema import AUTO
from ptune.template.language import Template

MOST_ROWS = 2000  # rows that a baseline learns from at most
ROWS_AT_ONCE = 16
FOLDS = 3
Figures = dict[str, float]


@dataclass(frozen=True)
class Question:
    """Rows to learn from and rows that are scored.

    Attributes:
        labels: all labels, which all rows share.
        training_labels: those of all rows that there are to learn from, of which ``train`` may be a
            few.
        inputs: a template of the fields that are read, without a mask.
        max_length: tokens of an input at most; the LM's own limit by default.
        multi_label: rows may have several labels; label_separator: what stands between those.
    """

    train: Sequence[Row]
    test: Sequence[Row]
    labels: Sequence[str]
    training_labels: Sequence[str]
    inputs: Template
    target: str
    metrics: Sequence[str]
    max_length: int | None = None
    multi_label: bool = False
    label_separator: str | None = None

    def present(self, rows: Sequence[Row]) -> np.ndarray:
        """Whether each row has each label [N, C], where it may have several."""
        return judge_label_sets.present(rows, self.target, self.labels, self.label_separator)


def figures(
    question: Question, lm: LanguageModel, names: Sequence[str] = tuple(BASELINES)
) -> dict[str, Figures]:
    """The figures of baselines on the test rows, each by its name.

    A baseline that learns takes the training rows alone, as a method does; of more than
    ``MOST_ROWS`` it takes so many, drawn at random. Where the rows have one label only, or no
    words, or one does not fit into the LM, it is left out.
    """
    computed = {}
    for name in names:
        if name == MAJORITY:
            computed[name] = majority(question)
        elif (scores := _learned(question, lm, name)) is not None:
            computed[name] = scores
    return computed


def majority(question: Question) -> Figures:
    """Always the label that is the most frequent of all rows that there are to learn from; of
    equally frequent ones the mean of their figures. Where a row may have several, those labels that
    at least half of the rows have."""
    if question.multi_label:
        shares = question.present(question.train).mean(0)
        return _scored(question, np.tile(shares, (len(question.test), 1)))
    constants = [
        _scored(
            question,
            np.array([[float(name == label) for name in question.labels]] * len(question.test)),
        )
        for label in most_frequent(question.training_labels)
    ]
    return {name: mean([scores[name] for scores in constants]) for name in constants[0]}


def _learned(question: Question, lm: LanguageModel, name: str) -> Figures | None:
    """The figures of a baseline that learns; None where it cannot."""
    values = shares(question, lm, name)
    return None if values is None else _scored(question, values)


def shares(question: Question, lm: LanguageModel, name: str) -> np.ndarray | None:
    """The labels' probabilities of the test rows [rows, labels] by a baseline that learns; None
    where the rows to learn from have one label only, or no words, or do not fit into the LM."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    rows = list(question.train)
    if len(rows) > MOST_ROWS:
        rows = random.Random("baselines").sample(rows, MOST_ROWS)
    right: Any = [str(row[question.target]) for row in rows]
    if question.multi_label:
        right = question.present(rows)
    if len(np.unique(right, axis=0)) < 2:
        return None
    try:
        if name == TFIDF:
            first, second = _tf_idf(question, rows)
            model = LogisticRegression(max_iter=1000)
        else:
            first, second = (
                vectors(lm, question.inputs, split_rows, question.max_length)
                for split_rows in (rows, question.test)
            )
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    except (_NoWords, TemplateError):
        return None
    if question.multi_label:
        return _one_against_the_rest(model, first, right, second)
    with threadpool_limits(1, "blas"):  # several threads wait for each other on busy cores
        model.fit(first, right)
    values = np.zeros((len(question.test), len(question.labels)))
    columns = [list(question.labels).index(label) for label in model.classes_]
    values[:, columns] = model.predict_proba(second)
    return values


def _one_against_the_rest(model: Any, first: Any, right: np.ndarray, second: Any) -> np.ndarray:
    """The probability of each label [N, C] by a regression for each. They are moved so that the
    threshold with the best f1-micro on the rows to learn from, each held out once, lies at a half.

    Args:
        first, second: the rows to learn from and the others, as the model takes them.
        right: whether each row has each label.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import cross_val_predict
    from sklearn.multiclass import OneVsRestClassifier
    from threadpoolctl import threadpool_limits

    model, threshold = OneVsRestClassifier(model), metrics.MIDDLE
    with warnings.catch_warnings(), threadpool_limits(1, "blas"):
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        if len(right) >= FOLDS:
            held_out = cross_val_predict(model, first, right, cv=FOLDS, method="predict_proba")
            threshold = metrics.best_threshold(right, held_out)
        values = model.fit(first, right).predict_proba(second)
    odds = values * (1 - threshold) / np.clip((1 - values) * threshold, 1e-12, None)
    moved: np.ndarray = odds / (1 + odds)
    return moved


class _NoWords(Exception):
    """The rows to learn from hold no word."""


def _tf_idf(question: Question, rows: Sequence[Row]) -> tuple[Any, Any]:
    """The words of rows to learn from and of the test rows, weighed by how rare they are."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b")
    texts = [
        [" ".join(question.inputs.texts(row).values()) for row in split_rows]
        for split_rows in (rows, question.test)
    ]
    try:
        return vectorizer.fit_transform(texts[0]), vectorizer.transform(texts[1])
    except ValueError as error:
        raise _NoWords from error


@torch.no_grad()
def vectors(
    lm: LanguageModel, inputs: Template, rows: Sequence[Row], max_length: int | None = None
) -> np.ndarray:
    """The mean of the last hidden vectors of every row's tokens [B, H], of an encoder-decoder those
    of its encoder.

    Raises:
        TemplateError: a row does not fit.
    """
    network = lm.model.get_encoder() if lm.kind == "encoder-decoder" else lm.model.base_model
    takes_types = "token_type_ids" in inspect.signature(network.forward).parameters
    limits = [limit for limit in (max_length, lm.max_length) if limit]
    encoded = [
        inputs.encode(
            row,
            lm.tokens,
            lm.kind,
            max_length=min(limits, default=None),
            answer=(None,),
            start=lm.start,
        )
        for row in rows
    ]
    order = sorted(range(len(rows)), key=lambda number: len(encoded[number].ids))
    pooled: dict[int, torch.Tensor] = {}
    with lm.evaluating():
        for first in range(0, len(order), ROWS_AT_ONCE):
            batch = order[first : first + ROWS_AT_ONCE]
            lengths = [len(encoded[number].ids) for number in batch]
            width = max(lengths)
            given = {
                "input_ids": [
                    [*encoded[number].ids, *[lm.tokens.pad] * (width - length)]
                    for number, length in zip(batch, lengths)
                ],
                "attention_mask": [[1] * length + [0] * (width - length) for length in lengths],
            }
            if takes_types and encoded[batch[0]].types is not None:
                given["token_type_ids"] = [
                    [*(encoded[number].types or ()), *[0] * (width - length)]
                    for number, length in zip(batch, lengths)
                ]
            tensors = {
                name: torch.tensor(values, device=lm.device) for name, values in given.items()
            }
            hidden = network(**tensors).last_hidden_state.float()
            mask = tensors["attention_mask"][..., None]
            pooled |= zip(batch, ((hidden * mask).sum(1) / mask.sum(1)).cpu())
    return torch.stack([pooled[number] for number in range(len(rows))]).numpy()


def _scored(question: Question, shares: np.ndarray) -> Figures:
    """The figures of answers: of each row the label with the largest share, or of several those
    with a share of at least a half."""
    if question.multi_label:
        right = question.present(question.test)
        predicted = shares >= metrics.MIDDLE
        return metrics.figures(
            question.metrics, question.labels, present=right, predicted=predicted, shares=shares
        )
    answers = [question.labels[number] for number in shares.argmax(1)]
    return labelled(
        question.metrics,
        question.test,
        answers,
        question.target,
        labels=question.labels,
        shares=shares.tolist(),
    )


def behind(figure: float, baselines: Mapping[str, float]) -> tuple[str, float] | None:
    """The baseline that is the furthest ahead of a figure, with its own; None where none is.

    Args:
        baselines: the same figure of each.
    """
    best = max(baselines, key=lambda name: baselines[name], default=None)
    return (best, baselines[best]) if best is not None and baselines[best] > figure else None


def advice(method: str, multi_label: bool = False) -> str:
    """What to try where a baseline is ahead of a method, as the end of a sentence."""
    if multi_label:
        return "try another method (ptune methods), or a sentence encoder as the LM (--lm)"
    if method == AUTO:
        return "give it more time (--minutes), or take a sentence encoder as the LM (--lm)"
    return "try --method auto"
