"""The task for which a prompt is searched: its rows, and how a candidate asks them."""

import pathlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.metrics.labels import labelled
from ptune.model.calibration import CONTENT_FREE, Calibration
from ptune.model.prompt_model import Example, PromptModel, Row, Task
from ptune.reports.search_results import CandidateScore
from ptune.search.common import writing
from ptune.tasks import model_task, task_members, yaml_task
from ptune.tasks.judging.judge_labels import check_metrics, metrics_of
from ptune.tasks.resolved import resolve
from ptune.tasks.resolved.parts import TaskParts
from ptune.tasks.resolved.task_form import Learning, TaskForm
from ptune.tasks.rows import data_sets, task_rows
from ptune.tasks.schema import DataConfig
from ptune.tasks.task_members import Member
from ptune.training.loop import accuracy
from ptune.training.methods import method

Drawn = TypeVar("Drawn")
# of a task, the settings that change no candidate's score
BESIDE_TASK = ("lm", "dtype", "title", "only", "out", "resume", "device")


@dataclass(frozen=True)
class SearchedTask:
    """What a prompt is searched for.

    Attributes:
        patterns: hand-written templates; the words of labels are searched for in these.
        template: the template with soft tokens, where it has one.
        words: the labels with their words; none where answers are words of a vocabulary.
        target: the field of a row that holds the right answer.
        field: the field that templates ask about; None where they take several.
        train, dev: the rows by which candidates are scored. There are no test rows here.
        all_train: the train rows that are not drawn too, in which templates are mined.
        metric: the name of the figure.
        asked: how a candidate asks the rows.
        figure: the figure of rows, from the scores of their labels; higher is better.
        calibration: what is taken off the scores of its words.
    """

    name: str
    lm: LanguageModel
    patterns: Sequence[str]
    template: str
    words: Mapping[str, str | list[str]]
    target: str
    train: Sequence[Row]
    dev: Sequence[Row]
    metric: str
    asked: Callable[[CandidateScore], Task]
    figure: Callable[[Sequence[torch.Tensor], Sequence[Example]], float]
    field: str | None = None
    all_train: Sequence[Row] = ()
    max_length: int | None = None
    calibration: Calibration = "none"

    @property
    def calibrated_by(self) -> int:
        """How many rows the LM reads to calibrate a candidate."""
        return {"none": 0, "prior": len(self.train)}.get(self.calibration, len(CONTENT_FREE))

    def add(self, model: PromptModel, candidate: CandidateScore) -> int:
        """Put a candidate into a model, and return the number of its task there; no LM is run.

        Raises:
            PtuneError: this LM cannot be asked so.
        """
        return model.add(self.asked(candidate))

    def answers_of(self, row: Row) -> list[str]:
        """The texts that answer a row rightly."""
        words = self.words.get(str(row[self.target]), str(row[self.target]))
        return [words] if isinstance(words, str) else list(words)

    def answers(self) -> set[str]:
        """The words of the right answers, and of the labels, in lower case."""
        listed = [
            word
            for words in self.words.values()
            for word in ([words] if isinstance(words, str) else words)
        ]
        right = [str(row[self.target]) for row in (*self.train, *self.dev)]
        return {piece.lower() for text in (*listed, *right) for piece in text.split()}


@dataclass(frozen=True, kw_only=True)
class SearchParts(TaskParts):
    """A task that is searched for, resolved.

    Attributes:
        written: what its file says, for the files of what is chosen.
    """

    written: Mapping[str, Any]


def read_task(file: pathlib.Path, *, lm: str | None, shots: int | None, seed: int) -> SearchParts:
    """The task of a search, resolved, with the command's LM and draw of rows, and without its test
    rows.

    Args:
        lm, shots: in place of what the task says, where given.

    Raises:
        ConfigError: the task's answers are no labels and no words of a vocabulary, or it has
            several prompts.
    """
    task = yaml_task.read(file)
    if not (task.labels or task.vocabulary):
        raise ConfigError(
            f"{task.name} has neither labels nor a vocabulary of answers, by which candidates are "
            "scored: ptune search is for tasks with labels and for facts."
        )
    given = {
        "prompt_by": task.prompt_by,
        "multi_label": task.multi_label,
        "tag": task.tag,
        "from": task.continue_from,
        "transfer": task.transfer,
        "visibility": task.visibility,
        "reading.refine": task.reading.refine,
        "reading.words": task.reading.words,
        "reading.by: weighted-words": task.reading.by == "weighted-words",
    }
    if others := [key for key, value in given.items() if value]:
        raise ConfigError(
            f"{task.name} has {others[0]}, with which ptune search cannot score a candidate as it "
            "stands: leave it out while you search."
        )
    draw = {"seed": seed} if shots is None else {"shots": shots, "seed": seed}
    scored = {**draw, "test": None, "unlabeled": None}
    data = data_sets.as_files(task.data.model_copy(update=scored))
    if data.train is None or (data.dev is None and data.shots is None):
        raise ConfigError(
            f"{task.name} needs rows for train and for dev, by which candidates are ranked and "
            "chosen: name both under data, or let --shots draw both from train."
        )
    rows = {**writing.data_of(task.data), **draw}
    task = task.model_copy(update={"data": data, "lm": task.lm if lm is None else lm})
    settings = task.model_dump(mode="json", exclude_unset=True, exclude=writing.LEFT_OUT)
    written = {**settings, "data": rows}
    return SearchParts(**vars(resolve.task_parts(task, BESIDE_TASK)), written=written)


def of_task(
    form: TaskForm,
    data: DataConfig,
    lm: LanguageModel,
    *,
    learning: Learning,
    most_rows: int,
    seed: int,
    report: Callable[[str], None],
) -> SearchedTask:
    """The task with its rows, as a search takes it.

    Args:
        most_rows: by how many rows of each kind candidates are scored.
        seed: of their draw.

    Raises:
        DataError, ConfigError: the rows or the metric are at fault.
    """
    rows = task_rows.read(form, data, report)
    drawn = {name: few(rows[name], most_rows, seed, name) for name in ("train", "dev")}
    check_metrics(form, drawn["dev"])
    metric, labels = metrics_of(form)[0], form.answers.names
    if form.answers.vocabulary and metric != "accuracy":
        raise ConfigError(f"{form.name}: answers of a vocabulary are judged by accuracy.")

    def asked(candidate: CandidateScore) -> Task:
        member = Member(candidate.template, candidate.words or form.answers.labels)
        return model_task.task_of(form, lm, member, method=method("manual"), learning=learning)

    def figure(scores: Sequence[torch.Tensor], examples: Sequence[Example]) -> float:
        if metric == "accuracy":
            return accuracy(scores, examples)
        names = [labels[int(one.argmax())] for one in scores]
        shares = [one.softmax(0).tolist() for one in scores]
        asked = [example.row for example in examples]
        return labelled([metric], asked, names, form.target, labels=labels, shares=shares)[metric]

    names = {field.name for field in task_members.fields(form)}
    return SearchedTask(
        name=form.name,
        lm=lm,
        patterns=form.patterns or ((form.template,) if "{soft" not in form.template else ()),
        template=form.template,
        words=form.answers.labels,
        target=form.target,
        train=drawn["train"],
        dev=drawn["dev"],
        metric=metric,
        asked=asked,
        figure=figure,
        all_train=rows["train"],
        field=names.pop() if len(names) == 1 else None,
        max_length=form.max_length,
        calibration=form.reading.calibration,
    )


def few(rows: Sequence[Drawn], most: int, seed: int, name: str) -> list[Drawn]:
    """As many rows at most, drawn by the seed, in their order."""
    if len(rows) <= most:
        return list(rows)
    numbers = sorted(random.Random(f"{seed} {name}").sample(range(len(rows)), most))
    return [rows[number] for number in numbers]
