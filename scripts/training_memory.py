"""Measures the memory of a training beside what ``ptune train --estimate`` says.

    python scripts/training_memory.py TASK.yaml [OPTIONS]

Prints, in MiB, how much the process grew by loading the LM, and at most by the training's first
steps (resident memory, looked at every two milliseconds), and both together. It keeps nothing.
"""

import sys
import threading
import time

import psutil

from ptune.cli.train import read_task
from ptune.experiments.train import train_model, train_setup
from ptune.experiments.train.train_rows import TaskRows
from ptune.tasks.resolved import resolve
from ptune.training.loop import fit

STEPS = 3
MIB = 2**20


class Peak:
    """The most resident memory while this is open."""

    def __enter__(self) -> "Peak":
        self.process, self.most, self.is_open = psutil.Process(), 0, True
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while self.is_open:
            self.most = max(self.most, self.process.memory_info().rss)
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self.is_open = False
        self.thread.join()


def main(arguments: list[str]) -> None:
    """Load, train a few steps, and print how the memory grew."""
    parts = resolve.training(read_task(arguments))
    rows = TaskRows.read(parts.form, parts.data, print)
    settings = parts.train.model_copy(update={"steps": STEPS, "epochs": None})
    process = psutil.Process()
    before = process.memory_info().rss
    with Peak() as loading:
        lm = train_setup.load_lm(parts.source, parts.method)
    loaded = process.memory_info().rss
    with Peak() as training:
        model, tasks = train_model.build(
            lm,
            rows.by_prompt["train"],
            form=parts.form,
            method=parts.method,
            learning=parts.learning,
            output=parts.output,
        )
        data = {
            task: (rows.of("train", name), rows.of("dev", name)) for name, task in tasks.items()
        }
        fit(model, data, settings, tune=parts.method.tune)
    together = max(loading.most, training.most) - before
    print(f"loading {(loaded - before) / MIB:.1f}, training {(training.most - loaded) / MIB:.1f}")
    print(f"together {together / MIB:.1f} MiB")


if __name__ == "__main__":
    main(sys.argv[1:])
