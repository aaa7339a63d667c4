"""One call of a frozen LM on a batch: soft tokens take their slots, positions are counted from the
first real or learned token, and the LM is read at the answer positions only."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from ptune.errors import ModelError
from ptune.lm.batch import Batch
from ptune.lm.patches import answer_positions
from ptune.lm.patches.cpu.short_attention import attention_to_learn
from ptune.lm.patches.decoder_input import replaced
from ptune.lm.patches.packing import packed
from ptune.lm.pooling import MeanPooling


class LMOutput(NamedTuple):
    """What an LM computes at the A answer positions of a batch.

    Attributes:
        hidden: the last hidden states, as the vocabulary head gets them [A, H].
        features: what the head compares with the vectors of the vocabulary, at the S positions
            where it runs (``Batch.scored``) [S, F]; None for an LM without such vectors.
        scores: scores of the vocabulary there [S, V], float32; of an encoder without a head [S, 0].
    """

    hidden: torch.Tensor
    features: torch.Tensor | None
    scores: torch.Tensor


def fill(
    embeddings: torch.Tensor, vectors: torch.Tensor, prompts: torch.Tensor, soft_slots: torch.Tensor
) -> torch.Tensor:
    """Put each row's prompt vectors at its slots. This is where soft tokens enter the input, and
    where the rows of many prompts meet in one batch.

    Args:
        embeddings: [B, T, E], of the real tokens.
        vectors: the bank [N, P, E].
        prompts: the prompt of each row [B].
        soft_slots: [B, T], -1 at real tokens.

    Returns:
        [B, T, E], in the number format of ``embeddings``.
    """
    numbers = prompts.clamp(min=0)[:, None] * vectors.shape[1] + soft_slots.clamp(min=0)
    # an embedding lookup, because its backward pass is faster than that of indexing
    chosen = nn.functional.embedding(numbers, vectors.flatten(0, 1)).to(embeddings.dtype)
    return torch.where((soft_slots >= 0)[..., None], chosen, embeddings)


@contextlib.contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """While this is open, the model's dropout is off."""
    if not any(part.training for part in model.modules()):
        yield
        return
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


class ForwardPass:
    """How one LM is called.

    Attributes:
        model: the transformers model.
        parameters: the parameters of its ``forward`` method.
        embeddings: the module that turns the input's token ids into vectors.
        mixed: the number format of the matrix multiplications, where it is not that of the weights.
        offset: the position id of the first token (RoBERTa's is 2); None for an LM that takes no
            position ids.
        has_head: whether the model scores a vocabulary.
        gathers: the part of the model that hands over the hidden states at the answer positions
            alone, as a list of one; empty where no part does.
    """

    def __init__(self, model: PreTrainedModel):
        self.model = model
        self.parameters = inspect.signature(model.forward).parameters
        self.embeddings = _input_embeddings(model)
        self.has_head = answer_positions.has_head(model)
        self.mixed: torch.dtype | None = None
        self.offset: int | None = None
        self.gathers: list[nn.Module] = []

    @property
    def device(self) -> torch.device:
        """Where the input embeddings are, and so where inputs have to be."""
        if hasattr(self.embeddings, "weight"):
            return self.embeddings.weight.device
        return next(self.model.parameters()).device

    @property
    def vocabulary_size(self) -> int:
        """The number of token embeddings."""
        size = getattr(self.embeddings, "num_embeddings", None)
        return int(size or self.model.config.vocab_size)

    @property
    def cache_name(self) -> str:
        """The name of the parameter for cached keys and values: ``cache`` from transformers 5.24
        on; empty for an LM without one."""
        names = ("cache", "past_key_values")
        return next((name for name in names if name in self.parameters), "")

    def count_from(self, offset: int) -> None:
        """Set the position id of the first token."""
        self.offset = offset

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """The embeddings of token ids, including any scaling by the LM: [..., E]."""
        return self.embeddings(ids.to(self.device))

    def embed_batch(self, batch: Batch, vectors: torch.Tensor | None) -> torch.Tensor:
        """The input vectors of a batch [B, T, E], with soft tokens at their slots.

        Args:
            vectors: the soft tokens of the bank's prompts [N, P, E], or None to leave the slots
                unfilled.
        """
        embeddings = self.embed(batch.ids)
        if vectors is None:
            return embeddings
        return fill(embeddings, vectors.to(self.device), batch.prompts, batch.soft_slots)

    def mean_texts(self, batch: Batch) -> torch.Tensor:
        """The mean of the embeddings of each row's text [B, E], which gates read; zeros where there
        is none."""
        tokens = batch.ids[:, :0] if batch.field_tokens is None else batch.field_tokens
        is_token = (tokens >= 0)[..., None]
        embeddings = self.embed(tokens.clamp(min=0)) * is_token
        exact = torch.promote_types(embeddings.dtype, torch.float32)
        return embeddings.sum(1, dtype=exact) / is_token.sum(1).clamp(min=1)

    @contextlib.contextmanager
    def filled_decoder(self, batch: Batch, vectors: torch.Tensor | None) -> Iterator[None]:
        """While this is open, a decoder reads the batch's soft tokens at their slots; for beams, it
        reads each row several times.

        Raises:
            ModelError: it reads rows of another number or length.
        """
        slots = batch.decoder_slots
        if slots is None or vectors is None:
            yield
            return

        def filled(embedded: torch.Tensor) -> torch.Tensor:
            copies, rest = divmod(len(embedded), len(slots))
            if rest or embedded.shape[1] != slots.shape[1]:
                raise ModelError(
                    f"Soft tokens for a decoder's input of {list(slots.shape)} do not fit one of "
                    f"{list(embedded.shape[:2])}."
                )
            prompts, places = (
                part.repeat_interleave(copies, 0).to(embedded.device)
                for part in (batch.prompts, slots)
            )
            return fill(embedded, vectors.to(embedded.device), prompts, places)

        with replaced(self.model.get_decoder().get_input_embeddings(), filled):
            yield

    def positions(self, batch: Batch) -> torch.Tensor:
        """Position ids [B, T]: padding is not counted, prefix vectors are."""
        positions = (batch.attention.cumsum(-1) - 1).clamp(min=0) + self.offset
        return positions if batch.ahead is None else positions + batch.ahead

    def run(
        self,
        batch: Batch,
        vectors: torch.Tensor | None = None,
        ids: bool = False,
        **options: Any,
    ) -> Any:
        """Call the LM once.

        Args:
            vectors: the soft tokens of the bank's prompts [N, P, E].
            ids: call it on the token ids instead of embeddings; slots are not filled then.
            options: further arguments of the model's ``forward``.

        Returns:
            The output of the transformers model.
        """
        inputs, context = self._inputs(batch, vectors, ids), batch.context
        if batch.packing is not None:
            inputs = {name: batch.packing.pack(values) for name, values in inputs.items()}
        if context is not None:
            inputs |= {
                "attention_mask": torch.cat([context.seen, batch.attention], 1),
                self.cache_name: context.cache(),
                "position_ids": inputs["position_ids"] + context.lengths[:, None],
            }
        if "use_cache" in self.parameters:
            options = {"use_cache": context is not None} | options
        embedded = inputs.get("inputs_embeds", batch.ids)
        with self._autocast(), attention_to_learn(embedded):
            if batch.decoder is not None:
                return self._run_encoder_decoder(batch, inputs, options, vectors)
            with packed(batch.packing):
                return self.model(**inputs, **options)

    def read(self, batch: Batch, vectors: torch.Tensor | None) -> LMOutput:
        """Call the LM once and read it at the batch's answer positions; arguments as in ``run``."""
        positions = batch.rows, batch.columns
        pooling = MeanPooling.of(batch)
        if batch.packing is not None and batch.decoder is None:
            positions = batch.rows * 0, batch.packing.numbers(*positions)
        keeps_all = batch.layers is not None or not self.gathers
        options = {"output_hidden_states": True} if keeps_all else {}
        with answer_positions.reading(
            *positions, pooling=pooling, layers=batch.layers, scored=batch.scored
        ) as reading:
            output = self.run(batch, vectors, **options)
        features = reading.features
        if self.gathers:
            assert reading.hidden is not None
            return LMOutput(
                reading.hidden if reading.of_layers is None else reading.of_layers,
                None if features is None else features[0],
                self._scores(output)[0].float(),
            )
        states = output.get("decoder_hidden_states", output.get("hidden_states"))
        reading.hidden = answer_positions.read_hidden(states[-1], *positions, pooling)
        scored = slice(None) if batch.scored is None else batch.scored
        places = positions[0][scored], positions[1][scored]
        return LMOutput(
            reading.hidden
            if batch.layers is None
            else answer_positions.read_layers(states, reading),
            None if features is None else features[places],
            self._scores(output)[places].float(),
        )

    def token_values(self, output: Any) -> torch.Tensor:
        """What the model computes for every token: scores of the vocabulary [B, T, V], or without a
        head the last hidden states [B, T, H]."""
        return output.logits if self.has_head else output.last_hidden_state

    def _scores(self, output: Any) -> torch.Tensor:
        """The scores of the vocabulary [..., V], where V is 0 without a head."""
        if self.has_head:
            return output.logits
        return output.last_hidden_state[..., :0]

    @torch.no_grad()
    def keys_and_values(self, batch: Batch) -> torch.Tensor:
        """What a causal LM computes for a batch of one row: keys and values [L, 2, Hkv, S, D]."""
        batch, cache = batch.to(self.device), DynamicCache()
        with evaluating(self.model), answer_positions.reading(batch.rows, batch.columns):
            self.run(batch, use_cache=True, **{self.cache_name: cache})
        return torch.stack([torch.cat([layer.keys, layer.values]) for layer in cache.layers])

    def _inputs(
        self, batch: Batch, vectors: torch.Tensor | None, ids: bool
    ) -> dict[str, torch.Tensor]:
        """The arguments of the model's ``forward`` for a batch, each [B, T] or [B, T, E]."""
        inputs = {"attention_mask": batch.attention}
        if ids:
            inputs["input_ids"] = batch.ids
        else:
            inputs["inputs_embeds"] = self.embed_batch(batch, vectors)
        if batch.types is not None and "token_type_ids" in self.parameters:
            inputs["token_type_ids"] = batch.types
        if self.offset is not None:
            inputs["position_ids"] = self.positions(batch)
        return inputs

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.mixed is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.mixed)

    def _run_encoder_decoder(
        self,
        batch: Batch,
        inputs: dict[str, Any],
        options: dict[str, Any],
        vectors: torch.Tensor | None,
    ) -> Any:
        """Call an encoder-decoder; packed rows run in the encoder alone, and are unpacked after."""
        if batch.packing is not None:
            with packed(batch.packing):
                encoded = self.model.get_encoder()(**inputs).last_hidden_state
            inputs = {
                "encoder_outputs": BaseModelOutput(batch.packing.unpack(encoded)),
                "attention_mask": batch.attention,
            }
        with self.filled_decoder(batch, vectors):
            return self.model(
                **inputs,
                decoder_input_ids=batch.decoder,
                decoder_attention_mask=batch.decoder_attention,
                **options,
            )


def _input_embeddings(model: PreTrainedModel) -> nn.Module:
    """The module that turns the input's token ids into vectors; for an encoder-decoder, the
    encoder's."""
    two_parts = getattr(model.config, "is_encoder_decoder", False)
    return (model.get_encoder() if two_parts else model).get_input_embeddings()
