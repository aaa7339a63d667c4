"""The bank: the trainable values of many prompts, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ptune.prompts.encoders import Baked, RowGated


@dataclass(frozen=True)
class RowGates:
    """The gates of N prompts that read each row, for S attentions at most.

    Attributes:
        slopes: [N, S, E]; zeros, as in the openings, for a prompt without such gates.
        openings: [N, S].
        attentions: the number of the attention that each of the W values of a prefix is of [N, W].
        present: which prompts have such gates [N].
    """

    slopes: torch.Tensor
    openings: torch.Tensor
    attentions: torch.Tensor
    present: torch.Tensor

    def to(self, device: torch.device | str) -> "RowGates":
        """The same gates on a device."""
        return RowGates(*(part.to(device) for part in vars(self).values()))

    def of_rows(self, prompts: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """By what each of the W values of a row's prefix is multiplied [B, W].

        Args:
            prompts: the index among the N of each row's prompt [B].
            texts: the mean embedding of each row's text [B, E].
        """
        read = torch.einsum("bse,be->bs", self.slopes[prompts], texts.to(self.slopes.dtype))
        gates = 2 * torch.sigmoid(read + self.openings[prompts])
        return gates.gather(1, self.attentions[prompts])


@dataclass(frozen=True)
class PrefixBatch:
    """The deep prefixes of N prompts, as every layer gets them.

    Attributes:
        values: [N, P, W], aligned on the right, zeros before the shorter ones; W values a vector
            over all layers.
        lengths: how many vectors each has [N]; 0 for a prompt without a prefix.
        reach: which of the W values each prefix has at all [N, W]: one for the decoder alone has
            none for the encoder.
        gates: those that read each row; None where no prompt has such gates.
    """

    values: torch.Tensor
    lengths: torch.Tensor
    reach: torch.Tensor
    gates: RowGates | None = None

    def to(self, device: torch.device | str) -> "PrefixBatch":
        """The same prefixes on a device."""
        gates = None if self.gates is None else self.gates.to(device)
        return PrefixBatch(
            self.values.to(device), self.lengths.to(device), self.reach.to(device), gates
        )

    def of_rows(
        self, prompts: torch.Tensor, texts: torch.Tensor
    ) -> "tuple[PrefixBatch, torch.Tensor]":
        """These prefixes, and behind them one for each row whose prompt has gates, multiplied by
        what those make of its text; and the index among all of these of each row's [B].

        Args:
            prompts: the index among the N of each row's prompt [B]; -1 for a row without one, which
                stays.
            texts: the mean embedding of each row's text [B, E].
        """
        if self.gates is None:
            return self, prompts
        rows = (self.gates.present[prompts] & (prompts >= 0)).nonzero()[:, 0]
        of_rows = prompts[rows]
        factors = self.gates.of_rows(of_rows, texts[rows])
        numbers = prompts.clone()
        numbers[rows] = torch.arange(len(rows), device=rows.device) + len(self.values)
        prefixes = PrefixBatch(
            torch.cat([self.values, self.values[of_rows] * factors[:, None]]),
            torch.cat([self.lengths, self.lengths[of_rows]]),
            torch.cat([self.reach, self.reach[of_rows]]),
        )
        return prefixes, numbers


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
        for start, end in self.spans:
            reach[start:end] = True
        self.register_buffer("reach", reach, persistent=False)

    def forward(self) -> torch.Tensor:
        """The values [P, W], zeros outside its columns."""
        values = self.encoder()
        if self.reach.all():
            return values
        return values.new_zeros(len(values), len(self.reach)).masked_scatter(
            self.reach.expand(len(values), -1), values
        )


class Bank(nn.Module):
    """N prompts, each with its own encoders, lengths and parameters; a single prompt is a bank of
    one.

    Attributes:
        encoders: one a prompt; each makes the vectors of its soft tokens [P, E], where it has any.
        prefixes: one a prompt; each makes the values of its deep prefix [P, W], where it has one.
        readers: one a prompt; each turns what the LM says at its answers into label scores.
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
        """Whether a prompt has a deep prefix."""
        return isinstance(self.prefixes[number], Prefix)

    def parameters_of(self, number: int) -> list[nn.Parameter]:
        """What is trained for one prompt."""
        parameters = [
            *self.encoders[number].parameters(),
            *self.prefixes[number].parameters(),
            *self.readers[number].parameters(),
        ]
        return [parameter for parameter in parameters if parameter.requires_grad]

    @torch.no_grad()
    def size(self, number: int) -> int:
        """How many values are kept of a prompt: its vectors, its prefix, and its reader."""
        prefix, reader = self.prefixes[number], self.readers[number]
        trained = [parameter for parameter in reader.parameters() if parameter.requires_grad]
        gates = _row_gates(prefix)
        return (
            int(self.encoders[number]().numel())
            + (int(prefix.encoder().numel()) if isinstance(prefix, Prefix) else 0)
            + (0 if gates is None else gates.slopes.numel() + gates.openings.numel())
            + sum(value.numel() for value in [*trained, *reader.buffers()])
        )

    def vectors(self, numbers: Sequence[int]) -> torch.Tensor | None:
        """The soft tokens of some prompts, each encoder run once: [N, P, E], zeros behind the
        shorter ones; None for none."""
        vectors = [self.encoders[number]() for number in numbers]
        width = max((prompt.shape[1] for prompt in vectors), default=0)
        if not width:
            return None
        return nn.utils.rnn.pad_sequence(
            [prompt if len(prompt) else prompt.new_zeros(0, width) for prompt in vectors],
            batch_first=True,
        )

    def deep(self, numbers: Sequence[int]) -> PrefixBatch | None:
        """The deep prefixes of some prompts, each encoder run once; None where none has one."""
        by_index = {
            index: self.prefixes[number]()
            for index, number in enumerate(numbers)
            if self.has_prefix(number)
        }
        if not by_index:
            return None
        example = next(iter(by_index.values()))
        longest, (_, width) = max(map(len, by_index.values())), example.shape
        values = [
            nn.functional.pad(by_index[index], (0, 0, longest - len(by_index[index]), 0))
            if index in by_index
            else example.new_zeros(longest, width)
            for index in range(len(numbers))
        ]
        reach_of_none = torch.zeros(width, dtype=torch.bool, device=example.device)
        return PrefixBatch(
            torch.stack(values),
            torch.tensor(
                [len(by_index.get(index, ())) for index in range(len(numbers))],
                device=example.device,
            ),
            torch.stack(
                [
                    self.prefixes[number].reach if index in by_index else reach_of_none
                    for index, number in enumerate(numbers)
                ]
            ),
            self._gates(numbers, width),
        )

    def _gates(self, numbers: Sequence[int], width: int) -> RowGates | None:
        """The gates of some prompts that read each row; None where no prompt has such gates.

        Args:
            width: of their prefixes, W.
        """
        by_index = {
            index: gates
            for index, number in enumerate(numbers)
            if (gates := _row_gates(self.prefixes[number])) is not None
        }
        if not by_index:
            return None
        example = next(iter(by_index.values())).slopes
        count = max(len(gates.openings) for gates in by_index.values())
        slopes, openings, attentions = [], [], []
        for index, number in enumerate(numbers):
            of_values = torch.zeros(width, dtype=torch.long, device=example.device)
            if (gates := by_index.get(index)) is None:
                slopes.append(example.new_zeros(count, example.shape[1]))
                openings.append(example.new_zeros(count))
            else:
                missing = count - len(gates.openings)
                slopes.append(nn.functional.pad(gates.slopes / gates.size, (0, 0, 0, missing)))
                openings.append(nn.functional.pad(gates.openings, (0, missing)))
                of_values[self.prefixes[number].reach] = gates.attentions
            attentions.append(of_values)
        present = torch.tensor([index in by_index for index in range(len(numbers))])
        return RowGates(
            torch.stack(slopes),
            torch.stack(openings),
            torch.stack(attentions),
            present.to(example.device),
        )


def _row_gates(prefix: nn.Module) -> RowGated | None:
    """What has a prefix's gates that read each row, where it has such gates."""
    made_by = prefix.encoder if isinstance(prefix, Prefix) else None
    return made_by if isinstance(made_by, RowGated) else None
