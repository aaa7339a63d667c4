"""The kept candidates ranked anew on dev, after the LM was fine-tuned with each for a few steps on
train (LM-BFF, Gao et al. 2021, sections 5.1 and 5.2)."""

from collections.abc import Sequence

from ptune.errors import DivergedError
from ptune.model.calibration import calibrate
from ptune.model.prompt_model import PromptModel
from ptune.reports.search_results import CandidateScore, ScoredCandidates
from ptune.search.common import candidates as scoring
from ptune.search.common.running_search import RunningSearch
from ptune.settings import TrainConfig
from ptune.training import rehearsal
from ptune.training.loop import Training, fit
from ptune.training.methods import method


def tuning_of(steps: int, rows: int, seed: int) -> TrainConfig:
    """How the LM is fine-tuned with a candidate: so many steps, and the state after the last.

    Args:
        rows: how many train rows there are.
    """
    usual = method("manual+fine-tune").train
    return usual.replaced(
        {
            "steps": steps,
            "evaluate_every": steps,
            "patience": 0,
            "batch_size": min(usual.batch_size, rows),
            "seed": seed,
        }
    )


def try_tuning(search: RunningSearch) -> None:
    """Fine-tune for one step on two rows with the first hand-written template that the LM can read,
    and put the LM back.

    Raises:
        PtuneError: this LM cannot be fine-tuned.
    """
    for pattern in search.task.patterns:
        asked = CandidateScore(template=pattern, words=dict(search.task.words))
        model = PromptModel(search.task.lm, max_length=search.task.max_length)
        number, _ = scoring.added(model, search.task, asked)
        if number is not None and search.tuning is not None:
            data = {number: (search.task.train, search.task.dev)}
            rehearsal.one_step(model, [Training(data, search.tuning)], tune="lm")
            return


def fine_tuned(search: RunningSearch, kept: Sequence[CandidateScore]) -> list[CandidateScore]:
    """The kept candidates with their figures on dev after fine-tuning, the best first; one whose
    training diverges comes last. The LM is as before after each.

    Args:
        kept: the best on dev without training first.
    """
    results = search.stage(
        "tuned",
        [(one.template, one.words) for one in kept],
        lambda number: _tuned(search, kept[number], f"prompt {number + 1} of {len(kept)}"),
        form=ScoredCandidates,
    )
    search.budget.spent += sum(result.calls for result in results)
    figures = [result.candidates[0] for result in results]
    ranked = [
        one.model_copy(update={"tuned": scored.tuned, "tuned_loss": scored.tuned_loss})
        for one, scored in zip(kept, figures)
    ]
    if diverged := [one.template for one in ranked if one.tuned is None]:
        search.report(f"Fine-tuning diverged with {len(diverged)} prompts, such as {diverged[0]!r}")
    return sorted(ranked, key=_order)


def _order(one: CandidateScore) -> tuple[bool, float, float]:
    """By the figure, of equal ones by the loss; those without one last."""
    return one.tuned is None, -(one.tuned or 0.0), one.tuned_loss or 0.0


def _tuned(search: RunningSearch, candidate: CandidateScore, label: str) -> ScoredCandidates:
    """A candidate with its figure and loss on dev after fine-tuning."""
    task, calls = search.task, search.tuning_calls(candidate)
    assert search.tuning is not None
    model = PromptModel(task.lm, max_length=task.max_length)
    number = task.add(model, candidate)
    calibrate(model, number, task.calibration, task.train)
    weights = task.lm.weights()
    try:
        fit(model, {number: (task.train, task.dev)}, search.tuning, tune="lm", label=label)
        figure, loss = scoring.figure_and_loss(model, number, task, task.dev)
    except DivergedError:
        return ScoredCandidates(candidates=[candidate], calls=calls)
    finally:
        task.lm.restore(weights)
        task.lm.tune(False)
    scored = candidate.model_copy(update={"tuned": figure, "tuned_loss": loss})
    return ScoredCandidates(candidates=[scored], calls=calls)
