"""``ptune sweep``: the runs of a sweep's file are done by processes that share a folder."""

import importlib.metadata
import multiprocessing
import os
import pathlib
from collections.abc import Callable, Sequence

from ptune.base import files, terminal
from ptune.errors import PtuneError
from ptune.experiments.options import SweepConfig
from ptune.experiments.sweep.sweep_file import SweepRun, read_sweep
from ptune.experiments.sweep.sweep_worker import RESULTS, work, work_apart
from ptune.experiments.train.train_rows import TaskRows
from ptune.reports.pages import sweep_page
from ptune.reports.sweep_results import SweepResults
from ptune.runs.folder import check_empty, working_in
from ptune.runs.identity import of_value

CLAIM = "sweep"


def sweep(
    config: SweepConfig, report: Callable[[str], None] = terminal.print_line
) -> SweepResults | None:
    """Do all runs of a sweep, and put their figures into a table and a page. Runs whose results are
    there are not done again; those that failed are, but for trainings that diverged.

    Raises:
        ConfigError: the file is no sweep, or the folder holds something else.
        PtuneError: a task's rows are at fault, the processes ended before all was done, or some of
            the runs failed, after all others were done.
    """
    runs = read_sweep(config.file)
    if config.dry_run:
        for run in runs:
            report(run.command)
        return None
    _check_rows(runs)
    _claim(config.out)
    _forget_failures(runs, config.out)
    finished = sum((config.out / run.trial.file).exists() for run in runs)
    report(f"{len(runs)} runs, {finished} of which have their results already")
    if config.workers == 1:
        work(runs, config.out, report)
    elif finished < len(runs):
        _work_together(config, runs)
    results = _gathered(runs, config.out)
    _report(results, config.out, report)
    return results


def _check_rows(runs: Sequence[SweepRun]) -> None:
    """Read the rows of each task once, so that what is wrong with them is told before the first
    training.

    Raises:
        PtuneError: they are at fault.
    """
    checked = set()
    for run in runs:
        key = of_value([repr(run.parts.form), run.parts.data.model_dump(mode="json")])
        if key not in checked:
            checked.add(key)
            TaskRows.read(run.parts.form, run.parts.data, lambda message: None)


def _claim(out: pathlib.Path) -> None:
    """Mark the folder as one of sweeps, of which several processes may work in one.

    Raises:
        ConfigError: it holds something else.
    """
    if (out / CLAIM).exists():
        return
    check_empty(out)
    with working_in(out / CLAIM, "ptune sweep", adds=True) as folder:
        folder.claim({})


def _forget_failures(runs: Sequence[SweepRun], out: pathlib.Path) -> None:
    """Remove what says that a run failed, so that it is tried again; a training that diverged would
    diverge again."""
    for run in runs:
        file = out / run.trial.file
        if file.exists():
            outcome, _ = RESULTS.read(file)
            if outcome.error and not outcome.diverged:
                file.unlink(missing_ok=True)


def _work_together(config: SweepConfig, runs: Sequence[SweepRun]) -> None:
    """Let several processes do the runs.

    Raises:
        PtuneError: all of them ended before all was done.
    """
    start = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // config.workers)
    workers = [
        start.Process(target=work_apart, args=(config.file, config.out, threads))
        for _ in range(config.workers)
    ]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            worker.terminate()
    if lacking := [run for run in runs if not (config.out / run.trial.file).exists()]:
        raise PtuneError(
            f"The processes ended, and {len(lacking)} of {len(runs)} runs have no result. The same "
            "command goes on with them."
        )


def _gathered(runs: Sequence[SweepRun], out: pathlib.Path) -> SweepResults:
    """The results of all runs, written together with their page."""
    outcomes = [RESULTS.read(out / run.trial.file)[0] for run in runs]
    versions = {name: importlib.metadata.version(name) for name in ("ptune", "torch")}
    results = SweepResults(runs=outcomes, versions=versions)
    files.write_json(out / "results.json", results.model_dump(mode="json"))
    sweep_page.write(results, out)
    return results


def _report(results: SweepResults, out: pathlib.Path, report: Callable[[str], None]) -> None:
    """Print the table, the best runs, and what failed."""
    terminal.Console().print(sweep_page.table(results))
    for run in results.best():
        report(f"{run.task}: the best on dev ({run.dev:.3f}) is in {out / 'runs' / run.name}:")
        report(f"  {run.command}")
    failed = [run for run in results.runs if run.error]
    for run in failed:
        report(f"Failed: {run.command}: {run.error}")
    report(f"Report: {out / 'report.html'}")
    if failed:
        raise PtuneError(
            f"{len(failed)} of {len(results.runs)} runs failed, as is told above. The same command "
            "tries them again, but for trainings that diverged."
        )
