"""How much the rows of each label count in the loss, where some labels are rare."""

from collections.abc import Mapping, Sequence
from typing import Literal

from ptune.answers.label_words import Verbalizer
from ptune.errors import ConfigError, nearest
from ptune.model.rows.examples import Example, SharesExample
from ptune.model.task import Task

ClassWeights = Literal["balanced"] | Mapping[str, float] | None


def of_task(task: Task, rows: Sequence[Example], weights: ClassWeights) -> list[float]:
    """The weight of a row of each label [C], none where all count the same. The loss of a batch is
    the mean of its rows' weighted losses.

    Args:
        rows: all training rows; "balanced" gives a label of n rows among N, which have C labels,
            the weight N / (C n), as scikit-learn does.

    Raises:
        ConfigError: the task has no labels of its own, its rows are learned from another model's
            shares, its reader is no loss's, or a label is not the task's.
    """
    if weights is None:
        return []
    if not isinstance(task.verbalizer, Verbalizer) or task.loss == "vocabulary":
        raise ConfigError(
            f"class_weights weighs the rows of each label, and {task.name} is compared with no "
            "labels of its own: leave them out."
        )
    if task.reader.is_solved:
        raise ConfigError(
            f"{task.name} reads by {task.reader.name}, computed from the rows, and knows no "
            "class_weights: leave them out, or take words, soft or a head."
        )
    labels = task.verbalizer.labels
    if weights == "balanced":
        numbers = [example.label for example in rows]
        if any(isinstance(example, SharesExample) for example in rows):
            raise ConfigError(
                f"The rows of {task.name} have shares of labels, which class_weights cannot weigh."
            )
        present = [number for number in range(len(labels)) if number in numbers]
        return [
            len(numbers) / (len(present) * numbers.count(number)) if number in present else 1.0
            for number in range(len(labels))
        ]
    assert not isinstance(weights, str)
    for label in weights:
        if label not in labels:
            raise ConfigError(
                f"class_weights speaks of the label {label!r}, which {task.name} does not have. "
                f"{nearest(label, labels)}"
            )
    return [float(weights.get(label, 1.0)) for label in labels]
