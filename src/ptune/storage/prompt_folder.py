"""A trained prompt as a folder: ``prompt.safetensors`` (its vectors, all that answering needs) and
``prompt.json`` (template, label words, the LM that it belongs to). To go on training,
``encoder.safetensors`` beside them.

Loading reads nothing but safetensors and JSON, and checks shapes, numbers and the LM before it
trusts any of it.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.answers.neighbours import Neighbours
from ptune.base import files
from ptune.errors import ConfigError, StoreError
from ptune.lm.language_model import LanguageModel
from ptune.model.initialisation import attention_of
from ptune.model.prompt_model import PromptModel
from ptune.prompts import encoders
from ptune.settings import VisibilityRule
from ptune.storage import peft_format
from ptune.storage.hub import repository
from ptune.storage.saved_lm import check_lm, lm_of
from ptune.storage.saved_prompt import (
    SavedPrefix,
    SavedPrompt,
    no_prompt,
    read_saved_prompt,
)
from ptune.storage.saved_task import as_table, prefix_of, saved_prompt_of, task_of
from ptune.template import chat
from ptune.template.language import Template

GATES = ("slopes", "openings", "size")  # of a prefix whose gates read each row
LARGEST = 1e6  # the squares of larger values overflow in an LM
ENCODER = "encoder.safetensors"
FILES = ("prompt.json", "prompt.safetensors", ENCODER)
ESTIMATOR = "estimator.json"  # what an estimator keeps beside its prompt
ENCODER_ERROR = 0.01  # of the vectors' size: what a GPU's rounding in an LSTM stays far below


def save(
    model: PromptModel,
    folder: files.Path,
    *,
    task: int | str = 0,
    metrics: dict[str, float] | None = None,
    encoder: bool = False,
    place: files.Path | None = None,
) -> None:
    """Save a task and its prompt's vectors. A prompt that was saved there before is replaced as a
    whole, with its encoder, PEFT's form of it and what an estimator kept beside it; other files
    stay.

    Args:
        metrics: figures to keep beside it.
        encoder: keep the prompt encoder too, so that training can go on.
        place: where the folder is moved to afterwards; the path to a local LM is kept from there.

    Raises:
        StoreError: the folder cannot be written.
    """
    folder, number = pathlib.Path(folder), model.number(task)
    tensors = _tensors(model, number)
    place = folder if place is None else pathlib.Path(place)
    saved = saved_prompt_of(model, number, tensors, folder=place, metrics=metrics or {})

    def fill(temporary: str) -> None:
        within = pathlib.Path(temporary)
        if encoder and (kept := _encoder_states(model, number)):
            files.write_tensors(within / ENCODER, kept)
        files.write_tensors(within / "prompt.safetensors", tensors)
        files.write_json(within / "prompt.json", saved.model_dump(mode="json"))

    files.write_folder(folder, fill, earlier_files(folder))


def earlier_files(folder: files.Path) -> list[str]:
    """The names of what gives way where a prompt is saved in a folder, ``prompt.json`` first,
    without which the folder holds no prompt: all of an earlier prompt that anything would read
    beside the new one."""
    folder = pathlib.Path(folder)
    names = [*FILES, *peft_format.written_by_ptune(folder)]
    with contextlib.suppress(StoreError):
        note = files.read_json(folder / ESTIMATOR)
        names += [ESTIMATOR] if isinstance(note, dict) and "estimator" in note else []
    return names


def _tensors(model: PromptModel, number: int) -> dict[str, torch.Tensor]:
    """All that answering needs: the vectors of the soft tokens and of the prefix, and what the
    reader has learned."""
    bound, lm = model.tasks[number], model.lm
    tensors = {"vectors": torch.zeros(0, lm.width)}
    if bound.prompt >= 0 and bound.template.prompt_length(lm.tokens):
        tensors["vectors"] = encoders.bake(model.bank.encoders[bound.prompt])
    if prefix := prefix_of(model, number):
        made_by = prefix.encoder
        if isinstance(made_by, encoders.RowGated):
            states = made_by.state_dict()
            tensors |= {f"gates.{name}": states[name].clone() for name in GATES}
            made_by = made_by.values
        tensors["prefix"] = encoders.bake(made_by)
    if bound.neighbours is not None:
        known = asdict(bound.neighbours)
        tensors |= {f"neighbours.{name}": torch.from_numpy(known[name]) for name in known}
    reader_values = model.reader(number).saved()
    return tensors | {f"reader.{name}": value for name, value in reader_values.items()}


def _encoder_states(model: PromptModel, number: int) -> dict[str, torch.Tensor]:
    """The parameters of what makes a task's vectors while they are trained."""
    prompt, prefix = model.tasks[number].prompt, prefix_of(model, number)
    if prompt < 0:
        return {}
    modules = {"soft": model.bank.encoders[prompt]}
    if prefix is not None:
        modules["prefix"] = prefix.encoder
    trained = {part: module for part, module in modules.items() if not encoders.is_baked(module)}
    return {
        f"{part}.{name}": value
        for part, module in trained.items()
        for name, value in module.state_dict().items()
    }


def note_metrics(folder: files.Path, metrics: dict[str, float]) -> None:
    """Keep more figures beside a prompt that is saved already.

    Raises:
        StoreError: the folder is damaged or cannot be written.
    """
    folder = pathlib.Path(folder)
    note = read_saved_prompt(folder)
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
        folders: those of the prompts, or repositories of the hub (owner/name, or
            owner/name@revision), of which only safetensors and JSON are fetched; the LM may be
            given behind them without its name.
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
    notes = [read_saved_prompt(path) for path in paths]
    lm = lm or lm_of(paths[0], device, dtype)
    model = PromptModel(lm, max_length=max_length)
    for path, note in zip(paths, notes):
        check_lm(path, note, lm)
        _add(model, path, note, trainable)
    return model


def _add(model: PromptModel, path: pathlib.Path, note: SavedPrompt, trainable: bool) -> None:
    """Add a saved prompt to a model."""
    if trainable and not (path / ENCODER).exists():
        note = as_table(note)
    task, lm = task_of(note), model.lm
    whole = task.reader.mask != "needed"
    template_for_lm = task.template.for_lm(lm.tokens, lm.kind, whole)[0]
    if note.chat != chat.form_of(template_for_lm):
        raise StoreError(
            f"{path}: the chat template of this LM's tokenizer is not the one under which the "
            "prompt was trained, so it would be asked in another form. Take the LM at the revision "
            "of the training, or train the prompt again."
        )
    soft, deep = _encoders(path, note, lm, template=template_for_lm, trainable=trainable)
    number = model.add(
        task, encoder=soft.to(lm.device), prefix=deep.to(lm.device) if deep else None
    )
    _load_reader(path, model, number)
    if trainable:
        _check_encoder(path, _tensors(model, number))
    offset = tuple(note.reading.offset) if note.reading.offset else None
    verbalizer = model.tasks[number].verbalizer
    if offset and (
        not isinstance(verbalizer, BoundVerbalizer) or len(offset) != len(verbalizer.ids)
    ):
        raise StoreError(
            f"{path / 'prompt.json'} is damaged: it calibrates {len(offset)} words, and has others."
        )
    by_neighbours = note.combine == "neighbours"
    model.tasks[number] = replace(
        model.tasks[number],
        offset=offset,
        weight=note.reading.weight,
        threshold=note.reading.chosen_threshold,
        confidence=note.confidence,
        neighbours=_neighbours(path / "prompt.safetensors") if by_neighbours else None,
    )


def _neighbours(path: pathlib.Path) -> Neighbours | None:
    """What a member of an ensemble knows of labelled rows, where the file keeps that.

    Raises:
        StoreError: the values do not go together.
    """
    tensors = {
        name.removeprefix("neighbours."): value.numpy()
        for name, value in files.read_tensors(path).items()
        if name.startswith("neighbours.")
    }
    if not tensors:
        return None
    try:
        return Neighbours(**tensors)
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"{path} is damaged: what it keeps of labelled rows does not go together."
        ) from error


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
            paths += _on_this_machine(folder)
    if not paths:
        raise StoreError("No folder of a saved prompt is named.")
    return paths, lm


def _on_this_machine(folder: files.Path) -> list[pathlib.Path]:
    """A prompt's folder; of a repository of the hub those of its prompts, fetched."""
    if isinstance(folder, str) and repository.names_repository(folder):
        from ptune.storage.hub.pull import pulled

        return folders_in(pulled(folder))
    return [pathlib.Path(folder)]


def template_of(folder: files.Path) -> tuple[str, tuple[VisibilityRule, ...]]:
    """The template of a saved prompt, and whose tokens in it do not attend to which others.

    Raises:
        StoreError: the prompt is damaged.
    """
    note = read_saved_prompt(pathlib.Path(folder))
    return note.template, note.visibility


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
        else sorted(
            (
                file.parent
                for file in path.glob("prompts/*/prompt.json")
                if not file.parent.name.startswith(files.TEMPORARY)
            ),
            key=numbered,
        )
    )
    if not folders:
        raise no_prompt(path)
    return folders


def _encoders(
    path: pathlib.Path, note: SavedPrompt, lm: LanguageModel, *, template: Template, trainable: bool
) -> tuple[torch.nn.Module, torch.nn.Module | None]:
    """What makes the prompt's soft tokens and its deep prefix: as they were saved, or ready to be
    trained on."""
    tensors = files.read_tensors(path / "prompt.safetensors")
    length, deep = template.prompt_length(lm.tokens), template.prefix_length(lm.tokens)
    if note.length != length or (note.prefix.length if note.prefix else 0) != deep:
        raise StoreError(
            f"{path / 'prompt.json'} is damaged: it tells of other lengths than its template "
            f"{note.template!r} has."
        )
    soft: torch.nn.Module = encoders.Baked(
        _checked(path, note, tensors.get("vectors"), name="vectors", shape=(length, note.lm.width))
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
                f"by {lm.route.name}. Releases of transformers may differ in that for one LM: "
                "take the release that the prompt was trained with, or train it anew."
            )
        prefix = encoders.Baked(
            _checked(path, note, tensors.get("prefix"), name="prefix", shape=(deep, width))
        )
    if trainable and (length or deep) and not (path / ENCODER).exists():
        soft = encoders.table_of(tensors["vectors"])
        prefix = encoders.table_of(tensors["prefix"]) if note.prefix else None
        if prefix is not None and note.prefix and note.prefix.gates == "row":
            prefix = _with_row_gates(path, note, lm, made_by=prefix, tensors=tensors)
    elif trainable and (length or deep):
        states = files.read_tensors(path / ENCODER)
        if length:
            soft = _filled(
                path / ENCODER, encoders.make(note.encoder, length, note.lm.width), states, "soft"
            )
        if note.prefix:
            made_by: torch.nn.Module = encoders.make_deep(
                deep, note.prefix.width, note.lm.width, note.prefix.hidden
            )
            if note.prefix.gates == "row":
                made_by = encoders.RowGated(made_by, _attentions(note.prefix, lm), lm.width)
            elif note.prefix.gates is not None:
                made_by = encoders.Gated(made_by, _attentions(note.prefix, lm))
            prefix = _filled(path / ENCODER, made_by, states, "prefix")
    elif prefix is not None and note.prefix and note.prefix.gates == "row":
        prefix = _with_row_gates(path, note, lm, made_by=prefix, tensors=tensors)
        prefix.requires_grad_(False)
    return soft, prefix


def _check_encoder(path: pathlib.Path, tensors: dict[str, torch.Tensor]) -> None:
    """Refuse an encoder that does not make the vectors beside it.

    Args:
        tensors: what would be saved now.

    Raises:
        StoreError: it makes others.
    """
    kept = files.read_tensors(path / "prompt.safetensors")
    if any(
        (values.cpu() - kept[name]).norm() > ENCODER_ERROR * kept[name].norm()
        for name, values in tensors.items()
    ):
        raise StoreError(
            f"{path / ENCODER} does not make the vectors of {path / 'prompt.safetensors'}: it is "
            "of another prompt. To train on with these vectors as they are, remove it."
        )


def _attentions(prefix: SavedPrefix, lm: LanguageModel) -> torch.Tensor:
    """The number of the attention that each value of a prefix is of."""
    spans = [span for name, span in lm.route.spans.items() if name in prefix.attentions]
    return attention_of(lm, spans)


def _with_row_gates(
    path: pathlib.Path,
    note: SavedPrompt,
    lm: LanguageModel,
    *,
    made_by: torch.nn.Module,
    tensors: dict[str, torch.Tensor],
) -> encoders.RowGated:
    """A prefix with its saved gates, which read each row."""
    assert note.prefix is not None
    gated = encoders.RowGated(made_by, _attentions(note.prefix, lm), lm.width)
    states = gated.state_dict()
    for name in GATES:
        kept = tensors.get(f"gates.{name}")
        states[name].copy_(
            _checked(path, note, kept, name=f"gates.{name}", shape=states[name].shape)
        )
    return gated


def _checked(
    path: pathlib.Path,
    note: SavedPrompt,
    values: torch.Tensor | None,
    *,
    name: str,
    shape: Sequence[int],
) -> torch.Tensor:
    if values is None or list(values.shape) != list(shape) or values.dtype != torch.float32:
        actual = "none" if values is None else f"{values.dtype} {list(values.shape)}"
        raise StoreError(
            f"{path / 'prompt.safetensors'} should hold {name}, float32 {list(shape)} for the "
            f"template {note.template!r}, and holds {actual}."
        )
    check_values(path / "prompt.safetensors", [values])
    return values


def check_values(path: pathlib.Path, tensors: Iterable[torch.Tensor]) -> None:
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


def _load_reader(path: pathlib.Path, model: PromptModel, number: int) -> None:
    """Give a trained reader its saved values."""
    reader = model.reader(number)
    if reader.is_trained:
        file = path / "prompt.safetensors"
        _filled(file, reader, files.read_tensors(file), "reader")


def _filled(
    path: pathlib.Path, encoder: torch.nn.Module, states: dict[str, torch.Tensor], part: str
) -> torch.nn.Module:
    parameters = {
        name.removeprefix(f"{part}."): value
        for name, value in states.items()
        if name.startswith(f"{part}.")
    }
    check_values(path, parameters.values())
    if {k: v.shape for k, v in parameters.items()} != {
        k: v.shape for k, v in encoder.state_dict().items()
    }:
        raise StoreError(
            f"{path} does not fit the prompt's {part} part: other parameters or shapes."
        )
    encoder.load_state_dict(parameters)
    return encoder
