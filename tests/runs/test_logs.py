"""What trainings tell while they run: every step once, also after a kill, and no result changes."""

import json
import math

import pytest
import torch

from ptune.errors import ConfigError
from ptune.runs.logs.json_lines import JsonLinesLog
from ptune.runs.logs.open_logs import check_logs, opened_logs
from ptune.runs.logs.services import ServiceLog
from ptune.runs.logs.step_log import StepLog
from ptune.runs.logs.training_log import LogEntry


def entry(step, training="rte", **figures):
    return LogEntry(training, "rte", step, figures or {"loss": 1 / step})


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_what_a_killed_run_wrote_of_later_steps_is_left_out(tmp_path):
    """Of this training alone; a line that the kill cut in two is left out too."""
    file = tmp_path / "log.jsonl"
    log = JsonLinesLog(file)
    for training in ("rte", "other"):
        log.begin(training, 0)
        for step in (1, 2, 3):
            log.write(entry(step, training))
    log.close()
    file.write_text(file.read_text() + '{"training": "rte", "ste')
    log.begin("rte", 2)
    log.write(entry(3, loss=math.nan))
    log.close()
    kept = lines(file)
    assert [line["step"] for line in kept if line["training"] == "other"] == [1, 2, 3]
    assert [line["loss"] for line in kept if line["training"] == "rte"] == [1, 0.5, None]


def test_figures_of_steps_wait_until_they_are_written(tmp_path):
    """Tensors are fetched together, and the last step says how fast it went."""
    with opened_logs(("jsonl", "jsonl"), tmp_path, {}) as logs:
        log = StepLog(logs, "rte", 0)
        for step in (1, 2):
            log.add("rte", step, {"loss": torch.tensor(0.5 * step)})
            log.count(100)
        assert not (tmp_path / "log.jsonl").read_text()
        log.flush()
    first, second = lines(tmp_path / "log.jsonl")
    assert first == {"training": "rte", "task": "rte", "step": 1, "loss": 0.5}
    assert second["loss"] == 1 and second["tokens_per_second"] > 0


def test_a_log_whose_package_is_absent_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_logs(("jsonl",))
    with pytest.raises(ConfigError, match="needs the package wandb.* pip install wandb"):
        check_logs(("jsonl", "wandb"))


class Service:
    """A stand-in for trackio: a run that goes on knows its steps."""

    def __init__(self, known):
        self.known, self._next_step, self.ended = known, max(known, default=-1) + 1, False

    def log(self, values, step):
        self.known.append(step)

    def finish(self):
        self.ended = True


def test_a_service_gets_no_step_twice(tmp_path, monkeypatch):
    """A run of the same folder and training goes on under the same name."""
    kept = {}

    def init(name, **_):
        return Service(kept.setdefault(name, []))

    monkeypatch.setattr("importlib.import_module", lambda name: type("M", (), {"init": init}))
    for begun, steps in ((0, (1, 2, 3)), (1, (2, 3, 4))):
        log = ServiceLog("trackio", tmp_path, {"lm": "builtin"})
        log.begin("rte", begun)
        for step in steps:
            log.write(entry(step))
        log.close()
    assert list(kept.values()) == [[1, 2, 3, 4]]


def test_tensorboard_shows_each_step_once(tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is absent"
    )
    for begun, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        with opened_logs(("tensorboard",), tmp_path, {}) as (log,):
            log.begin("rte", begun)
            for step in steps:
                log.write(entry(step))
    (folder,) = (tmp_path / "tensorboard").iterdir()
    events = event_accumulator.EventAccumulator(str(folder)).Reload().Scalars("loss/rte")
    assert [event.step for event in events] == [1, 2, 3, 4]
