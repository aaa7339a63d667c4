"""Lengths, scripts and damage of texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptune.survey.text_checks.texts import Lengths, Texts, main_script


@given(st.lists(st.integers(0, 5000), min_size=1))
def test_lengths_are_those_of_the_sorted_list(lengths):
    counted = Lengths("tokens")
    for length in lengths:
        counted.add(length)
    ordered = sorted(lengths)
    assert counted.summary["shortest"] == ordered[0]
    assert counted.summary["longest"] == ordered[-1]
    assert counted.summary["median"] == ordered[(len(ordered) + 1) // 2 - 1]
    bars = counted.histogram()
    assert sum(count for _, count in bars) == len(lengths)
    for name, count in bars:
        start, end = map(int, name.split("-"))
        assert count == sum(start <= length <= end for length in lengths)


@pytest.mark.parametrize(
    "text, script",
    [
        ("wet", "Latin"),
        ("zu naß", "Latin"),
        ("很好 wet", "Latin"),
        ("很好很好 wet", "Chinese characters"),
        ("とても良い", "Japanese"),
        ("очень good", "Cyrillic"),
        ("12 !", "no letters"),
        ("😀", "no letters"),
    ],
)
def test_the_script_of_most_letters(text, script):
    assert main_script(text) == script


def test_damaged_texts_are_counted_with_their_lines():
    texts = Texts()
    for line, text in enumerate(
        ["cafÃ©", "itâ€™s", "a\ufffd", "fine", "", "\u200b", "a &amp; b<br>", "a\x00b", "AÇÃO"], 2
    ):
        texts.add(text, line)
    assert (texts.damaged, texts.empty, texts.marked_up, texts.with_controls) == (3, 2, 1, 1)
    assert texts.places == {
        "damaged": [2, 3, 4],
        "empty": [6, 7],
        "marked_up": [8],
        "with_controls": [9],
    }
