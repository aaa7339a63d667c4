"""The LM that is pretrained: a new one of a usual architecture, or one that is there already."""

import os
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
from ptune.lm.language_model import LanguageModel
from ptune.lm.source.loading import choose_device, load_model, load_tokenizer
from ptune.pretraining import vocabulary
from ptune.pretraining.options import PretrainConfig
from ptune.template.language import Kind

KINDS: dict[str, Kind] = {
    "masked": "masked",
    "causal": "causal",
    "span-corruption": "encoder-decoder",
    "prefix-lm": "encoder-decoder",
}
TOKENIZER = pathlib.Path("training") / "tokenizer"  # where one that was learned is kept


def prepare(config: PretrainConfig) -> LanguageModel:
    """The LM to train, on its device, in float32; a checkpoint's tokenizer is used again."""
    kind, device = KINDS[config.objective], choose_device(config.device)
    torch.manual_seed(config.seed)
    if config.lm is not None:
        model, tokenizer = load_model(config.lm, kind, torch.float32, needs_head=False)
        if config.vocabulary_size:
            keep = vocabulary.lines([config.keep_words]) if config.keep_words else ()
            tokenizer = vocabulary.cut(model, tokenizer, config.texts, config.vocabulary_size, keep)
    else:
        saved = config.out / TOKENIZER
        if config.tokenizer or saved.exists():
            tokenizer = load_tokenizer(os.fspath(config.tokenizer or saved))
        else:
            tokenizer = vocabulary.new_tokenizer(
                config.texts, kind, config.vocabulary_size or 8000, config.length
            )
        model = new_model(config, kind, tokenizer)
    return LanguageModel(model.float().to(device), tokenizer, kind, str(config.out))


def new_model(config: PretrainConfig, kind: Kind, tokenizer: Any) -> Any:
    """A model of the given sizes with random weights: BERT, Llama, or T5.

    Raises:
        ConfigError: the heads cannot share the width.
    """
    if config.hidden_size % config.heads:
        raise ConfigError(
            f"The width {config.hidden_size} cannot be shared by {config.heads} heads."
        )
    makers = {"masked": _new_bert, "causal": _new_llama, "encoder-decoder": _new_t5}
    return makers[kind](config, tokenizer)


def _new_bert(config: PretrainConfig, tokenizer: Any) -> BertForMaskedLM:
    return BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=4 * config.hidden_size,
            max_position_embeddings=max(512, config.length),
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _new_llama(config: PretrainConfig, tokenizer: Any) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            intermediate_size=8 * config.hidden_size // 3 // 8 * 8,
            max_position_embeddings=max(512, config.length),
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def _new_t5(config: PretrainConfig, tokenizer: Any) -> T5ForConditionalGeneration:
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=config.hidden_size,
            d_kv=config.hidden_size // config.heads,
            d_ff=2 * config.hidden_size,
            num_layers=config.layers,
            num_heads=config.heads,
            feed_forward_proj="gated-gelu",
            decoder_start_token_id=tokenizer.pad_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
