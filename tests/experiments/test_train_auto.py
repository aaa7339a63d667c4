"""``method: auto`` from a task's file to a saved prompt."""

import json
import re

import pytest
import tiny
from killing import Stop

from ptune.errors import ConfigError
from ptune.experiments.answering import evaluate
from ptune.experiments.options import EvaluateConfig
from ptune.experiments.train import train_auto, train_task
from ptune.reports.pages import runs_page
from ptune.selection import choice
from ptune.storage import prompt_folder
from ptune.tasks.schema import TaskConfig

TEXTS = ["great film", "terrible film", "the best", "the worst", "Vienna is great", "bad Rome"]
ROWS = [
    {"text": f"{text} {chr(97 + number)}", "label": "good" if number % 2 else "bad"}
    for number, text in enumerate(TEXTS * 3)
]


@pytest.fixture
def task(tmp_path):
    """A task on a tiny encoder without a vocabulary head; only the first method has time."""
    network, tokenizer = tiny.tiny("bert")
    network.base_model.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")

    def write(split, rows):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(text)
        return tmp_path / f"{split}.jsonl"

    data = {"train": write("train", ROWS[:8]), "dev": write("dev", ROWS[8:12])}
    return TaskConfig(
        name="films",
        lm=str(tmp_path / "lm"),
        method="auto",
        minutes=1e-4,
        patterns=("{text|shorten} it is {mask}",),
        labels={"good": "great", "bad": "bad"},
        data={**data, "test": write("test", ROWS[12:])},
        out=tmp_path / "out",
    )


def accuracy(figures):
    return figures["accuracy"]


def test_the_result_is_a_prompt_folder_that_answers_as_what_was_trained(task):
    lines = []
    run = train_auto.train(task, lines.append)
    assert run.selection["chosen"] == ["regression"] and run.selection["rows"] == 12
    chosen = next(line for line in lines if line.startswith("Chosen: Logistic regression: accurac"))
    assert "Not tried for want of time: " in chosen and "Contrastive prompt, " in chosen
    assert re.search(r"; --minutes \d+ would try them\. It is trained", chosen)
    config = EvaluateConfig(prompt=task.out, data=task.data.test)
    assert accuracy(evaluate.evaluate(config, lines.append)) == accuracy(run.figures)
    page = (task.out / "report.html").read_text()
    assert "Methods that were tried" in page and "it would take about" in page
    assert runs_page.read([task.out])[0].selection == run.selection
    resumed = train_auto.train(task.model_copy(update={"resume": True}), lines.append)
    assert resumed.figures == run.figures and "is finished" in lines[-1]


def test_odd_rows_are_reported(task):
    """Rows for dev are learned from as well, so that a text of theirs in train is no leakage."""
    for split, repeated in (("dev", ROWS[0]), ("test", ROWS[8])):
        with open(getattr(task.data, split), "a") as file:
            file.write(json.dumps({**repeated, "text": repeated["text"].upper()}) + "\n")
    lines = []
    run = train_auto.train(task, lines.append)
    leakage = "Leakage: test has 1 row with a text that dev has too (line 7 has that of line 1)."
    assert leakage in lines and leakage in run.data_findings
    assert leakage in (task.out / "report.html").read_text()
    shared = "dev has 1 row with a text that train has too (line 5 has that of line 1)."
    assert shared in run.data_findings and lines.count(shared) == 0


def test_test_rows_choose_nothing(task):
    train_auto.train(task, lambda line: None)
    kept = (task.out / "prompt.safetensors").read_bytes()
    chosen = json.loads((task.out / "selection.json").read_text())
    flipped = [{**row, "label": {"good": "bad", "bad": "good"}[row["label"]]} for row in ROWS[12:]]
    task.data.test.write_text("".join(json.dumps(row) + "\n" for row in flipped))
    again = task.model_copy(update={"out": task.out.with_name("again")})
    train_auto.train(again, lambda line: None)
    assert (again.out / "prompt.safetensors").read_bytes() == kept
    for one, other in zip(
        chosen["attempts"], json.loads((again.out / "selection.json").read_text())["attempts"]
    ):
        assert (one["figure"], one["loss"]) == (other["figure"], other["loss"])


def test_a_run_that_is_killed_goes_on_behind_what_it_has_tried(task, monkeypatch):
    def account(selection):
        raise Stop

    def out_of_fold(*arguments):
        pytest.fail("it was tried before")

    lines = []
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(train_auto, "account", account)
        train_auto.train(task, lines.append)
    before = json.loads((task.out / "selection.json").read_text())
    monkeypatch.setattr(choice, "out_of_fold", out_of_fold)
    run = train_auto.train(task.model_copy(update={"resume": True}), lines.append)
    assert run.selection == before and run.figures


def test_what_answers_together_is_saved_as_an_ensemble(task, monkeypatch):
    choose = train_auto.choose

    def both(form, lm, rows, **options):
        selection, chosen = choose(form, lm, rows, **options)
        names = ["regression", "contrastive"]
        short = [one for one in train_auto.candidates(form, lm, False) if one.name in names]
        for one in short:
            settings = one.method.train.replaced({"steps": 2})
            object.__setattr__(one, "method", train_auto.replace(one.method, train=settings))
        return selection.model_copy(update={"chosen": names}), short

    monkeypatch.setattr(train_auto, "choose", both)
    lines = []
    run = train_auto.train(task, lines.append)
    model = prompt_folder.load(prompt_folder.folders_in(task.out))
    assert model.is_ensemble and len(model.tasks) == 2
    config = EvaluateConfig(prompt=task.out, data=task.data.test)
    assert accuracy(evaluate.evaluate(config, lines.append)) == accuracy(run.figures)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"labels": {}}, "films has none: name a method"),
        ({"train": {"steps": 5}}, "films says train.steps"),
        ({"prompts": 3, "encoder": "mlp"}, "films says prompts, encoder"),
        ({"tune": "both"}, "films says tune"),
    ],
)
def test_what_every_method_says_itself_is_refused(task, changes, message):
    values = {**task.model_dump(exclude_unset=True), **changes}
    with pytest.raises(ConfigError, match=message):
        train_auto.train(TaskConfig(**values), lambda line: None)
    assert not task.out.exists()


def test_minutes_are_of_auto_alone(task):
    with pytest.raises(ConfigError, match="minutes is what method auto may take"):
        train_task.train(task.model_copy(update={"method": "regression"}), lambda line: None)


def test_a_task_with_verbalizers_and_unlabelled_rows_may_become_pets_classifier(
    task, tmp_path, monkeypatch
):
    """The classifier is saved with its LM, and answers as it was scored."""
    network, tokenizer = tiny.tiny("bert")
    network.save_pretrained(tmp_path / "masked")
    tokenizer.save_pretrained(tmp_path / "masked")
    quick = {"steps": 2, "epochs": None}
    values = task.model_dump(exclude_unset=True) | {
        "lm": str(tmp_path / "masked"),
        "verbalizers": [{"good": "best", "bad": "worst"}],
        "pet": {"distil": quick},
        "data": {**task.data.model_dump(exclude_unset=True), "unlabeled": task.data.test},
    }
    choose = train_auto.choose

    def pet_alone(form, lm, rows, **options):
        assert len(options["unlabeled"]) == 6
        selection, _ = choose(form, lm, rows, **options)
        unlabeled, pet = options["unlabeled"], options["pet"]
        fitting = train_auto.candidates(form, lm, True, unlabeled, pet=pet)
        one = next(one for one in fitting if one.name == "pet")
        method = train_auto.replace(one.method, train=one.method.train.replaced(quick))
        chosen = train_auto.replace(one, method=method)
        return selection.model_copy(update={"chosen": ["pet"]}), [chosen]

    monkeypatch.setattr(train_auto, "choose", pet_alone)
    run = train_auto.train(TaskConfig.model_validate(values), lambda line: None)
    assert run.title == "auto: PET" and (task.out / "lm").is_dir()
    config = EvaluateConfig(prompt=task.out, data=task.data.test)
    assert accuracy(evaluate.evaluate(config, lambda line: None)) == accuracy(run.figures)
