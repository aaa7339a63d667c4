"""The bank: the trainable values of many prompts, side by side."""
from collections.abc import Sequence

import torch
from torch import nn


class Bank(nn.Module):
    """N prompts, each with its own encoder, length and parameters; a single prompt is a bank of one.

    Attributes:
        encoders: one a prompt; each makes its vectors [P, E].
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleList()

    def __len__(self) -> int:
        return len(self.encoders)

    def add(self, encoder: nn.Module) -> int:
        """Put a prompt into the bank; its number is returned."""
        self.encoders.append(encoder)
        return len(self.encoders) - 1

    def vectors(self, numbers: Sequence[int]) -> torch.Tensor | None:
        """The vectors of some prompts, each encoder run once: [N, P, E], zeros behind the shorter ones; None for none."""
        if not numbers:
            return None
        return nn.utils.rnn.pad_sequence([self.encoders[number]() for number in numbers], batch_first=True)
