"""An LM of the same form with random weights, as a control: it knows nothing, so what a prompt
reaches there was learned from rows (Zhong et al. 2021, "Factual Probing Is [MASK]", section 5)."""

import torch

from ptune.lm.language_model import LanguageModel


def with_random_weights(lm: LanguageModel, seed: int = 0) -> LanguageModel:
    """The same LM with weights as its pretraining began with: drawn by transformers' own
    initialisation from the seed. The given one is left as it is.

    Args:
        seed: of the draw; the state of torch's generator is as before.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = type(lm.model)(lm.model.config)
    network = network.to(lm.dtype).to(lm.device)
    source = f"{lm.source}, random weights"
    return LanguageModel(network, lm.tokens.tokenizer, lm.kind, source)
