import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ptune.errors import ConfigError, DataError, DivergedError
from ptune.metrics.labels import LABELLED, check, deviation, labelled, most_frequent, rank, ranked


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_rank_is_the_worst_place_among_equals(scores, data):
    label = data.draw(st.integers(0, len(scores) - 1))
    without = data.draw(st.sets(st.integers(0, len(scores) - 1)))
    kept = [i for i in range(len(scores)) if i == label or i not in without]
    expected = sorted(kept, key=lambda i: (-scores[i], i == label)).index(label) + 1
    assert rank(torch.tensor(scores).float(), label, without) == expected


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_scores_that_are_no_finite_numbers_have_no_rank(lost, place):
    scores = torch.tensor([0.5, 0.25, 0.125])
    scores[place] = lost
    with pytest.raises(DivergedError, match="no finite number"):
        rank(scores, 0)


def test_scores_that_tell_nothing_apart_are_never_right():
    assert [rank(torch.zeros(4), label) for label in range(4)] == [4] * 4


def test_figures():
    assert ranked([1, 2, 10, 11]) == pytest.approx(
        {"p@1": 0.25, "p@10": 0.75, "mrr": (1 + 1 / 2 + 1 / 10 + 1 / 11) / 4}
    )
    assert deviation([0.2]) == 0 and deviation([1.0, 3.0]) == pytest.approx(2**0.5)


def rows_of(labels, **fields):
    return [
        {"label": label, **{name: values[i] for name, values in fields.items()}}
        for i, label in enumerate(labels)
    ]


def test_macro_f1_and_accuracy():
    """The F1 of a is 2 * 3 / (3 + 5), of b 2 * 1 / (2 + 1), of c, which is never said, 0. Micro F1
    would be the accuracy, weighted F1 0.597."""
    rows, predictions = rows_of("aaabbc"), list("aaabaa")
    assert labelled(["accuracy", "f1-macro"], rows, predictions) == pytest.approx(
        {"accuracy": 4 / 6, "f1-macro": (6 / 8 + 2 / 3 + 0) / 3}
    )
    assert labelled(["f1-macro"], rows_of("aa"), ["a", "d"]) == pytest.approx(
        {"f1-macro": (2 / 3 + 0) / 2}
    )
    assert labelled(["accuracy"], [{"answer": 1}, {"answer": 0}], ["1", "1"], target="answer") == {
        "accuracy": 0.5
    }


def test_multirc_by_answer_and_by_question():
    """3 of the 4 true answers are found and 1 false one is taken for true: 2 * 3 / (4 + 4). The
    mean of the questions' F1 would be 0.467, macro F1 0.792."""
    rows = rows_of(
        ["true", "true", "false", "true", "false", "false", "false", "false", "true", "false"],
        group=list("pppqqrrrst"),
    )
    predictions = [
        "true",
        "false",
        "false",
        "true",
        "true",
        "false",
        "false",
        "false",
        "true",
        "false",
    ]
    assert labelled(["f1a", "em", "accuracy"], rows, predictions) == pytest.approx(
        {"f1a": 6 / 8, "em": 3 / 5, "accuracy": 8 / 10}
    )
    assert labelled(["f1a"], rows, ["false"] * 10) == {"f1a": 0}
    assert labelled(["f1:false"], rows, predictions) == pytest.approx({"f1:false": 10 / 12})
    mixed = [8, 0, 3, 5, 1, 9, 6, 4, 2, 7]
    assert labelled(
        ["em"], [rows[i] for i in mixed], [predictions[i] for i in mixed]
    ) == pytest.approx({"em": 3 / 5})


@pytest.mark.parametrize(
    "prediction, answers, em, f1",
    [
        ("The U.S. Navy", ["US navy"], 1, 1),
        ("Anna", ["na"], 0, 0),
        ("Kevin McCarthy", ["Steve Scalise", "McCarthy"], 0, 2 / 3),
        ("Bob Bob", ["Bob"], 0, 2 / 3),
        ("Bob Bob", ["Bob Bob Ann"], 0, 4 / 5),
        ("a  New\tYork,", ["London", "York", "new york!"], 1, 1),
        ("x", ["the"], 0, 0),
        ("", ["x"], 0, 0),
        ("New York City", ["City of York"], 0, 2 / 3),
        ("post", "post", 1, 1),
        ("p", "post", 0, 0),
        ("post office", "The post", 0, 2 / 3),
        ("Ann", ("Bob", "Ann"), 1, 1),
    ],
)
def test_record(prediction, answers, em, f1):
    assert labelled(
        ["record-em", "record-f1"], [{"answers": answers}], [prediction]
    ) == pytest.approx({"record-em": em, "record-f1": f1})


def test_record_is_a_mean_over_rows():
    rows = [
        {"answers": ["Ann"]},
        {"answers": ["Bob", "Bob Ray Low"]},
        {"answers": ["Cy"]},
        {"answers": ["Di"]},
    ]
    assert labelled(
        ["record-em", "record-f1"], rows, ["Ann", "Ray Bob", "Di", "Cy"]
    ) == pytest.approx({"record-em": 1 / 4, "record-f1": (1 + 4 / 5) / 4})


def test_figures_that_cannot_be_counted():
    assert LABELLED == (
        "accuracy",
        "f1",
        "precision",
        "recall",
        "f1-macro",
        "f1-weighted",
        "mcc",
        "auc",
        "f1a",
        "em",
        "record-em",
        "record-f1",
        "gender-parity",
        "brier",
        "ece",
    )
    for names, rows, predictions, error, message in (
        (
            ["f1-makro"],
            rows_of("a"),
            ["a"],
            ConfigError,
            "no metric 'f1-makro' of labelled rows. Did you mean 'f1-macro'",
        ),
        (["accuracy"], rows_of("ab"), ["a"], ConfigError, "there are 1 for 2 rows"),
        (["accuracy"], [], [], ConfigError, "0 for 0 rows"),
        (["accuracy"], [*rows_of("a"), {}], ["a", "a"], DataError, "Row 2 has no field 'label'"),
        (["em"], rows_of("a"), ["a"], DataError, "Row 1 has no field 'group'"),
        (["gender-parity"], rows_of("a"), ["a"], DataError, "Row 1 has no field 'pair'"),
        (
            ["gender-parity"],
            [{"label": "a", "pair": "0"}, {"label": "a", "pair": "1"}],
            ["a", "a"],
            DataError,
            "two rows that have the same value in the field 'pair'",
        ),
        (["record-f1"], [{"answers": []}], ["a"], DataError, "Row 1 has nothing in 'answers'"),
        (
            ["f1a"],
            rows_of("ab"),
            ["a", "b"],
            ConfigError,
            "f1a is MultiRC's, of the labels true and false, and the labels are a, b",
        ),
        (
            ["f1"],
            rows_of("ab"),
            ["a", "b"],
            ConfigError,
            "f1 is of one label, which is named behind it: f1:a or f1:b",
        ),
        (
            ["recall:c"],
            rows_of("ab"),
            ["a", "b"],
            ConfigError,
            "'recall:c' is of a label that is not there. Known: 'a', 'b'",
        ),
        (
            ["mcc:a"],
            rows_of("ab"),
            ["a", "b"],
            ConfigError,
            "The metric mcc is of all labels together",
        ),
        (["auc"], rows_of("ab"), ["a", "b"], ConfigError, "every row brings its own answers"),
    ):
        with pytest.raises(error, match=message):
            labelled(names, rows, predictions)


@pytest.mark.parametrize(
    "metric, field, value, expected",
    [
        ("record-em", "answers", 5, "a text or a list of texts"),
        ("record-f1", "answers", ["a", 5], "a text or a list of texts"),
        ("record-f1", "answers", {"text": "a"}, "a text or a list of texts"),
        ("em", "group", [1], "a text or a number"),
        ("em", "group", {"n": 1}, "a text or a number"),
        ("gender-parity", "pair", {"n": 1}, "a text or a number"),
    ],
)
def test_a_field_of_another_kind_is_refused_before_anything_is_answered(
    metric, field, value, expected
):
    rows = [{"label": "a", field: "x"}, {"label": "a", field: value}]
    value_in_words = re.escape(f"which the metric {metric} compares, and it is {value!r}.")
    message = f"^Row 2, field '{field}': {expected} is expected, {value_in_words}$"
    with pytest.raises(DataError, match=message):
        check([metric], rows)
    with pytest.raises(DataError, match=message):
        labelled([metric], rows, ["a", "a"])


def test_a_field_that_a_metric_compares_may_be_the_label():
    """Of other metrics such a field is a label as any other."""
    assert labelled(["accuracy"], [{"group": 5}, {"group": 6}], ["5", "5"], "group") == {
        "accuracy": 0.5
    }
    rows = [{"label": "a", "group": number} for number in (1, 1, 2)]
    assert labelled(["em"], rows, ["a", "b", "a"]) == {"em": 0.5}


def test_figures_of_one_label():
    """Of b 2 of 3 are found and 2 of 4 answers are right: precision 2 / 4, recall 2 / 3, F1 4 /
    7."""
    rows, predictions = rows_of("aaabbbcc"), list("abbbbacc")
    assert labelled(["precision:b", "recall:b", "f1:b"], rows, predictions) == pytest.approx(
        {"precision:b": 2 / 4, "recall:b": 2 / 3, "f1:b": 4 / 7}
    )
    assert labelled(["f1"], rows_of(["true", "false"]), ["true", "true"]) == pytest.approx(
        {"f1": 2 / 3}
    )
    assert labelled(["recall"], rows_of([0, 1, 1]), ["1", "1", "0"]) == {"recall": 0.5}
    assert labelled(["f1:a:b"], rows_of(["a:b", "c"]), ["a:b", "c"]) == {"f1:a:b": 1.0}, (
        "a label may hold a colon"
    )


def test_weighted_f1_and_matthews():
    """As of the labels of test_macro_f1_and_accuracy; Matthews' coefficient by hand: (6 * 4 - 15) /
    sqrt((36 - 26) * (36 - 14))."""
    rows, predictions = rows_of("aaabbc"), list("aaabaa")
    figures = labelled(["f1-weighted", "mcc"], rows, predictions)
    assert figures["f1-weighted"] == pytest.approx((3 * 6 / 8 + 2 * 2 / 3) / 6)
    assert figures["mcc"] == pytest.approx(
        (6 * 4 - (3 * 5 + 2 * 1)) / math.sqrt((36 - 26) * (36 - 14))
    )
    assert labelled(["mcc"], rows_of("aa"), ["a", "a"]) == {"mcc": 0.0}


def test_the_area_under_the_curve():
    """Of the 4 pairs of a row of a and one of b, three are in order; a tie counts half."""
    rows = rows_of("aabb")
    shares = [[0.9, 0.1], [0.4, 0.6], [0.6, 0.4], [0.2, 0.8]]
    assert labelled(["auc"], rows, list("abab"), labels="ab", shares=shares) == {"auc": 0.75}
    assert labelled(["auc:b"], rows, list("abab"), labels="ab", shares=shares) == {"auc:b": 0.75}
    assert labelled(["auc"], rows, list("aaaa"), labels="ab", shares=[[0.5, 0.5]] * 4) == {
        "auc": 0.5
    }
    three = [[1.0, 0, 0], [0, 1.0, 0], [0.5, 0, 0.5]]
    assert labelled(["auc"], rows_of("abc"), list("abc"), labels="abc", shares=three) == {
        "auc": 1.0
    }
    with pytest.raises(ConfigError, match="none of the 2 rows have the label 'c'"):
        labelled(["auc"], rows_of("ab"), list("ab"), labels="abc", shares=three[:2])
    with pytest.raises(ConfigError, match="all of the 2 rows have the label 'a'"):
        labelled(["auc:a"], rows_of("aa"), list("aa"), labels="ab", shares=shares[:2])
    with pytest.raises(ConfigError, match="takes the labels' shares"):
        labelled(["auc"], rows_of("ab"), list("ab"), labels="ab")


def test_the_most_frequent():
    assert (
        most_frequent([1, 2, 2, 1, 3]) == ["1", "2"]
        and most_frequent("abb") == ["b"]
        and most_frequent([]) == []
    )


def test_gender_parity_is_the_share_of_pairs_whose_answers_agree():
    """Right or wrong; a row without its other half is left out."""
    rows = [{"label": "a", "pair": pair} for pair in ("0", "0", "1", "2", "1", "3")]
    predictions = ["b", "b", "a", "a", "b", "a"]
    assert labelled(["gender-parity"], rows, predictions) == {"gender-parity": 1 / 2}
