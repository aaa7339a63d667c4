"""``ptune train --estimate``: the memory of a task's training, by part, before its LM is loaded."""

import itertools
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import AutoConfig

from ptune.base import terminal
from ptune.errors import ConfigError
from ptune.experiments.estimate.memory_of_training import (
    Memory,
    PromptShape,
    StepShape,
    memory_of_step,
)
from ptune.experiments.train.train_rows import TaskRows
from ptune.lm.source import loading, reading
from ptune.lm.source.reading import Reading
from ptune.model.rows.examples import Example
from ptune.model.rows.without_weights import examples_without_weights
from ptune.model.running.forward import batches_of
from ptune.model.running.losses import CPU_TOKENS
from ptune.model.task import BoundTask, Row, bound_to
from ptune.tasks import task_members
from ptune.tasks.model_task import task_of
from ptune.tasks.resolved import resolve
from ptune.tasks.resolved.parts import TrainingParts
from ptune.tasks.schema import AUTO, TaskConfig
from ptune.template.encoding.encode import EncodedRow
from ptune.template.language import PrefixPart, Soft
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
    lm = reading.load(source.name)
    folder, where = loading.locate(source.name)
    with loading.quiet_loading(source.name, pathlib.Path(folder)):
        lm_config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **where)
    device = loading.choose_device(source.device)
    dtype = loading.choose_dtype(source.dtype, device)
    tunes_lm = method.tune != "prompt"
    task = _bound_task(parts, lm)
    size = -(-batch_size // settings.accumulate)
    shape = _shape(_examples(task, rows, lm), size, _tokens_at_once(task, device))
    prompt = _prompt(parts.learning.applied_to(method), task, lm.tokens)
    dtype = (
        dtype if not tunes_lm or dtype.itemsize >= 4 else loading.choose_dtype("float32", device)
    )
    memory = memory_of_step(
        lm_config, lm.kind, dtype, shape=shape, prompt=prompt, tunes_lm=tunes_lm, settings=settings
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
    members = task_members.members(form, method)
    if form.prompt_by or parts.finds_rate or len(members) > 1:
        raise ConfigError(
            f"An estimate of memory is of one prompt, and {form.name} trains several in one batch, "
            "as users have, an ensemble, or learning_rate: auto."
        )
    template = task_members.parsed(form, members[0].template)
    has_prompt = any(isinstance(part, Soft | PrefixPart) for part in template.parts)
    if method.tune == "prompt" and not has_prompt:
        raise ConfigError(
            "An estimate of memory is of a training of a prompt or of an LM, and the template of "
            f"{form.name} has no soft tokens and no prefix."
        )


def _bound_task(parts: TrainingParts, lm: Reading) -> BoundTask:
    """The task as its training has it."""
    member = task_members.members(parts.form, parts.method, lm)[0]
    task = task_of(parts.form, lm, member, method=parts.method, learning=parts.learning)
    return bound_to(task, lm.tokens, lm.kind)


def _examples(task: BoundTask, rows: Sequence[Row], lm: Reading) -> list[Example]:
    """The longest rows, encoded as the training encodes them."""
    longest = sorted(rows, key=lambda row: -sum(len(str(value)) for value in row.values()))
    return list(examples_without_weights(task, lm, longest[:LONGEST]))


def _tokens_at_once(task: BoundTask, device: torch.device) -> int | None:
    """How many tokens of a batch run at once at most; None where the whole batch does."""
    return None if device.type != "cpu" or task.task.reader.couples_rows else CPU_TOKENS


def _shape(examples: Sequence[Example], size: int, limit: int | None) -> StepShape:
    """What a step of the ``size`` examples that are the most work runs at once.

    Args:
        limit: tokens that run at once at most, where more than one example does.
    """
    learned = [example.learn for example in examples if example.learn]
    learned = sorted(learned or [example.fills for example in examples], key=_load, reverse=True)
    batch = list(itertools.islice(itertools.cycle(learned), size))
    loads = list(map(_load, batch))
    parts = [
        [row for number in numbers for row in batch[number]]
        for numbers in batches_of(range(len(batch)), loads, limit or sum(loads))
    ]
    part = max(parts, key=lambda part: len(part) * max(row.size for row in part))
    return StepShape(
        rows=len(part),
        tokens=max(row.size for row in part),
        answers=max(len(row.answer_positions) if row.is_scored else 0 for row in part),
        decoder=max(len(row.decoder or ()) for row in part),
    )


def _load(rows: Sequence[EncodedRow]) -> int:
    """How much work it is to learn from an example, in tokens."""
    return sum(len(row.ids) for row in rows)


def _prompt(method: Method, task: BoundTask, tokens: Tokens) -> PromptShape:
    """The vectors that the task trains."""
    if method.tune not in ("prompt", "both"):
        return PromptShape(0)
    template = task.template
    return PromptShape(
        length=template.prompt_length(tokens),
        encoder=method.encoder,
        deep=template.prefix_length(tokens),
        hidden=method.hidden,
        gates=task.task.prefix.gates,
    )
