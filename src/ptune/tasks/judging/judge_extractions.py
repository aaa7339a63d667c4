"""Rows whose answer is a part of one of their texts: how good the answers are."""

from collections.abc import Sequence

import numpy as np

from ptune.metrics import answers as metrics
from ptune.metrics import intervals
from ptune.model.prompt_model import PromptModel, Row
from ptune.model.rows.examples import Shortening
from ptune.model.running.token_answers import extraction_of, predictions
from ptune.tasks.judging.label_details import LabelDetails


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
        names: of the metrics; all by default.
        shortening: counts the rows that are shortened.
        details: its intervals are filled.

    Raises:
        ConfigError: there is no such metric.
        DataError, TemplateError: a row does not fit; the message gives its number.
    """
    names = names or metrics.DEFAULT
    metrics.check(names)
    extraction, target = extraction_of(model, 0), model.tasks[0].task.target
    predicted = predictions(model, rows, shortening)
    right = [
        [extraction.text(row)[begin:end] for begin, end in extraction.right(row, target)]
        for row in rows
    ]
    figures = {}
    for name in names:
        of_rows = np.array(metrics.of_rows(name, right, predicted))
        figures[name] = float(of_rows.mean())
        if details is not None and (ends := intervals.of_mean(of_rows)):
            details.intervals[name] = ends
    return figures
