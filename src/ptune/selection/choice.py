"""Which candidate is taken: each answers rows that it did not learn from, and the best is taken."""

import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import BaseModel

from ptune.answers.confidence import Confidence
from ptune.base.file_names import file_name
from ptune.base.terminal import print_nothing
from ptune.errors import ConfigError, PtuneError
from ptune.lm.language_model import LanguageModel
from ptune.metrics.labels import BASELINES, TFIDF, deviation, labelled
from ptune.model.prompt_model import PromptModel, Row
from ptune.runs.trials import JsonResults, Trial, run_trials
from ptune.selection.candidates import USUAL_PET, Candidate, candidates, with_best_patterns
from ptune.selection.cross_validation import ALWAYS_LEARNED, folds, out_of_fold
from ptune.settings import PetConfig
from ptune.tasks.judging import baselines
from ptune.tasks.resolved.task_form import USUAL, Learning, TaskForm
from ptune.tasks.schema import AUTO

FOLDS = 3
MINUTES = 2.0
RESAMPLES = 1000
TIMED = 32  # rows
Shares = dict[int, list[float]]


class Attempt(BaseModel):
    """What came out for one candidate.

    Attributes:
        name, title: of the candidate.
        figure: the main figure on rows that it did not learn from; None where it was not tried.
        deviation: of that figure over the folds.
        loss: the mean of minus the log probability of the right labels of those rows.
        seconds: what trying it took.
        note: why it was not tried, or failed.
        estimate: the seconds that it would have taken, where there was no time to try it.
        savable: whether it can be trained and kept; a baseline is only compared with.
    """

    name: str
    title: str
    figure: float | None = None
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
        rows: how many rows were answered by those who had not learned from them.
        folds: in how many parts.
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


@dataclass(frozen=True)
class _HeldOut:
    """The rows with their right labels, and in which fold each is held out."""

    form: TaskForm
    rows: Sequence[Row]
    fold_of: Sequence[int]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the rows that are held out in some fold."""
        return [n for n, fold in enumerate(self.fold_of) if fold != ALWAYS_LEARNED]

    @property
    def metric(self) -> str:
        return (self.form.judging.metrics or ("accuracy",))[0]

    def label(self, number: int) -> str:
        return str(self.rows[number][self.form.target])

    def figure(self, shares: Shares, numbers: Sequence[int]) -> float:
        """The main figure on some rows."""
        labels = self.form.answers.names
        values = [shares[number] for number in numbers]
        answers = [labels[int(np.argmax(value))] for value in values]
        rows = [self.rows[number] for number in numbers]
        figures = labelled(
            [self.metric], rows, answers, self.form.target, labels=labels, shares=values
        )
        return next(iter(figures.values()))

    def loss(self, shares: Shares) -> float:
        """The mean of minus the log probability of the right label."""
        labels = self.form.answers.names
        right = [shares[n][labels.index(self.label(n))] for n in self.numbers]
        return float(-np.log(np.clip(right, 1e-6, 1)).mean())

    def confidence(self, shares: Shares) -> Confidence:
        """What the answers say about the probabilities."""
        labels = self.form.answers.names
        values = torch.tensor([shares[number] for number in self.numbers])
        right = [labels.index(self.label(number)) for number in self.numbers]
        return Confidence.fitted(values, right, self.form.reading.temperature == "dev")

    def is_right(self, shares: Shares) -> np.ndarray:
        """Which rows are answered rightly."""
        labels = self.form.answers.names
        best = [labels[int(np.argmax(shares[n]))] for n in self.numbers]
        return np.array([answer == self.label(n) for n, answer in zip(self.numbers, best)])


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
            before: a candidate that would take longer is left out. The first is always tried.
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
    held_out = _HeldOut(form, rows, folds(rows, form.target, FOLDS, seed))
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
        needed = _seconds(candidate, len(rows), seconds_a_pass)
        if candidate is not first and needed > left:
            yield _left_out(candidate, needed, left)
        else:
            yield _try(candidate, held_out, lm)

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
    return (
        f"{attempt.title} ({attempt.name}): {metric} {attempt.figure:.3f} ± "
        f"{attempt.deviation:.3f} on rows held out, {attempt.seconds:.0f} s"
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


def _seconds(candidate: Candidate, rows: int, seconds_a_pass: float) -> float:
    """What trying a candidate and training it on all rows would take."""
    times = 1 if candidate.method.tune == "nothing" else FOLDS + 1
    return times * candidate.row_passes(rows) * seconds_a_pass


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


def _try(candidate: Candidate, held_out: _HeldOut, lm: LanguageModel) -> Answered:
    """A candidate's answers to the rows that are held out; why there are none, where it does not
    fit or its training diverged."""
    began = time.monotonic()
    try:
        shares = out_of_fold(candidate, lm, held_out.rows, held_out.fold_of)
    except PtuneError as error:
        title = candidate.method.title
        return Answered(attempt=Attempt(name=candidate.name, title=title, note=str(error)))
    return _answered(held_out, candidate.name, candidate.method.title, shares=shares, began=began)


def _try_tf_idf(held_out: _HeldOut, lm: LanguageModel) -> Answered:
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
    held_out: _HeldOut, name: str, title: str, *, shares: Shares, began: float, savable: bool = True
) -> Answered:
    """The figures of answers to the rows that are held out."""
    parts: dict[int, list[int]] = {}
    for number in held_out.numbers:
        parts.setdefault(held_out.fold_of[number], []).append(number)
    attempt = Attempt(
        name=name,
        title=title,
        figure=held_out.figure(shares, held_out.numbers),
        deviation=deviation([held_out.figure(shares, numbers) for numbers in parts.values()]),
        loss=held_out.loss(shares),
        seconds=round(time.monotonic() - began, 3),
        savable=savable,
    )
    return Answered(attempt=attempt, shares=shares)


def _chosen(
    held_out: _HeldOut, known: Mapping[str, Answered], tried: Mapping[str, Candidate]
) -> tuple[Selection, list[Candidate]]:
    """The candidate with the best figure (of equal ones that with the lower loss), or the best two
    that leave the LM as it is, where the mean of their probabilities is better in both."""
    ranked = sorted(
        (known[name].attempt for name in tried if known[name].attempt.figure is not None),
        key=lambda attempt: (-(attempt.figure or 0.0), attempt.loss),
    )
    if not ranked:
        reasons = "; ".join(f"{name}: {known[name].attempt.note}" for name in tried)
        raise ConfigError(f"No method could be tried on {held_out.form.name}. {reasons}")
    names, shares = [ranked[0].name], known[ranked[0].name].shares
    frozen = [attempt.name for attempt in ranked if not tried[attempt.name].tunes_lm][:2]
    if len(frozen) == 2 and frozen[0] == names[0]:
        both = _mean([known[name].shares for name in frozen])
        figure = held_out.figure(both, held_out.numbers)
        if figure > (ranked[0].figure or 0.0) and held_out.loss(both) < ranked[0].loss:
            names, shares = frozen, both
    others = [known[attempt.name].shares for attempt in ranked if attempt.name not in names]
    selection = Selection(
        metric=held_out.metric,
        rows=len(held_out.numbers),
        folds=FOLDS,
        attempts=[answered.attempt for answered in known.values()],
        chosen=names,
        sureness=_sureness(held_out, shares, others),
        figure=held_out.figure(shares, held_out.numbers),
        confidence=held_out.confidence(shares),
    )
    return selection, [tried[name] for name in names]


def _mean(parts: Sequence[Shares]) -> Shares:
    """The mean of the probabilities of several candidates."""
    return {n: np.mean([shares[n] for shares in parts], 0).tolist() for n in parts[0]}


def _sureness(held_out: _HeldOut, shares: Shares, others: Sequence[Shares]) -> float | None:
    """In how many of 100 redraws of the rows, with as many rows each, these answers are right at
    least as often as those of every other candidate; None without others."""
    if not others:
        return None
    right = held_out.is_right(shares)
    drawn = np.random.default_rng(0).integers(len(right), size=(RESAMPLES, len(right)))
    ahead = np.ones(RESAMPLES, dtype=bool)
    for other in others:
        ahead &= right[drawn].sum(1) >= held_out.is_right(other)[drawn].sum(1)
    return round(100 * float(ahead.mean()), 1)
