"""A process that works on a sweep: it takes runs that nobody does, until all have their results."""

import contextlib
import multiprocessing
import os
import pathlib
import signal
import statistics
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ptune.base import terminal
from ptune.base.interrupts import Interrupted
from ptune.errors import ConfigError, DivergedError, PtuneError
from ptune.experiments.sweep.search import Search
from ptune.experiments.sweep.sweep_file import SweepRun, read_sweep
from ptune.experiments.sweep.train_together import FAULTS, train_together
from ptune.experiments.train import train_results, train_setup, train_task
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import Row
from ptune.reports.schemas import Run
from ptune.reports.sweep_results import SweepOutcome
from ptune.runs import identity
from ptune.runs.folder import NOTE, held
from ptune.runs.leases import Leases
from ptune.runs.trials import JsonResults
from ptune.tasks.resolved.parts import LMSource, TrainingParts
from ptune.tasks.resolved.task_form import TaskForm
from ptune.tasks.schema import DataConfig
from ptune.training.methods import Method
from ptune.training.prompt_training import Pruner

SECONDS_BETWEEN_TRIES = 1.0
RESULTS = JsonResults(SweepOutcome)
State = tuple[int, int]


class KeptLm:
    """Loads LMs, and keeps the last one for the next runs where none of its weights are trained;
    with it the figures of baselines, which no training changes."""

    def __init__(self) -> None:
        self.key: tuple[str, ...] = ()
        self.lm: LanguageModel | None = None
        self.figures: dict[str, train_results.Figures] = {}

    def __call__(self, source: LMSource, method: Method) -> LanguageModel:
        key = (source.name, source.device, source.dtype)
        is_frozen = method.tune in ("prompt", "nothing") and source.continue_from is None
        if self.lm is not None and is_frozen and key == self.key:
            return self.lm
        self.lm, self.figures = None, {}
        loaded = train_setup.load_lm(source, method)
        if is_frozen:
            self.key, self.lm = key, loaded
        return loaded

    def baseline_figures(
        self,
        form: TaskForm,
        data: DataConfig,
        lm: LanguageModel,
        *,
        train: Sequence[Row],
        test: Sequence[Row],
    ) -> train_results.Figures:
        """The figures of the baselines, computed once for each task and its rows."""
        key = identity.of_value(
            [repr(form), data.model_dump(mode="json"), *map(identity.of_rows, (train, test))]
        )
        if key not in self.figures or lm is not self.lm:
            self.figures[key] = train_results.baseline_figures(
                form, data, lm, train=train, test=test
            )
        return self.figures[key]


@dataclass(frozen=True)
class Sweep:
    """A sweep as a process works on it.

    Attributes:
        failed: the runs that failed before and are tried again, by name, with the state of the file
            that says so: once it is another one, they were tried.
        together: how many runs are trained together at most.
    """

    runs: Sequence[SweepRun]
    out: pathlib.Path
    failed: Mapping[str, State]
    together: int

    @property
    def pending(self) -> list[SweepRun]:
        """The runs that lack a result."""
        return [run for run in self.runs if self.is_pending(run)]

    def is_pending(self, run: SweepRun) -> bool:
        """Whether a run has no result, or one that says that it failed before."""
        state = state_of(self.out / run.trial.file)
        return state is None or state == self.failed.get(run.name)

    def folder_of(self, run: SweepRun) -> pathlib.Path:
        """Where a run is trained."""
        return self.out / "runs" / run.name


def state_of(file: pathlib.Path) -> State | None:
    """What tells a file from one that is written in its place; None where there is none."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def failed_before(runs: Sequence[SweepRun], out: pathlib.Path) -> dict[str, State]:
    """The runs that failed, which are tried again, with the states of their results; a training
    that diverged would diverge again."""
    failed = {}
    for run in runs:
        file = out / run.trial.file
        if (state := state_of(file)) is not None:
            outcome, _ = RESULTS.read(file)
            if outcome.error and not outcome.diverged:
                failed[run.name] = state
    return failed


def work(sweep: Sweep, report: Callable[[str], None], search: Search | None = None) -> None:
    """Do the runs that have no result and that no other process does, and stay until those of other
    processes have their results too, since these may be killed.

    Args:
        search: what chooses the runs, where not all are known before.
    """
    leases, load = Leases(sweep.out / "leases"), KeptLm()
    while True:
        sweep = replace(sweep, runs=search.runs()) if search else sweep
        pending = sweep.pending
        if any(
            _do(sweep, group, leases, load=load, search=search, report=report)
            for group in _banks(pending)
        ):
            continue
        if search and search.ask():
            continue
        if not pending:
            return
        time.sleep(SECONDS_BETWEEN_TRIES)


def _banks(runs: Sequence[SweepRun]) -> list[list[SweepRun]]:
    """The runs that can be trained together in one list."""
    banks: dict[Hashable, list[SweepRun]] = {}
    for run in runs:
        key = run.name if run.trial.bank is None else run.trial.bank
        banks.setdefault(key, []).append(run)
    return list(banks.values())


def _do(
    sweep: Sweep,
    bank: Sequence[SweepRun],
    leases: Leases,
    *,
    load: KeptLm,
    search: Search | None,
    report: Callable[[str], None],
) -> bool:
    """Do some runs of a bank that nobody does or did; return whether there are such."""
    with leases.taken([run.name for run in bank], sweep.together) as names:
        mine = [
            run
            for run in bank
            if run.name in names
            and sweep.is_pending(run)
            and not _is_worked_in(sweep.folder_of(run))
        ]
        for run, outcome in _outcomes(sweep, mine, load, search):
            RESULTS.write(sweep.out / run.trial.file, outcome, run.trial.record)
            report(f"{run.command}: {outcome.error or _in_words(outcome)}")
        return bool(mine)


def _is_worked_in(folder: pathlib.Path) -> bool:
    """Whether a process whose lease was taken for dead still works there."""
    try:
        with held(folder):
            return False
    except ConfigError:
        return True


def _outcomes(
    sweep: Sweep, runs: Sequence[SweepRun], load: KeptLm, search: Search | None
) -> Iterator[tuple[SweepRun, SweepOutcome]]:
    """Train runs, or go on training them: together, where they are several, and where that fails,
    each alone."""
    alone = dict(enumerate(runs))
    pruners = [search.pruner(run) if search else None for run in runs]
    if len(runs) > 1:
        parts = [_parts_of(sweep, run) for run in runs]
        with contextlib.suppress(*FAULTS):
            for number, trained in train_together(parts, load, load.baseline_figures, pruners):
                run = alone.pop(number)
                yield run, _outcome(run, trained)
    for number, run in alone.items():
        yield run, _outcome(run, _trained_alone(_parts_of(sweep, run), load, pruners[number]))


def _parts_of(sweep: Sweep, run: SweepRun) -> TrainingParts:
    """The training of a run in its folder, where it goes on if it was begun."""
    folder = sweep.folder_of(run)
    output = replace(run.parts.output, folder=folder, resume=(folder / NOTE).exists())
    return replace(run.parts, output=output)


def _trained_alone(parts: TrainingParts, load: KeptLm, pruner: Pruner | None) -> Run | Exception:
    try:
        return train_task.train_parts(parts, terminal.print_nothing, load, pruner=pruner)
    except FAULTS as error:
        return error


def _outcome(run: SweepRun, trained: Run | Exception) -> SweepOutcome:
    """What a run gave, as the table has it."""
    outcome = SweepOutcome(
        name=run.name, task=run.parts.form.name, settings=dict(run.settings), command=run.command
    )
    if isinstance(trained, Exception):
        is_ours = isinstance(trained, PtuneError)
        message = str(trained) if is_ours else f"{type(trained).__name__}: {trained}"
        failure = {"error": message, "diverged": isinstance(trained, DivergedError)}
        return outcome.model_copy(update=failure)
    update = {
        "dev": _dev(trained),
        "dev_score": trained.dev_score,
        "figures": trained.figures,
        "seconds": sum(trained.seconds.values()),
        "pruned": bool(trained.pruned),
    }
    return outcome.model_copy(update=update)


def _dev(run: Run) -> float | None:
    scores = [best["dev"] for best in run.best.values() if "dev" in best]
    return statistics.fmean(scores) if scores else None


def _in_words(outcome: SweepOutcome) -> str:
    dev = [] if outcome.dev is None else [f"dev {outcome.dev:.3f}"]
    dev += ["pruned"] if outcome.pruned else []
    return ", ".join([*dev, *(f"{name} {value:.3f}" for name, value in outcome.figures.items())])


def work_apart(file: pathlib.Path, options: Mapping[str, Any], threads: int) -> None:
    """What a process of its own does.

    Args:
        options: those of ``Sweep``, the runs aside.
    """
    import torch

    torch.set_num_threads(threads)
    watch = threading.Thread(target=_end_with_the_starter, daemon=True)
    watch.start()
    with contextlib.suppress(KeyboardInterrupt, Interrupted):
        work_on(file, options, terminal.print_line)


def work_on(file: pathlib.Path, options: Mapping[str, Any], report: Callable[[str], None]) -> None:
    """Do the runs of a sweep's file; as ``work``.

    Args:
        options: those of ``Sweep``, the runs aside, and under "search" those of ``Search`` where
            runs are chosen.
    """
    chosen = dict(options)
    if (searched := chosen.pop("search", None)) is None:
        work(Sweep(read_sweep(file), **chosen), report)
        return
    search = Search(file, options["out"], **searched)
    work(Sweep(search.runs(), **chosen), report, search)


def _end_with_the_starter() -> None:
    """Ask this process to end, as by a signal, once the one that started it is gone; a training is
    saved then."""
    starter = multiprocessing.parent_process()
    assert starter is not None
    starter.join()
    os.kill(os.getpid(), signal.SIGTERM)
