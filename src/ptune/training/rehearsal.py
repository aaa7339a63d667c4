"""What is tried before the first step of a training: that every row fits, and one step on two rows,
with a copy that is thrown away."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ptune.model.prompt_model import PromptModel, Row
from ptune.model.rows.examples import Shortening
from ptune.runs.without_trace import without_trace
from ptune.settings import TrainConfig
from ptune.training.loop import Training, fit_together
from ptune.training.prompt_training import Tune, check_splits

ROWS = 2
MOST_TASKS = 8
ONE_STEP = {"steps": 1, "epochs": 1, "evaluate_every": 1, "batch_size": ROWS, "patience": 0}


def try_rows(
    model: PromptModel,
    task: int,
    rows: Sequence[Row],
    *,
    shortening: Shortening,
    labelled: bool = True,
) -> None:
    """Tokenise rows one by one, and count those that are shortened to fit.

    Raises:
        TemplateError, DataError: a row does not fit; its number is told.
    """
    for number, row in enumerate(rows, 1):
        shortening.count(model.encode(task, [row], labelled=labelled, first=number))


def short(config: TrainConfig) -> TrainConfig:
    """The same training with one step on two rows."""
    return config.model_copy(update=ONE_STEP)


def copy_of(model: PromptModel) -> PromptModel:
    """A model with the same LM and tasks, and copies of the prompts."""
    twin = PromptModel(model.lm, copy.deepcopy(model.bank), list(model.tasks), model.max_length)
    twin.take_owners(model)
    return twin


def one_step(
    model: PromptModel, trainings: Sequence[Training], *, tune: Tune = "prompt"
) -> PromptModel:
    """Train a copy of a model for one joint step on two rows of each task (of a training's first
    tasks, where there are many), evaluate it on two dev rows, and return the copy. The model, its
    LM and all random states stay unchanged. A step that diverges is not an error here.

    Args:
        trainings: what ``fit_together`` would train.

    Raises:
        PtuneError: as ``fit_together``.
    """
    for training in trainings:
        for task, (rows, dev) in training.data.items():
            check_splits(model.tasks[task].task.name, rows, dev)
    twin = copy_of(model)
    brief = [_brief(twin, training) for training in trainings]
    with without_trace(model.lm, tune != "prompt"):
        fit_together(twin, brief, tune=tune, label="one step, to try it")
    return twin


def _brief(twin: PromptModel, training: Training) -> Training:
    """One step on two rows of the first tasks of a training; nothing of it is kept."""
    some = {
        task: (rows_that_teach(twin, task, rows), dev[:ROWS])
        for task, (rows, dev) in list(training.data.items())[:MOST_TASKS]
    }
    config = short(training.config)
    return replace(training, data=some, config=config, folder=None, resume=False, rates=None)


def rows_that_teach(model: PromptModel, task: int, rows: Sequence[Row]) -> list[Any]:
    """The first two rows that contribute to the loss; a span is learned from true rows only."""
    chosen: list[Any] = []
    for row in rows:
        if len(chosen) < ROWS and any(example.learn for example in model.encode(task, [row])):
            chosen.append(row)
        if len(chosen) == ROWS:
            break
    return chosen or list(rows[:ROWS])
