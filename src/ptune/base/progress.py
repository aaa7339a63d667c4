"""The progress of long work: a bar in a terminal, elsewhere a line every half minute."""

import sys
import time
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from ptune.base import terminal

SECONDS_BETWEEN_LINES = 30
SECONDS_BETWEEN_FIGURES = 0.25  # in a bar: fetching one waits for the device that computes it


class Progress:
    """Shows the steps taken, current figures (loss, dev score) and the remaining time on standard
    error, unless it is to be silent."""

    def __init__(self, label: str, total: int, done: int = 0, silent: bool = False):
        self.label, self.total, self.done, self.done_before = (
            terminal.clean(label),
            total,
            done,
            done,
        )
        self.figures: dict[str, Any] = {}
        self.began = self.spoke = time.monotonic()
        self.bar, self.silent = None, silent
        if sys.stderr.isatty() and not silent:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}", markup=False),
            )
            self.bar = RichProgress(*columns, console=terminal.Console(stderr=True))
            self.task = self.bar.add_task(self.label, total=total, completed=done, figures="")

    def __enter__(self) -> "Progress":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.update(self.task, figures=self._figures())
            self.bar.stop()

    def advance(self, steps: int = 1, **figures: Any) -> None:
        """Count steps; ``figures`` are shown until others of the same name come."""
        self.done += steps
        self.figures |= figures
        now = time.monotonic()
        if self.bar:
            self.bar.update(self.task, completed=self.done)
            if now - self.spoke > SECONDS_BETWEEN_FIGURES:
                self.spoke = now
                self.bar.update(self.task, figures=self._figures())
        elif now - self.spoke > SECONDS_BETWEEN_LINES and not self.silent:
            self.spoke = now
            seconds_left = (
                (now - self.began) / max(1, self.done - self.done_before) * (self.total - self.done)
            )
            parts = [
                f"{self.label}: {self.done}/{self.total}",
                self._figures(),
                f"{_minutes(seconds_left)} left",
            ]
            terminal.warn(", ".join(filter(None, parts)))

    def _figures(self) -> str:
        """The figures as text, for which their values are fetched from where they are computed."""
        return " ".join(f"{name} {float(value):.3f}" for name, value in self.figures.items())


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
