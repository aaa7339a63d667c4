"""Tiny LMs of families beyond those of tiny.py, by the route that a prefix takes in them."""

import inspect

import pytest
import tiny
import torch
import transformers

ENDS = dict(bos_token_id=0, eos_token_id=0, pad_token_id=0)


GROUPED = dict(tiny.SHAPE, num_key_value_heads=2, **ENDS)


SLIDING = dict(tiny.LLAMA, sliding_window=8, query_pre_attn_scalar=8)


T5, BART = tiny.FAMILIES["t5"][3], tiny.FAMILIES["bart"][3]


SMALL = dict(n_embd=32, n_layer=2, n_head=4, n_positions=80, bos_token_id=0, eos_token_id=0)


LATENT = dict(
    GROUPED,
    num_key_value_heads=4,
    moe_intermediate_size=16,
    n_routed_experts=2,
    num_experts_per_tok=1,
    n_group=1,
    topk_group=1,
    first_k_dense_replace=2,
    q_lora_rank=16,
    kv_lora_rank=16,
    qk_rope_head_dim=4,
    qk_nope_head_dim=8,
    v_head_dim=8,
)


LINEAR = dict(
    tiny.LLAMA,
    linear_num_value_heads=4,
    linear_num_key_heads=2,
    linear_key_head_dim=8,
    linear_value_head_dim=8,
    layer_types=["linear_attention", "full_attention"],
)


MAMBA = dict(hidden_size=32, num_hidden_layers=2, state_size=8, **ENDS)


def gpt():
    return tiny.byte_level(False)


def roberta():
    return tiny.byte_level(True)


def family(kind: str, tokenizer, shape: dict, config: str = ""):
    """As in ``tiny.FAMILIES``; the model's file is read when it is needed."""
    return lambda: (
        getattr(transformers, kind),
        getattr(transformers, config or f"{kind.partition('For')[0]}Config"),
        tokenizer,
        shape,
    )


LONG = dict(
    GROUPED,
    original_max_position_embeddings=12,
    rope_parameters=dict(
        rope_type="longrope",
        rope_theta=100.0,
        short_factor=[1.0] * 4,
        long_factor=[1.5, 2.0, 3.0, 5.0],
        factor=4.0,
        original_max_position_embeddings=12,
    ),
)


DYNAMIC = dict(tiny.LLAMA, rope_parameters=dict(rope_type="dynamic", rope_theta=100.0, factor=2.0))


CHUNKS = dict(
    tiny.LLAMA,
    intermediate_size_mlp=48,
    num_local_experts=2,
    attention_chunk_size=8,
    head_dim=8,
    layer_types=["chunked_attention", "full_attention"],
    no_rope_layers=[1, 0],
    moe_layers=[1],
    attn_temperature_tuning=True,
)


BY_LENGTH = {
    "phi3": family("Phi3ForCausalLM", gpt, LONG),
    "phimoe": family(
        "PhimoeForCausalLM",
        gpt,
        dict(
            LONG,
            num_local_experts=2,
            rope_parameters=LONG["rope_parameters"] | dict(short_mscale=1.0, long_mscale=1.3),
        ),
    ),
    "dynamic": family("LlamaForCausalLM", gpt, DYNAMIC),
    "llama4": family("Llama4ForCausalLM", gpt, CHUNKS, "Llama4TextConfig"),
}


BY_ATTENTION = {
    "mistral": family("MistralForCausalLM", tiny.prepended, dict(tiny.LLAMA, sliding_window=8)),
    "gemma3": family(
        "Gemma3ForCausalLM",
        gpt,
        dict(SLIDING, layer_types=["sliding_attention", "full_attention"]),
        "Gemma3TextConfig",
    ),
    "gpt-oss": family(
        "GptOssForCausalLM",
        gpt,
        dict(tiny.LLAMA, sliding_window=8, num_local_experts=2, num_experts_per_tok=1),
    ),
    "phi": family("PhiForCausalLM", gpt, dict(tiny.SHAPE, **ENDS)),
    "starcoder2": family("Starcoder2ForCausalLM", gpt, dict(GROUPED, sliding_window=8)),
    "olmo2": family("Olmo2ForCausalLM", gpt, GROUPED),
    "opt-350m": family(
        "OPTForCausalLM", gpt, dict(tiny.FAMILIES["opt"][3], do_layer_norm_before=False)
    ),
    "mt5": family("MT5ForConditionalGeneration", tiny.unigram, T5),
    "umt5": family("UMT5ForConditionalGeneration", tiny.unigram, T5),
    "t5-v1.1": family(
        "T5ForConditionalGeneration",
        tiny.unigram,
        dict(T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    ),
    "mbart": family("MBartForConditionalGeneration", roberta, BART),
    "t5gemma": family(
        "T5GemmaForConditionalGeneration",
        tiny.unigram,
        dict(
            encoder=dict(SLIDING, vocab_size=len(tiny.unigram())),
            decoder=dict(SLIDING, vocab_size=len(tiny.unigram())),
            decoder_start_token_id=0,
        ),
    ),
    "eager gpt2": family(
        "GPT2LMHeadModel", gpt, dict(SMALL, attn_implementation="eager"), "GPT2Config"
    ),
    "eager bert": family(
        "BertForMaskedLM", tiny.wordpiece, dict(tiny.SHAPE, attn_implementation="eager")
    ),
    "eager t5": family(
        "T5ForConditionalGeneration", tiny.unigram, dict(T5, attn_implementation="eager")
    ),
}


BY_LAYER_INPUTS = {
    "bloom": family("BloomForCausalLM", gpt, dict(hidden_size=32, n_layer=2, n_head=4, **ENDS)),
    "falcon": family("FalconForCausalLM", gpt, dict(tiny.SHAPE, bos_token_id=0, eos_token_id=0)),
    "gptj": family("GPTJForCausalLM", gpt, dict(SMALL, rotary_dim=4)),
    "deepseek": family("DeepseekV3ForCausalLM", gpt, LATENT),
    "mpnet": family("MPNetForMaskedLM", roberta, tiny.SHAPE),
}


STATES = {
    "mamba": family("MambaForCausalLM", gpt, MAMBA),
    "qwen3-next": family(
        "Qwen3NextForCausalLM",
        gpt,
        dict(
            LINEAR,
            num_experts=2,
            num_experts_per_tok=1,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
        ),
    ),
    "recurrentgemma": family(
        "RecurrentGemmaForCausalLM",
        gpt,
        dict(
            tiny.SHAPE,
            num_hidden_layers=3,
            num_key_value_heads=1,
            lru_width=32,
            attention_window_size=8,
            **ENDS,
        ),
    ),
    "lfm2": family(
        "Lfm2ForCausalLM",
        gpt,
        dict(GROUPED, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
    ),
    "bamba": family(
        "BambaForCausalLM",
        gpt,
        dict(
            GROUPED,
            attn_layer_indices=[1],
            mamba_n_heads=4,
            mamba_d_head=16,
            mamba_d_state=8,
            mamba_n_groups=1,
            mamba_chunk_size=8,
        ),
    ),
    "rwkv": family(
        "RwkvForCausalLM",
        gpt,
        dict(
            hidden_size=32,
            num_hidden_layers=2,
            attention_hidden_size=32,
            bos_token_id=0,
            eos_token_id=0,
        ),
    ),
}


OTHERS = {
    "longt5": family("LongT5ForConditionalGeneration", tiny.unigram, dict(T5, local_radius=4)),
    "led": family(
        "LEDForConditionalGeneration",
        roberta,
        dict(
            BART,
            max_encoder_position_embeddings=80,
            max_decoder_position_embeddings=80,
            attention_window=16,
        ),
    ),
    "squeezebert": family(
        "SqueezeBertForMaskedLM", tiny.wordpiece, dict(tiny.SHAPE, embedding_size=32)
    ),
    "gpt-neo": family(
        "GPTNeoForCausalLM",
        gpt,
        dict(
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            window_size=16,
            intermediate_size=48,
            max_position_embeddings=80,
            bos_token_id=0,
            eos_token_id=0,
        ),
    ),
}


if (
    "cache" in inspect.signature(transformers.GPTJForCausalLM.forward).parameters
):  # transformers 5.24 and later
    BY_ATTENTION["gptj"] = BY_LAYER_INPUTS.pop("gptj")


MORE = BY_ATTENTION | BY_LAYER_INPUTS


ENCODER_DECODER = ("mt5", "umt5", "t5-v1.1", "mbart", "t5gemma", "eager t5")


class Families(dict):
    """The families of tiny.py and those above."""

    def __missing__(self, name):
        return (MORE | BY_LENGTH | STATES | OTHERS)[name]()


@pytest.fixture(autouse=True)
def more_families(monkeypatch):
    monkeypatch.setattr(tiny, "FAMILIES", Families(tiny.FAMILIES))


class Losing(torch.nn.Linear):
    """A layer that gives no gradient back, as bitsandbytes' nf4 in evaluation on a CPU."""

    def forward(self, hidden):
        return super().forward(hidden.detach())
