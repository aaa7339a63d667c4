"""What a training has before its first step: its LM, its rows, its folder, and what its best state
is chosen by."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ptune.answers.ensemble import Combine
from ptune.base.ranks import ALONE, Ranks
from ptune.errors import ConfigError
from ptune.experiments.beginning import transfer
from ptune.experiments.estimate import batch_size
from ptune.experiments.train import train_findings
from ptune.experiments.train.train_rows import TaskRows, texts_that_are_read
from ptune.lm.language_model import LanguageModel
from ptune.lm.source.loading import choose_device, choose_dtype
from ptune.model.prompt_model import PromptModel
from ptune.runs import identity
from ptune.runs.folder import RunFolder, working_in
from ptune.runs.logs.open_logs import check_logs, opened_logs
from ptune.runs.logs.training_log import TrainingLog
from ptune.settings import PetConfig
from ptune.storage import prompt_folder, saved_lm
from ptune.survey.text_checks import unknown_text
from ptune.tasks.judging import judge_labels
from ptune.tasks.resolved.parts import LMSource, Output, TrainingParts
from ptune.tasks.resolved.task_form import TaskForm
from ptune.training.methods import PET, Method
from ptune.training.pattern_exploiting.pet_rows import LEAST_HELD_OUT
from ptune.training.prompt_training import Pruner

CHECKPOINT = "checkpoint.safetensors"
MAY_CHANGE = (
    "data",
    "train",
    "transfer",
    "encoder",
    "metrics",
    "parts",
    "version",
    "versions",
)  # where prompts of a bank are added or go on


@dataclass(frozen=True)
class Setup:
    """A task with all that its training needs.

    Attributes:
        start: prompts that new ones go on from.
        sources: prompts as one of which each new one begins.
        identity: all that the outcome depends on.
        data_findings: what is odd about the rows.
        logs: what gets the figures of the training while it runs.
        ranks: the processes that train together.
        pruner: what ends the training early, by how others did.
    """

    parts: TrainingParts
    rows: TaskRows
    lm: LanguageModel
    start: PromptModel | None
    folder: RunFolder
    identity: Mapping[str, Any]
    report: Callable[[str], None]
    data_findings: Sequence[str]
    sources: Sequence[transfer.Source] = ()
    logs: Sequence[TrainingLog] = ()
    ranks: Ranks = ALONE
    pruner: Pruner | None = None

    def claim_folder(self) -> None:
        """Claim the folder, once all that can be checked before the first step is checked, and let
        the other processes begin."""
        if self.folder.begun is None:
            kept = {"batch_size": self.parts.train.batch_size}
            self.folder.claim(self.identity, kept if self.parts.finds_batch_size else None)
        self.ranks.begin()


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


def score_of_training(setup: Setup) -> str:
    """What the best state is chosen by, in words."""
    parts = setup.parts
    if parts.method.name in PET:
        unlabeled = len(setup.rows.splits["unlabeled"])
        return score_of_pet(parts.form, parts.pet, unlabeled)
    return dev_score(parts.form)


def load_lm(source: LMSource, method: Method, ranks: Ranks = ALONE) -> LanguageModel:
    """The task's LM; that of the prompt that it goes on from, where no other is named.

    Args:
        ranks: the processes that share it out, where the source says so.
    """
    if source.sharding != "none":
        return _sharded(source, method, ranks)
    tuned = method.tune in ("head", "lm", "both") or method.name in PET
    if source.continue_from is not None and source.name == "builtin":
        folder = prompt_folder.folders_in(source.continue_from)[0]
        return saved_lm.lm_of(folder, source.device, source.dtype, tuned)
    return LanguageModel.load(source.name, device=source.device, dtype=source.dtype, tuned=tuned)


def _sharded(source: LMSource, method: Method, ranks: Ranks) -> LanguageModel:
    """The LM of a training that processes do together; each loads it whole into the CPU's memory
    and then keeps a share."""
    device = choose_device(source.device)
    dtype = str(choose_dtype(source.dtype, device)).removeprefix("torch.")
    whole = replace(source, device="cpu", dtype=dtype, sharding="none")  # type: ignore[arg-type]
    lm = load_lm(whole, method)
    ranks.begin()
    lm.shard(source.sharding, ranks, device)
    return lm


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


def remembers_rows(form: TaskForm) -> bool:
    """Whether the members of an ensemble are weighed for each row by the nearest train rows."""
    return form.combine == "neighbours"


@contextlib.contextmanager
def entered(
    parts: TrainingParts,
    report: Callable[[str], None],
    load: Callable[[LMSource, Method], LanguageModel],
) -> Iterator[Setup]:
    """Hold the folder of a training, with all that the training needs.

    Args:
        load: gives the LM, once all that can be told without it is.

    Raises:
        PtuneError: the folder, the rows or the LM are at fault.
    """
    output = parts.output
    check_out(output, parts.form.prompt_by)
    check_logs(output.log)
    adds = bool(output.only)
    with (
        working_in(output.folder, "ptune train", output.resume, adds=adds) as folder,
        opened_logs(output.log, output.folder, parts.settings) as logs,
    ):
        yield replace(_set_up(parts, folder, report, load), logs=logs)


def check_begun(setup: Setup) -> None:
    """Refuse to go on with another training than the one that was begun in the folder.

    Raises:
        ConfigError: it is another one; what differs is named.
    """
    if setup.folder.begun is not None:
        setup.folder.claim(setup.identity, free=MAY_CHANGE if setup.parts.output.only else ())


def _set_up(
    parts: TrainingParts,
    folder: RunFolder,
    report: Callable[[str], None],
    load: Callable[[LMSource, Method], LanguageModel],
) -> Setup:
    """Read the rows, then the LM, and check that they fit together."""
    form, source = parts.form, parts.source
    rows = TaskRows.read(form, parts.data, report)
    judge_labels.check_metrics(form, rows.splits["test"] or rows.splits["dev"])
    data_findings = train_findings.of_rows(form, rows.splits)
    if parts.finds_batch_size:
        parts = _with_batch_size(parts, rows, folder, report)
    lm = load(source, parts.method)
    texts = texts_that_are_read(form, rows.splits)
    for sentence in unknown_text.check(texts, lm.tokens, parts.allow_unknown):
        report(sentence)
    return Setup(
        parts=parts,
        rows=rows,
        lm=lm,
        start=prompts_to_start_from(source, lm),
        folder=folder,
        identity={"lm": identity.of_lm(lm), **identity.with_contents(parts.deciding)},
        report=report,
        data_findings=data_findings,
        sources=transfer.sources_in(source.transfer, lm),
    )


def _with_batch_size(
    parts: TrainingParts, rows: TaskRows, folder: RunFolder, report: Callable[[str], None]
) -> TrainingParts:
    """The same with the largest batch size that fits, or that with which the run began."""
    size = (folder.kept or {}).get("batch_size") if folder.begun is not None else None
    size = size or batch_size.largest(parts, rows.splits["train"], report)
    return replace(parts, train=parts.train.model_copy(update={"batch_size": size}))


def prompts_to_start_from(source: LMSource, lm: LanguageModel) -> PromptModel | None:
    """The prompts as which new ones begin, where there are any."""
    if source.continue_from is None:
        return None
    folders = prompt_folder.folders_in(source.continue_from)
    return prompt_folder.load(folders, lm, trainable=True)
