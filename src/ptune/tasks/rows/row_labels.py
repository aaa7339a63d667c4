"""The labels of rows: renamed as a task says, and held against the labels that it has."""

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ptune.answers.word_labels import WordLabels
from ptune.data.formats.json_rows import written
from ptune.data.row import FileRow, is_missing, label_of, place_of, spelled
from ptune.errors import DataError, nearest
from ptune.survey.findings import like_label, likest_label
from ptune.tasks.judging import judge_label_sets
from ptune.tasks.rows.few_shot import Row
from ptune.tasks.schema import DataConfig

LISTED = 20  # labels that are listed in a message


def changed(row: Row, values: Mapping[str, Any], split: str = "") -> Row:
    """A row with other values; one of a file keeps its line, and its split where none is given."""
    return row.changed(values, split) if isinstance(row, FileRow) else values


def with_truths(rows: Sequence[Row], target: str, labels: Sequence[str]) -> list[Row]:
    """Rows in which a right label that is JSON's true or false stands as the text of that label, so
    that it equals the answers.

    Args:
        labels: that all rows have; none where each brings its own answers.
    """
    return [
        changed(row, {**row, target: label_of(row[target], labels)})
        if labels and isinstance(row.get(target), bool)
        else row
        for row in rows
    ]


def with_labels_of(
    rows: Sequence[dict[str, Any]],
    names: Mapping[str, str] | None,
    target: str,
    *,
    path: pathlib.Path,
    split: str,
) -> Sequence[Row]:
    """Rows whose labels are renamed as those of a split were in training; those of a label without
    a new name are left out.

    Raises:
        DataError: no row is left.
    """
    if names is None:
        return rows
    renamed = [
        changed(row, {**row, target: names[spelled(row[target])]})
        for row in rows
        if spelled(row.get(target)) in names
    ]
    if not renamed:
        raise DataError(
            f"{path}: no row has one of the labels {', '.join(map(repr, names))}, which the "
            f"{split} rows of this prompt had. "
            f"Give --split none for a file with the task's own labels."
        )
    return renamed


def labelled_rows(
    rows: Sequence[Row],
    labels: Sequence[str],
    *,
    names: Mapping[str, str] | None,
    target: str,
    path: pathlib.Path,
    faults: list[str],
) -> list[Row]:
    """The rows under the task's labels, renamed where names are given; without those whose label
    has no new name."""
    if names is not None:
        there = {spelled(row[target]) for row in rows}
        for name in names:
            if name not in there:
                raise DataError(
                    f"{path}: relabel speaks of the label {name!r}, and no row has it. "
                    f"{nearest(name, sorted(there))}"
                )
        rows = [
            changed(row, {**row, target: names[spelled(row[target])]})
            for row in rows
            if spelled(row[target]) in names
        ]
    if not labels:
        faults += [
            f"{place_of(row, number)}: the field {target!r} is missing (null or NaN), which "
            "should hold the right answer."
            for number, row in enumerate(rows, 1)
            if is_missing(row[target])
        ]
        return list(rows)
    known = set(labels)
    for number, row in enumerate(rows, 1):
        if label_of(row[target], labels) not in known:
            value = (
                "missing (null)"
                if row[target] is None
                else written(row[target])
                if isinstance(row[target], dict | list)
                else repr(row[target])[:60]
            )
            faults.append(
                f"{place_of(row, number)}: its label, in the field {target!r}, is {value}, which "
                "the task does not have. "
                f"{_hint(row[target], labels)}"
            )
    return list(rows)


def _hint(value: Any, labels: Sequence[str]) -> str:
    """What a label may be that the task does not have."""
    if isinstance(value, list):
        return "A task whose rows may have several labels says multi_label: true."
    return likest_label(spelled(value), labels)


def strangers_and_idle(
    data: DataConfig,
    rows: Mapping[str, Sequence[Row]],
    target: str,
    *,
    labels: Sequence[str],
    several: WordLabels | bool,
) -> tuple[list[str], str]:
    """The labels that cannot be learned, and a sentence that lists all labels of rows that the task
    does not have, and all of the task that no row has; empty where there is but one.

    Args:
        several: whether a row may have several of the labels, or how its words have them.
    """

    def names_of(row: Row) -> list[str]:
        if isinstance(several, WordLabels):
            return list(map(str, row[target])) if isinstance(row[target], list) else []
        if several:
            return judge_label_sets.names_in(row, target, data.label_separator)
        return [label_of(row[target], labels)]

    strangers: dict[str, str] = {}
    for split in ("train", "dev", "test"):
        for number, row in enumerate(rows[split] if labels else (), 1):
            place = f"line {row.line}" if isinstance(row, FileRow) else f"row {number}"
            for label in names_of(row) if target in row else ():
                if label not in labels:
                    strangers.setdefault(label, place)
    labelled = [row for row in rows["train"] if target in row]
    there = {label for row in labelled for label in names_of(row)}
    idle = [label for label in labels if label not in there] if data.train else []
    sentences = []
    if strangers:
        listed = ", ".join(
            f"{label!r:.60} ({place})" for label, place in list(strangers.items())[:LISTED]
        )
        sentences.append(
            "Labels of rows for which the task has no word: "
            f"{listed}{', ...' if len(strangers) > LISTED else ''}."
        )
    if idle:
        listed = ", ".join(map(repr, idle[:LISTED]))
        sentences.append(
            f"Labels of the task that no row has: {listed}{', ...' if len(idle) > LISTED else ''}."
        )
    if len(strangers) + len(idle) < 2:
        sentences = []
    renamed = {} if several or data.relabel else _renamed(rows, target, labels, strangers)
    if renamed:
        sentences.append(
            f"data: {{relabel: {json.dumps(renamed, ensure_ascii=False)}}} reads them as the "
            "task's labels."
        )
    return idle, " ".join(sentences)


def _renamed(
    rows: Mapping[str, Sequence[Row]],
    target: str,
    labels: Sequence[str],
    strangers: Iterable[str],
) -> dict[str, dict[str, str]]:
    """For each split with labels that the task does not have its labels under the task's names
    (``relabel``); none where a label is like none of the task's."""
    like = {label: like_label(label, labels) for label in strangers}
    if None in like.values():
        return {}
    renamed = {}
    for split in ("train", "dev", "test"):
        there = {label_of(row[target], labels) for row in rows[split] if target in row}
        if there & like.keys():
            renamed[split] = {label: str(like.get(label, label)) for label in sorted(there)}
    return renamed
