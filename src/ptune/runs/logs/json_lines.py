"""A log as JSON lines: one file, each line an entry."""

import json
import math
import os
import pathlib
from typing import TextIO

from ptune.base import files
from ptune.runs.logs.training_log import LogEntry


class JsonLinesLog:
    """Entries as lines of a file, such as {"training": "rte", "task": "rte", "step": 10, "loss":
    0.61}; a figure that is no finite number is null."""

    def __init__(self, file: pathlib.Path):
        self.file = file
        self.stream: TextIO | None = None

    def begin(self, training: str, step: int) -> None:
        """Take out what a killed run wrote of later steps, and of a line that it did not end."""
        self.close()
        if self.file.exists():
            self._leave_out(training, step)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.stream = open(self.file, "a", encoding="utf-8")  # noqa: SIM115

    def _leave_out(self, training: str, step: int) -> None:
        with open(self.file, encoding="utf-8", errors="replace") as lines:
            if all(_stays(line, training, step) for line in lines):
                return

        def put(temporary: str) -> None:
            with (
                open(self.file, encoding="utf-8", errors="replace") as lines,
                open(temporary, "w", encoding="utf-8") as kept,
            ):
                kept.writelines(line for line in lines if _stays(line, training, step))

        files.write(self.file, put)

    def write(self, entry: LogEntry) -> None:
        """Append a line."""
        figures = {
            name: value if math.isfinite(value) else None for name, value in entry.figures.items()
        }
        names = {"training": entry.training, "task": entry.task, "step": entry.step}
        texts = {"texts": list(entry.texts)} if entry.texts else {}
        line = {**names, **figures, **texts}
        assert self.stream is not None
        self.stream.write(json.dumps(line, ensure_ascii=False) + "\n")

    def flush(self) -> None:
        """Bring the lines to the disk."""
        if self.stream is not None:
            self.stream.flush()
            os.fsync(self.stream.fileno())

    def close(self) -> None:
        """Close the file."""
        if self.stream is not None:
            self.flush()
            self.stream.close()
            self.stream = None


def _stays(line: str, training: str, step: int) -> bool:
    """Whether a line is whole, and of another training or of a step that is not taken again."""
    try:
        entry = json.loads(line)
        is_kept = entry["training"] != training or entry["step"] <= step
        return line.endswith("\n") and is_kept
    except (ValueError, KeyError, TypeError):
        return False
