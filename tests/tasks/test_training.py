"""Training a task from its file: what is saved, and what is not."""
import json

import pytest
import tiny

from ptune.errors import ConfigError, DataError, DivergedError
from ptune.metrics import labelled
from ptune.saving import load
from ptune.tasks import described
from ptune.tasks.training import train

TOWNS = ("Vienna", "Rome", "Paris", "Berlin", "London", "Madrid")
YAML = """
name: towns
template: "{soft:2} {x} is {mask}"
labels: {a: great, b: bad}
data: {train: rows.jsonl, dev: rows.jsonl, test: rows.jsonl}
lm: ./lm
encoder: lstm
train: {epochs: 2, batch_size: 4}
device: cpu
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny LM's folder, and rows of two users and two labels."""
    path = tmp_path_factory.mktemp("world")
    for part in tiny.tiny("bert"):
        part.save_pretrained(path / "lm")
    rows = [{"x": f"{town} film", "label": "ab"[number % 2], "user": user}
            for number, town in enumerate(TOWNS) for user in ("anna", "bob")]
    (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def task(world, out, text=YAML, **more):
    (world / "task.yaml").write_text(text)
    return described.read(world / "task.yaml").model_copy(update={"out": out, **more})


@pytest.mark.parametrize("method, key", [("p-tuning", "learning_rate"), ("fine-tune", "lm_learning_rate")])
def test_what_diverged_before_its_first_look_is_not_saved(world, tmp_path, method, key):
    text = YAML.replace("batch_size: 4", f"batch_size: 4, clip: 0, {key}: 1.0e+30") + f"method: {method}\n"
    text = text if method == "p-tuning" else text.replace("{soft:2} ", "")
    with pytest.raises(DivergedError, match=rf"training of towns diverged .* lower {key} \(it is 1e\+30\)"):
        train(task(world, tmp_path / "out", text), lambda _: None)
    left = [path.name for path in tmp_path.rglob("*") if path.name in ("prompt.json", "run.json", "model.safetensors")]
    assert not left


def test_of_many_prompts_those_that_did_not_diverge_are_saved(world, tmp_path, monkeypatch):
    from ptune.tasks import training
    real = training.fit

    def spoilt(model, data, *given, **more):
        trained = real(model, data, *given, **more)
        trained[1].best, trained[1].diverged = None, True
        raise DivergedError("The training of towns/bob diverged.", trained)

    monkeypatch.setattr(training, "fit", spoilt)
    with pytest.raises(DivergedError, match="towns/bob diverged. All other prompts are saved."):
        train(task(world, tmp_path / "out", YAML + "prompt_by: user\n"), lambda _: None)
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    saved = [json.loads(path.read_text()) for path in tmp_path.rglob("prompt.json")]
    assert run["lost"] == ["towns/bob"] and run["diverged"] == [] and 0 <= run["figures"]["accuracy"] <= 1 and len(saved) == 1


@pytest.mark.parametrize("metrics, message", [
    ("f1a", "f1a is MultiRC's"), ("f1", "f1:a or f1:b"), ("recall:c", "a label that is not there"), ("acuracy", "Did you mean 'accuracy'"),
    ("em", "Row 1 has no 'group'"), ("bleu", "no metric 'bleu' of labelled rows")])
def test_metrics_are_checked_before_anything_is_trained(world, tmp_path, metrics, message, monkeypatch):
    monkeypatch.setattr("ptune.tasks.training.LanguageModel", None)
    with pytest.raises((ConfigError, DataError), match=message):
        train(task(world, tmp_path / "out", YAML + f"metrics: [accuracy, {metrics}]\n"), lambda _: None)


def test_what_was_really_used_is_recorded_and_told(world, tmp_path):
    said = []
    run = train(task(world, tmp_path / "a", YAML.replace("epochs: 2,", "steps: 7, patience: 0,")), said.append)
    assert run.steps == {"towns": 7} and (run.train["steps"], run.train["epochs"], run.train["learning_rate"]) == (7, None, 1e-3)
    run = train(task(world, tmp_path / "b", YAML.replace("epochs: 2,", "epochs: 2, steps: 70, patience: 0,")), said.append)
    assert run.steps == {"towns": 6} and "towns had 6 steps at most, and not the 70 that are asked for, since epochs is 2." in said
    run = train(task(world, tmp_path / "c", YAML.replace("epochs: 2,", "epochs: 90, patience: 1, learning_rate: 0.1,")), said.append)
    assert run.steps["towns"] < 270 and any(f"stopped by patience at step {run.steps['towns']} of 270" in line for line in said)


def test_metrics_of_labels_are_those_of_the_answers(world, tmp_path):
    names = ["accuracy", "f1:b", "precision:b", "recall:b", "f1-macro", "f1-weighted", "mcc", "auc", "auc:a"]
    out = tmp_path / "out"
    run = train(task(world, out, YAML + f"metrics: {json.dumps(names)}\n"), lambda _: None)
    rows = [json.loads(line) for line in (world / "rows.jsonl").read_text().splitlines()]
    answers = load(out, device="cpu").predict(rows)
    shares = [[answer["scores"][label] for label in "ab"] for answer in answers]
    wanted = labelled(names, rows, [answer["prediction"] for answer in answers], labels=("a", "b"), shares=shares)
    assert list(run.figures) == names and run.figures == pytest.approx(wanted)
