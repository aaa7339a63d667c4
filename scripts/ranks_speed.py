"""Rows a second of a prompt's training by one process, by several, and by several that share the LM
out, round after round; and what the exchange of gradients takes.

python scripts/ranks_speed.py LM [PROCESSES] [ROUNDS]

LM: a causal or masked one; tensor parallelism is left out where it has no plan for it.
PROCESSES: 2 by default; each computes with one thread. One process is timed with as many threads
too, which is what they have to be compared with.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

import torch
from torch import distributed

from ptune import LanguageModel, PromptModel, Task, Template, TrainConfig, Verbalizer
from ptune.base import ranks as processes
from ptune.base.ranks import Ranks
from ptune.errors import PtuneError
from ptune.training.loop import take_step
from ptune.training.prompt_training import PromptTraining

ROWS, WORDS, STEPS = 32, 24, 4
TEMPLATE = "{soft:10} {text} It is {mask}"


def main(lm: str, processes: str = "2", rounds: str = "3") -> None:
    """Print the medians over the rounds of each layout."""
    count = int(processes)
    layouts = {
        "one process, one thread": (1, 1, "none"),
        f"one process, {count} threads": (1, count, "none"),
        f"{count} processes, each with the LM": (count, 1, "none"),
        f"{count} processes, fsdp": (count, 1, "fsdp"),
        f"{count} processes, tensor": (count, 1, "tensor"),
    }
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in layouts}
    for _ in range(int(rounds)):
        for name, layout in layouts.items():
            measured[name].append(_measured(lm, *layout))
    for name, figures in measured.items():
        print(f"{name}: {figures[0].get('fault') or _sentence(figures)}")


def _sentence(figures: Sequence[dict[str, Any]]) -> str:
    step = statistics.median(one["step"] for one in figures)
    sentence = f"{ROWS / step:.1f} rows a second, {step:.3f} s a step"
    if not figures[0]["bytes"]:
        return sentence
    exchange = statistics.median(one["exchange"] for one in figures)
    return (
        f"{sentence}, of which {1e3 * exchange:.1f} ms in the exchange of "
        f"{figures[0]['bytes'] / 1e3:,.1f} kB, waiting for each other included"
    )


def _measured(lm: str, count: int, threads: int, sharding: str) -> dict[str, Any]:
    """What the first process of a layout measures."""
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={count}", "--standalone"]
    done = subprocess.run(
        [sys.executable, *(launcher if count > 1 else []), __file__, "process", lm, sharding],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        return {"fault": f"ended with status {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def process(name: str, sharding: Any) -> None:
    """Train some steps as one of the processes; the first one prints what a step took."""
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with processes.joined(rank, count) as ranks:
        ranks.sharding = sharding
        try:
            figures = _steps(name, ranks)
        except PtuneError as error:
            figures = {"fault": str(error)}
        ranks.begin()
    if ranks.is_first:
        print(json.dumps(figures))


def _steps(name: str, ranks: Ranks) -> dict[str, float]:
    """The median seconds of a step and what it exchanges."""
    lm = LanguageModel.load(name)
    if ranks.sharding != "none":
        lm.shard(ranks.sharding, ranks, torch.device("cpu"))
    model = PromptModel(lm)
    answers = Verbalizer.from_words({"a": "good", "b": "bad"})
    number = model.add(Task("speed", Template.parse(TEMPLATE), verbalizer=answers))
    rows = [{"text": "word " * WORDS, "label": "ab"[i % 2]} for i in range(ROWS)]
    settings = TrainConfig(batch_size=ROWS)
    training = PromptTraining(
        model, number, rows, dev=rows[:2], config=settings, tune="prompt", unlabeled=[]
    )
    take_step(model, [training], settings, ranks)  # it warms up
    exchanged = {"exchange": 0.0, "bytes": 0.0}
    all_reduce = distributed.all_reduce

    def timed(values: torch.Tensor, *more: Any, **options: Any) -> Any:
        began = time.monotonic()
        result = all_reduce(values, *more, **options)
        exchanged["exchange"] += (time.monotonic() - began) / STEPS
        exchanged["bytes"] += values.nbytes / STEPS
        return result

    steps = []
    with mock.patch.object(distributed, "all_reduce", timed):
        for _ in range(STEPS):
            began = time.monotonic()
            take_step(model, [training], settings, ranks)
            steps.append(time.monotonic() - began)
    return {"step": statistics.median(steps), **exchanged}


if __name__ == "__main__":
    if sys.argv[1] == "process":
        process(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
