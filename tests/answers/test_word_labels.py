"""The likeliest labels of words that their scheme allows, and rows that do not fit."""

import itertools

import pytest
import torch

from ptune.answers.word_labels import WordLabels
from ptune.errors import DataError, VerbalizerError
from ptune.metrics import entities

BIO = ("O", "B-a", "I-a", "B-b", "I-b")
BIOES = ("O", "B-a", "I-a", "E-a", "S-a")


@pytest.mark.parametrize("labels", [BIO, BIOES, ("DET", "NOUN", "VERB")])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_labels_are_those_of_all_that_are_allowed(labels, seed):
    tagging = WordLabels("words", labels)
    scores = torch.randn(4, len(labels), generator=torch.Generator().manual_seed(seed)) * 2

    def is_allowed(numbers):
        names = tagging.names(numbers)
        return not list(entities.faults(names, tagging.rules))

    every = itertools.product(range(len(labels)), repeat=4)
    best = max(
        filter(is_allowed, every),
        key=lambda numbers: sum(float(scores[n, label]) for n, label in enumerate(numbers)),
    )
    assert tuple(tagging.best(scores)) == best


def test_labels_that_allow_nothing_still_give_each_word_one():
    assert len(WordLabels("words", ("I-a", "I-b"), scheme="bio").best(torch.zeros(3, 2))) == 3


def test_where_a_word_is_read():
    assert WordLabels("words", BIO).read_pieces("causal") == "last"
    assert WordLabels("words", BIO).read_pieces("masked") == "first"
    assert WordLabels("words", BIO, "all").read_pieces("causal") == "all"


@pytest.mark.parametrize(
    "row, fault, message",
    [
        ({"text": "a"}, DataError, "no field 'words'"),
        ({"words": "a b", "label": ["O"]}, DataError, "should hold a list of words"),
        ({"words": ["a", None], "label": ["O", "O"]}, DataError, "should hold a list of words"),
        ({"words": [], "label": []}, DataError, "holds no words"),
        ({"words": ["a", "b"], "label": ["O"]}, DataError, "2 words, and holds 1 labels"),
        ({"words": ["a"], "label": "O"}, DataError, "holds no list"),
        ({"words": ["a"]}, DataError, "holds no list"),
        ({"words": ["a"], "label": ["b-a"]}, VerbalizerError, "upper and lower case"),
    ],
)
def test_a_row_that_does_not_fit(row, fault, message):
    with pytest.raises(fault, match=message):
        WordLabels("words", BIO).right(row, "label")
