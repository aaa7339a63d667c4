"""One side of a case in a process of its own, which does a step when it is told to."""

import contextlib
import importlib
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any


@dataclass(frozen=True)
class Work:
    """What a side does.

    Attributes:
        step: what is timed.
        proof: figures by which it is seen that all sides do the same; None for a floor.
        network: the LM, whose positions are counted.
        positions: how many they are, where they are known.
        waits: how many seconds each request of the steps took, where steps are requests at once.
    """

    step: Callable[[], Any]
    proof: Callable[[], list[float]] | None = None
    network: Any = None
    positions: int = 0
    waits: list[float] = field(default_factory=list)


class Process:
    """A side's process, seen from the one that compares."""

    def __init__(self, case: str, side: str, threads: int, device: str, small: bool):
        self.case, self.side = case, side
        self.times: list[float] = []
        self.cpu_times: list[float] = []
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, case, side, threads, device, small), daemon=True
        )
        self.process.start()
        theirs.close()
        self._hear()  # it is built

    def prove(self) -> list[float] | None:
        return self._ask("prove")

    def step(self) -> None:
        seconds, cpu_seconds = self._ask("step")
        self.times.append(seconds)
        self.cpu_times.append(cpu_seconds)

    def memory(self) -> int:
        """Bytes that the steps took at their peak, over what was held before the first."""
        return self._ask("memory")

    def positions(self) -> int:
        """Tokens, soft tokens and padding that a step runs through the LM."""
        return self._ask("positions")

    def waits(self) -> list[float]:
        """Seconds from each request to its answer, those of the first step left out."""
        return self._ask("waits")

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it ended by itself
            self.pipe.send("end")
        self.pipe.close()
        self.process.join()

    def _ask(self, what: str) -> Any:
        self.pipe.send(what)
        return self._hear()

    def _hear(self) -> Any:
        try:
            answer = self.pipe.recv()
        except EOFError:
            raise SystemExit(
                f"{self.case}: {self.side} ended by itself; what it said stands above."
            ) from None
        return answer


def _serve(pipe: Connection, case: str, side: str, threads: int, device: str, small: bool) -> None:
    os.environ["OMP_WAIT_POLICY"] = (
        "passive"  # waiting threads would take the time of the side whose turn it is
    )
    import torch

    torch.set_num_threads(threads)
    work: Work = importlib.import_module("benchmarks.cases").CASES[case].build(side, device, small)
    before, warm = _reset(device), 0
    pipe.send("built")
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        if request == "end":
            return
        if request == "prove":
            pipe.send(work.proof() if work.proof else None)
        elif request == "step":
            pipe.send(_timed(work.step, device))
            warm = warm or len(work.waits)
        elif request == "waits":
            pipe.send(work.waits[warm:])
        elif request == "memory":
            pipe.send(_peak(device) - before)
        else:
            pipe.send(work.positions or _positions(work))


def _timed(step: Callable[[], Any], device: str) -> tuple[float, float]:
    """Seconds of the clock, and seconds of a core that all threads of the process took."""
    import torch

    def wait() -> None:
        if device != "cpu":
            torch.cuda.synchronize()

    wait()
    began, cpu_began = time.perf_counter(), time.process_time()
    step()
    wait()
    return time.perf_counter() - began, time.process_time() - cpu_began


def _positions(work: Work) -> int:
    """What goes into the LM's first linear layer in a step."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    if work.network is None:
        return 0
    layer = next(
        module for module in work.network.modules() if isinstance(module, nn.Linear | Conv1D)
    )
    counts: list[int] = []
    hook = layer.register_forward_pre_hook(
        lambda _, inputs: counts.append(inputs[0].shape[:-1].numel())
    )
    work.step()
    hook.remove()
    return sum(counts)


def _reset(device: str) -> int:
    """Forget the peak so far; the bytes that are held now."""
    import torch

    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _status("VmRSS")


def _peak(device: str) -> int:
    import torch

    return torch.cuda.max_memory_allocated() if device != "cpu" else _status("VmHWM")


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name + ":"))
