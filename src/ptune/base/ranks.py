"""The processes that train one thing together, as torchrun starts them. Each runs its share of the
rows, and what they compute is summed or gathered. They exchange tensors and JSON; nothing is
pickled."""

import contextlib
import functools
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import distributed, nn

from ptune.errors import ConfigError, PtuneError
from ptune.settings import Sharding

Item = TypeVar("Item")
PATIENCE = timedelta(days=7)  # the others may wait as long as the first one writes texts of dev


class Ranks:
    """One of the processes. By itself it is the only one, and nothing is exchanged.

    Attributes:
        rank: its number, from 0; the first one alone writes files and speaks.
        count: how many there are.
        sharding: how they share the LM out; each has all of it where it is "none".
        has_begun: whether all of them have agreed to begin (``begin``).
    """

    def __init__(self, rank: int = 0, count: int = 1, sharding: Sharding = "none"):
        self.rank, self.count, self.sharding = rank, count, sharding
        self.has_begun = count == 1

    @property
    def calls_together(self) -> bool:
        """Whether all of them call the LM at the same time, equally often, since none has all of
        it; they then go through the same, and the first one alone keeps what comes out."""
        return self.count > 1 and self.sharding != "none"

    @property
    def splits_rows(self) -> bool:
        """Whether each runs rows of its own in a step."""
        return self.count > 1 and self.sharding != "tensor"

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and speaks; true of one that is alone."""
        return self.rank == 0

    def begin(self, fault: str | None = None, over: bool = False) -> bool:
        """Wait until all processes are ready; return whether there is anything to do.

        Args:
            fault: what keeps this process from beginning.
            over: there is nothing left to do.

        Raises:
            ConfigError: another process cannot begin; its number and its fault are named.
        """
        if self.has_begun:
            return not over
        self.has_begun = True
        states = [json.loads(state) for state in self.gather(_json({"fault": fault, "over": over}))]
        if fault is None:
            for number, state in enumerate(states):
                if state["fault"] is not None:
                    raise ConfigError(f"Process {number} of {self.count}: {state['fault']}")
        return not any(state["over"] for state in states)

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items of this process: every so many of them, which may be none; all of them where
        the processes call the LM together."""
        if self.count == 1 or self.calls_together:
            return items
        return items[self.rank :: self.count]

    def runs(self, number: int) -> bool:
        """Whether this process runs the item of that number."""
        return number % self.count == self.rank

    def gather_shares(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The values of all items in order, on the CPU; the first process's where each has all.

        Args:
            tensors: those of this process's share.
        """
        if self.count == 1:
            return list(tensors)
        values = {f"{number:09}": tensor.cpu().clone() for number, tensor in enumerate(tensors)}
        payload = safetensors.torch.save(values)
        is_whole = self.calls_together
        files = [self.send_from_first(payload)] if is_whole else self.gather(payload)
        shares = [[*map(read.__getitem__, sorted(read))] for read in map(_tensors, files)]
        in_turn = itertools.chain.from_iterable(itertools.zip_longest(*shares))
        return [value for value in in_turn if value is not None]

    def gather_numbers(self, numbers: Sequence[float]) -> list[float]:
        """As ``gather_shares``, with a number for each item."""
        if self.count == 1:
            return list(numbers)
        values = [torch.tensor(number, dtype=torch.float64) for number in numbers]
        return [float(value) for value in self.gather_shares(values)]

    def sum_gradients(
        self, parameters: Sequence[torch.Tensor], losses: torch.Tensor
    ) -> torch.Tensor:
        """Put the sum of all processes' gradients in the place of each tensor's, and return the sum
        of their losses [N]; all in one exchange. A tensor that no process has a gradient of has
        none afterwards."""
        if not self.splits_rows:
            return losses
        has_gradient = [float(parameter.grad is not None) for parameter in parameters]
        parts = [
            *[torch.zeros_like(p) if p.grad is None else p.grad for p in parameters],
            torch.tensor(has_gradient, device=losses.device),
            losses,
        ]
        dtypes = [torch.float32, *[parameter.dtype for parameter in parameters]]
        dtype = functools.reduce(torch.promote_types, dtypes)
        flat = torch.cat([part.detach().flatten().to(dtype) for part in parts])
        with _others_present():
            distributed.all_reduce(flat)
        *gradients, reached, total = flat.split([part.numel() for part in parts])
        for parameter, gradient, times in zip(parameters, gradients, reached.tolist()):
            summed = gradient.view_as(parameter).to(parameter.dtype)
            parameter.grad = summed if times else None
        return total.clone()

    @torch.no_grad()
    def align(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give all processes the first one's values."""
        if self.count == 1:
            return
        with _others_present():
            for parameter in parameters:
                distributed.broadcast(parameter, 0)

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        if self.count == 1:
            return flag
        flags = torch.tensor([float(flag)])
        with _others_present():
            distributed.all_reduce(flags)
        return bool(flags)

    def from_first(self, compute: Callable[[], Any]) -> Any:
        """What the first process computes, a value that JSON can hold; the others wait for it, or
        compute the same where they call the LM together."""
        if self.count == 1:
            return compute()
        value = compute() if self.is_first or self.calls_together else None
        return json.loads(self.send_from_first(_json(value) if self.is_first else b""))

    def send_from_first(self, payload: bytes) -> bytes:
        """The first process's bytes, in every process."""
        with _others_present():
            size = torch.tensor([len(payload)])
            distributed.broadcast(size, 0)
            values = _as_tensor(payload, int(size))
            distributed.broadcast(values, 0)
        return values.numpy().tobytes()

    def gather(self, payload: bytes) -> list[bytes]:
        """Every process's bytes, in the order of their numbers."""
        with _others_present():
            sizes = [torch.zeros(1, dtype=torch.long) for _ in range(self.count)]
            distributed.all_gather(sizes, torch.tensor([len(payload)]))
            longest = max(map(int, sizes))
            values = [_as_tensor(b"", longest) for _ in range(self.count)]
            distributed.all_gather(values, _as_tensor(payload, longest))
        return [value[: int(size)].numpy().tobytes() for value, size in zip(values, sizes)]


ALONE = Ranks()


@contextlib.contextmanager
def joined(rank: int, count: int) -> Iterator[Ranks]:
    """The processes that torchrun started, of which this is one; what keeps one of them from
    beginning ends all of them."""
    if count == 1:
        yield Ranks()
        return
    with_gpus = torch.cuda.is_available()
    if with_gpus and _number_here() < torch.cuda.device_count():
        torch.cuda.set_device(_number_here())
    backend = "cpu:gloo,cuda:nccl" if with_gpus else "gloo"
    with _others_present():
        distributed.init_process_group(backend, timeout=PATIENCE)
    ranks = Ranks(rank, count)
    try:
        yield ranks
        if not ranks.has_begun:
            ranks.begin(over=True)
    except PtuneError as error:
        if not ranks.has_begun:
            ranks.begin(fault=str(error))
        raise
    except RuntimeError as error:
        if not _is_of_exchange(error):
            raise
        with _others_present():
            raise
    finally:
        distributed.destroy_process_group()


def check_gpus(device: str, ranks: Ranks) -> None:
    """Refuse several processes on one GPU.

    Raises:
        ConfigError: a GPU is named, or there is none for this process.
    """
    if ranks.count == 1:
        return
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(
            f"Each process of torchrun takes a GPU of its own, and --device names {device}: leave "
            "it out, or take cpu."
        )
    if device != "cpu" and torch.cuda.is_available():
        count = torch.cuda.device_count()
        if _number_here() >= count:
            raise ConfigError(
                f"Each process takes a GPU of its own, and there are {count} here: start torchrun "
                f"with --nproc-per-node {count}, or train with --device cpu."
            )


def _number_here() -> int:
    """The number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _is_of_exchange(error: RuntimeError) -> bool:
    """Whether an LM that lies on several processes failed since one of them has ended."""
    return isinstance(error, distributed.DistBackendError) or "gloo" in str(error)


@contextlib.contextmanager
def _others_present() -> Iterator[None]:
    """While this is open, the end of another process is an error with a message.

    Raises:
        PtuneError: one has ended.
    """
    try:
        yield
    except RuntimeError as error:
        sentence = str(error).strip().partition("\n")[0].partition(". ")[0]
        reason = re.sub(r"^\[\S+\] ", "", sentence)  # without the place in gloo's source
        raise PtuneError(
            "Another process of this training has ended or cannot be reached, so this one ends "
            f"too; --resume goes on from the last checkpoint. ({reason})"
        ) from error


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _as_tensor(payload: bytes, size: int) -> torch.Tensor:
    """Bytes as a tensor of that many, zeros behind them."""
    return torch.frombuffer(bytearray(payload.ljust(max(size, 1), b"\0")), dtype=torch.uint8)


def _tensors(payload: bytes) -> dict[str, torch.Tensor]:
    return safetensors.torch.load(payload)
