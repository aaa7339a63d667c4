"""Which candidate is taken: each answers rows that it did not learn from, and the best is taken."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel

from ptune.errors import ConfigError, PtuneError
from ptune.lm.language_model import LanguageModel
from ptune.metrics.labels import BASELINES, TFIDF, deviation, labelled
from ptune.model.prompt_model import PromptModel, Row
from ptune.selection.candidates import Candidate, candidates
from ptune.selection.cross_validation import ALWAYS_LEARNED, folds, out_of_fold
from ptune.tasks import baselines, yaml_task
from ptune.tasks.schema import TaskConfig

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
    """

    metric: str
    rows: int
    folds: int
    attempts: list[Attempt]
    chosen: list[str]
    sureness: float | None
    figure: float


@dataclass(frozen=True)
class _Answers:
    """The rows with their right labels, and how candidates answered those that were held out."""

    task: TaskConfig
    rows: Sequence[Row]
    fold_of: Sequence[int]
    shares: dict[str, Shares]

    @property
    def held_out(self) -> list[int]:
        return [n for n, fold in enumerate(self.fold_of) if fold != ALWAYS_LEARNED]

    @property
    def metric(self) -> str:
        return (self.task.metrics or ("accuracy",))[0]

    def label(self, number: int) -> str:
        return str(self.rows[number][self.task.target])

    def figure(self, shares: Shares, numbers: Sequence[int]) -> float:
        """The main figure on some rows."""
        labels = list(self.task.labels)
        values = [shares[number] for number in numbers]
        answers = [labels[int(np.argmax(value))] for value in values]
        rows = [self.rows[number] for number in numbers]
        figures = labelled([self.metric], rows, answers, self.task.target, labels, values)
        return next(iter(figures.values()))

    def loss(self, shares: Shares) -> float:
        """The mean of minus the log probability of the right label."""
        labels = list(self.task.labels)
        right = [shares[n][labels.index(self.label(n))] for n in self.held_out]
        return float(-np.log(np.clip(right, 1e-6, 1)).mean())

    def is_right(self, shares: Shares) -> np.ndarray:
        """Which rows are answered rightly."""
        labels = list(self.task.labels)
        best = [labels[int(np.argmax(shares[n]))] for n in self.held_out]
        return np.array([answer == self.label(n) for n, answer in zip(self.held_out, best)])


def choose(
    task: TaskConfig,
    lm: LanguageModel,
    rows: Sequence[Row],
    *,
    minutes: float = MINUTES,
    tune_lm: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[Selection, list[Candidate]]:
    """Try what fits on the labelled rows, each answered by what did not learn from it, and choose.

    Args:
        minutes: what trying and the last training may take together, as far as it can be told
            before: a candidate that would take longer is left out. The first is always tried.
        tune_lm: methods that change the LM may be chosen.
        report: gets a line for each candidate when it has been tried.

    Returns:
        What was tried and chosen, and the chosen candidates.

    Raises:
        ConfigError: nothing fits this task and LM, or there are too few rows to hold some out.
    """
    began = time.monotonic()
    seed = task.train.seed or 0
    fold_of = folds(rows, task.target, FOLDS, seed)
    if sum(fold != ALWAYS_LEARNED for fold in fold_of) < FOLDS:
        raise ConfigError(
            f"{task.name} has {len(rows)} labelled rows, of which none can be held out to tell "
            "methods apart: label a few of every kind, or name a method."
        )
    answers = _Answers(task, rows, fold_of, {})
    attempts: dict[str, Attempt] = {}
    tried = candidates(task, lm, tune_lm)
    attempts[TFIDF] = _try_tf_idf(answers, lm)
    report(line(attempts[TFIDF], answers.metric))
    seconds_a_pass = _seconds_a_pass(tried[0], lm, rows)
    for number, candidate in enumerate(tried):
        left = 60 * minutes - (time.monotonic() - began)
        needed = _seconds(candidate, len(rows), seconds_a_pass)
        if number and needed > left:
            attempts[candidate.name] = Attempt(
                name=candidate.name,
                title=candidate.method.title,
                note=f"left out: it would take about {needed:.0f} s, and {max(left, 0):.0f} s "
                f"are left (--minutes)",
                estimate=round(needed, 1),
            )
        else:
            attempts[candidate.name] = _try(candidate, answers, lm)
        report(line(attempts[candidate.name], answers.metric))
    return _chosen(answers, attempts, tried)


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
    add = yaml_task.add
    task = add(model, candidate.task, candidate.member, rows[:TIMED], method=candidate.method)
    examples = model.encode(task, rows[:TIMED])
    model.scores(examples)
    began = time.monotonic()
    model.scores(examples)
    return (time.monotonic() - began) / len(examples)


def _seconds(candidate: Candidate, rows: int, seconds_a_pass: float) -> float:
    """What trying a candidate and training it on all rows would take."""
    times = 1 if candidate.method.tune == "nothing" else FOLDS + 1
    return times * candidate.row_passes(rows) * seconds_a_pass


def _try(candidate: Candidate, answers: _Answers, lm: LanguageModel) -> Attempt:
    """A candidate's answers to the rows that are held out; why there are none, where it does not
    fit or its training diverged."""
    began = time.monotonic()
    try:
        shares = out_of_fold(candidate, lm, answers.rows, answers.fold_of)
    except PtuneError as error:
        return Attempt(name=candidate.name, title=candidate.method.title, note=str(error))
    return _attempt(answers, candidate.name, candidate.method.title, shares, began)


def _try_tf_idf(answers: _Answers, lm: LanguageModel) -> Attempt:
    """The answers of a logistic regression on rare words, which is no prompt and cannot be kept: a
    figure to be ahead of."""
    from ptune.tasks.judge_labels import question

    began = time.monotonic()
    shares: Shares = {}
    for fold in sorted(set(answers.fold_of) - {ALWAYS_LEARNED}):
        held = [n for n, number in enumerate(answers.fold_of) if number == fold]
        learned = [row for row, number in zip(answers.rows, answers.fold_of) if number != fold]
        asked = question(answers.task, lm, learned, [answers.rows[n] for n in held], ())
        values = baselines.shares(asked, lm, TFIDF)
        if values is None:
            note = "the rows have no words that could be counted"
            return Attempt(name=TFIDF, title=BASELINES[TFIDF], note=note, savable=False)
        shares |= dict(zip(held, values.tolist()))
    attempt = _attempt(answers, TFIDF, BASELINES[TFIDF], shares, began)
    return attempt.model_copy(update={"savable": False})


def _attempt(answers: _Answers, name: str, title: str, shares: Shares, began: float) -> Attempt:
    answers.shares[name] = shares
    parts: dict[int, list[int]] = {}
    for number in answers.held_out:
        parts.setdefault(answers.fold_of[number], []).append(number)
    return Attempt(
        name=name,
        title=title,
        figure=answers.figure(shares, answers.held_out),
        deviation=deviation([answers.figure(shares, numbers) for numbers in parts.values()]),
        loss=answers.loss(shares),
        seconds=round(time.monotonic() - began, 1),
    )


def _chosen(
    answers: _Answers, attempts: Mapping[str, Attempt], tried: Sequence[Candidate]
) -> tuple[Selection, list[Candidate]]:
    """The candidate with the best figure (of equal ones that with the lower loss), or the best two
    that leave the LM as it is, where the mean of their probabilities is better in both."""
    by_name = {candidate.name: candidate for candidate in tried}
    ranked = sorted(
        (attempts[name] for name in by_name if attempts[name].figure is not None),
        key=lambda attempt: (-(attempt.figure or 0.0), attempt.loss),
    )
    if not ranked:
        reasons = "; ".join(f"{name}: {attempts[name].note}" for name in by_name)
        raise ConfigError(f"No method could be tried on {answers.task.name}. {reasons}")
    names, shares = [ranked[0].name], answers.shares[ranked[0].name]
    frozen = [attempt.name for attempt in ranked if not by_name[attempt.name].tunes_lm][:2]
    if len(frozen) == 2 and frozen[0] == names[0]:
        both = _mean([answers.shares[name] for name in frozen])
        figure = answers.figure(both, answers.held_out)
        if figure > (ranked[0].figure or 0.0) and answers.loss(both) < ranked[0].loss:
            names, shares = frozen, both
    selection = Selection(
        metric=answers.metric,
        rows=len(answers.held_out),
        folds=FOLDS,
        attempts=list(attempts.values()),
        chosen=names,
        sureness=_sureness(answers, shares, [a.name for a in ranked if a.name not in names]),
        figure=answers.figure(shares, answers.held_out),
    )
    return selection, [by_name[name] for name in names]


def _mean(parts: Sequence[Shares]) -> Shares:
    """The mean of the probabilities of several candidates."""
    return {n: np.mean([shares[n] for shares in parts], 0).tolist() for n in parts[0]}


def _sureness(answers: _Answers, shares: Shares, others: Sequence[str]) -> float | None:
    """In how many of 100 redraws of the rows, with as many rows each, these answers are right at
    least as often as those of every other candidate; None without others."""
    if not others:
        return None
    right = answers.is_right(shares)
    drawn = np.random.default_rng(0).integers(len(right), size=(RESAMPLES, len(right)))
    ahead = np.ones(RESAMPLES, dtype=bool)
    for name in others:
        other = answers.is_right(answers.shares[name])
        ahead &= right[drawn].sum(1) >= other[drawn].sum(1)
    return round(100 * float(ahead.mean()), 1)
