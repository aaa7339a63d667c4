"""Write an LM that can do one thing before it is trained: go on as the text did before.

    python scripts/make_copying_lm.py LM TEXT.txt...

It has the two heads that small LMs find late in a training, and that a table needs whose values are
to be said again: one that tells each token which one stands before it, and one that looks for where
this token stood before and says what came then. Everything else begins at random. Its vocabulary
is that of the texts.
"""

import math
import pathlib
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ptune.pretraining.vocabulary import new_tokenizer

WIDTH, LAYERS, HEADS = 192, 4, 3
PIECES, LENGTH = 4096, 128
SIZE = WIDTH // HEADS
CONTENT = 128  # dimensions in which a token is told; behind them the one before it, and a constant
SCALE, CONSTANT = 0.05, 4.0
NEAR = range(6)  # pairs of a head's dimensions that turn fast, and tell positions apart
FAR = range(20, SIZE // 2)  # pairs that hardly turn within a row, and compare tokens


def main(out: pathlib.Path, *texts: pathlib.Path) -> None:
    torch.manual_seed(0)
    tokenizer = new_tokenizer(texts, "causal", PIECES, LENGTH)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            intermediate_size=8 * WIDTH // 3 // 8 * 8,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    with torch.no_grad():
        tokens = torch.zeros(len(tokenizer), WIDTH)
        tokens[:, :CONTENT] = torch.randn(len(tokenizer), CONTENT)
        tokens[:, -1] = CONSTANT
        model.model.embed_tokens.weight.copy_(SCALE * tokens)
        shorter = torch.randn(SIZE - 1, CONTENT) / math.sqrt(CONTENT)
        tell_the_token_before(model.model.layers[0].self_attn, shorter)
        say_what_came_then(model.model.layers[1].self_attn, shorter)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def tell_the_token_before(attention: torch.nn.Module, shorter: torch.Tensor) -> None:
    """Let head 0 read the token before, and write it behind the content."""
    strength = math.sqrt(45) / (CONSTANT * 1.15)
    for part in (attention.q_proj, attention.k_proj):
        part.weight[:SIZE] = 0
    for pair in NEAR:
        angle = 10000 ** (-2 * pair / SIZE)
        attention.q_proj.weight[pair, -1] = strength
        attention.k_proj.weight[pair, -1] = strength * math.cos(angle)
        attention.k_proj.weight[pair + SIZE // 2, -1] = strength * math.sin(angle)
    attention.v_proj.weight[:SIZE] = 0
    attention.v_proj.weight[: SIZE - 1, :CONTENT] = shorter
    attention.o_proj.weight[:, :SIZE] = 0
    attention.o_proj.weight[CONTENT:-1, : SIZE - 1] = SCALE * torch.eye(SIZE - 1)


def say_what_came_then(attention: torch.nn.Module, shorter: torch.Tensor) -> None:
    """Let heads 0 and 1 look for places behind this token, each for half of the content there."""
    rows = [*FAR, *(pair + SIZE // 2 for pair in FAR)]
    compare = math.sqrt(5) * torch.randn(len(rows), SIZE - 1) / math.sqrt(SIZE - 1)
    for head in (0, 1):
        of_head = slice(head * SIZE, (head + 1) * SIZE)
        places = [head * SIZE + row for row in rows]
        for part in (attention.q_proj, attention.k_proj, attention.v_proj):
            part.weight[of_head] = 0
        attention.q_proj.weight[places, :CONTENT] = compare @ shorter
        attention.k_proj.weight[places, CONTENT:-1] = compare
        attention.v_proj.weight[of_head, of_head] = torch.eye(SIZE)
        attention.o_proj.weight[:, of_head] = 0
        attention.o_proj.weight[of_head, of_head] = 3 * SCALE * torch.eye(SIZE)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*map(pathlib.Path, sys.argv[1:]))
