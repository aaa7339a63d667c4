"""The linear layers of an LM on a CPU. torch multiplies float32 matrices by the library that it was
built with (MKL, mostly) and those of shorter formats by oneDNN. On AMD's CPUs with AVX-512 oneDNN
is twice as fast in float32 too: there large layers go that way, forward and backward. What they
compute is the same up to rounding, so the CPU alone decides: where both were timed, a busy machine
chose now one and now the other, and a run that was repeated or resumed ended otherwise.
"""

import functools
import os
import pathlib
import platform
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

LARGE = 2**16  # the weights of a layer from which it is worth it
CPU_INFO = pathlib.Path("/proc/cpuinfo")
AMD = "AuthenticAMD"


def use_onednn(model: PreTrainedModel) -> None:
    """Let the large linear layers of an LM multiply by the faster library; those that somebody has
    changed already are left alone."""
    keep_few_shapes()
    for module in model.modules():
        if (
            type(module) in (nn.Linear, Conv1D)
            and "forward" not in vars(module)
            and module.weight.numel() >= LARGE
            and _fits(module.weight)
            and pays()
        ):
            module.forward = functools.partial(_forward, module, module.forward)


def keep_few_shapes() -> None:
    """Batches differ in shape, and what oneDNN and torch keep for every shape would fill gigabytes.
    Without effect after the first product."""
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, "16")


@functools.cache
def pays() -> bool:
    """Whether oneDNN is the faster one here."""
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.mkl.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and _is_amd()
    )


def _is_amd() -> bool:
    """Whether the CPU is one of AMD's."""
    return AMD in (CPU_INFO.read_text() if CPU_INFO.exists() else platform.processor())


def multiply(
    rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Rows [..., I] times weight [O, I] transposed, by oneDNN: [..., O]."""
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")


class Product(torch.autograd.Function):
    """The same with gradients."""

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """Rows [..., I] times weight [O, I] transposed, plus the bias [O]: [..., O]."""
        ctx.save_for_backward(rows if weight.requires_grad else None, weight)
        return multiply(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of the rows, the weight and the bias; None of those that need none."""
        rows, weight = ctx.saved_tensors
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        flat = gradient.flatten(0, -2)
        return (
            multiply(gradient, weight.T) if of_rows else None,
            multiply(flat.T, rows.flatten(0, -2).T) if of_weight else None,
            flat.sum(0) if of_bias else None,
        )


def _forward(
    module: nn.Module, stock: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor
) -> torch.Tensor:
    if not (
        _fits(rows) and _fits(module.weight) and rows.dim() > 1 and rows.numel()
    ) or torch.is_autocast_enabled("cpu"):
        return stock(rows)
    return Product.apply(
        rows, module.weight if isinstance(module, nn.Linear) else module.weight.T, module.bias
    )


def _fits(values: torch.Tensor) -> bool:
    return values.device.type == "cpu" and values.dtype == torch.float32
