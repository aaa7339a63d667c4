"""The mean of a row's hidden states, read in place of the hidden state at one position."""

from dataclasses import dataclass

import torch

from ptune.lm.batch import Batch


@dataclass(frozen=True)
class MeanPooling:
    """Which answer places of a batch are read as the mean over all tokens of their row, its special
    and soft tokens among them; padding and prefix vectors are left out.

    Attributes:
        places: whether a place is read so [A].
        rows: the row of each place [A].
        owners: the row of each token, as the LM's layers hold the tokens: [B, T], or packed [1, N].
            What belongs to no mean has the number B.
        counts: how many tokens each row has [B + 1, 1].
    """

    places: torch.Tensor
    rows: torch.Tensor
    owners: torch.Tensor
    counts: torch.Tensor

    @classmethod
    def of(cls, batch: Batch) -> "MeanPooling | None":
        """The pooling of a batch; None where no row is read so."""
        if batch.pooled is None:
            return None
        counted = batch.attention.bool()
        if batch.deep is not None:
            counted = counted & (batch.deep < 0)
        count = len(counted)
        numbers = torch.arange(count, device=counted.device)[:, None]
        owners = torch.where(counted, numbers, count)
        return cls(
            places=batch.pooled,
            rows=batch.rows,
            owners=owners if batch.packing is None else batch.packing.pack(owners),
            counts=owners.flatten().bincount(minlength=count + 1)[:, None],
        )

    def read(self, hidden: torch.Tensor, at_places: torch.Tensor) -> torch.Tensor:
        """What is read at the places [A, H].

        Args:
            hidden: the hidden states of all tokens: [B, T, H], or packed [1, N, H].
            at_places: the hidden states at the places themselves [A, H].
        """
        values = hidden.flatten(0, 1).float()
        sums = values.new_zeros(len(self.counts), values.shape[-1])
        sums = sums.index_add(0, self.owners.flatten(), values)
        means = (sums / self.counts.clamp(min=1))[self.rows].to(at_places.dtype)
        return torch.where(self.places[:, None], means, at_places)
