"""Rows of a table that say the same are one question."""

import json
import pathlib
from dataclasses import replace

import killing
import pytest
import tiny

from ptune.answers.from_row import Choices
from ptune.answers.label_words import Verbalizer
from ptune.data.rows import read_rows
from ptune.experiments.answering import predict
from ptune.experiments.answering.streams.equal_rows import EqualRows
from ptune.experiments.options import PredictConfig
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel
from ptune.model.task import Task
from ptune.storage import prompt_folder
from ptune.template.language import Template

TEXTS = ("great film", "bad", "worst terrible best", "Rome", "Vienna film great best")
ROWS = [{"id": n, "text": TEXTS[n * n % 5], "rest": n / 2} for n in range(23)]


def model_of(*tasks: Task) -> PromptModel:
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    for task in tasks:
        model.add(task)
    return model


def task(template: str = "{soft:2} {text} {mask}", **more) -> Task:
    words = Verbalizer(("good", "bad"), (("great",), ("bad",)))
    return Task("t", Template.parse(template), words, encoder="table", **more)


@pytest.fixture
def answer(tmp_path, monkeypatch):
    """Answers rows in pieces of ten; returns the answers and how many examples were scored."""
    model = model_of(task())
    prompt_folder.save(model, tmp_path / "prompt")
    monkeypatch.setattr(predict, "load_model", lambda *source: model)
    monkeypatch.setattr(predict, "ANSWERS_AT_ONCE", 2)
    scores, scored = PromptModel.scores, []

    def counted(self, examples):
        scored.append(len(examples))
        return scores(self, examples)

    monkeypatch.setattr(PromptModel, "scores", counted)

    def run(rows, out="out", **more):
        scored.clear()
        data = tmp_path / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        lines: list[str] = []
        config = PredictConfig(
            prompt=tmp_path / "prompt", data=data, out=tmp_path / out, device="cpu", **more
        )
        predict.predict(config, lines.append)
        parts = [tmp_path / out] if pathlib.Path(out).suffix else (tmp_path / out).glob("part-*")
        return [row for part in sorted(parts) for row in read_rows(part)], sum(scored), lines

    return run


def test_equal_rows_of_a_piece_are_scored_once_and_answered_as_each_alone(answer):
    plain, scored, _ = answer(ROWS, "plain.jsonl")
    assert scored == 23
    best = sorted({max(row["ptune"]["scores"].values()) for row in plain})
    asked = {"explain": True, "at_least": (best[0] + best[-1]) / 2}
    alone, _, lines = answer(ROWS, "answers.jsonl", **asked)
    together, scored, lines_of_table = answer(ROWS, shard_rows=10, **asked)
    distinct = [len({row["text"] for row in ROWS[first : first + 10]}) for first in (0, 10, 20)]
    assert scored == sum(distinct) < 12
    assert [row["id"] for row in together] == [*range(23)]
    for row, right in zip(together, alone, strict=True):
        given, expected = row.pop("ptune"), right.pop("ptune")
        assert row == right
        assert given["scores"] == pytest.approx(expected["scores"], abs=1e-5)
        assert {**given, "scores": 0} == {**expected, "scores": 0}
    assert len({row["text"] for row in ROWS}) == 3
    abstained = next(line for line in lines if "without an answer" in line)
    assert abstained in lines_of_table and not abstained.startswith(("0", "23"))


def test_unknown_pieces_are_counted_of_each_row(answer):
    rows = [{"text": "Привет great"}] * 7 + [{"text": "great"}] * 3
    _, _, alone = answer(rows, "answers.jsonl")
    _, scored, lines = answer(rows, shard_rows=10)
    assert scored == 2 and lines[0] == alone[0] and "unknown" in lines[0]


@pytest.mark.parametrize("call", [2, 3, 4])
def test_a_killed_run_goes_on_to_the_same_bytes(call, answer, tmp_path, monkeypatch):
    answer(ROWS, "whole", shard_rows=10)
    calls, scores = [], PromptModel.scores

    def dying(self, examples):
        calls.append(1)
        if len(calls) == call:
            raise killing.Stop
        return scores(self, examples)

    monkeypatch.setattr(PromptModel, "scores", dying)
    with pytest.raises(killing.Stop):
        answer(ROWS, shard_rows=10)
    answer(ROWS, shard_rows=10, resume=call > 2)
    for path in (tmp_path / "whole").glob("*.jsonl"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_what_a_prompt_reads_decides_which_rows_are_equal():
    of_one = EqualRows(model_of(task()))
    assert of_one.key({"text": "a", "id": 1}) == of_one.key({"text": "a", "id": 2}) is not None
    assert of_one.key({"text": "a"}) != of_one.key({"text": "b"})
    assert of_one.key({"id": 1}) is None  # it lacks what is read, and is refused by its own line
    assert of_one.key({"text": 1}) is None and of_one.key({"text": ["a"]}) is None
    users = [replace(task(), name=name, by=("user", name)) for name in ("ann", "bob")]
    of_users = EqualRows(model_of(*users))
    keys = [of_users.key({"text": "a", "user": name}) for name in ("ann", "bob", "ann")]
    assert keys[0] == keys[2] != keys[1]
    pair = EqualRows(model_of(task("{soft:2} {text} {other} {mask}", swap=("text", "other"))))
    assert pair.key({"text": "a", "other": "b"}) != pair.key({"text": "b", "other": "a"})
    domain = task(domain=Template.parse("{soft:2} {kind} {mask}"))
    keys = [EqualRows(model_of(domain)).key({"text": "a", "kind": kind}) for kind in "xy"]
    assert keys[0] != keys[1]


def test_rows_with_their_own_answers_are_taken_to_differ():
    pick = Task(
        "c", Template.parse("{soft:2} {text} {mask}"), Choices(("text", "b")), encoder="table"
    )
    assert EqualRows(model_of(pick)).key({"text": "great", "b": "bad"}) is None
