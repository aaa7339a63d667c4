"""What a training is, before its rows are read: what its best state is chosen by, its LM and its
folder."""

from ptune.answers.ensemble import Combine
from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.settings import PetConfig
from ptune.storage import prompt_folder, saved_lm
from ptune.tasks.judging import judge_labels
from ptune.tasks.resolved.parts import LMSource, Output
from ptune.tasks.resolved.task_form import TaskForm
from ptune.training.methods import PET, Method
from ptune.training.pattern_exploiting.pet_rows import LEAST_HELD_OUT

CHECKPOINT = "checkpoint.safetensors"


def dev_score(form: TaskForm) -> str:
    """What the best state of a training is chosen by, in words for reports."""
    answers, stop_by = form.answers, form.judging.stop_by
    if answers.multi_label:
        return "f1-micro"
    if answers.are_read_at_tokens:
        return judge_labels.default_metrics(answers)[0]
    if not answers.are_written:
        return "accuracy"
    if stop_by == "loss":
        return "minus the dev loss"
    return "minus ter" if stop_by == "ter" else stop_by


def score_of_pet(form: TaskForm, pet: PetConfig, unlabeled: int) -> str:
    """What the best state of PET's classifier is chosen by, in words for reports.

    Args:
        unlabeled: how many unlabelled rows there are.
    """
    if unlabeled >= LEAST_HELD_OUT and pet.held_out:
        return "nearness to answers of PET's members to rows held out"
    return dev_score(form)


def load_lm(source: LMSource, method: Method) -> LanguageModel:
    """The task's LM; that of the prompt that it goes on from, where no other is named."""
    tuned = method.tune in ("head", "lm", "both") or method.name in PET
    if source.continue_from is not None and source.name == "builtin":
        folder = prompt_folder.folders_in(source.continue_from)[0]
        return saved_lm.lm_of(folder, source.device, source.dtype, tuned)
    return LanguageModel.load(source.name, device=source.device, dtype=source.dtype, tuned=tuned)


def check_out(output: Output, prompt_by: str | None) -> None:
    """Refuse an out folder whose prompts or unfinished training this run would not go on with.

    Raises:
        ConfigError: it is one.
    """
    folder = output.folder
    holds_prompts = prompt_by and (folder / "prompts").exists()
    if holds_prompts and not (output.resume or output.only):
        raise ConfigError(
            f"{folder} holds trained prompts already: name those to train with --only, go on "
            "with --resume, or choose another --out."
        )
    if output.only and (folder / CHECKPOINT).exists() and not output.resume:
        raise ConfigError(
            f"{folder} holds a training that was stopped before its end: go on with it by "
            "--resume, or choose another --out."
        )


def is_finished(output: Output) -> bool:
    """Whether the run that is to be resumed has nothing left to do."""
    return (
        output.resume
        and not output.only
        and (output.folder / "run.json").exists()
        and not (output.folder / CHECKPOINT).exists()
    )


def is_weighted(combine: Combine, has_labels: bool) -> bool:
    """Whether the members of an ensemble are weighed by their accuracy on dev; texts are always
    answered by vote."""
    return combine == "weighted" and has_labels
