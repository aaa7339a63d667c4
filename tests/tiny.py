"""Tiny random LMs of many families with weights wide enough that a fault shows, and tokenizers of
every style.

With transformers' default initialisation (0.02) a dropped mask or a shifted position moves the
scores by almost nothing, so a test on it cannot fail; here the weights are about ten times wider.
"""

import functools
import itertools
from collections import Counter

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

TEXT = [
    "The capital of Austria is Vienna and the capital of France is Paris . Is it Yes "
    "or No ? Maybe .",
    "Vienna lies on the Danube , in the east of Austria ; its people speak German and"
    " pay with the euro .",
    "Berlin is a city in Germany and Rome is a city in Italy . Question : what is "
    "great , good , bad or terrible ? Answer :",
    "It was a great film , it was a terrible film , the best and the worst ; positive"
    " or negative , Madrid or London ?",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = sorted({c for line in TEXT for c in line if c != " "} | set("abcdefghijklmnopqrstuvwxyz"))
SPLIT = (
    "terrible",
    "positive",
    "negative",
    "worst",
    "question",
)  # words that no vocabulary here has whole


def merges(words: list[list[str]], count: int) -> list[tuple[str, str]]:
    """Byte-pair merges; of equally frequent pairs the first in order, since the library's own
    trainer takes any."""
    actual = []
    for _ in range(count):
        pairs = Counter(pair for word in words for pair in itertools.pairwise(word))
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        actual.append(best)
        for word in words:
            position = 0
            while position < len(word) - 1:
                if (word[position], word[position + 1]) == best:
                    word[position : position + 2] = ["".join(best)]
                position += 1
    return actual


def bpe(
    words: list[list[str]], alphabet: list[str], special: list[str], count: int, **more
) -> models.BPE:
    built = merges(words, count)
    pieces = dict.fromkeys([*special, *alphabet, *("".join(pair) for pair in built)])
    return models.BPE(
        vocab={piece: number for number, piece in enumerate(pieces)}, merges=built, **more
    )


@functools.cache
def wordpiece() -> PreTrainedTokenizerFast:
    """BERT's: lower case, ##pieces, token types."""
    words = sorted({word.lower() for line in TEXT for word in line.split()} - set(SPLIT))
    letters = [c for c in LETTERS if c == c.lower()]
    pieces = dict.fromkeys([*SPECIAL, *letters, *(f"##{c}" for c in letters), *words])
    built = Tokenizer(
        models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    built.normalizer, built.pre_tokenizer = (
        normalizers.BertNormalizer(lowercase=True),
        pre_tokenizers.BertPreTokenizer(),
    )
    built.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    built.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=built,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


@functools.cache
def byte_level(roberta: bool) -> PreTrainedTokenizerFast:
    """GPT-2's byte-level BPE, or RoBERTa's with its special tokens and a mask that takes the space
    before it."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if roberta else ["<|endoftext|>"]
    words = [
        list(piece)
        for line in TEXT
        for piece, _ in pre_tokenizers.ByteLevel(add_prefix_space=True).pre_tokenize_str(line)
    ]
    built = Tokenizer(bpe(words, sorted(pre_tokenizers.ByteLevel.alphabet()), special, 150))
    built.pre_tokenizer, built.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    if not roberta:
        return PreTrainedTokenizerFast(
            tokenizer_object=built, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
        )
    built.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=built,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


@functools.cache
def unigram() -> PreTrainedTokenizerFast:
    """T5's: pieces with a mark for the space, an end token, sentinels."""
    words = sorted({word for line in TEXT for word in line.split()} - set(SPLIT))
    pieces = dict.fromkeys(
        ["<pad>", "</s>", "<unk>", *(f"\u2581{word}" for word in words), "\u2581", *LETTERS]
    )
    built = Tokenizer(
        models.Unigram(
            [(p, 0.0 if p[0] == "<" else -4.0 if len(p) > 1 else -9.0) for p in pieces], unk_id=2
        )
    )
    built.pre_tokenizer, built.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    built.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=built,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=[f"<extra_id_{i}>" for i in range(10)],
    )


@functools.cache
def prepended() -> PreTrainedTokenizerFast:
    """Llama's older kind: a mark for the space is put before every text, so that " Vienna" alone
    gets two."""
    words = [list(f"\u2581{word}") for line in TEXT for word in line.split()]
    built = Tokenizer(
        bpe(
            words,
            ["\u2581", *LETTERS],
            ["<unk>", "<s>", "</s>"],
            120,
            unk_token="<unk>",
            fuse_unk=True,
        )
    )
    built.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    built.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=built, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@functools.cache
def merging() -> PreTrainedTokenizerFast:
    """SmolLM2's kind of byte-level BPE: digits apart, and runs of line breaks or of spaces are one
    token where no word follows."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [
        list(piece)
        for line in TEXT
        for piece, _ in pre_tokenizers.ByteLevel(add_prefix_space=True).pre_tokenize_str(line)
    ]
    model = bpe(
        [*words, *[list("\u010a\u010a"), list("\u0120\u0120"), list("\u0120\u010a")] * 50],
        alphabet,
        ["<|endoftext|>"],
        150,
    )
    built = Tokenizer(model)
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    built.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=built, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )


@functools.cache
def letters() -> PreTrainedTokenizerFast:
    """A token for every letter, the space among them."""
    built = Tokenizer(
        models.WordLevel(
            {letter: number for number, letter in enumerate(["<unk>", *LETTERS, " "])},
            unk_token="<unk>",
        )
    )
    built.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    built.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=built, unk_token="<unk>", eos_token="<unk>")


SHAPE = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=80,
)
LLAMA = dict(
    **SHAPE, num_key_value_heads=2, head_dim=8, pad_token_id=0, bos_token_id=1, eos_token_id=2
)
FAMILIES = {
    "bert": (BertForMaskedLM, BertConfig, wordpiece, SHAPE),
    "roberta": (
        RobertaForMaskedLM,
        RobertaConfig,
        lambda: byte_level(True),
        dict(SHAPE, pad_token_id=1, type_vocab_size=1),
    ),
    "albert": (AlbertForMaskedLM, AlbertConfig, wordpiece, dict(SHAPE, embedding_size=16)),
    "electra": (ElectraForMaskedLM, ElectraConfig, wordpiece, dict(SHAPE, embedding_size=16)),
    "distilbert": (
        DistilBertForMaskedLM,
        DistilBertConfig,
        wordpiece,
        dict(dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=80),
    ),
    "deberta": (
        DebertaV2ForMaskedLM,
        DebertaV2Config,
        wordpiece,
        dict(
            SHAPE,
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            max_relative_positions=32,
            position_buckets=16,
            type_vocab_size=2,
        ),
    ),
    "modernbert": (
        ModernBertForMaskedLM,
        ModernBertConfig,
        wordpiece,
        dict(
            SHAPE,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
            cls_token_id=2,
            sep_token_id=3,
            local_attention=8,
            global_attn_every_n_layers=2,
        ),
    ),
    "gpt2": (
        GPT2LMHeadModel,
        GPT2Config,
        lambda: byte_level(False),
        dict(n_embd=32, n_layer=2, n_head=4, n_positions=80, bos_token_id=0, eos_token_id=0),
    ),
    "opt": (
        OPTForCausalLM,
        OPTConfig,
        lambda: byte_level(False),
        dict(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            ffn_dim=48,
            max_position_embeddings=80,
            word_embed_proj_dim=16,
            pad_token_id=0,
            bos_token_id=0,
            eos_token_id=0,
        ),
    ),
    "neox": (
        GPTNeoXForCausalLM,
        GPTNeoXConfig,
        lambda: byte_level(False),
        dict(SHAPE, bos_token_id=0, eos_token_id=0, use_parallel_residual=True),
    ),
    "llama": (LlamaForCausalLM, LlamaConfig, prepended, LLAMA),
    "qwen": (Qwen3ForCausalLM, Qwen3Config, lambda: byte_level(False), LLAMA),
    "gemma": (
        Gemma2ForCausalLM,
        Gemma2Config,
        lambda: byte_level(False),
        dict(LLAMA, sliding_window=8, query_pre_attn_scalar=8),
    ),
    "t5": (
        T5ForConditionalGeneration,
        T5Config,
        unigram,
        dict(
            d_model=32,
            d_kv=12,
            d_ff=48,
            num_layers=2,
            num_heads=4,
            relative_attention_num_buckets=8,
            decoder_start_token_id=0,
        ),
    ),
    "bart": (
        BartForConditionalGeneration,
        BartConfig,
        lambda: byte_level(True),
        dict(
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            max_position_embeddings=80,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=2,
            forced_eos_token_id=2,
        ),
    ),
}
MASKED = ("bert", "roberta", "albert", "electra", "deberta", "modernbert")
CAUSAL = ("gpt2", "opt", "llama", "qwen", "gemma")
ENCODER_DECODER = ("t5", "bart")


def tiny(family: str, dtype: torch.dtype = torch.float32, seed: int = 0, **sizes: int):
    """A tiny random model of the family, evaluation mode, and its tokenizer.

    Args:
        sizes: settings of its config that are other ones than the family has here.
    """
    cls, config, tokenizer, shape = FAMILIES[family]
    tokenizer = tokenizer()
    torch.manual_seed(seed)
    model = cls(config(vocab_size=len(tokenizer), **{**shape, **sizes}))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.25)
            elif name.endswith("bias"):
                weight.normal_(0, 0.1)
    model.tie_weights()
    return model.to(dtype).eval(), tokenizer
