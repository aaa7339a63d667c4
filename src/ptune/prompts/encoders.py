"""Prompt encoders: how the vectors of pseudo tokens are made while they are trained. Afterwards
only the vectors are kept.

P-tuning ("GPT Understands, Too", section 3.2): h_i = MLP([LSTM(h_0..i) : LSTM(h_i..m)]), over a
table of free vectors. Every encoder is called without arguments and returns all its vectors, [P,
E].
"""

from collections.abc import Sequence

import torch
from torch import nn

from ptune.errors import ConfigError, nearest
from ptune.settings import EncoderName

FIT_STEPS, FIT_RATE, FIT_ERROR = 2000, 5e-3, 1e-3


class Table(nn.Module):
    """Free vectors, trained as they are (Prompt Tuning, section 2)."""

    def __init__(self, length: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(length, width)

    def forward(self) -> torch.Tensor:
        """The vectors [P, E]."""
        return self.embedding.weight


class MLP(nn.Module):
    """A table, then two linear layers with a ReLU between."""

    def __init__(self, length: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(length, width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self) -> torch.Tensor:
        """The vectors [P, E]."""
        return self.mlp(self.embedding.weight)


class LSTM(nn.Module):
    """A table, a 2-layer bidirectional LSTM of width E / 2 a direction, then two linear layers with
    a ReLU between."""

    def __init__(self, length: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(length, width)
        self.lstm = nn.LSTM(width, width // 2, num_layers=2, bidirectional=True, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(2 * (width // 2), width), nn.ReLU(), nn.Linear(width, width)
        )

    def forward(self) -> torch.Tensor:
        """The vectors [P, E]."""
        return self.mlp(self.lstm(self.embedding.weight[None])[0][0])


class Multitask(nn.Module):
    """A table that several prompts have in common, times, element by element, a matrix of rank one
    of each (Multitask Prompt Tuning: Wang et al. 2023, section 3.1: P_k = P* o (u_k v_k^T)). It
    begins as the table.

    Args:
        shared: the table, where other prompts have it already.
    """

    def __init__(self, length: int, width: int, shared: Table | None = None):
        super().__init__()
        self.shared = shared or Table(length, width)
        self.rows = nn.Parameter(torch.ones(length))
        self.columns = nn.Parameter(torch.ones(width))

    def forward(self) -> torch.Tensor:
        """The vectors [P, E]."""
        return self.shared() * torch.outer(self.rows, self.columns)


class Reparameterised(nn.Module):
    """A narrow table, then an MLP with one hidden layer (Prefix-Tuning, section 4.3: P_theta[i] =
    MLP(P'_theta[i])), for deep prefixes: their values are far wider than what makes them. The
    paper's code has a tanh between and a hidden width of 512.

    Args:
        length: prefix vectors P.
        width: values of each, W.
        inner: width of the table.
        hidden: width of the hidden layer.
    """

    def __init__(self, length: int, width: int, inner: int, hidden: int):
        super().__init__()
        self.embedding = nn.Embedding(length, inner)
        self.mlp = nn.Sequential(nn.Linear(inner, hidden), nn.Tanh(), nn.Linear(hidden, width))

    def forward(self) -> torch.Tensor:
        """The values [P, W]."""
        return self.mlp(self.embedding.weight)


class Gated(nn.Module):
    """The values of a deep prefix, those of each attention times its gate: a trained number between
    0 and 2, which begins at 1 (as UniPELT's gates, Mao et al. 2022, section 3.2, without what those
    read of the row).

    Args:
        values: makes the values [P, W].
        attentions: the number of the attention that each of the W values is of.
    """

    attentions: torch.Tensor

    def __init__(self, values: nn.Module, attentions: torch.Tensor):
        super().__init__()
        self.values = values
        self.openings = nn.Parameter(torch.zeros(int(attentions.max()) + 1))
        self.register_buffer("attentions", attentions, persistent=False)

    @property
    def gates(self) -> torch.Tensor:
        """The gate of each attention."""
        return 2 * torch.sigmoid(self.openings)

    def forward(self) -> torch.Tensor:
        """The values [P, W]."""
        return self.values() * self.gates[self.attentions]


class RowGated(nn.Module):
    """The values of a deep prefix, and a gate for each attention that reads a row: twice the
    sigmoid of a linear function of the mean of its text's embeddings. It begins at 1, whatever the
    row (UniPELT's gates, Mao et al. 2022, section 3.2, read the input of each layer instead).

    The values are those without gates: only a row has others (``PrefixBatch.of_rows``).

    Args:
        values: makes the values [P, W].
        attentions: the number of the attention that each of the W values is of.
        width: of the embeddings, E.
        size: the length of an embedding of the LM, by which a mean is divided, so that the same
            learning rate suits LMs of other scales.

    Attributes:
        slopes: [S, E], of each attention.
        openings: [S].
    """

    attentions: torch.Tensor
    size: torch.Tensor

    def __init__(self, values: nn.Module, attentions: torch.Tensor, width: int, size: float = 1.0):
        super().__init__()
        self.values, count = values, int(attentions.max()) + 1
        self.slopes = nn.Parameter(torch.zeros(count, width))
        self.openings = nn.Parameter(torch.zeros(count))
        self.register_buffer("size", torch.tensor(size))
        self.register_buffer("attentions", attentions, persistent=False)

    def forward(self) -> torch.Tensor:
        """The values [P, W], without gates."""
        return self.values()


class Baked(nn.Module):
    """Vectors that are no longer trained."""

    def __init__(self, vectors: torch.Tensor):
        super().__init__()
        self.register_buffer("vectors", vectors)

    def forward(self) -> torch.Tensor:
        """The vectors [P, E]."""
        assert isinstance(self.vectors, torch.Tensor)
        return self.vectors


ENCODERS: dict[EncoderName, type[Table] | type[MLP] | type[LSTM] | type[Multitask]] = {
    "table": Table,
    "mlp": MLP,
    "lstm": LSTM,
    "multitask": Multitask,
}


def make(name: str, length: int, width: int) -> nn.Module:
    """The encoder of that name for ``length`` vectors of ``width``.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in ENCODERS:
        raise ConfigError(f"There is no prompt encoder {name!r}. {nearest(name, ENCODERS)}")
    return ENCODERS[name](length, width)


def make_deep(length: int, width: int, inner: int, hidden: int) -> Reparameterised | Table:
    """The encoder of a deep prefix of ``length`` vectors of ``width`` values: by an MLP of that
    hidden width, or (0) direct."""
    return Reparameterised(length, width, inner, hidden) if hidden else Table(length, width)


def table_of(vectors: torch.Tensor) -> Table:
    """Free vectors that begin as the given ones [P, E], in their number format."""
    table = Table(*vectors.shape).to(vectors)
    start_from(table, vectors)
    return table


@torch.no_grad()
def bake(encoder: nn.Module) -> torch.Tensor:
    """The encoder's vectors as they are now, apart from it: [P, E].

    Raises:
        ConfigError: it has gates that read each row, which no vectors hold.
    """
    if isinstance(encoder, RowGated):
        raise ConfigError(
            "This prompt has gates that read each row (prefix.gates: row), so there are no vectors "
            "that are its prefix in all rows, as are needed here: take a prompt that was trained "
            "with prefix.gates: true, or without gates."
        )
    return encoder().detach().clone()


def is_baked(encoder: nn.Module) -> bool:
    """Whether what it makes is no longer trained."""
    return isinstance(encoder.values if isinstance(encoder, RowGated) else encoder, Baked)


def start_from(encoder: nn.Module, vectors: torch.Tensor) -> float:
    """Make the encoder begin at given vectors [P, E]: a table takes them, that which prompts share
    or which has gates too, and another encoder is fitted to them.

    Returns:
        The mean squared error that is left, as a share of the vectors' variance.
    """
    if isinstance(encoder, Gated | RowGated):
        nn.init.zeros_(encoder.openings)
        if isinstance(encoder, RowGated):
            nn.init.zeros_(encoder.slopes)
        return start_from(encoder.values, vectors)
    if isinstance(encoder, Multitask):
        for factor in (encoder.rows, encoder.columns):
            nn.init.ones_(factor)
        encoder = encoder.shared
    if isinstance(encoder, Table):
        with torch.no_grad():
            encoder.embedding.weight.copy_(vectors)
        return 0.0
    target = vectors.detach().float()
    spread = target.var().clamp(min=1e-12)
    optimiser = torch.optim.Adam(encoder.parameters(), lr=FIT_RATE)
    with torch.enable_grad():
        for _ in range(FIT_STEPS):
            error = nn.functional.mse_loss(encoder(), target) / spread
            if error.item() < FIT_ERROR:
                break
            optimiser.zero_grad()
            error.backward()
            optimiser.step()
    optimiser.zero_grad()
    return error.item()


def begin_as(encoder: nn.Module, other: nn.Module) -> None:
    """Make the encoder begin as another one: with its parameters where it is of the same kind and
    size, else at its vectors; with its gates, where both read each row.

    Raises:
        ConfigError: the other has gates that read each row, and this one has none.
    """
    if isinstance(encoder, RowGated) and isinstance(other, RowGated):
        with torch.no_grad():
            encoder.slopes.copy_(other.slopes * (encoder.size / other.size))
            encoder.openings.copy_(other.openings)
        begin_as(encoder.values, other.values)
        return
    states, wanted = other.state_dict(), encoder.state_dict()
    shapes = [{name: v.shape for name, v in values.items()} for values in (states, wanted)]
    if type(encoder) is type(other) and shapes[0] == shapes[1]:
        encoder.load_state_dict(states)
    else:
        start_from(encoder, bake(other))


@torch.no_grad()
def start_at_zero(encoder: nn.Module) -> None:
    """Begin with vectors of zeros, which an MLP makes with a last layer of zeros."""
    for parameter in (
        encoder.parameters() if isinstance(encoder, Table) else encoder.mlp[-1].parameters()
    ):
        parameter.zero_()


@torch.no_grad()
def start_at_random(
    encoder: nn.Module, rows: torch.Tensor, generator: torch.Generator, each: bool = False
) -> None:
    """Begin at random at the scale of the LM's own vectors, of which ``rows`` [R, E] are some.

    A table is drawn from the normal distribution with their mean and standard deviation (of each
    column by itself, where ``each`` is set). Another encoder keeps its own initialisation, and its
    last layer is scaled so that its vectors have that standard deviation.
    """
    rows = rows.float()
    if isinstance(encoder, Multitask):
        encoder = encoder.shared
    if isinstance(encoder, Table):
        noise = torch.randn(encoder.embedding.weight.shape, generator=generator)
        encoder.embedding.weight.copy_(
            rows.mean(0) + (rows.std(0) if each else rows.std()) * noise.to(rows.device)
        )
        return
    last = encoder.mlp[-1]
    ratio = rows.std() / encoder().std().clamp(min=1e-12)
    last.weight.mul_(ratio)
    last.bias.mul_(ratio)


def from_frequent(
    counts: Sequence[int], length: int, generator: torch.Generator, most: int = 5000
) -> list[int]:
    """Ids to start from, sampled without replacement from the ``most`` most frequent ones (Prompt
    Tuning, section 3.2).

    Args:
        counts: how often each id of the vocabulary occurs, where the prompt is used; an id that
            never occurs is not taken unless there are too few others.
    """
    tally = torch.tensor(counts)
    order = tally.argsort(descending=True, stable=True)
    pool = order[: max(1, min(most, int((tally > 0).sum())))]
    picks = torch.randperm(len(pool), generator=generator)[:length]
    while len(picks) < length:
        picks = torch.cat([picks, torch.randperm(len(pool), generator=generator)])[:length]
    return pool[picks].tolist()
