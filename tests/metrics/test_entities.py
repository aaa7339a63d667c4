"""Entities and their figures, counted by hand from the definition that seqeval and CoNLL's
evaluation share."""

import pytest

from ptune.errors import ConfigError
from ptune.metrics import entities
from ptune.metrics.entities import Entity


@pytest.mark.parametrize(
    "labels, expected",
    [
        ("O B-a I-a O", [Entity(1, 3, "a")]),
        ("B-a B-a", [Entity(0, 1, "a"), Entity(1, 2, "a")]),
        ("B-a I-b I-b", [Entity(0, 1, "a"), Entity(1, 3, "b")]),
        ("O I-a I-a B-a", [Entity(1, 3, "a"), Entity(3, 4, "a")]),
        ("B-a E-a E-a", [Entity(0, 2, "a"), Entity(2, 3, "a")]),
        ("S-a I-a S-b", [Entity(0, 1, "a"), Entity(1, 2, "a"), Entity(2, 3, "b")]),
        ("B I O I", [Entity(0, 2, ""), Entity(3, 4, "")]),
        ("B-new-york I-new-york", [Entity(0, 2, "new-york")]),
        ("O DET NOUN", []),
        ("", []),
    ],
)
def test_where_entities_begin_and_end(labels, expected):
    assert entities.entities(labels.split()) == expected


def test_figures_by_hand():
    """Of three entities that are there one was found whole, one with another end, and one as
    another kind; one more was claimed."""
    right = ["B-a I-a O B-b".split(), "B-a O O".split()]
    said = ["B-a O O B-b".split(), "B-b O B-a".split()]
    names = ["entity-f1", "entity-precision", "entity-recall", "word-accuracy"]
    names += ["entity-f1:b", "entity-precision:b", "entity-recall:a"]
    assert entities.figures(names, right, said) == pytest.approx(
        {
            "entity-f1": 2 / 7,
            "entity-precision": 1 / 4,
            "entity-recall": 1 / 3,
            "word-accuracy": 4 / 7,
            "entity-f1:b": 2 / 3,
            "entity-precision:b": 1 / 2,
            "entity-recall:a": 0.0,
        }
    )


def test_nothing_found_is_zero_and_no_error():
    right, said = [["O", "B-a"]], [["O", "O"]]
    names = entities.DEFAULT
    assert entities.figures(names, right, said) == pytest.approx(dict(zip(names, (0, 0, 0, 0.5))))
    assert entities.entity_f1([["O"]], [["O"]]) == 0


@pytest.mark.parametrize(
    "labels, scheme",
    [
        ("O B-a I-a", "bio"),
        ("O B-a I-a E-a S-a", "bioes"),
        ("DET NOUN", "plain"),
        ("O DET", "plain"),
        ("B I O", "bio"),
    ],
)
def test_what_labels_look_like(labels, scheme):
    assert entities.scheme_of(labels.split()) == scheme


@pytest.mark.parametrize(
    "scheme, labels, places",
    [
        ("bio", "O I-a B-a I-a I-b", [1, 4]),
        ("iob1", "O I-a B-a I-b", []),
        ("bioes", "B-a E-a S-a B-a O I-a B-a", [4, 5, 6, 6]),
        ("plain", "I-a E-b", []),
    ],
)
def test_where_labels_break_their_scheme(scheme, labels, places):
    assert [place for place, _ in entities.faults(labels.split(), scheme)] == places


@pytest.mark.parametrize(
    "name, labels, message",
    [
        ("accuracy", "O B-a", "There is no metric 'accuracy' of labelled words"),
        ("entity-f1:c", "O B-a", "entities of the kind 'c', and there is none"),
        ("entity-f1", "DET NOUN", "take word-accuracy"),
        ("word-accuracy:a", "O B-a", "There is no metric"),
    ],
)
def test_a_metric_that_cannot_be_computed(name, labels, message):
    with pytest.raises(ConfigError, match=message):
        entities.check([name], labels.split(), entities.scheme_of(labels.split()))
