"""The rows of a task: read, checked, relabelled, drawn."""

import json
from collections import Counter

import pytest

from ptune.answers.word_labels import WordLabels
from ptune.cli import main
from ptune.data import yaml_files
from ptune.errors import ConfigError, DataError
from ptune.experiments.train import train_task
from ptune.settings import FileConfig
from ptune.tasks import yaml_task
from ptune.tasks.layouts import forms
from ptune.tasks.rows.splits import by_prompt, read
from ptune.tasks.schema import DataConfig
from ptune.template.language import Field

LABELS = ("good", "bad")
BOOLQ = {"passage": "Rome is in Italy.", "question": "is rome in italy", "label": True, "idx": 0}


def put(folder, rows, name="rows.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def opinions(count, **more):
    return [
        {"text": f"text {number}", "label": LABELS[number % 2], **more} for number in range(count)
    ]


def test_splits_without_a_file_are_empty(tmp_path):
    splits = read(DataConfig(train=put(tmp_path, opinions(4))), "label", LABELS)
    assert splits == {"train": opinions(4), "dev": [], "test": [], "unlabeled": []}


def test_as_many_rows_and_references_as_asked_for(tmp_path):
    file = put(tmp_path, [{"x": str(i), "y": ["a", "b"]} for i in range(50)])
    rows = read(DataConfig(train=file, take={"train": 7}, references=1), "y")["train"]
    assert len({row["x"] for row in rows}) == 7 and all(row["y"] == ["a"] for row in rows)
    assert [row["x"] for row in rows] == ["49", "32", "31", "40", "12", "38", "20"], (
        "the draw of earlier versions"
    )
    assert rows == read(DataConfig(train=file, take={"train": 7}, references=1), "y")["train"]
    assert (
        rows != read(DataConfig(train=file, take={"train": 7}, references=1, seed=1), "y")["train"]
    )
    assert len(read(DataConfig(test=file, references=1), "y")["test"][0]["y"]) == 2, (
        "what is scored keeps all its references"
    )


def test_rows_by_prompt():
    rows = [{"user": "anna"}, {"user": 7}, {"user": "anna"}]
    assert by_prompt(rows, "user", "train") == {"anna": [rows[0], rows[2]], "7": [rows[1]]}
    assert by_prompt(rows, None, "train") == {None: rows}
    with pytest.raises(
        ConfigError,
        match="dev row 2 has no field 'user', which chooses its prompt. Did you mean 'users'",
    ):
        by_prompt([{"user": "anna"}, {"users": "bob"}], "user", "dev")


def test_a_form_of_superglue(tmp_path):
    (row,) = read(DataConfig(form="boolq", train=put(tmp_path, [BOOLQ])), "label", ["true"])[
        "train"
    ]
    assert row["label"] == "true" and row["question"] == BOOLQ["question"]


@pytest.mark.parametrize(
    "rows, labels, message",
    [
        (
            [{"label": "good"}, {"label": "godo"}],
            LABELS,
            r"rows.jsonl, line 2 \(train\): its label, in the field 'label', is 'godo', which the "
            r"task does not have. Did you mean 'good'",
        ),
        (
            [{"label": "good"}, {"label": None}],
            LABELS,
            r"line 2 \(train\): its label, in the field 'label', is missing \(null\), which the "
            r"task does not have",
        ),
        (
            [{"label": "good"}] * 3,
            LABELS,
            "rows.jsonl: no row has the label 'bad', so it cannot be learned",
        ),
        (
            [{"label": "good"}, {"lable": "bad"}],
            LABELS,
            r"rows.jsonl, line 2 \(train\) has no field 'label', which should hold the right "
            r"answer. Did you mean 'lable'",
        ),
        ([{"label": "a text"}, {"text": "x"}], (), r"line 2 \(train\) has no field 'label'"),
        (
            [{"label": "good"}, {"label": ["bad"]}],
            LABELS,
            r"line 2 \(train\): its label, in the field 'label', is \[\"bad\"\], which",
        ),
    ],
)
def test_faults_are_told_with_the_file_and_the_row(tmp_path, rows, labels, message):
    with pytest.raises(DataError, match=message):
        read(DataConfig(train=put(tmp_path, rows)), "label", labels)


def test_what_is_no_fault(tmp_path):
    """Labels that are numbers or truths; texts of any kind where there are no labels; a lacking
    label elsewhere; ids that stand twice."""
    for values, labels in (
        ((0, 1), ("0", "1")),
        ((True, False), ("True", "False")),
        ((True, False), ("true", "false")),
        ((5.0, 1.5), ("5.0", "1.5")),
        (("any", ["text", "s"]), ()),
    ):
        rows = [{"label": value} for value in values]
        assert read(DataConfig(train=put(tmp_path, rows)), "label", labels)["train"] == rows
    file = put(
        tmp_path, [{"label": "good", "id": {"passage": 1}}, {"label": "good", "id": {"passage": 1}}]
    )
    assert len(read(DataConfig(dev=file, test=file), "label", LABELS)["dev"]) == 2
    for ids in ((1, 1), ("", ""), (None, "a")):
        rows = [{"label": "good", "id": number, "idx": number} for number in ids]
        assert read(DataConfig(test=put(tmp_path, rows)), "label", LABELS)["test"] == rows


def test_test_sets_as_published_without_labels_are_refused(tmp_path):
    train, bare = (
        put(tmp_path, opinions(2)),
        put(tmp_path, [{"text": "x"}, {"text": "y"}], "bare.jsonl"),
    )
    with pytest.raises(
        DataError, match="bare.jsonl: no row has the field 'label'.* Give a labelled file as test"
    ):
        read(DataConfig(train=train, test=bare), "label", LABELS)
    with pytest.raises(
        DataError, match=r"bare.jsonl, line 1 \(dev\) has no field .* The same in line 2\.$"
    ):
        read(DataConfig(train=train, dev=bare), "label", LABELS)
    with pytest.raises(DataError, match=r"half.jsonl, line 1 \(test\) has no field 'label'"):
        read(
            DataConfig(test=put(tmp_path, [{"text": "x"}, *opinions(2)], "half.jsonl")),
            "label",
            LABELS,
        )


def test_a_target_that_no_file_has_is_told_as_that(tmp_path):
    rows = [{"text": "x", "Zuständiges Team": "good"}] * 2
    files = {split: put(tmp_path, rows, f"{split}.jsonl") for split in ("train", "dev", "test")}
    with pytest.raises(DataError) as fault:
        read(DataConfig(**files), "Zustaendiges Team", LABELS)
    assert str(fault.value) == (
        "No file has the field 'Zustaendiges Team', which target names. Did you mean "
        f"'Zuständiges Team'? The fields of {files['train']}: 'text', 'Zuständiges Team'."
    )
    with pytest.raises(DataError, match="which target names. Known: 'text', 'Zuständiges Team'"):
        read(DataConfig(train=files["train"]), "xyz", LABELS)


def test_files_in_another_encoding(tmp_path):
    for encoding, message in (
        ("utf-16", "not UTF-8 text but UTF-16, .* save it as UTF-8"),
        ("latin-1", "not UTF-8 text .* in line 1, at byte 11.; save it as UTF-8"),
    ):
        (tmp_path / "rows.jsonl").write_bytes(
            '{"text": "Köln", "label": "good"}\n'.encode(encoding)
        )
        with pytest.raises(DataError, match=f"rows.jsonl is {message}"):
            read(DataConfig(train=tmp_path / "rows.jsonl"), "label", ("good",))


def test_unlabeled_rows_lose_their_label(tmp_path):
    file = put(tmp_path, opinions(4) + [{"text": "without"}])
    unlabeled = read(DataConfig(unlabeled=file), "label", LABELS)["unlabeled"]
    assert unlabeled == [{"text": f"text {number}"} for number in range(4)] + [{"text": "without"}]
    taken = read(DataConfig(unlabeled=file, take={"unlabeled": 2}), "label", LABELS)["unlabeled"]
    assert len(taken) == 2 and all(row in unlabeled for row in taken)


def test_unlabeled_rows_of_record_lose_all_that_tells_the_answer(tmp_path):
    text = "Anna met Bob. Bob left."
    passage = {"text": text, "entities": [{"start": 0, "end": 3}, {"start": 9, "end": 11}]}
    query = {
        "idx": 1,
        "query": "@placeholder met Bob",
        "answers": [{"start": 0, "end": 3, "text": "Anna"}],
    }
    file = put(tmp_path, [{"idx": 0, "passage": passage, "qas": [query]}])
    splits = read(DataConfig(form="record", test=file, unlabeled=file), "label")
    assert (
        splits["test"][0]["answers"] == ["Anna"]
        and not {"label", "answers"} & splits["unlabeled"][0].keys()
    )


def test_other_labels_become_the_tasks_and_the_rest_is_left_out(tmp_path):
    file = put(tmp_path, [{"n": n, "label": n % 5} for n in range(10)])
    data = DataConfig(
        train=file,
        test=put(tmp_path, opinions(2), "test.jsonl"),
        relabel={"train": {0: "bad", 1: "bad", 3: "good", 4: "good"}},
    )
    splits = read(data, "label", LABELS)
    assert [(row["n"], row["label"]) for row in splits["train"]] == [
        (n, "bad" if n % 5 < 2 else "good") for n in (0, 1, 3, 4, 5, 6, 8, 9)
    ]
    assert splits["test"] == opinions(2), "of the other splits nothing changes"
    for names, message in (
        (
            {"O": "bad", "3": "good"},
            "relabel speaks of the label 'O', and no row has it. Known: '0', '1'",
        ),
        (
            {"0": "bad", "3": "goood"},
            r"rows.jsonl, line 4 \(train\): its label, in the field 'label', is 'goood', which "
            r"the task does not have. Did you mean 'good'",
        ),
    ):
        with pytest.raises(DataError, match=message):
            read(DataConfig(train=file, relabel={"train": names}), "label", LABELS)


def test_few_rows_of_each_label_from_train_alone_or_from_devs_file_too(tmp_path):
    train, dev = put(tmp_path, opinions(20)), put(tmp_path, opinions(12, of="dev"), "dev.jsonl")
    splits = read(DataConfig(train=train, shots=4, test=dev, take={"test": 3}), "label", LABELS)
    for split in ("train", "dev"):
        assert Counter(row["label"] for row in splits[split]) == {"good": 4, "bad": 4}
    assert not [row for row in splits["dev"] if row in splits["train"]] and len(splits["test"]) == 3
    both = read(DataConfig(train=train, dev=dev, shots=4), "label", LABELS)
    assert (
        both["train"] == splits["train"]
        and len(both["dev"]) == 8
        and all(row.get("of") == "dev" for row in both["dev"])
    )
    assert (
        read(DataConfig(train=train, shots=4, seed=1), "label", LABELS)["train"] != splits["train"]
    )


def test_faults_of_few_rows(tmp_path):
    train, dev = put(tmp_path, opinions(9)), put(tmp_path, opinions(3), "dev.jsonl")
    with pytest.raises(
        DataError, match=r"rows.jsonl: For dev, .* 3 rows .* fewer of: 'good' \(2\), 'bad' \(1\)"
    ):
        read(DataConfig(train=train, shots=3), "label", LABELS)
    with pytest.raises(
        DataError, match=r"rows.jsonl and .*dev.jsonl: 5 rows .* fewer of: 'bad' \(4\)"
    ):
        read(DataConfig(train=train, dev=dev, shots=5), "label", LABELS)
    with pytest.raises(
        ConfigError, match="shots counts the rows of each label, and the task has no labels"
    ):
        read(DataConfig(train=train, shots=1), "label")


@pytest.mark.parametrize(
    "values, message",
    [
        (
            {"train": "a", "shots": 4, "take": {"train": 3}},
            "leave take.train, take.dev and references out",
        ),
        (
            {"train": "a", "shots": 4, "dev": "b", "take": {"dev": 3}},
            "leave take.train, take.dev and references out",
        ),
        (
            {"train": "a", "shots": 4, "references": 1},
            "leave take.train, take.dev and references out",
        ),
        ({"dev": "a", "shots": 4}, "shots draws rows to learn from: give train"),
        ({"train": "a", "shots": 0}, "greater than or equal to 1"),
        (
            {"unlabeled": "a", "form": "e2e"},
            "unlabeled is of rows with labels, and those of e2e have texts",
        ),
        ({"train": "a", "form": "dart", "shots": 2}, "shots is of rows with labels"),
        (
            {"train": "a", "form": "webnlg", "relabel": {"train": {"0": "1"}}},
            "relabel is of rows with labels",
        ),
        (
            {"train": "a", "relabel": {"dev": {"0": "1"}}},
            "relabel speaks of dev, of which no file is given",
        ),
        (
            {"train": "a", "take": {"unlabeled": 3}},
            "take speaks of unlabeled, of which no file is given",
        ),
        ({"train": "a", "relabel": {"train": {}}}, "at least 1 item"),
        (
            {"unlabeled": "a", "relabel": {"unlabeled": {"0": "1"}}},
            "Input should be 'train', 'dev' or 'test'",
        ),
        (
            {"dev": "a", "test": "b", "halve_dev": True},
            "half of dev's rows where there is no file for test: give dev, and not test",
        ),
        ({"train": "a", "halve_dev": True}, "give dev, and not test"),
        (
            {"dev": "a", "halve_dev": True, "relabel": {"test": {"0": "1"}}},
            "relabel speaks of test",
        ),
        (
            {"dev": "a", "halve_dev": True, "take": {"train": 2}},
            "take speaks of train, of which no file is given",
        ),
        (
            {"form": "superglue"},
            "'boolq', 'cb', 'copa', 'multirc', 'record', 'rte', 'wic', 'wsc', 'ax-b' or 'ax-g'",
        ),
    ],
)
def test_what_does_not_go_together(values, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig(**values)


def test_every_field_has_its_help():
    assert all(field.description for field in DataConfig.model_fields.values())


def test_dev_in_two_halves(tmp_path):
    rows = opinions(11)
    config = DataConfig(dev=put(tmp_path, rows), halve_dev=True)
    splits = read(config, "label", LABELS)
    assert [len(splits[split]) for split in ("train", "dev", "test", "unlabeled")] == [0, 6, 5, 0]
    assert (
        sorted(splits["dev"] + splits["test"], key=rows.index) == rows and splits["dev"] != rows[:6]
    )
    assert splits == read(config.model_copy(update={"seed": 3}), "label", LABELS), (
        "no seed's dev has rows of another's test"
    )
    fewer = read(config.model_copy(update={"take": {"dev": 2, "test": 3}}), "label", LABELS)
    assert len(fewer["dev"]) == 2 and len(fewer["test"]) == 3
    assert all(row in splits[split] for split in ("dev", "test") for row in fewer[split])
    few = read(config.model_copy(update={"train": config.dev, "shots": 1}), "label", LABELS)
    assert few["test"] == splits["test"] and all(row in splits["dev"] for row in few["dev"])
    with pytest.raises(
        DataError,
        match="one.jsonl has one row, and halve_dev makes two halves of it: give a file for test",
    ):
        read(
            DataConfig(dev=put(tmp_path, opinions(1), "one.jsonl"), halve_dev=True), "label", LABELS
        )


def test_halves_of_dev_share_no_text(tmp_path):
    copies = [{**row, "text": row["text"].upper()} for row in opinions(9)]
    rows = [{**row, "id": str(number)} for number, row in enumerate([*opinions(9), *copies])]
    config = DataConfig(dev=put(tmp_path, rows), halve_dev=True)
    splits = read(config, "label", LABELS, fields=[Field("text")])
    dev, test = ({row["text"].lower() for row in splits[split]} for split in ("dev", "test"))
    assert len(splits["dev"]) + len(splits["test"]) == 18 and not dev & test
    config = DataConfig(dev=put(tmp_path, [rows[0], rows[9]], "same.jsonl"), halve_dev=True)
    with pytest.raises(DataError, match="same.jsonl has one text, and halve_dev makes two"):
        read(config, "label", LABELS, fields=[Field("text")])


YAML = """
name: opinions
template: "{text} It was {mask} ."
labels: {0: bad, 1: good}
method: manual
lm: ./lm
data:
  {train: rows.jsonl, test: test.jsonl, unlabeled: rows.jsonl, shots: 2,
   relabel: {train: {1: 0, 3: 1}}, take: {test: 3}}
out: trained
device: cpu
"""


def test_from_the_file_and_the_command_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "task.yaml").write_text(YAML)
    data = yaml_task.read(tmp_path / "task.yaml").data
    assert (
        data.relabel == {"train": {"1": "0", "3": "1"}}
        and data.shots == 2
        and data.unlabeled == tmp_path / "rows.jsonl"
    )
    seen = []
    monkeypatch.setattr(train_task, "train", lambda config: seen.append(config.data))
    main.main(["train", str(tmp_path / "task.yaml"), "--data.shots", "4", "--data.take.test", "5"])
    assert seen == [data.model_copy(update={"shots": 4, "take": {"test": 5}})]
    (tmp_path / "task.yaml").write_text(YAML.replace("test: 3", "train: 3"))
    with pytest.raises(ConfigError, match="leave take.train, take.dev and references out"):
        yaml_task.read(tmp_path / "task.yaml")


def test_sixteen_questions_of_each_kind(data):
    trec = data / "classification" / "trec"
    splits = read(
        DataConfig(train=trec / "train.jsonl", test=trec / "test.jsonl", shots=16),
        "label",
        tuple("012345"),
    )
    questions = {split: {row["sentence"] for row in rows} for split, rows in splits.items()}
    assert (
        len(splits["train"]) == len(splits["dev"]) == 96
        and len(splits["test"]) == 500
        and not questions["train"] & questions["dev"]
    )
    assert Counter(row["label"] for row in splits["dev"]) == dict.fromkeys("012345", 16)
    with pytest.raises(DataError, match=r"For dev, .* 50 rows .* fewer of: '2' \(36\)"):
        read(DataConfig(train=trec / "train.jsonl", shots=50), "label", tuple("012345"))


def test_sst2_is_learned_from_the_rows_of_sst5(data):
    folder = data / "classification"
    config = DataConfig(
        train=folder / "sst5/train.jsonl",
        test=folder / "sst2/dev.jsonl",
        relabel={"train": {0: 0, 1: 0, 3: 1, 4: 1}},
    )
    splits = read(config, "label", ("0", "1"))
    assert (
        Counter(row["label"] for row in splits["train"]) == {"0": 3310, "1": 3610}
        and len(splits["test"]) == 872
    )
    with pytest.raises(
        DataError,
        match=r"sst5/train.jsonl, line 1 \(train\): its label, in the field 'label', is '4', "
        r"which the task does not have",
    ):
        read(DataConfig(train=folder / "sst5/train.jsonl"), "label", ("0", "1"))


def test_labels_without_a_word_and_words_without_a_row_are_told_at_once(tmp_path):
    rows = [{"label": label} for label in ("good", "fine", "awful", "fine")]
    with pytest.raises(DataError) as fault:
        read(DataConfig(train=put(tmp_path, rows)), "label", ("good", "bad", "worse"))
    assert (
        "rows.jsonl, line 2 (train): its label, in the field 'label', is 'fine', which the task "
        "does not have" in str(fault.value)
    )
    assert str(fault.value).endswith(
        "Labels of rows for which the task has no word: 'fine' (line 2), 'awful' (line 3). "
        "Labels of the task that no row has: 'bad', 'worse'."
    )
    with pytest.raises(
        DataError,
        match=r"rows.jsonl, line 2 \(dev\): its label, in the field 'label', is 'fine', which the "
        r"task does not have",
    ):
        read(DataConfig(dev=put(tmp_path, rows[:2])), "label", ("good", "bad", "worse"))


def test_faults_of_all_rows_and_splits_are_told_together(tmp_path):
    rows = [*opinions(4), *({"text": None, "label": "godo"} for _ in range(4))]
    with pytest.raises(DataError) as error:
        dev = put(tmp_path, [{"label": "good", "text": ["x"]}], "dev.jsonl")
        read(
            DataConfig(train=put(tmp_path, rows), dev=dev), "label", LABELS, fields=(Field("text"),)
        )
    lines = str(error.value).splitlines()
    assert (
        len(lines) == 3
        and "rows.jsonl, line 5 (train): its label" in lines[0]
        and lines[0].endswith("Did you mean 'good'? The same in lines 6, 7, 8.")
        and "dev.jsonl, line 1" in lines[2]
    )
    for value, message in (
        (
            [{"text": True}],
            r"line 1 \(dev\): The field 'text' should be text, and it is bool: 'True'",
        ),
        ([{"text": float("nan")}], r"line 1 \(dev\): The field 'text' is missing"),
        ([{"text": ["x"]}], r"it is list: .*'x'"),
        (
            [{"texts": "x"}],
            r"line 1 \(dev\) has no field 'text', which the task reads. Did you mean 'texts'",
        ),
    ):
        with pytest.raises(DataError, match=message):
            read(
                DataConfig(dev=put(tmp_path, [{**row, "label": "good"} for row in value])),
                "label",
                LABELS,
                fields=(Field("text"),),
            )


def test_a_first_line_that_is_a_row_is_told_as_that(tmp_path):
    (tmp_path / "a.csv").write_text(
        '"3","Shares rise","Acme said so."\n"4","Robot","It can run."\n'
    )
    with pytest.raises(
        DataError,
        match=r"no row has the field 'class'.* first line of the file was taken for the names of "
        r"its 3 columns .*data: \{columns: \[",
    ):
        read(DataConfig(train=tmp_path / "a.csv"), "class", ("3", "4"))
    data = DataConfig(train=tmp_path / "a.csv", columns=("class", "title", "text"))
    assert len(read(data, "class", ("3", "4"))["train"]) == 2


def test_what_was_decided_is_told(tmp_path):
    (tmp_path / "a.csv").write_text("text;label\na;good\nb;bad\n")
    notes = []
    read(
        DataConfig(train=tmp_path / "a.csv", dev=tmp_path / "a.csv"),
        "label",
        LABELS,
        report=notes.append,
    )
    assert len(notes) == 1 and "its separator is a semicolon" in notes[0]
    (tmp_path / "b.csv").write_text("﻿Review Text,label\na,good\nb,bad\n")
    assert read(
        DataConfig(train=tmp_path / "b.csv", rename={"Review Text": "text"}), "label", LABELS
    )["train"][0] == {"text": "a", "label": "good"}


@pytest.mark.parametrize(
    "form, options, named",
    [
        ("boolq", {"separator": ";"}, "separator"),
        ("e2e", {"rename": {"a": "b"}}, "rename"),
        ("webnlg", {"encoding": "latin-1"}, "encoding"),
        ("trec", {"columns": ("a", "b")}, "columns"),
        ("rows", {"language": "ru"}, "language"),
    ],
)
def test_an_option_that_files_of_a_form_do_not_have_is_refused(tmp_path, form, options, named):
    for reads in (forms.rows_of, forms.iterate):
        with pytest.raises(ConfigError, match=f"{named} is not an option of files of the form"):
            list(reads(tmp_path / "a.jsonl", form, options=FileConfig(**options)))


def test_a_file_of_webnlg_is_read_in_the_language_that_is_asked_for(tmp_path):
    (tmp_path / "a.xml").write_text(
        '<b><entry category="Film" eid="1"><modifiedtripleset><mtriple>a | b | c</mtriple>'
        '</modifiedtripleset><lex lang="en">x</lex><lex lang="ru">y</lex></entry></b>'
    )
    rows = forms.rows_of(tmp_path / "a.xml", "webnlg", options=FileConfig(language="ru"))
    assert [row["text"] for row in rows] == [["y"]]


def test_bad_lines_are_told_with_all_other_faults(tmp_path):
    (tmp_path / "a.csv").write_text(
        "text,label\nfine,good\none\nwet,god\n,bad,x\nwet,bad\n" + "two\n" * 4
    )
    put(tmp_path, [{"text": None, "label": "good"}], "b.jsonl")
    data = DataConfig(train=tmp_path / "a.csv", dev=tmp_path / "b.jsonl")
    with pytest.raises(DataError) as caught:
        read(data, "label", LABELS, fields=[Field("text")])
    lines = str(caught.value).splitlines()
    assert [line.split(", line ")[1] for line in lines[:2]] == [
        "3: 1 fields where the first line names 2. (train) The same in lines 7, 8, 9, 10.",
        "5: 3 fields where the first line names 2. A text that has a comma in it must stand in "
        "quotation marks. (train)",
    ]


def test_a_test_file_without_one_good_sentence_is_told_by_its_lines(tmp_path):
    train, bad = tmp_path / "a.conll", tmp_path / "b.conll"
    train.write_text("Vienna B-a\nis O\n")
    bad.write_text("Vienna B-a\nis\n")
    words = WordLabels("words", ("O", "B-a"))
    with pytest.raises(DataError, match=r"b.conll, line 2: a word and its label .*\(test\)"):
        read(DataConfig(form="conll", train=train, test=bad), "label", words.labels, words=words)


def test_labels_that_differ_in_unicodes_form_are_told_as_that(tmp_path):
    data = DataConfig(train=put(tmp_path, [
        {"text": "a", "label": "cafe\u0301"}, {"text": "b", "label": "bar"}
    ]))  # fmt: skip
    for label, difference in (
        ("caf\u00e9", "Unicode's form alone .*NFC and NFD"),
        ("CAFE\u0301", "upper and lower case"),
        ("cafe\u0301 ", "the white space around them"),
    ):
        with pytest.raises(DataError, match=f"line 1 .*differs from the label .*{difference}"):
            read(data, "label", (label, "bar"))


def test_whole_numbers_with_a_decimal_point_are_told_as_labels(tmp_path):
    """As data frames write a column of whole numbers with an empty cell; what the message says to
    write reads them."""
    data = DataConfig(train=put(tmp_path, [{"label": "1.0"}, {"label": 0.0}, {"label": "2"}]))
    with pytest.raises(DataError, match="label '1' with a decimal point") as caught:
        read(data, "label", "012")
    advice = str(caught.value).partition("data: ")[2].partition(" reads them")[0]
    relabel = yaml_files.parse(advice, tmp_path)["relabel"]
    assert relabel == {"train": {"0.0": "0", "1.0": "1", "2": "2"}}
    rows = read(DataConfig(**{**data.model_dump(), "relabel": relabel}), "label", "012")["train"]
    assert [row["label"] for row in rows] == ["1", "0", "2"]
    with pytest.raises(DataError) as caught:
        read(data, "label", ("0", "1", "3"))
    assert "relabel" not in str(caught.value)
