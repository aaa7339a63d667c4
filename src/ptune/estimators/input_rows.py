"""What scikit-learn's estimators are given, as rows of fields and as texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def is_list_of(X: Any, kind: type) -> bool:
    """Whether it is a list with values of one type alone, and not empty."""
    return (
        isinstance(X, list | tuple) and len(X) > 0 and all(isinstance(value, kind) for value in X)
    )


def is_series_of_texts(X: Any) -> bool:
    """A one-dimensional array or series of texts."""
    return getattr(X, "ndim", 0) == 1 and len(X) > 0 and all(isinstance(value, str) for value in X)


def text_of(value: Any) -> str:
    """A cell of a table as a text; a number that is no whole one with four digits."""
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return str(value)


def right_texts(y: Any) -> list[Any]:
    """Right texts, or lists of them, as they were given.

    Raises:
        ValueError: there are none, or some are no texts.
    """
    if y is None:
        raise ValueError("The right texts are lacking: y is None.")
    texts = [list(value) if isinstance(value, list | tuple) else value for value in y]
    for number, value in enumerate(texts, 1):
        if not all(
            isinstance(text, str) for text in (value if isinstance(value, list) else [value])
        ):
            raise ValueError(f"Row {number} has no right text, but {value!r:.60}.")
    return texts


def check_one_label_a_row(y: Any) -> None:
    """Refuse rows with several labels, as lists or as a matrix with a column for each label.

    Raises:
        ValueError: it is so.
    """
    shape: Any = getattr(y, "shape", ())
    lists = isinstance(y, list | tuple) and any(isinstance(v, list | tuple | set) for v in y)
    if len(shape) > 1 and shape[1] > 1 or lists and any(len(labels) != 1 for labels in y):
        raise ValueError(
            "PromptClassifier takes one label for each row, and here a row may have several: a "
            "task with multi_label: true does that (ptune train), or in Python "
            "Task(..., multi_label=True) with ptune.fit."
        )


def free_name(name: str, fields: Sequence[str]) -> str:
    """A name that none of the fields has: ``name``, with as many underscores as it needs."""
    while name in fields:
        name += "_"
    return name
