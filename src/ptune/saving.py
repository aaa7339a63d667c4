"""A trained prompt as a folder: ``prompt.safetensors`` (its vectors, all that answering needs) and ``prompt.json`` (template,
label words, the LM that it belongs to). To go on training, ``encoder.safetensors`` beside them.

Loading reads nothing but safetensors and JSON, and checks shapes, numbers and the LM before it trusts any of it.
"""
import importlib.metadata
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from ptune import encoders, store
from ptune.errors import StoreError
from ptune.lm import LanguageModel
from ptune.model import PromptModel, Task
from ptune.template import Template
from ptune.verbalizer import Verbalizer

FORMAT = 1


class SavedLM(BaseModel):
    """The LM that a prompt was trained for."""

    source: str
    fingerprint: str
    kind: str
    width: int


class SavedPrompt(BaseModel):
    """What stands in ``prompt.json``. ``words`` is None where every label is its own word."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1]
    ptune: str
    name: str
    template: str
    labels: list[str]
    words: list[list[str]] | None
    target: str
    loss: Literal["labels", "vocabulary"]
    encoder: str
    init: str
    seed: int
    length: int
    lm: SavedLM
    metrics: dict[str, float] = {}


def save(model: PromptModel, folder: store.Path, task: int | str = 0, metrics: dict[str, float] | None = None, encoder: bool = False) -> None:
    """Save a task and its prompt's vectors.

    Args:
        metrics: figures to keep beside it.
        encoder: keep the prompt encoder too, so that training can go on.

    Raises:
        StoreError: the folder cannot be written.
    """
    folder = pathlib.Path(folder)
    fitted = model.tasks[model.number(task) if isinstance(task, str) else task]
    own, verbalizer = fitted.task, fitted.task.verbalizer
    vectors = encoders.bake(model.bank.encoders[fitted.prompt]) if fitted.prompt >= 0 else torch.zeros(0, model.lm.width)
    plain = all(words == (label,) for label, words in zip(verbalizer.labels, verbalizer.words))
    saved = SavedPrompt(
        format=1, ptune=importlib.metadata.version("ptune"), name=own.name, template=own.template.source, labels=list(verbalizer.labels),
        words=None if plain else [list(words) for words in verbalizer.words], target=own.target, loss=own.loss, encoder=own.encoder,
        init=own.init, seed=own.seed, length=len(vectors), metrics=metrics or {},
        lm=SavedLM(source=model.lm.source, fingerprint=model.lm.fingerprint(), kind=model.lm.kind, width=model.lm.width))
    if encoder and fitted.prompt >= 0:
        store.write_tensors(folder / "encoder.safetensors", model.bank.encoders[fitted.prompt].state_dict())
    store.write_tensors(folder / "prompt.safetensors", {"vectors": vectors})
    store.write_json(folder / "prompt.json", saved.model_dump())


def load(folders: store.Path | Sequence[store.Path], lm: LanguageModel | None = None, device: str = "auto", dtype: str = "auto",
         trainable: bool = False) -> PromptModel:
    """Load saved prompts as one bank over one LM.

    Args:
        lm: the LM; without it, the one that the first prompt names is loaded.
        trainable: load the prompt encoders too, to go on training.

    Raises:
        StoreError: a folder is damaged, or its prompt was trained for another LM.
    """
    paths = [pathlib.Path(f) for f in ([folders] if isinstance(folders, str) or not isinstance(folders, Sequence) else folders)]
    notes = [_note(path) for path in paths]
    source = notes[0].lm.source
    lm = lm or LanguageModel.load(str(paths[0] / source) if source.startswith("./") else source, device=device, dtype=dtype)
    model = PromptModel(lm)
    for path, note in zip(paths, notes):
        _check_lm(path, note, lm)
        words = note.words or [[label] for label in note.labels]
        verbalizer = Verbalizer(tuple(note.labels), tuple(map(tuple, words)))
        template = Template.parse(note.template)
        vectors = _vectors(path, note, template.for_kind(lm.kind)[0].prompt_length(lm.tokens))
        encoder = _encoder(path, note) if trainable and note.length else encoders.Baked(vectors)
        model.add(Task(note.name, template, verbalizer, note.target, note.encoder, note.init, note.loss, note.seed), encoder=encoder.to(lm.device))
    return model


def _note(path: pathlib.Path) -> SavedPrompt:
    if not path.is_dir():
        raise StoreError(f"There is no saved prompt at {path}.")
    raw: Any = store.read_json(path / "prompt.json")
    if isinstance(raw, dict) and isinstance(raw.get("format"), int) and raw["format"] > FORMAT:
        raise StoreError(f"{path} was saved by a newer ptune (format {raw['format']}, this one reads {FORMAT}): update ptune.")
    try:
        note = SavedPrompt.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise StoreError(f"{path / 'prompt.json'} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error
    if note.words is not None and len(note.words) != len(note.labels):
        raise StoreError(f"{path / 'prompt.json'} is damaged: {len(note.labels)} labels and words for {len(note.words)}.")
    return note


def _check_lm(path: pathlib.Path, note: SavedPrompt, lm: LanguageModel) -> None:
    if note.lm.width != lm.width or note.lm.kind != lm.kind:
        raise StoreError(f"The prompt in {path} was trained for {note.lm.source} ({note.lm.kind}, embedding width {note.lm.width}), and this "
                         f"LM, {lm.source}, is {lm.kind} of width {lm.width}.")
    if note.lm.fingerprint != lm.fingerprint():
        raise StoreError(f"The prompt in {path} was trained for {note.lm.source} (fingerprint {note.lm.fingerprint}), and this LM, {lm.source}, "
                         f"has other weights or another vocabulary (fingerprint {lm.fingerprint()}); its vectors mean nothing here.")


def _vectors(path: pathlib.Path, note: SavedPrompt, length: int) -> torch.Tensor:
    vectors = store.read_tensors(path / "prompt.safetensors").get("vectors")
    wanted = (length, note.lm.width)
    if vectors is None or tuple(vectors.shape) != wanted or vectors.dtype != torch.float32 or note.length != length:
        found = "none" if vectors is None else f"{vectors.dtype} {list(vectors.shape)}"
        raise StoreError(f"{path / 'prompt.safetensors'} should hold vectors, float32 {list(wanted)} for the template {note.template!r}, and holds {found}.")
    if not torch.isfinite(vectors).all():
        raise StoreError(f"{path / 'prompt.safetensors'} holds values that are not numbers.")
    return vectors


def _encoder(path: pathlib.Path, note: SavedPrompt) -> torch.nn.Module:
    tensors = store.read_tensors(path / "encoder.safetensors")
    encoder = encoders.make(note.encoder, note.length, note.lm.width)
    if {k: v.shape for k, v in tensors.items()} != {k: v.shape for k, v in encoder.state_dict().items()}:
        raise StoreError(f"{path / 'encoder.safetensors'} does not fit the prompt's encoder: other parameters or shapes.")
    encoder.load_state_dict(tensors)
    return encoder
