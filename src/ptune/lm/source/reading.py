"""What an LM reads, without its weights: its tokenizer, its kind and how much it takes."""

import pathlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from ptune.lm.source import model_files
from ptune.lm.source.loading import kind_of, load_tokenizer, locate, quiet_loading
from ptune.template.language import Kind
from ptune.template.tokenizer import Tokens

NO_LIMIT = 10**6


@dataclass(frozen=True)
class Reading:
    """How an LM reads text.

    Attributes:
        limit: the most tokens of an input by its files, or None where they set no limit.
    """

    tokens: Tokens
    kind: Kind
    limit: int | None


def load(source: str) -> Reading:
    """How the LM of that name reads text; its weights are not touched.

    Args:
        source: builtin, builtin-causal, a transformers folder, a ``.gguf`` file, or a name on the
            hub.

    Raises:
        ModelError: there is no such LM, or its tokenizer cannot be loaded.
    """
    tokenizer = load_tokenizer(source)
    folder, where = locate(source)
    with quiet_loading(source, pathlib.Path(folder)):
        model_files.check(folder, **where)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **where)
    limits = [tokenizer.model_max_length]
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if positions and positions < tokenizer.model_max_length:
        limits.append(positions - _unused_positions(config, positions))
    known = [int(limit) for limit in limits if limit and 0 < limit < NO_LIMIT]
    return Reading(Tokens(tokenizer), kind_of(config, tokenizer), min(known, default=None))


def _unused_positions(config: Any, positions: int) -> int:
    """How many of an LM's positions no token has: those up to that of padding, where padding has
    one (RoBERTa)."""
    with torch.device("meta"):
        network = AutoModel.from_config(config, trust_remote_code=False)
    return max(
        (
            embedding.padding_idx + 1
            for name, embedding in network.named_modules()
            if isinstance(embedding, nn.Embedding)
            and "position" in name
            and embedding.num_embeddings == positions
            and embedding.padding_idx is not None
        ),
        default=0,
    )
