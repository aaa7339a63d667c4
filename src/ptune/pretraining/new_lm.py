"""The LM that is pretrained: a new one of a usual architecture, or one that is there already."""

import pathlib
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from ptune.errors import ConfigError
from ptune.lm.source.loading import load_model, load_tokenizer
from ptune.pretraining import vocabulary
from ptune.pretraining.parts import LmSizes, VocabularyChoice
from ptune.template.language import Kind

KINDS: dict[str, Kind] = {
    "masked": "masked",
    "causal": "causal",
    "span-corruption": "encoder-decoder",
    "prefix-lm": "encoder-decoder",
}
TOKENIZER = pathlib.Path("training") / "tokenizer"  # where one that was learned is kept


def known(source: str, kind: Kind, words: VocabularyChoice) -> tuple[Any, Any]:
    """The model and the tokenizer of an LM to go on from, in float32.

    Args:
        words: how its vocabulary is cut, where a size is given.
    """
    model, tokenizer = load_model(source, kind, torch.float32, needs_head=False)
    if words.vocabulary_size:
        keep = vocabulary.lines([words.keep_words]) if words.keep_words else ()
        tokenizer = vocabulary.cut(
            model, tokenizer, words.texts, size=words.vocabulary_size, keep=keep
        )
    return model, tokenizer


def new(
    kind: Kind, sizes: LmSizes, words: VocabularyChoice, saved_tokenizer: str | None
) -> tuple[Any, Any]:
    """A new model with a tokenizer.

    Args:
        words: what the tokenizer is learned from, where none is saved.
    """
    if saved_tokenizer:
        tokenizer = load_tokenizer(saved_tokenizer)
    else:
        tokenizer = vocabulary.new_tokenizer(
            words.texts, kind, words.vocabulary_size or 8000, sizes.length
        )
    return new_model(sizes, kind, tokenizer), tokenizer


def new_model(sizes: LmSizes, kind: Kind, tokenizer: Any) -> Any:
    """A model of the given sizes with random weights: BERT, Llama, or T5.

    Raises:
        ConfigError: the heads cannot share the width.
    """
    if sizes.hidden_size % sizes.heads:
        raise ConfigError(f"The width {sizes.hidden_size} cannot be shared by {sizes.heads} heads.")
    makers = {"masked": _new_bert, "causal": _new_llama, "encoder-decoder": _new_t5}
    return makers[kind](sizes, tokenizer)


def _new_bert(sizes: LmSizes, tokenizer: Any) -> BertForMaskedLM:
    return BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=sizes.hidden_size,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            intermediate_size=4 * sizes.hidden_size,
            max_position_embeddings=max(512, sizes.length),
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _new_llama(sizes: LmSizes, tokenizer: Any) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=sizes.hidden_size,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            num_key_value_heads=sizes.heads,
            intermediate_size=8 * sizes.hidden_size // 3 // 8 * 8,
            max_position_embeddings=max(512, sizes.length),
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def _new_t5(sizes: LmSizes, tokenizer: Any) -> T5ForConditionalGeneration:
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=sizes.hidden_size,
            d_kv=sizes.hidden_size // sizes.heads,
            d_ff=2 * sizes.hidden_size,
            num_layers=sizes.layers,
            num_heads=sizes.heads,
            feed_forward_proj="gated-gelu",
            decoder_start_token_id=tokenizer.pad_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
