"""The other way in for a prefix, for LMs whose attention cannot be reached: it stands in the text
as slots, and each layer's input there is replaced by trained vectors, the h_i of Prefix-Tuning's
equation 3. Another parameterisation than keys and values, so prefixes of one do not fit the other.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from ptune.errors import ModelError
from ptune.lm.batch import Batch
from ptune.prompts.bank import PrefixBatch


@dataclass
class _Replacing:
    """The prefixes of the rows of the call that runs now.

    Attributes:
        route: the LM's, since several networks may run in one call.
        places: the number of the prefix vector at each position [B, T], -1 elsewhere.
        values: the prefix vectors there [B, T, W].
        reached: the numbers of the layers that have taken them.
    """

    route: "LayerRoute"
    places: torch.Tensor
    values: torch.Tensor
    reached: set[int] = field(default_factory=set)


_replacing: ContextVar[_Replacing | None] = ContextVar("replacing", default=None)
_recording: ContextVar[list[torch.Tensor] | None] = ContextVar("recording", default=None)
_hooked: "weakref.WeakSet[nn.Module]" = (
    weakref.WeakSet()
)  # layers, once each, however many LMs are made of one network


class LayerRoute:
    """Prefixes as the inputs of every layer at slots in the text.

    Attributes:
        layers: the LM's layers.
        width: W, layers x hidden size.
        parts: the columns of W (start, end) of each layer.
        spans: all columns, as one group.

    Raises:
        ModelError: the LM's layers cannot be found, or are not all run in order.
    """

    name: Literal["layer inputs"] = "layer inputs"
    in_text = True

    def __init__(self, model: PreTrainedModel, run: Callable[[], Any]):
        if getattr(model.config, "is_encoder_decoder", False):
            raise ModelError(
                f"{type(model).__name__} has an encoder and a decoder, and a prefix needs both "
                "their attentions"
            )
        count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
        stacks = [
            part
            for part in model.modules()
            if isinstance(part, nn.ModuleList) and len(part) == count
        ]
        if not stacks:
            raise ModelError(f"{type(model).__name__} keeps its layers in no list of {count}")
        self.layers, self.model = list(stacks[0]), model
        inputs = self._inputs(run)
        if len(inputs) != count:
            raise ModelError(f"{type(model).__name__} does not run its {count} layers once each")
        self.size = inputs[0].shape[-1]
        self.width = len(self.layers) * self.size
        self.parts = [(start, start + self.size) for start in range(0, self.width, self.size)]
        self.spans = {"self": (0, self.width)}
        self.numbers = {layer: number for number, layer in enumerate(self.layers)}
        for layer in self.layers:
            if layer not in _hooked:
                _hooked.add(layer)
                layer.register_forward_pre_hook(_replace, with_kwargs=True)

    @contextlib.contextmanager
    def entering(
        self,
        batch: Batch,
        prefixes: PrefixBatch,
        copies: int = 1,
        groups: Sequence[str] = ("self",),
    ) -> Iterator[None]:
        """While this is open, the rows of the batch (each ``copies`` times, for beams) have their
        prefixes.

        Raises:
            ModelError: a layer was not reached, or rows of another number or length came.
        """
        if batch.deep is None:
            if batch.starts is not None:
                raise ModelError(f"The prefixes of this batch are not spelt out as {self.name}.")
            yield  # none of these rows has a prefix
            return
        deep, rows = (
            part.repeat_interleave(copies, 0) for part in (batch.deep, batch.prompts.clamp(min=0))
        )
        count = prefixes.values.shape[1]
        places = (deep.clamp(min=0) + (count - prefixes.lengths[rows])[:, None]).clamp(
            max=count - 1
        )
        now = _Replacing(self, deep, prefixes.values[rows[:, None], places])
        token = _replacing.set(now)
        try:
            yield
        finally:
            _replacing.reset(token)
        missed = len(self.layers) - len(now.reached)
        if missed and not self.model.training:  # layer dropout skips whole layers
            raise ModelError(
                f"A prefix did not reach {missed} of the {len(self.layers)} layers of "
                f"{type(self.model).__name__}."
            )

    def activations(self, run: Callable[[], Any]) -> torch.Tensor:
        """The LM's own layer inputs in a call on one row of P tokens: [P, W]."""
        return torch.cat([hidden[0] for hidden in self._inputs(run)], -1)

    def _inputs(self, run: Callable[[], Any]) -> list[torch.Tensor]:
        """The input of every layer in a call, each [B, T, H]."""
        inputs: list[torch.Tensor] = []

        def note(module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
            if _recording.get() is inputs:  # and not a call of another thread
                inputs.append(arguments[0] if arguments else options["hidden_states"])

        handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in self.layers]
        token = _recording.set(inputs)
        try:
            with torch.no_grad():
                run()
        finally:
            _recording.reset(token)
            for handle in handles:
                handle.remove()
        return inputs


def _replace(layer: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """A layer's input with the prefix's own vectors at its slots. This is where a prefix enters.

    A call with a cache, after the first, is behind the slots.

    Raises:
        ModelError: the input is not of the rows and tokens that the prefixes are for.
    """
    now = _replacing.get()
    if now is None or layer not in now.route.numbers:
        return None
    number, size = now.route.numbers[layer], now.route.size
    hidden = arguments[0] if arguments else options["hidden_states"]
    if hidden.shape[0] != len(now.places):
        raise ModelError(
            f"The prefixes of {len(now.places)} rows do not fit {hidden.shape[0]} rows."
        )
    if hidden.shape[1] < now.places.shape[1] and number in now.reached:
        return None
    if hidden.shape[1] != now.places.shape[1]:
        raise ModelError(
            f"The prefixes of rows of {now.places.shape[1]} tokens do not fit "
            f"{hidden.shape[1]} tokens."
        )
    places, values = now.places, now.values[..., number * size : (number + 1) * size]
    hidden = torch.where((places >= 0)[..., None], values.to(hidden.dtype), hidden)
    now.reached.add(number)
    if arguments:
        return (hidden, *arguments[1:]), options
    return arguments, {**options, "hidden_states": hidden}
