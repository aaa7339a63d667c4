"""Rows whose words have a label each: what is wrong with them, and how good the answers are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ptune.answers.word_labels import WordLabels
from ptune.data.row import FileRow, place_of
from ptune.errors import PtuneError
from ptune.metrics import entities, intervals
from ptune.model.prompt_model import PromptModel
from ptune.model.rows.examples import Shortening
from ptune.model.running.token_answers import labels_of, predictions
from ptune.tasks.judging.label_details import LabelDetails

Row = Mapping[str, Any]


def faults_of(
    rows: Sequence[Row], labels: WordLabels, target: str, is_by_line: bool = False
) -> list[str]:
    """What is wrong with the words of rows and their labels.

    Args:
        is_by_line: each word stands on a line of its own.
    """
    faults = []
    for number, row in enumerate(rows, 1):
        try:
            names = labels.names(labels.right(row, target))
        except PtuneError as error:
            unknown = _unknown(row, labels, target)
            faults.append(f"{_place(row, number, unknown, is_by_line)}: {error}")
            continue
        words = labels.words(row)
        for word, fault in entities.faults(names, labels.rules):
            place = _place(row, number, word, is_by_line)
            faults.append(f"{place}: the word {words[word]!r} {fault}.")
    return faults


def _unknown(row: Row, labels: WordLabels, target: str) -> int:
    """The number of the first word whose label there is not, from 0; else that of the first."""
    names = row.get(target)
    if not isinstance(names, list | tuple):
        return 0
    return next((n for n, name in enumerate(names) if str(name) not in labels.labels), 0)


def _place(row: Row, number: int, word: int, is_by_line: bool) -> str:
    """Where a word of a row stands."""
    if is_by_line and isinstance(row, FileRow):
        return FileRow({}, row.file, row.line + word, row.split).place
    return place_of(row, number)


def metrics_of(labels: WordLabels, names: Sequence[str]) -> tuple[str, ...]:
    """The figures that are asked for, or else those of the kind of labels, the main one first."""
    return tuple(names) or (entities.DEFAULT_PLAIN if labels.rules == "plain" else entities.DEFAULT)


def judge(
    model: PromptModel,
    rows: Sequence[Row],
    names: Sequence[str],
    *,
    shortening: Shortening | None = None,
    details: LabelDetails | None = None,
) -> dict[str, float]:
    """Figures over rows, each answered by the prompt that takes it, or by all of an ensemble.

    Args:
        names: of the metrics; some by default.
        shortening: counts the rows that are shortened.
        details: its intervals are filled.

    Raises:
        ConfigError: a metric cannot be computed.
        DataError, TemplateError, VerbalizerError: a row does not fit; the message gives its number.
    """
    labels, target = labels_of(model, 0), model.tasks[0].task.target
    names = metrics_of(labels, names)
    entities.check(names, labels.labels, labels.rules)
    predicted = predictions(model, rows, shortening)
    right = [labels.names(labels.right(row, target)) for row in rows]
    if details is not None:
        for name in names:
            if ends := intervals.of_statistic(len(rows), _redrawn(name, right, predicted)):
                details.intervals[name] = ends
    return entities.figures(names, right, predicted)


def _redrawn(
    name: str, right: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> intervals.Statistic:
    """A figure as a function of the numbers of the sentences that are drawn."""
    counts = np.array([entities.counts(name, [a], [b]) for a, b in zip(right, predicted)])
    return intervals.one_by_one(lambda drawn: entities.share(name, *counts[drawn].sum(0).tolist()))
