"""Entities in the labels of words, and how well they were found: precision, recall and F1 as
CoNLL's evaluation and seqeval count them.

A label such as ``B-person`` has a prefix and a kind. In the scheme "bio" ``B-`` begins an entity
and ``I-`` continues it (IOB2); in "iob1" ``I-`` may begin one too, and ``B-`` parts neighbours; in
"bioes" ``E-`` ends one, and ``S-`` stands alone. In "plain" labels have no parts, as parts of
speech have none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ptune.errors import ConfigError, nearest

Scheme = Literal["bio", "iob1", "bioes", "plain"]
OUTSIDE = "O"
PREFIXES: dict[Scheme, str] = {"bio": "BI", "iob1": "BI", "bioes": "BIES", "plain": ""}
CONTINUES, GOES_ON = "IE", "BI"  # prefixes that continue an entity, and that one may follow
DEFAULT = ("entity-f1", "entity-precision", "entity-recall", "word-accuracy")
DEFAULT_PLAIN = ("word-accuracy",)


@dataclass(frozen=True, order=True)
class Entity:
    """Words ``start`` to ``end`` (not included), which are of one kind."""

    start: int
    end: int
    kind: str


def parts_of(label: str) -> tuple[str, str]:
    """The prefix and the kind of a label: ("B", "person"); of a label outside of all entities, or
    without a prefix, ("O", "")."""
    prefix, dash, kind = label.partition("-")
    if prefix in tuple("BIES") and (dash or label == prefix):
        return prefix, kind
    return OUTSIDE, ""


def scheme_of(labels: Sequence[str]) -> Scheme:
    """The scheme that labels seem to be of: "bio" or "bioes" where all are O or have a prefix of
    it, else "plain"."""
    prefixes = {parts_of(label)[0] for label in labels if label != OUTSIDE}
    if not prefixes or OUTSIDE in prefixes:
        return "plain"
    return "bio" if prefixes <= set("BI") else "bioes"


def continues(before: str, label: str) -> bool:
    """Whether a label goes on with the entity of the label before it."""
    (prefix_before, kind_before), (prefix, kind) = parts_of(before), parts_of(label)
    return prefix in CONTINUES and prefix_before in GOES_ON and kind == kind_before


def may_follow(before: str | None, label: str | None, scheme: Scheme) -> bool:
    """Whether a scheme lets a label stand behind another.

    Args:
        before: None at the beginning of a sentence.
        label: None at its end.
    """
    before, label = before or OUTSIDE, label or OUTSIDE
    if scheme in ("plain", "iob1"):
        return True
    if parts_of(label)[0] in CONTINUES:
        return continues(before, label)
    return scheme == "bio" or parts_of(before)[0] not in GOES_ON


def faults(labels: Sequence[str], scheme: Scheme) -> Iterator[tuple[int, str]]:
    """Where the labels of a sentence break their scheme: the number of the word, from 0, and why as
    the end of a sentence."""
    for number, label in enumerate(labels):
        before = labels[number - 1] if number else None
        if not may_follow(before, label, scheme):
            place = f"behind {before!r}" if before else "at the beginning of a sentence"
            yield number, f"has the label {label!r} {place}{_advice(label, scheme)}"
    if scheme == "bioes" and labels and not may_follow(labels[-1], None, scheme):
        yield len(labels) - 1, f"has the label {labels[-1]!r} at the end of a sentence"


def _advice(label: str, scheme: Scheme) -> str:
    """What to do about a label that may not stand where it does."""
    prefix, kind = parts_of(label)
    if scheme != "bio" or prefix != "I":
        return ""
    begins = f"B-{kind}" if kind else "B"
    return (
        f", and an entity begins with {begins!r}: mend the label, or say scheme: iob1 under "
        "reading where I- may begin an entity"
    )


def entities(labels: Sequence[str]) -> list[Entity]:
    """The entities of a sentence, as seqeval finds them by default: one begins at a label with a
    prefix that does not continue the one before it, so an I- behind O begins one too."""
    entities_of_sentence: list[Entity] = []
    for number, label in enumerate(labels):
        prefix, kind = parts_of(label)
        if prefix == OUTSIDE:
            continue
        if number and continues(labels[number - 1], label):
            before = entities_of_sentence.pop()
            entities_of_sentence.append(Entity(before.start, number + 1, kind))
        else:
            entities_of_sentence.append(Entity(number, number + 1, kind))
    return entities_of_sentence


def check(names: Sequence[str], labels: Sequence[str], scheme: Scheme) -> None:
    """Refuse metrics that cannot be computed.

    Raises:
        ConfigError: there is no such metric, or no such kind of entity.
    """
    kinds = kinds_of(labels) if scheme != "plain" else []
    known = [*(DEFAULT_PLAIN if scheme == "plain" else DEFAULT)]
    for name in names:
        metric, colon, kind = name.partition(":")
        if metric in DEFAULT_PLAIN and colon or metric not in known:
            hint = nearest(metric, known)
            if metric in DEFAULT:
                hint = "Labels without B- and I- make no entities: take word-accuracy."
            raise ConfigError(f"There is no metric {name!r} of labelled words. {hint}")
        if colon and kind not in kinds:
            raise ConfigError(
                f"The metric {name!r} is of entities of the kind {kind!r}, and there is none. "
                f"{nearest(kind, kinds)}"
            )


def kinds_of(labels: Sequence[str]) -> list[str]:
    """The kinds of entities that labels have, in their order."""
    return list(dict.fromkeys(kind for prefix, kind in map(parts_of, labels) if prefix != OUTSIDE))


def figures(
    names: Sequence[str], right: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Figures over sentences, by name: "entity-f1" of all entities together, "entity-f1:person" of
    those of one kind, "word-accuracy".

    Args:
        right, predicted: the labels of each sentence's words.
    """
    return {name: share(name, *counts(name, right, predicted)) for name in names}


def counts(
    name: str, right: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> tuple[int, int, int]:
    """What a figure is made of: how many entities are right, how many were said, and how many there
    are; of "word-accuracy" the same of words.

    Args:
        right, predicted: as in ``figures``.
    """
    metric, colon, kind = name.partition(":")
    hits = claimed = there = 0
    for right_labels, predicted_labels in zip(right, predicted, strict=True):
        if metric == "word-accuracy":
            hits += sum(map(str.__eq__, right_labels, predicted_labels))
            claimed += len(predicted_labels)
            there += len(right_labels)
            continue
        expected, actual = (
            {entity for entity in entities(labels) if not colon or entity.kind == kind}
            for labels in (right_labels, predicted_labels)
        )
        hits += len(expected & actual)
        claimed += len(actual)
        there += len(expected)
    return hits, claimed, there


def share(name: str, hits: float, claimed: float, there: float) -> float:
    """A figure from its counts (``counts``); 0 where there is nothing to divide by."""
    metric = name.partition(":")[0]
    if metric == "entity-precision":
        return hits / claimed if claimed else 0.0
    if metric == "entity-f1":
        return 2 * hits / (claimed + there) if hits else 0.0
    return hits / there if there else 0.0


def word_accuracy(right: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """The share of words with the right label."""
    return figures(["word-accuracy"], right, predicted)["word-accuracy"]


def entity_f1(right: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """The F1 of all entities together."""
    return figures(["entity-f1"], right, predicted)["entity-f1"]
