"""Seeding torch's global generator, for one thread at a time, for code that cannot be given a
generator."""

import contextlib
import threading
from collections.abc import Iterator

import torch

_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's global generator within the block, and restore its state afterwards. Other
    threads that enter such a block wait.

    Args:
        device: a GPU whose generator is seeded too.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed is slow
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
