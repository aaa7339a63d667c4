"""What scikit-learn's estimators are given, as rows of fields and as texts."""

import math
import os
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np

from ptune.data.row import is_missing
from ptune.errors import StoreError


def is_list_of(X: Any, kind: type) -> bool:
    """Whether it is a list with values of one type alone, and not empty."""
    return (
        isinstance(X, list | tuple) and len(X) > 0 and all(isinstance(value, kind) for value in X)
    )


def is_list_of_texts(X: Any) -> bool:
    """Whether it is a list, an array or a series of one dimension with nothing but texts in it.

    Raises:
        ValueError: it is a single text, is a set, is empty, or holds something else beside or
            instead of texts.
    """
    if isinstance(X, Set):
        raise ValueError("X is a set, whose texts have no order: give a list of texts.")
    if isinstance(X, str | bytes):
        raise ValueError("X is a single text, and a list of texts is expected: write [text].")
    if getattr(X, "ndim", 1) != 1 or hasattr(X, "columns") or not hasattr(X, "__len__"):
        return False
    if len(X) == 0:
        raise ValueError("There are no rows: 0 sample(s), where at least one is needed.")
    others = [(n, value) for n, value in enumerate(X, 1) if not isinstance(value, str)]
    if len(others) == len(X) and not is_missing(others[0][1]):
        return False
    if others:
        number, value = others[0]
        raise ValueError(
            f"Row {number} is no text, but {value!r:.60}: give it a text, or leave the row out."
        )
    return True


def as_text(value: Any) -> Any:
    """A cell of a table as a text, a whole number without its ".0"; a missing one as it is."""
    if is_missing(value):
        return value
    return str(value).removesuffix(".0") if isinstance(value, float | np.floating) else str(value)


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
    """Refuse rows without a label, and rows with several, as lists or as a matrix with a column for
    each label.

    Raises:
        ValueError: it is so.
    """
    if getattr(y, "ndim", 1) == 1 and hasattr(y, "__iter__"):
        for number, label in enumerate(y, 1):
            if is_missing(label):
                raise ValueError(
                    f"Row {number} has no label (None or NaN; 0 would be one): give it a label, or "
                    "leave the row out."
                )
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


def plain(value: Any, name: str) -> Any:
    """A value as JSON holds it: numbers of numpy as Python's, a path as its text, a set as a list,
    keys as texts.

    Args:
        name: what a message calls it.

    Raises:
        StoreError: JSON cannot hold it.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, os.PathLike):
        return plain(os.fspath(value), name)
    if isinstance(value, Mapping):
        return {str(key): plain(inner, f"{name}[{key!r}]") for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner, f"a value in {name}") for inner in value]
    if (
        isinstance(value, float)
        and not math.isfinite(value)
        or not isinstance(value, str | int | float | None)
    ):
        raise StoreError(
            f"{name} is {value!r:.60}, which JSON cannot hold, and so it cannot be saved: set it "
            "to a text or a finite number."
        )
    return value
