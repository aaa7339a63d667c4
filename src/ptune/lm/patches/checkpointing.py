"""Gradient checkpointing of an LM's layers, with the prefixes and the packing of the first pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from ptune.lm.patches.cpu.short_attention import attention_to_learn
from ptune.lm.patches.packing import current, packed
from ptune.lm.patches.prefixes.prefix_attention import resume_point


def recompute(layer: nn.Module) -> Callable[[], None]:
    """Let a layer keep its inputs alone: its inner values are computed again in the backward pass,
    with the prefixes of the first time. Works in evaluation mode too, so that no dropout wakes up.

    Returns:
        What undoes it.
    """
    forward = layer.forward

    def run(*arguments: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*arguments, **options)
        resumed, packing = resume_point(), current()

        def run_again(*arguments: Any, **options: Any) -> Any:
            hidden = (*arguments, *options.values())[0]
            with resumed(), packed(packing), attention_to_learn(hidden):
                return forward(*arguments, **options)

        return checkpoint(run_again, *arguments, use_reentrant=False, **options)

    changed = "forward" in vars(layer)
    layer.forward = run
    return lambda: setattr(layer, "forward", forward) if changed else delattr(layer, "forward")


def outermost_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The members of the model's lists of layers that lie in no other list."""
    lists = [
        (name, part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList)
    ]
    names = [name for name, _ in lists]
    layers: list[nn.Module] = []
    for name, part in lists:
        if not any(name.startswith(f"{other}.") for other in names):
            layers += part
    return layers
