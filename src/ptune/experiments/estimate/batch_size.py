"""``batch_size: auto``: the largest batch whose estimated memory fits in what is free."""

from collections.abc import Callable, Sequence

from ptune.errors import ConfigError
from ptune.experiments.estimate.estimate import estimate_of
from ptune.lm.source.loading import choose_device, free_memory
from ptune.model.task import Row
from ptune.tasks.resolved.parts import TrainingParts

SHARE = 0.8  # of the free memory that a training may take; estimates were up to 15 % off


def largest(parts: TrainingParts, rows: Sequence[Row], report: Callable[[str], None]) -> int:
    """The largest power of two, at most as many as there are rows, that fits.

    Args:
        rows: those to learn from.

    Raises:
        ConfigError: a single row does not fit, or the training cannot be estimated.
    """
    free = free_memory(choose_device(parts.source.device))
    size = 2 ** max(0, len(rows).bit_length() - 1)
    while (taken := estimate_of(parts, rows, size).total) > SHARE * free and size > 1:
        size //= 2
    sentence = (
        f"{taken / 2**20:.0f} MiB by estimate, of {free / 2**20:.0f} MiB that are free "
        f"({SHARE:.0%} of them may be taken)"
    )
    if taken > SHARE * free:
        raise ConfigError(
            f"batch_size: auto finds no batch that fits: one row takes {sentence}. Take a smaller "
            "LM, shorter rows (max_length), or name a batch_size."
        )
    report(f"Batch size {size}: {sentence}.")
    return size
