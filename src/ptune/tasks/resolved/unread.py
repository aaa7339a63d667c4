"""Settings that are set for a training that would not read them: each is refused, so that none is
passed over."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from ptune.errors import ConfigError
from ptune.settings import TaskTrainOverrides, TrainOverrides
from ptune.tasks import task_members
from ptune.tasks.resolved import resolve
from ptune.tasks.resolved.task_form import TaskForm
from ptune.tasks.schema import AUTO, TaskConfig
from ptune.template.language import PrefixPart, Soft
from ptune.training.methods import PET, Method
from ptune.training.methods import method as method_of

OF_NEW_PROMPTS = ("init", "prefix.init", "prefix.hidden")
OF_PREFIX = ("prefix.init", "prefix.hidden", "prefix.attentions", "prefix.gates")
OF_PROMPTS = ("combine", "encoder", "init", *OF_PREFIX)
OF_IPET = ("pet.generations", "pet.growth", "pet.fractions", "pet.share")
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
    the method asks by the other of the two, and settings of what its training does not have.

    Args:
        file: the task as its file has it.
        config: the same with what is set over it.

    Raises:
        ConfigError, TemplateError: it is so, or the task's template cannot be parsed.
    """
    if config.method == AUTO:
        return
    _check_wording(file, config)
    over = _set_over(file, config)
    form, method = resolve.task_form(config), method_of(config.method)
    method = replace(method, tune=config.tune or method.tune)
    _check_training(over, form, method)
    _check_pet(over, method)
    _check_answers(over, form, method)
    if config.continue_from is not None:
        reason = f"says how a new prompt begins, and this one goes on from {config.continue_from}"
        _refuse(over, OF_NEW_PROMPTS, reason)
    elif over.keys() & {*OF_PROMPTS}:
        _check_prompts(over, form, method)


def _set_over(file: BaseModel, config: BaseModel, section: str = "") -> dict[str, Any]:
    """The settings, by names such as "train.steps", that are others than in a file and are not set
    back to what they are by default."""
    over: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        value, before = getattr(config, name), getattr(file, name)
        if isinstance(value, BaseModel) and isinstance(before, BaseModel):
            over |= _set_over(before, value, f"{section}{name}.")
        elif value not in (before, field.default):
            over[f"{section}{name}"] = value
    return over


def _refuse(over: Mapping[str, Any], names: Collection[str], reason: str) -> None:
    """Refuse the first of some settings that is set.

    Raises:
        ConfigError: there is one.
    """
    if name := next((name for name in over if name in names), None):
        raise ConfigError(f"{name} {reason}: leave it out.")


def _check_training(over: Mapping[str, Any], form: TaskForm, method: Method) -> None:
    """Refuse settings of a training, but for the seed, where nothing is trained, and rates by which
    nothing learns.

    Raises:
        ConfigError: there are some.
    """
    of_training = [name for name in over if name.startswith("train.") and name != "train.seed"]
    if method.tune == "nothing":
        _refuse(over, of_training, f"is of a training, and {method.name} trains nothing")
    rates = {rate: over.get(f"train.{rate}") for rate in RATES}
    check_rates(TaskTrainOverrides(**rates), [(form, method)])


def _check_pet(over: Mapping[str, Any], method: Method) -> None:
    """Refuse settings of PET or of iPET where the method is not that.

    Raises:
        ConfigError: there are some.
    """
    if method.name not in PET:
        of_pet = [name for name in over if name.startswith("pet.")]
        _refuse(over, of_pet, f"is of methods pet and ipet, and the method is {method.name}")
    if method.name != "ipet":
        _refuse(over, OF_IPET, f"is of method ipet, and the method is {method.name}")


def _check_answers(over: Mapping[str, Any], form: TaskForm, method: Method) -> None:
    """Refuse settings of other answers than the task has, and another reader than the method's.

    Raises:
        ConfigError: there are some.
    """
    if not form.answers.are_written:
        _refuse(
            over,
            ["data.references"],
            f"bounds the right texts of a row, and the answers of {form.name} are no texts",
        )
    if method.reader and form.reading.by != method.reader and not form.answers.are_read_at_tokens:
        reason = f"names what reads the labels, and {method.name} has its own reader"
        _refuse(over, ["reading.by"], f"{reason} ({method.reader})")


def _check_prompts(over: Mapping[str, Any], form: TaskForm, method: Method) -> None:
    """Refuse settings of soft tokens, of a deep prefix and of several prompts where there are none.

    Raises:
        ConfigError, TemplateError: there are some, or a template cannot be parsed.
    """
    members = task_members.members(form, method)
    if len(members) == 1 or method.name in PET:
        reason = "says how several prompts answer a row together, and one answers the rows of"
        _refuse(over, ["combine"], f"{reason} {form.name} with {method.name}")
    parts = [
        part for member in members for part in task_members.parsed(form, member.template).parts
    ]
    soft = [part for part in parts if isinstance(part, Soft)]
    prefixes = [part for part in parts if isinstance(part, PrefixPart)]
    asks = f"and {method.name} asks {form.name} without"
    if not soft:
        _refuse(over, ["encoder"], f"says how soft tokens are made, {asks} any")
    if all(part.words is not None for part in soft):
        _refuse(over, ["init"], f"says as what soft tokens without words begin, {asks} such")
    if not prefixes:
        _refuse(over, OF_PREFIX, f"is of a deep prefix, {asks} one")
    if all(part.words is not None for part in prefixes):
        _refuse(over, ["prefix.init"], f"says as what a prefix without words begins, {asks} one")


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
