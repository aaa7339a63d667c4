"""Rows that seem to be none."""

import pytest

from ptune.survey.columns import kind_of, roles_of, survey
from ptune.survey.odd_rows import OddRows


def sentences_of(rows):
    odd = OddRows()
    for line, row in enumerate(rows, 2):
        odd.add(row, line)
    return odd.sentences("a.csv: ")


ROWS = [{"text": f"text {number}", "label": "ab"[number % 2]} for number in range(20)]


@pytest.mark.parametrize(
    "row, sentence",
    [
        ({"text": "# made on Monday", "label": "x"}, "begin with # and may be comments (line 22)"),
        ({"text": "Total", "label": "20"}, "the last row ('Total', line 22) seems to be a total"),
        ({"text": "", "label": "Summe:"}, "('Summe:', line 22) seems to be a total"),
    ],
)
def test_a_comment_and_a_total_are_told(row, sentence):
    (only,) = sentences_of([*ROWS, row])
    assert only.startswith("a.csv: ") and sentence in only


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        [{"text": "Total nonsense", "label": "a"}, *ROWS],
        [{"text": "#MeToo is right", "label": "a"}, *ROWS],
        [{"text": f"# {row['text']}", "label": "a"} for row in ROWS],
        [{"text": None, "label": ""}, *ROWS],
        [],
    ],
)
def test_rows_are_rows(rows):
    assert sentences_of(rows) == []


def test_what_is_read_varies_and_is_no_date_and_no_object():
    rows = [
        {
            "Timestamp": f"2024/01/{number + 1:02d} 10:00:00 AM GMT+1 and more",
            "Title": "Find out what this sentence says, please",
            "parts": [{"a long": "object of many signs", "number": number}],
            "Input.text": f"the parcel {number}",
            "Answer.sentiment": "ab"[number % 2],
        }
        for number in range(12)
    ]
    roles = roles_of(survey(rows))
    assert roles.texts == ("Input.text",) and roles.label == "Answer.sentiment"
    assert kind_of("01.02.2024") == kind_of("2024/1/2 10:00:00 AM GMT+1") == "date"
    assert kind_of("10.5") == "number" and kind_of("2024 was good") == "text"
