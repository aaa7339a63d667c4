"""Rows with none, one or several labels: what is wrong with them, and how good the answers are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ptune.data.row import label_names, place_of
from ptune.errors import DataError
from ptune.metrics import label_sets as metrics
from ptune.model.prompt_model import PromptModel
from ptune.model.rows.examples import Shortening
from ptune.model.running.label_sets import present_in
from ptune.survey.findings import likest_label

Row = Mapping[str, Any]


def faults_of(
    rows: Sequence[Row], labels: Sequence[str], target: str, separator: str | None
) -> list[str]:
    """What is wrong with the labels of rows that may have several."""
    known, faults = set(labels), []
    for number, row in enumerate(rows, 1):
        try:
            names = label_names(row[target], separator)
        except DataError as error:
            faults.append(f"{place_of(row, number)}: the field {target!r}: {error}")
            continue
        if unknown := [name for name in names if name not in known]:
            hint = likest_label(unknown[0], labels)
            if separator is None and isinstance(row[target], str):
                hint += (
                    " If the cell holds several labels, data: {label_separator: ...} says what "
                    "stands between them."
                )
            faults.append(
                f"{place_of(row, number)}: of its labels, in the field {target!r}, the task does "
                f"not have {unknown[0]!r:.60}. {hint}"
            )
    return faults


def names_in(row: Row, target: str, separator: str | None) -> list[str]:
    """The labels of a row that may have several; none where they cannot be read."""
    try:
        return label_names(row[target], separator)
    except DataError:
        return []


def present(
    rows: Sequence[Row], target: str, labels: Sequence[str], separator: str | None
) -> np.ndarray:
    """Whether each row has each label [N, C]."""
    sets = [label_names(row[target], separator) for row in rows]
    return np.array([[label in names for label in labels] for names in sets], bool).reshape(
        len(rows), len(labels)
    )


def judge(
    model: PromptModel,
    rows: Sequence[Row],
    names: Sequence[str],
    shortening: Shortening | None = None,
) -> dict[str, float]:
    """Figures over rows, each answered by the prompt that takes it, at that prompt's threshold.

    Args:
        names: of the metrics; some by default.
        shortening: counts the rows that are shortened.

    Raises:
        ConfigError: a metric cannot be computed, or several prompts would answer a row together.
        DataError, TemplateError, VerbalizerError: a row does not fit; the message gives its number.
    """
    encoded = [model.encode_for(row, number) for number, row in enumerate(rows, 1)]
    for examples in encoded:
        if shortening is not None:
            shortening.count(examples)
    examples = [example for examples_of_row in encoded for example in examples_of_row]
    labels = examples[0].labels.labels
    names, right = names or metrics.DEFAULT, present_in(examples)
    metrics.check(names, labels, right)
    scores = iter(model.scores(examples))
    answers = [model.answer(row, [next(scores) for _ in row]) for row in encoded]
    shares = np.array([[answer["scores"][label] for label in labels] for answer in answers])
    predicted = np.array(
        [[label in answer["prediction"] for label in labels] for answer in answers]
    )
    return metrics.figures(names, labels, present=right, predicted=predicted, shares=shares)
