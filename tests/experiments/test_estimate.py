"""The memory of a training, before its LM is loaded."""

import functools
import json
import types

import psutil
import pytest
import tiny
import torch
import yaml

from ptune.cli import main
from ptune.errors import ConfigError, PtuneError
from ptune.experiments.estimate import batch_size
from ptune.experiments.estimate.batch_size import SHARE, largest
from ptune.experiments.estimate.estimate import KEPT_FREE, LIBRARIES, estimate, estimate_of
from ptune.experiments.estimate.live_memory import LiveMemory
from ptune.experiments.estimate.memory_of_training import PromptShape, StepShape, memory_of_step
from ptune.experiments.train import train_model, train_setup, train_task
from ptune.settings import TrainConfig
from ptune.tasks import yaml_task
from ptune.tasks.resolved import resolve
from ptune.tasks.schema import TaskConfig

TASK = """
name: towns
template: "{soft:2} {x} is {mask}"
labels: {a: great, b: bad}
data: {train: rows.jsonl, dev: rows.jsonl}
lm: ./lm
encoder: table
train: {steps: 2, batch_size: 4}
device: cpu
"""
KINDS = {"bert": "masked", "gpt2": "causal", "t5": "encoder-decoder"}


def test_live_memory_counts_what_lives_at_once():
    with LiveMemory() as live:
        first = torch.zeros(256)
        second = torch.ones(256)
        del first
        third = second.view(16, 16) + 1
    assert live.peak == live.now == 2048
    del second, third
    assert live.now == 0


@pytest.mark.parametrize("family", list(KINDS))
def test_parts_are_those_of_the_lm(family):
    """Weights to the byte; more rows take more activations, and layers computed again fewer."""
    network, _ = tiny.tiny(family)
    weights = sum(parameter.nbytes for parameter in network.parameters())

    def of(rows, tunes_lm=False, **settings):
        shape = StepShape(rows, 40, 1, 2 if family == "t5" else 0)
        return memory_of_step(
            config=network.config,
            kind=KINDS[family],
            dtype=torch.float32,
            shape=shape,
            prompt=PromptShape(3),
            tunes_lm=tunes_lm,
            settings=TrainConfig(**settings),
        )

    one, two = of(8), of(16)
    width = network.get_input_embeddings().weight.shape[1]
    buffers = sum(buffer.nbytes for buffer in network.buffers())
    assert one.weights == pytest.approx(weights + buffers, rel=0.01)
    assert one.prompt == 3 * 3 * width * 4 and one.optimiser == 2 * 3 * width * 4
    assert 1.6 < two.activations / one.activations < 2.1
    assert of(16, recompute=True).activations < 0.9 * two.activations
    tuned = of(8, tunes_lm=True)
    assert tuned.tuned_lm == pytest.approx(2 * weights, rel=0.01)
    assert tuned.optimiser == pytest.approx(2 * weights + one.optimiser, rel=0.01)


def test_gates_that_read_rows_cost_a_prefix_for_each_row():
    """Kept for the backward pass: each row's prefix, and its embeddings' part in each gate."""
    network, _ = tiny.tiny("gpt2")

    def of(rows, gates):
        return memory_of_step(
            config=network.config,
            kind="causal",
            dtype=torch.float32,
            shape=StepShape(rows, 40, 1),
            prompt=PromptShape(0, deep=30, gates=gates),
            tunes_lm=False,
            settings=TrainConfig(),
        )

    layers, width = network.config.n_layer, network.config.n_embd
    plain, gated, by_row = (of(8, gates) for gates in (False, True, "row"))
    assert gated.prompt == plain.prompt + 3 * layers * 4
    assert by_row.prompt == gated.prompt + 3 * layers * width * 4
    of_a_row = 30 * 2 * layers * width * 4
    assert by_row.activations >= plain.activations + 2 * 8 * of_a_row
    twice = of(16, "row").activations - of(16, False).activations
    assert 1.8 < twice / (by_row.activations - plain.activations) < 2.2


@pytest.fixture
def task(tmp_path):
    for part in tiny.tiny("bert"):
        part.save_pretrained(tmp_path / "lm")
    rows = [{"x": "Vienna film " * n, "label": label} for n, label in ((1, "a"), (4, "b"))]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.yaml").write_text(TASK)
    return yaml_task.read(tmp_path / "task.yaml")


def test_a_task_is_estimated_from_its_longest_row_without_weights(task, tmp_path):
    (tmp_path / "lm" / "model.safetensors").unlink()
    lines = []
    result = estimate(task, lines.append)
    assert (result.shape.rows, result.shape.tokens) == (4, 14)
    assert lines[0] == "4 rows of 14 tokens run at once:"
    memory = result.memory
    total = memory.total + LIBRARIES + round(KEPT_FREE * memory.activations)
    assert lines[-1].split() == ["together", f"{total / 2**20:.1f}", "MiB"]


@pytest.mark.parametrize("family", ["gpt2", "bert"])
@pytest.mark.parametrize(
    "changes", [{}, {"loss": "vocabulary"}, {"reading": {"domain": "is {mask}"}}, {"choices": "c"}]
)
def test_rows_are_counted_as_the_lm_gets_them(family, changes, task, tmp_path):
    """Labels of several tokens need a row each where the LM reads from left to right."""
    for part in tiny.tiny(family):
        part.save_pretrained(tmp_path / "lm")
    choices = ["great film", "bad city film", "Rome"]
    rows = [{"x": "Vienna film", "label": label, "c": choices} for label in "ab"]
    changes = dict(changes)
    if "choices" in changes:
        rows = [{**row, "label": number} for number, row in enumerate(rows)]
        changes |= {"choices": ["c"]}
    else:
        changes["labels"] = {"a": ["great film"], "b": ["bad"], "c": ["Rome city"]}
        rows += [{**rows[0], "label": "c"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = {**yaml.safe_load(TASK), **changes}
    if "choices" in changes:
        del content["labels"]
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(content))
    config = yaml_task.read(tmp_path / "task.yaml")
    shape = estimate(config, lambda line: None).shape
    parts = resolve.training(config)
    lm = train_setup.load_lm(parts.source, parts.method)
    model, tasks = train_model.build(
        lm,
        {None: rows},
        form=parts.form,
        method=parts.method,
        learning=parts.learning,
        output=parts.output,
    )
    learned = [example.learn for example in model.encode(0, rows)]
    assert shape.rows == 4 * max(map(len, learned))
    if family == "gpt2" and "loss" not in changes:
        assert shape.rows > 4
    longest = max(row.size for forms in learned for row in forms)
    assert shape.tokens == longest or "loss" in changes


LONG = "great film in Rome and Vienna " * 40
WORDS = LONG.split()
FORMS = {
    "longer than the LM takes": {},
    "windows": {"reading": {"windows": "mean"}, "max_length": 24},
    "a text with its end": {"labels": None, "target": "text"},
    "the first tokens of a text": {"labels": None, "target": "text", "target_length": 2},
    "words": {
        "labels": ["O", "B-X"],
        "tag": "words",
        "target": "tags",
        "template": None,
        "max_length": 24,
    },
    "a part of a text": {
        "labels": None,
        "extract": "context",
        "target": "answer",
        "template": "{soft:2} {x} {context}",
        "max_length": 24,
    },
    "right spans alone": {"labels": None, "span": "text", "target": "ok"},
}


@pytest.mark.parametrize("family", ["gpt2", "bert"])
@pytest.mark.parametrize("form", list(FORMS))
def test_a_row_of_any_form_is_encoded_as_in_training(form, family, task, tmp_path):
    """In windows, cut to what the LM takes, with the tokens at which it is read."""
    if family == "bert" and "text" in form and "part" not in form:
        pytest.skip("a masked LM writes no texts")
    for part in tiny.tiny(family):
        part.save_pretrained(tmp_path / "lm")
    row = {"x": LONG, "label": "a", "text": "a great city", "ok": False, "answer": "Rome"}
    tagged = {"context": LONG, "words": WORDS, "tags": ["O"] * len(WORDS)}
    rows = [{**row, **tagged}, {**row, **tagged, "x": "Rome", "label": "b", "ok": True}]
    if form == "a part of a text":
        rows = [{**row, "x": "Rome"} for row in rows]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = {**yaml.safe_load(TASK), "template": "{soft:2} {x|shorten} is {mask}"} | FORMS[form]
    content["train"]["batch_size"] = 1
    content = {key: value for key, value in content.items() if value is not None}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(content))
    config = yaml_task.read(tmp_path / "task.yaml")
    shape = estimate(config, lambda line: None).shape
    parts = resolve.training(config)
    model, _ = train_model.build(
        train_setup.load_lm(parts.source, parts.method),
        {None: rows},
        form=parts.form,
        method=parts.method,
        learning=parts.learning,
        output=parts.output,
    )
    most = max((example.learn for example in model.encode(0, rows)), key=len)
    if "windows" in form or "words" in form or "part" in form:
        assert shape.rows > 4
    assert shape.rows == len(most)
    assert shape.tokens == max(row.size for row in most)
    assert shape.answers == max(len(row.answer_positions) * row.is_scored for row in most)


def test_of_a_table_no_file_is_written_for_an_estimate(tmp_path, capsys):
    table = tmp_path / "rows.csv"
    table.write_text("text,label\ngreat,a\nbad,b\n")
    with pytest.raises(SystemExit) as ended:
        main.main(["train", str(table), "--estimate"])
    assert ended.value.code == 2 and "make one of" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_a_method_of_several_trainings_is_not_estimated(task):
    with pytest.raises(ConfigError, match="of one training .* method pet"):
        estimate(task.model_copy(update={"method": "pet"}))


def of_machine(monkeypatch, megabytes):
    memory = types.SimpleNamespace(available=int(megabytes * 2**20))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


def test_the_estimate_of_a_task_counts_its_gates(task):
    def of(gates):
        changes = {"template": "{prefix:30} {x} is {mask}", "method": "p-tuning-v2"}
        gated = task.prefix.model_copy(update={"gates": gates})
        config = task.model_copy(update={**changes, "encoder": None, "prefix": gated})
        return estimate(config, lambda _: None).memory

    assert of(False).prompt < of(True).prompt < of("row").prompt
    assert of(True).activations < of("row").activations


def test_the_largest_batch_that_fits_is_taken_and_kept(task, tmp_path, monkeypatch):
    rows = [{"x": "Vienna film " * 4, "label": "ab"[i % 2]} for i in range(23)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = []
    config = task.model_copy(update={"out": tmp_path / "out"})
    config = TaskConfig.model_validate(
        {**config.model_dump(exclude_unset=True), "train": {"batch_size": "auto", "steps": 1}}
    )
    parts = resolve.training(config)
    once = functools.cache(lambda size: estimate_of(parts, rows, size))
    totals = {size: once(size).total / 2**20 for size in (1, 4, 8, 16)}
    with monkeypatch.context() as patch:
        patch.setattr(batch_size, "estimate_of", lambda parts, rows, size: once(size))
        fitting = {16: 1000.0, 8: totals[8] / SHARE + 0.01, 4: totals[8] / SHARE - 0.01}
        for size, free in fitting.items():
            of_machine(patch, free)
            assert largest(parts, rows, said.append) == size
        assert said[-1].startswith(f"Batch size 4: {totals[4]:.0f} MiB by estimate")
        of_machine(patch, totals[1])
        with pytest.raises(ConfigError, match="finds no batch that fits: one row takes"):
            largest(parts, rows, said.append)
    of_machine(monkeypatch, totals[8] / SHARE + 0.01)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train_task, "_fit", interrupt)
        train_task.train(config, said.append)
    of_machine(monkeypatch, 1000.0)
    again = config.model_copy(update={"resume": True})
    assert train_task.train(again, said.append).train["batch_size"] == 8


def interrupt(*arguments):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "manual"}, "manual trains nothing"),
        ({"method": "pet"}, "of one training .* method pet"),
        ({"prompts": 2}, "trains several in one batch"),
    ],
)
def test_what_is_not_estimated_finds_no_batch_size(task, changes, message):
    raw = {**task.model_dump(exclude_unset=True), "train": {"batch_size": "auto"}, **changes}
    with pytest.raises(ConfigError, match=message):
        train_task.train(TaskConfig.model_validate(raw), lambda line: None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "manual"}, "manual trains nothing"),
        ({"tune": "head"}, "trains a head alone"),
        ({"template": "{x} is {mask}"}, "has no soft tokens and no prefix"),
        ({"prompts": 2}, "trains several in one batch"),
        ({"train": {"learning_rate": "auto"}}, "trains several in one batch"),
        ({"train": {"batch_size": "auto"}}, "--estimate is of a batch size"),
        ({"data": {}}, "has no rows to train on"),
    ],
)
def test_what_is_no_training_of_one_prompt_is_not_estimated(task, changes, message):
    config = TaskConfig.model_validate({**task.model_dump(exclude_unset=True), **changes})
    with pytest.raises(PtuneError, match=message):
        estimate(config, lambda line: None)
