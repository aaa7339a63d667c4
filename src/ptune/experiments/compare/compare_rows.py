"""The rows of a comparison: for every task, number of shots and seed the same few rows for all
methods."""

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ptune.answers.readers.reader_table import READERS
from ptune.errors import ConfigError, ModelError, PtuneError, TemplateError, VerbalizerError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import Row
from ptune.settings import PetConfig, Preset, TrainOverrides
from ptune.tasks import task_members, yaml_task
from ptune.tasks.judging.judge_labels import check_metrics
from ptune.tasks.resolved import refusals, resolve
from ptune.tasks.resolved.parts import TaskParts
from ptune.tasks.resolved.task_form import Learning, TaskForm
from ptune.tasks.rows import data_sets, task_rows
from ptune.tasks.rows.splits import training_labels
from ptune.tasks.schema import DataConfig
from ptune.tasks.task_members import Member
from ptune.template.language import Template
from ptune.training.methods import Method

BESIDE = (
    "methods",
    "seeds",
    "shots",
    "out",
    "resume",
    "as_json",
    "device",
    "log",
)  # settings that change no single result
BESIDE_TASK = ("lm", "dtype", "title", "only")  # of a task, that change none either


@dataclass(frozen=True)
class FewShotSplit:
    """What the methods learn from and are scored on, which is the same for all of them.

    Attributes:
        form: the task.
        learning: how its prompts learn.
        pet: how PET goes about it.
        overrides: its settings of training.
        shots: rows of each label; 0 for a task that has its own few-shot files.
        training_labels: the labels of all rows that the task has to learn from, of which ``train``
            holds a few.
        zero_shot: the main figure on the labelled rows of every pattern with its words when nothing
            is trained, filled in as it is computed.
    """

    form: TaskForm
    learning: Learning
    pet: PetConfig
    overrides: TrainOverrides
    shots: int
    seed: int
    train: list[Row]
    dev: list[Row]
    test: list[Row]
    unlabeled: list[Row]
    training_labels: list[str]
    zero_shot: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What tells the split apart, for progress bars and logs."""
        shots = f", {self.shots} shots" if self.shots else ""
        return f"{self.form.name}{shots}, seed {self.seed}"

    @property
    def main_metric(self) -> str:
        """The figure that the task is judged by."""
        return (self.form.judging.metrics or ("accuracy",))[0]


def read_tasks(
    names: Sequence[str],
    preset: Preset | None = None,
    *,
    lm: str | None = None,
    test_rows: int | None = None,
    max_length: int | None = None,
) -> list[TaskParts]:
    """The tasks that are compared, resolved.

    Args:
        names: their files, or names of tasks that come with ptune.
        lm, test_rows, max_length: the LM, how many test rows at most and how many tokens of an
            input, in place of what the tasks say.

    Raises:
        ConfigError: a task has no labels, two have the same name, or they name different LMs.
    """
    tasks = []
    for name in names:
        task = yaml_task.read(pathlib.Path(name), preset)
        task = task.model_copy(update={"data": data_sets.as_files(task.data)})
        refusals.check_comparable(task)
        take = dict(task.data.take) | ({"test": test_rows} if test_rows else {})
        changes = {
            "lm": task.lm if lm is None else lm,
            "data": task.data.model_copy(update={"take": take}),
            "max_length": max_length or task.max_length,
        }
        task = task.model_copy(update=changes)
        tasks.append(resolve.task_parts(task, beside=(*BESIDE, *BESIDE_TASK)))
    if len(sources := {task.source.name for task in tasks}) > 1:
        raise ConfigError(
            f"The tasks name different LMs ({', '.join(sorted(sources))}): choose one with --lm."
        )
    names = [task.form.name for task in tasks]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"Two of the tasks are called {repeated!r}: give each a different name.")
    return tasks


def _shots(text: str, data: DataConfig) -> list[int]:
    """How many rows of each label; 0 for a task that has its own few-shot files.

    Args:
        text: the numbers that the command names, with commas between.
    """
    if data.shots is None:
        return [0]
    return [int(number) for number in listed(text)] or [data.shots]


def check_shots(tasks: Sequence[TaskParts], text: str, report: Callable[[str], None]) -> None:
    """Refuse numbers of rows of each label that cannot be, or that no task would read, and report
    the tasks that do not read them.

    Args:
        text: the numbers that the command names, with commas between.

    Raises:
        ConfigError: they cannot be, or no task reads them.
    """
    if not all(number.isdigit() and int(number) for number in listed(text)):
        raise ConfigError(
            f"--shots takes whole numbers with commas between, such as 16,32; it is {text!r}."
        )
    taken = [task.form.name for task in tasks if task.data.shots is None]
    if not text or not taken:
        return
    names = ", ".join(taken)
    sentence = f"{names}: the rows are those of the task's files, and --shots is not read"
    advice = "Where so many of each label are to be drawn, the task's file says data: {shots: 16}."
    if len(taken) == len(tasks):
        raise ConfigError(f"{sentence}. {advice}")
    report(f"{sentence}.")


def listed(text: str) -> list[str]:
    """The parts of an option that lists names or numbers with commas between."""
    return [part.strip() for part in text.split(",") if part.strip()]


def draw_all(task: TaskParts, shots: str, seeds: int) -> list[FewShotSplit]:
    """What the methods learn from for every number of shots and every seed. The metrics are checked
    on the test rows.

    Args:
        shots: the numbers that the command names, with commas between; the task's own without any.
        seeds: how many, from the task's own on.

    Raises:
        PtuneError: the rows or the metrics are at fault.
    """
    form, data = task.form, task.data
    labels_to_learn_from = training_labels(data, form.target, form.answers.names)
    drawn = []
    for number in _shots(shots, data):
        for seed in range(data.seed, data.seed + seeds):
            rows = _draw(form, data, number, seed)
            split = FewShotSplit(
                form=form,
                learning=task.learning,
                pet=task.pet,
                overrides=task.overrides,
                shots=number,
                seed=seed,
                training_labels=labels_to_learn_from,
                train=rows["train"],
                dev=rows["dev"],
                test=rows["test"],
                unlabeled=rows["unlabeled"],
            )
            drawn.append(split)
    check_metrics(form, drawn[0].test)
    return drawn


def _draw(form: TaskForm, data: DataConfig, shots: int, seed: int) -> dict[str, list[Row]]:
    """The rows of one seed by their split; the test rows are the same for all seeds."""
    changes = {"seed": seed} | ({"shots": shots} if shots else {})
    drawn = data.model_copy(update=changes)
    rows = task_rows.read(form, drawn)
    if seed:
        rows["test"] = task_rows.read(form, drawn.model_copy(update={"seed": 0}))["test"]
    return rows


def is_impossible(error: PtuneError, method: str) -> bool:
    """Whether an error says that a method cannot do a task with this LM, since none of the task's
    templates can be read by an LM of its kind, or the LM lacks the head that the method needs.
    Errors of single rows and of settings are other faults."""
    if error.of_row or not isinstance(error, TemplateError | VerbalizerError | ModelError):
        return False
    return isinstance(error, TemplateError) or method == "next-sentence"


def readable_members(form: TaskForm, method: Method, lm: LanguageModel) -> list[Member]:
    """The templates and words by which a method asks the task and that an LM of this kind can read,
    those of patterns without words left out where the method trains such words.

    Raises:
        TemplateError: there is none.
        ConfigError: the task has no pattern or template for the method.
    """
    if not form.patterns:
        raise ConfigError(
            f"{form.name} has no patterns, by which methods are compared: hand-written templates, "
            "beside the template with soft tokens."
        )
    if method.reader and not form.answers.labels:
        raise TemplateError(f"{form.name} has no labels for {method.name} to choose between.")
    members, reason = [], None
    whole = READERS[method.reader or "words"].mask != "needed"
    for member in task_members.members(form, method, lm):
        try:
            Template.parse(member.template).for_lm(lm.tokens, lm.kind, whole)
            task_members.check_softened(method, member)
            members.append(member)
        except TemplateError as error:
            reason = error
    if not members:
        raise reason or TemplateError(f"{form.name} has no template.")
    return members
