"""``ptune ask``: a question to one document, or to several at once."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from pydantic import ValidationError

from ptune.base import terminal
from ptune.documents import read_documents, retrieval
from ptune.documents.options import AskConfig
from ptune.documents.teaching.lessons import FIELD, prompt_of
from ptune.errors import ConfigError, StoreError, TemplateError, nearest, reason
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel
from ptune.prompts import encoders
from ptune.settings import DecodingConfig
from ptune.storage import prompt_folder
from ptune.template.language import Template
from ptune.template.parts import PrefixPart


def ask(config: AskConfig, report: Callable[[str], None] = terminal.print_line) -> str:
    """Answer a question from documents that were distilled.

    Raises:
        ConfigError: there is no such document, it is named twice, or the question is too long.
        StoreError: the folder is no run of ptune distil, or not at its end, or a prompt is damaged.
    """
    if not config.question.strip():
        raise ConfigError("The question is empty.")
    saved = [
        document
        for document in read_documents.saved_in(config.folder)
        if (prompt_of(config.folder, document.name) / "prompt.json").exists()
    ]
    if not saved:
        raise StoreError(f"No document of {config.folder} has a prompt: go on with --resume.")
    names = [document.name for document in saved]
    if unknown := next((name for name in config.document if name not in names), None):
        raise ConfigError(f"There is no document {unknown!r} here. {nearest(unknown, names)}")
    order = [0]
    if len(names) > 1 and not config.document:
        order = retrieval.nearest([document.text for document in saved], config.question)
    chosen = list(config.document) or [names[order[0]]]
    if twice := next((name for name in chosen if chosen.count(name) > 1), None):
        raise ConfigError(f"--document names {twice!r} twice: name each document once.")
    lm = None
    if config.lm is not None:
        lm = LanguageModel.load(config.lm, device=config.device, dtype=config.dtype)
    folders = [prompt_of(config.folder, name) for name in chosen]
    model = prompt_folder.load(folders, lm, device=config.device, dtype=config.dtype)
    number = 0 if len(chosen) == 1 else compose(model, range(len(chosen)))
    decoding = _decoding(config, model)
    row = {FIELD: chosen[0], "question": config.question}
    try:
        text = model.generate([row], number, decoding)[0]
    except TemplateError as error:
        raise ConfigError(
            f"The question is too long to stand behind {' + '.join(chosen)} with room for "
            f"{decoding.max_new_tokens} tokens of an answer: ask a shorter one, or set "
            "--decoding.max-new-tokens lower."
        ) from error
    if config.as_json:
        answer = {"question": config.question, "documents": chosen, "text": text}
        report(json.dumps(answer, ensure_ascii=False))
    else:
        if not config.document and len(names) > 1:
            terminal.warn(f"Asked: {chosen[0]} (--document asks another, or several)")
        report(text if isinstance(text, str) else "\n".join(text))
    return text


def compose(model: PromptModel, numbers: Sequence[int]) -> int:
    """Add a task whose prefix is those of other tasks one after the other, in this order; return
    its number.

    Each keeps the positions that it was trained at, and a question stands behind as many positions
    as they have together, as PEFT composes cartridges. Attention sees all of them alike, so their
    order changes nothing but the last digits.

    Raises:
        ConfigError: the tasks have no prefix in front, or are asked in other words.
    """
    tasks = [model.tasks[number] for number in numbers]
    rests = {tuple(bound.task.template.parts[1:]) for bound in tasks}
    fronts = [bound.task.template.parts[0] for bound in tasks]
    if len(rests) > 1 or not all(isinstance(part, PrefixPart) for part in fronts):
        raise ConfigError(
            f"{', '.join(bound.task.name for bound in tasks)} are not asked in the same words "
            "behind a prefix, so they cannot be asked together."
        )
    values = [encoders.bake(model.bank.prefixes[bound.prompt].encoder) for bound in tasks]
    whole = encoders.Baked(torch.cat(values))
    first = tasks[0].task
    source = first.template.source
    rest = source[source.index("}") + 1 :]
    task = replace(
        first,
        name=" + ".join(bound.task.name for bound in tasks),
        template=Template.parse(f"{{prefix:{len(whole())}}}{rest}"),
        by=None,
    )
    return model.add(task, prefix=whole)


def _decoding(config: AskConfig, model: PromptModel) -> DecodingConfig:
    """The settings of the prompt, with those that are given in their place."""
    given = config.decoding.model_dump(exclude_none=True)
    try:
        return DecodingConfig.model_validate({**model.tasks[0].task.decoding.model_dump(), **given})
    except ValidationError as error:
        raise ConfigError(f"--decoding: {reason(error.errors()[0])}.") from error
