"""Copies of a task's prompts that are trained for a few steps, all in one batch, to choose by how
they do on dev."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ptune.base.ranks import ALONE, Ranks
from ptune.errors import DivergedError
from ptune.model.prompt_model import PromptModel, Row
from ptune.runs.without_trace import without_trace
from ptune.settings import TrainConfig
from ptune.training.loop import fit
from ptune.training.prompt_training import TrainingHistory

Data = Mapping[int, tuple[list[Row], list[Row]]]
"""The training rows and dev rows of each task, by its number."""
STEPS, LOOKS = 40, 4


@dataclass(frozen=True)
class Copies:
    """What became of the copies.

    Attributes:
        model: holds them.
        numbers: for each set of copies the number of each task's copy, by the task's number.
        histories: how the training of each copy went, by its number.
    """

    model: PromptModel
    numbers: Sequence[Mapping[int, int]]
    histories: Mapping[int | str, TrainingHistory]

    def score(self, of: int, task: int) -> tuple[float, float] | None:
        """The best dev score of a task's copy and minus its dev loss; None where it diverged.

        Args:
            of: the number of the set of copies.
        """
        history = self.histories[self.numbers[of][task]]
        if history.best is None or history.diverged:
            return None
        return history.best.dev, -history.best.dev_loss


def train_copies(
    model: PromptModel,
    data: Data,
    settings: TrainConfig,
    *,
    count: int,
    label: str,
    begin: Callable[[PromptModel, int, int, int], None] | None = None,
    rates: Sequence[float] | None = None,
    ranks: Ranks = ALONE,
) -> Copies:
    """Train some sets of copies of the tasks in ``data``, for at most 40 steps. The model and all
    random states are left as they are.

    Args:
        count: how many sets.
        begin: lets a copy begin otherwise than the task's prompt does; it gets the model of the
            copies, the number of the set, of the task, and of its copy.
        rates: the learning rate of each set.
        ranks: the processes that train together.
    """
    twin = PromptModel(model.lm, copy.deepcopy(model.bank), list(model.tasks), model.max_length)
    numbers = [_copies_of(twin, list(data)) for _ in range(count)]
    for of, copies in enumerate(numbers):
        for task, number in copies.items():
            if begin is not None:
                begin(twin, of, task, number)
    steps = min(STEPS, settings.steps or STEPS)
    brief = settings.model_copy(
        update={
            "steps": steps,
            "epochs": None,
            "evaluate_every": max(1, steps // LOOKS),
            "patience": 0,
        }
    )
    rows = {number: data[task] for copies in numbers for task, number in copies.items()}
    by_number = None
    if rates is not None:
        by_number = {n: rate for rate, copies in zip(rates, numbers) for n in copies.values()}
    with without_trace(model.lm, tuned=False):
        try:
            histories = fit(twin, rows, brief, label=label, rates=by_number, ranks=ranks)
        except DivergedError as error:
            histories = error.trained
    return Copies(twin, numbers, histories)


def _copies_of(model: PromptModel, tasks: Sequence[int]) -> dict[int, int]:
    """Put copies of tasks with their prompts into the model; what prompts share their copies share.
    Return the number of each copy, by that of its task."""
    bank, numbers = model.bank, {}
    copied: dict[int, object] = {}
    for task in tasks:
        bound = model.tasks[task]
        prompt = bank.add(
            copy.deepcopy(bank.encoders[bound.prompt], copied),
            copy.deepcopy(bank.prefixes[bound.prompt], copied)
            if bank.has_prefix(bound.prompt)
            else None,
            copy.deepcopy(bank.readers[bound.prompt], copied),
        )
        model.tasks.append(replace(bound, prompt=prompt))
        numbers[task] = len(model.tasks) - 1
    return numbers
