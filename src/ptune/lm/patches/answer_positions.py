"""A vocabulary head runs at the answer positions of a batch only: the part before it hands over the
hidden states of those.

The logits of every token of a batch would take more memory and time than the layers of a small LM.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ptune.lm.batch import Batch
from ptune.lm.pooling import MeanPooling
from ptune.lm.trials.trial import close


class Reading:
    """The answer positions of the call that runs now, the hidden states that were read there
    [A, H], those of other layers than the last where they are read, and, where the head runs, what
    it compares with the vectors of the vocabulary [S, F]."""

    def __init__(
        self,
        rows: torch.Tensor,
        columns: torch.Tensor,
        *,
        pooling: MeanPooling | None = None,
        layers: torch.Tensor | None = None,
        scored: torch.Tensor | None = None,
    ):
        self.rows, self.columns, self.pooling, self.layers = rows, columns, pooling, layers
        self.scored = scored
        self.hidden: torch.Tensor | None = None
        self.of_layers: torch.Tensor | None = None
        self.features: torch.Tensor | None = None


# The parts that hand over answer positions, and the vocabularies that note what comes into them:
# once each, however many LMs are made of one network.
_hooked: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()
_reading: ContextVar[Reading | None] = ContextVar("reading", default=None)


@contextlib.contextmanager
def reading(
    rows: torch.Tensor,
    columns: torch.Tensor,
    *,
    pooling: MeanPooling | None = None,
    layers: torch.Tensor | None = None,
    scored: torch.Tensor | None = None,
) -> Iterator[Reading]:
    """While this is open, the head runs at these positions only [A], or at some of them
    (``scored``). Some may be read as the mean of their row, or at another layer than the last."""
    token = _reading.set(
        now := Reading(rows, columns, pooling=pooling, layers=layers, scored=scored)
    )
    try:
        yield now
    finally:
        _reading.reset(token)


@torch.no_grad()
def gather(
    model: PreTrainedModel, decoder: bool, run: Callable[[Batch], torch.Tensor], trial: Batch
) -> list[nn.Module]:
    """Find the part whose output goes into the vocabulary head, and let it hand over the answer
    places; none where no part will do.

    Args:
        decoder: whether the head reads a decoder.
        run: the logits of a batch.
    """
    full = run(trial)
    for body in sorted(_bodies(model, decoder), key=lambda body: body not in _hooked):
        handle = None if body in _hooked else body.register_forward_hook(_gather)
        with reading(trial.rows, trial.columns):
            try:
                logits = run(trial)
            except (RuntimeError, IndexError, ValueError):
                logits = full
        if logits.shape[:2] == (1, len(trial.rows)) and close(
            logits[0], full[trial.rows, trial.columns]
        ):
            _hooked.add(body)
            return [body]
        if handle is not None:
            handle.remove()
    return []


def read_hidden(
    hidden: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
    pooling: MeanPooling | None,
) -> torch.Tensor:
    """The hidden states at the answer positions, or the means of their rows [A, H].

    Args:
        hidden: those of all tokens [B, T, H].
    """
    at_places = hidden[rows, columns]
    return at_places if pooling is None else pooling.read(hidden, at_places)


def read_layers(hidden_states: Sequence[torch.Tensor], now: Reading) -> torch.Tensor:
    """The hidden states at the answer positions, each of the layer that is read there [A, H].

    Args:
        hidden_states: those of all tokens [B, T, H], of the embeddings and then of every layer.
    """
    assert now.layers is not None and now.hidden is not None
    values = now.hidden
    for layer in now.layers.unique().tolist():
        if layer >= 0:
            of_layer = read_hidden(hidden_states[layer], now.rows, now.columns, now.pooling)
            values = torch.where((now.layers == layer)[:, None], of_layer, values)
    return values


def keep_features(vocabulary: nn.Module) -> None:
    """Let the vocabulary's layer note what comes into it."""
    if vocabulary not in _hooked:
        _hooked.add(vocabulary)
        vocabulary.register_forward_pre_hook(_keep_features)


def _bodies(model: PreTrainedModel, decoder: bool) -> list[nn.Module]:
    """Modules whose output may go into the head, likeliest first: the decoder or the base, and the
    parts of the base; an encoder without a head is its own."""
    if not has_head(model):
        return [model]
    likely = [model.get_decoder()] if decoder else [model.base_model]
    inner = [child for child in model.base_model.children() if isinstance(child, PreTrainedModel)]
    return [body for body in dict.fromkeys([*likely, *inner]) if body is not model]


def has_head(model: PreTrainedModel) -> bool:
    """Whether a network scores a vocabulary, and is no encoder without such a head."""
    return model.base_model is not model or model.get_output_embeddings() is not None


def _gather(module: nn.Module, inputs: Any, output: Any) -> Any:
    """Keep the hidden states at the answer positions only: [B, T, H] to [1, S, H] for the head."""
    now = _reading.get()
    if now is None or now.hidden is not None:
        return output
    now.hidden = read_hidden(output[0], now.rows, now.columns, now.pooling)
    if now.layers is not None:
        now.of_layers = read_layers(output.hidden_states, now)
    scored = now.hidden if now.scored is None else now.hidden[now.scored]
    if isinstance(output, tuple):
        return (scored[None], *output[1:])
    output.last_hidden_state = scored[None]
    return output


def _keep_features(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    if (now := _reading.get()) is not None:
        now.features = inputs[0]
