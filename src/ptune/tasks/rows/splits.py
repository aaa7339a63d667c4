"""The rows of a task: read from its files, checked, and drawn."""

import difflib
import itertools
import pathlib
import random
from collections.abc import Callable, Mapping, Sequence

from ptune.answers.word_labels import WordLabels
from ptune.base.file_names import like_file
from ptune.data.formats.header import field_hint
from ptune.data.row import label_of
from ptune.errors import ConfigError, DataError, nearest
from ptune.model.task import prompt_value
from ptune.tasks.judging import judge_label_sets, judge_words
from ptune.tasks.layouts.forms import rows_of
from ptune.tasks.rows import few_shot
from ptune.tasks.rows.few_shot import Row
from ptune.tasks.rows.row_faults import fault_of, lacking, refuse
from ptune.tasks.rows.row_labels import changed, labelled_rows, strangers_and_idle
from ptune.tasks.schema import DataConfig
from ptune.template.fields import numbers_by_text
from ptune.template.language import Field
from ptune.template.parts import RESERVED

SPLITS = ("train", "dev", "test", "unlabeled")
DATA_VARIABLE = "${PTUNE_DATA}"
FIELDS_LISTED = 20  # fields of a file that are listed in a message


def read(
    data: DataConfig,
    target: str,
    labels: Sequence[str] = (),
    *,
    by: str | None = None,
    fields: Sequence[Field] = (),
    report: Callable[[str], None] | None = None,
    multi_label: bool = False,
    words: WordLabels | None = None,
) -> dict[str, list[Row]]:
    """The rows of every split, as many as are to be taken, in the order of a draw by the seed; none
    of a split without a file.

    Args:
        target: the field that holds the right answer.
        labels: the labels that the task has; none where its answer is text or a word of a
            vocabulary.
        by: the field that chooses a row's prompt.
        fields: those of the templates, whose texts each row must have.
        report: gets what was decided about a file and could have been otherwise.
        multi_label: each row has none, one or several of the labels.
        words: where each word of a row has one of the labels.

    Raises:
        DataError: a file cannot be read, or a row has no right answer, a label that the task does
            not have or a field without a text: the first of such faults are told with the file, its
            line and the split, the others counted; no test row has a right answer; a label has no
            row to learn from, or fewer than are to be drawn; a label to be renamed has no row; a
            single row is to be halved.
        ConfigError: rows of each label are to be drawn, and the task has no labels.
    """
    if data.shots is not None and not labels:
        raise ConfigError("shots counts the rows of each label, and the task has no labels.")
    several = words or multi_label
    notes: list[str] = []
    faults: list[str] = []
    read_rows_of = {split: _split_rows(data, split, faults, notes) for split in SPLITS}
    _check_target(data, read_rows_of, target)
    _check_parts(read_rows_of, fields)
    rows = {
        split: _checked(
            data,
            split,
            rows_of_split,
            target=target,
            labels=labels,
            fields=fields,
            faults=faults,
            several=several,
        )
        for split, rows_of_split in read_rows_of.items()
    }
    idle, lists = strangers_and_idle(data, rows, target, labels=labels, several=several)
    refuse(faults, lists)
    if idle and words:
        notes.append(
            f"No training row has the label{'s' if len(idle) > 1 else ''} "
            f"{', '.join(map(repr, idle))}: no answer will, and a word that has one in other rows "
            "counts as wrong."
        )
    elif idle:
        raise DataError(
            f"{data.train}: no row has the label {idle[0]!r}, so it cannot be "
            f"learned.{lists and ' '}{lists}"
        )
    if report is not None:
        for note in dict.fromkeys(notes):
            report(note)
    if by is not None:
        numbered = itertools.chain.from_iterable(
            enumerate(of_split, 1) for of_split in rows.values()
        )
        without = [(number, row) for number, row in numbered if by not in row]
        refuse([lacking(row, number, by, "which chooses its prompt") for number, row in without])
    if data.halve_dev:
        rows["dev"], rows["test"] = _halves(data, rows["dev"], fields)
    if data.shots is not None:
        rows["train"], rows["dev"] = _few(
            data, data.shots, rows, target=target, labels=labels, fields=fields
        )
    return {
        split: _taken(data, split, rows_of_split, target) for split, rows_of_split in rows.items()
    }


def training_labels(data: DataConfig, target: str, labels: Sequence[str] = ()) -> list[str]:
    """The labels of all rows of the training file, before any are drawn.

    Raises:
        DataError: the file cannot be read, or a row has no right answer.
    """
    faults: list[str] = []
    read_rows_of = {"train": _split_rows(data, "train", faults, [])}
    _check_target(data, read_rows_of, target)
    rows = _checked(
        data, "train", read_rows_of["train"], target=target, labels=labels, fields=(), faults=faults
    )
    refuse(faults)
    return [label_of(row[target], labels) for row in rows]


def _split_rows(data: DataConfig, split: str, faults: list[str], notes: list[str]) -> list[Row]:
    """All rows of a split's file; none where it has no file."""
    if (path := getattr(data, split)) is None:
        return []
    _check_there(path, split, data.source)
    return [
        changed(row, row, split)
        for row in _all_rows(path, split, data=data, faults=faults, notes=notes)
    ]


def _check_target(data: DataConfig, rows: Mapping[str, Sequence[Row]], target: str) -> None:
    """Refuse a target that no row of any labelled file has.

    Raises:
        DataError: it is so.
    """
    labelled = [split for split, rows_of_split in rows.items() if split != "unlabeled"]
    there = [split for split in labelled if rows[split]]
    if not there or any(target in row for split in there for row in rows[split]):
        return
    first, path = rows[there[0]][0], getattr(data, there[0])
    hint = field_hint(target, first)
    known = ", ".join(map(repr, list(first)[:FIELDS_LISTED]))
    fields = f" The fields of {path}: {known}." if hint.startswith("Did you mean") else ""
    subject = "No file has" if len(there) > 1 else f"{path}: no row has"
    raise DataError(f"{subject} the field {target!r}, which target names. {hint}{fields}")


def _check_parts(rows: Mapping[str, Sequence[Row]], fields: Sequence[Field]) -> None:
    """Refuse a field of a template that no row of any file has, and whose name is nearly that of
    another part, such as {maks}.

    Raises:
        DataError: there is one.
    """
    all_rows = list(itertools.chain.from_iterable(rows.values()))
    for name in dict.fromkeys(field.name for field in fields):
        close = difflib.get_close_matches(name, RESERVED, n=1)
        if close and all_rows and not any(name in row for row in all_rows):
            known = ", ".join(map(repr, all_rows[0]))
            raise DataError(
                f"The template has {{{name}}}, and no row has a field of that name. Did you mean "
                f"{{{close[0]}}}? The fields of the rows: {known}."
            )


def _checked(
    data: DataConfig,
    split: str,
    rows: list[Row],
    *,
    target: str,
    labels: Sequence[str],
    fields: Sequence[Field],
    faults: list[str],
    several: WordLabels | bool = False,
) -> list[Row]:
    """The rows of a split's file under the task's own labels or without any; what is wrong with
    them is put to the faults.

    Args:
        several: whether a row may have several of the labels, or how its words have them.
    """
    if (path := getattr(data, split)) is None:
        return []
    if split == "unlabeled":
        answers = {target, "answers"} if data.form == "record" else {target}
        rows = [
            changed(row, {name: value for name, value in row.items() if name not in answers})
            for row in rows
        ]
    else:
        if split == "test" and rows and not any(target in row for row in rows):
            raise DataError(
                f"{path}: no row has the field {target!r}, as in the test sets that are published "
                "without answers, and nothing can be scored. "
                f"Give a labelled file as test. {field_hint(target, rows[0])}"
            )
        without = [(number, row) for number, row in enumerate(rows, 1) if target not in row]
        faults += [
            lacking(row, number, target, "which should hold the right answer")
            for number, row in without
        ]
        rows = rows if not without else [row for row in rows if target in row]
        if isinstance(several, WordLabels):
            faults += judge_words.faults_of(rows, several, target, data.form == "conll")
        elif several:
            faults += judge_label_sets.faults_of(rows, labels, target, data.label_separator)
        else:
            names = data.relabel.get(split)  # type: ignore[call-overload]
            rows = labelled_rows(rows, labels, names=names, target=target, path=path, faults=faults)
    for field in fields:
        faults += [
            fault for number, row in enumerate(rows, 1) if (fault := fault_of(row, number, field))
        ]
    return rows


def _all_rows(
    path: pathlib.Path, split: str, *, data: DataConfig, faults: list[str], notes: list[str]
) -> Sequence[Row]:
    """The rows of a split's file; lines that cannot be read are put to the faults.

    Raises:
        DataError: nothing of it can be read.
    """
    try:
        return rows_of(path, data.form, options=data, notes=notes)
    except DataError as error:
        bad: list[str] = []
        try:
            rows = rows_of(path, data.form, skipped=bad, options=data, notes=[])
        except DataError:
            raise error from None
        if not bad:
            raise  # what is wrong is not of single lines
        place = str(error).partition(":")[0]
        more = [fault for fault in bad if fault.partition(":")[0] != place]
        faults += [f"{fault} ({split})" for fault in (str(error), *more)]
        return rows


def _check_there(path: pathlib.Path, split: str, source: str | None) -> None:
    """Say which key names a file that is not there, and how a data set is got.

    Raises:
        DataError: the file is missing; or PTUNE_DATA, which its name needs, is not set.
    """
    come_from = f" They come from: {source}." if source else ""
    if DATA_VARIABLE in str(path):
        wanted = str(path).replace(f"{DATA_VARIABLE}/", "")
        raise DataError(
            f"The {split} rows are read from {path}, and PTUNE_DATA is not set: export "
            f"PTUNE_DATA=FOLDER of a folder that holds {wanted}, or "
            f"name a file of yours with --data.{split} FILE.{come_from}"
        )
    if path.exists():
        return
    if source:
        raise DataError(
            f"There is no file {path} with the {split} rows: set PTUNE_DATA to the folder of your "
            "data sets, or name a file of yours with "
            f"--data.{split} FILE.{come_from}"
        )
    raise DataError(
        f"{path} cannot be read: No such file or directory. The key data.{split} of the task's "
        f"YAML file, or --data.{split}, names it.{like_file(path)}"
    )


def _halves(
    data: DataConfig, rows: list[Row], fields: Sequence[Field]
) -> tuple[list[Row], list[Row]]:
    """The rows for dev and those that are scored in place of a test file's, drawn once and for all,
    so that no seed's dev has rows of another's test. Rows with the same text stay in one half."""
    copies = list(numbers_by_text(rows, fields).values())
    if len(copies) < 2:
        raise DataError(
            f"{data.dev} has one {'row' if len(rows) < 2 else 'text'}, and halve_dev makes two "
            "halves of it: give a file for test instead."
        )
    drawn = random.Random("halves").sample(range(len(copies)), len(copies) // 2)
    scored = {number for place in drawn for number in copies[place]}
    return [row for number, row in enumerate(rows) if number not in scored], [
        row for number, row in enumerate(rows) if number in scored
    ]


def _few(
    data: DataConfig,
    shots: int,
    rows: Mapping[str, list[Row]],
    *,
    target: str,
    labels: Sequence[str],
    fields: Sequence[Field],
) -> tuple[list[Row], list[Row]]:
    try:
        return few_shot.draw(
            rows["train"],
            shots,
            data.seed,
            target=target,
            labels=labels,
            others=rows["dev"] if data.dev else None,
            fields=fields,
        )
    except DataError as error:
        raise DataError(f"{data.train}{f' and {data.dev}' if data.dev else ''}: {error}") from error


def _taken(data: DataConfig, split: str, rows: list[Row], target: str) -> list[Row]:
    if (most := data.take.get(split)) is not None:  # type: ignore[call-overload]
        rows = random.Random(f"{data.seed} {split}").sample(rows, min(most, len(rows)))
    if split == "train" and data.references:
        rows = [
            changed(row, {**row, target: row[target][: data.references]})
            if isinstance(row[target], list)
            else row
            for row in rows
        ]
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
            raise ConfigError(
                f"{where} row {number} has no field {field!r}, which chooses its prompt. "
                f"{nearest(field, map(str, row))}"
            )
        try:
            value = None if field is None else prompt_value(row, field)
        except DataError as error:
            raise DataError(f"{where} row {number}: {error}") from error
        groups.setdefault(value, []).append(row)
    return groups
