"""Columns whose cells hold several labels."""

import pytest

from ptune.survey import columns
from ptune.survey.columns import roles_of, survey

TEXTS = [f"a longer text of number {number}" for number in range(12)]


def sets_of(cells, name="x"):
    return survey({name: cell} for cell in cells)[name].label_sets


@pytest.mark.parametrize(
    "cells, separator, labels",
    [
        ([["a", "b"], ["a"], [], ["b", "c"], ["c"]], None, {"a": 2, "b": 2, "c": 2}),
        (["a; b", "b;a;c", "c", "a", ""], ";", {"a": 3, "b": 2, "c": 2}),
        (["a|b", "b|a", "a|b"], "|", {"a": 3, "b": 3}),
        (["Noise, Heating", "Noise", "Heating"] * 2, ",", {"Noise": 4, "Heating": 4}),
        ([{"choices": ["a", "b"]}, "a", "b", "a"], None, {"a": 3, "b": 2}),
        (["Noise, Heating", "Noise", "Heating, Noise"], ",", {"Noise": 3, "Heating": 2}),
        (["['a', 'b']", "['b']", "[]", "['a']"], None, {"a": 2, "b": 2}),
    ],
)
def test_several_labels_in_a_cell_are_seen(cells, separator, labels):
    sets = sets_of(cells)
    assert sets.separator == separator and sets.labels == labels


@pytest.mark.parametrize(
    "cells",
    [
        ["a", "b", "a"],
        ["Credit card, or prepaid", "Money transfer, or service", "Student loan"] * 3,
        ["Smith, John", "Doe, Jane", "Roe, Ann"],
        TEXTS,
        [f"{text}, and {text}, and more of that" for text in TEXTS],
        [["yes", "no"]] * 4,
        [["x1"], ["x2"], ["x3"]],
        [["a long sentence that is rather a text than a label, no?"], ["another"]] * 3,
        ["2024-01-02, 10:00", "2024-01-03, 11:00"],
        [1, 2, 1],
        [],
    ],
)
def test_other_cells_are_not(cells):
    assert not cells or sets_of(cells) is None


def test_lists_are_the_label_where_no_plain_column_is():
    rows = [
        {"text": text, "tags": ["a", "b"][: number % 3], "half": "xy"[number % 2]}
        for number, text in enumerate(TEXTS)
    ]
    assert roles_of(survey(rows)).label == "tags"
    for row in rows:
        row["about"] = row.pop("tags")
    assert roles_of(survey(rows)).label == "half"
    for row in rows:
        del row["half"]
    assert roles_of(survey(rows)) == columns.Roles(("text",), "about")
