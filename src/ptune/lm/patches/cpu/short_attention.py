"""The attention of an LM that is learned from on a CPU in bfloat16. There torch's fused attention
takes several times as long backward as forward: on an Intel Xeon (AVX-512) 52 ms for 16 rows of 60
tokens, where plain products of matrices take 6. Of long rows the products leave the cache and are
the slower ones. What both compute is the same up to rounding, and as the CPU and the batch alone
decide, a run that is repeated ends the same.
"""

import contextlib
import functools
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

MOST_PAIRS = 600_000
"""Pairs of tokens in a batch, B * T * T, up to which plain products are faster, forward and
backward together."""


def attention_to_learn(values: torch.Tensor) -> contextlib.AbstractContextManager[None]:
    """A context in which an LM's attention is computed as is the faster with gradients; where
    nothing is to be changed, it changes nothing.

    Args:
        values: the input of the LM, or of a layer [B, T, E].
    """
    products = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else values.dtype
    if (
        torch.is_grad_enabled()
        and values.device.type == "cpu"
        and values.is_floating_point()
        and products == torch.bfloat16
        and values.shape[0] * values.shape[1] ** 2 <= MOST_PAIRS
        and pays()
    ):
        return sdpa_kernel(SDPBackend.MATH)
    return contextlib.nullcontext()


@functools.cache
def pays() -> bool:
    """Whether plain products are faster here: seen on CPUs that multiply bfloat16 themselves."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16"))
