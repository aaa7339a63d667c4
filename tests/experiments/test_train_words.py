"""A task whose words have labels, from its CoNLL file to its answers."""

import csv
import json
import re

import pytest
import serving_kit
import tiny

from ptune import PromptModel, Task, Template
from ptune.answers.readers.reader_table import READERS
from ptune.answers.word_labels import WordLabels
from ptune.cli import main
from ptune.errors import PtuneError
from ptune.experiments.train.train_task import train
from ptune.storage import prompt_folder
from ptune.survey.word_task_text import WordLabelCounts
from ptune.tasks import yaml_task

YAML = """
name: places
tag: words
labels: [O, B-place, I-place]
data: {form: conll, train: train.conll, dev: dev.conll, test: dev.conll}
lm: ./lm
method: p-tuning-v2+head
train: {epochs: 6, batch_size: 4, learning_rate: 0.03, evaluate_every: 8}
device: cpu
"""
SENTENCES = [
    "Vienna/B-place lies/O on/O the/B-place Danube/I-place ./O",
    "Rome/B-place is/O a/O city/O",
    "the/O people/O speak/O German/O",
    "Madrid/B-place or/O London/B-place ?/O",
    "it/O was/O a/O terrible/O film/O ,/O the/O worst/O in/O Paris/B-place",
]


def conll_of(sentences):
    return "".join(
        "".join("\t".join(word.rsplit("/", 1)) + "\n" for word in sentence.split()) + "\n"
        for sentence in sentences
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = tmp_path_factory.mktemp("world")
    for part in tiny.tiny("bert"):
        part.save_pretrained(path / "lm")
    (path / "train.conll").write_text(conll_of(SENTENCES * 3))
    (path / "dev.conll").write_text(conll_of([*SENTENCES[:4], " ".join(SENTENCES * 4)]))
    (path / "task.yaml").write_text(YAML)
    return path


def task(world, out, text=YAML, **more):
    (world / "changed.yaml").write_text(text)
    return yaml_task.read(world / "changed.yaml").model_copy(update={"out": out, **more})


@pytest.fixture(scope="module")
def trained(world):
    lines = []
    return train(task(world, world / "out"), lines.append), lines


def test_train_scores_and_reports(world, trained):
    run, lines = trained
    names = ["entity-f1", "entity-precision", "entity-recall", "word-accuracy"]
    assert run.dev_score == "entity-f1" and list(run.figures) == names
    assert run.figures["entity-f1"] > 0 and set(run.intervals) == set(names)
    assert "places: entity-f1" in "\n".join(lines)
    assert list(run.baselines) == ["most-frequent-label", "linear-probe"]
    sentence = next(line for line in lines if line.startswith("Baselines"))
    assert (
        "entity-f1: Each word's most frequent label " in sentence and "; Linear probe" in sentence
    )
    assert "most frequent label" in (world / "out" / "report.html").read_text()
    assert "entity-f1" in (world / "out" / "report.html").read_text()
    assert prompt_folder.template_of(world / "out") == ("{prefix:8} {words}", ())


def test_evaluate_and_predict_answer_as_training_did(world, trained, tmp_path, capsys):
    run, _ = trained
    folder, rows = str(world / "out"), str(world / "dev.conll")
    assert main.main(["evaluate", folder, "--data", rows]) in (0, None)
    printed = capsys.readouterr().out
    for name, figure in run.figures.items():
        assert f"{name} {figure:.4f}" in printed
    for name in ("answers.csv", "answers.jsonl"):
        out = str(tmp_path / name)
        main.main(["predict", folder, "--data", rows, "--out", out, "--explain"])
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    with open(tmp_path / "answers.csv", newline="") as stream:
        table = list(csv.DictReader(stream))
    expected = prompt_folder.load([world / "out"], device="cpu").predict(lines)
    assert len(lines) == len(table) == len(expected) == 5
    for line, cells, answer in zip(lines, table, expected):
        assert line["ptune"]["prediction"] == answer["prediction"]
        assert line["ptune"]["entities"] == answer["entities"]
        assert line["ptune"]["scores"] == pytest.approx(answer["scores"], abs=1e-5)
        assert json.loads(cells["ptune_prediction"]) == answer["prediction"]
        assert len(line["words"]) == len(answer["prediction"])


ODD = (
    "# newdoc id = 1\n-DOCSTART-\t-X-\tO\n\n# text = Vienna lies\n"
    "Vienna\tNNP\tB-place\nlies\tVBZ\tO \n"
    "# a note of three\n\n\n \nRome\tNNP\tO\r\nis\tVBZ\tO\n\n# the last one here\n"
)


def test_answers_as_conll_are_the_lines_with_one_more_column(world, trained, tmp_path):
    rows, out, again = (tmp_path / name for name in ("odd.conll", "answers.conll", "again.jsonl"))
    rows.write_bytes(ODD.encode())
    main.main(["predict", str(world / "out"), "--data", str(rows), "--out", str(out)])
    lines = out.read_bytes().decode().split("\n")
    model = prompt_folder.load([world / "out"], device="cpu")
    questions = [{"words": ["Vienna", "lies"]}, {"words": ["Rome", "is"]}]
    expected = [name for answer in model.predict(questions) for name in answer["prediction"]]
    labels, remade = iter(["O", *expected]), []
    for line in ODD.split("\n"):
        if "\t" in line:
            end = "\r" if line.endswith("\r") else ""
            line = f"{line.rstrip()}\t{next(labels)}{end}"
        remade.append(line)
    assert lines == remade and next(labels, None) is None and "B-place" in expected
    main.main(["predict", str(world / "out"), "--data", str(out), "--out", str(again)])
    read = [json.loads(line) for line in again.read_text().splitlines()]
    assert [name for row in read for name in row["label"]] == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Vienna\nlies\n\nRome\n", r"Vienna\t(\S+)\nlies\t(\S+)\n\nRome\t(\S+)\n"),
        ("Vienna  O\nlies O \n", r"Vienna  O (\S+)\nlies O (\S+)\n"),
        ("Vienna O\rlies O\r", r"Vienna O (\S+)\rlies O (\S+)\r"),
        ("Vienna O\nlies O", r"Vienna O (\S+)\nlies O (\S+)"),
    ],
)
def test_a_column_of_answers_is_parted_as_the_others_are(world, trained, tmp_path, text, expected):
    rows, out = tmp_path / "rows.conll", tmp_path / "answers.conll"
    rows.write_bytes(text.encode())
    main.main(["predict", str(world / "out"), "--data", str(rows), "--out", str(out)])
    assert re.fullmatch(expected, out.read_bytes().decode())


def test_words_have_no_list_of_scores_of_which_some_could_be_left_out(world, trained, capsys):
    with pytest.raises(SystemExit):
        main.main(["predict", str(world / "out"), "--data", str(world / "dev.conll"), "--top", "1"])
    assert "leave --top out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--data", "rows.jsonl", "--form", "rows"], "rows.jsonl is read as rows"),
        ([], "Standard input is read as JSON lines"),
        (["--data", "rows.conll", "--resume"], "leave --resume out"),
        (["--data", "rows.conll", "--skip-bad-lines"], "leave --skip-bad-lines out"),
        (["--data", "rows.conll", "--explain"], "leave --explain out"),
        (["--data", "rows.conll", "--top", "1"], "leave --top out"),
    ],
)
def test_what_conll_cannot_hold_is_refused(
    world, trained, tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"words": ["Vienna"]}\n')
    (tmp_path / "rows.conll").write_text("Vienna\n")
    with pytest.raises(SystemExit):
        main.main(["predict", str(world / "out"), *options, "--out", "answers.conll"])
    printed = " ".join(capsys.readouterr().err.split())
    assert message in printed and "answers.conll: " in printed
    assert not (tmp_path / "answers.conll").exists()


def test_a_killed_training_goes_on_to_the_same_prompt(world, trained, tmp_path, monkeypatch):
    from ptune.training import loop

    step, steps = loop.take_step, []

    def dies(*arguments):
        step(*arguments)
        steps.append(1)
        if len(steps) == 9:
            raise KeyboardInterrupt

    config = task(world, tmp_path / "out")
    config = config.model_copy(
        update={"train": config.train.model_copy(update={"save_seconds": 0})}
    )
    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", dies)
        with pytest.raises(KeyboardInterrupt):
            train(config, lambda _: None)
    run = train(config.model_copy(update={"resume": True}), lambda _: None)
    assert run.figures == trained[0].figures
    names = ["prompt.safetensors", "encoder.safetensors"]
    assert [(tmp_path / "out" / n).read_bytes() for n in names] == [
        (world / "out" / n).read_bytes() for n in names
    ]


def test_served_answers_are_those_of_predict(tmp_path):
    model = PromptModel(serving_kit.lm())
    words = WordLabels("words", ("O", "B-place", "I-place"))
    template = Template.parse("{soft:2} {words}")
    model.add(Task("words", template, words, encoder="table", reader=READERS["token-head"]))
    prompt_folder.save(model, tmp_path / "words")
    rows = [{"words": ["Rome", "is", "terrible"]}, {"words": ["Vienna"]}]
    with serving_kit.serving(tmp_path / "words") as (_, client):
        body = {"rows": [{"prompt": "words", "fields": row} for row in rows], "top": 1}
        answers = client.post("/v1/classify", json=body).json()["answers"]
        body["rows"][0]["fields"] = {"words": "Rome is"}
        problem = client.post("/v1/classify", json=body).json()["answers"][0]["problem"]
    for answer, row in zip(answers, model.predict(rows)):
        assert answer["labels"] == row["prediction"] and answer["entities"] == row["entities"]
        assert answer["scores"] == pytest.approx(row["scores"], abs=1e-5)
    assert "a list of words" in problem["detail"]


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("labels: [O, B-place, I-place]\n", "", "list them"),
        ("[O, B-place", "[O, O, B-place", "labels has 'O' twice"),
        ("tag: words\n", "", "labels is a mapping"),
        ("tag: words", "tag: tokens", "tokens"),
        ("device: cpu", "multi_label: true", "multi_label is of whole rows"),
        ("device: cpu", "combine: vote", "combine vote is of whole rows"),
        ("epochs: 6", "class_weights: balanced", "class_weights is of whole rows"),
        ("form: conll", "form: conll, shots: 2", "shots is of whole rows"),
        ("device: cpu", "reading: {by: soft}", "reading.by soft is of whole rows"),
        ("device: cpu", "metrics: [accuracy]", "no metric 'accuracy' of labelled words"),
        ("device: cpu", 'template: "{words} {mask}"', "leave {mask} out"),
        ("device: cpu", 'template: "{text}"', "should have {words} once"),
        ("p-tuning-v2+head", "regression", "reads whole rows"),
        ("p-tuning-v2+head", "manual", "trains none"),
        ("p-tuning-v2+head", "auto", "method auto is of whole rows"),
        ("p-tuning-v2+head", "pet", "method pet is of whole rows"),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_first_step(
    world, tmp_path, old, new, message
):
    with pytest.raises(PtuneError, match=re.escape(message)):
        train(task(world, tmp_path / "out", YAML.replace(old, new)), lambda _: None)


@pytest.mark.parametrize(
    "text, message",
    [
        ("Vienna\tB-place\nlies\n", r"bad.conll, line 2"),
        ("lies\tO\nVienna\tI-place\n", r"bad.conll, line 2 \(dev\): the word 'Vienna' has .* iob1"),
        ("a\tO\n\nVienna\tB-person\n", r"bad.conll, line 3 \(dev\): There is no label 'B-person'"),
        ("a\nb\n", "no field 'label'"),
        ("\n\n", "holds no"),
    ],
)
def test_bad_rows_are_told_by_file_and_line(world, tmp_path, text, message):
    (world / "bad.conll").write_text(text)
    config = task(world, tmp_path / "out", YAML.replace("dev: dev", "dev: bad"))
    with pytest.raises(PtuneError, match=message):
        train(config, lambda _: None)
    with pytest.raises(SystemExit, match="2"):
        main.main(["check", str(world / "changed.yaml")])


@pytest.mark.parametrize("command", [["compare"], ["search", "--by", "label-words"]])
def test_what_is_of_whole_rows_refuses(world, command, capsys, tmp_path):
    arguments = [command[0], str(world / "task.yaml"), *command[1:], "--out", str(tmp_path / "o")]
    with pytest.raises(SystemExit, match="2"):
        main.main(arguments)
    assert "tag" in capsys.readouterr().err


def test_inspect_shows_where_words_are_read(world, trained, capsys):
    for what in ("task.yaml", "out"):
        row = '{"words": ["Vienna", "lies"]}'
        main.main(["inspect", str(world / what), "--row", row])
        printed = capsys.readouterr().out
        assert printed.count("the answer is read here") == 2 and "8 prefix vectors" in printed
    main.main(["inspect", str(world / "task.yaml")])


def test_json_is_not_taken_for_words(world, trained, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text('{"words": ["Vienna", "lies"]}\n')
    command = ["predict", str(world / "out"), "--data", str(tmp_path / "rows.jsonl")]
    with pytest.raises(SystemExit, match="2"):
        main.main(command)
    assert "give --form rows" in capsys.readouterr().err
    main.main([*command, "--form", "rows"])
    assert len(json.loads(capsys.readouterr().out)["ptune"]["prediction"]) == 2


def test_a_label_without_training_rows_is_told(world, tmp_path):
    lines = []
    text = YAML.replace("I-place]", "I-place, B-river]").replace("epochs: 6", "steps: 1")
    train(task(world, tmp_path / "out", text), lines.append)
    assert "No training row has the label 'B-river'" in "\n".join(lines)


def test_new_and_check_write_a_task_that_trains(world, tmp_path, capsys):
    path = tmp_path / "places.conll"
    path.write_text(conll_of(SENTENCES))
    assert main.main(["check", str(path), "--lm", str(world / "lm")]) in (0, None)
    printed = capsys.readouterr().out
    assert "labels: [O, B-place, I-place]" in printed and "B-place 6" in printed
    out = tmp_path / "places.yaml"
    assert main.main(["new", str(path), "--out", str(out), "--lm", str(world / "lm")]) in (0, None)
    config = yaml_task.read(out)
    assert tuple(config.labels) == ("O", "B-place", "I-place") and config.data.form == "conll"
    parts = [config.data.train, config.data.dev, config.data.test]
    assert sorted("".join(part.read_text() for part in parts).split("\n\n")) == sorted(
        conll_of(SENTENCES).split("\n\n")[:-1] + [""]
    )
    steps = config.train.model_copy(update={"steps": 1})
    train(config.model_copy(update={"train": steps, "out": tmp_path / "out"}), lambda _: None)


def test_labels_of_bilou_are_told_to_make_no_entities():
    counts = WordLabelCounts()
    counts.add(["B-a", "I-a", "L-a", "O", "U-a-b"])
    assert counts.scheme == "plain" and "write E- for L- and S- for U-" in counts.sentence
    for others in (["B-a", "O"], ["L-a", "NOUN"], ["U-a", "X-a"], ["E-a", "S-a", "B-a"]):
        counts = WordLabelCounts()
        counts.add(others)
        assert not counts.sentence


def test_labels_in_which_an_i_begins_an_entity_are_proposed_as_iob1():
    counts = WordLabelCounts()
    counts.add(["O", "I-a", "B-a"])
    assert counts.scheme == "iob1" and counts.labels == ["O", "B-a", "I-a"]
    assert "1 words" in counts.sentence
