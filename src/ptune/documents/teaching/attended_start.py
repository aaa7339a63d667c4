"""A prefix that begins as those keys and values of its document that matter most: in every head of
every layer the tokens that the document's own words attend to, read again behind the whole of it.

Each keeps its distance to what stands behind the document, where the LM counts distances (rotary
positions): untrained such a prefix is the document's cache without most of its tokens, chosen as in
KVzip (Kim et al. 2025, arXiv 2505.23416) and SnapKV (Li et al. 2024, arXiv 2404.14469).
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch

from ptune.documents.teaching.teacher import shared
from ptune.errors import ConfigError, ModelError
from ptune.lm.language_model import LanguageModel
from ptune.lm.patches.prefixes.attention_route import AttentionRoute
from ptune.lm.patches.prefixes.attention_weights import AttentionReceived, watched
from ptune.template.language import EncodedRow

SHIFT = 3  # positions by which a trial is moved
TOLERANCE = 1e-3

Ids = tuple[int, ...]


def check(lm: LanguageModel) -> None:
    """Refuse an LM whose attention cannot be seen.

    Raises:
        ConfigError: it is such an LM, with the reason.
    """
    try:
        _received(lm, tuple(lm.tokens.start("one two three")), 2)
    except ModelError as error:
        raise ConfigError(
            f"--start attended needs to see what {lm.source} attends to: {error}. Take another "
            "--start."
        ) from error


@torch.no_grad()
def vectors(
    lm: LanguageModel, texts: Sequence[Ids], length: int, slice_tokens: int
) -> torch.Tensor:
    """As what the prefix begins [P, W].

    Args:
        texts: the document; where it is longer than the LM's window the stretches of it, which get
            parts of the prefix by their lengths.
        length: P.
        slice_tokens: how many tokens are read again at once; half of them in the next slice too.
    """
    is_relative = counts_distances(lm)
    tokens = [0, *itertools.accumulate(map(len, texts))]
    ends = [length * before // tokens[-1] for before in tokens]
    parts = [
        _chosen(
            lm,
            _received(lm, ids, slice_tokens),
            _activations(lm, ids, length - len(ids) if is_relative else 0),
            count=end - begin,
        )
        for ids, begin, end in zip(texts, ends, ends[1:])
        if end > begin
    ]
    return torch.cat(parts)


def _chosen(
    lm: LanguageModel, received: Sequence[torch.Tensor], whole: torch.Tensor, *, count: int
) -> torch.Tensor:
    """The keys and values of so many tokens of a text [count, W], others in every head.

    Args:
        received: how much each token is attended to, in every attention [Hkv, S].
        whole: the keys and values of all [S, W].
    """
    route = lm.route
    assert isinstance(route, AttentionRoute)
    chosen = whole.new_empty(count, whole.shape[1])
    for number, site in enumerate(route.sites):
        places = received[number].topk(count).indices.sort().values  # [Hkv, P]
        parts = whole[:, site.start : site.end].unflatten(1, (2, site.heads, site.size))
        index = places.T[:, None, :, None].expand(-1, 2, -1, site.size)
        chosen[:, site.start : site.end] = parts.gather(0, index).flatten(1)
    return chosen


def _received(lm: LanguageModel, ids: Ids, size: int) -> list[torch.Tensor]:
    """How much each token of a text is attended to, in every attention [Hkv, S], by its slices read
    again behind it.

    Raises:
        ModelError: the attention cannot be seen.
    """
    if not isinstance(lm.route, AttentionRoute):
        raise ModelError("it does not go through transformers' attention interface")
    context, watcher = shared(lm.context_values(ids), 1), AttentionReceived()
    line, step = tuple(lm.tokens.plain("\n")), max(1, size // 2)
    with lm.evaluating(), watched(watcher):
        for start in range(0, max(1, len(ids) - step), step):
            row = (*line, *ids[start : start + size])
            encoded = EncodedRow(row, (-1,) * len(row), None, (len(row) - 1,))
            lm.read(lm.collate([encoded], [-1], context=context))
    sums = [watcher.sums[number] for number in range(len(lm.route.sites))]
    if any(received.shape[1] < len(ids) for received in sums):
        raise ModelError(
            f"some layers of {lm.source} see a window of the text alone, so that attention cannot "
            "choose what of it a prefix begins as: take another --start"
        )
    return [received[:, : len(ids)] for received in sums]


def _activations(lm: LanguageModel, ids: Ids, shift: int) -> torch.Tensor:
    """The keys and values of a text whose positions are moved [S, W]."""
    batch = lm.collate([EncodedRow(ids, (-1,) * len(ids), None, (len(ids) - 1,))], [-1])
    moved = replace(batch, ahead=torch.full_like(batch.ids, shift)) if shift else batch
    with lm.evaluating():
        return lm.route.activations(lambda: lm.forward.run(moved))


def counts_distances(lm: LanguageModel) -> bool:
    """Whether a text that is moved by some positions says the same."""
    if lm.forward.offset is None:
        return True
    ids = tuple(lm.tokens.start("one two three four five six"))
    batch = lm.collate([EncodedRow(ids, (-1,) * len(ids), None, (len(ids) - 1,))], [-1])
    moved = replace(batch, ahead=torch.full_like(batch.ids, SHIFT))
    with torch.no_grad(), lm.evaluating():
        scores, again = (lm.read(one).scores.float() for one in (batch, moved))
    return bool((scores - again).abs().max() < TOLERANCE * scores.abs().max())
