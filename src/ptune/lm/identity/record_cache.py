"""The record of an LM (``fingerprint``), kept until one of its weights changes."""

import weakref
from operator import is_not
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from ptune.lm.identity.fingerprint import LMRecord, named_weights, record


class _Kept(NamedTuple):
    """A record, and the state of the weights and the vocabulary from which it was computed."""

    record: LMRecord
    state: list[int]
    references: list[weakref.ref[torch.Tensor]]

    def weights(self) -> list[torch.Tensor | None]:
        return [reference() for reference in self.references]


class RecordCache:
    """The record of one LM, computed anew when a weight or the vocabulary has changed."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any):
        self.model, self.tokenizer = model, tokenizer
        self._kept: _Kept | None = None
        self._held, self._is_final = False, False

    def clear(self) -> None:
        """Forget the record, unless ``keep`` has kept it for good, and look for changes again."""
        if not self._is_final:
            self._kept, self._held = None, False

    def hold(self) -> None:
        """Take it that nothing changes from the next record on, and do not look."""
        self._held = True

    def keep(self, vocabulary_size: int) -> None:
        """Keep the record of the LM as it is now for good, since its weights will be no whole ones
        that could be read."""
        self.record(vocabulary_size)
        self._held = self._is_final = True

    @torch.no_grad()
    def record(self, vocabulary_size: int) -> LMRecord:
        """The record of the LM as it is now.

        Args:
            vocabulary_size: how many vectors the table of embeddings has.
        """
        if self._held and self._kept is not None:
            return self._kept.record
        weights = [weight for _, weight in named_weights(self.model)]
        versions = [weight._version for weight in weights]
        state = [vocabulary_size, len(self.tokenizer), *versions]
        tuned = any(weight.requires_grad for weight in weights)  # fused optimisers count no version
        if tuned or not self._is_current(weights, state):
            self._kept = _Kept(
                record(self.model, self.tokenizer, rows=vocabulary_size),
                state,
                [weakref.ref(weight) for weight in weights],
            )
        assert self._kept is not None
        return self._kept.record

    def _is_current(self, weights: list[torch.Tensor], state: list[int]) -> bool:
        kept = self._kept
        return (
            kept is not None
            and kept.state == state
            and not any(map(is_not, weights, kept.weights()))
        )
