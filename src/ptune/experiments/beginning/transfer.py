"""``transfer``: a task's new prompts begin as prompts of other tasks (SPoT: Vu et al. 2022, "Better
Frozen Model Adaptation through Soft Prompt Transfer"). Of several the most alike (section 3.2.1: a
prompt after a few steps is the embedding of its task) are tried for a few steps, in one batch, and
each prompt begins as the one that is best on dev.
"""

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ptune.base import files
from ptune.base.ranks import ALONE, Ranks
from ptune.errors import ConfigError, DivergedError
from ptune.experiments.beginning.first_steps import Data, train_copies
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel
from ptune.prompts import encoders
from ptune.prompts.bank import Prefix
from ptune.settings import TrainConfig
from ptune.storage import prompt_folder

TRIED = 5  # prompts that are tried for each task, the most alike ones
NOTE = "transfer.json"


@dataclass(frozen=True)
class Source:
    """A saved prompt as which others may begin.

    Attributes:
        name: its folder.
        model: holds it, and no other.
    """

    name: str
    model: PromptModel


def sources_in(paths: Sequence[pathlib.Path], lm: LanguageModel) -> list[Source]:
    """The saved prompts in some folders, each that of a prompt or of a run.

    Raises:
        StoreError: one is damaged, or its prompt was trained for another LM.
    """
    folders = [folder for path in paths for folder in prompt_folder.folders_in(path)]
    return [
        Source(str(folder), prompt_folder.load(folder, lm, trainable=True)) for folder in folders
    ]


def check(model: PromptModel, tasks: Sequence[int], sources: Sequence[Source]) -> None:
    """Refuse prompts as which those of these tasks cannot begin.

    Raises:
        ConfigError: one has other learned tokens; both are described. Or it has gates that read
            each row, and these have none; or there are several for prompts that share a table.
    """
    if len(sources) > 1 and any(model.tasks[task].task.encoder == "multitask" for task in tasks):
        raise ConfigError(
            f"With encoder: multitask all prompts begin as one table, and transfer names "
            f"{len(sources)} prompts: name one of them."
        )
    for source in sources:
        for task in tasks:
            ours, theirs = _described(model, task), _described(source.model, 0)
            if ours != theirs:
                raise ConfigError(
                    f"{model.tasks[task].task.name} has {ours}, and the prompt in {source.name} "
                    f"{theirs}: a prompt begins as one that has as many."
                )
            gates = [one.tasks[n].task.prefix for one, n in ((source.model, 0), (model, task))]
            if gates[0].reads_rows and not gates[1].reads_rows:
                raise ConfigError(
                    f"The prompt in {source.name} has gates that read each row, and "
                    f"{model.tasks[task].task.name} has none: set prefix.gates to row."
                )


def begin(
    model: PromptModel,
    data: Data,
    settings: TrainConfig,
    *,
    sources: Sequence[Source],
    folder: pathlib.Path,
    report: Callable[[str], None],
    ranks: Ranks = ALONE,
) -> None:
    """Let the prompts of tasks begin as others. What is chosen is kept in the folder, where a run
    that goes on finds it.

    Args:
        data: of the tasks whose prompts are new.
        ranks: the processes that train together.

    Raises:
        DivergedError: from each source that was tried the training left no finite state.
    """
    names = [model.tasks[task].task.name for task in data]
    asked = {"sources": [source.name for source in sources], "tasks": names}
    note = folder / NOTE
    kept = ranks.from_first(lambda: files.read_json(note) if note.exists() else {})
    is_kept = all(kept.get(key) == value for key, value in asked.items())
    if is_kept:
        chosen = dict(zip(data, kept["chosen"]))
    elif len(sources) == 1:
        chosen = dict.fromkeys(data, 0)
    else:
        chosen = _choose(model, data, settings, sources=sources, report=report, ranks=ranks)
    for task, number in chosen.items():
        _begin_as(model, task, sources[number])
    if ranks.is_first and not is_kept:
        for name, number in zip(names, chosen.values()):
            report(f"{name} begins as the prompt in {sources[number].name}.")
        files.write_json(note, {**asked, "chosen": list(chosen.values())})


def _choose(
    model: PromptModel,
    data: Data,
    settings: TrainConfig,
    *,
    sources: Sequence[Source],
    report: Callable[[str], None],
    ranks: Ranks,
) -> dict[int, int]:
    """For each task the number of the source that is best on dev after a few steps."""
    tried = {task: list(range(len(sources))) for task in data}
    if len(sources) > TRIED:
        tried = _most_alike(model, data, settings, sources=sources, ranks=ranks)
    count = min(TRIED, len(sources))

    def begin_copy(twin: PromptModel, of: int, task: int, number: int) -> None:
        _begin_as(twin, number, sources[tried[task][of]])

    copies = train_copies(
        model,
        data,
        settings,
        count=count,
        label="prompts to begin as",
        begin=begin_copy,
        ranks=ranks,
    )
    chosen = {}
    for task, numbers in tried.items():
        scores = {
            number: score
            for of, number in enumerate(numbers)
            if (score := copies.score(of, task)) is not None
        }
        name = model.tasks[task].task.name
        if not scores:
            raise DivergedError(
                f"The training of {name} diverged from each prompt that it could begin as: lower "
                f"learning_rate (it is {settings.learning_rate:g})."
            )
        chosen[task] = max(scores, key=lambda number: (scores[number], -number))
        if ranks.is_first:
            listed = ", ".join(f"{sources[n].name}: {score[0]:.3f}" for n, score in scores.items())
            report(f"{name} on dev after a few steps from each: {listed}")
    return chosen


def _most_alike(
    model: PromptModel,
    data: Data,
    settings: TrainConfig,
    *,
    sources: Sequence[Source],
    ranks: Ranks,
) -> dict[int, list[int]]:
    """For each task the numbers of the sources that are the most like its prompt after a few
    steps."""
    copies = train_copies(model, data, settings, count=1, label="likeness of prompts", ranks=ranks)
    alike = {}
    for task, number in copies.numbers[0].items():
        likeness = [similarity(copies.model, number, source) for source in sources]
        order = sorted(range(len(sources)), key=lambda number: -likeness[number])
        alike[task] = order[:TRIED]
    return alike


@torch.no_grad()
def similarity(model: PromptModel, task: int, source: Source) -> float:
    """How alike a task's prompt and a source are: the cosine of their mean vectors (SPoT, section
    3.2.1), of soft tokens and a prefix the mean of both cosines."""
    cosines = [
        torch.cosine_similarity(ours().mean(0), theirs().mean(0), dim=0)
        for ours, theirs in zip(_encoders(model, task), _encoders(source.model, 0))
    ]
    return float(torch.stack(cosines).mean())


def _encoders(model: PromptModel, task: int) -> list[nn.Module]:
    """What makes a task's soft tokens and its prefix, as far as it has them."""
    bank, prompt = model.bank, model.tasks[task].prompt
    prefix = bank.prefixes[prompt] if prompt >= 0 else None
    soft = [bank.encoders[prompt]] if prompt >= 0 and len(bank.encoders[prompt]()) else []
    return [*soft, prefix.encoder] if isinstance(prefix, Prefix) else soft


def _begin_as(model: PromptModel, task: int, source: Source) -> None:
    """Let a task's prompt begin as a source."""
    for encoder, other in zip(_encoders(model, task), _encoders(source.model, 0)):
        encoders.begin_as(encoder, other)


def _described(model: PromptModel, task: int) -> str:
    """A task's learned tokens in words, which are the same where prompts are of one shape."""
    bound, tokens = model.tasks[task], model.lm.tokens
    lengths = [bound.template.prompt_length(tokens), bound.template.prefix_length(tokens)]
    kinds = ("soft tokens", "prefix vectors")
    described = [f"{length} {kind}" for length, kind in zip(lengths, kinds) if length]
    prefix = model.bank.prefixes[bound.prompt] if lengths[1] else None
    if isinstance(prefix, Prefix) and not prefix.reach.all():
        spans = model.lm.route.spans.items()
        described += [f"in {name}" for name, span in spans if span in prefix.spans]
    return " and ".join(described) or "no learned tokens"
