"""The entries of one training: gathered step by step, and fetched from the device once a second, so
that a GPU need not wait for every step's figures."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ptune.runs.logs.training_log import LogEntry, TrainingLog

SECONDS = 1.0  # between two times that figures are fetched


class StepLog:
    """What one training tells its logs. Without logs nothing is gathered."""

    def __init__(self, logs: Sequence[TrainingLog], training: str, step: int):
        self.logs, self.training = logs, training
        self.pending: list[tuple[str, int, Mapping[str, Any]]] = []
        self.tokens, self.window_began = 0, time.monotonic()
        for log in logs:
            log.begin(training, step)

    def add(self, task: str, step: int, figures: Mapping[str, Any]) -> None:
        """Gather a step's figures, numbers or tensors, which are fetched later."""
        self.pending.append((task, step, figures))

    def count(self, tokens: int) -> None:
        """Count the tokens of a joint step, and write what was gathered if a second has passed."""
        self.tokens += tokens
        if time.monotonic() - self.window_began >= SECONDS:
            self.write_steps()

    def write_steps(self) -> None:
        """Write what was gathered. The last step's entries say how many tokens a second there
        were."""
        entries = [
            LogEntry(self.training, task, step, numbers(figures))
            for task, step, figures in self.pending
        ]
        seconds = max(time.monotonic() - self.window_began, 1e-9)
        speed = {"tokens_per_second": self.tokens / seconds}
        last = entries[-1].step if entries else 0
        for entry in entries:
            if entry.step == last:
                entry = LogEntry(entry.training, entry.task, last, {**entry.figures, **speed})
            self._write(entry)
        self.pending = []
        self.restart_clock()

    def write_evaluation(
        self, task: str, step: int, figures: Mapping[str, Any], texts: Sequence[str]
    ) -> None:
        """Write what an evaluation gave."""
        self._write(
            LogEntry(
                training=self.training, task=task, step=step, figures=numbers(figures), texts=texts
            )
        )

    def restart_clock(self) -> None:
        """Count tokens a second from now on: an evaluation or a checkpoint took the time before."""
        self.tokens, self.window_began = 0, time.monotonic()

    def flush(self) -> None:
        """Bring all entries to where they are kept."""
        self.write_steps()
        for log in self.logs:
            log.flush()

    def _write(self, entry: LogEntry) -> None:
        for log in self.logs:
            log.write(entry)


def numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    """Figures as numbers, fetched from where they are computed."""
    return {name: float(value) for name, value in figures.items()}
