"""The options of ``ptune pretrain``."""

import pathlib
from typing import Annotated, Literal

import tyro
from pydantic import Field

from ptune.settings import Config, Device, Dtype, Lm


class PretrainConfig(Config):
    """Train a small LM from text files, or go on training one. Documents end at blank lines."""

    texts: Annotated[list[pathlib.Path], Field(min_length=1)]
    """Text files, UTF-8, one paragraph a line."""
    out: pathlib.Path
    """The folder for the LM; a run that was stopped goes on from here with --resume."""
    weights: list[Annotated[float, Field(ge=0)]] = []
    """How many times an epoch takes each text: 8 is eight times, 0.3 a random third. Once each by
    default."""
    objective: Literal["masked", "causal", "span-corruption", "prefix-lm"] = "masked"
    """masked: whole-word masking, as BERT. causal: the next token, as GPT. span-corruption: as T5,
    an encoder-decoder. prefix-lm: the rest of a text from its beginning, the LM adaptation of
    Prompt Tuning."""
    next_sentence: Literal["none", "two-way", "three-way"] = "none"
    """Beside the masked objective: is the second half adjacent or not (BERT), or adjacent, from the
    same document, or from another. Trains a pair head, kept beside the LM."""
    lm: Annotated[Lm | None, tyro.conf.arg(name="from")] = None
    """An LM to go on from: a folder or a name on the hub. An encoder without a vocabulary head gets
    a new one."""
    tokenizer: str | None = None
    """The tokenizer of another LM for a new one; without it a new tokenizer is learned from the
    texts."""
    vocabulary_size: Annotated[int, Field(ge=50)] | None = None
    """Pieces in a new vocabulary (8000 by default). With --from, its WordPiece vocabulary is cut to
    as many."""
    keep_words: pathlib.Path | None = None
    """A file of words, one a line, that stay whole when the vocabulary is cut."""
    hidden_size: Annotated[int, Field(ge=1)] = 256
    """Width of a new LM."""
    layers: Annotated[int, Field(ge=1)] = 4
    """Layers of a new LM (of the encoder and of the decoder, where it has both)."""
    heads: Annotated[int, Field(ge=1)] = 4
    """Attention heads of a new LM."""
    length: Annotated[int, Field(ge=8)] = 128
    """Tokens in a sequence at most, special ones included."""
    steps: Annotated[int, Field(ge=1)] = 10_000
    """Optimizer steps in all."""
    batch_tokens: Annotated[int, Field(ge=8)] = 8192
    """Tokens in a batch, padding included."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    """Peak learning rate of AdamW."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps in which the rate rises; then it falls to nothing in a straight line."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay, not on biases and norms."""
    clip: Annotated[float, Field(ge=0)] = 1.0
    """Largest norm of the gradient."""
    segmenter: Literal["characters", "jieba"] = "characters"
    """What a whole word is in a script without spaces, for the masked objective: a character, or a
    word that jieba finds (pip install 'ptune[chinese]')."""
    mask_share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the words that are masked."""
    held_out: Annotated[float, Field(ge=0, lt=0.5)] = 0.01
    """Share of the sequences kept back for the perplexity."""
    save_minutes: Annotated[float, Field(ge=0)] = 10
    """Minutes between two checks on the held-out text, each with a checkpoint."""
    save_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Number format of the saved weights."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of everything random."""
    device: Device = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one."""
    dtype: Dtype = "auto"
    """Number format of the matrix multiplications; the weights stay float32. auto is bfloat16 on a
    GPU."""
    resume: bool = False
    """Go on from the last checkpoint in the out folder."""
