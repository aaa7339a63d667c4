"""The parts that the options of a pretraining are taken apart into; ``PretrainConfig`` says what
each value is."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LmSizes:
    """The sizes of a new LM."""

    hidden_size: int
    layers: int
    heads: int
    length: int


@dataclass(frozen=True)
class VocabularyChoice:
    """What a new vocabulary is learned from, or how one is cut."""

    texts: Sequence[pathlib.Path]
    vocabulary_size: int | None
    keep_words: pathlib.Path | None


@dataclass(frozen=True)
class Objective:
    """What is asked of the LM."""

    objective: Literal["masked", "causal", "span-corruption", "prefix-lm"]
    next_sentence: Literal["none", "two-way", "three-way"]
    segmenter: Literal["characters", "jieba"]
    mask_share: float


@dataclass(frozen=True)
class Schedule:
    """How many steps are taken, of which size, on how much of each text."""

    steps: int
    batch_tokens: int
    weights: Sequence[float]
    learning_rate: float
    warmup: float
    weight_decay: float
    clip: float
    seed: int
    save_minutes: float
