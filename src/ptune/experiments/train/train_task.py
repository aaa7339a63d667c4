"""Training a task: its prompts, or the LM, saved with their figures on the test rows."""

import importlib.metadata
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.base import terminal
from ptune.errors import DivergedError, PtuneError
from ptune.experiments.train import (
    train_checks,
    train_findings,
    train_model,
    train_results,
    train_setup,
)
from ptune.experiments.train.train_rows import TaskRows, texts_that_are_read
from ptune.experiments.train.train_setup import CHECKPOINT, PET
from ptune.lm.language_model import LanguageModel
from ptune.model.confidence import fit_confidence
from ptune.model.prompt_model import PromptModel
from ptune.model.running import label_sets
from ptune.reports.schemas import Run
from ptune.runs.folder import RunFolder, working_in
from ptune.runs.logs.open_logs import check_logs, opened_logs
from ptune.runs.logs.training_log import TrainingLog
from ptune.settings import TrainConfig
from ptune.storage import prompt_folder
from ptune.survey.text_checks import unknown_text
from ptune.tasks import task_members
from ptune.tasks.judging import judge_labels, judge_texts
from ptune.tasks.pet_task import plan_of
from ptune.tasks.rows import data_sets
from ptune.tasks.schema import TaskConfig
from ptune.training.loop import account, fit, lower_rates
from ptune.training.methods import Method
from ptune.training.pattern_exploiting import pet
from ptune.training.prompt_training import TrainingHistory

MOST_SENTENCES = 5  # about single prompts' trainings
MAY_CHANGE = (
    "data",
    "train",
    "metrics",
    "parts",
    "version",
    "versions",
)  # where prompts of a bank are added or go on


@dataclass(frozen=True)
class _Setup:
    """A task with all that its training needs.

    Attributes:
        start: prompts as which new ones begin.
        identity: all that the outcome depends on.
        data_findings: what is odd about the rows.
        logs: what gets the figures of the training while it runs.
    """

    config: TaskConfig
    method: Method
    settings: TrainConfig
    rows: TaskRows
    lm: LanguageModel
    start: PromptModel | None
    folder: RunFolder
    identity: Mapping[str, Any]
    report: Callable[[str], None]
    data_findings: Sequence[str]
    logs: Sequence[TrainingLog] = ()

    def claim_folder(self) -> None:
        """Claim the folder, once all that can be checked before the first step is checked."""
        if self.folder.begun is None:
            self.folder.claim(self.identity)


@dataclass(frozen=True)
class _Trained:
    """What a training gave.

    Attributes:
        tasks: the number of each saved prompt's task.
        method: what is saved by, and counted by: PET saves an LM with its classifier.
        histories: how each task's training went; empty where nothing was trained.
        lost: raised when all other prompts are saved.
    """

    model: PromptModel
    tasks: Mapping[str | None, int]
    method: Method
    baselines: dict[str, dict[str, float]]
    histories: Mapping[int | str, TrainingHistory] = field(default_factory=dict)
    lost: DivergedError | None = None

    def name(self, number: int | str) -> str:
        """The name of a task."""
        return self.model.tasks[int(number)].task.name


def train(config: TaskConfig, report: Callable[[str], None] = terminal.print_line) -> Run:
    """Train the task's prompts (or the LM), save them in the out folder, and score the test rows,
    if there are any.

    Args:
        report: gets each line about the progress.

    Raises:
        PtuneError: the task, its rows or the LM are at fault.
        DivergedError: the training, or that of one of the prompts, left no finite state to keep;
            that is not saved.
    """
    config = config.model_copy(update={"data": data_sets.as_files(config.data)})
    if config.continue_from is not None:
        config = train_setup.continued(config)
    method = train_setup.resolve_method(config)
    train_setup.check_out(config)
    check_logs(config.log)
    settings = config.model_dump(mode="json")
    with (
        working_in(config.out, "ptune train", config.resume, adds=bool(config.only)) as folder,
        opened_logs(config.log, config.out, settings) as logs,
    ):
        return _train_in(config, method, folder, logs, report)


def _train_in(
    config: TaskConfig,
    method: Method,
    folder: RunFolder,
    logs: Sequence[TrainingLog],
    report: Callable[[str], None],
) -> Run:
    """The training, in a folder that is held."""
    setup = replace(_set_up(config, method, folder, report), logs=logs)
    if folder.begun is not None:
        folder.claim(setup.identity, free=MAY_CHANGE if config.only else ())
    if train_setup.is_finished(config):
        return train_results.finished_run(config, report)
    began = time.monotonic()
    trained = _train_pet(setup) if method.name in PET else _train_prompts(setup)
    model, tasks, rows = trained.model, trained.tasks, setup.rows
    if train_setup.is_weighted(config, model.tasks[0].verbalizer is not None):
        train_checks.weigh(model, tasks, rows.of("dev", None), trained.histories)
    _fit_confidence(setup.config, trained, rows)
    run = _record(setup, trained, time.monotonic() - began)
    config = setup.config
    train_results.save(config, model, tasks, trained.method, run)
    try:
        if config.only and (config.out / "run.json").exists():
            train_results.add_other_prompts(config, setup.lm, rows.by_prompt["test"], run)
        else:
            train_results.score_test_rows(config, model, rows.scored(tasks), run)
    except PtuneError as error:
        raise type(error)(
            f"{error} What was trained is saved in {config.out}; ptune evaluate scores it."
        ) from error
    train_results.save_figures(config, run)
    _report_figures(config, run, report)
    if trained.lost:
        raise DivergedError(f"{trained.lost} All other prompts are saved.", trained.histories)
    return run


def _set_up(
    config: TaskConfig, method: Method, folder: RunFolder, report: Callable[[str], None]
) -> _Setup:
    """Read the rows, then the LM, and check that they fit together."""
    rows = TaskRows.read(config, report)
    judge_labels.check_metrics(config, rows.splits["test"] or rows.splits["dev"])
    data_findings = train_findings.of_rows(config, rows)
    lm, start = train_setup.load_lm(config, method), None
    texts = texts_that_are_read(config, rows.splits)
    for sentence in unknown_text.check(texts, lm.tokens, config.allow_unknown):
        report(sentence)
    if config.continue_from is not None:
        folders = prompt_folder.folders_in(config.continue_from)
        start = prompt_folder.load(folders, lm, trainable=True)
        config = config.model_copy(update={"lm": lm.source})
    return _Setup(
        config=config,
        method=method,
        settings=train_setup.train_settings(config),
        rows=rows,
        lm=lm,
        start=start,
        folder=folder,
        identity=train_setup.run_identity(config, lm),
        report=report,
        data_findings=data_findings,
    )


def _train_pet(setup: _Setup) -> _Trained:
    """PET: its members label the unlabelled rows, and the classifier that learns from those is what
    the task keeps."""
    config, lm, splits, report = setup.config, setup.lm, setup.rows.splits, setup.report
    tasks: dict[str | None, int] = {None: 0}
    plan = plan_of(config, lm, setup.method, task_members.members(config, lm=lm), setup.settings)
    classifier = train_checks.untrained_classifier(lm, plan)
    train_checks.check_rows(config, classifier, tasks, setup.rows, ["test"], report)
    figures = train_results.baseline_figures(config, lm, splits["train"], splits["test"])
    learned = (splits["train"], splits["dev"], splits["unlabeled"])
    if setup.folder.begun is None:
        pet.rehearse(lm, plan, *learned)
    setup.claim_folder()
    folder = config.out / "pet"
    outcome = pet.pet(
        lm,
        plan,
        *learned,
        folder,
        config.resume,
        config.name,
        report,
        rehearsed=True,
        logs=setup.logs,
    )
    for member in outcome.members:
        report(
            f"{member.name}, generation {member.generation}: {member.rows} rows, weight "
            f"{member.weight:.3f}, dev {member.dev:.3f}"
        )
    report(f"Together on dev: {', '.join(f'{score:.3f}' for score in outcome.ensembles)}")
    _report_model(outcome.model, report)
    method = replace(setup.method, tune="both")
    return _Trained(outcome.model, tasks, method, figures, {0: outcome.trained})


def _train_prompts(setup: _Setup) -> _Trained:
    """Train the prompts of the task, or the LM, or nothing."""
    config, rows, method = setup.config, setup.rows, setup.method
    model, tasks = train_model.build(config, setup.lm, rows.by_prompt["train"], setup.start)
    train_checks.check_rows(config, model, tasks, rows, ["train", "dev", "test"], setup.report)
    scored = rows.splits["test"] if config.only else rows.scored(tasks)
    figures = train_results.baseline_figures(config, setup.lm, rows.splits["train"], scored)
    _report_model(model, setup.report)
    if method.tune == "nothing":
        setup.claim_folder()
        for value, number in tasks.items():
            if dev := rows.of("dev", value):
                label_sets.choose_threshold(model, number, model.encode(number, dev))
        return _Trained(model, tasks, method, figures)
    data = {
        number: (rows.of("train", value), rows.of("dev", value)) for value, number in tasks.items()
    }
    if not (config.out / CHECKPOINT).exists():
        train_checks.rehearse(config, model, tasks, data, setup.settings, method, rows)
    setup.claim_folder()
    lost = None
    try:
        histories = fit(
            model,
            data,
            setup.settings,
            tune=method.tune,
            folder=config.out,
            resume=config.resume,
            label=config.name,
            unlabeled=rows.splits["unlabeled"],
            texts=judge_texts.dev_score(config.stop_by, config.decoding),
            logs=setup.logs,
        )
    except DivergedError as error:
        histories, lost = error.trained, error
        if not config.prompt_by or all(history.best is None for history in histories.values()):
            raise
        tasks = {value: number for value, number in tasks.items() if histories[number].best}
    trained = _Trained(model, tasks, method, figures, histories, lost)
    _report_training(setup, trained)
    return trained


def _fit_confidence(config: TaskConfig, trained: _Trained, rows: TaskRows) -> None:
    """Let the prompts keep what their dev rows say about their probabilities."""
    scaled = config.reading.temperature == "dev"
    if not config.prompt_by:
        tasks = list(trained.tasks.values())
        fit_confidence(trained.model, tasks, rows.of("dev", None), scaled)
        return
    for value, number in trained.tasks.items():
        fit_confidence(trained.model, [number], rows.of("dev", value), scaled)


def _report_model(model: PromptModel, report: Callable[[str], None]) -> None:
    """Report what the model does otherwise than its template and label words say."""
    if model.tasks[0].dropped:
        report(
            f"Left out of the template, since a causal LM cannot see it: {model.tasks[0].dropped}"
        )
    verbalizers = [
        bound.verbalizer
        for bound in model.tasks
        if bound.task.reader.scores_words and isinstance(bound.verbalizer, BoundVerbalizer)
    ]
    notes = [note for verbalizer in verbalizers for note in verbalizer.notes]
    for note in dict.fromkeys(notes):
        report(note)


def _report_training(setup: _Setup, trained: _Trained) -> None:
    """Report how the trainings ended, of the first few prompts one by one."""
    histories = trained.histories
    sentences = [
        sentence
        for number, history in histories.items()
        for sentence in account(trained.name(number), history, setup.settings)
    ]
    for sentence in sentences[:MOST_SENTENCES]:
        setup.report(sentence)
    if len(sentences) > MOST_SENTENCES:
        setup.report(f"... and {len(sentences) - MOST_SENTENCES} more like that.")
    if any(history.diverged and history.best for history in histories.values()):
        setup.report(
            "Training diverged (the loss was no finite number any more); the best state "
            "before that is kept. "
            f"To train on, {lower_rates(setup.settings, setup.method.tune)}."
        )


def _record(setup: _Setup, trained: _Trained, seconds: float) -> Run:
    """What run.json says before the test rows are scored."""
    config = setup.config
    trained_parameters, kept_parameters = train_results.parameter_counts(
        trained.model, list(trained.tasks.values()), trained.method
    )
    histories = {trained.name(number): history for number, history in trained.histories.items()}
    return Run(
        name=config.name,
        method=config.method,
        title=config.title or setup.method.title,
        template=config.template or " | ".join(config.patterns),
        lm=config.lm,
        lm_parameters=sum(parameter.numel() for parameter in setup.lm.model.parameters()),
        rows=setup.rows.counts(),
        data_findings=list(setup.data_findings),
        history={
            name: [vars(evaluation) for evaluation in history.history]
            for name, history in histories.items()
        },
        best={name: vars(history.best) for name, history in histories.items() if history.best},
        dev_score=train_setup.dev_score(config, len(setup.rows.splits["unlabeled"])),
        seconds={"train": round(seconds, 1)},
        settings=config.model_dump(mode="json"),
        versions={
            name: importlib.metadata.version(name) for name in ("ptune", "torch", "transformers")
        },
        trained_parameters=trained_parameters,
        kept_parameters=kept_parameters,
        baselines=trained.baselines,
        train=setup.settings.model_dump(mode="json") if histories else {},
        steps={name: history.step for name, history in histories.items()},
        answer_tokens={
            name: history.answer_tokens
            for name, history in histories.items()
            if history.answer_tokens
        },
        diverged=[name for name, history in histories.items() if history.diverged and history.best],
        lost=[name for name, history in histories.items() if not history.best],
    )


def _report_figures(config: TaskConfig, run: Run, report: Callable[[str], None]) -> None:
    """Report the test figures, and how the baselines do on the same rows."""
    for sentence in run.data_findings:
        if sentence.startswith(("Leakage", "The right texts")):
            report(sentence)
    figures = ", ".join(f"{name} {value:.4g}" for name, value in run.figures.items())
    report(f"{config.name}: {figures + '; ' if figures else ''}saved in {config.out}")
    for name, reason in run.left_out.items():
        report(f"Without {name}: {reason}")
    train_results.report_beside(config, run, report)
