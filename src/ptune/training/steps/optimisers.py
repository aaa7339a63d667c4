"""Optimisers, and how their learning rates go from step to step."""

from typing import Any

import torch
from torch import nn
from transformers.optimization import Adafactor

from ptune.settings import TrainConfig

EXPONENTIAL = 0.98


def group(name: str, parameters: list[nn.Parameter], config: TrainConfig) -> dict[str, Any]:
    """Parameters with the name of their learning rate and its peak."""
    return {"params": parameters, "rate_name": name, "peak": getattr(config, name)}


def optimiser_of(groups: list[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser that the settings name, for groups of parameters (``group``)."""
    if config.optimiser == "adafactor":  # as Prompt Tuning's: no scaling by the parameters' size
        return Adafactor(
            groups,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            scale_parameter=False,
            relative_step=False,
        )
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimiser]
    return kind(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)


def take_step(optimiser: torch.optim.Optimizer, share: float) -> None:
    """Take one step at a share of the peak learning rates, and forget the gradients."""
    for one in optimiser.param_groups:
        one["lr"] = one["peak"] * share
    optimiser.step()
    optimiser.zero_grad()


def rate_share(step: int, steps: int, steps_an_epoch: int, config: TrainConfig) -> float:
    """The learning rate of a step as a fraction of its peak."""
    rising = round(steps * config.warmup)
    if step < rising:
        return (step + 1) / rising
    if config.decay == "linear":
        return max(0.0, (steps - step) / max(1, steps - rising))
    return EXPONENTIAL ** (step // steps_an_epoch) if config.decay == "exponential" else 1.0
