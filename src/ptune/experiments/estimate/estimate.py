"""``ptune train --estimate``: the memory of a task's training, by part, before its LM is loaded."""

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import AutoConfig

from ptune.answers.from_row import Choices
from ptune.answers.label_words import Verbalizer
from ptune.base import terminal
from ptune.errors import ConfigError
from ptune.experiments.estimate.memory_of_training import (
    Memory,
    PromptShape,
    StepShape,
    memory_of_step,
)
from ptune.experiments.train.train_rows import TaskRows
from ptune.lm.source import loading, model_files
from ptune.model.running.losses import CPU_TOKENS
from ptune.model.task import Row
from ptune.tasks import task_members
from ptune.tasks.model_task import verbalizer_of
from ptune.tasks.resolved import resolve
from ptune.tasks.resolved.parts import TrainingParts
from ptune.tasks.schema import AUTO, TaskConfig
from ptune.template.encode import EncodedRow
from ptune.template.language import Kind, Template
from ptune.template.tokenizer import Tokens
from ptune.training.methods import PET, Method

LONGEST = 200  # rows whose tokens are counted: those with the most characters
LIBRARIES = 70 * 2**20  # modules and buffers of PyTorch that come with a first LM and a first step
KEPT_FREE = 0.2  # the share of what each step takes and frees that the allocator keeps beside it


@dataclass(frozen=True)
class Estimate:
    """The memory of a training, and what a step runs at once."""

    memory: Memory
    shape: StepShape

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by part."""
        memory = self.memory
        return {
            "weights of the LM": memory.weights,
            "activations": memory.activations,
            "prompt, its gradient, its best state": memory.prompt,
            "gradients and best state of the LM": memory.tuned_lm,
            "optimiser": memory.optimiser,
            "kept by the allocator": round(KEPT_FREE * memory.taken_each_step),
            "libraries": LIBRARIES,
        }

    @property
    def total(self) -> int:
        """Bytes of all parts together."""
        return sum(self.parts.values())

    def lines(self) -> list[str]:
        """The table that is printed."""
        parts, shape = {**self.parts, "together": self.total}, self.shape
        head = f"{shape.rows} rows of {shape.tokens} tokens run at once:"
        return [head, *(f"{name:38}{size / 2**20:10.1f} MiB" for name, size in parts.items())]


def estimate(config: TaskConfig, report: Callable[[str], None] = terminal.print_line) -> Estimate:
    """Estimate the memory of a task's training, and print it. The tokenizer, the LM's config and
    the rows are read; no weight is.

    Raises:
        ConfigError: it is no training that can be estimated (``check``), or its batch size is to be
            found.
        PtuneError: the task, its rows or the LM are at fault.
    """
    _check_one(config.method, config.lm)
    parts = resolve.training(config)
    if parts.finds_batch_size:
        raise ConfigError(
            "--estimate is of a batch size, and batch_size: auto takes what fits: name one."
        )
    check(parts)
    rows = TaskRows.read(parts.form, parts.data, lambda _: None).splits["train"]
    result = estimate_of(parts, rows, parts.train.batch_size)
    for line in result.lines():
        report(line)
    return result


def estimate_of(parts: TrainingParts, rows: Sequence[Row], batch_size: int) -> Estimate:
    """The memory of a training whose steps have so many rows.

    Args:
        rows: those to learn from.

    Raises:
        ConfigError: there are no rows.
        PtuneError: the LM or a row is at fault.
    """
    method, form, settings, source = parts.method, parts.form, parts.train, parts.source
    if not rows:
        raise ConfigError(f"{form.name} has no rows to train on: give data.train.")
    folder, where = loading.locate(source.name)
    with loading.quiet_loading(source.name, pathlib.Path(folder)):
        model_files.check(folder, **where)
        lm_config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **where)
        tokens = Tokens(loading.load_tokenizer(source.name))
    kind = loading.kind_of(lm_config, tokens.tokenizer)
    device = loading.choose_device(source.device)
    dtype = loading.choose_dtype(source.dtype, device)
    tunes_lm = method.tune != "prompt"
    template = task_members.parsed(form, task_members.members(form, method)[0].template)
    template = template.for_lm(tokens, kind, whole=True)[0]
    size = -(-batch_size // settings.accumulate)
    limit = CPU_TOKENS if device.type == "cpu" else 0
    shape = _shape(_encoded(template, tokens, kind, rows=rows, parts=parts), size, limit)
    prompt = _prompt(parts.learning.applied_to(method), template, tokens)
    dtype = (
        dtype if not tunes_lm or dtype.itemsize >= 4 else loading.choose_dtype("float32", device)
    )
    memory = memory_of_step(
        lm_config, kind, dtype, shape=shape, prompt=prompt, tunes_lm=tunes_lm, settings=settings
    )
    return Estimate(memory, shape)


def _check_one(method: str, lm: str) -> None:
    """Refuse methods that train several models, and LMs without a config.

    Raises:
        ConfigError: it is so.
    """
    if method in (AUTO, *PET) or lm.endswith(".gguf"):
        raise ConfigError(
            "An estimate of memory is of one training of an LM with a config.json, and this task "
            f"has method {method} and LM {lm}."
        )


def check(parts: TrainingParts) -> None:
    """Refuse what is no training of one prompt or of a whole LM.

    Raises:
        ConfigError: it is so.
    """
    method, form = parts.method, parts.form
    _check_one(method.name, parts.source.name)
    if method.tune in ("nothing", "head"):
        trains = "nothing" if method.tune == "nothing" else "a head alone"
        raise ConfigError(
            f"An estimate of memory is of a training of a prompt or of an LM, and {method.name} "
            f"trains {trains}."
        )
    if form.prompt_by or parts.finds_rate or len(task_members.members(form, method)) > 1:
        raise ConfigError(
            f"An estimate of memory is of one prompt, and {form.name} trains several in one batch, "
            "as users have, an ensemble, or learning_rate: auto."
        )


def _encoded(
    template: Template, tokens: Tokens, kind: Kind, *, rows: Sequence[Row], parts: TrainingParts
) -> list[list[EncodedRow]]:
    """The longest rows, each in all the forms in which the LM gets it."""
    longest = sorted(rows, key=lambda row: -sum(len(str(value)) for value in row.values()))
    limit = parts.form.max_length
    return [
        [
            template.encode(row, tokens, kind, max_length=limit, answer=answer)
            for answer in _answers(template, tokens, kind, row=row, parts=parts)
        ]
        for row in longest[:LONGEST]
    ]


def _answers(
    template: Template, tokens: Tokens, kind: Kind, *, row: Row, parts: TrainingParts
) -> Sequence[Sequence[int | None]]:
    """How the place of the answer is filled in turn to learn a row: words of several tokens need a
    row each, where the LM reads from left to right."""
    form, method, reading = parts.form, parts.method, parts.form.reading
    if form.answers.are_written:
        return [tokens.follow(str(row[form.target]))]
    answers: Sequence[Sequence[int | None]] = [[None]]
    if parts.learning.loss != "vocabulary":
        member = task_members.members(form, method)[0]
        verbalizer = verbalizer_of(form, tokens, kind, member, template=template, method=method)
        reader = task_members.reader_of(form, method)
        if isinstance(verbalizer, Verbalizer):
            answers = reader.answers(verbalizer.bind(tokens, template.place, kind))
        elif isinstance(verbalizer, Choices):
            answers = reader.answers(verbalizer.bind(row, tokens, template.place, kind))
    return [*answers] * (1 + bool(reading.swap) + bool(reading.domain))


def _shape(encoded: Sequence[Sequence[EncodedRow]], size: int, limit: int) -> StepShape:
    """What a step of ``size`` of the longest rows runs at once.

    Args:
        encoded: each row in all its forms.
        limit: tokens that run at once at most; 0 for all.
    """
    forms = [form for of_row in encoded for form in of_row]
    longest = max(form.size for form in forms)
    count = size * max(map(len, encoded))
    return StepShape(
        rows=max(1, min(count, limit // longest)) if limit else count,
        tokens=longest,
        answers=max(len(form.answer_positions) for form in forms),
        decoder=max(len(form.decoder or ()) for form in forms),
    )


def _prompt(method: Method, template: Template, tokens: Tokens) -> PromptShape:
    """The vectors that the task trains."""
    if method.tune not in ("prompt", "both"):
        return PromptShape(0)
    return PromptShape(
        length=template.prompt_length(tokens),
        encoder=method.encoder,
        deep=template.prefix_length(tokens),
        hidden=method.hidden,
    )
