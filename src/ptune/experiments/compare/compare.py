"""Methods side by side on tasks with labels: the same few rows for all, drawn again for every
seed."""

import pathlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ptune.base import files, terminal
from ptune.base.file_names import file_name
from ptune.base.ranks import ALONE, Ranks, check_gpus
from ptune.errors import ConfigError, DivergedError, PtuneError, nearest
from ptune.experiments.compare import compare_checks, demonstrations
from ptune.experiments.compare.compare_methods import (
    Procedure,
    pet_plan,
    run_baseline,
    run_method,
    run_pet,
    settings_of,
)
from ptune.experiments.compare.compare_rows import (
    BESIDE,
    BESIDE_TASK,
    FewShotSplit,
    check_shots,
    draw_all,
    is_impossible,
    listed,
    read_tasks,
)
from ptune.experiments.compare.compare_summary import behind_baselines, summarise
from ptune.experiments.options import CompareConfig
from ptune.experiments.train import train_findings
from ptune.lm.language_model import LanguageModel
from ptune.lm.source.loading import choose_device
from ptune.metrics.labels import BASELINES
from ptune.reports.pages import compare_page
from ptune.reports.schemas import Comparison
from ptune.reports.trial_results import ComparedResult, MethodOutcome, divergences
from ptune.runs import identity
from ptune.runs.folder import RunFolder, working_in
from ptune.runs.logs.open_logs import check_logs, opened_logs
from ptune.runs.logs.training_log import TrainingLog
from ptune.runs.trials import JsonResults, Trial, run_trials
from ptune.runs.trials import assist as assist_trials
from ptune.settings import TrainConfig
from ptune.survey import findings
from ptune.tasks.resolved.parts import TaskParts
from ptune.tasks.resolved.unread import check_rates
from ptune.training.methods import METHODS, PET, method

TITLES = BASELINES | {
    name: preset.title for name, preset in METHODS.items() if name != "fine-tune"
}  # what may be compared


@dataclass(frozen=True)
class _Comparison:
    """A comparison that was set up.

    Attributes:
        procedure: how each method is run.
        names: the methods and baselines, in order.
        splits: the rows of every task, number of shots and seed.
        may_be_unknown: the tasks whose texts may be unknown to the LM.
        out: the folder.
        shown: the settings, for the page.
        identity: all that the results depend on, beside a result's own method, shots and seed.
        logs: what gets the figures of trainings while they run.
        ranks: the processes that train together.
    """

    procedure: Procedure
    names: Sequence[str]
    splits: Sequence[FewShotSplit]
    may_be_unknown: Collection[str]
    lm: LanguageModel
    out: pathlib.Path
    shown: Mapping[str, Any]
    identity: Mapping[str, Any]
    report: Callable[[str], None]
    logs: Sequence[TrainingLog] = ()
    ranks: Ranks = ALONE

    def split(self, trial: Trial) -> FewShotSplit:
        """The rows of a trial."""
        drawn = (trial.task, trial.shots, trial.seed)
        return next(
            split for split in self.splits if (split.form.name, split.shots, split.seed) == drawn
        )


def compare(
    config: CompareConfig,
    report: Callable[[str], None] | None = None,
    ranks: Ranks = ALONE,
) -> Comparison:
    """Run the comparison that the config describes, and write results.json and report.html.

    Args:
        report: gets each line about the progress; by default it is printed.
        ranks: the processes that train prompts together, of which this is the first; the others
            call ``assist``.

    Raises:
        PtuneError: a task, its rows, the LM or a setting is at fault.
        DivergedError: every training diverged.
    """
    console = terminal.Console(stderr=config.as_json)
    report = report or partial(console.print, markup=False, highlight=False, soft_wrap=True)
    names, tasks = _asked(config, ranks)
    check_logs(config.log)
    settings = config.model_dump(mode="json")
    with (
        working_in(config.out, "ptune compare", config.resume) as folder,
        opened_logs(config.log, config.out, settings) as logs,
    ):
        compared = replace(_set_up(config, names, tasks, report), logs=logs, ranks=ranks)
        trials = _trials(compared)
        _check(compared, trials)
        results = _run(compared, trials, folder)
        comparison = _summarise(compared, results)
    if config.as_json:
        terminal.print_json(comparison.model_dump_json(indent=2))
    else:
        _show(comparison, config.out, console, report)
    _report_faults(comparison, results, report)
    return comparison


def assist(config: CompareConfig, ranks: Ranks) -> None:
    """Train, beside the first process that calls ``compare``, the prompts of the comparison.

    Raises:
        PtuneError: as ``compare``.
    """
    compared = _set_up(config, *_asked(config, ranks), terminal.print_nothing)
    compared = replace(compared, ranks=ranks)
    trials = [trial for trial in _trials(compared) if _trains_prompts(trial.method)]
    assist_trials(trials, partial(_run_trial, compared), ranks)


def _trains_prompts(name: str) -> bool:
    """Whether a method trains prompts on a frozen LM, which processes do together."""
    return name in METHODS and name not in PET and METHODS[name].tune == "prompt"


def _asked(config: CompareConfig, ranks: Ranks) -> tuple[list[str], list[TaskParts]]:
    """The methods and baselines, in order, and the tasks.

    Raises:
        PtuneError: a method, a task or the device is not there.
    """
    check_gpus(config.device, ranks)
    choose_device(config.device)
    names = listed(config.methods)
    if unknown := next((name for name in names if name not in TITLES), None):
        raise ConfigError(f"There is no method {unknown!r} to compare. {nearest(unknown, TITLES)}")
    names = [*BASELINES, *(name for name in names if name not in BASELINES)]
    tasks = read_tasks(
        config.tasks,
        config.preset,
        lm=config.lm,
        test_rows=config.test,
        max_length=config.max_length,
    )
    if config.demonstrations is not None:
        demonstrations.check([task.form for task in tasks], config.demonstrations)
    if config.select != "splits" and config.splits != CompareConfig.model_fields["splits"].default:
        raise ConfigError(
            f"--splits is of --select splits, and patterns are chosen by {config.select}: add "
            "--select splits, or leave --splits out."
        )
    if config.train.seed is not None:
        raise ConfigError(
            "--train.seed is the number of each draw here: --seeds says how many draws there are, "
            "and data.seed in a task's file which is the first."
        )
    methods = [METHODS[name] for name in names if name in METHODS]
    check_rates(config.train, [(task.form, one) for task in tasks for one in methods])
    return names, tasks


def _set_up(
    config: CompareConfig,
    names: Sequence[str],
    tasks: Sequence[TaskParts],
    report: Callable[[str], None],
) -> _Comparison:
    """Draw the rows of all tasks, and load the LM."""
    check_shots(tasks, config.shots, report)
    splits = [split for task in tasks for split in draw_all(task, config.shots, config.seeds)]
    _report_leakage(splits, report)
    tuned = any(METHODS[name].tune in ("head", "lm", "both") for name in names if name in METHODS)
    lm = LanguageModel.load(
        tasks[0].source.name, device=config.device, dtype=config.dtype, tuned=tuned
    )
    allowed = [task.form.name for task in tasks if task.allow_unknown or config.allow_unknown]
    return _Comparison(
        procedure=_procedure(config),
        names=names,
        splits=splits,
        may_be_unknown=allowed,
        lm=lm,
        out=config.out,
        shown=_shown(config, tasks),
        identity=_identity(config, lm, tasks),
        report=report,
    )


def _report_leakage(splits: Sequence[FewShotSplit], report: Callable[[str], None]) -> None:
    """Report texts that are learned from and scored, or that choose a state and are scored."""
    for split in splits:
        rows = {"train": split.train, "dev": split.dev, "test": split.test}
        for sentence in train_findings.of_rows(split.form, rows):
            if sentence.startswith(findings.LEAKAGE):
                report(f"{split.name}: {sentence}")


def _procedure(config: CompareConfig) -> Procedure:
    """How the command wants each method to be run."""
    return Procedure(
        steps=config.steps,
        evaluations=config.looks,
        overrides=config.train,
        select=config.select,
        halves=config.splits,
        demonstrations=config.demonstrations,
        grid=config.grid,
    )


def _trials(compared: _Comparison) -> list[Trial]:
    """Every method and baseline on every draw of each task's rows."""
    trials = []
    for split in compared.splits:
        rows = _rows_identity(split)
        trials += [_trial(compared, split, name, rows) for name in compared.names]
    return trials


def _rows_identity(split: FewShotSplit) -> dict[str, str]:
    kinds = ("train", "dev", "test", "unlabeled")
    return {kind: identity.of_rows(getattr(split, kind)) for kind in kinds}


def _trial(compared: _Comparison, split: FewShotSplit, name: str, rows: dict[str, str]) -> Trial:
    task, shots, seed = split.form.name, split.shots, split.seed
    shared = {key: value for key, value in compared.identity.items() if key != "tasks"}
    settings = {
        **shared,
        "lm": identity.hashed(shared["lm"]),
        "task": identity.hashed(compared.identity["tasks"][task]),
        "rows": rows,
    }
    if name not in BASELINES:
        settings |= {
            "method": identity.of_value(repr(replace(method(name), train=TrainConfig()))),
            "training": identity.of_settings(settings_of(compared.procedure, split, method(name))),
        }
    return Trial(
        method=name,
        task=task,
        seed=seed,
        shots=shots,
        settings=settings,
        file=f"results/{file_name(task)}/{name}-{shots}-{seed}.json",
        scratch=f"pet/{file_name(task, name, shots, seed)}",
    )


def _check(compared: _Comparison, trials: Sequence[Trial]) -> None:
    """Check the rows of the first draw of each task, and try each method that has no result for it
    yet on two of them; of a task without any results, that the LM can read its texts too."""
    first_splits = {split.form.name: split for split in reversed(compared.splits)}
    for name, split in first_splits.items():
        of_task = [trial for trial in trials if trial.task == name and trial.method in METHODS]
        begun = {trial.method for trial in of_task if (compared.out / trial.file).exists()}
        names = [trial.method for trial in of_task if trial.method not in begun]
        if not begun:
            allowed = name in compared.may_be_unknown
            compare_checks.check_texts(compared.lm, split, allowed, compared.report)
        untried = [method(name) for name in dict.fromkeys(names)]
        compare_checks.check_rows(compared.lm, split, untried, compared.report)
        compare_checks.rehearse(compared.procedure, compared.lm, split, untried)


def _run(compared: _Comparison, trials: Sequence[Trial], folder: RunFolder) -> list[ComparedResult]:
    """Run the trials that have no results yet, in a folder that is held; methods, seeds, shots and
    tasks may be added to those that are in the folder."""
    folder.claim(compared.identity, grows="tasks")
    lm = compared.lm
    size = sum(parameter.numel() for parameter in lm.model.parameters())
    compared.report(f"{lm.source}: {lm.kind} LM, {size / 1e6:.1f} M parameters, on {lm.device}")
    return run_trials(
        trials,
        compared.out,
        run=partial(_run_trial, compared),
        results=JsonResults(ComparedResult),
        on_result=partial(_report_result, compared.report),
        ranks=compared.ranks,
    )


def _run_trial(
    compared: _Comparison, trials: Sequence[Trial], scratch: pathlib.Path | None
) -> Iterator[ComparedResult]:
    """Run a method or a baseline on a split. Where the task has no template that this kind of LM
    can read, or the LM no head that the method needs, the result says why it is impossible."""
    (trial,) = trials
    split = compared.split(trial)
    kinds = ("train", "dev", "test", "unlabeled")
    began = time.monotonic()
    outcome, impossible = MethodOutcome(), ""
    try:
        outcome = _outcome(compared, split, trial.method, scratch)
    except DivergedError as error:
        if not error.trained:  # the scores of an LM that is not trained here
            raise
        outcome = MethodOutcome(diverged=True, reason=str(error))
    except PtuneError as error:
        if not is_impossible(error, trial.method):
            raise
        impossible = str(error)
    yield ComparedResult(
        **dict(outcome),
        task=trial.task,
        method=trial.method,
        shots=trial.shots,
        seed=trial.seed,
        metric=split.main_metric,
        rows={kind: len(getattr(split, kind)) for kind in kinds},
        impossible=impossible,
        seconds=round(time.monotonic() - began, 1),
    )


def _outcome(
    compared: _Comparison, split: FewShotSplit, name: str, scratch: pathlib.Path | None
) -> MethodOutcome:
    """What a method or a baseline gives on a split."""
    procedure, lm = compared.procedure, compared.lm
    if name in BASELINES:
        return run_baseline(lm, split, name)
    settings = settings_of(procedure, split, method(name))
    if name not in PET:
        return run_method(
            procedure,
            lm,
            split,
            method=method(name),
            settings=settings,
            logs=compared.logs,
            ranks=compared.ranks if _trains_prompts(name) else ALONE,
        )
    assert scratch is not None
    plan = pet_plan(procedure, lm, split, method=method(name), settings=settings)
    label = f"{TITLES[name]}, {split.name}"
    return run_pet(
        lm, split, plan, folder=scratch, label=label, report=compared.report, logs=compared.logs
    )


def _summarise(compared: _Comparison, results: Sequence[ComparedResult]) -> Comparison:
    """Write results.json and the page from the results of single trials."""
    titles = {name: TITLES[name] for name in compared.names}
    shown = {**compared.shown, "identity": compared.identity}
    comparison = summarise(results, titles, shown)
    files.write_json(compared.out / "results.json", comparison.model_dump(mode="json"))
    compare_page.write(comparison, results, compared.out)
    return comparison


def _show(
    comparison: Comparison,
    folder: pathlib.Path,
    console: terminal.Console,
    report: Callable[[str], None],
) -> None:
    """Print the comparison as tables with the names of the files that hold it."""
    for table in compare_page.tables(comparison):
        console.print(table)
    report(f"Results: {folder / 'results.json'}   Report: {folder / 'report.html'}")


def _report_faults(
    comparison: Comparison, results: Sequence[ComparedResult], report: Callable[[str], None]
) -> None:
    """Report the trainings that diverged, and the methods that are behind a baseline.

    Raises:
        DivergedError: every training diverged.
    """
    for sentence in [*divergences(results), *behind_baselines(comparison)]:
        report(sentence)
    trained = [result for result in results if result.method not in BASELINES]
    if trained and all(result.diverged and not result.figures for result in trained):
        raise DivergedError(
            "Every training diverged, so there are no figures: lower the learning rates "
            "(--train.learning-rate, --train.lm-learning-rate)."
        )


def _shown(config: CompareConfig, tasks: Sequence[TaskParts]) -> dict[str, Any]:
    """The settings in the words of the command and of the tasks' files, for the page."""
    settings = config.model_dump(mode="json", exclude={*BESIDE, "tasks"})
    names = [task.form.name for task in tasks]
    by_task = {f"task {task.form.name}": _without_run(task.settings) for task in tasks}
    return {**settings, "tasks": names, **by_task}


def _without_run(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A task's settings without those of a single run."""
    beside = ("out", "resume", "device")
    return {name: value for name, value in settings.items() if name not in beside}


def _identity(
    config: CompareConfig, lm: LanguageModel, tasks: Sequence[TaskParts]
) -> dict[str, Any]:
    """All that the results depend on, beside a result's own task, method, shots and seed."""
    beside = (*BESIDE, *BESIDE_TASK, "tasks")
    return {
        **identity.of_settings(config, beside),
        "lm": identity.of_lm(lm),
        "tasks": {task.form.name: identity.with_contents(task.deciding) for task in tasks},
    }


def _report_result(report: Callable[[str], None], result: ComparedResult) -> None:
    """A line about a result, and a line for each sentence about its training."""
    outcome = result.impossible or result.reason
    if not outcome:
        figure = result.figures[result.metric]
        outcome = f"{result.metric} {figure:.3f}, {result.seconds:.0f} s"
    shots = f"{result.shots} shots" if result.shots else ""
    report(f"{result.task:9} {shots:8} seed {result.seed}  {result.method:20} {outcome}")
    for sentence in result.account:
        report(f"  {sentence}")
