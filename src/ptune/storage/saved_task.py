"""A task with its prompt as prompt.json says it, and the task that such a file says."""

import importlib.metadata
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from ptune.answers.extraction import LONGEST, Extraction
from ptune.answers.from_row import Choices, Span
from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader_table import READERS
from ptune.answers.word_labels import WordLabels
from ptune.lm.identity import older_records
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.model.task import BoundTask, Gates
from ptune.prompts.bank import Prefix
from ptune.prompts.encoders import Gated, RowGated
from ptune.storage.saved_lm import dtype_name, lm_places
from ptune.storage.saved_prompt import SavedLM, SavedPrefix, SavedPrompt, SavedReading
from ptune.template import chat
from ptune.template.language import Template

# settings of a task that stand in prompt.json under their names, and those under "reading"
SETTINGS = (
    "name",
    "target",
    "encoder",
    "init",
    "loss",
    "seed",
    "smoothing",
    "target_length",
    "decoding",
    "combine",
    "neighbours",
    "by",
    "temperature",
    "layout",
    "metric_words",
    "parts",
)
READING_SETTINGS = ("pooling", "layer", "windows", "swap", "multi_label", "threshold")


def saved_prompt_of(
    model: PromptModel,
    number: int,
    tensors: dict[str, torch.Tensor],
    *,
    folder: pathlib.Path,
    metrics: dict[str, float],
) -> SavedPrompt:
    """What prompt.json says of a task."""
    bound = model.tasks[number]
    settings, lm = bound.task, model.lm
    labels, words = _labels_and_words(settings)
    return SavedPrompt(
        format=3,
        ptune=importlib.metadata.version("ptune"),
        **_values_of(settings, SETTINGS),
        template=settings.template.source,
        chat=chat.form_of(bound.template),
        visibility=settings.template.visibility,
        labels=labels,
        words=words,
        reading=_saved_reading(bound),
        length=len(tensors["vectors"]),
        prefix=_saved_prefix(model, number, tensors),
        metrics=metrics,
        confidence=bound.confidence,
        max_length=_limit(model, settings),
        scored_by=list(settings.metrics),
        lm=SavedLM(
            source=lm.source,
            **lm_places(lm.source, folder),
            commit=lm.commit,
            dtype=dtype_name(lm),
            mixed=lm.mixed is not None,
            fingerprint=older_records.shape(lm),
            sample=older_records.sample(lm),
            kind=lm.kind,
            width=lm.width,
            record=lm.record(),
        ),
    )


def _values_of(source: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(source, name) for name in names}


def _saved_prefix(
    model: PromptModel, number: int, tensors: dict[str, torch.Tensor]
) -> SavedPrefix | None:
    """How a task's prefix is made and where it enters; None where it has none."""
    prefix, route = prefix_of(model, number), model.lm.route
    if prefix is None:
        return None
    settings, made_by = model.tasks[number].task.prefix, prefix.encoder
    return SavedPrefix(
        length=len(tensors["prefix"]),
        width=tensors["prefix"].shape[1],
        route=route.name,
        attentions=[name for name, span in route.spans.items() if span in prefix.spans],
        hidden=settings.hidden,
        init=settings.init,
        gates=_saved_gates(made_by),
    )


def _saved_gates(made_by: nn.Module) -> list[float] | Literal["row"] | None:
    """The gates of a prefix, as prompt.json says them."""
    if isinstance(made_by, Gated):
        return made_by.gates.tolist()
    return "row" if isinstance(made_by, RowGated) else None


def _labels_and_words(task: Task) -> tuple[list[str] | None, list[list[str]] | None]:
    """A task's labels, and their words where these are not the labels themselves."""
    verbalizer = task.verbalizer
    if isinstance(verbalizer, WordLabels):
        return list(verbalizer.labels), None
    if not isinstance(verbalizer, Verbalizer):
        return None, None
    labels = list(verbalizer.labels)
    if all(words == (label,) for label, words in zip(labels, verbalizer.words)):
        return labels, None
    return labels, [list(words) for words in verbalizer.words]


def _saved_reading(bound: BoundTask) -> SavedReading:
    """How the LM's answer is read."""
    settings, verbalizer = bound.task, bound.task.verbalizer
    return SavedReading(
        **_values_of(settings, READING_SETTINGS),
        choices=list(verbalizer.fields) if isinstance(verbalizer, Choices) else None,
        reader=settings.reader.name,
        span=verbalizer.field if isinstance(verbalizer, Span) else None,
        aggregate=verbalizer.aggregate if isinstance(verbalizer, Verbalizer) else "probability",
        order=verbalizer.order if isinstance(verbalizer, Verbalizer | Choices) else None,
        length=verbalizer.length if isinstance(verbalizer, Verbalizer | Choices) else "sum",
        domain=settings.domain.source if settings.domain else None,
        offset=list(bound.offset) if bound.offset else None,
        weight=bound.weight,
        chosen_threshold=bound.threshold,
        tag=verbalizer.field if isinstance(verbalizer, WordLabels) else None,
        pieces=verbalizer.pieces if isinstance(verbalizer, WordLabels) else None,
        scheme=verbalizer.scheme if isinstance(verbalizer, WordLabels) else None,
        extract=verbalizer.field if isinstance(verbalizer, Extraction) else None,
        longest=verbalizer.longest if isinstance(verbalizer, Extraction) else LONGEST,
        no_answer=isinstance(verbalizer, Extraction) and verbalizer.no_answer,
    )


def prefix_of(model: PromptModel, number: int) -> Prefix | None:
    """The prefix of a task, where it has one."""
    prompt = model.tasks[number].prompt
    prefix = model.bank.prefixes[prompt] if prompt >= 0 else None
    return prefix if isinstance(prefix, Prefix) else None


def _limit(model: PromptModel, task: Task) -> int | None:
    """The most tokens of the task's inputs, where it is not the LM's own limit."""
    limits = [
        task.max_length,
        model.max_length if model.max_length != model.lm.max_length else None,
    ]
    return min((limit for limit in limits if limit is not None), default=None)


def task_of(note: SavedPrompt) -> Task:
    """The task of a saved prompt."""
    prefix = PrefixSettings()
    if note.prefix:
        attentions = tuple(note.prefix.attentions)
        gates: Gates = note.prefix.gates is not None
        if note.prefix.gates == "row":
            gates = "row"
        prefix = PrefixSettings(note.prefix.hidden, note.prefix.init, attentions, gates)
    return Task(
        **_values_of(note, SETTINGS),
        **_values_of(note.reading, READING_SETTINGS),
        template=Template.parse(note.template).with_visibility(note.visibility),
        verbalizer=_verbalizer(note),
        prefix=prefix,
        reader=READERS[note.reading.reader],
        domain=Template.parse(note.reading.domain) if note.reading.domain else None,
        max_length=note.max_length,
        metrics=tuple(note.scored_by),
    )


def as_table(note: SavedPrompt) -> SavedPrompt:
    """The note of a prompt whose vectors are to be trained as they are."""
    gates = "row" if note.prefix and note.prefix.gates == "row" else None
    prefix = note.prefix and note.prefix.model_copy(update={"hidden": 0, "gates": gates})
    return note.model_copy(update={"encoder": "table", "prefix": prefix})


def _verbalizer(note: SavedPrompt) -> Verbalizer | Choices | Span | WordLabels | Extraction | None:
    if note.reading.extract:
        return Extraction(note.reading.extract, note.reading.longest, note.reading.no_answer)
    if note.reading.tag:
        labels = tuple(note.labels or ())
        return WordLabels(note.reading.tag, labels, note.reading.pieces, note.reading.scheme)
    if note.reading.span:
        return Span(note.reading.span)
    if note.reading.choices:
        return Choices(tuple(note.reading.choices), note.reading.order, note.reading.length)
    if note.labels is None:
        return None
    words = note.words or [[label] for label in note.labels]
    return Verbalizer(
        labels=tuple(note.labels),
        words=tuple(map(tuple, words)),
        aggregate=note.reading.aggregate,
        order=note.reading.order,
        length=note.reading.length,
    )
