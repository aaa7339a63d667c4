"""Texts that stand twice, beside a plain count."""

import os
import subprocess
import sys
from collections import defaultdict
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from ptune.survey.text_checks.duplicates import SeenTexts

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "A", " a", "b  c", "b c", "d", "e", ""]),
        st.sampled_from("xy"),
        st.sampled_from(["train", "dev", "test"]),
    ),
    max_size=40,
)


@given(ROWS)
@settings(deadline=None, max_examples=40)
def test_counts_are_those_of_a_plain_count(rows):
    with SeenTexts() as seen:
        for line, (text, label, split) in enumerate(rows, 1):
            seen.add(text, label, split, line)
        duplicates = seen.duplicates()
    places, labels = defaultdict(list), defaultdict(set)
    for text, label, split in rows:
        same = " ".join(text.lower().split())
        places[same].append(split)
        labels[same].add(label)
    order = list(dict.fromkeys(split for _, _, split in rows))
    assert duplicates.within == {
        split: sum(max(0, splits.count(split) - 1) for splits in places.values()) for split in order
    }
    between = {
        (one, other): sum(
            splits.count(other) for splits in places.values() if {one, other} <= set(splits)
        )
        for one, other in combinations(order, 2)
    }
    assert duplicates.between == {pair: count for pair, count in between.items() if count}
    assert duplicates.contradicting == sum(len(known) > 1 for known in labels.values())
    for pair, lines in duplicates.lines.items():
        for line, other_line in lines:
            assert (rows[line - 1][2], rows[other_line - 1][2]) == pair
            assert rows[line - 1][0].lower().split() == rows[other_line - 1][0].lower().split()


def test_the_first_pairs_are_shown_in_every_process():
    """Python's own hash of a text is another in each process."""
    program = """
from ptune.survey.text_checks.duplicates import SeenTexts
with SeenTexts() as seen:
    for split in ("train", "test"):
        for line in range(1, 40):
            seen.add(f"text {line}", split, split, line)
    found = seen.duplicates()
print(found.lines["train", "test"], found.contradicting_lines)
"""
    shown = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    pairs = [(line, line) for line in (1, 2, 3)]
    contradicting = [("train", line, "test", line) for line in (1, 2, 3)]
    assert shown == {f"{pairs} {contradicting}\n"}
