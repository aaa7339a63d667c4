"""Settings that are set for a training that would not read them: each is refused, so that none is
passed over."""

from collections.abc import Sequence
from dataclasses import replace

from ptune.errors import ConfigError
from ptune.settings import TrainOverrides
from ptune.tasks import task_members
from ptune.tasks.resolved import resolve
from ptune.tasks.resolved.task_form import TaskForm
from ptune.tasks.schema import AUTO, TaskConfig
from ptune.training.methods import Method
from ptune.training.methods import method as method_of

RATES = {
    "learning_rate": ("a prompt or a head", "the LM's rate is train.lm_learning_rate"),
    "lm_learning_rate": ("the LM", "a prompt's rate is train.learning_rate"),
}
"""For each rate of a training what learns by it, and what the other rate is."""


def check_rates(overrides: TrainOverrides, trainings: Sequence[tuple[TaskForm, Method]]) -> None:
    """Refuse a learning rate by which nothing learns.

    Args:
        trainings: the task and the method of each that is done with these settings.

    Raises:
        ConfigError: there is one.
    """
    read = {name for form, method in trainings for name in _rates(form, method)}
    for name, (learner, other) in RATES.items():
        if getattr(overrides, name) is not None and name not in read:
            methods = ", ".join(dict.fromkeys(method.name for _, method in trainings))
            raise ConfigError(
                f"train.{name} is the rate of {learner}, which is not trained by "
                f"{methods or 'baselines'}: leave it out; {other}."
            )


def _rates(form: TaskForm, method: Method) -> list[str]:
    """The rates by which a method trains a task."""
    if method.tune == "nothing":
        return []
    has_head = task_members.reader_of(form, method).is_trained
    rates = ["learning_rate"] if method.tune in ("prompt", "both") or has_head else []
    return rates if method.tune == "prompt" else [*rates, "lm_learning_rate"]


def check_asked(file: TaskConfig, config: TaskConfig) -> None:
    """Refuse what is set over a task's file and would not be read: a template, or patterns, where
    the method asks by the other of the two, and settings of training.

    Args:
        file: the task as its file has it.
        config: the same with what is set over it.

    Raises:
        ConfigError: it is so.
    """
    if config.method == AUTO:
        return
    _check_wording(file, config)
    method = method_of(config.method)
    method = replace(method, tune=config.tune or method.tune)
    in_file = {name: None for name, value in file.train if value == getattr(config.train, name)}
    overrides = config.train.model_copy(update=in_file)
    _check_trained(overrides, method)
    check_rates(overrides, [(resolve.task_form(config), method)])


def _check_trained(overrides: TrainOverrides, method: Method) -> None:
    """Refuse settings of a training, but for the seed, where nothing is trained.

    Raises:
        ConfigError: it is so.
    """
    unread = [name for name in overrides.model_dump(exclude_none=True) if name != "seed"]
    if unread and method.tune == "nothing":
        raise ConfigError(
            f"train.{unread[0]} is of a training, and {method.name} trains nothing: leave it out, "
            "or take another method (ptune methods lists them)."
        )


def _check_wording(file: TaskConfig, config: TaskConfig) -> None:
    """Refuse a template, or patterns, where the method asks by the other of the two.

    Raises:
        ConfigError: it is so.
    """
    if not config.template or not config.patterns:
        return
    has_template = "<template>" in method_of(config.method).frame
    unread, read = ("patterns", "template") if has_template else ("template", "patterns")
    if getattr(config, unread) != getattr(file, unread):
        raise ConfigError(
            f"{unread} is set, and {config.method} asks by the {read} of {config.name}: set "
            f"{read} in its place, or take another method (ptune methods lists them)."
        )
