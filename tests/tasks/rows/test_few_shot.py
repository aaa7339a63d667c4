"""Few labelled rows are drawn as often as asked for, apart, and the same by the same seed."""

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptune.errors import DataError
from ptune.tasks.rows.few_shot import draw, sample, splits
from ptune.template.parts import Field

SEEDS = st.integers(0, 10**6)


def rows(counts, target="label"):
    """Rows of labels a, b, ... in a mixed order, so many of each, no two of them equal."""
    drawn_rows = [
        {"text": f"{label} {number}", target: label}
        for label, count in zip("abcdef", counts)
        for number in range(count)
    ]
    random.Random(0).shuffle(drawn_rows)
    return drawn_rows


def texts(drawn):
    return [row["text"] for row in drawn]


@given(st.lists(st.integers(4, 9), min_size=1, max_size=4), st.integers(1, 4), SEEDS, st.randoms())
def test_so_many_of_each_label_whatever_the_order_of_labels(counts, shots, seed, chance):
    all_rows = rows(counts)
    labels = sorted({row["label"] for row in all_rows}, key=lambda _: chance.random())
    drawn = sample(all_rows, shots, seed, labels=labels)
    assert Counter(row["label"] for row in drawn) == dict.fromkeys(labels, shots)
    assert len(set(texts(drawn))) == len(drawn) and all(row in all_rows for row in drawn)
    assert (
        drawn == sample(all_rows, shots, seed) == sample(all_rows, shots, seed, labels=labels[::-1])
    )


def test_another_seed_draws_other_rows_in_another_order():
    all_rows = rows([9, 9])
    assert len({frozenset(texts(sample(all_rows, 3, seed))) for seed in range(20)}) > 10
    orders = {"".join(row["label"] for row in sample(all_rows, 3, seed)) for seed in range(20)}
    assert len(orders) > 5, "the labels stand in blocks"


def test_what_is_drawn_of_a_label_hangs_on_its_own_rows():
    all_rows = rows([9, 9, 9])
    two = sample([row for row in all_rows if row["label"] != "c"], 3, seed=7)
    assert set(texts(two)) == {
        text for text in texts(sample(all_rows, 3, seed=7)) if text[0] != "c"
    }


def test_labels_are_drawn_apart():
    """Else rows that stand side by side, as a question's two answers may, would be drawn
    together."""
    side_by_side = [{"text": f"{n}", "label": label} for n in range(9) for label in "ab"]
    together = [Counter(texts(sample(side_by_side, 3, seed))) for seed in range(20)]
    assert any(max(counts.values()) == 2 for counts in together) and any(
        max(counts.values()) == 1 for counts in together
    )


def test_labels_may_be_numbers_or_truths_and_stand_in_any_field():
    drawn = sample(
        [{"y": value, "n": n} for value in (0, 1) for n in range(4)],
        2,
        seed=0,
        target="y",
        labels=["0", "1"],
    )
    assert sorted(row["y"] for row in drawn) == [0, 0, 1, 1]
    assert (
        len(
            sample(
                [{"y": value, "n": n} for value in (True, False) for n in range(4)],
                2,
                seed=0,
                target="y",
                labels=["True", "False"],
            )
        )
        == 4
    )


@pytest.mark.parametrize(
    "labels, message",
    [
        (
            None,
            r"5 rows of each label are asked for, and there are fewer of: 'b' \(4\), 'd' \(1\)\.",
        ),
        ("abcdx", r"fewer of: 'b' \(4\), 'd' \(1\), 'x' \(0\)\."),
        ("abc", r"Row \d+ has the label 'd', which is none of the task's"),
    ],
)
def test_a_label_with_too_few_rows_is_named_with_their_number(labels, message):
    with pytest.raises(DataError, match=message):
        sample(rows([6, 4, 5, 1]), 5, seed=0, labels=labels)


def test_rows_without_a_label():
    for few in (
        lambda lacking: sample(lacking, 1, 0),
        lambda lacking: draw(lacking, 1, 0),
        lambda lacking: splits(lacking, 1, 0),
    ):
        with pytest.raises(
            DataError,
            match="Row 2 has no field 'label', which should hold its label. Did you mean 'labels'",
        ):
            few([{"label": "a"}, {"labels": "a"}])


@given(st.lists(st.integers(6, 9), min_size=1, max_size=4), st.integers(1, 3), SEEDS)
def test_dev_is_as_large_and_apart(counts, shots, seed):
    all_rows = rows(counts)
    train, dev = draw(all_rows, shots, seed)
    assert Counter(row["label"] for row in train) == Counter(row["label"] for row in dev)
    assert not set(texts(train)) & set(texts(dev))
    assert (train, dev) == draw(all_rows, shots, seed) and train == sample(all_rows, shots, seed)


def test_a_row_that_stands_in_the_file_twice_is_not_on_both_sides():
    for seed in range(20):
        train, dev = draw(rows([4, 4]) + rows([4, 4]), 2, seed)
        assert not set(texts(train)) & set(texts(dev))


def test_dev_may_come_from_rows_of_its_own():
    others = [{**row, "text": f"dev {row['text']}"} for row in rows([5, 5])]
    train, dev = draw(rows([4, 4]), 4, 0, others=others)
    assert len(train) == len(dev) == 8 and all(text.startswith("dev") for text in texts(dev))
    for seed in range(20):
        train, dev = draw(rows([4, 4]), 2, seed, others=rows([4, 4]))
        assert not set(texts(train)) & set(texts(dev)), "the same rows under another name"


def test_too_few_rows_for_dev():
    with pytest.raises(
        DataError,
        match=r"For dev, beside the rows to learn from: 3 rows of each label .* "
        r"fewer of: 'b' \(2\)\.",
    ):
        draw(rows([6, 5]), 3, seed=0)
    with pytest.raises(DataError, match=r"fewer of: 'b' \(0\)"):
        draw(rows([6, 3]), 3, seed=0)


@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=4).filter(lambda counts: sum(counts) > 1),
    SEEDS,
)
def test_halves_hold_every_row_once_and_each_label_evenly(counts, seed):
    all_rows = rows(counts)
    for train, dev in splits(all_rows, 3, seed):
        assert sorted(texts(train) + texts(dev)) == sorted(texts(all_rows)) and len(train) - len(
            dev
        ) in (0, 1)
        learnt, looked_at = (Counter(row["label"] for row in half) for half in (train, dev))
        assert all(
            abs(learnt[label] - looked_at[label]) == counts["abcd".index(label)] % 2
            for label in {row["label"] for row in all_rows}
        )
    assert splits(all_rows, 3, seed) == splits(all_rows, 5, seed)[:3], (
        "more splits leave the first as they are"
    )


def test_splits_differ_and_a_lone_row_comes_to_either_half():
    halves = splits(rows([8, 8]), 16, seed=0)
    assert all(
        len({"".join(row["label"] for row in pair[half]) for pair in halves}) > 12
        for half in (0, 1)
    ), "the labels stand in blocks"
    assert len({frozenset(texts(train)) for train, _ in halves}) > 12 and halves != splits(
        rows([8, 8]), 16, seed=1
    )
    assert {row["text"] for train, _ in splits(rows([1, 1]), 16, seed=0) for row in train} == {
        "a 0",
        "b 0",
    }
    with pytest.raises(DataError, match="there is 1 row in all"):
        splits(rows([1]), 2, seed=0)
    with pytest.raises(DataError, match="there is no row in all"):
        splits([], 2, seed=0)


TEXT = [Field("text")]


def copied(counts):
    """Each row twice, the second in capitals and with more blanks; an id tells them apart."""
    twice = [(row, f" {row['text'].upper()}  ") for row in rows(counts)]
    pairs = [(row, {**row, "text": text}) for row, text in twice]
    return [{**row, "id": str(n)} for n, row in enumerate(itertools.chain.from_iterable(pairs))]


def plain(drawn):
    return {row["text"].lower().strip() for row in drawn}


@given(st.integers(1, 3), SEEDS)
def test_no_dev_row_has_the_text_of_a_row_that_is_learned_from(shots, seed):
    train, dev = draw(copied([8, 8]), shots, seed, fields=TEXT)
    assert len(train) == len(dev) == 2 * shots
    assert not plain(train) & plain(dev)
    train, dev = draw(rows([8, 8]), shots, seed, fields=TEXT, others=copied([8, 8]))
    assert len(dev) == 2 * shots and not plain(train) & plain(dev)


@given(SEEDS)
def test_halves_share_no_text(seed):
    for train, dev in splits(copied([5, 4]), 3, seed, fields=TEXT):
        assert len(train) + len(dev) == 18 and abs(len(train) - len(dev)) <= 2
        assert not plain(train) & plain(dev)


@given(SEEDS)
def test_where_no_text_stands_twice_the_draw_is_the_same(seed):
    with_ids = [{**row, "id": str(number)} for number, row in enumerate(rows([6, 6]))]
    assert draw(with_ids, 2, seed, fields=TEXT) == draw(with_ids, 2, seed)
    assert splits(with_ids, 2, seed, fields=TEXT) == splits(with_ids, 2, seed)
