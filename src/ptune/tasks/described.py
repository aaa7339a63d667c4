"""A task described by a YAML file: trained, scored, and used to answer rows."""
import io
import json
import pathlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import yaml
from pydantic import ValidationError

from ptune import saving, store
from ptune.config import DataConfig, EvaluateConfig, PredictConfig, TaskConfig, TrainConfig
from ptune.data import iterate_rows, read_rows, row_of
from ptune.errors import ConfigError, DataError, PtuneError, nearest
from ptune.lm import LanguageModel
from ptune.methods import method
from ptune.model import Example, PromptModel, Task
from ptune.tasks.lama import read_vocabulary
from ptune.template import Template
from ptune.train import accuracy, fit
from ptune.verbalizer import Verbalizer, allowed

PATHS = ("vocabulary", "out")
ANSWERS_AT_ONCE = 64


class _Loader(yaml.SafeLoader):
    """YAML in which only true and false are booleans: Yes and No are label words here (as in YAML 1.2)."""

    yaml_implicit_resolvers = {first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
                               for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()}


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))


def read(path: pathlib.Path) -> TaskConfig:
    """A task's YAML file; paths in it are taken from its own folder.

    Raises:
        ConfigError: the file is missing, is not YAML, or says what a task cannot be; the key is told.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"The task file {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} should hold keys and values (name: ..., template: ...), and holds {type(raw).__name__}.")
    try:
        config = TaskConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explained(error)}") from error
    folder = path.parent
    data = config.data.model_copy(update={split: folder / file for split, file in config.data if file})
    lm = str(folder / config.lm) if config.lm.startswith(".") else config.lm
    return config.model_copy(update={"data": data, "lm": lm, **{name: folder / value for name in PATHS if (value := getattr(config, name))
                                                               and name in config.model_fields_set}})


def _explained(error: ValidationError) -> str:
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")  # a misspelt key explains a missing one
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        known = {name for owner in (TaskConfig, DataConfig, TrainConfig) for name in owner.model_fields}
        return f"there is no key {key!r}. {nearest(str(first['loc'][-1]), sorted(known))}"
    return f"{key}: {first['msg']} (it is {first['input']!r})." if first["type"] != "missing" else f"the key {key!r} is missing."


def task_of(config: TaskConfig, lm: LanguageModel) -> Task:
    """The task as the model takes it."""
    template = Template.parse(config.template)
    if bool(config.labels) == bool(config.vocabulary):
        raise ConfigError("A task has either labels (each with its words) or a vocabulary (a file of allowed answers).")
    if config.vocabulary:
        place = template.for_kind(lm.kind)[0].place
        verbalizer = allowed(read_vocabulary(config.vocabulary, lm.tokens), lm.tokens, place)[0]
    else:
        verbalizer = Verbalizer.from_words(config.labels)
    seed = config.train.seed or 0
    return Task(config.name, template, verbalizer, config.target, config.encoder, config.init, config.loss, seed)


def train(config: TaskConfig, say: Callable[[str], None] = print) -> dict[str, float]:
    """Train the task's prompt (or LM), save it in the out folder, and score the test rows, if there are any.

    Raises:
        PtuneError: the task, its rows or the LM are at fault.
    """
    way = method(config.method)
    if (config.out / "prompt.json").exists() and not config.resume:
        raise ConfigError(f"{config.out} holds a trained prompt already: go on with --resume, or choose another --out.")
    lm = LanguageModel.load(config.lm, device=config.device, dtype=config.dtype)
    model = PromptModel(lm, max_length=config.max_length)
    rows = {split: _rows(config, split) for split in ("train", "dev", "test")}
    task = model.add(task_of(config, lm), rows["train"])
    if model.tasks[task].dropped:
        say(f"Left out of the template, since a causal LM cannot see it: {model.tasks[task].dropped}")
    figures = {}
    if way.tune != "nothing":
        settings = way.train.model_copy(update=config.train.model_dump(exclude_none=True))
        trained = fit(model, {task: (rows["train"], rows["dev"])}, settings, tune=way.tune, folder=config.out, resume=config.resume, label=config.name)[task]
        if trained.best:
            figures["dev accuracy"] = trained.best.dev
        if trained.diverged:
            say("Training diverged (the loss was no number any more); the best state before that is kept. A smaller --train.learning-rate helps.")
    if rows["test"]:
        examples = model.encode(task, rows["test"])
        figures["test accuracy"] = accuracy(model.scores(examples), examples)
    if way.tune in ("lm", "both"):
        lm.model.save_pretrained(config.out / "lm")
        lm.tokens.tokenizer.save_pretrained(config.out / "lm")
        lm.source = "./lm"
    saving.save(model, config.out, task, figures, encoder=True)
    (config.out / "checkpoint.safetensors").unlink(missing_ok=True)
    say(f"{config.name}: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()) + f"; saved in {config.out}")
    return figures


def _rows(config: TaskConfig, split: str) -> list[dict[str, Any]]:
    path = getattr(config.data, split)
    return read_rows(path) if path else []


def evaluate(config: EvaluateConfig, say: Callable[[str], None] = print) -> dict[str, float]:
    """Score a saved prompt on rows with right answers."""
    model = _model(config)
    skipped: list[str] | None = [] if config.skip_bad_lines else None
    examples = model.encode(0, read_rows(config.data, skipped))
    figures = {"accuracy": accuracy(model.scores(examples), examples), "rows": float(len(examples))}
    for message in skipped or ():
        say(f"Skipped: {message}")
    say(f"accuracy {figures['accuracy']:.4f} on {len(examples)} rows")
    return figures


def predict(config: PredictConfig, say: Callable[[str], None] = print) -> None:
    """Answer rows, as many at once as share a batch: JSON lines out, in the order of the rows."""
    model = _model(config)
    skipped: list[str] | None = [] if config.skip_bad_lines else None
    rows = iterate_rows(config.data, skipped) if config.data else _standard_input(skipped)
    if config.out is None:
        _answer(model, rows, sys.stdout, config.top, skipped)
    else:
        answers = io.StringIO()  # kept in memory, so that the file is whole or absent
        _answer(model, rows, answers, config.top, skipped)
        store.write_text(config.out, answers.getvalue())
    for message in skipped or ():
        say(f"Skipped: {message}")


def _model(config: EvaluateConfig | PredictConfig) -> PromptModel:
    lm = LanguageModel.load(config.lm, device=config.device, dtype=config.dtype) if config.lm else None
    return saving.load(config.prompt, lm, config.device, config.dtype)


def _standard_input(skipped: list[str] | None) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(sys.stdin, 1):
        if line.strip():
            try:
                yield row_of(line)
            except ValueError as error:
                if skipped is None:
                    raise DataError(f"standard input, line {number}: {error}") from error
                skipped.append(f"standard input, line {number}: {error}")


def _answer(model: PromptModel, rows: Iterator[dict[str, Any]], out: TextIO, top: int | None, skipped: list[str] | None) -> None:
    batch: list[Example] = []

    def flush() -> None:
        for example, answer in zip(batch, model.answers(batch)):
            scores = dict(sorted(answer["scores"].items(), key=lambda item: -item[1])[:top])
            answered = {**example.row, "prediction": answer["label"], "scores": {label: round(share, 6) for label, share in scores.items()}}
            out.write(json.dumps(answered, ensure_ascii=False) + "\n")
        out.flush()
        batch.clear()

    for number, row in enumerate(rows, 1):
        try:
            batch += model.encode(0, [row], labelled=False)
        except PtuneError as error:
            message = str(error).replace("Row 1 ", f"Row {number} ", 1)
            if skipped is None:
                raise type(error)(message) from error
            skipped.append(message)
        if len(batch) == ANSWERS_AT_ONCE:
            flush()
    if batch:
        flush()
