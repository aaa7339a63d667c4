"""What a training tells while it runs, and to whom: three methods to write for a log of one's
own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class LogEntry:
    """What is known of one task of a training after a step, or after an evaluation.

    Attributes:
        training: the training's name, such as that of its method and task.
        task: the task's name; tasks that train together are told apart by it.
        step: the number of optimizer steps that the task has taken.
        figures: ``loss`` of the step's rows, ``learning_rate`` and ``lm_learning_rate`` of the
            step, ``gradient_norm`` before clipping, ``tokens_per_second`` of all tasks together
            since the entries before; after an evaluation ``train_loss``, the mean since the last
            one, ``dev_loss`` and ``dev_score``.
        texts: after an evaluation of a task whose answer is text, what the LM writes for its first
            dev rows.
    """

    training: str
    task: str
    step: int
    figures: Mapping[str, float]
    texts: Sequence[str] = field(default=())


class TrainingLog(Protocol):
    """Where the figures of trainings go. Nothing that it does changes a result.

    ``fit(..., logs=[log])`` calls ``begin`` once, then ``write`` for each entry in the order of
    steps, and ``flush`` before each checkpoint and at the end.
    """

    def begin(self, training: str, step: int) -> None:
        """A training begins (step 0), or goes on behind a step. It takes all later steps again, so
        what a killed run wrote of those is to be left out."""
        ...

    def write(self, entry: LogEntry) -> None:
        """Take an entry."""
        ...

    def flush(self) -> None:
        """Bring all entries so far to where they are kept."""
        ...
