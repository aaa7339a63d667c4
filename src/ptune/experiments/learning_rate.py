"""``learning_rate: auto``: prompts are tried at several rates in one batch for a few steps, and the
rate that is best on dev trains them from the beginning."""

import copy
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ptune.base import files
from ptune.base.ranks import ALONE, Ranks
from ptune.errors import DivergedError
from ptune.model.prompt_model import PromptModel, Row
from ptune.runs.without_trace import without_trace
from ptune.settings import TrainConfig
from ptune.training.loop import fit
from ptune.training.prompt_training import TrainingHistory

Data = Mapping[int, tuple[list[Row], list[Row]]]
FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)  # of the method's own rate
STEPS, LOOKS = 40, 4
NOTE = "learning-rate.json"


def find(
    model: PromptModel,
    data: Data,
    settings: TrainConfig,
    *,
    folder: pathlib.Path,
    report: Callable[[str], None],
    ranks: Ranks = ALONE,
) -> float:
    """The rate at which the prompts are best on dev after at most 40 steps. The model is left as it
    is; the rate is kept in the folder, where a run that goes on finds it.

    Args:
        data: the training rows and dev rows of each task, by its number.
        ranks: the processes that train together.

    Raises:
        DivergedError: at every rate a training left no finite state.
    """
    note = folder / NOTE
    known = ranks.from_first(lambda: files.read_json(note)["rate"] if note.exists() else None)
    if known is not None:
        return float(known)
    rates = [float(f"{factor * settings.learning_rate:g}") for factor in FACTORS]
    tried = _tried(model, data, settings, rates=rates, ranks=ranks)
    scores = {rate: score for rate, score in tried.items() if score}
    if not scores:
        raise DivergedError(
            f"At every learning rate from {rates[0]:g} to {rates[-1]:g} the training diverged: "
            "give a smaller one."
        )
    best = max(scores, key=lambda rate: (scores[rate], -rate))
    if not ranks.is_first:
        return best
    shown = ", ".join(f"{rate:g}: {score[0]:.3f}" for rate, score in scores.items())
    report(f"Learning rate {best:g}, the best on dev after a few steps of each ({shown}).")
    files.write_json(note, {"rate": best, "tried": {f"{rate:g}": scores[rate] for rate in scores}})
    return best


def _tried(
    model: PromptModel, data: Data, settings: TrainConfig, *, rates: Sequence[float], ranks: Ranks
) -> dict[float, tuple[float, float] | None]:
    """For each rate the mean best dev score of the tasks, and minus its mean dev loss; None where
    one of them diverged. All train in one batch."""
    twin = PromptModel(model.lm, copy.deepcopy(model.bank), list(model.tasks), model.max_length)
    copies = {rate: [_copy_of(twin, task) for task in data] for rate in rates}
    rows = {
        number: data[task] for numbers in copies.values() for task, number in zip(data, numbers)
    }
    steps = min(STEPS, settings.steps or STEPS)
    brief = settings.model_copy(
        update={
            "steps": steps,
            "epochs": None,
            "evaluate_every": max(1, steps // LOOKS),
            "patience": 0,
        }
    )
    histories: Mapping[int | str, TrainingHistory] = {}
    with without_trace(model.lm, tuned=False):
        try:
            by_number = {number: rate for rate, numbers in copies.items() for number in numbers}
            histories = fit(twin, rows, brief, label="learning rates", rates=by_number, ranks=ranks)
        except DivergedError as error:
            histories = error.trained
    return {
        rate: _mean([histories[number] for number in numbers]) for rate, numbers in copies.items()
    }


def _copy_of(model: PromptModel, task: int) -> int:
    """Put a copy of a task with its prompt into the model; return its number."""
    bound, bank = model.tasks[task], model.bank
    prompt = bank.add(
        copy.deepcopy(bank.encoders[bound.prompt]),
        copy.deepcopy(bank.prefixes[bound.prompt]) if bank.has_prefix(bound.prompt) else None,
        copy.deepcopy(bank.readers[bound.prompt]),
    )
    model.tasks.append(replace(bound, prompt=prompt))
    return len(model.tasks) - 1


def _mean(histories: Sequence[TrainingHistory]) -> tuple[float, float] | None:
    best = [history.best for history in histories if history.best and not history.diverged]
    if len(best) < len(histories):
        return None
    count = len(best)
    return sum(one.dev for one in best) / count, -sum(one.dev_loss for one in best) / count
