"""Methods side by side on tasks with labels: the same few rows for all, drawn again for every seed.

Every result is a file of its own, so a run that was killed goes on where it was, and gives the same
figures.
"""

import pathlib
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ptune.base import files, terminal
from ptune.base.file_names import file_name
from ptune.errors import (
    ConfigError,
    DivergedError,
    ModelError,
    TemplateError,
    VerbalizerError,
    nearest,
)
from ptune.experiments.compare_methods import Result, run_baseline, run_method
from ptune.experiments.compare_rows import (
    FewShotSplit,
    check_rows,
    draw_all,
    listed,
    read_tasks,
)
from ptune.experiments.compare_summary import behind_baselines, summarise
from ptune.experiments.options import CompareConfig
from ptune.lm.language_model import LanguageModel
from ptune.metrics.labels import BASELINES
from ptune.reports import compare_page
from ptune.reports.probe_page import divergences
from ptune.reports.schemas import Comparison
from ptune.runs import identity
from ptune.runs.folder import RunFolder, working_in
from ptune.tasks.schema import TaskConfig
from ptune.training.methods import METHODS, method

TITLES = BASELINES | {
    name: preset.title for name, preset in METHODS.items() if name != "fine-tune"
}  # what may be compared
BESIDE = (
    "methods",
    "seeds",
    "shots",
    "out",
    "resume",
    "as_json",
    "device",
)  # settings that change no single result


def compare(config: CompareConfig, report: Callable[[str], None] | None = None) -> Comparison:
    """Run the comparison that the config describes, and write results.json and report.html.

    Args:
        report: gets each line about the progress; by default it is printed.

    Raises:
        PtuneError: a task, its rows, the LM or a setting is at fault.
        DivergedError: every training diverged.
    """
    console = terminal.Console(stderr=config.as_json)
    report = report or partial(console.print, markup=False, highlight=False, soft_wrap=True)
    names = listed(config.methods)
    if unknown := next((name for name in names if name not in TITLES), None):
        raise ConfigError(f"There is no method {unknown!r} to compare. {nearest(unknown, TITLES)}")
    names = [*BASELINES, *(name for name in names if name not in BASELINES)]
    tasks = read_tasks(config)
    with working_in(config.out, "ptune compare", config.resume) as folder:
        comparison, results = _run(config, names, tasks, folder, report)
    _show(config, comparison, console, report)
    for sentence in [*divergences(results), *behind_baselines(comparison)]:
        report(sentence)
    trained = [result for result in results if result["method"] not in BASELINES]
    if trained and all(result.get("diverged") and not result["figures"] for result in trained):
        raise DivergedError(
            "Every training diverged, so there are no figures: lower the learning rates "
            "(--train.learning-rate, --train.lm-learning-rate)."
        )
    return comparison


def _run(
    config: CompareConfig,
    names: Sequence[str],
    tasks: Sequence[TaskConfig],
    folder: RunFolder,
    report: Callable[[str], None],
) -> tuple[Comparison, list[Result]]:
    """The comparison and its single results, in a folder that is held; methods, seeds, shots and
    tasks may be added to those that are in the folder."""
    splits = [split for task in tasks for split in draw_all(config, task)]
    tuned = any(METHODS[name].tune in ("head", "lm", "both") for name in names if name in METHODS)
    lm = LanguageModel.load(tasks[0].lm, device=config.device, dtype=config.dtype, tuned=tuned)
    first_splits = {split.task.name: split for split in reversed(splits)}
    for split in first_splits.values():
        open_methods = [
            method(name)
            for name in names
            if name not in BASELINES and not _result_file(config, split, name).exists()
        ]
        check_rows(lm, split, open_methods, report)
    whole = _identity(config, lm, tasks)
    folder.claim(whole, grows="tasks")
    size = sum(parameter.numel() for parameter in lm.model.parameters())
    report(f"{lm.source}: {lm.kind} LM, {size / 1e6:.1f} M parameters, on {lm.device}")
    results = [_result(config, lm, split, name, report) for split in splits for name in names]
    titles = {name: TITLES[name] for name in names}
    comparison = summarise(results, titles, {**_shown(config, tasks), "identity": whole})
    files.write_json(config.out / "results.json", comparison.model_dump(mode="json"))
    compare_page.write(comparison, results, config.out)
    return comparison, results


def _show(
    config: CompareConfig,
    comparison: Comparison,
    console: terminal.Console,
    report: Callable[[str], None],
) -> None:
    """Print the comparison as JSON, or as tables with the names of the files that hold it."""
    if config.as_json:
        print(comparison.model_dump_json(indent=2))
        return
    for table in compare_page.tables(comparison):
        console.print(table)
    report(f"Results: {config.out / 'results.json'}   Report: {config.out / 'report.html'}")


def _shown(config: CompareConfig, tasks: Sequence[TaskConfig]) -> dict[str, Any]:
    """The settings in the words of the command and of the tasks' files, for the page."""
    settings = config.model_dump(mode="json", exclude={*BESIDE, "tasks"})
    names = [task.name for task in tasks]
    by_task = {
        f"task {task.name}": task.model_dump(mode="json", exclude={"out", "resume", "device"})
        for task in tasks
    }
    return {**settings, "tasks": names, **by_task}


def _identity(
    config: CompareConfig, lm: LanguageModel, tasks: Sequence[TaskConfig]
) -> dict[str, Any]:
    """All that the results depend on, beside a result's own task, method, shots and seed."""
    beside = [*BESIDE, "lm", "dtype", "title", "only"]
    return {
        **identity.of_settings(config, [*beside, "tasks"]),
        "lm": identity.of_lm(lm),
        "tasks": {task.name: identity.of_settings(task, beside) for task in tasks},
    }


def _result_file(config: CompareConfig, split: FewShotSplit, name: str) -> pathlib.Path:
    """Where the result of a method is kept."""
    folder = config.out / "results" / file_name(split.task.name)
    return folder / f"{name}-{split.shots}-{split.seed}.json"


def _pet_folder(config: CompareConfig, split: FewShotSplit, name: str) -> pathlib.Path:
    """Where PET keeps what is finished; it holds an LM, and is removed when the result is
    written."""
    return config.out / "pet" / file_name(split.task.name, name, split.shots, split.seed)


def _result(
    config: CompareConfig,
    lm: LanguageModel,
    split: FewShotSplit,
    name: str,
    report: Callable[[str], None],
) -> Result:
    """The result of a method on a split: read from its file, or computed now."""
    file = _result_file(config, split, name)
    if not file.exists():
        began = time.monotonic()
        result = _compute(config, lm, split, name, report)
        result["seconds"] = round(time.monotonic() - began, 1)
        files.write_json(file, result)
    shutil.rmtree(_pet_folder(config, split, name), ignore_errors=True)
    result = files.read_json(file)
    _report_result(result, report)
    return result


def _compute(
    config: CompareConfig,
    lm: LanguageModel,
    split: FewShotSplit,
    name: str,
    report: Callable[[str], None],
) -> Result:
    """Run a method or a baseline on a split. Where the task has no template that this kind of LM
    can read, or the LM no head that the method needs, the result says why it is impossible."""
    kinds = ("train", "dev", "test", "unlabeled")
    result: Result = {
        "task": split.task.name,
        "method": name,
        "shots": split.shots,
        "seed": split.seed,
        "metric": split.main_metric,
        "rows": {kind: len(getattr(split, kind)) for kind in kinds},
    }
    try:
        if name in BASELINES:
            return result | run_baseline(lm, split, name)
        folder = _pet_folder(config, split, name)
        return result | run_method(config, lm, split, method(name), folder, report)
    except (TemplateError, VerbalizerError, ModelError) as error:
        if error.of_row or not (isinstance(error, TemplateError) or name == "next-sentence"):
            raise
        return result | {"impossible": str(error)}
    except DivergedError as error:
        if not error.trained:  # the scores of an LM that is not trained here
            raise
        return result | {"figures": {}, "diverged": True, "told": str(error)}


def _report_result(result: Result, report: Callable[[str], None]) -> None:
    """A line about a result, and a line for each sentence about its training."""
    outcome = result.get("impossible") or result.get("told")
    if not outcome:
        figure = result["figures"][result["metric"]]
        outcome = f"{result['metric']} {figure:.3f}, {result['seconds']:.0f} s"
    shots = f"{result['shots']} shots" if result["shots"] else ""
    report(f"{result['task']:9} {shots:8} seed {result['seed']}  {result['method']:20} {outcome}")
    for sentence in result.get("account", ()):
        report(f"  {sentence}")
