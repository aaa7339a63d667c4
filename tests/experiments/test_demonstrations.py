"""Labelled examples before each row of a comparison: which they are, and what the LM then reads."""

import json

import pytest
import tiny

from ptune.errors import ConfigError
from ptune.experiments.compare import compare, demonstrations
from ptune.experiments.compare.compare_rows import draw_all, read_tasks
from ptune.experiments.options import CompareConfig
from ptune.tasks.task_members import Member

TEXTS = {
    "good": ["great film in Rome", "the best film", "a great city", "good euro"],
    "bad": ["terrible film in Rome", "the worst film", "a bad city", "bad euro"],
}
YAML = """
name: opinions
patterns: ["{text} is {mask}."]
labels: {good: great, bad: bad}
data: {train: rows.jsonl, test: rows.jsonl, shots: 2}
lm: ./lm
"""


@pytest.fixture
def folder(tmp_path):
    for part in tiny.tiny("bert"):
        part.save_pretrained(tmp_path / "lm")
    rows = [{"text": text, "label": label} for label in TEXTS for text in TEXTS[label]]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.yaml").write_text(YAML)
    return tmp_path


def config_of(folder, **more):
    given = {"tasks": [str(folder / "task.yaml")], "methods": "manual", "device": "cpu"}
    return CompareConfig(**given | {"out": folder / "out"} | more)


def drawn(folder, number=1):
    config = config_of(folder)
    split = draw_all(read_tasks(config.tasks)[0], config.shots, config.seeds)[0]
    member = Member("{text} is {mask}.", {"good": "great", "bad": "bad"})
    return split, *demonstrations.with_demonstrations(split, member, number)


def test_a_row_gets_an_example_of_each_label_and_never_itself(folder):
    split, asked, member = drawn(folder)
    assert member.template == "{demonstrations|shorten:start} {text} is {mask}."
    by_label = {
        label: [f"{row['text']} is {word}." for row in split.train if row["label"] == label]
        for label, word in (("good", "great"), ("bad", "bad"))
    }
    for before, row in zip((*split.train, *split.dev), (*asked.train, *asked.dev)):
        examples = row["demonstrations"]
        for texts in by_label.values():
            assert sum(text in examples for text in texts) == 1
        if before in split.train:
            assert f"{before['text']} is" not in examples
    assert drawn(folder)[1] == asked


def test_examples_are_of_the_half_that_is_most_alike(folder):
    split, _, member = drawn(folder)
    shelf = demonstrations.Shelf.of(split, Member("{text} is {mask}.", member.words), 1)
    for row in (*split.dev, *split.test):
        likeness = shelf.likeness(f"{row['text']} is .")
        for places in shelf.rows.values():
            if row in split.train:
                continue
            best = max(places, key=lambda place: (likeness[place], -place))
            assert shelf.texts[best] in shelf.before(row)["demonstrations"]


def test_a_comparison_with_examples_gives_other_figures_and_names_them(folder):
    lines = []
    plain = compare.compare(config_of(folder), lines.append)
    options = {"demonstrations": 1, "out": folder / "examples", "methods": "manual,head"}
    shown = compare.compare(config_of(folder, **options), lines.append)
    cells = {cell.method: cell for cell in shown.cells}
    results = json.loads(next((folder / "examples").rglob("manual-2-0.json")).read_text())
    assert results["template"].startswith("{demonstrations|shorten:start}")
    head = json.loads(next((folder / "examples").rglob("head-2-0.json")).read_text())
    assert "demonstrations" not in head["template"]
    assert shown.settings["demonstrations"] == 1 and "manual" in cells
    assert plain.settings.get("demonstrations") is None


def test_examples_are_refused_where_there_are_none(folder):
    (folder / "task.yaml").write_text(
        YAML.replace("labels: {good: great, bad: bad}", "choices: [a, b]").replace(", shots: 2", "")
    )
    with pytest.raises(ConfigError, match="has no labels of which examples"):
        compare.compare(config_of(folder, demonstrations=1), lambda line: None)
