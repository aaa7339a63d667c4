"""A task whose answers are parts of a text, from SQuAD's form to its answers."""

import json
import re

import pytest
import serving_kit
import tiny

from ptune import Extraction, PromptModel, Task, Template
from ptune.answers.readers.reader_table import READERS
from ptune.cli import main
from ptune.errors import PtuneError
from ptune.experiments.train.train_task import train
from ptune.storage import prompt_folder
from ptune.tasks import yaml_task

YAML = """
name: parts
extract: context
target: answers
template: "{prefix:4} {question} {sep} {context}"
data: {train: squad.json, dev: squad.json, test: long.json, record_path: data.paragraphs.qas}
lm: ./lm
method: p-tuning-v2+head
max_length: 40
train: {epochs: 4, batch_size: 2, learning_rate: 0.03}
device: cpu
"""
TEXT = "Vienna lies on the Danube , in the east of Austria ; its people speak German"
QUESTIONS = [("the capital", "Vienna"), ("the people", "German"), ("the east", "Austria")]
LONG = f"{TEXT} . " * 5 + "pay with the euro"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = tmp_path_factory.mktemp("world")
    for part in tiny.tiny("bert"):
        part.save_pretrained(path / "lm")
    asked = [
        {"question": question, "answers": [{"text": text, "answer_start": TEXT.index(text)}]}
        for question, text in QUESTIONS
    ]
    paragraphs = [{"context": TEXT, "qas": asked}]
    (path / "squad.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    rows = [{"question": q, "answers": [a, "the euro"]} for q, a in QUESTIONS]
    for name, asked in (("long", rows), ("bad", [{**rows[0], "answers": "Paris"}])):
        paragraphs = [{"context": LONG, "qas": asked}]
        (path / f"{name}.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return path


def task(world, out, text=YAML):
    (world / "task.yaml").write_text(text)
    return yaml_task.read(world / "task.yaml").model_copy(update={"out": out})


def test_train_evaluate_and_predict(world, tmp_path, capsys):
    run = train(task(world, tmp_path / "out"), lambda _: None)
    assert run.dev_score == "token-f1" and list(run.figures) == ["token-f1", "exact-match"]
    assert set(run.intervals) == set(run.figures)
    folder, rows = str(tmp_path / "out"), str(world / "long.json")
    main.main(["evaluate", folder, "--data", rows])
    assert f"token-f1 {run.figures['token-f1']:.4f}" in capsys.readouterr().out
    main.main(["predict", folder, "--data", rows, "--out", str(tmp_path / "a.jsonl"), "--top", "2"])
    main.main(["predict", folder, "--data", rows, "--out", str(tmp_path / "a.csv")])
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    expected = prompt_folder.load([tmp_path / "out"], device="cpu").predict(lines)
    for line, answer in zip(lines, expected):
        said = line["ptune"]
        assert said["prediction"] == answer["prediction"] and len(said["scores"]) <= 2
        assert line["context"][said["start"] : said["end"]] == said["prediction"]


def test_served_answers_are_those_of_predict(tmp_path):
    model = PromptModel(serving_kit.lm())
    template = Template.parse("{soft:2} {question} ? {context}")
    part = Extraction("context")
    model.add(Task("part", template, part, encoder="table", reader=READERS["token-head"]))
    prompt_folder.save(model, tmp_path / "part")
    rows = [{"question": question, "context": TEXT} for question, _ in QUESTIONS]
    with serving_kit.serving(tmp_path / "part") as (_, client):
        body = {"rows": [{"prompt": "part", "fields": row} for row in rows], "top": 1}
        answers = client.post("/v1/classify", json=body).json()["answers"]
    for answer, row in zip(answers, model.predict(rows)):
        assert answer["label"] == row["prediction"] and answer["start"] == row["start"]
        assert list(answer["scores"]) == [row["prediction"]]


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("device: cpu", "labels: {a: b}", "labels is of whole rows"),
        ("device: cpu", "tag: words", "list them"),
        ("device: cpu", "reading: {pieces: all}", "pieces is of tasks that label each word"),
        ("extract: context\n", "reading: {longest: 3}\n", "longest is of tasks that answer"),
        ("device: cpu", "metrics: [f1]", "no metric 'f1' of answers that are parts"),
        ("{context}", "{title}", "title"),
        ("p-tuning-v2+head", "manual", "trains none"),
        ("train: squad.json", "train: bad.json", "bad.json, line 1 (train): The answer 'Paris'"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(world, tmp_path, old, new, message):
    with pytest.raises(PtuneError, match=re.escape(message)):
        train(task(world, tmp_path / "out", YAML.replace(old, new)), lambda _: None)
