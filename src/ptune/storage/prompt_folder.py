"""A trained prompt as a folder: ``prompt.safetensors`` (its vectors, all that answering needs) and
``prompt.json`` (template, label words, the LM that it belongs to). To go on training,
``encoder.safetensors`` beside them.

Loading reads nothing but safetensors and JSON, and checks shapes, numbers and the LM before it
trusts any of it.
"""

import importlib.metadata
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from ptune.answers.ensemble import Combine
from ptune.answers.label_words import (
    Aggregate,
    BoundVerbalizer,
    Choices,
    Length,
    Order,
    Span,
    Verbalizer,
)
from ptune.base import files
from ptune.errors import ConfigError, StoreError, reason
from ptune.lm.fingerprint import LMRecord
from ptune.lm.language_model import LanguageModel
from ptune.lm.loading import choose_dtype, local_path
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.model.task import WHOLE, Reader
from ptune.prompts import encoders
from ptune.prompts.bank import Prefix
from ptune.settings import DecodingConfig, LayoutConfig
from ptune.template.language import Template

FORMAT = 3
LARGEST = 1e6  # the squares of larger values overflow in an LM
ENCODER = "encoder.safetensors"


class SavedLM(BaseModel):
    """The LM that a prompt was trained for: its name, and where it lies on this machine, as a path
    from the prompt's folder (``relative``) and from the root (``absolute``); its number format, and
    whether its matrix multiplications alone were in that (``mixed``). ``record`` covers all its
    weights; ``fingerprint`` and ``sample`` are all that older prompts know of it: its shape, and
    some values of its embeddings."""

    source: str
    relative: str | None = None
    absolute: str | None = None
    dtype: str = "auto"
    mixed: bool = False
    fingerprint: str
    sample: list[float]
    kind: str
    width: int
    record: LMRecord | None = None


class SavedPrefix(BaseModel):
    """A deep prefix: ``length`` vectors of ``width`` values for the layers, by which route and into
    which attentions they enter, and how the encoder was made."""

    length: int
    width: int
    route: Literal["attention", "layer inputs"]
    attentions: list[str]
    hidden: int
    init: str


class SavedReading(BaseModel):
    """How labels are read, beside their words; see ``Task``, ``Verbalizer`` and ``BoundTask``."""

    model_config = ConfigDict(extra="forbid")

    choices: list[str] | None = None
    span: str | None = None
    reader: Reader = "words"
    aggregate: Aggregate = "probability"
    order: Order | None = None
    length: Length = "sum"  # prompts of before there was a choice
    swap: tuple[str, str] | None = None
    domain: str | None = None
    offset: list[FiniteFloat] | None = None
    weight: FiniteFloat = 1.0


class SavedPrompt(BaseModel):
    """What stands in ``prompt.json``. ``words`` is None where every label is its own word;
    ``labels`` where the answer is text, one of the row's own choices, or a span of the row."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[3]
    ptune: str
    name: str
    template: str
    labels: list[str] | None
    words: list[list[str]] | None
    target: str
    loss: Literal["labels", "vocabulary"]
    encoder: str
    init: str
    seed: int
    length: int
    lm: SavedLM
    prefix: SavedPrefix | None = None
    smoothing: float = 0.0
    target_length: int | None = None
    decoding: DecodingConfig = DecodingConfig()
    combine: Combine = "mean"
    temperature: float = 1.0
    max_length: int | None = None
    layout: LayoutConfig = LayoutConfig()
    scored_by: list[str] = []
    parts: str | None = None
    reading: SavedReading = SavedReading()
    by: tuple[str, str] | None = None
    metrics: dict[str, float] = {}


def save(
    model: PromptModel,
    folder: files.Path,
    task: int | str = 0,
    metrics: dict[str, float] | None = None,
    encoder: bool = False,
) -> None:
    """Save a task and its prompt's vectors.

    Args:
        metrics: figures to keep beside it.
        encoder: keep the prompt encoder too, so that training can go on.

    Raises:
        StoreError: the folder cannot be written.
    """
    folder = pathlib.Path(folder)
    bound = model.tasks[model.number(task)]
    settings, verbalizer, lm = bound.task, bound.task.verbalizer, model.lm
    tensors = {"vectors": torch.zeros(0, lm.width)}
    if bound.prompt >= 0 and bound.template.prompt_length(lm.tokens):
        tensors["vectors"] = encoders.bake(model.bank.encoders[bound.prompt])
    prefix = model.bank.prefixes[bound.prompt] if bound.prompt >= 0 else None
    saved_prefix = None
    if isinstance(prefix, Prefix):
        tensors["prefix"] = encoders.bake(prefix.encoder)
        attentions = [name for name, span in lm.route.spans.items() if span in prefix.spans]
        saved_prefix = SavedPrefix(
            length=len(tensors["prefix"]),
            width=tensors["prefix"].shape[1],
            route=lm.route.name,
            attentions=attentions,
            hidden=settings.prefix.hidden,
            init=settings.prefix.init,
        )
    labels, words = None, None
    if isinstance(verbalizer, Verbalizer):
        labels = list(verbalizer.labels)
        words = (
            None
            if all(label_words == (label,) for label, label_words in zip(labels, verbalizer.words))
            else [list(label_words) for label_words in verbalizer.words]
        )
    reading = SavedReading(
        choices=list(verbalizer.fields) if isinstance(verbalizer, Choices) else None,
        reader=settings.reader,
        span=verbalizer.field if isinstance(verbalizer, Span) else None,
        aggregate=verbalizer.aggregate if isinstance(verbalizer, Verbalizer) else "probability",
        order=verbalizer.order if isinstance(verbalizer, Verbalizer | Choices) else None,
        length=verbalizer.length if isinstance(verbalizer, Verbalizer | Choices) else "sum",
        swap=settings.swap,
        domain=settings.domain.source if settings.domain else None,
        offset=list(bound.offset) if bound.offset else None,
        weight=bound.weight,
    )
    if settings.reader not in ("words", "pair"):
        tensors |= {
            f"reader.{name}": value.float()
            for name, value in model.bank.readers[bound.prompt].state_dict().items()
        }
    saved = SavedPrompt(
        format=3,
        ptune=importlib.metadata.version("ptune"),
        name=settings.name,
        template=settings.template.source,
        labels=labels,
        words=words,
        target=settings.target,
        reading=reading,
        loss=settings.loss,
        encoder=settings.encoder,
        init=settings.init,
        seed=settings.seed,
        length=len(tensors["vectors"]),
        prefix=saved_prefix,
        smoothing=settings.smoothing,
        target_length=settings.target_length,
        decoding=settings.decoding,
        combine=settings.combine,
        by=settings.by,
        metrics=metrics or {},
        temperature=settings.temperature,
        max_length=_limit(model, settings),
        layout=settings.layout,
        scored_by=list(settings.metrics),
        parts=settings.parts,
        lm=SavedLM(
            source=lm.source,
            **_places(lm.source, folder),
            dtype=_dtype(lm),
            mixed=lm.mixed is not None,
            fingerprint=lm.shape(),
            sample=lm.sample(),
            kind=lm.kind,
            width=lm.width,
            record=lm.record(),
        ),
    )
    if encoder and bound.prompt >= 0:
        states = {
            "soft": model.bank.encoders[bound.prompt],
            "prefix": prefix.encoder if isinstance(prefix, Prefix) else torch.nn.Identity(),
        }
        kept = {
            f"{part}.{name}": value
            for part, module in states.items()
            if not isinstance(module, encoders.Baked)
            for name, value in module.state_dict().items()
        }
        if kept:
            files.write_tensors(folder / ENCODER, kept)
    files.write_tensors(folder / "prompt.safetensors", tensors)
    files.write_json(folder / "prompt.json", saved.model_dump(mode="json"))


def note_metrics(folder: files.Path, metrics: dict[str, float]) -> None:
    """Keep more figures beside a prompt that is saved already.

    Raises:
        StoreError: the folder is damaged or cannot be written.
    """
    folder = pathlib.Path(folder)
    note = _note(folder)
    note.metrics |= metrics
    files.write_json(folder / "prompt.json", note.model_dump(mode="json"))


def load(
    *folders: files.Path | Sequence[files.Path] | LanguageModel | None,
    lm: LanguageModel | None = None,
    device: str = "auto",
    dtype: str = "auto",
    trainable: bool = False,
    max_length: int | None = None,
) -> PromptModel:
    """Load saved prompts as one bank over one LM: ``load("a", "b")``, or ``load(["a", "b"])``.

    Args:
        folders: those of the prompts; the LM may be given behind them without its name.
        lm: the LM; without it, the one that the first prompt names is loaded: a folder where it
            lies from the prompt's folder, or where it lay when the prompt was saved.
        dtype: the LM's number format; "auto" is the one in which the prompt was trained, where that
            was asked for.
        trainable: load what can be trained on: the prompt encoders where they were saved, otherwise
            the vectors themselves, as a plain table (``Task.encoder`` is then "table", and
            ``Task.prefix.hidden`` 0).
        max_length: the most tokens of any input; by default each prompt's own limit, and the LM's.

    Raises:
        StoreError: a folder is damaged, or its prompt was trained for another LM, or its LM is no
            longer where it was.
    """
    paths, lm = _paths(folders, lm)
    notes = [_note(path) for path in paths]
    lm = lm or lm_of(paths[0], device, dtype)
    model = PromptModel(lm, max_length=max_length)
    for path, note in zip(paths, notes):
        _check_lm(path, note, lm)
        template = Template.parse(note.template)
        if trainable and not (path / ENCODER).exists():
            note = _as_table(note)
        soft, deep = _encoders(
            path, note, lm, template.for_kind(lm.kind, note.reading.reader in WHOLE)[0], trainable
        )
        settings = (
            PrefixSettings(note.prefix.hidden, note.prefix.init, tuple(note.prefix.attentions))
            if note.prefix
            else PrefixSettings()
        )
        task = Task(
            note.name,
            template,
            _verbalizer(note),
            note.target,
            note.encoder,
            note.init,
            note.loss,
            note.seed,
            settings,
            note.smoothing,
            note.target_length,
            note.decoding,
            note.combine,
            note.by,
            note.reading.reader,
            note.reading.swap,
            Template.parse(note.reading.domain) if note.reading.domain else None,
            note.temperature,
            note.max_length,
            note.layout,
            tuple(note.scored_by),
            note.parts,
        )
        number = model.add(
            task, encoder=soft.to(lm.device), prefix=deep.to(lm.device) if deep else None
        )
        _load_reader(path, model, number)
        offset = tuple(note.reading.offset) if note.reading.offset else None
        bound = model.tasks[number].verbalizer
        if offset and (not isinstance(bound, BoundVerbalizer) or len(offset) != len(bound.ids)):
            raise StoreError(
                f"{path / 'prompt.json'} is damaged: it calibrates {len(offset)} words, and has "
                "others."
            )
        model.tasks[number] = replace(
            model.tasks[number], offset=offset, weight=note.reading.weight
        )
    return model


def _paths(
    arguments: Sequence[Any], lm: LanguageModel | None
) -> tuple[list[pathlib.Path], LanguageModel | None]:
    """The folders among what ``load`` is given, one by one or in a list, and the LM.

    Raises:
        StoreError: there is no folder.
        ConfigError: something else is among them.
    """
    if arguments and (arguments[-1] is None or isinstance(arguments[-1], LanguageModel)):
        *arguments, last = arguments
        lm = lm or last
    paths = []
    for argument in arguments:
        for folder in (
            [argument]
            if isinstance(argument, str | os.PathLike) or not isinstance(argument, Sequence)
            else argument
        ):
            if not isinstance(folder, str | os.PathLike):
                raise ConfigError(
                    f"A prompt's folder is expected, and it is a {type(folder).__name__}; other "
                    "settings are given by name, as in "
                    f'load("a", "b", device="cpu").'
                )
            paths.append(pathlib.Path(folder))
    if not paths:
        raise StoreError("No folder of a saved prompt is named.")
    return paths, lm


def template_of(folder: files.Path) -> str:
    """The template of a saved prompt.

    Raises:
        StoreError: the prompt is damaged.
    """
    return _note(pathlib.Path(folder)).template


def _places(source: str, folder: pathlib.Path) -> dict[str, str]:
    """Where an LM lies that is a folder or a file on this machine: from a prompt's folder, and from
    the root."""
    path = None if source == "builtin" else local_path(source)
    if path is None:
        return {}
    return {
        "relative": pathlib.Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix(),
        "absolute": str(path),
    }


def _dtype(lm: LanguageModel) -> str:
    """The number format that was asked for, as ``LanguageModel.load`` takes it."""
    used = lm.mixed or lm.dtype
    return "auto" if used == choose_dtype("auto", lm.device) else str(used).removeprefix("torch.")


def lm_of(
    folder: files.Path, device: str = "auto", dtype: str = "auto", tuned: bool = False
) -> LanguageModel:
    """The LM that a saved prompt names, from the first place where it is.

    Args:
        device, dtype, tuned: as for ``LanguageModel.load``; "auto" is the number format in which
            the prompt was trained.

    Raises:
        StoreError: the prompt is damaged, or a local LM is nowhere where it should be.
        ModelError: the LM cannot be loaded.
    """
    folder = pathlib.Path(folder)
    note = _note(folder)
    saved = note.lm
    places = _candidates(folder, saved)
    existing = [place for place in places if place.exists()]
    if places and not existing:
        shown = " and ".join(map(str, places))
        raise StoreError(
            f"The prompt in {folder} was trained for the LM {saved.source}, which was looked for "
            f"at {shown} and is not there: "
            f"put it back, or name it with --lm."
        )

    def load_from(source: str) -> LanguageModel:
        mixed = saved.mixed and dtype in ("auto", saved.dtype)
        return LanguageModel.load(
            source,
            device=device,
            dtype=saved.dtype if dtype == "auto" else dtype,
            tuned=tuned or mixed,
        )

    for place in existing[:-1]:
        lm = load_from(str(place))
        if not _other_lm(folder, note, lm):
            return lm
    return load_from(str(existing[-1]) if existing else saved.source)


def _candidates(folder: pathlib.Path, saved: SavedLM) -> list[pathlib.Path]:
    """Where a local LM may lie, without doubles; nothing for a name on the hub."""
    places = [folder / saved.relative] if saved.relative is not None else []
    places += [pathlib.Path(saved.absolute)] if saved.absolute is not None else []
    if not places and saved.source.startswith(
        "."
    ):  # as older versions wrote it: from the prompt's folder, or from the working folder
        places = [folder / saved.source, pathlib.Path(saved.source)]
    return list({place.resolve(): place for place in reversed(places)}.values())[::-1]


def _limit(model: PromptModel, task: Task) -> int | None:
    """The most tokens of the task's inputs, where it is not the LM's own limit."""
    limits = [
        task.max_length,
        model.max_length if model.max_length != model.lm.max_length else None,
    ]
    return min((limit for limit in limits if limit is not None), default=None)


def folders_in(path: files.Path) -> list[pathlib.Path]:
    """The prompt folders of a task: itself, or one for each user or member of an ensemble, in the
    order of their names, in which numbers count as such: member 10 comes behind member 9, as in
    training.

    Raises:
        StoreError: there is none.
    """

    def numbered(folder: pathlib.Path) -> list[Any]:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", folder.name)]

    path = pathlib.Path(path)
    folders = (
        [path]
        if (path / "prompt.json").exists()
        else sorted((file.parent for file in path.glob("prompts/*/prompt.json")), key=numbered)
    )
    if not folders:
        raise StoreError(f"There is no saved prompt at {path}.")
    return folders


def _note(path: pathlib.Path) -> SavedPrompt:
    if not path.is_dir():
        raise StoreError(f"There is no saved prompt at {path}.")
    raw: Any = files.read_json(path / "prompt.json")
    if isinstance(raw, dict) and isinstance(raw.get("format"), int) and raw["format"] > FORMAT:
        raise StoreError(
            f"{path} was saved by a newer ptune (format {raw['format']}, this one reads "
            f"{FORMAT}): update ptune."
        )
    if isinstance(raw, dict) and isinstance(raw.get("format"), int) and raw["format"] < FORMAT:
        raise StoreError(
            f"{path} was saved by an older ptune (format {raw['format']}, this one reads "
            f"{FORMAT}): train it again."
        )
    try:
        note = SavedPrompt.model_validate(raw)
    except ValidationError as error:
        first_error = error.errors()[0]
        raise StoreError(
            f"{path / 'prompt.json'} is damaged: {'.'.join(map(str, first_error['loc']))}: "
            f"{reason(first_error)}."
        ) from error
    if note.words is not None and len(note.words) != len(note.labels or ()):
        raise StoreError(
            f"{path / 'prompt.json'} is damaged: {len(note.labels or ())} labels and words for "
            f"{len(note.words)}."
        )
    if len(set(note.labels or ())) != len(note.labels or ()):
        raise StoreError(f"{path / 'prompt.json'} is damaged: a label stands in it twice.")
    for label, words in zip(
        note.labels or (), note.words or [[label] for label in note.labels or ()]
    ):
        if not words or not all(word.strip() for word in words):
            raise StoreError(
                f"{path / 'prompt.json'} is damaged: the label {label!r} has no word, or an empty "
                "one."
            )
    return note


def _check_lm(path: pathlib.Path, note: SavedPrompt, lm: LanguageModel) -> None:
    if other := _other_lm(path, note, lm):
        raise StoreError(other)


def _other_lm(path: pathlib.Path, note: SavedPrompt, lm: LanguageModel) -> str:
    """What tells an LM from the one that a prompt was trained for, as a sentence; nothing where it
    is the same."""
    if note.lm.width != lm.width or note.lm.kind != lm.kind:
        return (
            f"The prompt in {path} was trained for {note.lm.source} ({note.lm.kind}, embedding "
            f"width {note.lm.width}), and this "
            f"LM, {lm.source}, is {lm.kind} of width {lm.width}."
        )
    if what := _difference(note.lm, lm):
        return (
            f"The prompt in {path} was trained for {note.lm.source}, and this LM, {lm.source}, "
            f"has {what}. The prompt "
            "would answer otherwise here than it was trained to: give the LM that it was trained "
            "for, or train it again."
        )
    return ""


def _difference(saved: SavedLM, lm: LanguageModel) -> str | None:
    """What this LM has that the LM of a saved prompt had not; None for the same one."""
    if saved.record is not None and (what := lm.difference(saved.record)):
        return what
    if saved.record is None and saved.fingerprint != lm.shape():
        return "another shape or vocabulary"
    return None if lm.same_weights(saved.sample) else "other weights"


def _encoders(
    path: pathlib.Path, note: SavedPrompt, lm: LanguageModel, template: Template, trainable: bool
) -> tuple[torch.nn.Module, torch.nn.Module | None]:
    """What makes the prompt's soft tokens and its deep prefix: as they were saved, or ready to be
    trained on."""
    tensors = files.read_tensors(path / "prompt.safetensors")
    length, deep = (
        template.prompt_length(lm.tokens),
        sum(count for count, _ in template.prefixes(lm.tokens)),
    )
    if note.length != length or (note.prefix.length if note.prefix else 0) != deep:
        raise StoreError(
            f"{path / 'prompt.json'} is damaged: it tells of other lengths than its template "
            f"{note.template!r} has."
        )
    soft: torch.nn.Module = encoders.Baked(
        _checked(path, note, tensors.get("vectors"), "vectors", (length, note.lm.width))
    )
    prefix: torch.nn.Module | None = None
    if note.prefix:
        width = sum(
            end - start
            for name, (start, end) in lm.route.spans.items()
            if name in note.prefix.attentions
        )
        if note.prefix.route != lm.route.name or note.prefix.width != width:
            raise StoreError(
                f"The prefix in {path} enters by {note.prefix.route} with {note.prefix.width} "
                f"values a vector, and this LM takes {width} "
                f"by {lm.route.name}."
            )
        prefix = encoders.Baked(
            _checked(path, note, tensors.get("prefix"), "prefix", (deep, width))
        )
    if trainable and (length or deep) and not (path / ENCODER).exists():
        soft = encoders.table_of(tensors["vectors"])
        prefix = encoders.table_of(tensors["prefix"]) if note.prefix else None
    elif trainable and (length or deep):
        states = files.read_tensors(path / ENCODER)
        if length:
            soft = _filled(
                path / ENCODER, encoders.make(note.encoder, length, note.lm.width), states, "soft"
            )
        if note.prefix:
            prefix = _filled(
                path / ENCODER,
                encoders.make_deep(deep, note.prefix.width, note.lm.width, note.prefix.hidden),
                states,
                "prefix",
            )
    return soft, prefix


def _as_table(note: SavedPrompt) -> SavedPrompt:
    """The note of a prompt whose vectors are to be trained as they are."""
    prefix = note.prefix and note.prefix.model_copy(update={"hidden": 0})
    return note.model_copy(update={"encoder": "table", "prefix": prefix})


def _checked(
    path: pathlib.Path,
    note: SavedPrompt,
    values: torch.Tensor | None,
    name: str,
    shape: tuple[int, int],
) -> torch.Tensor:
    if values is None or tuple(values.shape) != shape or values.dtype != torch.float32:
        actual = "none" if values is None else f"{values.dtype} {list(values.shape)}"
        raise StoreError(
            f"{path / 'prompt.safetensors'} should hold {name}, float32 {list(shape)} for the "
            f"template {note.template!r}, and holds {actual}."
        )
    _check_values(path / "prompt.safetensors", [values])
    return values


def _check_values(path: pathlib.Path, tensors: Iterable[torch.Tensor]) -> None:
    """Refuse values that make every answer NaN.

    Raises:
        StoreError: some are not numbers, or too large.
    """
    for values in tensors:
        if not torch.isfinite(values).all():
            raise StoreError(f"{path} holds values that are not numbers.")
        if values.numel() and values.abs().max() > LARGEST:
            raise StoreError(
                f"{path} holds values too large for any LM ({float(values.abs().max()):.3g})."
            )


def _verbalizer(note: SavedPrompt) -> Verbalizer | Choices | Span | None:
    if note.reading.span:
        return Span(note.reading.span)
    if note.reading.choices:
        return Choices(tuple(note.reading.choices), note.reading.order, note.reading.length)
    if note.labels is None:
        return None
    words = note.words or [[label] for label in note.labels]
    return Verbalizer(
        tuple(note.labels),
        tuple(map(tuple, words)),
        note.reading.aggregate,
        note.reading.order,
        note.reading.length,
    )


def _load_reader(path: pathlib.Path, model: PromptModel, number: int) -> None:
    """Give a trained reader its saved values."""
    if model.tasks[number].task.reader in ("words", "pair"):
        return
    _filled(
        path / "prompt.safetensors",
        model.bank.readers[model.tasks[number].prompt],
        files.read_tensors(path / "prompt.safetensors"),
        "reader",
    )


def _filled(
    path: pathlib.Path, encoder: torch.nn.Module, states: dict[str, torch.Tensor], part: str
) -> torch.nn.Module:
    parameters = {
        name.removeprefix(f"{part}."): value
        for name, value in states.items()
        if name.startswith(f"{part}.")
    }
    _check_values(path, parameters.values())
    if {k: v.shape for k, v in parameters.items()} != {
        k: v.shape for k, v in encoder.state_dict().items()
    }:
        raise StoreError(
            f"{path} does not fit the prompt's {part} part: other parameters or shapes."
        )
    encoder.load_state_dict(parameters)
    return encoder
