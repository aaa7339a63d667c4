"""``learning_rate: auto``: prompts are tried at several rates in one batch for a few steps, and the
rate that is best on dev trains them from the beginning."""

import pathlib
from collections.abc import Callable, Sequence

from ptune.base import files
from ptune.base.ranks import ALONE, Ranks
from ptune.errors import DivergedError
from ptune.experiments.beginning.first_steps import Copies, Data, train_copies
from ptune.model.prompt_model import PromptModel
from ptune.settings import TrainConfig

FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)  # of the method's own rate
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
        ranks: the processes that train together.

    Raises:
        DivergedError: at every rate a training left no finite state.
    """
    note = folder / NOTE
    known = ranks.from_first(lambda: files.read_json(note)["rate"] if note.exists() else None)
    if known is not None:
        return float(known)
    rates = [float(f"{factor * settings.learning_rate:g}") for factor in FACTORS]
    copies = train_copies(
        model, data, settings, count=len(rates), label="learning rates", rates=rates, ranks=ranks
    )
    tried = {rate: _mean(copies, of, list(data)) for of, rate in enumerate(rates)}
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


def _mean(copies: Copies, of: int, tasks: Sequence[int]) -> tuple[float, float] | None:
    """The mean best dev score of the tasks' copies, and minus their mean dev loss; None where one
    of them diverged."""
    best = [score for task in tasks if (score := copies.score(of, task))]
    if len(best) < len(tasks):
        return None
    return sum(dev for dev, _ in best) / len(best), sum(loss for _, loss in best) / len(best)
