"""What dev rows say about probabilities goes with the prompt, into every answer of it."""

import json

import pytest
import tiny
import torch

from ptune.errors import ConfigError, PtuneError, StoreError
from ptune.experiments.answering import evaluate, predict
from ptune.experiments.options import EvaluateConfig, PredictConfig
from ptune.experiments.train import train_task
from ptune.lm.language_model import LanguageModel
from ptune.model.confidence import fit_confidence
from ptune.model.prompt_model import PromptModel
from ptune.settings import TrainConfig
from ptune.storage import prompt_folder
from ptune.tasks import model_task, task_members
from ptune.tasks.resolved import resolve
from ptune.tasks.schema import TaskConfig
from ptune.training.loop import fit

TEXTS = ["great film", "terrible film", "the best", "the worst", "Vienna is great", "bad Rome"]
ROWS = [
    {
        "text": f"{TEXTS[n % 6]} {TEXTS[n // 6]}",
        "label": "good" if n % 3 else "bad",
        "user": "ab"[n % 2],
    }
    for n in range(24)
]
RAW = {
    "name": "films",
    "template": "{soft:2} {text} {mask}",
    "labels": {"good": "great", "bad": "bad"},
    "encoder": "table",
    "train": {"steps": 2, "batch_size": 4, "learning_rate": 0.05},
    "metrics": ["accuracy", "ece", "brier"],
    "device": "cpu",
}


@pytest.fixture(scope="module")
def lm():
    return LanguageModel(*tiny.tiny("bert"))


def built(lm, prompts=1, **more):
    model, config = PromptModel(lm), TaskConfig.model_validate({**RAW, "prompts": prompts, **more})
    form, method = resolve.task_form(config), resolve.shown_method(config, lm)
    asked = {"method": method, "learning": resolve.learning(config)}
    for number, member in enumerate(task_members.members(form, method, lm) * prompts, 1):
        name = str(number) if prompts > 1 else None
        model_task.add(model, form, member, ROWS, name=name, **asked)
    return model


@pytest.mark.parametrize("prompts", [1, 2])
def test_a_temperature_corrects_every_answer_and_is_saved(lm, prompts, tmp_path):
    model = built(lm, prompts)
    before = model.predict(ROWS)
    fit_confidence(model, list(range(len(model.tasks))), ROWS)
    (confidence,) = {bound.confidence for bound in model.tasks}
    assert confidence.temperature != 1 and len(confidence.nonconformity) == len(ROWS)
    for raw, answer in zip(before, model.predict(ROWS, coverage=0.8)):
        shares = torch.tensor([raw["scores"][label] for label in ("good", "bad")])
        corrected = confidence.corrected(shares).tolist()
        assert answer["prediction"] == raw["prediction"]
        assert [answer["scores"][label] for label in ("good", "bad")] == pytest.approx(corrected)
        numbers = confidence.label_set(corrected, 0.8)
        assert answer["set"] == [("good", "bad")[number] for number in numbers]
    for number in range(len(model.tasks)):
        prompt_folder.save(model, tmp_path / str(number), task=number)
    loaded = prompt_folder.load([tmp_path / str(n) for n in range(len(model.tasks))], lm)
    assert [bound.confidence for bound in loaded.tasks] == [confidence] * len(model.tasks)
    assert loaded.predict(ROWS, coverage=0.8) == model.predict(ROWS, coverage=0.8)
    fit_confidence(model, list(range(len(model.tasks))), ROWS, scaled=False)
    assert [a["scores"] for a in model.predict(ROWS)] == [a["scores"] for a in before]


def test_nothing_is_kept_without_rows_or_labels_in_common_and_training_takes_it_away(lm):
    model = built(lm)
    fit_confidence(model, [0], ROWS)
    fit(model, {0: (ROWS, ROWS)}, TrainConfig(steps=1))
    assert model.tasks[0].confidence is None
    with pytest.raises(ConfigError, match="films keeps no scores of dev rows.*data.dev"):
        model.predict(ROWS, coverage=0.9)
    fit_confidence(model, [0], [])
    choices = built(lm, labels={}, choices=["text", "user"])
    fit_confidence(choices, [0], [{**row, "label": 0} for row in ROWS])
    assert model.tasks[0].confidence is None and choices.tasks[0].confidence is None
    with pytest.raises(ConfigError, match="films bring their own answers"):
        choices.predict(ROWS[:1], coverage=0.9)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"coverage": 0}, "coverage: Input should be greater than 0 .it is 0."),
        ({"coverage": 90}, "coverage: Input should be less than 1 .it is 90."),
        ({"coverage": float("nan")}, "coverage: Input should be a finite number"),
        ({"at_least": 75}, "at_least: Input should be less than or equal to 1 .it is 75."),
        ({"at_least": "much"}, "at_least: Input should be a valid number"),
    ],
)
def test_shares_that_are_none_are_refused_as_by_the_command(lm, asked, message, monkeypatch):
    model = built(lm)
    monkeypatch.setattr(type(model), "scores", None)
    for rows in (ROWS, []):
        with pytest.raises(ConfigError, match=message):
            model.predict(rows, **asked)
    with pytest.raises(ConfigError, match=message):
        model.answer(model.encode(0, ROWS[:1]), [torch.zeros(3)], **asked)
    with pytest.raises(ConfigError, match=message):
        PredictConfig(prompt="p", **asked)


def test_no_answer_is_given_below_a_probability(lm):
    model = built(lm)
    surest = max(max(answer["scores"].values()) for answer in model.predict(ROWS))
    answers = model.predict(ROWS, at_least=surest)
    assert [a["prediction"] is None for a in answers].count(False) >= 1
    assert all((a["prediction"] is None) == (max(a["scores"].values()) < surest) for a in answers)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Prompts that were trained with dev rows: of all rows, and of each user."""
    path = tmp_path_factory.mktemp("confidence")
    network, tokenizer = tiny.tiny("bert")
    network.save_pretrained(path / "lm")
    tokenizer.save_pretrained(path / "lm")
    file = path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    data = {"train": file, "dev": file, "test": file}
    for out, more in (("one", {}), ("users", {"prompt_by": "user"})):
        raw = {**RAW, "lm": str(path / "lm"), "data": data, "out": path / out, **more}
        train_task.train(TaskConfig.model_validate(raw), lambda line: None)
    return path


@pytest.mark.parametrize("out", ["one", "users"])
def test_what_is_saved_answers_and_is_scored_as_what_was_trained(folder, out, capsys):
    run = json.loads((folder / out / "run.json").read_text())
    asked = {"prompt": folder / out, "data": folder / "rows.jsonl", "device": "cpu"}
    figures = evaluate.evaluate(
        EvaluateConfig(**asked, coverage=0.8, at_least=0.6), lambda line: None
    )
    assert {name: figures[name] for name in run["figures"]} == pytest.approx(run["figures"])
    assert run["intervals"].keys() == run["figures"].keys()
    capsys.readouterr()
    said = []
    predict.predict(PredictConfig(**asked, coverage=0.8, at_least=0.6), said.append)
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    notes = [answer["ptune"] for answer in answers]
    right = [row["label"] in note["set"] for row, note in zip(ROWS, notes)]
    assert figures["coverage"] == sum(right) / len(ROWS) >= 0.75
    assert figures["set size"] == sum(len(note["set"]) for note in notes) / len(ROWS)
    sure = [n for n, note in enumerate(notes) if note["prediction"] is not None]
    assert all(max(notes[n]["scores"].values()) >= 0.6 for n in sure)
    assert figures["answered"] == len(sure) / len(ROWS)
    hits = [notes[n]["prediction"] == ROWS[n]["label"] for n in sure]
    assert figures.get("accuracy of the answered", 0) == (sum(hits) / len(hits) if hits else 0)
    without = len(ROWS) - len(sure)
    assert any(f"{without} row" in line and "--at-least" in line for line in said) == bool(without)


def test_a_table_has_an_empty_cell_where_no_answer_is_given(folder, tmp_path):
    asked = {"prompt": folder / "one", "data": folder / "rows.jsonl", "device": "cpu"}
    out = tmp_path / "answers.csv"
    predict.predict(PredictConfig(**asked, out=out, at_least=1.0, coverage=0.8), print)
    header, first = out.read_text().splitlines()[:2]
    assert header.endswith("ptune_prediction,ptune_probability,ptune_set")
    cells = first.split(",", 4)
    assert cells[3] == "" and float(cells[4].split(",", 1)[0]) > 0 and "[" in cells[4]


def test_sets_are_refused_or_explained_where_they_cannot_be(folder, lm, tmp_path):
    prompt_folder.save(built(lm), tmp_path / "untrained")
    lm.model.save_pretrained(tmp_path / "lm")
    rows = {"data": folder / "rows.jsonl", "device": "cpu", "coverage": 0.9}
    for command, config in (
        (evaluate.evaluate, EvaluateConfig),
        (predict.predict, PredictConfig),
    ):
        with pytest.raises(PtuneError, match="keeps no scores of dev rows"):
            command(config(prompt=tmp_path / "untrained", lm=str(folder / "lm"), **rows), print)
        said = []
        command(config(prompt=folder / "one", **{**rows, "coverage": 0.99}), said.append)
        assert any("need 99 rows for dev" in line and "with 24" in line for line in said)


@pytest.mark.parametrize(
    "change, named",
    [
        ({"temperature": 0}, "temperature"),
        ({"temperature": "nan"}, "temperature"),
        ({"nonconformity": [2]}, "nonconformity"),
        ({"more": 1}, "more"),
    ],
)
def test_a_damaged_note_is_refused(folder, tmp_path, change, named):
    note = json.loads((folder / "one" / "prompt.json").read_text())
    note["confidence"] |= change
    for name in ("prompt.safetensors", "encoder.safetensors"):
        (tmp_path / name).write_bytes((folder / "one" / name).read_bytes())
    (tmp_path / "prompt.json").write_text(json.dumps(note))
    with pytest.raises(StoreError, match=named):
        prompt_folder.load(tmp_path)
