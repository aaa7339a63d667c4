"""What the runs of a sweep gave, as its files hold it and the page reads it."""

import statistics
from collections.abc import Sequence
from typing import Any

from ptune.reports.trial_results import Finite


class SweepOutcome(Finite):
    """A run of a sweep that is done."""

    name: str
    task: str
    settings: dict[str, Any]
    """What the sweep set."""
    command: str
    """What trains the same."""
    dev: float | None = None
    """The dev score of the state that is kept; of several prompts their mean."""
    dev_score: str = ""
    """What it is."""
    figures: dict[str, float] = {}
    """On the test rows."""
    seconds: float = 0
    pruned: bool = False
    """Whether its training was ended early, since others were ahead on dev."""
    error: str = ""
    """Why it has no result."""
    diverged: bool = False
    """Whether it has none since its training diverged."""


class SweepResults(Finite):
    """What ``ptune sweep`` writes to results.json."""

    runs: list[SweepOutcome]
    versions: dict[str, str] = {}

    @property
    def keys(self) -> list[str]:
        """The settings in which runs differ, the seed aside."""
        names = dict.fromkeys(key for run in self.runs for key in run.settings)
        return [
            name
            for name in names
            if name != "train.seed" and len({str(run.settings.get(name)) for run in self.runs}) > 1
        ]

    @property
    def metric(self) -> str:
        """The first figure on test."""
        return next((name for run in self.runs for name in run.figures), "test")

    @property
    def dev_scores(self) -> list[str]:
        """The kinds of dev scores that the runs were chosen by. Those of unlike kinds, such as
        an accuracy and minus a loss, are never compared."""
        return list(dict.fromkeys(run.dev_score for run in self.runs if run.dev is not None))

    @property
    def has_unlike_scores(self) -> bool:
        """Whether there are dev scores of several kinds."""
        return len(self.dev_scores) > 1

    def groups(self) -> list["SweepGroup"]:
        """The runs that differ in their seeds alone, together; those of one kind of dev score
        together, the best first."""
        together: dict[str, list[SweepOutcome]] = {}
        for run in self.runs:
            rest = {key: value for key, value in run.settings.items() if key != "train.seed"}
            together.setdefault(f"{run.task} {rest}", []).append(run)
        groups = [SweepGroup(self.metric, runs) for runs in together.values()]
        kinds = ["", *self.dev_scores]
        order = lambda group: (
            group.runs[0].task,
            group.dev is None,
            kinds.index(group.dev_score),
            -(group.dev or 0),
        )
        return sorted(groups, key=order)

    def best(self) -> list[SweepOutcome]:
        """Of each task the run with the best dev score of each kind, of those that were trained to
        their end."""
        best: dict[tuple[str, str], SweepOutcome] = {}
        for run in self.runs:
            ahead = best.get((run.task, run.dev_score))
            if run.dev is None or run.pruned:
                continue
            if ahead is None or ahead.dev is None or run.dev > ahead.dev:
                best[run.task, run.dev_score] = run
        return list(best.values())


class SweepGroup:
    """Runs that differ in their seeds alone.

    Attributes:
        dev, test: means over those that have the figure; None where none has.
        dev_score: what the dev score is; empty without one.
        deviation: of the test figure; None of a single one.
    """

    def __init__(self, metric: str, runs: Sequence[SweepOutcome]):
        self.runs = runs
        dev = [run.dev for run in runs if run.dev is not None]
        self.dev_score = next((run.dev_score for run in runs if run.dev is not None), "")
        test = [run.figures[metric] for run in runs if metric in run.figures]
        self.dev = statistics.fmean(dev) if dev else None
        self.test = statistics.fmean(test) if test else None
        self.deviation = statistics.stdev(test) if len(test) > 1 else None
        self.failed = sum(bool(run.error) for run in runs)
        self.pruned = sum(run.pruned for run in runs)
