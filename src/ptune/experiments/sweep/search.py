"""``ptune sweep --search``: settings that Optuna proposes, by how runs before them did on dev.

Each task of the sweep's file, with each of the settings there, the seed aside, is searched by
itself: a study of Optuna's. A trial of it is one run for each seed, and its value the mean of their
dev scores; test rows choose nothing. With ``--prune`` a trial ends where most others are ahead
(``pruning.py``). The studies stand in ``search/journal.log``, which all processes share, one at a
time. The runs are those of any sweep, so another process goes on with them where one was killed.
"""

import functools
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ptune.base import files
from ptune.errors import ConfigError, PtuneError
from ptune.experiments.sweep.pruning import is_pruned, trains_several
from ptune.experiments.sweep.search_space import Choice, Range, Space, parse
from ptune.experiments.sweep.sweep_file import SEED, SweepRun, read_points, run_of
from ptune.reports.sweep_results import SweepOutcome
from ptune.runs.trials import JsonResults
from ptune.training.prompt_training import Pruner

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

RESULTS = JsonResults(SweepOutcome)
STARTS = 5  # trials that are drawn at random, before what came of them is looked at
NOTE = "space.json"


def check(texts: Sequence[str], trials: int | None, *, prune: bool, dry_run: bool) -> None:
    """Refuse a search without a number of trials, and the reverse; pruning without a search; and
    one without Optuna.

    Raises:
        ConfigError: it is so, or what is to be searched is no range and no list.
    """
    parse(texts)
    if bool(texts) != (trials is not None):
        raise ConfigError(
            "--search and --trials go together: what is chosen from, and how often something is "
            "tried."
        )
    if prune and not texts:
        raise ConfigError(
            "--prune ends trials of a search by what others had at the same step, and nothing is "
            "searched: give --search and --trials, or set train.patience, which ends each run by "
            "its own dev scores."
        )
    if texts and dry_run:
        raise ConfigError(
            "--dry-run prints runs that are known before, and those of a search are chosen by what "
            "came of others: leave one out."
        )
    if texts and find_spec("optuna") is None:
        raise ConfigError(
            "--search needs the package optuna, which is not installed: pip install "
            "'ptune[search]', or list the values in the file's grid."
        )


@dataclass(frozen=True)
class Point:
    """What is searched by itself: a task with settings of the sweep's file, and its seeds.

    Attributes:
        file: the task's file, as the sweep names it.
        seeds: the settings of each of its runs, which differ in the seed alone.
    """

    file: str
    settings: Mapping[str, Any]
    seeds: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        """What its study is called."""
        return json.dumps([self.file, dict(self.settings)], sort_keys=True, default=str)


class Search:
    """The trials of a sweep that is searched, as one of its processes sees them.

    Args:
        file: the sweep's file.
        out: the folder that the processes share.
        texts: what ``--search`` says.
        trials: how many trials each study has.
        prune: whether trials are ended by what others had at the same step.
    """

    def __init__(
        self,
        file: pathlib.Path,
        out: pathlib.Path,
        texts: Sequence[str],
        *,
        trials: int,
        prune: bool = False,
    ):
        self.file, self.out, self.texts = file, out, tuple(texts)
        self.trials, self.prune = trials, prune
        self.space: Space = parse(texts)
        self.lms: dict[str, str] = {}
        self.runs_of: dict[str, list[SweepRun]] = {}
        self.points = _points(file)

    @property
    def options(self) -> dict[str, Any]:
        """What another process makes it of, beside the file and the folder."""
        return {"texts": self.texts, "trials": self.trials, "prune": self.prune}

    @property
    def total(self) -> int:
        """How many trials there are to be."""
        return self.trials * len(self.points)

    @property
    def lacking(self) -> int:
        """How many of them were not begun."""
        with self._alone():
            begun = [len(study.get_trials(deepcopy=False)) for study, _ in self._studies()]
        return sum(max(0, self.trials - count) for count in begun)

    def check(self) -> list[SweepRun]:
        """Make a run at either end of each range, and of each value, with each value of a list that
        is chosen with it; return those of the first.

        Raises:
            ConfigError: a setting is none, cannot have such a value, or stands in the file too.
        """
        for key in self.space:
            if key == SEED:
                raise ConfigError(
                    f"--search {key}: a seed is no setting to choose. List the seeds in the "
                    "file's grid: each trial is then the mean over them."
                )
            if any(key in point.settings for point in self.points):
                raise ConfigError(f"{self.file} sets {key}, and --search too: which is meant?")
        checked = []
        first = {key: values.ends[0] for key, values in self.space.items()}
        for point in self.points:
            tried = [first, *({**first, **pair} for pair in self._pairs())]
            runs = [self._run(point, {**point.seeds[0], **chosen}) for chosen in tried]
            if untrained := next((run for run in runs if _trains_nothing(run)), None):
                raise ConfigError(
                    f"{untrained.command}: this method trains nothing, so that there is no dev "
                    "score to choose by. Name methods that train."
                )
            if self.prune and (unfit := next(filter(trains_several, runs), None)):
                raise ConfigError(
                    f"{unfit.command}: --prune ends one training by its looks at dev, and this run "
                    "has several: leave --prune out."
                )
            checked.append(runs[0])
        return checked

    def _pairs(self) -> Iterator[dict[str, Any]]:
        """The ends of each range and each value of a list, alone and, where one of two settings is
        a list's, with those of the other, beside which it may not be read."""
        ends = {key: values.ends for key, values in self.space.items()}
        yield from ({key: value} for key in ends for value in ends[key])
        for pair in itertools.combinations(ends, 2):
            if any(isinstance(self.space[key], Choice) for key in pair):
                for values in itertools.product(*(ends[key] for key in pair)):
                    yield dict(zip(pair, values))

    def claim(self) -> None:
        """Write down what is searched, so that the folder goes on with the same alone.

        Raises:
            ConfigError: it was begun with other ranges, or with trials pruned and now not.
        """
        note = self.out / "search" / NOTE
        space = {key: repr(values) for key, values in self.space.items()}
        space |= {"--prune": "yes"} if self.prune else {}
        with self._alone():
            if note.exists() and files.read_json(note) != space:
                raise ConfigError(
                    f"{self.out} was begun with another --search or --prune "
                    f"({_shown(files.read_json(note))}): go on with the same, or choose another "
                    "--out. --trials may grow."
                )
            files.write_json(note, space)

    def runs(self) -> list[SweepRun]:
        """The runs of all trials that there are. Trials whose runs have their results are told to
        their studies.

        Raises:
            PtuneError: a run has no dev score.
        """
        with self._alone():
            runs: dict[str, SweepRun] = {}
            for study, point in self._studies():
                for trial in study.get_trials(deepcopy=False):
                    of_trial = self._runs_of(point, trial)
                    runs |= {run.name: run for run in of_trial}
                    if not trial.state.is_finished():
                        self._tell(study, trial, of_trial)
        return list(runs.values())

    def ask(self) -> bool:
        """Begin one more trial; return whether there was one to begin."""
        with self._alone():
            for study, _ in self._studies():
                count = len(study.get_trials(deepcopy=False))
                if count < self.trials:
                    study.sampler = _sampler(count)
                    trial = study.ask(_distributions(self.space))
                    trial.set_user_attr("settings", self._chosen(trial.params))
                    return True
        return False

    def pruner(self, run: SweepRun) -> Pruner | None:
        """What ends the training of a run early, where trials are pruned."""
        if not self.prune:
            return None
        with self._alone():
            for study, point in self._studies():
                for trial in study.get_trials(deepcopy=False):
                    names = [of_trial.name for of_trial in self._runs_of(point, trial)]
                    if run.name in names and not trial.state.is_finished():
                        leads = run.name == names[0]
                        return functools.partial(
                            self._is_pruned, point=point, number=trial.number, leads=leads
                        )
        return None

    def _is_pruned(self, step: int, dev: float, *, point: Point, number: int, leads: bool) -> bool:
        with self._alone():
            study = self._study(point)
            score = dev if leads else None
            return is_pruned(study, self._storage, number, step=step, dev=score)

    def _run(self, point: Point, settings: Mapping[str, Any]) -> SweepRun:
        return run_of(self.file, point.file, settings, self.lms)

    def _runs_of(self, point: Point, trial: "FrozenTrial") -> list[SweepRun]:
        """The runs of a trial, one for each seed."""
        chosen = self._chosen(trial.params)
        key = f"{point.name} {json.dumps(chosen)}"
        if key not in self.runs_of:
            self.runs_of[key] = [self._run(point, {**seed, **chosen}) for seed in point.seeds]
        return self.runs_of[key]

    def _chosen(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {key: values.value(params[key]) for key, values in self.space.items()}

    def _tell(self, study: "Study", trial: "FrozenTrial", runs: Sequence[SweepRun]) -> None:
        """Tell a study what came of a trial, once all of its runs have a result."""
        from optuna.trial import TrialState

        if not all((self.out / run.trial.file).exists() for run in runs):
            return
        outcomes = [RESULTS.read(self.out / run.trial.file)[0] for run in runs]
        if any(outcome.error for outcome in outcomes):
            study.tell(trial.number, state=TrialState.FAIL)
            return
        if any(outcome.pruned for outcome in outcomes):
            study.tell(trial.number, state=TrialState.PRUNED)
            return
        scores = [outcome.dev for outcome in outcomes if outcome.dev is not None]
        if len(scores) < len(outcomes):
            raise PtuneError(
                f"{outcomes[0].command} has no dev score, by which a search chooses: give the task "
                "rows for dev (data.dev, or data.shots)."
            )
        kind = ", ".join(dict.fromkeys(outcome.dev_score for outcome in outcomes))
        first = study.user_attrs.get("dev_score", kind)
        if kind != first:
            raise PtuneError(
                f"{outcomes[0].command} was chosen by {kind} on dev, and trials before it by "
                f"{first}: a search cannot compare them. Put what changes the score (method, "
                "stop_by) under grid, which has a search for each value."
            )
        study.set_user_attr("dev_score", kind)
        study.tell(trial.number, sum(scores) / len(scores))

    def _studies(self) -> Iterator[tuple["Study", Point]]:
        for point in self.points:
            yield self._study(point), point

    def _study(self, point: Point) -> "Study":
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        return optuna.create_study(
            storage=self._storage,
            study_name=point.name,
            direction="maximize",
            load_if_exists=True,
        )

    @cached_property
    def _storage(self) -> Any:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        journal = self.out / "search" / "journal.log"
        return JournalStorage(JournalFileBackend(str(journal), lock_obj=_NoLock()))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the studies, which one process at a time reads and writes; the system lets go of
        them where that is killed."""
        (self.out / "search").mkdir(parents=True, exist_ok=True)
        with FileLock(self.out / "search" / ".lock"):
            yield


class _NoLock:
    """In the place of Optuna's lock on its file, which outlives a process that is killed;
    ``Search._alone`` holds the file."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _sampler(number: int) -> Any:
    """What proposes the settings of a trial, by those before it: it is made anew for each trial, so
    that a search that was stopped goes on as it would have."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=number, n_startup_trials=STARTS)


def _distributions(space: Space) -> dict[str, Any]:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    def of(values: Range | Choice) -> Any:
        if isinstance(values, Choice):
            return CategoricalDistribution(values.values)
        if values.is_whole:
            return IntDistribution(int(values.low), int(values.high), log=values.is_log)
        return FloatDistribution(values.low, values.high, log=values.is_log)

    return {key: of(values) for key, values in space.items()}


def _points(file: pathlib.Path) -> list[Point]:
    """What of a sweep's file is searched by itself."""
    together: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name, settings in read_points(file):
        rest = {key: value for key, value in settings.items() if key != SEED}
        together.setdefault(json.dumps([name, rest], default=str), []).append((name, settings))
    return [
        Point(
            file=entries[0][0],
            settings={key: value for key, value in entries[0][1].items() if key != SEED},
            seeds=tuple(settings for _, settings in entries),
        )
        for entries in together.values()
    ]


def _trains_nothing(run: SweepRun) -> bool:
    return run.parts.method.tune == "nothing"


def _shown(space: Mapping[str, str]) -> str:
    return ", ".join(f"{key}: {values}" for key, values in space.items())
