"""What a training leaves: its prompts or LM, its figures on the test rows, and its report."""

import contextlib
import importlib.metadata
import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ptune.base import files
from ptune.errors import ConfigError, DivergedError
from ptune.experiments.train.train_model import folder_of
from ptune.experiments.train.train_setup import CHECKPOINT, Setup, score_of_training
from ptune.lm.language_model import LanguageModel
from ptune.metrics import intervals, text_words
from ptune.metrics.labels import BASELINES, BASELINES_OF_WORDS
from ptune.model.prompt_model import PromptModel, Row
from ptune.reports.schemas import Run
from ptune.settings import TrainConfig
from ptune.storage import peft_format, prompt_folder
from ptune.survey import findings
from ptune.tasks.judging import baselines, judge_labels, judge_texts, word_baselines
from ptune.tasks.judging.label_details import LabelDetails
from ptune.tasks.resolved.task_form import TaskForm
from ptune.tasks.rows.splits import training_labels
from ptune.tasks.schema import DataConfig
from ptune.training.loop import account, lower_rates
from ptune.training.methods import Method
from ptune.training.prompt_training import TrainingHistory

MOST_SENTENCES = 5  # about single prompts' trainings
Figures = dict[str, dict[str, float]]


class Baselines(Protocol):
    """What gives the figures of the baselines, as ``baseline_figures`` does."""

    def __call__(
        self,
        form: TaskForm,
        data: DataConfig,
        lm: LanguageModel,
        *,
        train: Sequence[Row],
        test: Sequence[Row],
    ) -> Figures: ...


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Attributes:
        tasks: the number of each saved prompt's task.
        method: what is saved by, and counted by: PET saves an LM with its classifier.
        histories: how each task's training went; empty where nothing was trained.
        lost: raised when all other prompts are saved.
        settings: those of the training, with the learning rate that was found.
        parameters: how many were trained, where that cannot be counted any more.
    """

    model: PromptModel
    tasks: Mapping[str | None, int]
    method: Method
    baselines: dict[str, dict[str, float]]
    histories: Mapping[int | str, TrainingHistory] = field(default_factory=dict)
    lost: DivergedError | None = None
    settings: TrainConfig | None = None
    parameters: int | None = None

    def name(self, number: int | str) -> str:
        """The name of a task."""
        return self.model.tasks[int(number)].task.name


def parameter_counts(model: PromptModel, tasks: Sequence[int], method: Method) -> tuple[int, int]:
    """How many parameters were trained, and how many are kept."""
    bank, lm = model.bank, model.lm
    prompts = [model.tasks[task].prompt for task in tasks if model.tasks[task].prompt >= 0]
    trained = {id(one): one.numel() for prompt in prompts for one in bank.parameters_of(prompt)}
    prompt_size = sum(trained.values())
    lm_size = sum(parameter.numel() for parameter in lm.model.parameters())
    head_size = 0
    if method.tune == "head":
        head_size = sum(parameter.numel() for parameter in lm.head_parameters())
    sizes = {
        "prompt": prompt_size,
        "head": head_size,
        "lm": lm_size,
        "both": prompt_size + lm_size,
    }
    kept = sum(bank.size(prompt) for prompt in prompts)
    tuned_lm = lm_size if method.tune in ("lm", "both") else head_size
    return sizes.get(method.tune, 0), kept + tuned_lm


def baseline_figures(
    form: TaskForm,
    data: DataConfig,
    lm: LanguageModel,
    *,
    train: Sequence[Row],
    test: Sequence[Row],
) -> Figures:
    """The figures of the baselines, by the LM as it is before any training."""
    labels = form.answers.names
    if not (labels and train and test):
        return {}
    if form.answers.word_labels:
        return word_baselines.figures(form, lm, train=train, test=test)
    to_learn = [] if form.answers.multi_label else training_labels(data, form.target, labels)
    asked = judge_labels.question(form, lm, train=train, test=test, training_labels=to_learn)
    return baselines.figures(asked, lm)


def score_test_rows(form: TaskForm, model: PromptModel, rows: Sequence[Row], run: Run) -> None:
    """Score the test rows of all prompts as one set, and write the figures into the run."""
    judging = form.judging
    if not rows:
        return
    if model.tasks[0].verbalizer is not None:
        details = LabelDetails()
        run.figures = judge_labels.judge(model, rows, judging.metrics, details=details)
        run.confusion = details.confusion
        run.calibration = details.calibration
        run.wrong = details.wrong
        run.intervals = details.intervals
        return
    judged = judge_texts.judge(
        model, rows, form.decoding, metrics=judging.metrics, parts=judging.parts
    )
    run.figures = judged.figures
    run.parts = judged.parts
    run.left_out = judged.left_out
    if sentence := text_words.sentence(judged.split):
        run.data_findings.append(sentence)
    run.outputs = judged.outputs
    run.seconds["write"] = round(judged.seconds, 1)


def save(
    folder: pathlib.Path,
    model: PromptModel,
    tasks: Mapping[str | None, int],
    *,
    method: Method,
    run: Run,
) -> None:
    """Save the tuned LM, where there is one, and each prompt with its best figures on dev; with
    them PEFT's own files, where they can say the same."""
    if method.tune in ("head", "lm", "both"):
        model.lm.save(folder / "lm")
        model.lm.source = str(folder / "lm")
    for value, number in tasks.items():
        best = run.best.get(model.tasks[number].task.name)
        figures = {}
        if best:
            figures = {f"dev {run.dev_score}": best["dev"], "dev loss": best["dev_loss"]}
        place = folder_of(folder, value)
        prompt_folder.save(model, place, task=number, metrics=figures, encoder=True)
        if method.tune == "prompt":
            with contextlib.suppress(ConfigError):
                peft_format.export(model, place, number)


def save_figures(folder: pathlib.Path, run: Run) -> None:
    """Write run.json, the page and the test figures beside what is saved, and end the run."""
    from ptune.reports.pages import runs_page

    if run.figures and (folder / "prompt.json").exists():
        figures = {f"test {name}": figure for name, figure in run.figures.items()}
        prompt_folder.note_metrics(folder, figures)
    files.write_json(folder / "run.json", run.model_dump(mode="json"))
    runs_page.write([run], folder)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def finished_run(folder: pathlib.Path, report: Callable[[str], None]) -> Run:
    """The run in its folder; its page is written where a kill left it without one."""
    from ptune.reports.pages import runs_page

    run = runs_page.read([folder])[0]
    if not (folder / "report.html").exists():
        runs_page.write([run], folder)
    report(f"The run in {folder} is finished; for another choose another --out.")
    return run


def add_other_prompts(
    form: TaskForm,
    folder: pathlib.Path,
    lm: LanguageModel,
    *,
    rows: Mapping[str | None, list[Row]],
    run: Run,
) -> int:
    """Put beside the prompts that were trained what the earlier run says of the other prompts of
    their bank, and score all as one set; return how many rows were scored.

    Args:
        rows: the test rows by their prompts.
    """
    from ptune.reports.pages import runs_page

    before = runs_page.read([folder])[0]
    trained_now = {*run.history, *run.lost}
    model = prompt_folder.load(prompt_folder.folders_in(folder), lm)
    others = {bound.task.name for bound in model.tasks} - trained_now
    for attribute in ("history", "best", "steps", "answer_tokens"):
        earlier = getattr(before, attribute)
        kept = {name: value for name, value in earlier.items() if name in others}
        setattr(run, attribute, {**kept, **getattr(run, attribute)})
    for attribute in ("diverged", "lost"):
        names = [name for name in getattr(before, attribute) if name not in trained_now]
        setattr(run, attribute, [*names, *getattr(run, attribute)])
    run.trained_parameters = run.trained_parameters // max(1, len(trained_now)) * len(run.history)
    run.kept_parameters = sum(model.bank.size(bound.prompt) for bound in model.tasks)
    run.seconds["train"] = round(run.seconds["train"] + before.seconds.get("train", 0.0), 1)
    owners = {bound.task.by[1] for bound in model.tasks if bound.task.by}
    of_owners = [rows_of_owner for value, rows_of_owner in rows.items() if value in owners]
    scored = list(itertools.chain.from_iterable(of_owners))
    score_test_rows(form, model, scored, run)
    return len(scored)


def report_beside(form: TaskForm, run: Run, report: Callable[[str], None]) -> None:
    """Report how much the figures depend on the test rows, what a user would get without prompts,
    and last of all whether that is better."""
    if run.intervals:
        report(intervals.sentence(run.intervals))
    if not (run.baselines and run.figures):
        return
    metric = judge_labels.metrics_of(form)[0]
    scores = {name: figures[metric] for name, figures in run.baselines.items()}
    titles = BASELINES_OF_WORDS if form.answers.word_labels else BASELINES
    listed = "; ".join(f"{titles[name]} {score:.4g}" for name, score in scores.items())
    report(f"Baselines without prompts, on the same rows, {metric}: {listed}")
    if ahead := baselines.behind(run.figures[metric], scores):
        name, score = ahead
        report(
            f"This run ({run.figures[metric]:.4g}) is behind a baseline, {titles[name]} "
            f"({score:.4g}): {_advice(form, run)}."
        )


def _advice(form: TaskForm, run: Run) -> str:
    if form.answers.word_labels:
        return word_baselines.ADVICE
    return baselines.advice(run.method, form.answers.multi_label)


def report_training(setup: Setup, trained: Trained) -> None:
    """Report how the trainings ended, of the first few prompts one by one."""
    histories = trained.histories
    sentences = [
        sentence
        for number, history in histories.items()
        for sentence in account(trained.name(number), history, setup.parts.train)
    ]
    for sentence in sentences[:MOST_SENTENCES]:
        setup.report(sentence)
    if len(sentences) > MOST_SENTENCES:
        setup.report(f"... and {len(sentences) - MOST_SENTENCES} more like that.")
    if any(history.diverged and history.best for history in histories.values()):
        setup.report(
            "Training diverged (the loss was no finite number any more); the best state "
            "before that is kept. "
            f"To train on, {lower_rates(setup.parts.train, setup.parts.method.tune)}."
        )


def record(setup: Setup, trained: Trained, seconds: float) -> Run:
    """What run.json says before the test rows are scored."""
    parts, form, lm = setup.parts, setup.parts.form, setup.lm
    name = parts.source.name if setup.start is None else lm.source
    trained_parameters, kept_parameters = parameter_counts(
        trained.model, list(trained.tasks.values()), trained.method
    )
    histories = {trained.name(number): history for number, history in trained.histories.items()}
    return Run(
        name=form.name,
        method=parts.method.name,
        title=parts.title or parts.method.title,
        template=form.template or " | ".join(form.patterns),
        lm=name,
        lm_parameters=sum(parameter.numel() for parameter in lm.model.parameters()),
        rows=setup.rows.counts(),
        data_findings=list(setup.data_findings),
        history={
            name: [vars(evaluation) for evaluation in history.history]
            for name, history in histories.items()
        },
        best={name: vars(history.best) for name, history in histories.items() if history.best},
        dev_score=score_of_training(setup),
        seconds={"train": round(seconds, 1)},
        settings={**parts.settings, "lm": name},
        versions={
            name: importlib.metadata.version(name) for name in ("ptune", "torch", "transformers")
        },
        trained_parameters=trained.parameters or trained_parameters,
        kept_parameters=kept_parameters,
        baselines=trained.baselines,
        train=(trained.settings or parts.train).model_dump(mode="json") if histories else {},
        steps={name: history.step for name, history in histories.items()},
        answer_tokens={
            name: history.answer_tokens
            for name, history in histories.items()
            if history.answer_tokens
        },
        diverged=[name for name, history in histories.items() if history.diverged and history.best],
        pruned=[name for name, history in histories.items() if history.pruned],
        lost=[name for name, history in histories.items() if not history.best],
    )


def report_figures(
    form: TaskForm, folder: pathlib.Path, run: Run, report: Callable[[str], None]
) -> None:
    """Report the test figures, and how the baselines do on the same rows."""
    for sentence in run.data_findings:
        is_told = sentence.startswith((findings.LEAKAGE, "The right texts"))
        if is_told or findings.MAY_BE_MISSING in sentence:
            report(sentence)
    figures = ", ".join(f"{name} {value:.4g}" for name, value in run.figures.items())
    report(f"{form.name}: {figures + '; ' if figures else ''}saved in {folder}")
    for name, reason in run.left_out.items():
        report(f"Without {name}: {reason}")
    report_beside(form, run, report)
