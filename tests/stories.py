"""stories260K, a real trained Llama of 260,032 parameters, out of llama2.c's format, and written as
GGUF."""

import pathlib
import struct

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def read(folder: pathlib.Path):
    """Shape, weights by llama2.c's names, and the tokenizer's (piece, score) list."""
    raw = (folder / "stories260K.bin").read_bytes()
    dim, hidden, layers, heads, kv_heads, vocabulary, length = struct.unpack("7i", raw[:28])
    values, size = np.frombuffer(raw[28:], np.float32), dim // heads
    shapes = {
        "embedding": (vocabulary, dim),
        "norm1": (layers, dim),
        "q": (layers, dim, dim),
        "k": (layers, kv_heads * size, dim),
        "v": (layers, kv_heads * size, dim),
        "o": (layers, dim, dim),
        "norm2": (layers, dim),
        "gate": (layers, hidden, dim),
        "down": (layers, dim, hidden),
        "up": (layers, hidden, dim),
        "norm": (dim,),
    }
    weights, position = {}, 0
    for name, shape in shapes.items():
        count = int(np.prod(shape))
        weights[name] = values[position : position + count].reshape(shape)
        position += count
    raw, position, pieces = (folder / "tok512.bin").read_bytes(), 4, []
    for _ in range(vocabulary):
        score, count = struct.unpack("fi", raw[position : position + 8])
        pieces.append((raw[position + 8 : position + 8 + count].decode(), score))
        position += 8 + count
    return (
        dict(
            dim=dim,
            hidden=hidden,
            layers=layers,
            heads=heads,
            kv_heads=kv_heads,
            vocabulary=vocabulary,
            length=length,
        ),
        weights,
        pieces,
    )


def stories260k(folder: pathlib.Path):
    """The transformers model and a tokenizer. llama2.c turns neighbouring pairs, transformers the
    two halves of a head."""
    shape, weights, pieces = read(folder)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape["vocabulary"],
            hidden_size=shape["dim"],
            intermediate_size=shape["hidden"],
            num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"],
            num_key_value_heads=shape["kv_heads"],
            max_position_embeddings=shape["length"],
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=2,
        )
    )

    def halves(weight, heads):
        size = weight.shape[0] // heads
        return weight.reshape(heads, size // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)

    state = {
        "model.embed_tokens.weight": weights["embedding"],
        "model.norm.weight": weights["norm"],
        "lm_head.weight": weights["embedding"],
    }
    for layer in range(shape["layers"]):
        names = {
            "input_layernorm": "norm1",
            "post_attention_layernorm": "norm2",
            "self_attn.v_proj": "v",
            "self_attn.o_proj": "o",
            "mlp.gate_proj": "gate",
            "mlp.down_proj": "down",
            "mlp.up_proj": "up",
        }
        state |= {
            f"model.layers.{layer}.{theirs}.weight": weights[ours][layer]
            for theirs, ours in names.items()
        }
        state[f"model.layers.{layer}.self_attn.q_proj.weight"] = halves(
            weights["q"][layer], shape["heads"]
        )
        state[f"model.layers.{layer}.self_attn.k_proj.weight"] = halves(
            weights["k"][layer], shape["kv_heads"]
        )
    model.load_state_dict(
        {name: torch.tensor(np.ascontiguousarray(value)) for name, value in state.items()}
    )
    built = Tokenizer(
        models.Unigram(
            [(piece.replace(" ", "\u2581"), score) for piece, score in pieces],
            unk_id=0,
            byte_fallback=True,
        )
    )
    built.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    built.decoder = decoders.Metaspace()
    return model.eval(), PreTrainedTokenizerFast(
        tokenizer_object=built, unk_token="<unk>", bos_token="\n<s>\n", eos_token="\n</s>\n"
    )


def write_gguf(gguf, folder: pathlib.Path, path: pathlib.Path) -> None:
    shape, weights, pieces = read(folder)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(shape["length"])
    writer.add_embedding_length(shape["dim"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["hidden"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape["dim"] // shape["heads"])
    writer.add_vocab_size(shape["vocabulary"])
    writer.add_tokenizer_model("llama")
    writer.add_token_list(
        [piece.strip("\n").replace(" ", "\u2581") or piece for piece, _ in pieces]
    )
    writer.add_token_scores([score for _, score in pieces])
    writer.add_token_types(
        [2 if i == 0 else 3 if i < 3 else 6 if i < 259 else 1 for i in range(len(pieces))]
    )
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_tensor("token_embd.weight", weights["embedding"].copy())
    writer.add_tensor("output_norm.weight", weights["norm"].copy())
    names = {
        "attn_norm": "norm1",
        "attn_q": "q",
        "attn_k": "k",
        "attn_v": "v",
        "attn_output": "o",
        "ffn_norm": "norm2",
        "ffn_gate": "gate",
        "ffn_down": "down",
        "ffn_up": "up",
    }
    for layer in range(shape["layers"]):
        for theirs, ours in names.items():
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", weights[ours][layer].copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
