"""What is only tried, before a run begins."""

import contextlib
from collections.abc import Iterator

import torch

from ptune.errors import DivergedError
from ptune.lm.language_model import LanguageModel


@contextlib.contextmanager
def without_trace(lm: LanguageModel, tuned: bool) -> Iterator[None]:
    """What is tried in this block changes neither the LM nor the state of random numbers. A
    training that diverges ends the block, and is no error.

    Args:
        tuned: whether the LM's weights are changed in the block, and have to be put back.
    """
    devices = [lm.device] if lm.device.type == "cuda" else []
    weights = lm.weights() if tuned else None
    with torch.random.fork_rng(devices=devices), contextlib.suppress(DivergedError):
        try:
            yield
        finally:
            if weights is not None:
                lm.restore(weights)
