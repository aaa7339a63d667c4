"""Workers on a Ray cluster answer a table as one process does."""

import contextlib
import importlib.util
import json
import os
import signal
import time

import psutil
import pytest
import tiny

from ptune.answers.label_words import Verbalizer
from ptune.errors import ConfigError, DataError
from ptune.experiments.answering import generate, predict
from ptune.experiments.cluster import ray_answers
from ptune.experiments.options import GenerateConfig, PredictConfig
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel
from ptune.model.task import Task
from ptune.storage import prompt_folder
from ptune.template.language import Template

WORDS = "great terrible film best worst Vienna Rome bad Привет".split()
ROWS = [
    {"id": number, "text": f"{WORDS[number % 9]} {WORDS[number * number % 7]}"}
    for number in range(40)
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A prompt on an LM of its own, and rows in two files."""
    network, tokenizer = tiny.tiny("bert")
    network.save_pretrained(tmp_path / "LM")
    tokenizer.save_pretrained(tmp_path / "LM")
    model = PromptModel(LanguageModel.load(str(tmp_path / "LM"), device="cpu"))
    words = Verbalizer(("good", "bad"), (("great",), ("bad",)))
    model.add(Task("t", Template.parse("{soft:2} {text} {mask}"), words, encoder="table"))
    prompt_folder.save(model, tmp_path / "prompt")
    write(tmp_path, ROWS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, rows):
    (folder / "rows").mkdir(exist_ok=True)
    for number, part in enumerate((rows[:15], rows[15:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / "rows" / f"{number}.jsonl").write_text(lines)


def predicted(folder, out="out", **more):
    lines: list[str] = []
    given = {"prompt": "prompt", "data": "rows", "shard_rows": 4, "device": "cpu", **more}
    predict.predict(PredictConfig(out=out, **given), lines.append)
    return lines


def contents(folder):
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name != "settings.json"
    }


def test_options_of_a_cluster_are_refused_before_an_lm_is_loaded(folder, monkeypatch):
    monkeypatch.setattr(generate, "load_model", lambda *given: pytest.fail("it was loaded"))
    monkeypatch.setattr(predict, "load_model", lambda *given: pytest.fail("it was loaded"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--workers are those on a Ray cluster"):
        predicted(folder, workers=2)
    with pytest.raises(ConfigError, match="name the cluster by --ray"):
        predicted(folder, ray_cpus=2)
    with pytest.raises(ConfigError, match=r"pip install 'ptune\[ray\]'.*One process needs none"):
        predicted(folder, ray="local")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    with pytest.raises(ConfigError, match="--ray is of answers that go into a folder"):
        predicted(folder, "out.jsonl", data="rows/0.jsonl", shard_rows=None, ray="local")
    with pytest.raises(ConfigError, match="--ray is of answers that go into a folder"):
        config = GenerateConfig(prompt="prompt", data="rows/0.jsonl", out="out.jsonl", ray="local")
        generate.generate(config)


@pytest.fixture
def in_turn(monkeypatch):
    """Workers of this process, in the place of a cluster's."""

    class Here:
        def __init__(self, make, count):
            self.workers = [ray_answers.Worker(make, 1) for _ in range(count)]

    pending = []

    def start(self):
        workers = []
        for worker in Here(self.make, self.count).workers:
            later = lambda *piece, worker=worker: pending.append(1) or (worker, piece)
            workers.append(type("Actor", (), {"answer": type("M", (), {"remote": later})}))
        self.workers = workers
        yield

    monkeypatch.setattr(ray_answers.RayAnswers, "started", contextlib.contextmanager(start))
    reply = lambda pending: _checked(pending[0].answer(*pending[1]))
    monkeypatch.setattr(ray_answers, "_reply", reply)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    return pending


def _checked(reply):
    if reply.fault is not None:
        raise reply.fault
    return reply


def test_pieces_come_back_in_order_with_all_that_was_noted(folder, in_turn):
    rows = [dict(row) for row in ROWS]
    rows[6] = {"id": 6}
    rows[30]["text"] = "\u200b"
    write(folder, rows)
    with open(folder / "rows" / "0.jsonl", "a") as stream:
        stream.write("no json\n")
    more = {"skip_bad_lines": True, "explain": True, "at_least": 0.5000001}
    plain = predicted(folder, "plain", **more)
    lines = predicted(folder, ray="local", workers=3, **more)
    assert contents(folder / "out") == contents(folder / "plain")
    assert lines == [line.replace("plain", "out") for line in plain]
    assert len(in_turn) == 11 and len(lines) > 2
    assert any("visible sign" in line for line in lines)


def test_a_bad_row_ends_it_behind_the_pieces_before_it(folder, in_turn):
    rows = [dict(row) for row in ROWS]
    rows[22] = {"id": 22}
    write(folder, rows)
    for out, more in (("plain", {}), ("out", {"ray": "local", "workers": 2})):
        with pytest.raises(Exception, match="lacks|no field|text") as refused:
            predicted(folder, out, **more)
        assert "--resume goes on behind them" in str(refused.value)
    assert contents(folder / "out") == contents(folder / "plain")
    with open(folder / "rows" / "0.jsonl", "a") as stream:
        stream.write("no json\n")
    with pytest.raises(DataError, match="line 16"):
        predicted(folder, "other", ray="local", workers=2)
    assert len(list((folder / "other").glob("part-*"))) == 3


def needs_ray():
    pytest.importorskip("ray", reason="ray is not installed")


def test_a_cluster_answers_as_one_process_does_though_a_worker_is_killed(folder, monkeypatch):
    needs_ray()
    predicted(folder, "plain", explain=True)
    seen = []
    answered = ray_answers._answered

    def killing_one(*given):
        if not seen:
            children = psutil.Process().children(recursive=True)
            names = [c for c in children if "Worker" in " ".join(c.cmdline()[:1])]
            for child in names[:1]:
                os.kill(child.pid, signal.SIGKILL)
            seen.append(len(names))
            time.sleep(0.2)
        return answered(*given)

    monkeypatch.setattr(ray_answers, "_answered", killing_one)
    predicted(folder, explain=True, ray="local", workers=2)
    assert seen[0] >= 1
    assert contents(folder / "out") == contents(folder / "plain")


def test_an_address_without_a_cluster_is_told(folder):
    needs_ray()
    with pytest.raises(ConfigError, match="no Ray cluster at auto"):
        predicted(folder, ray="auto")
