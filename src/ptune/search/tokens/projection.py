"""A trained soft prompt becomes words: each of its vectors in turn is exchanged for the token that
is nearest to it, and the loss after each tells how much is lost."""

import math
import pathlib

import torch
from torch.nn.functional import normalize

from ptune.errors import ConfigError
from ptune.reports.search_results import CandidateScore, SearchStep, SoftPrompt, TokenSteps
from ptune.search.common.running_search import GRADIENT, RunningSearch
from ptune.search.tokens.trigger import Trigger, allowed_tokens
from ptune.settings import TrainConfig
from ptune.training.loop import fit
from ptune.training.methods import method

EVALUATIONS = 10  # on dev, during the training of the soft prompt


def propose(
    search: RunningSearch, source: str, *, steps: int, near: int, whole_words: bool
) -> list[CandidateScore]:
    """Train a soft prompt, and project it: to the nearest token at each place; and to the best of
    some near ones, which are evaluated exactly, place by place.

    Args:
        steps: of the training.
        near: how many near tokens are evaluated at a place.

    Raises:
        ConfigError: the LM or the template cannot be searched so; or the budget is too small.
    """
    trigger = Trigger(search, source)
    allowed = allowed_tokens(search, whole_words).alone
    start = trigger.start(search.seed, allowed)
    text = trigger.written(start) or source
    reserved = search.reserved_for_last(CandidateScore(template=text))
    each = trigger.length * (near + 2) * trigger.calls(trigger.examples)
    parts = [[source, whole_words, steps]]
    soft = search.stage(
        "soft-prompt",
        parts,
        lambda _: _trained(search, trigger, list(start), steps=steps, reserved=reserved + each),
        form=SoftPrompt,
    )[0]
    search.budget.spent += soft.calls
    vectors = torch.tensor(soft.vectors, device=trigger.lm.device)
    done = search.stage(
        "projection",
        [[source, whole_words, steps, count] for count in (1, near)],
        lambda number: projected(trigger, vectors, allowed, (1, near)[number]),
        form=TokenSteps,
        on_result=lambda result: _take(search, result),
    )
    names = ("nearest words of a soft prompt", f"best of {near} near words of a soft prompt")
    written = [trigger.written(tuple(result.ids)) for result in done]
    return [
        CandidateScore(template=text, source=name)
        for text, name in zip(written, names)
        if text is not None
    ]


def _take(search: RunningSearch, result: TokenSteps) -> None:
    search.budget.spent += result.calls
    search.steps += result.steps


def _trained(
    search: RunningSearch, trigger: Trigger, start: list[int], *, steps: int, reserved: int
) -> SoftPrompt:
    """The vectors of a soft prompt that was trained within the budget."""
    config = _training(search, trigger, steps, reserved)
    trigger.put(trigger.vectors[start])
    data = {0: (search.task.train, search.task.dev)}
    history = fit(
        trigger.model, data, config, folder=_scratch(search), resume=True, label="soft prompt"
    )[0]
    on_dev = len(history.history) * len(search.task.dev)
    calls = GRADIENT * history.step * config.batch_size + on_dev
    fills = trigger.calls(trigger.examples[:1])
    return SoftPrompt(vectors=trigger.table().detach().tolist(), calls=calls * fills)


def _scratch(search: RunningSearch) -> pathlib.Path | None:
    """The folder in which an unfinished training is kept."""
    if search.folder is None:
        return None
    folder = search.folder / "unfinished" / "soft-prompt-0000"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _training(search: RunningSearch, trigger: Trigger, steps: int, reserved: int) -> TrainConfig:
    """How the soft prompt is trained, with as many steps as the budget allows."""
    settings = method("prompt-tuning-adamw").train
    batch_size = min(settings.batch_size, len(search.task.train))
    fills = trigger.calls(trigger.examples[:1])
    a_step, on_dev = GRADIENT * batch_size * fills, (EVALUATIONS + 1) * len(search.task.dev) * fills
    if search.budget.limit is not None:
        left = search.budget.limit - search.budget.spent - reserved - on_dev
        steps = min(steps, max(0, left // a_step))
    if not steps:
        raise ConfigError(
            f"--budget {search.budget.limit} is too small: a soft prompt of one step, its "
            f"projection and the last scores need {reserved + on_dev + a_step} rows."
        )
    return settings.replaced(
        {
            "steps": steps,
            "epochs": 10**6,
            "batch_size": batch_size,
            "evaluate_every": math.ceil(steps / EVALUATIONS),
            "patience": 0,
            "seed": search.seed,
        }
    )


def projected(trigger: Trigger, soft: torch.Tensor, allowed: torch.Tensor, near: int) -> TokenSteps:
    """Exchange the vectors of a soft prompt [P, E] for tokens, the one that is nearest to a token
    first; of several near tokens the one with the smallest loss on the train rows. The first step
    is the soft prompt itself.

    Args:
        allowed: the numbers of the tokens that may be taken [A].
        near: how many tokens are compared at each place.
    """
    vectors = soft.clone()
    words = trigger.vectors
    likeness = normalize(soft, dim=-1) @ normalize(words[allowed], dim=-1).T
    order = likeness.max(-1).values.argsort(descending=True, stable=True).tolist()
    losses = trigger.vector_losses([vectors], trigger.examples)
    steps = [SearchStep(number=0, loss=losses[0], tried=1, text="(soft)")]
    ids: dict[int, int] = {}
    calls = trigger.calls(trigger.examples)
    for number, place in enumerate(order, 1):
        best = likeness[place].topk(min(near, len(allowed))).indices
        tokens = allowed.to(best.device)[best].tolist()
        tried = [_exchanged(vectors, place, words[token]) for token in tokens]
        losses = trigger.vector_losses(tried, trigger.examples)
        calls += len(tried) * trigger.calls(trigger.examples)
        chosen = min(range(len(losses)), key=lambda n: losses[n])
        vectors, ids[place] = tried[chosen], tokens[chosen]
        shown = " ".join(
            trigger.lm.tokens.show(ids[p]).strip() if p in ids else "_" for p in range(len(soft))
        )
        steps.append(SearchStep(number=number, loss=losses[chosen], tried=len(tried), text=shown))
    return TokenSteps(
        ids=[ids[place] for place in range(len(soft))], visited=[], steps=steps, calls=calls
    )


def _exchanged(vectors: torch.Tensor, place: int, vector: torch.Tensor) -> torch.Tensor:
    changed = vectors.clone()
    changed[place] = vector
    return changed
