"""LMs of the usual shapes with random weights, the same in every process, and a tokenizer with a
token for every word ("w7")."""

import random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
CLASSES = {"bert": AutoModelForMaskedLM, "gpt2": AutoModelForCausalLM, "t5": AutoModelForSeq2SeqLM}
AROUND = {"bert": "[CLS] $A [SEP]", "gpt2": "$A", "t5": "$A [SEP]"}
WIDER = {
    "bert": 2,
    "gpt2": 2,
    "t5": 1,
}  # so that a wrong mask or position shows, and rounding does not
MINILM = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
SMALL = {
    "bert": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "vocab_size": 1000,
    },
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 1000},
    "t5": {
        "d_model": 64,
        "num_layers": 2,
        "num_heads": 4,
        "d_kv": 16,
        "d_ff": 128,
        "vocab_size": 1000,
    },
}


def lm(
    shape: str, device: str, small: bool, around: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """An LM of BERT-base's, MiniLM's, GPT-2 small's or T5-small's shape, in evaluation mode;
    ``small`` has two narrow layers. ``around``: the special tokens around a text ("$A [SEP]"), by
    default those of the family."""
    torch.manual_seed(0)
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 0}
    sizes = MINILM if shape == "minilm" else {}
    shape = "bert" if shape == "minilm" else shape
    config = AutoConfig.for_model(shape, **(SMALL[shape] if small else sizes), **ends)
    model = CLASSES[shape].from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(WIDER[shape])
    return model.to(device).eval().requires_grad_(False), tokenizer(
        shape, config.vocab_size, around
    )


def tokenizer(shape: str, size: int, around: str | None = None) -> PreTrainedTokenizerFast:
    words = [*SPECIAL, *(f"w{i}" for i in range(size - len(SPECIAL)))]
    tokenizer_object = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]")
    )
    tokenizer_object.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    around = around or AROUND[shape]
    tokenizer_object.post_processor = processors.TemplateProcessing(
        single=around,
        pair=f"{around} $B [SEP]" if shape != "gpt2" else "$A $B",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_object,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        unk_token="[UNK]",
        eos_token="[SEP]",
        model_max_length=1024 if shape == "gpt2" else 512,
    )


def texts(lengths: list[int], seed: int = 0) -> list[str]:
    """Random texts of so many words each."""
    draw = random.Random(seed)
    return [" ".join(f"w{draw.randrange(100, 900)}" for _ in range(length)) for length in lengths]


def lengths(count: int, shortest: int, longest: int, seed: int = 0) -> list[int]:
    draw = random.Random(seed)
    return [draw.randint(shortest, longest) for _ in range(count)]
