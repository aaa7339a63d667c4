"""The parts that a task's configuration is resolved into. A function behind the door takes those
that it needs; the whole is for the function at the top of a command alone."""

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ptune.settings import (
    Device,
    Dtype,
    LogName,
    PetConfig,
    Sharding,
    TrainConfig,
    TrainOverrides,
)
from ptune.tasks.resolved.task_form import Learning, TaskForm
from ptune.tasks.schema import DataConfig
from ptune.training.methods import Method


@dataclass(frozen=True)
class LMSource:
    """Where an LM is, and how it is loaded.

    Attributes:
        continue_from: a prompt from which training goes on, whose LM is taken where no other is
            named.
        transfer: prompts of this LM as which a task's new ones begin.
        sharding: how several processes share it out.
    """

    name: str = "builtin"
    device: Device = "auto"
    dtype: Dtype = "auto"
    continue_from: pathlib.Path | None = None
    transfer: tuple[pathlib.Path, ...] = ()
    sharding: Sharding = "none"


@dataclass(frozen=True)
class Output:
    """Where a run's files go, and whether it goes on with those that are there.

    Attributes:
        only: the values of ``prompt_by`` whose prompts are trained; all without any.
        log: where the figures of the training go while it runs.
    """

    folder: pathlib.Path
    resume: bool = False
    only: tuple[str, ...] = ()
    log: tuple[LogName, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TaskParts:
    """A task, resolved.

    Attributes:
        form: what is asked, how it is answered and judged.
        learning: how prompts learn, whatever the method.
        pet: how PET goes about it.
        overrides: the settings of training in the place of a method's own.
        data: where the rows are, and which of them are drawn.
        source: the LM.
        allow_unknown: texts may be unknown to the LM's vocabulary.
        settings: all settings, as run.json and the pages show them.
        deciding: the settings that decide the result (``identity.deciding``).
    """

    form: TaskForm
    learning: Learning
    pet: PetConfig
    overrides: TrainOverrides
    data: DataConfig
    source: LMSource
    allow_unknown: bool
    settings: Mapping[str, Any]
    deciding: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunParts(TaskParts):
    """A task that one run trains.

    Attributes:
        title: what the run is called in tables; None for the method's name.
    """

    output: Output
    title: str | None


@dataclass(frozen=True, kw_only=True)
class TrainingParts(RunParts):
    """A training by one method.

    Attributes:
        method: with what the task tunes in place of what the method does.
        train: the method's settings of training, with the task's in their places.
        finds_rate: the learning rate is to be found around the one in ``train``.
        finds_batch_size: the batch size is to be found.
    """

    method: Method
    train: TrainConfig
    finds_rate: bool = False
    finds_batch_size: bool = False


@dataclass(frozen=True, kw_only=True)
class SelectionParts(RunParts):
    """A training whose method is chosen among several.

    Attributes:
        minutes: what trying them and the last training may take; None for the default.
    """

    minutes: float | None

    @property
    def tunes_lm(self) -> bool:
        """Whether methods that change the LM are tried."""
        return self.learning.tune != "prompt"
