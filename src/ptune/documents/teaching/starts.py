"""What a document's prefix begins as."""

from collections.abc import Sequence

import torch
from torch import nn

from ptune.documents.options import Start
from ptune.documents.teaching import attended_start
from ptune.lm.language_model import LanguageModel
from ptune.prompts import encoders


class Anchored(nn.Module):
    """A table of which the first vector stays as it is, since LMs rest their attention on the first
    token (Cartridges, section 3.2).

    Args:
        vectors: as which it begins [P, W].
    """

    first: torch.Tensor

    def __init__(self, vectors: torch.Tensor):
        super().__init__()
        self.register_buffer("first", vectors[:1].clone())
        self.rest = nn.Parameter(vectors[1:].clone())

    def forward(self) -> torch.Tensor:
        """The vectors [P, W]."""
        return torch.cat([self.first, self.rest])


def prefix(
    lm: LanguageModel,
    ids: Sequence[int],
    length: int,
    start: Start,
    *,
    stretches: Sequence[Sequence[int]] = (),
    slice_tokens: int = 40,
    anchored: bool = False,
    seed: int = 0,
    earlier: torch.Tensor | None = None,
) -> nn.Module:
    """What makes the prefix of a document [P, W].

    Args:
        ids: the document's tokens.
        length: P.
        stretches: the tokens of the document as the teacher reads it.
        slice_tokens: how many of them are read again at once, where attention decides.
        anchored: the first vector is not trained.
        seed: of a random start.
        earlier: a prefix that was trained already, as whose vectors the first ones begin.
    """
    whole = [*lm.tokens.before, *ids]
    if start == "random":
        some = lm.activations(whole[: max(length, 2)])
        vectors = _random(some, length, torch.Generator().manual_seed(seed))
    elif start == "attended":
        texts = [(*lm.tokens.before, *stretch) for stretch in stretches]
        vectors = attended_start.vectors(lm, texts, length, slice_tokens)
    else:
        vectors = lm.activations(_chosen(whole, length, start))
    if earlier is not None:
        vectors = torch.cat([earlier[:length].to(vectors), vectors[len(earlier) :]])
    return Anchored(vectors.float()) if anchored else encoders.table_of(vectors.float())


def _chosen(ids: Sequence[int], length: int, start: Start) -> list[int]:
    """The tokens whose keys and values a prefix begins as, as if they were all the text there
    is."""
    if start == "first":
        return list(ids[:length])
    step = len(ids) / length
    return [ids[int(number * step)] for number in range(length)]


def _random(some: torch.Tensor, length: int, generator: torch.Generator) -> torch.Tensor:
    """Random values at the scale of the LM's own [P, W]."""
    noise = torch.randn(length, some.shape[1], generator=generator).to(some.device)
    return some.mean(0) + some.std(0) * noise
