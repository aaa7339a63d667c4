"""Who attends to whom: how much the place of a row's answer attends to each token, soft token and
prefix vector, in one layer."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ptune.errors import ConfigError, ModelError
from ptune.lm.language_model import LanguageModel
from ptune.lm.patches.prefixes.attention_route import AttentionRoute
from ptune.lm.patches.prefixes.attention_weights import AttentionWeights, watched
from ptune.model.prompt_model import Example, PromptModel
from ptune.model.running.forward import prompt_vectors
from ptune.serving.problems import refused
from ptune.template.language import EncodedRow

LONGEST = 512  # tokens of a row whose attention is shown


@dataclass(frozen=True)
class Attended:
    """What is attended to, and how much.

    Attributes:
        kind: "prefix", "soft" or "token".
        text: the token; for the others their number in the prompt, from 1.
        weight: the share of attention, averaged over the heads.
    """

    kind: str
    text: str
    weight: float


@dataclass(frozen=True)
class Attention:
    """Attention from one place.

    Attributes:
        layer: which layer it is, from 1, and ``layers`` how many there are.
        heads: over how many heads it is averaged.
        source: the place: "answer", where the answer is read; in an encoder-decoder it stands in
            the decoder, whose attention to the encoder's tokens this is.
        attended: in the order in which they stand in the row; their weights sum up to 1.
    """

    layer: int
    layers: int
    heads: int
    source: str
    attended: list[Attended]


def attention_of(model: PromptModel, example: Example, layer: int | None) -> Attention:
    """The attention from the place of the answer of a row; from its last token where a text is
    written behind it.

    Args:
        layer: from 1; None for the last.

    Raises:
        ModelError: this LM's attention cannot give its weights, with the reason.
        ConfigError: the row is too long or is read as a whole.
        Problem: there is no such layer.
    """
    lm, row = model.lm, example.fills[0]
    route = _route(lm)
    if len(row.ids) > LONGEST:
        raise ConfigError(
            f"Attention is shown for rows of {LONGEST} tokens at most, and this one has "
            f"{len(row.ids)}."
        )
    if row.pooled:
        raise ConfigError("This prompt reads the mean over all tokens, and no place attends.")
    group = "cross" if row.decoder is not None else "self"
    sites = [number for number, site in enumerate(route.sites) if site.group == group]
    if layer is not None and layer > len(sites):
        raise refused(f"There is no layer {layer}: the LM has {len(sites)}.", "layer")
    layer = layer or len(sites)
    learned = prompt_vectors(model, [example.task])
    prompt = learned.places.get(model.tasks[example.task].prompt, -1)
    batch = lm.collate([row], [prompt if row.has_prompt else -1])
    weights = AttentionWeights(sites[layer - 1], row.answer_positions[0])
    with torch.no_grad(), lm.evaluating(), watched(weights):
        lm.read(batch, learned.vectors, learned.prefixes)
    if weights.heads is None:
        raise ModelError(f"Layer {layer} of {type(lm.model).__name__} computes no attention.")
    source = "answer" if example.has_labels else "last token"
    shares = weights.heads.mean(0).tolist()
    return Attention(layer, len(sites), len(weights.heads), source, list(_named(lm, row, shares)))


def _route(lm: LanguageModel) -> AttentionRoute:
    """The attentions of an LM.

    Raises:
        ModelError: they cannot be reached, or a call changes the next one.
    """
    name = type(lm.model).__name__
    if lm.switches:
        raise ModelError(
            f"{name} keeps a state of its last call, so that none is made to show attention."
        )
    try:
        route = lm.route
    except ModelError:
        route = None
    if not isinstance(route, AttentionRoute):
        raise ModelError(
            f"{name} does not go through transformers' attention interface, so that its attention "
            "cannot be shown."
        )
    return route


def _named(lm: LanguageModel, row: EncodedRow, shares: list[float]) -> Iterator[Attended]:
    """Prefix vectors and tokens, in the order of the row, with their shares.

    Args:
        shares: [P + T], those of the prefix vectors in front.
    """
    of_prefix, of_tokens = shares[: len(row.prefix)], shares[len(row.prefix) :]
    for place in range(len(row.ids) + 1):
        for number, start in enumerate(row.prefix):
            if start == place:
                yield Attended("prefix", str(number + 1), of_prefix[number])
        if place == len(row.ids):
            return
        slot, share = row.soft_slots[place], of_tokens[place]
        if slot >= 0:
            yield Attended("soft", str(slot + 1), share)
        else:
            yield Attended("token", _text(lm, row.ids[place]), share)


def _text(lm: LanguageModel, token: int) -> str:
    """A token as text; one that is no whole character as its name in the vocabulary."""
    tokenizer = lm.tokens.tokenizer
    text = str(tokenizer.decode([token]))
    return text if text.strip("\ufffd") else str(tokenizer.convert_ids_to_tokens(token))
