"""Everything that can be checked before the first step of a training is checked here."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ptune.errors import DivergedError
from ptune.experiments.train.train_rows import TaskRows
from ptune.experiments.train.train_setup import is_weighted, remembers_rows
from ptune.lm.language_model import LanguageModel
from ptune.model.neighbours import keep_neighbours
from ptune.model.prompt_model import PromptModel, Row
from ptune.model.rows.examples import Shortening
from ptune.settings import DecodingConfig
from ptune.tasks.judging import judge_labels, judge_texts
from ptune.tasks.resolved.task_form import Judging, TaskForm
from ptune.training import rehearsal
from ptune.training.loop import Training, accuracy
from ptune.training.methods import Method
from ptune.training.pattern_exploiting.pet_plan import Plan
from ptune.training.prompt_training import TrainingHistory


def check_rows(
    model: PromptModel,
    tasks: Mapping[str | None, int],
    rows: TaskRows,
    *,
    splits: Sequence[str],
    judging: Judging,
    report: Callable[[str], None],
    beside_others: bool = False,
) -> None:
    """Tokenise every row for every task that takes it, and compute the figures as if all answers
    were right, so that what does not fit is refused before the first step. Rows that are shortened
    are reported.

    Args:
        tasks: the number of each prompt's task.
        splits: the splits whose rows the model takes.
        beside_others: prompts that were trained before are scored as well.

    Raises:
        PtuneError: a row or a metric does not fit.
    """
    for split in splits:
        shortening = Shortening()
        for value, number in tasks.items():
            rehearsal.try_rows(model, number, rows.of(split, value), shortening=shortening)
        if shortened := shortening.sentence(f"{split} rows", model.limit(0)):
            report(shortened)
    bound, scored = model.tasks[0], rows.scored(tasks)
    if not scored:
        return
    if not beside_others:
        report_left_out(rows, len(scored), report)
    if bound.verbalizer is None:
        judge_texts.check(bound, scored, judging.metrics, judging.parts)


def report_left_out(rows: TaskRows, scored: int, report: Callable[[str], None]) -> None:
    """Report how many test rows have no prompt that could answer them."""
    if left_out := rows.counts()["test"] - scored:
        report(
            f"{left_out} test rows have a {rows.prompt_by} whose prompt is not trained here, and "
            "are not scored."
        )


def untrained_classifier(lm: LanguageModel, plan: Plan) -> PromptModel:
    """The untrained classifier of PET, whose rows are checked before its members are trained."""
    model = PromptModel(lm)
    model.add(plan.classifier)
    return model


def rehearse(
    model: PromptModel,
    tasks: Mapping[str | None, int],
    training: Training,
    rows: TaskRows,
    *,
    form: TaskForm,
    method: Method,
) -> None:
    """Run on two rows, with a copy of the model, all that comes after the model is built: a step,
    an evaluation on dev, weights, figures.

    Args:
        tasks: the number of each prompt's task.
        training: what is trained, texts written as short as can be (``brief``).

    Raises:
        PtuneError: something does not fit together.
    """
    twin = rehearsal.one_step(
        model,
        [training],
        tune=method.tune,  # type: ignore[arg-type]
    )
    try_figures(twin, tasks, rows, form)


def brief(form: TaskForm) -> DecodingConfig:
    """How texts are written where the training is only tried: as short as can be."""
    least = max(1, form.decoding.min_new_tokens, 2)
    return form.decoding.model_copy(update={"max_new_tokens": least})


def try_figures(
    twin: PromptModel, tasks: Mapping[str | None, int], rows: TaskRows, form: TaskForm
) -> None:
    """Compute on two rows, with a copy of the model, all that comes after the training: weights,
    figures.

    Args:
        tasks: the number of each prompt's task.

    Raises:
        PtuneError: something does not fit together.
    """
    scored = rows.scored(tasks)[: rehearsal.ROWS]
    has_labels = twin.tasks[0].verbalizer is not None
    with contextlib.suppress(DivergedError):
        if is_weighted(form.combine, has_labels):
            weigh(twin, tasks, rows.of("dev", None)[: rehearsal.ROWS], {})
        if remembers_rows(form):
            keep_neighbours(twin, list(tasks.values()), rows.of("train", None)[: rehearsal.ROWS])
        if scored and has_labels:
            judge_labels.judge(twin, scored)
        elif scored:
            judge_texts.judge(twin, scored, brief(form), metrics=("bleu",))


def weigh(
    model: PromptModel,
    tasks: Mapping[str | None, int],
    rows: Sequence[Row],
    histories: Mapping[Any, TrainingHistory],
) -> None:
    """Give each member of an ensemble its accuracy on dev as its weight.

    Args:
        tasks: the number of each member's task.
        rows: the dev rows.
        histories: how the members' trainings went, by the numbers of their tasks.
    """
    for number in tasks.values():
        best = histories[number].best if number in histories else None
        if best is None:
            examples = model.encode(number, rows)
            weight = accuracy(model.scores(examples), examples)
        else:
            weight = best.dev
        model.tasks[number] = replace(model.tasks[number], weight=weight)
