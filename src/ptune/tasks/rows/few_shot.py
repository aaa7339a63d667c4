"""Few labelled rows: K of each label to learn from and as many others for dev, and the splits by
which settings are chosen."""

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ptune.data.row import label_of, place_of
from ptune.errors import DataError, nearest
from ptune.template.fields import numbers_by_text
from ptune.template.parts import Field

Row = Mapping[str, Any]


def sample(
    rows: Sequence[Row],
    shots: int,
    seed: int,
    *,
    target: str = "label",
    labels: Iterable[str] | None = None,
) -> list[Row]:
    """So many rows of each label, drawn and put in order by the seed. What is drawn of a label
    hangs on its own rows alone.

    Args:
        target: the field that holds the label.
        labels: all labels that the task has; by default those of the rows.

    Raises:
        DataError: a label has fewer rows, or a row has a label that is none of the task's.
    """
    groups = _by_label(rows, target, labels)
    if few := ", ".join(
        f"{label!r} ({len(rows_of_label)})"
        for label, rows_of_label in groups.items()
        if len(rows_of_label) < shots
    ):
        raise DataError(f"{shots} rows of each label are asked for, and there are fewer of: {few}.")
    drawn = [
        row
        for label, rows_of_label in sorted(groups.items())
        for row in random.Random(f"{seed} {label}").sample(rows_of_label, shots)
    ]
    random.Random(f"{seed} order").shuffle(drawn)
    return drawn


def draw(
    rows: Sequence[Row],
    shots: int,
    seed: int,
    *,
    target: str = "label",
    labels: Iterable[str] | None = None,
    others: Sequence[Row] | None = None,
    fields: Sequence[Field] = (),
) -> tuple[list[Row], list[Row]]:
    """True few-shot learning: so many rows of each label to learn from, and as many others for dev,
    of which none has the text of one of the first.

    Perez et al. 2021 ("True Few-Shot Learning with Language Models") allow no other labelled rows
    than the few, also for the choice of settings; Gao et al. 2021 (LM-BFF, section 3) take a dev
    set of the training set's size. The test rows have no part in either.

    Args:
        target: the field that holds the label.
        labels: all labels that the task has; by default those of the rows.
        others: the rows from which dev is drawn; by default what is left of the rows.
        fields: those whose texts the task reads.

    Raises:
        DataError: a label has too few rows, or a row has a label that is none of the task's.
    """
    labels = list(_by_label(rows, target, labels))
    train = sample(rows, shots, seed, target=target, labels=labels)
    others = rows if others is None else others
    copies = numbers_by_text([*train, *others], fields).values()
    of_train = [numbers for numbers in copies if numbers[0] < len(train)]
    learned = set(itertools.chain.from_iterable(of_train))
    rest = [row for number, row in enumerate(others, len(train)) if number not in learned]
    try:
        return train, sample(rest, shots, seed, target=target, labels=labels)
    except DataError as error:
        raise DataError(f"For dev, beside the rows to learn from: {error}") from error


def splits(
    rows: Sequence[Row],
    number: int,
    seed: int,
    *,
    target: str = "label",
    fields: Sequence[Field] = (),
) -> list[tuple[list[Row], list[Row]]]:
    """The few labelled rows, so many times cut at random into a half to learn from and a half for
    dev, each label as evenly as its number allows. Rows with the same text stay in one half.

    These are the multi-splits of FewNLU (Zheng et al. 2022): settings are chosen by their mean dev
    score over the splits, and then all the rows are learned from.

    Args:
        target: the field that holds the label.
        fields: those whose texts the task reads.

    Raises:
        DataError: there are fewer than two rows.
    """
    if len(rows) < 2:
        raise DataError(
            f"Rows to learn from and rows for dev are asked for, and there is {len(rows) or 'no'} "
            "row in all."
        )
    groups: dict[str, list[list[Row]]] = {label: [] for label in _by_label(rows, target, None)}
    for numbers in numbers_by_text(rows, fields).values():
        copies = [rows[number] for number in numbers]
        groups[label_of(copies[0][target], list(groups))].append(copies)
    return [_halves(groups, random.Random(f"{seed} split {split}")) for split in range(number)]


def _halves(
    groups: Mapping[str, list[list[Row]]], chance: random.Random
) -> tuple[list[Row], list[Row]]:
    """Deal the rows out to two sides by turns, label after label, and rows with the same text to
    one of them."""
    order = [
        copies
        for label in chance.sample(sorted(groups), len(groups))
        for copies in chance.sample(groups[label], len(groups[label]))
    ]
    train, dev = (list(itertools.chain.from_iterable(order[side::2])) for side in (0, 1))
    chance.shuffle(train)
    chance.shuffle(dev)
    return train, dev


def _by_label(
    rows: Sequence[Row], target: str, labels: Iterable[str] | None
) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {label: [] for label in labels or ()}
    for number, row in enumerate(rows, 1):
        if target not in row:
            raise DataError(
                f"{place_of(row, number)} has no field {target!r}, which should hold its label. "
                f"{nearest(target, row)}"
            )
        label = label_of(row[target], list(groups))
        if labels is not None and label not in groups:
            raise DataError(
                f"{place_of(row, number)} has the label {label!r}, which is none of the task's. "
                f"{nearest(label, groups)}"
            )
        groups.setdefault(label, []).append(row)
    return groups
