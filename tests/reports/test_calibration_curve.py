"""The curve of probabilities and shares that are right, and the most confident wrong answers."""

import pytest
from test_runs_page import page, run

from ptune.reports import calibration
from ptune.reports.pages.parts import run_columns
from ptune.reports.schemas import Reliability, WrongAnswer
from ptune.tasks.judging.judge_labels import Answer
from ptune.tasks.judging.label_details import MOST_WRONG, LabelDetails

ROWS = [{"text": f"row {number}", "label": "ab"[number % 2]} for number in range(40)]


def answered(number):
    """Row n is answered "a" with a probability of 0.6 + n / 100."""
    label = ROWS[number]["label"]
    shares = [0.6 + number / 100, 0.4 - number / 100]
    return Answer(
        label="a",
        text="a",
        right=label == "a",
        members=(label == "a",),
        shares=shares,
        right_label="ab".index(label),
        task=0,
    )


def test_details_of_answers():
    details = LabelDetails()
    details.fill(["a", "b"], ROWS, "label", [answered(number) for number in range(40)])
    assert details.confusion == {"a": {"a": 20, "b": 0}, "b": {"a": 20, "b": 0}}
    assert [part.rows for part in details.calibration] == [10, 10, 10, 10]
    assert details.calibration[0].probability == pytest.approx(0.645)
    assert details.calibration[0].accuracy == 0.5
    assert len(details.wrong) == MOST_WRONG
    assert details.wrong[0] == WrongAnswer(
        row={"text": "row 39"}, right="b", answer="a", probability=0.99
    )


def test_the_section_of_a_page(tmp_path):
    """Two seeds: their parts of the same tenth are one point of the curve."""
    parts = [
        [Reliability(rows=10, probability=0.95, accuracy=0.8)],
        [
            Reliability(rows=30, probability=0.95, accuracy=0.6),
            Reliability(rows=40, probability=0.55, accuracy=0.55),
        ],
    ]
    wrong = [WrongAnswer(row={"text": "<b>x</b>"}, right="a", answer="b", probability=0.99)]
    runs = [
        run(seed=seed, figures={"accuracy": 0.7}, calibration=part, wrong=wrong)
        for seed, part in enumerate(parts)
    ]
    section = calibration.of_columns(run_columns.columns_of(runs))[0]
    assert "probability of 0.75 on average, and 0.60 of them" in section.sentence
    assert "too high by 0.15" in section.sentence and "distance is 0.150" in section.sentence
    assert "0.55: 0.55 of 40; 0.95: 0.65 of 40" in section.plot
    text = page(runs, tmp_path)
    assert "&lt;b&gt;x&lt;/b&gt;" in text and "<b>x</b>" not in text
    assert "Confidence" in text and "0.990" in text


def test_runs_without_probabilities_have_no_section(tmp_path):
    assert "Confidence" not in page([run()], tmp_path)
