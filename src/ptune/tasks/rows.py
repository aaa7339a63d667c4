"""The rows of a task: read from its files, checked, and drawn."""
import pathlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ptune import fewshot
from ptune.config import DataConfig
from ptune.data import iterate_rows, read_rows
from ptune.errors import ConfigError, DataError, nearest
from ptune.fewshot import Row
from ptune.task import prompt_value
from ptune.tasks import superglue, table_to_text

SPLITS = ("train", "dev", "test", "unlabeled")
DATA_VARIABLE = "${PTUNE_DATA}"
SHOWN = 20  # labels that are listed in a message


def read(data: DataConfig, target: str, labels: Sequence[str] = (), by: str | None = None) -> dict[str, list[Row]]:
    """The rows of every split, as many as are to be taken, in the order of a draw by the seed; none of a split without a file.

    Args:
        target: the field that holds the right answer.
        labels: the labels that the task has; none where its answer is text or a word of a vocabulary.
        by: the field that chooses a row's prompt; only within one of its values must ids differ.

    Raises:
        DataError: a file cannot be read, or a row has no right answer, a label that the task does not have or an id that an earlier
            one has, all told with the row's number in the file; no test row has a right answer; a label has no row to learn from,
            or fewer than are to be drawn; a label to be renamed has no row; a single row is to be halved.
        ConfigError: rows of each label are to be drawn, and the task has no labels.
    """
    if data.shots is not None and not labels:
        raise ConfigError("shots counts the rows of each label, and the task has no labels.")
    rows = {split: _checked(data, split, target, labels, by) for split in SPLITS}
    if data.halve_dev:
        rows["dev"], rows["test"] = _halves(data, rows["dev"])
    if data.shots is not None:
        rows["train"], rows["dev"] = _few(data, data.shots, rows, target, labels)
    return {split: _taken(data, split, own, target) for split, own in rows.items()}


def training_labels(data: DataConfig, target: str, labels: Sequence[str] = ()) -> list[str]:
    """The labels of all rows of the training file, before any are drawn.

    Raises:
        DataError: the file cannot be read, or a row has no right answer.
    """
    return [str(row[target]) for row in _checked(data, "train", target, labels, None)]


def _checked(data: DataConfig, split: str, target: str, labels: Sequence[str], by: str | None) -> list[Row]:
    """All rows of a split's file, under the task's own labels or without any."""
    if (path := getattr(data, split)) is None:
        return []
    _check_there(path, split, data.source)
    rows = rows_of(path, data.form)
    _check_ids(rows, by, path)
    if split == "unlabeled":
        answers = {target, "answers"} if data.form == "record" else {target}
        return [{name: value for name, value in row.items() if name not in answers} for row in rows]
    _check_answers(rows, target, split, path)
    numbered = _renamed(rows, data.relabel.get(split), target, path)  # type: ignore[call-overload]
    _check_labels(numbered, labels, split, target, path)
    return [row for _, row in numbered]


def _check_there(path: pathlib.Path, split: str, source: str | None) -> None:
    """Say how a data set is got where it is not there.

    Raises:
        DataError: the file is missing, and the task says where it comes from; or PTUNE_DATA, which its name needs, is not set.
    """
    come_from = f" They come from: {source}." if source else ""
    if DATA_VARIABLE in str(path):
        wanted = str(path).replace(f"{DATA_VARIABLE}/", "")
        raise DataError(f"The {split} rows are read from {path}, and PTUNE_DATA is not set: export PTUNE_DATA=FOLDER of a folder that holds {wanted}, or "
                        f"name a file of yours with --data.{split} FILE.{come_from}")
    if source and not path.exists():
        raise DataError(f"There is no file {path} with the {split} rows: set PTUNE_DATA to the folder of your data sets, or name a file of yours with "
                        f"--data.{split} FILE.{come_from}")


def rows_of(path: pathlib.Path, form: str, skipped: list[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a file in a set's own layout, or of a plain one (``data.read_rows``).

    Raises:
        DataError: it cannot be read.
    """
    if form in superglue.FORMS:
        return superglue.read(path, form)
    return read_rows(path, skipped) if form == "rows" else table_to_text.read(path, form)


def iterate(path: pathlib.Path, form: str, skipped: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a file one by one; see ``rows_of``. A file in a set's own layout is read whole at once.

    Raises:
        DataError: it cannot be read.
    """
    return iterate_rows(path, skipped) if form == "rows" else iter(rows_of(path, form))


def with_labels_of(rows: list[dict[str, Any]], names: Mapping[str, str] | None, target: str, path: pathlib.Path,
                   split: str) -> list[dict[str, Any]]:
    """Rows whose labels are renamed as those of a split were in training; those of a label without a new name are left out.

    Raises:
        DataError: no row is left.
    """
    if names is None:
        return rows
    renamed = [{**row, target: names[str(row[target])]} for row in rows if str(row.get(target)) in names]
    if not renamed:
        raise DataError(f"{path}: no row has one of the labels {', '.join(map(repr, names))}, which the {split} rows of this prompt had. "
                        f"Give --split none for a file with the task's own labels.")
    return renamed


def _check_ids(rows: Sequence[Row], by: str | None, path: pathlib.Path) -> None:
    for field in ("id", "idx"):
        numbers: dict[tuple[Any, str | int], int] = {}
        for number, row in enumerate(rows, 1):
            if field != by and isinstance(row.get(field), (str, int)):
                first = numbers.setdefault((by and str(row.get(by)), row[field]), number)
                if first != number:
                    raise DataError(f"{path}, row {number}: its {field} is {row[field]!r}, and so is that of row {first}.")


def _check_answers(rows: Sequence[Row], target: str, split: str, path: pathlib.Path) -> None:
    if split == "test" and not any(target in row for row in rows):
        raise DataError(f"{path}: no row has the field {target!r}, as in the test sets that are published without answers, and nothing can be scored. "
                        f"Give a labelled file as test. {nearest(target, map(str, rows[0]))}")
    for number, row in enumerate(rows, 1):
        if target not in row:
            raise DataError(f"{path}, row {number} has no field {target!r}, which should hold the right answer. {nearest(target, map(str, row))}")


def _renamed(rows: Sequence[Row], names: Mapping[str, str] | None, target: str, path: pathlib.Path) -> list[tuple[int, Row]]:
    """The rows with their numbers, their labels renamed; without those whose label has no new name."""
    if names is None:
        return list(enumerate(rows, 1))
    there = {str(row[target]) for row in rows}
    for name in names:
        if name not in there:
            raise DataError(f"{path}: relabel speaks of the label {name!r}, and no row has it. {nearest(name, sorted(there))}")
    return [(number, {**row, target: names[str(row[target])]}) for number, row in enumerate(rows, 1) if str(row[target]) in names]


def _check_labels(numbered: Sequence[tuple[int, Row]], labels: Sequence[str], split: str, target: str, path: pathlib.Path) -> None:
    if not labels:
        return
    strangers: dict[str, int] = {}
    for number, row in numbered:
        if str(row[target]) not in labels:
            strangers.setdefault(str(row[target]), number)
    there = {str(row[target]) for _, row in numbered}
    idle = [label for label in labels if label not in there] if split == "train" else []
    more = f" {_lists(strangers, idle)}" if len(strangers) + len(idle) > 1 else ""
    for label, number in strangers.items():
        value = next(row[target] for _, row in numbered if str(row[target]) == label)
        raise DataError(f"{path}, row {number}: its label is {value!r:.60}, which the task does not have. {nearest(label, labels)}{more}")
    for label in idle:
        raise DataError(f"{path}: no row has the label {label!r}, so it cannot be learned.{more}")


def _lists(strangers: Mapping[str, int], idle: Sequence[str]) -> str:
    """All labels of rows that the task does not have, and all labels of the task that no row has."""
    sentences = []
    if strangers:
        told = ", ".join(f"{label!r:.60} (row {number})" for label, number in list(strangers.items())[:SHOWN])
        sentences.append(f"Labels of rows for which the task has no word: {told}{', ...' if len(strangers) > SHOWN else ''}.")
    if idle:
        told = ", ".join(map(repr, idle[:SHOWN]))
        sentences.append(f"Labels of the task that no row has: {told}{', ...' if len(idle) > SHOWN else ''}.")
    return " ".join(sentences)


def _halves(data: DataConfig, rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """The rows for dev and those that are scored in place of a test file's, drawn once and for all, so that no seed's dev has rows of another's test."""
    if len(rows) < 2:
        raise DataError(f"{data.dev} has one row, and halve_dev makes two halves of it: give a file for test instead.")
    scored = set(random.Random("halves").sample(range(len(rows)), len(rows) // 2))
    return [row for number, row in enumerate(rows) if number not in scored], [row for number, row in enumerate(rows) if number in scored]


def _few(data: DataConfig, shots: int, rows: Mapping[str, list[Row]], target: str, labels: Sequence[str]) -> tuple[list[Row], list[Row]]:
    try:
        return fewshot.draw(rows["train"], shots, data.seed, target, labels, rows["dev"] if data.dev else None)
    except DataError as error:
        raise DataError(f"{data.train}{f' and {data.dev}' if data.dev else ''}: {error}") from error


def _taken(data: DataConfig, split: str, rows: list[Row], target: str) -> list[Row]:
    if (most := data.take.get(split)) is not None:  # type: ignore[call-overload]
        rows = random.Random(f"{data.seed} {split}").sample(rows, min(most, len(rows)))
    if split == "train" and data.references:
        rows = [{**row, target: row[target][:data.references]} if isinstance(row[target], list) else row for row in rows]
    return rows


def by_prompt(rows: Sequence[Row], field: str | None, where: str) -> Mapping[str | None, list[Row]]:
    """Rows by whose prompt they take: the value of a field, or one prompt for all.

    Raises:
        ConfigError: a row lacks the field.
        DataError: it holds nothing that could choose a prompt.
    """
    groups: dict[str | None, list[Row]] = {}
    for number, row in enumerate(rows, 1):
        if field is not None and field not in row:
            raise ConfigError(f"{where} row {number} has no field {field!r}, which chooses its prompt. {nearest(field, map(str, row))}")
        try:
            value = None if field is None else prompt_value(row, field)
        except DataError as error:
            raise DataError(f"{where} row {number}: {error}") from error
        groups.setdefault(value, []).append(row)
    return groups
