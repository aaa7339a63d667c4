"""How a task's trained values begin: soft tokens, a deep prefix, a reader of labels. All follow
from the task's name and seed."""

import itertools
import zlib
from collections import Counter
from collections.abc import Sequence

import torch
from torch import nn

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader import Reader
from ptune.base.seeding import seeded
from ptune.errors import ConfigError, nearest
from ptune.lm.language_model import LanguageModel
from ptune.model.task import Row, Task
from ptune.prompts import encoders
from ptune.prompts.bank import Prefix
from ptune.template.language import Template

ENCODER_DECODER = ("encoder", "decoder", "cross")


def _seed(task: Task, name: str) -> int:
    """The seed of something of a task that begins at random: of 64 bits, as torch takes them."""
    return (task.seed * 1_000_003 + zlib.crc32(name.encode())) % 2**64


def encoder(
    lm: LanguageModel,
    task: Task,
    template: Template,
    *,
    bound: BoundVerbalizer | None,
    length: int,
    rows: Sequence[Row],
    shared: encoders.Table | None = None,
) -> nn.Module:
    """The prompt's encoder at its starting point, which follows from the task's name and seed
    alone; of prompts that share a table, from those of the first of them.

    Args:
        shared: the table of prompts that are there already.
    """
    if shared is not None:
        return encoders.Multitask(length, lm.width, shared).to(lm.device)
    seed = _seed(task, task.name)
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed):
        new_encoder = encoders.make(task.encoder, length, lm.width)
    new_encoder.to(lm.device)
    starts = _starting_ids(
        lm, task, template, bound=bound, length=length, rows=rows, generator=generator
    )
    with torch.no_grad():
        some = lm.embed(torch.randint(lm.words, (2000,), generator=generator)).float()
        encoders.start_at_random(new_encoder, some, generator)
        targets = encoders.bake(new_encoder)
        for index, ids in enumerate(starts):
            if ids is not None:
                targets[index] = lm.embed(torch.tensor(ids)).float().mean(0)
    if any(ids is not None for ids in starts):
        encoders.start_from(new_encoder, targets)
    return new_encoder


def prefix(lm: LanguageModel, task: Task, template: Template, made_by: nn.Module | None) -> Prefix:
    """The task's deep prefix, made by an encoder that is given or by a new one at its starting
    point."""
    settings, route = task.prefix, lm.route
    attentions = settings.attentions or (
        ENCODER_DECODER if lm.kind == "encoder-decoder" else tuple(route.spans)
    )
    if unknown := next((name for name in attentions if name not in route.spans), None):
        raise ConfigError(
            f"This LM has no attention {unknown!r} for a prefix to enter. "
            f"{nearest(unknown, route.spans)}"
        )
    spans = [span for name, span in route.spans.items() if name in attentions]
    if made_by is None:
        columns = torch.cat([torch.arange(*span) for span in spans])
        made_by = _prefix_encoder(lm, task, template, columns)
        attention_numbers = attention_of(lm, spans).to(lm.device)
        if settings.reads_rows:
            made_by = encoders.RowGated(made_by, attention_numbers, lm.width, _embedding_size(lm))
        elif settings.gates:
            made_by = encoders.Gated(made_by, attention_numbers)
    return Prefix(made_by, spans, route.width).to(lm.device)


def attention_of(lm: LanguageModel, spans: Sequence[tuple[int, int]]) -> torch.Tensor:
    """The number of the attention, among those that a prefix enters, that each of its values is of.

    Args:
        spans: its columns among those of the LM.
    """
    parts = [
        end - start
        for start, end in sorted(lm.route.parts)
        if any(first <= start and end <= last for first, last in spans)
    ]
    return torch.repeat_interleave(torch.arange(len(parts)), torch.tensor(parts))


@torch.no_grad()
def _embedding_size(lm: LanguageModel) -> float:
    """The usual length of the LM's embeddings: the median over some of them."""
    ids = torch.linspace(0, lm.words - 1, min(lm.words, 2000)).long()
    return float(lm.embed(ids).float().norm(dim=-1).median().clamp(min=1e-12))


def _prefix_encoder(
    lm: LanguageModel, task: Task, template: Template, columns: torch.Tensor
) -> nn.Module:
    """A new encoder of the values at some columns of W, at its starting point."""
    settings, runs = task.prefix, template.prefixes(lm.tokens)
    length = template.prefix_length(lm.tokens)
    seed = _seed(task, f"{task.name} prefix")
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed):
        encoder = encoders.make_deep(length, len(columns), lm.width, settings.hidden)
    encoder.to(lm.device)
    if settings.init == "zeros":
        encoders.start_at_zero(encoder)
    elif not settings.hidden:
        text = lm.tokens.plain("The capital of Austria, on the Danube, is Vienna.")
        encoders.start_at_random(encoder, lm.activations(text)[:, columns], generator, each=True)
    default = (
        None if settings.init in ("random", "zeros") else lm.tokens.follow(f" {settings.init}")
    )
    words = [
        ids or (default and list(itertools.islice(itertools.cycle(default), count)))
        for count, ids in runs
    ]
    if any(words):
        targets, start = encoders.bake(encoder), 0
        for (count, _), ids in zip(runs, words):
            if ids:
                targets[start : start + count] = lm.activations(ids)[:, columns]
            start += count
        encoders.start_from(encoder, targets)
    return encoder


def _starting_ids(
    lm: LanguageModel,
    task: Task,
    template: Template,
    *,
    bound: BoundVerbalizer | None,
    length: int,
    rows: Sequence[Row],
    generator: torch.Generator,
) -> list[list[int] | None]:
    """For each vector the tokens whose mean embedding it starts from, None for a random start."""
    tokens = lm.tokens
    if task.init == "random":
        default: list[list[int] | None] = [None] * length
    elif task.init in ("vocabulary", "labels"):
        frequent = encoders.from_frequent(_counts(lm, template, rows), length, generator)
        default = [[id_] for id_ in frequent]
        if task.init == "labels":
            if bound is None or not bound.ids:
                raise ConfigError(
                    f'{task.name} has no label words of its own, so init "labels" has nothing to '
                    "start from."
                )
            default = (
                [list(bound.first_word(number)) for number in range(min(length, len(bound.labels)))]
                + default
            )[:length]
    else:
        ids = tokens.follow(f" {task.init}")
        default = [[id_] for id_ in itertools.islice(itertools.cycle(ids), length)]
    from_template = [
        words[place] if words else None
        for size, words in template.groups(tokens)
        for place in range(size)
    ]
    return [ids if token is None else [token] for token, ids in zip(from_template, default)]


def _counts(lm: LanguageModel, template: Template, rows: Sequence[Row]) -> list[int]:
    if not rows:
        raise ConfigError(
            'init "vocabulary" or "labels" counts frequent tokens in the training rows: give them.'
        )
    counted: Counter[int] = Counter()
    for row in rows:
        for text in {part.name: text for part, text in template.texts(row).items()}.values():
            counted.update(lm.tokens.follow(f" {text}"))
    special = set(lm.tokens.tokenizer.all_special_ids)
    return [0 if id_ in special else counted[id_] for id_ in range(lm.words)]


def reader(lm: LanguageModel, task: Task, bound: BoundVerbalizer | None) -> Reader:
    """The task's reader at its starting point, which follows from the task's name and seed
    alone."""
    verbalizer = task.verbalizer if isinstance(task.verbalizer, Verbalizer) else None
    with seeded(_seed(task, f"{task.name} reader")):
        return task.reader.start(lm, verbalizer, bound)
