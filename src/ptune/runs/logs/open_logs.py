"""The logs that a command's --log names."""

import contextlib
import importlib.util
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ptune.errors import ConfigError
from ptune.runs.logs.json_lines import JsonLinesLog
from ptune.runs.logs.services import ServiceLog, TensorBoardLog
from ptune.runs.logs.training_log import TrainingLog
from ptune.settings import LogName


def check_logs(names: Sequence[LogName]) -> None:
    """Refuse a log whose package is not installed, before anything is loaded.

    Raises:
        ConfigError: it is not.
    """
    for name in names:
        if name != "jsonl" and importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"--log {name} needs the package {name}, which is not installed: "
                f"pip install {name}, or take --log jsonl, which needs none."
            )


@contextlib.contextmanager
def opened_logs(
    names: Sequence[LogName], folder: pathlib.Path, settings: Mapping[str, Any]
) -> Iterator[list[TrainingLog]]:
    """The logs of a run, which are closed when it ends.

    Args:
        folder: the folder of the run: log.jsonl and tensorboard/ are written there, and the names
            of the runs that trackio or Weights & Biases keep.
        settings: what the run is, for those two.
    """
    logs = [_log(name, folder, settings) for name in dict.fromkeys(names)]
    try:
        yield list(logs)
    finally:
        for log in logs:
            log.close()


def _log(
    name: LogName, folder: pathlib.Path, settings: Mapping[str, Any]
) -> JsonLinesLog | TensorBoardLog | ServiceLog:
    if name == "jsonl":
        return JsonLinesLog(folder / "log.jsonl")
    if name == "tensorboard":
        return TensorBoardLog(folder / "tensorboard")
    return ServiceLog(name, folder, settings)
