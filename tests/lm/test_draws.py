"""Tokens that are drawn by chance, each row by numbers of its own."""

import itertools
import random

import pytest
import torch
from transformers import LogitsProcessorList

from ptune.lm.writing.draws import Draws

PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
SCORES = torch.tensor([[2.0, -torch.inf, 0.5, 1.0, -1.0, -torch.inf]])


def tokens(draws, scores=SCORES):
    left = draws(None, scores.expand(len(draws.numbers), -1).clone())
    assert (left.isfinite().sum(1) == 1).all() and (left.max(1).values == 0).all()
    return left.argmax(1).tolist()


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({}, SCORES[0].softmax(0)),
        ({"temperature": 3.0}, (SCORES[0] / 3).softmax(0)),
        (
            {"top_k": 2},
            torch.tensor([2.0, -torch.inf, -torch.inf, 1.0, *[-torch.inf] * 2]).softmax(0),
        ),
        (
            {"top_p": 0.7},
            torch.tensor([2.0, -torch.inf, -torch.inf, 1.0, *[-torch.inf] * 2]).softmax(0),
        ),
    ],
)
def test_tokens_come_as_often_as_their_probabilities_say(settings, shares):
    draws = Draws.of([(7, number) for number in range(2500)], **PLAIN | settings)
    drawn = torch.tensor([tokens(draws) for _ in range(4)]).flatten()
    counts = drawn.bincount(minlength=6) / len(drawn)
    torch.testing.assert_close(counts, shares, atol=0.015, rtol=0)
    assert not counts[shares == 0].any()


def test_a_row_draws_its_own_numbers_whatever_is_beside_it():
    keys = [(3, 1), (3, 2), (4, 1), (3, 1)]
    together = [tokens(draws) for draws in [Draws.of(keys, **PLAIN)] for _ in range(30)]
    for place, key in enumerate(keys):
        alone = Draws.of([key], **PLAIN)
        assert [tokens(alone)[0] for _ in range(30)] == [step[place] for step in together]
    by_key = [[step[place] for step in together] for place in range(4)]
    assert by_key[0] == by_key[3] and len({tuple(row) for row in by_key}) == 3


def test_a_number_is_looked_up_in_the_probabilities_added_up():
    numbers, steps = random.Random(repr((3, 1, 0))), Draws.of([(3, 1)], **PLAIN)
    shares = SCORES[0].double().softmax(0).tolist()
    for _ in range(50):
        number = numbers.random()
        sums = itertools.accumulate(shares)
        assert tokens(steps) == [next(token for token, sum_ in enumerate(sums) if sum_ > number)]


def test_rows_that_go_on_keep_their_numbers():
    keys = [(3, number) for number in range(6)]
    all_of_them, some = Draws.of(keys, **PLAIN), Draws.of(keys, **PLAIN)
    assert tokens(all_of_them) == tokens(some)
    some = some.of_rows([1, 4])
    for _ in range(20):
        whole = tokens(all_of_them)
        assert tokens(some) == [whole[1], whole[4]]


def test_copies_of_a_row_draw_unlike_numbers():
    draws = Draws.of([(3, 1), (3, 2)], **PLAIN, copies=3)
    steps = [tuple(column) for column in zip(*(tokens(draws) for _ in range(30)))]
    assert len(set(steps)) == 6


@pytest.mark.parametrize(("number", "token"), [(0.0, 0), (1 - 2**-53, 4)])
def test_a_token_without_probability_is_never_drawn(number, token):
    class Fixed(random.Random):
        def random(self):
            return number

    first_impossible = torch.cat([torch.full((1, 1), -torch.inf), SCORES], 1)
    draws = Draws([Fixed()], LogitsProcessorList())
    assert tokens(draws, first_impossible) == [token + 1]
