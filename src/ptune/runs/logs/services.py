"""Logs that other programs show: TensorBoard, trackio and Weights & Biases. Each is imported when a
training begins, and none is needed without it."""

import contextlib
import importlib
import math
import pathlib
import secrets
import sys
from collections.abc import Mapping
from typing import Any

from ptune.base import files
from ptune.base.file_names import file_name
from ptune.runs.logs.training_log import LogEntry

PROJECT = "ptune"


class TensorBoardLog:
    """Event files, a folder for each training; ``tensorboard --logdir FOLDER`` shows them."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.writer: Any = None

    def begin(self, training: str, step: int) -> None:
        """Begin a file; what a killed run wrote of later steps is marked as void."""
        from torch.utils.tensorboard import SummaryWriter

        self.close()
        place = self.folder / file_name(training)
        self.writer = SummaryWriter(str(place), purge_step=step + 1 if place.exists() else None)

    def write(self, entry: LogEntry) -> None:
        """Write each figure as loss/TASK, dev_score/TASK, ..."""
        for name, value in entry.figures.items():
            self.writer.add_scalar(f"{name}/{entry.task}", value, entry.step)
        for number, text in enumerate(entry.texts, 1):
            self.writer.add_text(f"text {number}/{entry.task}", text, entry.step)

    def flush(self) -> None:
        """Bring the events to the disk."""
        if self.writer is not None:
            self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


class ServiceLog:
    """Runs of trackio or of Weights & Biases, whose interfaces are alike: a run for each training,
    which goes on under the same name after a kill. Steps that such a run has already are not sent
    again: when they are taken again they give the same figures."""

    def __init__(self, service: str, folder: pathlib.Path, settings: Mapping[str, Any]):
        self.service, self.settings = service, dict(settings)
        self.names = folder / f"log-{service}.json"
        self.run: Any = None
        self.first = 0

    def begin(self, training: str, step: int) -> None:
        """Begin a run, or go on with the one that this folder names for the training."""
        self.close()
        name = self._name_of(training)
        same = {"id": name, "dir": str(self.names.parent)} if self.service == "wandb" else {}
        with contextlib.redirect_stdout(sys.stderr):  # where a command's result is not printed
            self.run = importlib.import_module(self.service).init(
                project=PROJECT, name=name, config=self.settings, resume="allow", **same
            )
        self.first = self.run.step if self.service == "wandb" else self.run._next_step

    def _name_of(self, training: str) -> str:
        """The name of a training's run, which no other folder's run has."""
        names = files.read_json(self.names) if self.names.exists() else {}
        if training not in names:
            names[training] = f"{file_name(training)}-{secrets.token_hex(4)}"
            files.write_json(self.names, names)
        return str(names[training])

    def write(self, entry: LogEntry) -> None:
        """Send the figures of a step that the run does not have."""
        if entry.step < self.first:
            return
        values: dict[str, Any] = {
            f"{name}/{entry.task}": value
            for name, value in entry.figures.items()
            if math.isfinite(value)
        }
        values |= {
            f"text {number}/{entry.task}": text for number, text in enumerate(entry.texts, 1)
        }
        self.run.log(values, step=entry.step)

    def flush(self) -> None:
        """The service's own thread sends what it was given."""

    def close(self) -> None:
        """End the run, and wait until all is sent."""
        if self.run is not None:
            with contextlib.redirect_stdout(sys.stderr):
                self.run.finish()
            self.run = None
