"""Experiments as lists of trials, and the one function that runs them.

A trial is a value: it names what is tried, and all that decides its result. Its result is a file of
its own, so an experiment that is killed goes on where it was and ends the same.
"""

import itertools
import json
import pathlib
import shutil
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from ptune.base import files
from ptune.base.ranks import ALONE, Ranks
from ptune.errors import ConfigError, StoreError
from ptune.runs import identity

Form = TypeVar("Form", bound=BaseModel)
Result = TypeVar("Result")
TRIAL = "trial"  # the key of a result's file under which its trial stands


@dataclass(frozen=True, eq=False)
class Trial:
    """One method on one task, with one draw of rows and one seed. Two trials are equal where all
    that decides their results is.

    Attributes:
        method: the method's name.
        task: the name of the task (or relation, or pattern) that the method does.
        seed: the number from which the draw of rows and everything random follow.
        shots: how many rows of each label were drawn to learn from; 0 where nothing was drawn.
        settings: all else that decides the result, by name, as values that JSON can hold: the LM,
            the task, its rows, the settings of training (``ptune.runs.identity``).
        file: where the result is kept in the folder of the experiment.
        scratch: the folder in there in which an unfinished trial keeps what it goes on from. It is
            removed when the result is there.
        bank: trials that follow each other and have the same bank are run together, since they
            share their batches; None where a trial is run alone.
    """

    method: str
    task: str
    seed: int
    shots: int
    settings: Mapping[str, Any]
    file: str
    scratch: str
    bank: Hashable = None

    @cached_property
    def record(self) -> dict[str, Any]:
        """All that decides the result, as JSON says it."""
        names = ("method", "task", "seed", "shots", "settings")
        values = {name: getattr(self, name) for name in names}
        return json.loads(json.dumps({**values, "versions": identity.versions()}, default=str))

    @cached_property
    def identity(self) -> str:
        """One hash of all that decides the result."""
        return identity.of_value(self.record)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trial) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)


class ResultFiles(Protocol[Result]):
    """How results are written to files and read again. The record of the trial stands beside the
    result; it is None in the files of older versions, which had none."""

    def read(self, file: pathlib.Path) -> tuple[Result, Mapping[str, Any] | None]:
        """Read a result and the record of its trial.

        Raises:
            StoreError: the file holds no such result.
        """

    def write(self, file: pathlib.Path, result: Result, record: Mapping[str, Any]) -> None:
        """Write a result with the record of its trial; the file is whole or absent."""


@dataclass(frozen=True)
class JsonResults(Generic[Form]):
    """Results as JSON files.

    Attributes:
        form: the class of the results.
    """

    form: type[Form]

    def read(self, file: pathlib.Path) -> tuple[Form, Mapping[str, Any] | None]:
        """Read a result and the record of its trial.

        Raises:
            StoreError: the file holds no such result.
        """
        content = files.read_json(file)
        try:
            return self.form.model_validate(content), content.get(TRIAL)
        except ValidationError as error:
            fault = error.errors()[0]
            key = ".".join(map(str, fault["loc"]))
            raise StoreError(
                f"{file} holds no result of a trial ({key}: {fault['msg']}): remove it, and go on "
                "with the run."
            ) from error

    def write(self, file: pathlib.Path, result: Form, record: Mapping[str, Any]) -> None:
        """Write a result whole, with the record of its trial."""
        files.write_json(file, {**result.model_dump(mode="json"), TRIAL: record})


def run_trials(
    trials: Sequence[Trial],
    folder: pathlib.Path | None,
    *,
    run: Callable[[Sequence[Trial], pathlib.Path | None], Iterable[Result]],
    results: ResultFiles[Result],
    on_result: Callable[[Result], None] = lambda result: None,
    ranks: Ranks = ALONE,
) -> list[Result]:
    """Run the trials whose results are not there yet, and return the results of all, in order.

    A result is written as soon as it is known, whole or not at all. So the process may end at any
    moment; the same call then goes on and returns the same.

    Args:
        folder: where results are kept, which the caller holds (``ptune.runs.folder.working_in``);
            None keeps nothing.
        run: runs the trials of one bank and yields a result for each, in order. It gets the folder
            in which it may keep what it needs to go on after an interruption.
        results: how results are written and read.
        on_result: gets each result when it is known, those that are read too.
        ranks: the processes that run trials together, of which this is the first; the others call
            ``assist``.

    Raises:
        ConfigError: a result in the folder belongs to another trial; what differs is named. Nothing
            was run then.
    """
    finished = {} if folder is None else _read_finished(trials, folder, results)
    ranks.begin()
    ranks.from_first(lambda: sorted(finished))
    gathered = []
    for group in _groups(trials):
        scratch = None if folder is None else folder / group[0].scratch
        if all(trial.file in finished for trial in group):
            known: Iterable[Result] = (finished[trial.file] for trial in group)
        else:
            known = run(group, scratch)
        for trial, result in zip(group, known, strict=True):
            if folder is not None and trial.file not in finished:
                results.write(folder / trial.file, result, trial.record)
            on_result(result)
            gathered.append(result)
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return gathered


def assist(
    trials: Sequence[Trial],
    run: Callable[[Sequence[Trial], pathlib.Path | None], Iterable[Any]],
    ranks: Ranks,
) -> None:
    """Run, beside the first process, trials whose results ``run_trials`` has not there.

    Args:
        trials: those that processes run together; the first one may have others between them.
        run: as for ``run_trials``; what it yields is thrown away.
    """
    if not ranks.begin():
        return
    finished = ranks.from_first(lambda: None)
    for group in _groups(trials):
        if not all(trial.file in finished for trial in group):
            for _ in run(group, None):
                pass


def unfinished(trials: Sequence[Trial], folder: pathlib.Path) -> list[Trial]:
    """The trials whose results are not there yet."""
    return [trial for trial in trials if not (folder / trial.file).exists()]


def _groups(trials: Sequence[Trial]) -> list[list[Trial]]:
    """The trials in order, those that are run together in one list."""
    numbered = itertools.groupby(
        enumerate(trials),
        lambda pair: (pair[1].bank is None, pair[0] if pair[1].bank is None else pair[1].bank),
    )
    return [[trial for _, trial in group] for _, group in numbered]


def _read_finished(
    trials: Sequence[Trial], folder: pathlib.Path, results: ResultFiles[Result]
) -> dict[str, Result]:
    """The results that are there, by their files, after each was checked to be its trial's."""
    finished = {}
    for trial in trials:
        file = folder / trial.file
        if not file.exists():
            continue
        finished[trial.file], record = results.read(file)
        if record is not None and record != trial.record:
            changed = identity.differing(record, trial.record)
            raise ConfigError(
                f"{file} holds a result that was computed with another {', '.join(changed)}: go "
                "on with the same, or choose another --out."
            )
    return finished
