"""A process that works on a sweep: it takes runs that nobody does, until all have their results."""

import contextlib
import multiprocessing
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from ptune.errors import ConfigError, DivergedError, PtuneError
from ptune.experiments.sweep.sweep_file import SweepRun, read_sweep
from ptune.experiments.train import train_setup, train_task
from ptune.lm.language_model import LanguageModel
from ptune.reports.schemas import Run
from ptune.reports.sweep_results import SweepOutcome
from ptune.runs.folder import NOTE, held
from ptune.runs.leases import Leases
from ptune.runs.trials import JsonResults
from ptune.tasks.resolved.parts import LMSource
from ptune.training.methods import Method

SECONDS_BETWEEN_TRIES = 1.0
RESULTS = JsonResults(SweepOutcome)


class KeptLm:
    """Loads LMs, and keeps the last one for the next run where none of its weights are trained."""

    def __init__(self) -> None:
        self.key: tuple[str, ...] = ()
        self.lm: LanguageModel | None = None

    def __call__(self, source: LMSource, method: Method) -> LanguageModel:
        key = (source.name, source.device, source.dtype)
        is_frozen = method.tune in ("prompt", "nothing") and source.continue_from is None
        if self.lm is not None and is_frozen and key == self.key:
            return self.lm
        self.lm = None
        loaded = train_setup.load_lm(source, method)
        if is_frozen:
            self.key, self.lm = key, loaded
        return loaded


def work(
    runs: Sequence[SweepRun],
    out: pathlib.Path,
    report: Callable[[str], None],
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Do the runs that have no result and that no other process does, and stay until those of other
    processes have their results too, since these may be killed.

    Args:
        is_over: whether no further run is to be begun.
    """
    leases, load = Leases(out / "leases"), KeptLm()
    while pending := [run for run in runs if not (out / run.trial.file).exists()]:
        done = [run for run in pending if not is_over() and _do(run, out, leases, load, report)]
        if is_over():
            return
        if not done:
            time.sleep(SECONDS_BETWEEN_TRIES)


def _do(
    run: SweepRun,
    out: pathlib.Path,
    leases: Leases,
    load: KeptLm,
    report: Callable[[str], None],
) -> bool:
    """Do a run, if nobody does or did it; return whether it was done here."""
    with leases.taken(run.name) as is_mine:
        if not is_mine or (out / run.trial.file).exists() or _is_worked_in(out / "runs" / run.name):
            return False
        outcome = _outcome(run, out / "runs" / run.name, load)
        RESULTS.write(out / run.trial.file, outcome, run.trial.record)
        report(f"{run.command}: {outcome.error or _in_words(outcome)}")
        return True


def _is_worked_in(folder: pathlib.Path) -> bool:
    """Whether a process whose lease was taken for dead still works there."""
    try:
        with held(folder):
            return False
    except ConfigError:
        return True


def _outcome(run: SweepRun, folder: pathlib.Path, load: KeptLm) -> SweepOutcome:
    """Train, or go on training, and return what it gave."""
    outcome = SweepOutcome(
        name=run.name, task=run.parts.form.name, settings=dict(run.settings), command=run.command
    )
    resume = (folder / NOTE).exists()
    output = replace(run.parts.output, folder=folder, resume=resume)
    parts = replace(run.parts, output=output)
    try:
        trained = train_task.train_parts(parts, lambda message: None, load)
    except PtuneError as error:
        failure = {"error": str(error), "diverged": isinstance(error, DivergedError)}
        return outcome.model_copy(update=failure)
    update = {
        "dev": _dev(trained),
        "dev_score": trained.dev_score,
        "figures": trained.figures,
        "seconds": sum(trained.seconds.values()),
    }
    return outcome.model_copy(update=update)


def _dev(run: Run) -> float | None:
    scores = [best["dev"] for best in run.best.values() if "dev" in best]
    return statistics.fmean(scores) if scores else None


def _in_words(outcome: SweepOutcome) -> str:
    dev = [] if outcome.dev is None else [f"dev {outcome.dev:.3f}"]
    return ", ".join([*dev, *(f"{name} {value:.3f}" for name, value in outcome.figures.items())])


def work_apart(file: pathlib.Path, out: pathlib.Path, threads: int) -> None:
    """What a process of its own does."""
    import torch

    from ptune.base import terminal
    from ptune.base.interrupts import Interrupted

    torch.set_num_threads(threads)
    starter = multiprocessing.parent_process()
    is_over = lambda: starter is not None and not starter.is_alive()  # noqa: E731
    with contextlib.suppress(KeyboardInterrupt, Interrupted):
        work(read_sweep(file), out, terminal.print_line, is_over)
