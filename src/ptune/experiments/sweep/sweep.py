"""``ptune sweep``: the runs of a sweep's file are done by processes that share a folder."""

import importlib.metadata
import multiprocessing
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing import connection
from typing import Any

import joblib

from ptune.base import files, terminal
from ptune.base.interrupts import Interrupted, ignoring_ctrl_c, stoppable
from ptune.errors import PtuneError
from ptune.experiments.cluster import ray_cluster
from ptune.experiments.cluster.ray_cluster import Cluster
from ptune.experiments.options import SweepConfig
from ptune.experiments.sweep import ray_workers, search
from ptune.experiments.sweep.search import Search
from ptune.experiments.sweep.sweep_file import SweepRun, read_sweep
from ptune.experiments.sweep.sweep_worker import RESULTS, Sweep, failed_before, work, work_apart
from ptune.experiments.train.train_rows import TaskRows
from ptune.reports.pages import sweep_page
from ptune.reports.sweep_results import SweepResults
from ptune.runs.folder import check_empty, working_in
from ptune.runs.identity import of_value

CLAIM = "sweep"
SECONDS_BETWEEN_LOOKS = 0.5


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
    ray_cluster.check(_cluster(config), "Processes that share a folder (--workers) need none.")
    search.check(config.search, config.trials, prune=config.prune, dry_run=config.dry_run)
    if config.ray is not None:  # whose workers are in other folders
        whole = {"file": config.file.resolve(), "out": config.out.resolve()}
        config = config.model_copy(update=whole)
    searched = None
    if config.trials is not None:
        searched = Search(
            config.file, config.out, config.search, trials=config.trials, prune=config.prune
        )
    runs = searched.check() if searched else read_sweep(config.file)
    if config.dry_run:
        for run in runs:
            report(run.command)
        return None
    _check_rows(runs)
    _claim(config.out)
    if searched:
        searched.claim()
        runs = searched.runs()
    failed = failed_before(runs, config.out)
    shared = Sweep(runs, config.out, failed, config.together)
    unfinished = _unfinished(shared, searched)
    report(_counted(shared, searched))
    if config.workers == 1 and config.ray is None:
        work(shared, report, searched)
    elif unfinished:
        most = min(config.together, -(-unfinished // config.workers))
        _work_together(config, replace(shared, together=most), searched)
    results = _gathered(searched.runs() if searched else runs, config.out)
    _report(results, config.out, report)
    return results


def _unfinished(shared: Sweep, searched: Search | None) -> int:
    """How many runs have no result, those aside that a search has not chosen yet; of such it is at
    least as many as there are trials to begin."""
    return len(shared.pending) + (searched.lacking if searched else 0)


def _counted(shared: Sweep, searched: Search | None) -> str:
    """How much there is to do, in words."""
    runs, pending = len(shared.runs), len(shared.pending)
    if searched:
        return (
            f"{searched.total} trials of {len(searched.space)} settings, "
            f"{searched.total - searched.lacking} of which were begun already"
        )
    return f"{runs} runs, {runs - pending} of which have their results already"


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
            TaskRows.read(run.parts.form, run.parts.data, terminal.print_nothing)


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


def _work_together(config: SweepConfig, shared: Sweep, searched: Search | None) -> None:
    """Let several processes do the runs.

    Raises:
        Interrupted: this one was asked to end; the others have ended, and saved their trainings.
        PtuneError: all of them ended before all was done.
    """
    options = {"out": shared.out, "failed": shared.failed, "together": shared.together}
    options |= {"search": searched.options} if searched else {}
    if config.ray is None:
        was_stopped = _work_apart(config, options)
    else:
        was_stopped = ray_workers.work_on_cluster(
            config.file, options, config.workers, _cluster(config)
        )
    shared = replace(shared, runs=searched.runs()) if searched else shared
    lacking = _unfinished(shared, searched)
    counts = f"{lacking} of {len(shared.runs)} runs have no result"
    if searched:
        counts = (
            f"{len(shared.pending)} runs have no result, and {searched.lacking} trials are to begin"
        )
    if was_stopped:
        raise Interrupted(f"Stopped; {counts}, and what was trained of them is saved.")
    if lacking:
        raise PtuneError(f"The processes ended, and {counts}. The same command goes on with them.")


def _cluster(config: SweepConfig) -> Cluster:
    return Cluster(config.ray, config.ray_cpus, config.ray_gpus)


def _work_apart(config: SweepConfig, options: Mapping[str, Any]) -> bool:
    """Let processes of this machine do the runs until all have their results; return whether this
    one was asked to end before. Then the others have saved their trainings and ended.

    Args:
        options: those of ``sweep_worker.work_on``.
    """
    start = multiprocessing.get_context("spawn")
    threads = max(1, joblib.cpu_count() // config.workers)
    workers = [
        start.Process(target=work_apart, args=(config.file, options, threads))
        for _ in range(config.workers)
    ]
    with stoppable() as stopped:
        try:
            with ignoring_ctrl_c():  # they are asked to end by this process alone
                for worker in workers:
                    worker.start()
            while alive := [worker.sentinel for worker in workers if worker.is_alive()]:
                if stopped():
                    break
                connection.wait(alive, SECONDS_BETWEEN_LOOKS)
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.join()
        return stopped()


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
    if results.has_unlike_scores:
        report(sweep_page.UNLIKE)
    for run in results.best():
        score = f"{run.dev:.3f}, {run.dev_score}"
        report(f"{run.task}: the best on dev ({score}) is in {out / 'runs' / run.name}:")
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
