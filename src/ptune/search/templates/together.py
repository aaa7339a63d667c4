"""The templates that a search kept, as an ensemble: its figures on dev."""

from collections.abc import Sequence

from ptune.reports.search_results import CandidateScore, Together
from ptune.search.common import candidates as scoring
from ptune.search.common.running_search import RunningSearch
from ptune.search.templates import ensembles

MEAN, LEARNED = "mean of probabilities", "learned weights"


def together(search: RunningSearch, kept: Sequence[CandidateScore]) -> dict[str, float]:
    """The figures on dev of the kept templates together; none where the budget ends before, or one
    template alone was kept."""
    task = search.task
    calls = sum(scoring.cost(task, one, [*task.train, *task.dev, *task.dev]) for one in kept)
    if len(kept) < 2 or not search.budget.allows(calls):
        return {}
    done = search.stage(
        "ensemble",
        [[one.template for one in kept]],
        lambda _: _computed(search, kept, calls),
        form=Together,
    )[0]
    search.budget.spent += done.calls
    listed = ", ".join(f"{name} {value:.3f}" for name, value in done.figures.items())
    search.report(f"{len(kept)} templates together on dev: {listed}")
    return done.figures


def _computed(search: RunningSearch, kept: Sequence[CandidateScore], calls: int) -> Together:
    task = search.task
    train = ensembles.answers_of(task, kept, task.train)
    weights = ensembles.learned_weights(train.log_probs, train.right)
    figures = {
        name: task.figure(*ensembles.answered(task, kept, task.dev, mixture))
        for name, mixture in ((MEAN, None), (LEARNED, weights))
    }
    return Together(weights=weights.tolist(), figures=figures, calls=calls)
