"""Torch's global generator as of a seed, by one thread at a time: what draws from it cannot be
given a generator of its own."""

import contextlib
import threading
from collections.abc import Iterator

import torch

_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """While this is open, torch draws as of this seed, and other threads that draw so wait; then
    all is as it was before.

    Args:
        device: a GPU whose generator is meant too.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
