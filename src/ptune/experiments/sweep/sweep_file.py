"""A sweep as its YAML file describes it: tasks, a grid of settings, a list of others."""

import itertools
import pathlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ValidationError
from tyro.conf import Suppress

from ptune.base import plain_files
from ptune.data import yaml_files
from ptune.errors import ConfigError, PtuneError, nearest
from ptune.experiments.sweep.train_together import bank_of
from ptune.runs import identity
from ptune.runs.trials import Trial
from ptune.tasks import yaml_task
from ptune.tasks.resolved import resolve
from ptune.tasks.resolved.parts import TrainingParts
from ptune.tasks.resolved.unread import check_asked
from ptune.tasks.schema import AUTO, TaskConfig

KEYS = ("tasks", "grid", "list")
OF_THE_SWEEP = ("out", "resume", "only", "minutes")
OF_A_FILE = (  # what no option of ptune train says
    "name",
    *(key for key, field in TaskConfig.model_fields.items() if Suppress in field.metadata),
)
SEED = "train.seed"


@dataclass(frozen=True)
class SweepRun:
    """One training of a sweep.

    Attributes:
        file: the task's file, or the name of one of ours, as the sweep names it.
        settings: what the sweep sets in it, by keys such as "train.learning_rate".
        trial: all that decides the result.
    """

    file: str
    settings: Mapping[str, Any]
    parts: TrainingParts
    trial: Trial

    @property
    def name(self) -> str:
        """What its files are called: a hash of all that decides the result."""
        return self.trial.identity[:16]

    @property
    def command(self) -> str:
        """The command that trains the same."""
        options = [
            text
            for key, value in _named(self.settings)
            for text in (f"--{_option(key)}", *_values(value))
        ]
        return f"ptune train {shlex.join([self.file, *options, '--out', self.name])}"


def _named(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings with a name for each value of a mapping: data.take.test."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", one) for name, one in value.items())
        else:
            yield key, value


def _option(key: str) -> str:
    return "from" if key == "continue_from" else key.replace("_", "-")


def _values(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def read_sweep(path: pathlib.Path) -> list[SweepRun]:
    """The runs of a sweep's YAML file.

    Raises:
        ConfigError: the file is no sweep, or a run cannot be; its settings are told.
    """
    lms: dict[str, str] = {}
    runs = [run_of(path, name, settings, lms) for name, settings in read_points(path)]
    _check_different(path, runs)
    return runs


def read_points(path: pathlib.Path) -> list[tuple[str, dict[str, Any]]]:
    """The tasks of a sweep's YAML file with the settings of each of their runs.

    Raises:
        ConfigError: the file is no sweep.
    """
    raw = _read(path)
    tasks = raw.get("tasks")
    names = [tasks] if isinstance(tasks, str) else tasks
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise ConfigError(f"{path} names no task: tasks: [first.yaml, second.yaml]")
    points = list(_settings(path, raw.get("grid"), raw.get("list")))
    return [(name, settings) for name in names for settings in points]


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        raw = yaml_files.parse(plain_files.read_text(path, "utf-8-sig"), path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"The sweep's file {path} cannot be read: {reason}.") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} should hold keys and values: tasks, grid, list.")
    if unknown := next((key for key in raw if key not in KEYS), None):
        raise ConfigError(f"{path}: a sweep has no key {unknown!r}. {nearest(unknown, KEYS)}")
    return raw


def _settings(path: pathlib.Path, grid: Any, listed: Any) -> Iterator[dict[str, Any]]:
    """Each entry of the list with each point of the grid.

    Raises:
        ConfigError: they are of another form.
    """
    if not isinstance(grid or {}, dict):
        raise ConfigError(f"{path}: grid holds keys with lists of values: train.seed: [0, 1]")
    entries = listed or [{}]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{path}: list holds settings that go together: - {{method: manual}}")
    for key, values in (grid or {}).items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{path}: grid.{key} holds a list of values: {key}: [..., ...]")
        if key in {key for entry in entries for key in entry}:
            raise ConfigError(f"{path}: {key} stands in grid and in list: which is meant?")
    for entry in entries:
        for point in itertools.product(*(grid or {}).values()):
            yield {**entry, **dict(zip(grid or {}, point))}


def _placed(path: pathlib.Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose files lie where the sweep's file names them from: from its own folder, as
    those in a task's file do.

    Raises:
        ConfigError: one is not there, or names a variable of the environment that is not set.
    """
    placed = {
        key: yaml_task.placed_value(key, value, path.parent, path)
        for key, value in settings.items()
    }
    for key in placed.keys() & set(yaml_task.FILES) - set(OF_THE_SWEEP):
        for file in _values(placed[key]):
            if "${" not in file and not pathlib.Path(file).exists():
                raise ConfigError(
                    f"{path}: there is no {file}, as {key} names it: files that a sweep names "
                    "are looked for from its own folder."
                )
    return placed


def run_of(
    path: pathlib.Path, name: str, settings: Mapping[str, Any], lms: dict[str, str]
) -> SweepRun:
    """A run, once its settings are checked.

    Args:
        path: the sweep's file.
        name: the task's file, as the sweep names it.
        lms: what tells the LMs of runs before from others (``_lm``).

    Raises:
        ConfigError: they cannot be.
    """
    settings = _placed(path, settings)
    shown = ", ".join(f"{key}: {value}" for key, value in settings.items()) or "no settings"
    if taken := next((key for key in settings if key in OF_THE_SWEEP), None):
        raise ConfigError(f"{path}: {taken} is the sweep's to say, not a setting of its runs.")
    if taken := next((key for key in settings if key in OF_A_FILE), None):
        raise ConfigError(f"{path}: {taken} is set in a task's file: name two files under tasks.")
    beside = path.parent / name
    try:
        parts = _parts(beside if beside.is_file() else pathlib.Path(name), settings)
    except ValidationError as error:
        reason = yaml_task.explained(error)
        raise ConfigError(f"{path}, {name} with {shown}: {reason}") from error
    except PtuneError as error:
        raise ConfigError(f"{path}, {name} with {shown}: {error}") from error
    trial = Trial(
        method=parts.method.name,
        task=parts.form.name,
        seed=parts.train.seed,
        shots=0,
        settings={
            "lm": _lm(parts.source.name, lms),
            "dtype": parts.source.dtype,
            **identity.with_contents(parts.deciding),
        },
        file="",
        scratch="",
    )
    bank = bank_of(parts, _lm(parts.source.name, lms))
    trial = replace(trial, file=f"results/{trial.identity[:16]}.json", bank=bank)
    return SweepRun(str(beside if beside.is_file() else name), settings, parts, trial)


def _lm(name: str, known: dict[str, str]) -> str:
    """What tells an LM from others: the content of its folder or file, or its name on the hub.

    Args:
        known: what was computed before, by the LM's name; added to.
    """
    path = pathlib.Path(name)
    if name not in known:
        known[name] = identity.of_file(path) if path.exists() else name
    return known[name]


def _parts(file: pathlib.Path, settings: Mapping[str, Any]) -> TrainingParts:
    """A task with a run's settings in their places, resolved.

    Raises:
        PtuneError, ValidationError: there is no such training.
    """
    as_the_file = yaml_task.read(file, settings.get("preset"))
    raw = as_the_file.model_dump(exclude_unset=True)
    for key, value in settings.items():
        _put(raw, key, value)
    config = TaskConfig.model_validate(raw)
    check_asked(as_the_file, config)
    if config.method == AUTO:
        raise ConfigError("method: auto is a choice among methods itself: name methods.")
    if config.train.batch_size == "auto":
        raise ConfigError(
            "batch_size: auto takes what one training finds free, and runs of a sweep share the "
            "machine: name sizes."
        )
    return resolve.training(config)


def _put(raw: dict[str, Any], key: str, value: Any) -> None:
    """Put a setting into a task, at a key such as "train.steps"; a mapping takes the place of those
    of the task's values that it names.

    Raises:
        ConfigError: the key is of a whole section, or stands under none.
    """
    *sections, last = key.split(".")
    place, config = raw, TaskConfig
    for section in sections:
        config = _section(config, section)
        if config is None:
            raise ConfigError(
                f"{section!r} is no section of a task's file, as {key} would have it."
            )
        place[section] = dict(place.get(section) or {})
        place = place[section]
    if _section(config, last) is not None:
        raise ConfigError(f"{last} is a section: set its keys one by one, as {key}.KEY.")
    if isinstance(value, dict) and isinstance(place.get(last), dict):
        value = {**place[last], **value}
    place[last] = value


def _section(config: Any, name: str) -> Any:
    """The settings of a section of a task's file; None where it has none of that name."""
    kind = config.model_fields[name].annotation if name in config.model_fields else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _check_different(path: pathlib.Path, runs: Sequence[SweepRun]) -> None:
    """Refuse two runs of the same, and two tasks of one name.

    Raises:
        ConfigError: there are such.
    """
    first: dict[str, SweepRun] = {}
    files: dict[str, str] = {}
    for run in runs:
        name = run.parts.form.name
        if files.setdefault(name, run.file) != run.file:
            raise ConfigError(
                f"{path}: the tasks of {files[name]} and {run.file} are both called {name!r}: give "
                "one another name, since the table tells them apart by it."
            )
        if run.name in first:
            raise ConfigError(
                f"{path}: two runs are the same: `{first[run.name].command}` and "
                f"`{run.command}`. Leave one out."
            )
        first[run.name] = run
