import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ptune.metrics import deviation, rank, ranked


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_rank_is_the_place_in_a_stable_sort(scores, data):
    label = data.draw(st.integers(0, len(scores) - 1))
    without = data.draw(st.sets(st.integers(0, len(scores) - 1)))
    kept = [i for i in range(len(scores)) if i == label or i not in without]
    wanted = sorted(kept, key=lambda i: -scores[i]).index(label) + 1
    assert rank(torch.tensor(scores).float(), label, without) == wanted


def test_figures():
    assert ranked([1, 2, 10, 11]) == pytest.approx({"p@1": 0.25, "p@10": 0.75, "mrr": (1 + 1 / 2 + 1 / 10 + 1 / 11) / 4})
    assert deviation([0.2]) == 0 and deviation([1.0, 3.0]) == pytest.approx(2 ** 0.5)
