"""The bank: the trainable values of many prompts, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ptune.prompts.encoders import Baked


@dataclass(frozen=True)
class PrefixBatch:
    """The deep prefixes of N prompts, as every layer gets them.

    Attributes:
        values: [N, P, W], aligned on the right, zeros before the shorter ones; W values a vector
            over all layers.
        lengths: how many vectors each has [N]; 0 for a prompt without a prefix.
        reach: which of the W values each prefix has at all [N, W]: one for the decoder alone has
            none for the encoder.
    """

    values: torch.Tensor
    lengths: torch.Tensor
    reach: torch.Tensor

    def to(self, device: torch.device | str) -> "PrefixBatch":
        return PrefixBatch(self.values.to(device), self.lengths.to(device), self.reach.to(device))


class Prefix(nn.Module):
    """One prompt's deep prefix: what its encoder makes, put at its columns among the W of the LM.

    Args:
        encoder: makes the values [P, w].
        spans: the columns (first, end) that these are, in order; their widths add up to w.
        width: W.
    """

    reach: torch.Tensor

    def __init__(self, encoder: nn.Module, spans: Sequence[tuple[int, int]], width: int):
        super().__init__()
        self.encoder, self.spans = encoder, tuple(spans)
        reach = torch.zeros(width, dtype=torch.bool)
        for first, end in self.spans:
            reach[first:end] = True
        self.register_buffer("reach", reach, persistent=False)

    def forward(self) -> torch.Tensor:
        """The values [P, W], zeros outside its columns."""
        own = self.encoder()
        if self.reach.all():
            return own
        return own.new_zeros(len(own), len(self.reach)).masked_scatter(
            self.reach.expand(len(own), -1), own
        )


class Bank(nn.Module):
    """N prompts, each with its own encoders, lengths and parameters; a single prompt is a bank of
    one.

    Attributes:
        encoders: one a prompt; each makes the vectors of its soft tokens [P, E], where it has any.
        prefixes: one a prompt; each makes the values of its deep prefix [P, W], where it has one.
        readers: one a prompt; each turns what the LM says at its answers into label scores, where
            words do not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoders, self.prefixes, self.readers = (
            nn.ModuleList(),
            nn.ModuleList(),
            nn.ModuleList().eval(),
        )

    def __len__(self) -> int:
        return len(self.encoders)

    def add(
        self,
        encoder: nn.Module | None = None,
        prefix: Prefix | None = None,
        reader: nn.Module | None = None,
    ) -> int:
        """Put a prompt into the bank; its number is returned."""
        self.encoders.append(Baked(torch.zeros(0, 0)) if encoder is None else encoder)
        self.prefixes.append(Baked(torch.zeros(0, 0)) if prefix is None else prefix)
        self.readers.append(
            nn.Identity() if reader is None else reader.train(self.readers.training)
        )
        return len(self.encoders) - 1

    def cut(self, length: int) -> None:
        """Leave only the first prompts in the bank."""
        for parts in (self.encoders, self.prefixes, self.readers):
            del parts[length:]

    def has_prefix(self, number: int) -> bool:
        return isinstance(self.prefixes[number], Prefix)

    def parameters_of(self, number: int) -> list[nn.Parameter]:
        """What is trained for one prompt."""
        own = [
            *self.encoders[number].parameters(),
            *self.prefixes[number].parameters(),
            *self.readers[number].parameters(),
        ]
        return [parameter for parameter in own if parameter.requires_grad]

    @torch.no_grad()
    def size(self, number: int) -> int:
        """How many values are kept of a prompt: its vectors, its prefix, and its reader."""
        prefix, reader = (
            self.prefixes[number],
            sum(p.numel() for p in self.readers[number].parameters() if p.requires_grad),
        )
        return (
            int(self.encoders[number]().numel())
            + (int(prefix.encoder().numel()) if isinstance(prefix, Prefix) else 0)
            + reader
        )

    def vectors(self, numbers: Sequence[int]) -> torch.Tensor | None:
        """The soft tokens of some prompts, each encoder run once: [N, P, E], zeros behind the
        shorter ones; None for none."""
        made = [self.encoders[number]() for number in numbers]
        width = max((own.shape[1] for own in made), default=0)
        if not width:
            return None
        return nn.utils.rnn.pad_sequence(
            [own if len(own) else own.new_zeros(0, width) for own in made], batch_first=True
        )

    def deep(self, numbers: Sequence[int]) -> PrefixBatch | None:
        """The deep prefixes of some prompts, each encoder run once; None where none has one."""
        own = {
            at: self.prefixes[number]()
            for at, number in enumerate(numbers)
            if self.has_prefix(number)
        }
        if not own:
            return None
        one = next(iter(own.values()))
        longest, (_, width) = max(map(len, own.values())), one.shape
        values = [
            nn.functional.pad(own[at], (0, 0, longest - len(own[at]), 0))
            if at in own
            else one.new_zeros(longest, width)
            for at in range(len(numbers))
        ]
        none = torch.zeros(width, dtype=torch.bool, device=one.device)
        return PrefixBatch(
            torch.stack(values),
            torch.tensor([len(own.get(at, ())) for at in range(len(numbers))], device=one.device),
            torch.stack(
                [
                    self.prefixes[number].reach if at in own else none
                    for at, number in enumerate(numbers)
                ]
            ),
        )
