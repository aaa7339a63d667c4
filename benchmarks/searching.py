"""A step of AutoPrompt: the gradient at one place, and the most promising tokens there evaluated
exactly. Beside it the plain loop of the papers' code, which evaluates one candidate after the
other."""

import contextlib
import random
from collections.abc import Callable, Sequence

import torch
from torch import nn

from benchmarks import lms
from benchmarks.side import Work
from ptune import LanguageModel, Task, Template, Verbalizer
from ptune.reports.search_results import CandidateScore
from ptune.search.common.running_search import Budget, RunningSearch
from ptune.search.common.searched_task import SearchedTask
from ptune.search.tokens import autoprompt
from ptune.search.tokens.autoprompt import Allowed
from ptune.search.tokens.trigger import Trigger

ROWS, PLACES, CANDIDATES, PLACE = 8, 5, 16, 2
FACTS = 56  # rows of a step in AutoPrompt's search for facts
SUBJECTS = (950, 4297, 5561, 4832, 2975, 1835, 1081, 569, 312, 173, 108, 81, 38, 27)
"""How many of the subjects of LAMA's train rows have 1, 2, 3, ... tokens of BERT's vocabulary."""
SOURCE = f"{{x}} {{soft:{PLACES}}} {{mask}}"
START = tuple(range(300, 300 + PLACES))
OPEN = contextlib.ExitStack()  # as long as the process
WORDS = {"good": "w20", "bad": "w40"}


def step(shape: str, shortest: int, longest: int) -> Callable[[str, str, bool], Work]:
    """One step with ``CANDIDATES`` tokens on ``ROWS`` rows of so many words."""
    lengths = lms.lengths(ROWS, shortest, longest)
    return lambda side, device, small: _side(side, *lms.lm(shape, device, small), device, lengths)


def facts(shape: str) -> Callable[[str, str, bool], Work]:
    """One step on ``FACTS`` rows as short as LAMA's subjects; on fewer if it is small."""
    lengths = random.Random(0).choices(range(1, 1 + len(SUBJECTS)), SUBJECTS, k=FACTS)
    return lambda side, device, small: _side(
        side, *lms.lm(shape, device, small), device, lengths[:ROWS] if small else lengths
    )


def _side(side: str, network: nn.Module, tokenizer, device: str, lengths: list[int]) -> Work:
    texts = lms.texts(lengths)
    rows = [{"x": text, "label": list(WORDS)[n % 2]} for n, text in enumerate(texts)]
    if side == "one by one":
        inputs = _plain_inputs(tokenizer, texts, device)
        labels = torch.tensor([n % 2 for n in range(len(rows))], device=device)
        return _work(network, lambda: _plain_step(network, tokenizer, inputs, labels))
    search = _search(LanguageModel(network, tokenizer), rows)
    trigger = Trigger(search, SOURCE)
    numbers = torch.arange(len(lms.SPECIAL), search.task.lm.words)
    allowed = Allowed(numbers, numbers)

    OPEN.enter_context(trigger.keeping_texts())

    def take() -> tuple[list[int], list[float]]:
        tried, loss = autoprompt.exchanges(
            trigger, START, PLACE, examples=trigger.examples, count=CANDIDATES, allowed=allowed
        )
        losses = [loss, *trigger.losses(tried, trigger.examples)]
        return [ids[PLACE] for ids in tried], losses

    return _work(network, take)


def _work(network: nn.Module, take) -> Work:
    def proof() -> list[float]:
        tokens, losses = take()
        return [*map(float, tokens), *losses]

    return Work(take, proof, network)


def _search(lm: LanguageModel, rows: Sequence[dict[str, str]]) -> RunningSearch:
    def asked(candidate: CandidateScore) -> Task:
        words = Verbalizer.from_words(WORDS)
        return Task("searched", Template.parse(candidate.template), words)

    task = SearchedTask(
        name="searched",
        lm=lm,
        patterns=(),
        template=SOURCE,
        words=WORDS,
        target="label",
        train=rows,
        dev=rows,
        metric="accuracy",
        asked=asked,
        figure=lambda scores, examples: 0.0,
        field="x",
    )
    return RunningSearch(
        by="gradient", task=task, keep=1, seed=0, budget=Budget(), report=lambda line: None
    )


def _plain_inputs(tokenizer, texts: Sequence[str], device: str) -> dict[str, torch.Tensor]:
    """The rows with the start's tokens and a mask, padded to the longest, as the papers' code has
    them."""
    words = " ".join(tokenizer.convert_ids_to_tokens(START))
    asked = [f"{text} {words} [MASK]" for text in texts]
    inputs = tokenizer(asked, padding=True, return_tensors="pt")
    return {name: inputs[name].to(device) for name in ("input_ids", "attention_mask")}


def _plain_step(
    network: nn.Module, tokenizer, inputs: dict[str, torch.Tensor], labels: torch.Tensor
) -> tuple[list[int], list[float]]:
    """The same step, a call of the LM for each candidate."""
    ids, attention = inputs["input_ids"], inputs["attention_mask"]
    masks = ids == tokenizer.mask_token_id
    words = torch.tensor(tokenizer.convert_tokens_to_ids(list(WORDS.values())), device=ids.device)
    first = masks.float().argmax(1) - PLACES  # of the start's tokens
    is_causal = network.config.model_type == "gpt2"  # which is read before the mask
    read = masks.roll(-1, 1) if is_causal else masks

    def loss(**given: torch.Tensor) -> torch.Tensor:
        logits = network(attention_mask=attention, **given).logits[read]
        return nn.functional.cross_entropy(logits[:, words], labels)

    table = network.get_input_embeddings()
    embeddings = table(ids).detach().requires_grad_()
    (gradients,) = torch.autograd.grad(loss(inputs_embeds=embeddings), embeddings)
    gradient = gradients[torch.arange(len(ids)), first + PLACE].sum(0)
    change = table.weight.detach()[len(lms.SPECIAL) :] @ gradient
    change[START[PLACE] - len(lms.SPECIAL)] = torch.inf
    tokens = (change.topk(CANDIDATES, largest=False).indices + len(lms.SPECIAL)).tolist()
    losses = []
    with torch.no_grad():
        for token in (START[PLACE], *tokens):
            exchanged = ids.clone()
            exchanged[torch.arange(len(ids)), first + PLACE] = token
            losses.append(float(loss(input_ids=exchanged)))
    return tokens, losses
