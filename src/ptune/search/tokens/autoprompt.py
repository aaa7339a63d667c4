"""AutoPrompt (Shin et al. 2020): tokens at the places of a template are exchanged one by one, by a
first-order estimate of what each exchange does to the loss (HotFlip, Ebrahimi et al. 2018), and the
most promising are evaluated exactly."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ptune.base.progress import Progress
from ptune.model.prompt_model import Example
from ptune.reports.search_results import CandidateScore, SearchStep, TokenSteps
from ptune.search.common.running_search import GRADIENT, RunningSearch
from ptune.search.tokens.trigger import Allowed, Ids, Trigger, allowed_tokens

BATCH = 64  # rows of a step; fewer train rows are all in every step
ROUND = 10  # steps whose result is a file
LOOKED_THROUGH = 20  # as many tokens, for each candidate, until its text is that of its tokens


@dataclass(frozen=True)
class Settings:
    """How AutoPrompt goes about it.

    Attributes:
        steps: exchanges that are tried.
        candidates: tokens that are evaluated exactly in each.
    """

    steps: int
    candidates: int


@dataclass
class _State:
    """Where the search is.

    Attributes:
        visited: prompts that were the best at some step, the last first.
        loss: that of the prompt as it is, by the last step; None before the first.
    """

    ids: Ids
    visited: list[Ids] = field(default_factory=list)
    loss: float | None = None
    ended: bool = False


def first_order(
    gradient: torch.Tensor, vectors: torch.Tensor, current: int, allowed: torch.Tensor
) -> torch.Tensor:
    """The estimated change of the loss if a token stood in the place of the current one [A].

    Args:
        gradient: of the loss by the vector at the place [E].
        vectors: of all tokens [V, E].
        allowed: the numbers of the tokens that may stand there [A].
    """
    change = vectors @ gradient
    return change[allowed] - change[current]


def propose(
    search: RunningSearch, source: str, settings: Settings, whole_words: bool
) -> list[CandidateScore]:
    """Search by gradients; return the prompts that were the best at some step, the last first.

    Raises:
        ConfigError: the LM or the template cannot be searched so.
    """
    trigger = Trigger(search, source)
    allowed = allowed_tokens(search, whole_words)
    state = _State(trigger.start(search.seed, allowed.alone))
    state.visited = [state.ids]
    reserved = search.reserved_for_last(CandidateScore(template=_words_only(trigger, state.ids)))
    rounds = range(0, settings.steps, ROUND)

    with trigger.keeping_texts(), Progress("AutoPrompt", total=settings.steps) as progress:

        def run(number: int) -> TokenSteps:
            last = min(settings.steps, rounds[number] + ROUND)
            return _round(
                search,
                trigger,
                state,
                settings=settings,
                allowed=allowed,
                bounds=(rounds[number], last),
                reserved=reserved,
            )

        def take(result: TokenSteps) -> None:
            state.ids, state.ended = tuple(result.ids), result.ended
            state.visited = [*map(tuple, reversed(result.visited)), *state.visited]
            search.budget.spent += result.calls
            search.steps += result.steps
            state.loss = result.steps[-1].loss if result.steps else state.loss
            best = {"loss": state.loss} if result.steps else {}
            progress.advance(len(result.steps), **best)

        parts = [[source, whole_words, settings.candidates, start] for start in rounds]
        search.stage("autoprompt", parts, run, form=TokenSteps, on_result=take)
    written = [trigger.written(ids) for ids in dict.fromkeys(state.visited)]
    return [
        CandidateScore(template=text, source="AutoPrompt") for text in written if text is not None
    ]


def _words_only(trigger: Trigger, ids: Ids) -> str:
    """The template with words in it, to count what a prompt costs."""
    return trigger.written(ids) or trigger.template.source


def _round(
    search: RunningSearch,
    trigger: Trigger,
    state: _State,
    *,
    settings: Settings,
    allowed: Allowed,
    bounds: tuple[int, int],
    reserved: int,
) -> TokenSteps:
    """Some steps, from where the search is; fewer where the budget ends."""
    ids, loss, calls, ended = state.ids, state.loss, 0, state.ended
    steps: list[SearchStep] = []
    visited: list[list[int]] = []
    for number in range(*bounds):
        chance = random.Random(f"{search.seed} step {number}")
        place = chance.randrange(trigger.length)
        learned, judged = (_drawn(trigger.examples, chance) for _ in range(2))
        # where the same rows are in every step the loss of the prompt as it is is known: from the
        # step before, or with the first gradient
        is_known = judged is learned
        needed = GRADIENT * trigger.calls(learned)
        needed += (settings.candidates + (not is_known)) * trigger.calls(judged)
        if ended or not search.budget.allows(calls + needed, reserved):
            ended = True
            break
        tried, loss_beside_gradient = exchanges(
            trigger, ids, place, examples=learned, count=settings.candidates, allowed=allowed
        )
        read = tried if is_known else [ids, *tried]
        losses = trigger.losses(read, judged)
        calls += GRADIENT * trigger.calls(learned) + len(read) * trigger.calls(judged)
        if is_known:
            losses = [loss_beside_gradient if loss is None else loss, *losses]
        best = min(range(len(losses)), key=lambda n: losses[n])
        loss = losses[best]
        if best:
            ids = tried[best - 1]
            visited.append(list(ids))
        text = trigger.lm.tokens.tokenizer.decode(list(ids))
        steps.append(SearchStep(number=number + 1, loss=loss, tried=len(tried), text=text))
    return TokenSteps(ids=list(ids), visited=visited, steps=steps, calls=calls, ended=ended)


def exchanges(
    trigger: Trigger,
    ids: Ids,
    place: int,
    *,
    examples: Sequence[Example],
    count: int,
    allowed: Allowed,
) -> tuple[list[Ids], float]:
    """The prompts with another token at a place whose estimated loss is the smallest, of those
    whose text the tokenizer cuts into these very tokens; and the mean loss of the prompt as it
    is."""
    trigger.put(trigger.vectors[list(ids)])
    gradient, loss = trigger.gradient(examples)
    numbers = allowed.all.to(gradient.device)
    change = first_order(gradient[place].float(), trigger.vectors, ids[place], numbers)
    order = change.topk(min(LOOKED_THROUGH * count, len(numbers)), largest=False).indices
    prompts: list[Ids] = []
    for token in numbers[order].tolist():
        exchanged = (*ids[:place], token, *ids[place + 1 :])
        if token != ids[place] and trigger.written(exchanged) is not None:
            prompts.append(exchanged)
        if len(prompts) == count:
            break
    return prompts, loss


def _drawn(examples: Sequence[Example], chance: random.Random) -> Sequence[Example]:
    """The rows of a step."""
    return examples if len(examples) <= BATCH else chance.sample(list(examples), BATCH)
