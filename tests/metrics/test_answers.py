"""Exact match and F1 of parts of texts, counted by hand as SQuAD defines them."""

import pytest

from ptune.errors import ConfigError
from ptune.metrics import answers


@pytest.mark.parametrize(
    "right, said, exact, f1",
    [
        ("the Danube", "Danube.", 1, 1),
        ("New York City", "york", 0, 0.5),
        ("a b b", "b b c", 0, 2 * 2 / 5),
        ("", "", 1, 1),
        ("", "Vienna", 0, 0),
        ("Vienna", "Rome", 0, 0),
        ("The", "an", 1, 1),
        ("the–end", "–end", 1, 1),
    ],
)
def test_figures_of_a_pair(right, said, exact, f1):
    assert answers.exact_match(right, said) == exact
    assert answers.token_f1(right, said) == pytest.approx(f1)


def test_the_nearest_right_answer_counts():
    right, said = [["Rome", "New York"], []], ["york", ""]
    assert answers.of_rows("token-f1", right, said) == pytest.approx([2 / 3, 1])
    with pytest.raises(ConfigError, match="no metric 'f1'"):
        answers.check(["f1"])
