"""Tasks whose answer is a label: what a task, or an ensemble, answers, and how good that is."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ptune.answers.extraction import Extraction
from ptune.answers.from_row import TRUTH, Choices, Span
from ptune.answers.label_words import Verbalizer
from ptune.answers.word_labels import WordLabels
from ptune.lm.language_model import LanguageModel
from ptune.metrics import answers as answer_metrics
from ptune.metrics import entities, texts
from ptune.metrics import label_sets as label_set_metrics
from ptune.metrics.intervals import interval
from ptune.metrics.labels import check, check_first, labelled, mean
from ptune.model.prompt_model import Example, PromptModel, Row
from ptune.model.rows.examples import Shortening
from ptune.model.running.label_answers import confidence_of
from ptune.tasks import task_members
from ptune.tasks.judging import judge_extractions, judge_label_sets, judge_words
from ptune.tasks.judging.baselines import Question
from ptune.tasks.judging.label_details import LabelDetails
from ptune.tasks.resolved.task_form import Answers, TaskForm
from ptune.tasks.rows.row_labels import with_truths
from ptune.template.language import Template


@dataclass(frozen=True)
class Answer:
    """What was answered to a row: the label (of equal shares the first), or the text of the choice,
    and whether it is right; the same of each member; and the labels' shares, the number of the
    right label among them, and that of the task that answered (of an ensemble the first)."""

    label: str
    text: str
    right: bool
    members: tuple[bool, ...]
    shares: list[float]
    right_label: int | None
    task: int


def answer(
    model: PromptModel, rows: Sequence[Row], shortening: Shortening | None = None
) -> list[Answer]:
    """Answer rows that hold what is right, each by the prompt of its user or by all of an ensemble,
    in mixed batches.

    Args:
        shortening: counts the rows that are shortened.

    Raises:
        DataError, TemplateError: a row does not fit; the message gives its number.
    """
    examples = [model.encode_for(row, number) for number, row in enumerate(rows, 1)]
    if shortening is not None:
        for examples_of_row in examples:
            shortening.count(examples_of_row)
    scores = iter(model.scores([example for row_examples in examples for example in row_examples]))
    return [
        _answer(model, row_examples, [next(scores) for _ in row_examples])
        for row_examples in examples
    ]


def together(
    model: PromptModel, examples: Sequence[Example], scores: Sequence[torch.Tensor]
) -> torch.Tensor:
    """The labels' shares [C] of a row by all that answer it.

    Args:
        examples: the row, as each of them has it.
        scores: of each.

    Raises:
        ConfigError: their labels are not the same, or in another order.
    """
    return model.together(examples, scores)


def _answer(
    model: PromptModel, examples: Sequence[Example], scores: Sequence[torch.Tensor]
) -> Answer:
    first, fitted = examples[0], model.tasks[examples[0].task]
    shares = together(model, examples, scores)
    best = int(shares.argmax())
    verbalizer = fitted.task.verbalizer
    text = (
        verbalizer.texts(first.row)[best]
        if isinstance(verbalizer, Choices)
        else first.labels.labels[best]
    )
    members = tuple(int(one.argmax()) == first.label for one in scores)
    return Answer(
        label=first.labels.labels[best],
        text=text,
        right=best == first.label,
        members=members,
        shares=shares.tolist(),
        right_label=first.label,
        task=first.task,
    )


def default_metrics(answers: Answers) -> tuple[str, ...]:
    """The figures of a kind of labels where none are asked for, the main one first."""
    if answers.word_labels:
        return judge_words.metrics_of(answers.word_labels, ())
    if answers.extraction:
        return answer_metrics.DEFAULT
    return label_set_metrics.DEFAULT if answers.multi_label else ("accuracy",)


def metrics_of(form: TaskForm) -> tuple[str, ...]:
    """The figures of a task with labels, the main one first."""
    return form.judging.metrics or default_metrics(form.answers)


def check_metrics(form: TaskForm, rows: Sequence[Row]) -> None:
    """Refuse, before anything is trained, metrics that cannot be computed on the rows that will be
    scored.

    Raises:
        ConfigError: a metric is unknown, or cannot be computed on these labels.
        DataError: a row lacks a field that a metric needs.
    """
    answers, metrics = form.answers, metrics_of(form)
    if words := answers.word_labels:
        entities.check(metrics, words.labels, words.rules)
    elif answers.extraction:
        answer_metrics.check(metrics)
    elif answers.multi_label:
        labels, separator = answers.names, form.layout.label_separator
        present = judge_label_sets.present(rows, form.target, labels, separator)
        label_set_metrics.check(metrics, labels, present)
    elif answers.are_chosen:
        check_first(form.judging.metrics)
        check(metrics, rows, form.target, answers.shared)
    else:
        texts.check(form.judging.metrics)


def question(
    form: TaskForm,
    lm: LanguageModel,
    *,
    train: Sequence[Row],
    test: Sequence[Row],
    training_labels: Sequence[str],
) -> Question:
    """A task as the baselines get it, its labels being the same for all rows.

    Args:
        training_labels: of all rows that there are to learn from.

    Raises:
        ConfigError: the task's templates read no field of the rows.
    """
    inputs = Template.parse(task_members.inputs(form, lm)).for_lm(lm.tokens, lm.kind, True)[0]
    return Question(
        train=train,
        test=test,
        labels=form.answers.names,
        training_labels=training_labels,
        inputs=inputs,
        target=form.target,
        metrics=metrics_of(form),
        max_length=form.max_length,
        multi_label=form.answers.multi_label,
        label_separator=form.layout.label_separator,
    )


def judge(
    model: PromptModel,
    rows: Sequence[Row],
    metrics: Sequence[str] = (),
    *,
    shortening: Shortening | None = None,
    details: LabelDetails | None = None,
) -> dict[str, float]:
    """Figures over rows: accuracy, or those that are named; of an ensemble also the best member's
    accuracy and the members' mean.

    Args:
        shortening: counts the rows that are shortened.
        details: is filled: its intervals, and the others where all rows share their labels.

    Raises:
        ConfigError: a metric is unknown, or cannot be computed on these labels.
    """
    if isinstance(model.tasks[0].task.verbalizer, WordLabels):
        return judge_words.judge(model, rows, metrics, shortening=shortening, details=details)
    if isinstance(model.tasks[0].task.verbalizer, Extraction):
        return judge_extractions.judge(model, rows, metrics, shortening=shortening, details=details)
    if model.tasks[0].task.multi_label:
        return judge_label_sets.judge(model, rows, metrics, shortening)
    names, target, verbalizer = (
        metrics or ("accuracy",),
        model.tasks[0].task.target,
        model.tasks[0].task.verbalizer,
    )
    labels = shared_labels(model)
    rows = with_truths(rows, target, labels)
    check(names, rows, target, labels)
    answers = answer(model, rows, shortening)
    if details is not None:
        details.answers = answers
    if details is not None and isinstance(verbalizer, Verbalizer):
        details.fill(labels, rows, target, answers)
    figures: dict[str, float] = {}
    for name in names:
        predicted = [
            row_answer.text if name.startswith("record") else row_answer.label
            for row_answer in answers
        ]
        shares = [row_answer.shares for row_answer in answers]
        figures |= labelled([name], rows, predicted, target, labels=labels, shares=shares)
        if details is not None and (
            ends := interval(name, rows, predicted, target, labels=labels, shares=shares)
        ):
            details.intervals[name] = ends
    if model.is_ensemble:
        members = [mean(hits) for hits in zip(*(row_answer.members for row_answer in answers))]
        figures |= {
            "accuracy of the best member": max(members),
            "mean accuracy of the members": mean(members),
        }
    return figures


def shared_labels(model: PromptModel) -> Sequence[str]:
    """The labels that all rows of the first task have; none where rows bring their own answers."""
    verbalizer = model.tasks[0].task.verbalizer
    if isinstance(verbalizer, Span):
        return TRUTH
    return verbalizer.labels if isinstance(verbalizer, Verbalizer) else ()


def selective_figures(
    model: PromptModel,
    answers: Sequence[Answer],
    coverage: float | None = None,
    at_least: float | None = None,
) -> dict[str, float]:
    """Figures of answers that may be several labels, or none.

    Args:
        coverage: of sets of labels: "coverage", the share of rows whose set holds the right label,
            and "set size", how many labels a set has on average.
        at_least: "answered", the share of rows whose answer has this probability at least, and
            "accuracy of the answered", where there are any.

    Raises:
        ConfigError: a task keeps no scores of dev rows, by which sets are made.
    """
    figures: dict[str, float] = {}
    if coverage is not None:
        sets = [confidence_of(model, one.task).label_set(one.shares, coverage) for one in answers]
        hits = [float(one.right_label in label_set) for one, label_set in zip(answers, sets)]
        figures |= {"coverage": mean(hits), "set size": mean([float(len(one)) for one in sets])}
    if at_least is not None:
        sure = [one for one in answers if max(one.shares) >= at_least]
        figures["answered"] = len(sure) / len(answers)
        if sure:
            figures["accuracy of the answered"] = mean([float(one.right) for one in sure])
    return figures
