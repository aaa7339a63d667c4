"""Answers in the form of SuperGLUE's leaderboard, and its diagnostics."""

import json
import re

import pytest
import tiny

from ptune import LanguageModel, PromptModel, Task, Template, Verbalizer, save
from ptune.cli import main
from ptune.errors import ConfigError
from ptune.settings import LayoutConfig
from ptune.tasks.layouts import submission, superglue

ORDER = [(5, "great"), (3, "bad"), (4, "Vienna")]


def lines(form, answers):
    return [json.loads(line) for line in submission.text(form, answers).splitlines()]


@pytest.mark.parametrize(
    "form, said, label",
    [
        ("boolq", "true", "true"),
        ("cb", "neutral", "neutral"),
        ("copa", "1", 1),
        ("rte", "not_entailment", "not_entailment"),
        ("ax-b", "entailment", "entailment"),
        ("wic", "false", "false"),
        ("wsc", "false", "False"),
    ],
)
def test_a_line_for_each_row(form, said, label):
    assert lines(form, [({"id": "7"}, said)]) == [{"idx": 7, "label": label}]


def test_record_answers_with_an_entity_of_the_query():
    row = {"id": "3-12", "entities": ["Vienna", "Rome"]}
    assert lines("record", [(row, "1")]) == [{"idx": 12, "label": "Rome"}]


def test_multirc_has_a_line_for_each_passage():
    answers = [
        ({"id": i}, s) for i, s in (("0-0-0", "true"), ("0-0-1", "false"), ("0-1-2", "true"))
    ]
    answers.append(({"id": "1-4-5"}, "false"))
    questions = [
        {"idx": 0, "answers": [{"idx": 0, "label": 1}, {"idx": 1, "label": 0}]},
        {"idx": 1, "answers": [{"idx": 2, "label": 1}]},
    ]
    first, second = lines("multirc", answers)
    assert first == {"idx": 0, "passage": {"questions": questions}}
    assert second["passage"]["questions"] == [{"idx": 4, "answers": [{"idx": 5, "label": 0}]}]


def test_what_is_no_task_of_the_leaderboard():
    assert set(submission.FILES) == set(superglue.FORMS)
    with pytest.raises(ConfigError, match="of the form 'trec'"):
        submission.check("trec")
    with pytest.raises(ConfigError, match="The prompt answered 'maybe'"):
        submission.text("rte", [({"id": "0"}, "maybe")])


@pytest.fixture
def asked(tmp_path):
    """What asks for answers to rows of AX-b, but for the name of the submission."""
    for part in tiny.tiny("bert"):
        part.save_pretrained(tmp_path / "lm")
    model = PromptModel(LanguageModel.load(tmp_path / "lm"))
    words = Verbalizer.from_words({"entailment": "Yes", "not_entailment": "No"})
    template = Template.parse("{premise} ? {mask} {hypothesis}")
    model.add(Task("rte", template, words, layout=LayoutConfig(form="rte")))
    save(model, tmp_path / "rte")
    rows = [{"sentence1": f"It is {word} .", "sentence2": "Rome", "idx": n} for n, word in ORDER]
    (tmp_path / "AX-b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = ["--data", str(tmp_path / "AX-b.jsonl"), "--form", "ax-b", "--submission"]
    return ["predict", str(tmp_path / "rte"), *named]


@pytest.mark.parametrize(
    "name, more, message",
    [
        ("AX-b.jsonl", ["--overwrite"], "would overwrite it: choose another name"),
        ("mine.jsonl", [], "is there already: .* give --overwrite to replace it"),
        ("mine.jsonl/a.jsonl", [], "mine.jsonl is a file, and no folder"),
        ("a.jsonl", ["--out", "a.jsonl", "--overwrite"], "would overwrite the answers of --out"),
        ("a.jsonl.partial", ["--out", "a.jsonl"], "would overwrite the answers of --out"),
    ],
)
def test_a_submission_takes_no_place_of_another_file(
    asked, tmp_path, monkeypatch, capsys, name, more, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(SystemExit, match="2"):
        main.main([*asked, str(tmp_path / name), *more])
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_submission_replaces_a_file_where_that_is_asked_for(asked, tmp_path, capsys):
    (tmp_path / "mine.jsonl").write_text("mine")
    main.main([*asked, str(tmp_path / "mine.jsonl"), "--overwrite"])
    assert len((tmp_path / "mine.jsonl").read_text().splitlines()) == len(ORDER)


def test_predict_writes_a_file_for_the_leaderboard(asked, tmp_path, capsys):
    out = tmp_path / "out" / "AX-b.jsonl"
    out.parent.mkdir()
    main.main([*asked, str(out), "--out", str(tmp_path / "answers.jsonl")])
    said = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"idx": n, "label": row["ptune"]["prediction"]} for (n, _), row in zip(ORDER, said)
    ]
    pairs = [("the", 0), ("the", 1), ("great", 4), ("bad", 5), ("Rome", 7)]
    gendered = [{"premise": f"It is {w} .", "hypothesis": "a", "idx": n} for w, n in pairs]
    (tmp_path / "AX-g.jsonl").write_text("".join(json.dumps(row) + "\n" for row in gendered))
    capsys.readouterr()
    asked_of_pairs = [*asked[:2], "--data", str(tmp_path / "AX-g.jsonl"), "--form", "ax-g"]
    main.main([*asked_of_pairs, "--submission", str(tmp_path / "AX-g.out.jsonl")])
    given = [json.loads(line) for line in (tmp_path / "AX-g.out.jsonl").read_text().splitlines()]
    parity = (1 + (given[2]["label"] == given[3]["label"])) / 2
    assert f"gender-parity {parity:.4f} on 2 pairs" in capsys.readouterr().err
    for more, message in (
        (["--at-least", "0.9"], "--at-least leaves out"),
        (["--skip-bad-lines"], "--skip-bad-lines leaves out"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main.main([*asked, str(out), *more])
        assert message in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit, match="2"):
        main.main([*asked, str(out.parent)])
    assert "is a folder" in capsys.readouterr().err
