"""How prompts of older versions know their LM: by a hash of its config, and by a few values of its
embeddings. Newer ones hold a record of every weight (``fingerprint``)."""

from collections.abc import Sequence

import torch

from ptune.lm.identity.fingerprint import config_hash
from ptune.lm.language_model import LanguageModel


def shape(lm: LanguageModel) -> str:
    """A hash of the config's numbers and of the size of the vocabulary."""
    return config_hash(lm.model.config.to_dict(), len(lm.tokens.tokenizer))


@torch.no_grad()
def sample(lm: LanguageModel) -> list[float]:
    """A few embedding values: the same weights have them in any number format, up to its
    rounding (``has_weights_of``)."""
    rows = torch.linspace(0, lm.forward.vocabulary_size - 1, 32).long()
    return [round(value, 6) for value in lm.embed(rows)[:, 0].tolist()]


def has_weights_of(lm: LanguageModel, saved: Sequence[float]) -> bool:
    """Whether a sample was taken from this LM's weights, whatever the number format then and
    now."""
    present, expected = torch.tensor(sample(lm)), torch.tensor(saved)
    return present.shape == expected.shape and torch.allclose(
        present, expected, rtol=2**-8, atol=1e-6
    )
