"""LMs that tests make again and again are tried once: what the first of equal networks can do, the
others can too."""

import functools
import zlib
from collections.abc import Callable, Hashable
from typing import Any

import pytest
import torch

from ptune.lm.language_model import LanguageModel
from ptune.lm.trials import capability_trials
from ptune.lm.trials.trial import Trial
from ptune.lm.writing import whole_texts

OF_TRIALS = ("check_embeddings", "check_padding", "check_order", "can_pad_left", "check_prefix")
OF_LMS = ("try_packing", "try_contexts", "length_limit", "try_gradients")


class TriedLMs:
    """What trials of networks came to, by all that a network computes from.

    Attributes:
        outcomes: what they came to, by the network, the trial and its step.
        network: the network that is being tried; None where it is tried anew.
        is_asked: whether trials are taken from here; otherwise each LM is tried anew.
    """

    def __init__(self) -> None:
        self.outcomes: dict[Hashable, Any] = {}
        self.network: Hashable = None
        self.is_asked = True

    def enter(self, patch: pytest.MonkeyPatch) -> None:
        """Take trials from here where the same network has passed them already."""
        patch.setattr(LanguageModel, "_try", self._with_network(LanguageModel._try))
        for name in OF_TRIALS:
            patch.setattr(Trial, name, self._once(getattr(Trial, name)))
        for name in OF_LMS:
            patch.setattr(capability_trials, name, self._once(getattr(capability_trials, name)))
        patch.setattr(whole_texts, "try_writing", self._once(whole_texts.try_writing))

    def _with_network(self, try_all: Callable[[LanguageModel], None]):
        @functools.wraps(try_all)
        def with_network(lm: LanguageModel) -> None:
            self.network = network_of(lm) if self.is_asked else None
            try:
                try_all(lm)
            finally:
                self.network = None

        return with_network

    def _once(self, step: Callable[..., Any]):
        """A step of a trial that is remembered where it ends without an error."""

        @functools.wraps(step)
        def once(*given: Any) -> Any:
            if self.network is None:
                return step(*given)
            key = (step.__qualname__, self.network, *map(route_of, given))
            if key not in self.outcomes:
                self.outcomes[key] = step(*given)
            return self.outcomes[key]

        return once


def route_of(given: Any) -> str:
    """Which route of prefixes was given to a step, which differs between steps of one trial."""
    return given if isinstance(given, str) else type(given).__name__


def network_of(lm: LanguageModel) -> Hashable:
    """All that an LM on a CPU computes from; None for another one, or where a test has put
    something into it."""
    network, rows = lm.model, lm.trial_rows()
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    if any(not is_plain(weight) for weight in state.values()) or is_changed(network):
        return None
    weights = [(name, str(weight.dtype), sum_of(weight)) for name, weight in state.items()]
    tokenizer = lm.tokens.tokenizer
    return (
        *(type(part) for part in network.modules()),
        *(network.config.to_json_string(), tuple(weights), lm.kind, lm.start),
        *(str(rows), lm.tokens.pad, lm.words, len(tokenizer), str(tokenizer.special_tokens_map)),
    )


def is_plain(weight: torch.Tensor) -> bool:
    return type(weight) in (torch.Tensor, torch.nn.Parameter) and weight.device.type == "cpu"


def is_changed(network: torch.nn.Module) -> bool:
    return any(
        "forward" in vars(part) or part._forward_hooks or part._forward_pre_hooks
        for part in network.modules()
    )


def sum_of(weight: torch.Tensor) -> tuple[tuple[int, ...], int]:
    numbers = weight.detach().contiguous().view(-1)
    return tuple(weight.shape), zlib.crc32(numbers.view(torch.uint8).numpy())
