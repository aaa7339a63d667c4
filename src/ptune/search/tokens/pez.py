"""PEZ (Wen et al. 2023, "Hard Prompts Made Easy"): a soft prompt learns from the gradients of its
projection to the nearest tokens, so that every step is a prompt of words."""

import random

import torch
from torch.nn.functional import normalize

from ptune.base.progress import Progress
from ptune.errors import ConfigError
from ptune.reports.search_results import CandidateScore, SearchStep, TokenSteps
from ptune.search.common.running_search import GRADIENT, RunningSearch
from ptune.search.tokens.autoprompt import BATCH
from ptune.search.tokens.trigger import Ids, Trigger, allowed_tokens

DECAY = 0.1  # of the weights, as in the paper's code


def nearest(vectors: torch.Tensor, words: torch.Tensor, allowed: torch.Tensor) -> Ids:
    """For each vector [P, E] the number of the allowed token whose embedding points most nearly the
    same way.

    Args:
        words: the embeddings of all tokens [V, E].
        allowed: the numbers of tokens that may be taken [A].
    """
    likeness = normalize(vectors, dim=-1) @ normalize(words[allowed], dim=-1).T
    return tuple(allowed.to(likeness.device)[likeness.argmax(-1)].tolist())


def propose(
    search: RunningSearch, source: str, *, steps: int, rate: float, whole_words: bool
) -> list[CandidateScore]:
    """Search by PEZ; return the prompts that stood there, those of the smallest loss first. Its
    steps are one part: after a kill they are taken again, and give the same.

    Args:
        rate: the learning rate of AdamW.

    Raises:
        ConfigError: the LM or the template cannot be searched so; or the budget is too small.
    """
    trigger = Trigger(search, source)
    allowed = allowed_tokens(search, whole_words).alone
    start = trigger.start(search.seed, allowed)
    text = trigger.written(start) or source
    reserved = search.reserved_for_last(CandidateScore(template=text))
    done = search.stage(
        "pez",
        [[source, whole_words, steps, rate]],
        lambda _: _steps(
            search, trigger, start, allowed=allowed, steps=steps, rate=rate, reserved=reserved
        ),
        form=TokenSteps,
    )[0]
    if not done.steps:
        raise ConfigError(
            f"--budget {search.budget.limit} is too small: one step needs "
            f"{GRADIENT * len(search.task.train)} rows, and the last scores {reserved}."
        )
    search.budget.spent += done.calls
    search.steps += done.steps
    written = [trigger.written(tuple(ids)) for ids in done.visited]
    return [
        CandidateScore(template=text, source="PEZ")
        for text in dict.fromkeys(written)
        if text is not None
    ]


def _steps(
    search: RunningSearch,
    trigger: Trigger,
    start: Ids,
    *,
    allowed: torch.Tensor,
    steps: int,
    rate: float,
    reserved: int,
) -> TokenSteps:
    """All steps; fewer where the budget ends."""
    soft = torch.nn.Parameter(trigger.vectors[list(start)].clone())
    optimiser = torch.optim.AdamW([soft], lr=rate, weight_decay=DECAY)
    losses: dict[Ids, float] = {}
    taken: list[SearchStep] = []
    calls, ids = 0, start
    with Progress("PEZ", total=steps) as progress:
        for number in range(1, steps + 1):
            rows = trigger.examples
            if len(rows) > BATCH:
                rows = random.Random(f"{search.seed} step {number}").sample(rows, BATCH)
            needed = GRADIENT * trigger.calls(rows)
            if not search.budget.allows(calls + needed, reserved):
                break
            calls += needed
            ids = nearest(soft.detach(), trigger.vectors, allowed)
            trigger.put(trigger.vectors[list(ids)])
            gradient, loss = trigger.gradient(rows)
            soft.grad = gradient.to(soft)
            optimiser.step()
            losses[ids] = min(loss, losses.get(ids, loss))
            shown = trigger.lm.tokens.tokenizer.decode(list(ids))
            taken.append(SearchStep(number=number, loss=loss, tried=1, text=shown))
            progress.advance(1, best=min(losses.values()))
    order = sorted(losses, key=lambda ids: losses[ids])
    return TokenSteps(ids=list(ids), visited=[list(ids) for ids in order], steps=taken, calls=calls)
