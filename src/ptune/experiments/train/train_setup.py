"""What a training is, before its rows are read: its method, its settings, its LM and its
identity."""

from dataclasses import replace
from typing import Any

from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.runs import identity
from ptune.settings import TrainConfig
from ptune.storage import prompt_folder, saved_lm
from ptune.tasks import task_members
from ptune.tasks.judging import judge_labels
from ptune.tasks.schema import TaskConfig
from ptune.training.methods import Method
from ptune.training.paper_settings import preset_method, preset_pet
from ptune.training.pattern_exploiting.pet_rows import LEAST_HELD_OUT

PET = ("pet", "ipet")
CHECKPOINT = "checkpoint.safetensors"


def continued(config: TaskConfig) -> TaskConfig:
    """A task that goes on from a prompt: where it has no template, with that prompt's template.

    Raises:
        ConfigError: its method trains several prompts.
    """
    if config.method in PET:
        raise ConfigError(
            f"{config.method} trains its members anew: --from goes with a method that trains one "
            "prompt."
        )
    if config.template or config.patterns:
        return config
    folder = prompt_folder.folders_in(str(config.continue_from))[0]
    return config.model_copy(update={"template": prompt_folder.template_of(folder)})


def resolve_method(config: TaskConfig) -> Method:
    """The task's method, with what the task tunes in place of what the method does.

    Raises:
        ConfigError: the method and the task's other settings do not go together.
    """
    method = preset_method(config.method, config.preset)
    if config.minutes is not None:
        raise ConfigError(
            f"minutes is what method auto may take, and the method is {config.method}: leave it "
            "out; steps and epochs under train say how long a training is."
        )
    method = replace(method, tune=config.tune or method.tune)
    reader = task_members.reader_of(config, method)
    if method.tune == "lm" and reader.is_trained:
        method = replace(method, tune="both")
    task_members.check_trained(config, method)
    _check_prompts(config, method)
    _check_combine(config)
    if config.train.class_weights and method.tune == "nothing":
        raise ConfigError(
            f"class_weights weighs the rows of a training, and {method.name} trains nothing: leave "
            "it out, or take another method (ptune methods lists them)."
        )
    if config.parts and has_labels(config):
        raise ConfigError(
            "parts gives the figures of written answers apart, and this task has labels: leave "
            "parts out."
        )
    if config.only and not config.prompt_by:
        raise ConfigError("only names values of prompt_by, and the task has none.")
    return method


def _check_prompts(config: TaskConfig, method: Method) -> None:
    """Refuse several prompts, of users or of an ensemble, where the method cannot train them."""
    if config.prompt_by and method.tune != "prompt":
        raise ConfigError(
            f"prompt_by gives each {config.prompt_by} its own prompt, and {config.method} trains "
            "none: take prefix-tuning or another."
        )
    if method.name in PET and config.prompt_by:
        raise ConfigError(
            f"prompt_by gives each {config.prompt_by} its own prompt, and {method.name} trains one "
            "classifier for all rows."
        )
    if (
        method.name not in PET
        and len(task_members.members(config)) > 1
        and (config.prompt_by or method.tune not in ("prompt", "nothing"))
    ):
        raise ConfigError(
            "An ensemble goes with a method that trains prompts or nothing, and without "
            "prompt_by; method pet tunes an LM for each member."
        )
    if config.multi_label and len(task_members.members(config)) > 1:
        raise ConfigError(
            f"{config.name} has {len(config.patterns)} patterns, which answer together, and with "
            "multi_label one prompt answers each row: leave one pattern."
        )
    if config.prompts > 1 and method.tune == "nothing":
        raise ConfigError(
            f"{config.prompts} prompts of different seeds go with a method that trains prompts."
        )


def _check_combine(config: TaskConfig) -> None:
    if config.prompt_by and config.combine != "mean":
        raise ConfigError(
            f"combine: {config.combine} says how the members of an ensemble answer together, and "
            "with prompt_by one prompt answers each row: leave combine out."
        )
    if config.combine == "weighted" and not config.data.dev:
        raise ConfigError(
            "combine: weighted weighs the members of an ensemble by their accuracy on dev rows: "
            "give data.dev."
        )


def train_settings(config: TaskConfig) -> TrainConfig:
    """The settings of training: the task's, or else the method's."""
    method = preset_method(config.method, config.preset)
    return method.train.replaced(config.train.model_dump())


def has_labels(config: TaskConfig) -> bool:
    """Whether the answer is a label, one of several choices, or right or wrong, and no text."""
    return bool(
        config.labels or config.vocabulary or config.choices or config.span or config.extract
    )


def dev_score(config: TaskConfig, unlabeled: int = 0) -> str:
    """What the best state of a training is chosen by, in words for reports.

    Args:
        unlabeled: how many unlabelled rows there are.
    """
    held_out = preset_pet(config.pet, config.preset).held_out
    if config.method in PET and unlabeled >= LEAST_HELD_OUT and held_out:
        return "nearness to answers of PET's members to rows held out"
    if config.multi_label:
        return "f1-micro"
    if config.tag or config.extract:
        return judge_labels.metrics_of(config.model_copy(update={"metrics": ()}))[0]
    if has_labels(config):
        return "accuracy"
    if config.stop_by == "loss":
        return "minus the dev loss"
    return "minus ter" if config.stop_by == "ter" else config.stop_by


def load_lm(config: TaskConfig, method: Method) -> LanguageModel:
    """The task's LM; that of the prompt that it goes on from, where no other is named."""
    tuned = method.tune in ("head", "lm", "both") or method.name in PET
    if config.continue_from is not None and config.lm == "builtin":
        folder = prompt_folder.folders_in(config.continue_from)[0]
        return saved_lm.lm_of(folder, config.device, config.dtype, tuned)
    return LanguageModel.load(config.lm, device=config.device, dtype=config.dtype, tuned=tuned)


def run_identity(config: TaskConfig, lm: LanguageModel) -> dict[str, Any]:
    """All that the outcome depends on, beside the names of the prompts that are trained."""
    beside = ("lm", "out", "resume", "device", "dtype", "only", "title")
    return {"lm": identity.of_lm(lm), **identity.of_settings(config, beside)}


def check_out(config: TaskConfig) -> None:
    """Refuse an out folder whose prompts or unfinished training this run would not go on with.

    Raises:
        ConfigError: it is one.
    """
    holds_prompts = config.prompt_by and (config.out / "prompts").exists()
    if holds_prompts and not (config.resume or config.only):
        raise ConfigError(
            f"{config.out} holds trained prompts already: name those to train with --only, go on "
            "with --resume, or choose another --out."
        )
    if config.only and (config.out / CHECKPOINT).exists() and not config.resume:
        raise ConfigError(
            f"{config.out} holds a training that was stopped before its end: go on with it by "
            "--resume, or choose another --out."
        )


def is_finished(config: TaskConfig) -> bool:
    """Whether the run that is to be resumed has nothing left to do."""
    return (
        config.resume
        and not config.only
        and (config.out / "run.json").exists()
        and not (config.out / CHECKPOINT).exists()
    )


def is_weighted(config: TaskConfig, has_labels: bool) -> bool:
    """Whether the members of an ensemble are weighed by their accuracy on dev; texts are always
    answered by vote."""
    return config.combine == "weighted" and has_labels
