"""Which candidate is taken: each answers rows that it did not learn from, and the best is taken."""

import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from pydantic import BaseModel

from ptune.answers.confidence import Confidence
from ptune.base.file_names import file_name
from ptune.base.terminal import print_nothing
from ptune.errors import ConfigError, PtuneError
from ptune.lm.language_model import LanguageModel
from ptune.metrics.labels import BASELINES, TFIDF, deviation
from ptune.model.prompt_model import PromptModel, Row
from ptune.runs.trials import JsonResults, Trial, run_trials
from ptune.selection.candidates import (
    PREFERRED,
    USUAL_PET,
    Candidate,
    candidates,
    with_best_patterns,
)
from ptune.selection.cross_validation import ALWAYS_LEARNED, folds, out_of_fold
from ptune.selection.held_out import HeldOut, Shares
from ptune.settings import PetConfig
from ptune.tasks.judging import baselines
from ptune.tasks.resolved.task_form import USUAL, Learning, TaskForm
from ptune.tasks.schema import AUTO

FOLDS = 3
MINUTES = 2.0
RESAMPLES = 1000
TIMED = 32  # rows


class Attempt(BaseModel):
    """What came out for one candidate.

    Attributes:
        name, title: of the candidate.
        figure: the main figure on rows that it did not learn from; None where it was not tried.
        folds: in how many folds these rows were held out.
        deviation: of that figure over the folds.
        loss: the mean of minus the log probability of the right labels of those rows.
        seconds: what trying it took.
        note: why it was not tried, not in all folds, or failed.
        estimate: the seconds that it would have taken, where there was no time to try it.
        savable: whether it can be trained and kept; a baseline is only compared with.
    """

    name: str
    title: str
    figure: float | None = None
    folds: int = 0
    deviation: float = 0.0
    loss: float = 0.0
    seconds: float = 0.0
    note: str = ""
    estimate: float = 0.0
    savable: bool = True


class Answered(BaseModel):
    """An attempt with its answers.

    Attributes:
        shares: the labels' probabilities of every row that was held out, by its number; none where
            the candidate was not tried.
    """

    attempt: Attempt
    shares: Shares = {}


class Selection(BaseModel):
    """What was tried, and what was chosen.

    Attributes:
        metric: the figure that decided.
        rows: how many rows were answered by what was chosen and had not learned from them.
        folds: in how many folds they were held out.
        attempts: all candidates, in the order in which they were tried.
        chosen: the names of those that are taken: one, or two that answer together.
        sureness: in how many of 100 redraws of the rows the chosen one answers at least as many
            rightly as every other candidate that can be kept; None where there was no other.
        figure: of what was chosen, on those rows.
        confidence: what its answers to those rows say about its probabilities.
    """

    metric: str
    rows: int
    folds: int
    attempts: list[Attempt]
    chosen: list[str]
    sureness: float | None
    figure: float
    confidence: Confidence = Confidence()


def choose(
    form: TaskForm,
    lm: LanguageModel,
    rows: Sequence[Row],
    *,
    learning: Learning = USUAL,
    pet: PetConfig = USUAL_PET,
    unlabeled: Sequence[Row] = (),
    minutes: float = MINUTES,
    tune_lm: bool = True,
    report: Callable[[str], None] = print_nothing,
    folder: pathlib.Path | None = None,
    identity: str = "",
) -> tuple[Selection, list[Candidate]]:
    """Try what fits on the labelled rows, each answered by what did not learn from it, and choose.

    Args:
        learning: how prompts begin; its seed is also that of the folds and of the trainings.
        pet: how PET goes about it.
        unlabeled: rows without labels, for methods that learn from those.
        minutes: what trying and the last training may take together, as far as it can be told
            before: a candidate that would take longer is tried in fewer folds, or left out. The
            first is always tried in all.
        tune_lm: methods that change the LM may be chosen.
        report: gets a line for each candidate when it has been tried.
        folder: where the answers of each candidate are kept, so that a choice that was stopped
            goes on behind them; None keeps nothing.
        identity: a hash of all that these answers depend on.

    Returns:
        What was tried and chosen, and the chosen candidates.

    Raises:
        ConfigError: nothing fits this task and LM, or there are too few rows to hold some out.
    """
    seed = learning.seed
    held_out = HeldOut(form, rows, folds(form, rows, FOLDS, seed))
    if len(held_out.numbers) < FOLDS:
        raise ConfigError(
            f"{form.name} has {len(rows)} labelled rows, of which none can be held out to tell "
            "methods apart: label a few of every kind, or name a method."
        )
    fitting = candidates(form, lm, tune_lm, unlabeled, learning=learning, pet=pet)
    tried = {candidate.name: candidate for candidate in fitting}
    first = next(iter(tried.values()))
    seconds_a_pass = _seconds_a_pass(first, lm, rows)
    known: dict[str, Answered] = {}

    def run(trials: Sequence[Trial], scratch: pathlib.Path | None) -> Iterator[Answered]:
        name = trials[0].task
        if name not in tried:
            yield _try_tf_idf(held_out, lm)
            return
        candidate = with_best_patterns(tried[name], _figures(known), tried)
        left = 60 * minutes - sum(answered.attempt.seconds for answered in known.values())
        times = [seconds_a_pass * passes for passes in _row_passes(candidate, len(rows))]
        fitting = FOLDS if candidate is first else sum(seconds <= left for seconds in times)
        if fitting:
            yield _try(candidate, held_out, lm, count=fitting)
        else:
            yield _left_out(candidate, times[-1], left)

    def take(answered: Answered) -> None:
        known[answered.attempt.name] = answered
        report(line(answered.attempt, held_out.metric))

    trials = [_trial(name, seed, identity) for name in (TFIDF, *tried)]
    run_trials(trials, folder, run=run, results=JsonResults(Answered), on_result=take)
    figures = _figures(known)
    settled = {name: with_best_patterns(tried[name], figures, tried) for name in tried}
    return _chosen(held_out, known, settled)


def _figures(known: Mapping[str, Answered]) -> dict[str, float]:
    """The figures of the candidates that were tried, without the baseline."""
    attempts = [answered.attempt for answered in known.values()]
    return {
        attempt.name: attempt.figure
        for attempt in attempts
        if attempt.figure is not None and attempt.savable
    }


def _trial(name: str, seed: int, identity: str) -> Trial:
    """A candidate, or the baseline, as a trial whose result is a file."""
    return Trial(
        method=AUTO,
        task=name,
        seed=seed,
        shots=0,
        settings={"run": identity},
        file=f"selection/{file_name(name)}.json",
        scratch="selection/unfinished",
    )


def line(attempt: Attempt, metric: str) -> str:
    """An attempt as a line of a report."""
    if attempt.figure is None:
        return f"{attempt.title} ({attempt.name}): {attempt.note}"
    note = f"; {attempt.note}" if attempt.note else ""
    return (
        f"{attempt.title} ({attempt.name}): {metric} {attempt.figure:.3f} ± "
        f"{attempt.deviation:.3f} on rows held out, {attempt.seconds:.0f} s{note}"
    )


def _seconds_a_pass(candidate: Candidate, lm: LanguageModel, rows: Sequence[Row]) -> float:
    """What a row takes to run through the LM once, by a clock, when it has run before."""
    model = PromptModel(lm)
    task = candidate.add(model, rows[:TIMED])
    examples = model.encode(task, rows[:TIMED])
    model.scores(examples)
    began = time.monotonic()
    model.scores(examples)
    return (time.monotonic() - began) / len(examples)


def _row_passes(candidate: Candidate, rows: int) -> list[int]:
    """How often rows run through the LM where a candidate is tried in 1, 2, ... folds and trained
    on all rows in the end; what trains nothing runs each row once, in all folds."""
    if candidate.method.tune == "nothing":
        return [candidate.row_passes(rows)] * FOLDS
    learned = candidate.row_passes(rows - rows // FOLDS)
    return [count * learned + candidate.row_passes(rows) for count in range(1, FOLDS + 1)]


def _left_out(candidate: Candidate, needed: float, left: float) -> Answered:
    """A candidate for which there is no time."""
    attempt = Attempt(
        name=candidate.name,
        title=candidate.method.title,
        note=f"left out: it would take about {needed:.0f} s, and {max(left, 0):.0f} s are left "
        "(--minutes)",
        estimate=round(needed, 1),
    )
    return Answered(attempt=attempt)


def _try(candidate: Candidate, held_out: HeldOut, lm: LanguageModel, *, count: int) -> Answered:
    """A candidate's answers to the rows that are held out in so many folds; why there are none,
    where it does not fit or its training diverged."""
    began = time.monotonic()
    try:
        shares = out_of_fold(candidate, lm, held_out.rows, held_out.of_folds(count))
    except PtuneError as error:
        title = candidate.method.title
        return Answered(attempt=Attempt(name=candidate.name, title=title, note=str(error)))
    return _answered(held_out, candidate.name, candidate.method.title, shares=shares, began=began)


def _try_tf_idf(held_out: HeldOut, lm: LanguageModel) -> Answered:
    """The answers of a logistic regression on rare words, which is no prompt and cannot be kept: a
    figure to be ahead of."""
    from ptune.tasks.judging.judge_labels import question

    began = time.monotonic()
    shares: Shares = {}
    for fold in sorted(set(held_out.fold_of) - {ALWAYS_LEARNED}):
        held = [n for n, number in enumerate(held_out.fold_of) if number == fold]
        learned = [row for row, number in zip(held_out.rows, held_out.fold_of) if number != fold]
        asked = question(
            held_out.form,
            lm,
            train=learned,
            test=[held_out.rows[n] for n in held],
            training_labels=(),
        )
        values = baselines.shares(asked, lm, TFIDF)
        if values is None:
            note = "the rows have no words that could be counted"
            attempt = Attempt(name=TFIDF, title=BASELINES[TFIDF], note=note, savable=False)
            return Answered(attempt=attempt)
        shares |= dict(zip(held, values.tolist()))
    return _answered(held_out, TFIDF, BASELINES[TFIDF], shares=shares, began=began, savable=False)


def _answered(
    held_out: HeldOut, name: str, title: str, *, shares: Shares, began: float, savable: bool = True
) -> Answered:
    """The figures of answers to the rows that are held out."""
    parts: dict[int, list[int]] = {}
    for number in shares:
        parts.setdefault(held_out.fold_of[number], []).append(number)
    some = f"tried in {len(parts)} of {FOLDS} folds for want of time (--minutes)"
    attempt = Attempt(
        name=name,
        title=title,
        note="" if len(shares) == len(held_out.numbers) else some,
        figure=held_out.figure(shares, list(shares)),
        folds=len(parts),
        deviation=deviation([held_out.figure(shares, numbers) for numbers in parts.values()]),
        loss=held_out.loss(shares, list(shares)),
        seconds=round(time.monotonic() - began, 3),
        savable=savable,
    )
    return Answered(attempt=attempt, shares=shares)


def _chosen(
    held_out: HeldOut, known: Mapping[str, Answered], tried: Mapping[str, Candidate]
) -> tuple[Selection, list[Candidate]]:
    """The candidate with the best figure (of equal ones that with the lower loss), or the best two
    that leave the LM as it is, where the mean of their probabilities is better in both. Where the
    best one leaves the LM as it is, and is ahead of the preferred one by no more than a standard
    error, the latter counts as the best. Two are compared on the rows that both answered."""
    answers = {name: known[name].shares for name in tried if known[name].shares}
    if not answers:
        reasons = "; ".join(f"{name}: {known[name].attempt.note}" for name in tried)
        raise ConfigError(f"No method could be tried on {held_out.form.name}. {reasons}")
    order = functools.cmp_to_key(held_out.order)
    ranked = sorted(answers, key=lambda name: order(answers[name]))
    if PREFERRED in ranked and not tried[ranked[0]].tunes_lm:
        is_ahead = held_out.is_clearly_ahead(answers[ranked[0]], answers[PREFERRED])
        if not is_ahead:
            ranked.sort(key=lambda name: name != PREFERRED)
    names, shares = ranked[:1], answers[ranked[0]]
    frozen = [name for name in ranked if not tried[name].tunes_lm][:2]
    if len(frozen) == 2 and frozen[0] == names[0]:
        both = _mean([answers[name] for name in frozen])
        if held_out.is_better_in_both(both, shares):
            names, shares = frozen, both
    selection = Selection(
        metric=held_out.metric,
        rows=len(shares),
        folds=min(known[name].attempt.folds for name in names),
        attempts=[answered.attempt for answered in known.values()],
        chosen=names,
        sureness=_sureness(held_out, shares, [answers[n] for n in ranked if n not in names]),
        figure=held_out.figure(shares, list(shares)),
        confidence=held_out.confidence(shares),
    )
    return selection, [tried[name] for name in names]


def _mean(parts: Sequence[Shares]) -> Shares:
    """The mean of the probabilities of several candidates, of the rows that all of them
    answered."""
    common = [n for n in parts[0] if all(n in shares for shares in parts)]
    return {n: np.mean([shares[n] for shares in parts], 0).tolist() for n in common}


def _sureness(held_out: HeldOut, shares: Shares, others: Sequence[Shares]) -> float | None:
    """In how many of 100 redraws of the rows, with as many rows each, these answers are right at
    least as often as those of every other candidate to the same rows; None without others."""
    if not others:
        return None
    numbers = list(shares)
    drawn = np.random.default_rng(0).integers(len(numbers), size=(RESAMPLES, len(numbers)))
    ahead = np.ones(RESAMPLES, dtype=bool)
    for other in others:
        more_right = held_out.more_right(shares, other)
        differences = np.array([more_right.get(number, 0) for number in numbers])
        ahead &= differences[drawn].sum(1) >= 0
    return round(100 * float(ahead.mean()), 1)
