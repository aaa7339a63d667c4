"""A task whose rows may have several labels, from its file to its answers."""

import csv
import json

import pytest
import tiny

from ptune.cli import main
from ptune.errors import PtuneError
from ptune.experiments.answering import evaluate
from ptune.experiments.options import EvaluateConfig
from ptune.experiments.train.train_task import train
from ptune.storage import prompt_folder
from ptune.tasks import yaml_task

YAML = """
name: topics
template: "{soft:2} {x|shorten} is {mask}"
target: says
multi_label: true
labels: {a: great, b: bad, c: city}
data: {train: rows.csv, dev: rows.csv, test: rows.csv, label_separator: ";"}
metrics: [f1-micro, f1-macro, f1-samples, subset-accuracy, hamming-score, "f1:a"]
lm: ./lm
encoder: table
train: {epochs: 3, batch_size: 4, learning_rate: 0.05}
device: cpu
"""
TEXTS = ("Vienna", "Rome", "the best film", "Paris is great", "a bad film", "London", "Madrid")
SETS = ("a; c", "", "b", "a;b;c", "b", "['c', 'a']", "c")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = tmp_path_factory.mktemp("world")
    for part in tiny.tiny("bert"):
        part.save_pretrained(path / "lm")
    with open(path / "rows.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([("x", "says"), *zip(TEXTS, SETS)])
    (path / "task.yaml").write_text(YAML)
    return path


def task(world, out, text=YAML, **more):
    (world / "changed.yaml").write_text(text)
    return yaml_task.read(world / "changed.yaml").model_copy(update={"out": out, **more})


@pytest.fixture(scope="module")
def trained(world):
    lines = []
    run = train(task(world, world / "out"), lines.append)
    return run, lines


def test_train_scores_and_reports(world, trained):
    run, lines = trained
    assert run.dev_score == "f1-micro" and set(run.figures) == {
        "f1-micro",
        "f1-macro",
        "f1-samples",
        "subset-accuracy",
        "hamming-score",
        "f1:a",
    }
    assert set(run.baselines) == {"majority", "tf-idf", "linear-probe"}
    assert all(figures.keys() == run.figures.keys() for figures in run.baselines.values())
    assert run.baselines["majority"]["f1-micro"] == pytest.approx(
        2 * 4 / (4 + 7 + 6 - 3 - 3), abs=1
    )
    assert "topics: f1-micro" in "\n".join(lines)
    page = (world / "out" / "report.html").read_text()
    assert "f1-micro" in page and not run.confusion


def test_evaluate_and_predict_answer_as_training_did(world, trained, tmp_path, capsys):
    run, _ = trained
    folder, rows = str(world / "out"), str(world / "rows.csv")
    assert main.main(["evaluate", folder, "--data", rows]) in (0, None)
    printed = capsys.readouterr().out
    for name, figure in run.figures.items():
        assert f"{name} {figure:.4f}" in printed
    for name in ("answers.csv", "answers.jsonl"):
        out = str(tmp_path / name)
        main.main(["predict", folder, "--data", rows, "--out", out, "--top", "1", "--explain"])
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    model = prompt_folder.load([world / "out"], device="cpu")
    expected = model.predict([{"x": text} for text in TEXTS])
    with open(tmp_path / "answers.csv", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert len(lines) == len(table) == len(TEXTS)
    for line, row, answer, says in zip(lines, table, expected, SETS):
        had = answer["prediction"]
        assert line["ptune"]["prediction"] == had and line["says"] == row["says"] == says
        assert row["ptune_prediction"] == ";".join(had)
        shares = [float(share) for share in row["ptune_probability"].split(";") if share]
        assert shares == pytest.approx([answer["scores"][label] for label in had], abs=1e-6)
        assert len(line["ptune"]["scores"]) == max(1, len(had))
        assert row["ptune_unknown"] == "0.0"
    assert {len(answer["prediction"]) for answer in expected} - {0, 3}


def test_evaluate_splits_cells_as_it_is_asked_to(world, trained, tmp_path, capsys):
    """A prompt whose own files held lists scores a table whose cells have a separator."""
    main.main(["evaluate", str(world / "out"), "--data", str(world / "rows.csv")])
    figures = capsys.readouterr().out
    lists = YAML.replace(', label_separator: ";"', "").replace("rows.csv", "rows.jsonl")
    with open(world / "rows.jsonl", "w") as stream:
        for text, names in zip(TEXTS, SETS):
            cells = ["c", "a"] if "[" in names else [name.strip() for name in names.split(";")]
            print(json.dumps({"x": text, "says": [cell for cell in cells if cell]}), file=stream)
    train(task(world, tmp_path / "out", lists), lambda _: None)
    config = EvaluateConfig(prompt=tmp_path / "out", data=world / "rows.csv", device="cpu")
    with pytest.raises(PtuneError, match="line 2: There is no label 'a; c'.*--label-separator"):
        evaluate.evaluate(config)
    capsys.readouterr()
    evaluate.evaluate(config.model_copy(update={"label_separator": ";"}))
    assert capsys.readouterr().out == figures


def test_a_separator_is_refused_where_a_row_has_one_label(world, tmp_path):
    text = YAML.replace("multi_label: true\n", "").replace(', label_separator: ";"', "")
    rows = "".join(f"{text},{label}\n" for text, label in zip(TEXTS, "abcabca"))
    (world / "one.csv").write_text(f"x,says\n{rows}")
    text = text.replace("rows.csv", "one.csv").replace("metrics:", "# metrics:")
    train(task(world, tmp_path / "out", text), lambda _: None)
    config = EvaluateConfig(
        prompt=tmp_path / "out", data=world / "one.csv", label_separator=";", device="cpu"
    )
    with pytest.raises(PtuneError, match="--label-separator is for rows with several labels"):
        evaluate.evaluate(config)


def test_regression_trains_nothing_and_chooses_a_threshold(world, tmp_path):
    text = YAML.replace("target:", 'patterns: ["{x|shorten} is {mask}"]\ntarget:')
    config = task(world, tmp_path / "out", text, method="regression")
    run = train(config, lambda _: None)
    model = prompt_folder.load([tmp_path / "out"], device="cpu")
    assert run.figures["f1-micro"] > 0.9 and model.tasks[0].threshold != 0.5


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("multi_label: true\n", "", "label_separator is of rows with several labels"),
        ("device: cpu", "device: cpu\nmethod: auto", "method auto is of rows with one label"),
        ("device: cpu", "device: cpu\nmethod: pet", "method pet is of rows with one label"),
        ("device: cpu", "device: cpu\nprompts: 2", "prompts is of rows with one label"),
        ("device: cpu", "device: cpu\ncombine: vote", "combine vote is of rows with one label"),
        ("epochs: 3", "class_weights: balanced", "class_weights is of rows with one label"),
        ("label_separator", "shots: 2, label_separator", "shots is of rows with one label"),
        ("{a: great", '{"a;d": great', "has that in it"),
        ("[f1-micro", "[accuracy", "no metric 'accuracy' of rows with several labels"),
        ("c: city", "d: city", "does not have 'c'"),
        ("c: city}", "c: city, d: euro}", "no row has the label 'd'"),
        (', label_separator: ";"', "", r"does not have 'a; c'.*label_separator"),
        ("device: cpu", "device: cpu\nreading: {by: prototypes}", "compares labels or rows"),
    ],
)
def test_what_does_not_go_together_is_refused(world, tmp_path, old, new, message):
    text = YAML.replace(old, new)
    assert text != YAML
    with pytest.raises(PtuneError, match=message):
        train(task(world, tmp_path / "out", text), lambda _: None)
    assert not (tmp_path / "out").exists()


def test_a_list_in_a_task_of_one_label_says_what_to_set(world, tmp_path):
    (world / "rows.jsonl").write_text('{"x": "film", "says": ["a", "b"]}\n' * 2)
    text = YAML.replace("multi_label: true\n", "").replace(', label_separator: ";"', "")
    text = text.replace("rows.csv", "rows.jsonl")
    with pytest.raises(PtuneError, match="multi_label: true"):
        train(task(world, tmp_path / "out", text), lambda _: None)


def test_compare_refuses_such_a_task(world, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main.main(["compare", str(world / "task.yaml"), "--out", str(tmp_path / "c")])
    assert "compare draws rows of one label each" in capsys.readouterr().err
