"""The vocabulary head of an LM, and how it parts from the input's embeddings when it is trained by
itself."""

import torch
from torch import nn
from transformers import PreTrainedModel

from ptune.errors import ModelError
from ptune.lm.forward import ForwardPass
from ptune.lm.trials.trial import Trial, close


class VocabularyHead:
    """The part of an LM that scores the vocabulary.

    Args:
        model: the transformers model.
        forward: how it is called; its ``gathers`` tell the head from the rest.
    """

    def __init__(self, model: PreTrainedModel, forward: ForwardPass):
        self.model, self.forward = model, forward
        self._tied: tuple[nn.Parameter, bool] | None = None  # the weight before it was untied

    @property
    def layer(self) -> nn.Linear | None:
        """The last layer of the head: one vector [F] for each token; None for an LM without it."""
        layer = self.model.get_output_embeddings()
        return layer if isinstance(layer, nn.Linear) else None

    def parameters(self) -> list[nn.Parameter]:
        """The head's parameters; its vectors are among them only where they are not the input's
        embeddings too."""
        parts = list(self.forward.gathers)
        if getattr(self.model.config, "is_encoder_decoder", False):
            parts.append(self.model.get_encoder())
        body = {id(parameter) for part in parts for parameter in part.parameters()}
        return [parameter for parameter in self.model.parameters() if id(parameter) not in body]

    @torch.no_grad()
    def untie(self, trial: Trial) -> None:
        """Give the head vectors that are not the input's embeddings.

        Raises:
            ModelError: the head cannot be told from the rest, or the LM needs it to be tied.
        """
        name = type(self.model).__name__
        if not self.forward.gathers or self.layer is None:
            raise ModelError(f"{name} has no vocabulary head that could be trained by itself.")
        if not any(parameter is self.layer.weight for parameter in self.parameters()):
            self._tied = self.layer.weight, self.model.config.tie_word_embeddings
        before = trial.run(trial.rows)
        self.layer.weight = nn.Parameter(self.layer.weight.detach().clone())
        self.model.config.tie_word_embeddings = False
        if not close(trial.run(trial.rows), before):
            self._tie()
            raise ModelError(f"{name} computes otherwise when its head has vectors of its own.")

    def tie_if_equal(self) -> None:
        """Undo ``untie`` where the head's vectors are still the input's embeddings."""
        if self._tied is None or self.layer is None:
            return
        if torch.equal(self.layer.weight, self._tied[0]):
            self._tie()

    def _tie(self) -> None:
        if self._tied is not None and self.layer is not None:
            self.layer.weight, self.model.config.tie_word_embeddings = self._tied
            self._tied = None
