"""Every labelled row answered by prompts that did not learn from it."""

import random
from collections.abc import Mapping, Sequence

import torch

from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Row
from ptune.selection.candidates import Candidate, PetCandidate
from ptune.tasks import task_members
from ptune.tasks.resolved.task_form import TaskForm
from ptune.template.fields import numbers_by_text
from ptune.training.loop import fit
from ptune.training.pattern_exploiting import pet

ALWAYS_LEARNED = -1  # the fold of a row that is never held out


def folds(form: TaskForm, rows: Sequence[Row], count: int, seed: int) -> list[int]:
    """The number of the fold in which each row is held out, drawn by the seed: of every label about
    as many rows in each fold. Rows of which the task reads the same text stay together, whatever
    else stands in them. The only row of a label is never held out (``ALWAYS_LEARNED``).

    Args:
        count: how many folds there are, two at least.
    """
    groups: dict[str, list[list[int]]] = {}
    for numbers in numbers_by_text(rows, task_members.fields(form)).values():
        groups.setdefault(str(rows[numbers[0]][form.target]), []).append(numbers)
    fold_of = [ALWAYS_LEARNED] * len(rows)
    first = 0
    for label, order in sorted(groups.items()):
        random.Random(f"{seed} {label}").shuffle(order)
        if len(order) < 2:
            continue
        for position, numbers in enumerate(order):
            for number in numbers:
                fold_of[number] = (first + position) % count
        first += len(order)
    return fold_of


def out_of_fold(
    candidate: Candidate, lm: LanguageModel, rows: Sequence[Row], fold_of: Sequence[int]
) -> dict[int, list[float]]:
    """The labels' probabilities of every row that is held out in some fold, by its number, from the
    prompt that learned from all other rows. The prompts of all folds train as one bank; a method
    that changes the LM trains one fold after the other, and leaves the LM as it was.

    Raises:
        PtuneError: the candidate does not fit the task, the rows or the LM, or its training
            diverged.
    """
    numbers = sorted(set(fold_of) - {ALWAYS_LEARNED})
    if candidate.tunes_lm:
        parts = [_tuned(candidate, lm, rows, fold_of=fold_of, fold=fold) for fold in numbers]
        return {number: shares for part in parts for number, shares in part.items()}
    model = PromptModel(lm)
    tasks = {fold: _add(model, candidate, _learned(rows, fold_of, fold), fold) for fold in numbers}
    if candidate.method.tune == "prompt":
        data = {
            task: (_learned(rows, fold_of, fold), _learned(rows, fold_of, fold))
            for fold, task in tasks.items()
        }
        smallest = min(len(learned) for learned, _ in data.values())
        fit(model, data, candidate.settings(smallest), label=f"{candidate.name}, folds")
    return _held_out_shares(model, tasks, rows, fold_of)


def _tuned(
    candidate: Candidate,
    lm: LanguageModel,
    rows: Sequence[Row],
    *,
    fold_of: Sequence[int],
    fold: int,
) -> dict[int, list[float]]:
    """One fold of a method that changes the LM."""
    weights, learned = lm.weights(), _learned(rows, fold_of, fold)
    label = f"{candidate.name}, fold {fold + 1}"
    try:
        if isinstance(candidate, PetCandidate):
            plan = candidate.plan(lm, len(learned))
            outcome = pet.pet(
                lm,
                plan,
                learned,
                dev=learned,
                unlabeled=candidate.unlabeled,
                folder=None,
                label=label,
            )
            return _held_out_shares(outcome.model, {fold: 0}, rows, fold_of)
        model = PromptModel(lm)
        task = _add(model, candidate, learned, fold)
        fit(
            model,
            {task: (learned, learned)},
            candidate.settings(len(learned)),
            tune=candidate.method.tune,  # type: ignore[arg-type]
            label=label,
        )
        return _held_out_shares(model, {fold: task}, rows, fold_of)
    finally:
        lm.restore(weights)


def _add(model: PromptModel, candidate: Candidate, rows: Sequence[Row], fold: int) -> int:
    return candidate.add(model, rows, f"fold {fold + 1}")


def _learned(rows: Sequence[Row], fold_of: Sequence[int], fold: int) -> list[Row]:
    return [row for row, held in zip(rows, fold_of) if held != fold]


@torch.no_grad()
def _held_out_shares(
    model: PromptModel, tasks: Mapping[int, int], rows: Sequence[Row], fold_of: Sequence[int]
) -> dict[int, list[float]]:
    """The labels' probabilities of the rows that are held out, by number.

    Args:
        tasks: the number of the task of each fold.
    """
    numbers = [number for number, fold in enumerate(fold_of) if fold in tasks]
    examples = [model.encode(tasks[fold_of[n]], [rows[n]], first=n + 1)[0] for n in numbers]
    scores = model.scores(examples)
    return {n: values.softmax(0).tolist() for n, values in zip(numbers, scores)}
