"""A task's file made from a table: columns, words, splits; and the four commands from a table to
answers."""

import csv
import json
import pathlib

import pytest
import tiny

from ptune.cli import main
from ptune.errors import ConfigError, DataError, PtuneError
from ptune.experiments.train.train_task import train
from ptune.survey.columns import Roles
from ptune.survey.task_text import TaskText
from ptune.tasks import yaml_task
from ptune.tasks.new_task import columns, new, split_rows
from ptune.tasks.options import NewConfig
from ptune.tasks.resolved import resolve
from ptune.tasks.rows import task_rows
from ptune.tasks.rows.splits import read as read_splits
from ptune.template.language import Template
from ptune.training.methods import METHODS

TEXTS = [
    "the great film {}",
    "a bad city {}",
    "Vienna is a {} city",
    "the worst people {}",
    "it was {} good",
]
TEAMS = ["film", "city", "city", "people", "film"]


@pytest.fixture
def lm(tmp_path):
    network, tokenizer = tiny.tiny("bert")
    network.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    return str(tmp_path / "lm")


@pytest.fixture
def tickets(tmp_path, monkeypatch):
    """A table of 50 tickets for three teams."""
    monkeypatch.chdir(tmp_path)
    with open("tickets.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "ticket", "team", "urgent"])
        for number in range(50):
            spelled = str(number).translate(
                str.maketrans("0123456789", "abcdefghij")
            )  # digits are unknown to the tiny LM
            writer.writerow(
                [
                    f"T{number}",
                    TEXTS[number % 5].format(spelled),
                    TEAMS[number % 5],
                    "yn"[number % 2],
                ]
            )
    return pathlib.Path("tickets.csv")


def test_four_commands_from_a_table_to_answers(tickets, lm, capsys):
    main.main(["new", "tickets.csv", "--text", "ticket", "--label", "team", "--lm", lm])
    said = capsys.readouterr().out
    assert (
        "city (20), film (20), people (10)" in said
        and said.splitlines()[-1] == "Next: ptune train task.yaml --out task-trained"
    )
    config = yaml_task.read(pathlib.Path("task.yaml"))
    assert (
        config.labels == {"city": "city", "film": "film", "people": "people"}
        and config.target == "team"
    )
    assert config.template == "{ticket|shorten} {soft:3} Team: {mask}" and config.patterns == (
        "{ticket|shorten} Team: {mask}",
    )
    rows = read_splits(config.data, config.target, tuple(config.labels))
    assert {split: len(rows_of_split) for split, rows_of_split in rows.items()} == {
        "train": 30,
        "dev": 10,
        "test": 10,
        "unlabeled": 0,
    }
    assert (
        [row["team"] for row in rows["dev"]].count("people")
        == 2
        == [row["team"] for row in rows["test"]].count("people")
    )
    assert len({row["id"] for rows_of_split in rows.values() for row in rows_of_split}) == 50
    main.main(
        ["train", "task.yaml", "--out", "task-trained", "--minutes", "0.001", "--device", "cpu"]
    )
    main.main(
        [
            "predict",
            "task-trained",
            "--data",
            "tickets.csv",
            "--out",
            "answers.jsonl",
            "--device",
            "cpu",
        ]
    )
    assert len(pathlib.Path("answers.jsonl").read_text().splitlines()) == 50
    main.main(["report", "task-trained", "--out", "report"])
    assert pathlib.Path("report/report.html").exists()
    for arguments, message in (
        (["new", "tickets.csv", "--lm", lm], "task.yaml is there already: choose another --out"),
    ):
        with pytest.raises(SystemExit):
            main.main(arguments)
        assert message in capsys.readouterr().err


def test_train_takes_a_table(tickets, lm, capsys):
    given = [
        "train",
        "tickets.csv",
        "--text",
        "ticket",
        "--label=team",
        "--skip-bad-lines",
        "--lm",
        lm,
        "--minutes",
        "0.001",
        "--device",
        "cpu",
    ]
    main.main(given)
    run = json.loads(pathlib.Path("tickets-trained/run.json").read_text())
    assert run["rows"] == {"train": 30, "dev": 10, "test": 10}
    assert run["method"] == "auto" and run["selection"]["chosen"] == ["regression"]
    assert yaml_task.read(pathlib.Path("tickets-trained.yaml")).target == "team"
    main.main([*given, "--resume"])
    assert "is finished" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main.main(given)
    assert "tickets-trained holds a run of ptune train already" in capsys.readouterr().err


def test_columns_are_found(tickets):
    def chosen(rows, **named):
        roles = columns(rows, named.get("text"), named.get("label"), path=pathlib.Path("t.csv"))
        return *roles.texts, roles.label

    table = [
        {"id": f"T{number}", "body": f"a longer text {number}", "area": "ab"[number % 2]}
        for number in range(10)
    ]
    assert chosen(table) == ("body", "area")
    assert chosen([{**row, "category": f"c{number % 3}"} for number, row in enumerate(table)]) == (
        "body",
        "category",
    )
    assert chosen(table, text="id") == ("id", "area") and chosen(table, label="area") == (
        "body",
        "area",
    )
    for rows, named, error, message in (
        (
            table,
            {"text": "bodi"},
            ConfigError,
            "no column 'bodi', which --text names. Did you mean 'body'",
        ),
        (table, {"text": "area", "label": "area"}, ConfigError, "are both 'area'"),
        (table, {"label": "id"}, ConfigError, "has 10 values in 10 rows: that is no label"),
        (
            [{"n": number, "m": number} for number in range(10)],
            {},
            ConfigError,
            "No column of t.csv looks like a label: name it with --label",
        ),
        (
            [*table, {"id": "x", "body": "", "area": "a"}],
            {},
            DataError,
            "Row 11 has nothing in the column 'body'.\n.*--skip-bad-lines",
        ),
        (
            [{**row, "area": "a"} for row in table],
            {"label": "area"},
            ConfigError,
            "has 1 values, and labels are 2 to 200",
        ),
    ):
        with pytest.raises(error, match=message):
            chosen(rows, **named)


def test_a_column_without_gaps_is_the_label_and_rows_without_a_text_can_be_skipped(tickets, lm):
    with open("gaps.csv", "w") as stream:
        stream.write("id,ticket,priority,Zuständiges Team\n")
        for n in range(30):
            text = "" if n == 7 else TEXTS[n % 5].format("abc"[n % 3])
            stream.write(
                f"T{n},{text},{'high low'.split()[n % 2] if n % 4 else ''},{TEAMS[n % 5]}\n"
            )
    path, heard = pathlib.Path("gaps.csv"), []
    with pytest.raises(DataError, match=r"gaps.csv, line 9 .*\n.*--skip-bad-lines"):
        new(NewConfig(data=path, lm=lm), heard.append)
    with pytest.raises(ConfigError, match="Did you mean 'Zuständiges Team'"):
        new(NewConfig(data=path, lm=lm, label="team"), heard.append)
    heard.clear()
    file = new(NewConfig(data=path, lm=lm, skip_bad_lines=True), heard.append)
    assert yaml_task.read(file).target == "Zuständiges Team"
    assert "it could also be 'priority' (2 values): --label names it." in heard[0]
    assert heard[1] == "Skipped: gaps.csv, line 9 has nothing in the column 'ticket'."
    assert any(sentence.startswith("29 rows; text: 'ticket'") for sentence in heard)


def test_rows_are_parted_by_label_and_by_seed():
    rows = [{"text": f"t{number}", "label": "aab"[number % 3]} for number in range(60)] + [
        {"text": "t0", "label": "a"},
        {"text": "rare", "label": "c"},
    ]
    split = split_rows(rows, ["text"], "label", dev=0.2, test=0.1, seed=3)
    assert [len(split.train), len(split.dev), len(split.test)] == [
        62 - 12 - 6 - (rows[0] in split.dev) - (rows[0] in split.test),
        12 + (rows[0] in split.dev),
        6 + (rows[0] in split.test),
    ]
    assert (
        split
        == split_rows(rows, ["text"], "label", dev=0.2, test=0.1, seed=3)
        != split_rows(rows, ["text"], "label", dev=0.2, test=0.1, seed=4)
    )
    assert {"text": "rare", "label": "c"} in split.train and sum(
        rows[0] in part for part in (split.train, split.dev, split.test)
    ) == 1
    assert split_rows(rows, ["text"], "label", dev=0, test=0, seed=3).train == rows


def test_hard_names_stand_in_the_file_as_they_are(lm, tmp_path):
    rows = [
        {"Text": f"film {number}", "Kind: of?": ["No", "# yes: {a}", "null"][number % 3], "x": 1}
        for number in range(30)
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = []
    new(
        NewConfig(
            data=tmp_path / "t.jsonl",
            text="Text",
            label="Kind: of?",
            lm=lm,
            out=tmp_path / "a b.yaml",
        ),
        said.append,
    )
    config = yaml_task.read(tmp_path / "a b.yaml")
    assert (
        set(config.labels) == {"No", "# yes: {a}", "null"}
        and config.target == "Kind: of?"
        and config.name == "a-b"
    )
    assert len(read_splits(config.data, config.target, tuple(config.labels))["train"]) == 18
    assert any("The word for 'null' is" in line for line in said)


def test_the_file_says_what_auto_does_and_that_it_may_train_no_prompt():
    def text(method):
        roles = Roles(("text",), "label", None)
        return TaskText(
            name="films",
            lm="builtin",
            method=method,
            roles=roles,
            words={"good": "great", "bad": "bad"},
            data=[],
        ).yaml()

    assert "method: auto  # tries several methods on the labelled rows" in text("auto")
    assert "auto may choose one that trains none:\ntemplate:" in text("auto")
    assert "method: p-tuning  # ptune methods lists them" in text("p-tuning")
    assert "auto" not in text("p-tuning")


def test_every_method_has_a_line(capsys):
    assert all(method.about for method in METHODS.values())
    main.main(["methods"])
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines[1:]]
    assert names == ["auto", *METHODS] and max(map(len, lines)) <= 120
    assert "prompt and head" in next(line for line in lines if line.startswith("p-tuning-v2+head"))


def test_a_column_with_several_labels_becomes_a_task_of_several(lm, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"ticket": TEXTS[number % 5].format("abcdefgh"[number % 8]), "topics": cell}
        for number, cell in enumerate(["film; city", "city", "people", "", "city;film;people"] * 8)
    ]
    with open("rows.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, ["ticket", "topics"])
        writer.writeheader()
        writer.writerows(rows)
    new(NewConfig(data=pathlib.Path("rows.csv"), out=pathlib.Path("t.yaml"), lm=lm))
    assert "seems to hold none, one or several labels in a cell" in capsys.readouterr().out
    task = yaml_task.read(pathlib.Path("t.yaml"))
    assert task.multi_label and list(task.labels) == ["city", "film", "people"]
    assert "40 rows, 3 labels" in pathlib.Path("t.yaml").read_text()
    read = task_rows.read(resolve.task_form(task), task.data)
    assert {name: len(split) for name, split in read.items() if split}.keys() == {
        "train",
        "dev",
        "test",
    }
    sets = [row["topics"] for split in read.values() for row in split]
    assert len(sets) == 40 and sets.count([]) == 8 and ["film", "city"] in sets
    main.main(["train", "t.yaml", "--out", "trained", "--device", "cpu"])
    assert "t: f1-micro" in capsys.readouterr().out
    assert main.main(["evaluate", "trained", "--data", "rows.csv", "--device", "cpu"]) in (0, None)


@pytest.mark.parametrize("rows", [3, 60])
def test_a_table_without_a_header_is_told_with_the_command_that_names_its_columns(
    lm, tmp_path, rows
):
    path = tmp_path / "t.csv"
    lines = [f"the parcel {n} is wet,{'post money'.split()[n % 2]}\n" for n in range(rows)]
    path.write_text("".join(lines))
    with pytest.raises((ConfigError, DataError)) as refused:
        new(NewConfig(data=path, lm=lm, out=tmp_path / "t.yaml"))
    assert f"name the columns: ptune new {path} --columns text label" in str(refused.value)
    assert "data:" not in str(refused.value)


def test_white_space_around_labels_is_told(tickets, lm, capsys):
    tickets.write_text(tickets.read_text().replace(",film,y", ", film,y"))
    main.main(["new", "tickets.csv", "--text", "ticket", "--label", "team", "--lm", lm])
    output = capsys.readouterr().out
    assert "Note: 10 labels have white space around them" in output and "film (20)" in output


def test_no_empty_files_where_rows_are_too_few_for_dev_and_test(lm, tmp_path):
    path, heard = tmp_path / "t.csv", []
    path.write_text("text,label\n" + "".join(f"film {n},{'ab'[n % 2]}\n" for n in range(4)))
    file = new(NewConfig(data=path, lm=lm, out=tmp_path / "u.yaml"), heard.append)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == [
        "t.csv",
        "u.train.jsonl",
        "u.yaml",
    ]
    assert any(line.startswith("No rows for test: no figure will be given") for line in heard)
    assert not any("No rows for dev" in line for line in heard)
    assert yaml_task.read(file).data.dev is None


@pytest.mark.parametrize("method, needs", [("p-tuning", True), ("manual", False), ("auto", False)])
@pytest.mark.parametrize("rows, dev_share", [(4, 0.2), (40, 0.0)])
def test_it_is_told_where_a_training_would_lack_dev_rows(
    lm, tmp_path, method, needs, rows, dev_share
):
    path, heard = tmp_path / "t.csv", []
    path.write_text("text,label\n" + "".join(f"film {n},{'ab'[n % 2]}\n" for n in range(rows)))
    file = new(
        NewConfig(data=path, lm=lm, out=tmp_path / "u.yaml", method=method, dev_share=dev_share),
        heard.append,
    )
    sentences = [line for line in heard if line.startswith("No rows for dev")]
    assert [f"a training by {method} needs some" in line for line in sentences] == [True] * needs
    more = {"out": tmp_path / "out", "allow_unknown": True}
    config = yaml_task.read(file).model_copy(update=more)
    if needs:
        with pytest.raises(PtuneError, match="0 dev rows"):
            train(config, lambda _: None)


@pytest.mark.parametrize(
    "name",
    [
        'my "text"',
        '"',
        "{x",
        "x}",
        "a\\b",
        "a\nb",
        "a|b",
        "a: b",
        "soft",
        "soft-drink",
        "mask.id",
        "role:user",
        "#",
        " ",
        "a\u2028b",
        "a\x7fb",
        "\uff5bsoft\uff5d",
        "[X]",
        "12",
    ],
)
def test_a_task_of_any_columns_name_is_read_as_it_was_written(name, tmp_path):
    for texts, label in (((name,), "team"), (("text",), name)):
        page = TaskText(
            name="task",
            lm="builtin",
            method="p-tuning",
            roles=Roles(texts, label),
            words={"a": "a", "b": "b"},
            data=[("train", "train.jsonl", "")],
        ).yaml()
        (tmp_path / "task.yaml").write_text(page, encoding="utf-8")
        task = yaml_task.read(tmp_path / "task.yaml")
        assert Template.parse(task.template).fields == texts and task.target == label
        assert [Template.parse(pattern).fields for pattern in task.patterns] == [texts]


def test_a_column_without_a_name_is_neither_text_nor_label_and_is_told():
    rows = [{"ticket": f"a long text {n}", "": "ab"[n % 2]} for n in range(9)]
    for label in (None, ""):
        with pytest.raises(ConfigError, match=r"one without a name \(2 values\)\. Give that one"):
            columns(rows, None, label, path=pathlib.Path("t.csv"))
    rows = [
        {"": f"a much longer text {n}", "ticket": "short one", "team": "ab"[n % 2]}
        for n in range(9)
    ]
    with pytest.raises(ConfigError, match="looks like a text"):
        columns([{**row, "ticket": "x"} for row in rows], None, None, path=pathlib.Path("t.csv"))
