"""One step of a training on tensors without values: how much memory each part of it takes."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ptune.experiments.estimate.live_memory import LiveMemory
from ptune.lm.patches.checkpointing import outermost_layers, recompute
from ptune.lm.source.loading import CLASSES
from ptune.model.task import Gates
from ptune.prompts import encoders
from ptune.settings import TrainConfig
from ptune.template.language import Kind

AVERAGES = {"adam": 2, "adamw": 2, "adafactor": 0}
"""How many averages of each gradient an optimiser keeps; adafactor's are as good as none."""


@dataclass(frozen=True)
class StepShape:
    """What a step runs at once.

    Attributes:
        rows: how many rows.
        tokens: of each, soft tokens and prefix vectors among them.
        answers: places of each at which the vocabulary is scored; 0 where none is.
        decoder: tokens of each in a decoder; 0 without one.
    """

    rows: int
    tokens: int
    answers: int
    decoder: int = 0


@dataclass(frozen=True)
class PromptShape:
    """The vectors that are trained: how many there are, how wide, by what they are made, and the
    gates of a prefix."""

    length: int
    encoder: str = "table"
    deep: int = 0
    hidden: int = 0
    gates: Gates = False


@dataclass(frozen=True)
class Memory:
    """Bytes by part. Of what is trained there are its gradient, the optimiser's two averages, and a
    copy of its best state."""

    weights: int
    activations: int
    prompt: int
    tuned_lm: int
    optimiser: int

    @property
    def taken_each_step(self) -> int:
        """What a step takes and frees: activations, and the gradients of the LM."""
        return self.activations + self.tuned_lm // 2

    @property
    def total(self) -> int:
        """All parts together."""
        return self.weights + self.activations + self.prompt + self.tuned_lm + self.optimiser


def memory_of_step(
    config: Any,
    kind: Kind,
    dtype: torch.dtype,
    *,
    shape: StepShape,
    prompt: PromptShape,
    tunes_lm: bool,
    settings: TrainConfig,
) -> Memory:
    """Take one step of the LM that a config of transformers describes, without any value of it.

    Args:
        dtype: of the LM's weights.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), LiveMemory() as live:
        model = _model(config, kind, dtype).train(tunes_lm).requires_grad_(tunes_lm)
        weights = live.now
        if settings.recompute:
            for layer in outermost_layers(model):
                recompute(layer)
        width = model.get_input_embeddings().weight.shape[1]
        parts = nn.ModuleList(_encoders(model, prompt, width))
        live.peak = live.now
        _backward(model, _inputs(model, parts, prompt, shape), shape)
        held = _bytes(parts.parameters())
        gradients = held + (_bytes(model.parameters()) if tunes_lm else 0)
        return Memory(
            weights=weights,
            activations=live.peak - weights - held - gradients,
            prompt=3 * held,
            tuned_lm=2 * (gradients - held),
            optimiser=AVERAGES[settings.optimiser] * gradients,
        )


def _model(config: Any, kind: Kind, dtype: torch.dtype) -> Any:
    try:
        return CLASSES[kind].from_config(config, attn_implementation="sdpa", dtype=dtype)
    except ValueError:
        return CLASSES[kind].from_config(config, attn_implementation="eager", dtype=dtype)


def _encoders(model: Any, prompt: PromptShape, width: int) -> list[nn.Module]:
    """What makes the soft tokens, what makes the deep prefix, and what its gates are; nothing where
    there is none."""
    soft: nn.Module = nn.Identity()
    deep: nn.Module = nn.Identity()
    gates: nn.Module = nn.Identity()
    if prompt.length:
        soft = encoders.make(prompt.encoder, prompt.length, width)
    if prompt.deep:
        text = model.config.get_text_config()
        values = 2 * int(text.num_hidden_layers) * int(text.hidden_size)
        deep = encoders.make_deep(prompt.deep, values, width, prompt.hidden)
        if prompt.gates == "row":
            gates = nn.Linear(width, int(text.num_hidden_layers))
        elif prompt.gates:
            gates = nn.ParameterList([torch.zeros(int(text.num_hidden_layers))])
    return [soft, deep, gates]


def _inputs(
    model: Any, parts: nn.ModuleList, prompt: PromptShape, shape: StepShape
) -> torch.Tensor:
    """The input vectors [B, T, E]: soft tokens before the others. A deep prefix stands as so many
    tokens, and its gradient is theirs; where its gates read each row, every row has its own until
    the layers have run."""
    ids = torch.zeros(shape.rows, max(0, shape.tokens - prompt.length), dtype=torch.long)
    vectors = model.get_input_embeddings()(ids)
    soft, deep, gates = parts
    if prompt.length:
        vectors = torch.cat([soft().to(vectors.dtype).expand(shape.rows, -1, -1), vectors], 1)
    if not prompt.deep:
        return vectors
    values = deep()
    if prompt.gates == "row":
        factors = 2 * torch.sigmoid(gates(vectors.mean(1).float()))
        factors = factors.repeat_interleave(values.shape[1] // factors.shape[1], 1)
        values = values.repeat(shape.rows, 1, 1) * factors[:, None]
        values = values.square()  # its gradient needs each row's values, which so are kept
    elif prompt.gates:
        values = values * gates[0].mean()
    return vectors + values.mean().to(vectors.dtype)


def _backward(model: Any, inputs: torch.Tensor, shape: StepShape) -> None:
    """The forward and the backward pass of a step."""
    options: dict[str, Any] = {}
    if shape.decoder:
        options["decoder_input_ids"] = torch.zeros(shape.rows, shape.decoder, dtype=torch.long)
    if "use_cache" in inspect.signature(model.base_model.forward).parameters:
        options["use_cache"] = False
    attention = torch.ones(inputs.shape[:2], dtype=torch.long)
    output = model.base_model(inputs_embeds=inputs, attention_mask=attention, **options)
    if model.base_model is model:  # T5 has no part without the head
        scores = output.logits
    elif not shape.answers:
        scores = output.last_hidden_state
    else:
        scores = model.get_output_embeddings()(output.last_hidden_state[:, -shape.answers :])
    scores.float().logsumexp(-1).sum().backward()


def _bytes(parameters: Any) -> int:
    return sum(parameter.nbytes for parameter in {id(one): one for one in parameters}.values())
