"""A search that is running: its budget, its folder, and candidates scored so that a kill loses at
most those of one file."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ptune.base.progress import Progress
from ptune.errors import ConfigError
from ptune.model.prompt_model import PromptModel, Row
from ptune.reports.search_results import CandidateScore, ScoredCandidates, SearchStep
from ptune.runs import identity
from ptune.runs.trials import Form, JsonResults, Trial, run_trials
from ptune.search.common import candidates as scoring
from ptune.search.common.searched_task import SearchedTask
from ptune.settings import TrainConfig

GRADIENT = 3  # a row with its gradient costs as much as three rows


@dataclass
class Budget:
    """How many rows the LM may read, and how many it has read."""

    limit: int | None = None
    spent: int = 0

    def allows(self, calls: int, reserved: int = 0) -> bool:
        """Whether so many rows more may be read, with others kept for later."""
        return self.limit is None or self.spent + calls + reserved <= self.limit


@dataclass
class RunningSearch:
    """A search on its way.

    Attributes:
        by: the kind of search.
        keep: how many of the best on train are scored on dev.
        folder: where results are kept; None keeps nothing.
        tuning: how the LM is fine-tuned with each candidate that is kept, where they are ranked
            anew so.
        settings: all that decides the results, beside what a stage adds.
        steps: what was tried step by step, for the page.
    """

    by: str
    task: SearchedTask
    keep: int
    seed: int
    budget: Budget
    report: Callable[[str], None]
    folder: pathlib.Path | None = None
    tuning: TrainConfig | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: list[SearchStep] = field(default_factory=list)

    def reserved(self, candidate: CandidateScore) -> int:
        """How many rows the last scores on dev will cost, if candidates are like this one."""
        return self.keep * self.last_calls(candidate)

    def last_calls(self, candidate: CandidateScore) -> int:
        """How many rows a candidate costs once it is kept: its scores on dev, and where it is
        fine-tuned that too."""
        on_dev = scoring.cost(self.task, candidate, self.task.dev)
        return on_dev + self.tuning_calls(candidate)

    def tuning_calls(self, candidate: CandidateScore) -> int:
        """How many rows it costs to fine-tune the LM with a candidate, and to score it on dev
        twice: for the training, and for its figure."""
        if self.tuning is None:
            return 0
        steps = GRADIENT * self.tuning.steps * self.tuning.batch_size
        fills = scoring.fill_count(self.task, candidate, self.task.dev)
        return fills * (steps + 2 * len(self.task.dev) + self.task.calibrated_by)

    def reserved_for_last(self, candidate: CandidateScore) -> int:
        """How many rows the scores of as many candidates as are kept cost, on train and dev, if
        they are like this one."""
        on_train = self.keep * scoring.cost(self.task, candidate, self.task.train)
        return on_train + self.reserved(candidate)

    def stage(
        self,
        name: str,
        parts: Sequence[Any],
        run: Callable[[int], Form],
        *,
        form: type[Form],
        on_result: Callable[[Form], None] = lambda result: None,
    ) -> list[Form]:
        """Compute the parts of a stage in order, each kept in a file of its own; those whose files
        are there are read.

        Args:
            parts: for each part all that decides its result, beside the settings of the search.
            run: computes a part by its number.
        """
        trials = [
            Trial(
                method=self.by,
                task=self.task.name,
                seed=self.seed,
                shots=0,
                settings={**self.settings, "part": identity.of_value(part)},
                file=f"results/{name}-{number:04}.json",
                scratch=f"unfinished/{name}-{number:04}",
                bank=None,
            )
            for number, part in enumerate(parts)
        ]
        numbers = {trial.file: number for number, trial in enumerate(trials)}
        return run_trials(
            trials,
            self.folder,
            run=lambda group, scratch: (run(numbers[trial.file]) for trial in group),
            results=JsonResults(form),
            on_result=on_result,
        )


def scored(
    search: RunningSearch, candidates: Sequence[CandidateScore], split: str, rows: Sequence[Row]
) -> list[CandidateScore]:
    """Candidates with their scores on the rows of a split, in order.

    Args:
        split: "train" or "dev".
    """
    task = search.task
    groups = list(scoring.chunks(candidates, len(rows), _labels(task, candidates)))
    best: list[float] = []

    def run(number: int) -> ScoredCandidates:
        group = groups[number]
        values = scoring.score(task, group, rows)
        return ScoredCandidates(
            candidates=[_with_score(one, split, value) for one, value in zip(group, values)],
            calls=sum(scoring.cost(task, one, rows) for one in group),
        )

    with Progress(f"scores on {split}", total=len(candidates)) as progress:

        def count(result: ScoredCandidates) -> None:
            search.budget.spent += result.calls
            best.extend(f for one in result.candidates if (f := getattr(one, split)) is not None)
            progress.advance(len(result.candidates), **({"best": max(best)} if best else {}))

        parts = [[(one.template, one.words) for one in group] for group in groups]
        results = search.stage(split, parts, run, form=ScoredCandidates, on_result=count)
    return [one for result in results for one in result.candidates]


def _labels(task: SearchedTask, candidates: Sequence[CandidateScore]) -> int:
    """How many labels there are to score."""
    if task.words:
        return len(task.words)
    for candidate in candidates:
        model = PromptModel(task.lm)
        number, _ = scoring.added(model, task, candidate)
        if number is not None:
            return len(model.encode(number, task.train[:1])[0].labels.labels)
    return 1


def _with_score(
    candidate: CandidateScore, split: str, value: tuple[float, float] | str
) -> CandidateScore:
    if isinstance(value, str):
        return candidate.model_copy(update={"impossible": value})
    figure, loss = value
    return candidate.model_copy(update={split: figure, f"{split}_loss": loss})


def affordable(
    search: RunningSearch, candidates: Sequence[CandidateScore]
) -> Sequence[CandidateScore]:
    """The first candidates that the budget lets be scored on train, with as much left as the kept
    ones need on dev.

    Raises:
        ConfigError: not even one can be scored.
    """
    calls = reserved = 0
    for number, candidate in enumerate(candidates):
        calls += scoring.cost(search.task, candidate, search.task.train)
        each = search.last_calls(candidate)
        reserved = max(reserved, min(search.keep, number + 1) * each)
        if not search.budget.allows(calls, reserved):
            if not number:
                raise ConfigError(
                    f"--budget {search.budget.limit} is too small: after {search.budget.spent} "
                    f"rows one candidate needs {calls + reserved} more on train and dev."
                )
            search.report(f"The budget ends after {number} of {len(candidates)} candidates.")
            return candidates[:number]
    return candidates


def ranked(
    search: RunningSearch, candidates: Sequence[CandidateScore]
) -> tuple[list[CandidateScore], list[CandidateScore]]:
    """The candidates that are kept, the best on dev first, and all of them, the best on train
    first.

    Raises:
        ConfigError: this LM can be asked by none of them; or the budget is too small.
    """
    different = {(one.template, str(one.words)): one for one in reversed(candidates)}
    wanted = list(reversed(different.values()))
    affordable_ones = affordable(search, wanted)
    tried = scored(search, affordable_ones, "train", search.task.train)
    possible = [one for one in tried if one.train is not None]
    if not possible:
        reason = next((one.impossible for one in tried), "none was proposed")
        raise ConfigError(f"The search proposed no prompt that this LM can be asked by: {reason}")
    possible.sort(key=_by("train"))
    search.report(_sentence("best on train", possible[0], "train", search.task.metric))
    kept = scored(search, possible[: search.keep], "dev", search.task.dev)
    kept.sort(key=_by("dev"))
    return kept, [*possible, *(one for one in tried if one.train is None)]


def _by(split: str) -> Callable[[CandidateScore], tuple[float, float]]:
    """The order of candidates: by their figure, of equal ones by their loss."""
    return lambda one: (-getattr(one, split), getattr(one, f"{split}_loss"))


def _sentence(what: str, one: CandidateScore, split: str, metric: str) -> str:
    words = f" {one.words}" if one.words else ""
    return f"{what}: {metric} {getattr(one, split):.3f}  {one.template!r}{words}"
