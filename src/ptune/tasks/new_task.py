"""A task's YAML file made from a table of texts and labels: columns found, words proposed, rows
split."""

import pathlib
import random
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ptune.base import files
from ptune.data import file_form
from ptune.data.file_form import FileForm
from ptune.data.formats.header import HEADER_TAKEN, likely_names
from ptune.data.formats.json_rows import written
from ptune.data.row import FileRow, is_missing, label_names, place_of, spelled
from ptune.data.rows import read_rows
from ptune.errors import ConfigError, DataError, nearest
from ptune.lm.language_model import LanguageModel
from ptune.settings import FileConfig, part_of
from ptune.survey import columns as column_survey
from ptune.survey import findings, proposals
from ptune.survey.columns import MOST_NAMED_LABELS, Column, Roles
from ptune.survey.label_sets import LabelSets
from ptune.survey.odd_rows import OddRows
from ptune.survey.task_text import TaskText
from ptune.tasks.layouts.new_words import new_words
from ptune.tasks.options import NewConfig
from ptune.tasks.rows.row_faults import SHOWN, refuse
from ptune.template.fields import same_text
from ptune.training.methods import AUTO_NAME, PET, method

Row = Mapping[str, Any]
SKIPPING = "Fill that in, or leave such rows out with --skip-bad-lines."
FEWEST_TO_SPLIT = 3  # rows of a label, one for each split


@dataclass(frozen=True)
class Split:
    """The rows of the files for training, dev and test."""

    train: list[Row]
    dev: list[Row]
    test: list[Row]


def new(
    config: NewConfig, report: Callable[[str], None] = print, *, may_exist: bool = False
) -> pathlib.Path:
    """Write a task's YAML file, and its rows as three files beside it; return the YAML file.

    Args:
        may_exist: a YAML file that is there already and would be the same is taken.

    Raises:
        DataError: the table cannot be read, or has no text or label in a row.
        ConfigError: no column looks like a text or a label, a file is there already, the file's
            name is not one of YAML, or there is no such method.
    """
    _check_file_and_method(config)
    form = file_form.seen(config.data, part_of(FileConfig, config))
    if form.form == "conll":
        return new_words(config, form, report, may_exist=may_exist)
    split_files = {
        split: config.out.with_name(f"{config.out.stem}.{split}.jsonl")
        for split in ("train", "dev", "test")
    }
    _refuse(config.out.exists() and not may_exist, config.out)
    skipped: list[str] | None = [] if config.skip_bad_lines else None
    read = _rows(config, form, report, skipped)
    roles = columns(read, config.text, config.label, path=config.data, skipped=skipped)
    _check_first_line(config, read, roles)
    for sentence in (*_guessed(config, read, roles), *_skipped(skipped or ())):
        report(sentence)
    label = str(roles.label)
    sets = column_survey.survey(read)[label].label_sets
    whole = [row for row in read if not _lacking(row, roles, sets)]
    if sets is None:
        rows = [{**row, label: spelled(row[label]).strip()} for row in whole]
        counts = Counter(str(row[label]) for row in rows)
        if padded := sum(spelled(row[label]) not in counts for row in whole):
            report(
                f"Note: {padded} labels have white space around them, which the files that are "
                f"written leave out; to ptune evaluate those in {config.data} are other labels."
            )
    else:
        rows = [{**row, label: label_names(row[label], sets.separator)} for row in whole]
        counts = Counter(name for row in rows for name in row[label])
        report(f"Note: {findings.of_label_sets(label, sets)[0]}")
    odd = OddRows()
    for number, row in enumerate(read, 1):
        odd.add(row, row.line if isinstance(row, FileRow) else number)
    for sentence in (*findings.of_labels(counts), *odd.sentences()):
        report(f"Note: {sentence}")
    split = split_rows(
        rows, roles.texts, label, dev=config.dev_share, test=config.test_share, seed=config.seed
    )
    split_files = {name: path for name, path in split_files.items() if getattr(split, name)}
    lines = {
        path: "".join(written(row) + "\n" for row in getattr(split, name))
        for name, path in split_files.items()
    }
    for path, text in lines.items():  # a run that was killed may have left the same
        _refuse(path.exists() and path.read_bytes() != text.encode(), path)
    lm = LanguageModel.load(config.lm, device="cpu")
    words = proposals.label_words(sorted(counts), lm.tokens)
    page = _page(
        config,
        roles,
        counts=counts,
        words=words,
        split=split,
        split_files=split_files,
        sets=sets,
    )
    _refuse(config.out.exists() and config.out.read_bytes() != page.encode(), config.out)
    for path, text in lines.items():
        files.write_text(path, text)
    files.write_text(config.out, page)
    shown = ", ".join(
        f"{name} ({count})" for name, count in sorted(counts.items(), key=_by_frequency)
    )
    texts = " and ".join(map(repr, roles.texts))
    report(f"{len(rows)} rows; text: {texts}; label: {label!r} with {shown}")
    sizes = f"{len(split.train)}, {len(split.dev)}, {len(split.test)}"
    report(
        f"Rows to learn from, for dev and for test: {sizes}, in "
        f"{', '.join(map(str, split_files.values()))}"
    )
    for sentence in _without_rows(config, split_files, sets):
        report(sentence)
    for name, why in words.notes.items():
        report(
            f"The word for {name!r} is {words.words[name]!r}, since {why}: write a better one "
            f"into {config.out}, or take an LM that has more words."
        )
    report(f"Written: {config.out}")
    return config.out


def _check_file_and_method(config: NewConfig) -> None:
    """Refuse a file that would not be read as a task, and a method that there is not.

    Raises:
        ConfigError: it is so.
    """
    if config.out.suffix not in (".yaml", ".yml"):
        raise ConfigError(
            f"--out is the task's YAML file, and the name {config.out} does not end in .yaml or "
            ".yml."
        )
    if config.method not in (AUTO_NAME, *PET):
        method(config.method)


def _refuse(is_other: bool, path: pathlib.Path) -> None:
    if is_other:
        raise ConfigError(f"{path} is there already: choose another --out, or delete it.")


def _without_rows(
    config: NewConfig, split_files: Mapping[str, pathlib.Path], sets: LabelSets | None
) -> list[str]:
    """What follows from it that there are no rows for dev or test; of test rows nothing where none
    were asked for."""
    sentences = []
    trains = config.method != AUTO_NAME and method(config.method).tune != "nothing"
    if trains and "dev" not in split_files:
        auto = ", or take --method auto, which needs none" if sets is None else ""
        sentences.append(
            f"No rows for dev, and a training by {config.method} needs some: name a file of them "
            f"as dev under data: in {config.out}{auto}."
        )
    if config.test_share and "test" not in split_files:
        sentences.append(
            f"No rows for test: no figure will be given. A label needs {FEWEST_TO_SPLIT} different "
            "texts to have some."
        )
    return sentences


def _guessed(config: NewConfig, rows: Sequence[Row], roles: Roles) -> list[str]:
    """Which column was taken for the label where others could be it too."""
    if config.label is not None or column_survey.is_called_a_label(str(roles.label)):
        return []
    counted = column_survey.survey(rows)
    others = [
        f"{name!r} ({counted[name].variety} values)"
        for name in column_survey.label_candidates(counted, counted)
        if name not in (*roles.texts, roles.label)
    ]
    if not others:
        return []
    return [
        f"Note: {roles.label!r} is taken as the label, which is a guess; it could also be "
        f"{', '.join(others[:SHOWN])}: --label names it."
    ]


def _skipped(faults: Sequence[str]) -> list[str]:
    """What was left out, the first few of it."""
    more = [f"Skipped: {len(faults) - SHOWN} more."] if len(faults) > SHOWN else []
    return [*(f"Skipped: {fault}" for fault in faults[:SHOWN]), *more]


def _lacking(row: Row, roles: Roles, sets: LabelSets | None) -> list[str]:
    """The columns of the texts and the label in which a row has nothing, which is no fault where it
    may have several labels or none.

    Args:
        sets: the labels, where a row may have several.
    """
    names = [*roles.texts, str(roles.label)]
    lacking = [name for name in names if is_missing(row.get(name))]
    filled = roles.texts if sets else names
    return [*lacking, *(n for n in filled if n not in lacking and not str(row[n]).strip())]


def _rows(
    config: NewConfig, form: FileForm, report: Callable[[str], None], skipped: list[str] | None
) -> Sequence[Row]:
    """The rows of the file, and what was decided about it told.

    Raises:
        DataError: it cannot be read, is in an encoding that could only be guessed, or its first
            line seems to be a row.
    """
    given = FileConfig(**{name: getattr(config, name) for name in FileConfig.model_fields})
    if form.first_line:
        raise DataError(_headerless(config.data, form.first_line))
    rows = read_rows(config.data, skipped, given if form.is_guessed else form.options)
    for note in form.notes:
        report(f"{config.data}: {note}.")
    return rows


def _headerless(path: pathlib.Path, first_line: Sequence[str]) -> str:
    """What to do where a table's first line is a row."""
    return (
        f"{path}: {HEADER_TAKEN.format(len(first_line))} {_with_names(path, first_line)} (a name "
        "for each of them)."
    )


def _with_names(path: pathlib.Path, first_line: Sequence[str]) -> str:
    """The command that names the columns of a table without a header."""
    names = " ".join(likely_names(first_line))
    return f"name the columns: ptune new {shlex.quote(str(path))} --columns {names}"


def _check_first_line(config: NewConfig, rows: Sequence[Row], roles: Roles) -> None:
    """Refuse a table whose columns' names are a row, or come again among the rows.

    Raises:
        DataError: it is one.
    """
    counted = column_survey.survey(rows)
    if config.text is None and column_survey.first_line_is_a_row(counted, roles):
        raise DataError(_headerless(config.data, list(counted)))
    if column_survey.repeated_headers(counted):
        refuse(
            [
                f"{place_of(row, number)} repeats the names of the columns: leave it out."
                for number, row in enumerate(rows, 1)
                if all(name == value for name, value in row.items())
            ]
        )


def columns(
    rows: Sequence[Row],
    text: str | None,
    label: str | None,
    *,
    path: pathlib.Path,
    skipped: list[str] | None = None,
) -> Roles:
    """The columns with the text, or the pair, and that with the label: those that are named, else
    those that look like them (``survey.columns.roles_of``).

    Args:
        skipped: where given, rows that lack one are put here instead of refused.

    Raises:
        ConfigError: there is no such column.
        DataError: a row has nothing in one of them.
    """
    counted = column_survey.survey(rows)
    for option, name in (("--text", text), ("--label", label)):
        if name == "":
            raise ConfigError(f"{option} names no column. {column_survey.listed(counted)}")
        if name is not None and name not in counted:
            raise ConfigError(
                f"{path} has no column {name!r}, which {option} names. {nearest(name, counted)}"
            )
    if text is not None and text == label:
        raise ConfigError(f"The text and the label are both {text!r}: they are two columns.")
    roles = column_survey.roles_of(counted, text, label)
    if roles.label is None or not roles.texts:
        what, option = ("label", "--label") if roles.label is None else ("text", "--text")
        hint = ""
        if any(map(column_survey.is_sentence, counted)):
            hint = f" If its first line is a row, {_with_names(path, list(counted))}"
        raise ConfigError(
            f"No column of {path} looks like a {what}: name it with {option}. "
            f"{column_survey.listed(counted)}{hint}"
        )
    values = counted[roles.label]
    sets = values.label_sets
    if sets is None:
        _check_labels(values, len(rows), path)
    faults = [
        f"{place_of(row, number)} has nothing in the column {name!r}."
        for number, row in enumerate(rows, 1)
        for name in _lacking(row, roles, sets)
    ]
    if skipped is None:
        refuse(faults, SKIPPING)
    else:
        skipped += faults
    return roles


def _check_labels(values: Column, rows: int, path: pathlib.Path) -> None:
    """Refuse a column whose values are no labels.

    Raises:
        ConfigError: they are too many, or too few.
    """
    if len(values.labels) == rows > 2 and not values.is_open:
        raise ConfigError(
            f"The column {values.name!r} of {path} has {values.variety} values in {rows} "
            "rows: that is no label. Name another with --label."
        )
    if not 2 <= len(values.labels) <= MOST_NAMED_LABELS or values.is_open:
        raise ConfigError(
            f"The column {values.name!r} of {path} has {values.variety} values, and labels are 2 "
            f"to {MOST_NAMED_LABELS}: name another with --label."
        )


def _by_frequency(counted: tuple[str, int]) -> tuple[int, str]:
    return -counted[1], counted[0]


def split_rows(
    rows: Sequence[Row], texts: Sequence[str], label: str, *, dev: float, test: float, seed: int
) -> Split:
    """Rows parted by label, so that each split has the same share of every one; drawn by the seed,
    in the file's order.

    Rows with the same text stay in one split; one with several labels goes by its rarest. A label
    with fewer than three texts goes to the rows to learn from.

    Args:
        dev, test: the shares of the rows that are kept back.
    """
    sets = [row[label] for row in rows if isinstance(row[label], list)]
    counts = Counter(name for names in sets for name in names)
    label_of_text: dict[str, str] = {}
    groups: dict[str, dict[str, list[int]]] = {}
    for number, row in enumerate(rows):
        text = same_text(" ".join(str(row[name]) for name in texts))
        name = _rarest(row[label], counts) if isinstance(row[label], list) else str(row[label])
        group = groups.setdefault(label_of_text.setdefault(text, name), {})
        group.setdefault(text, []).append(number)
    taken: dict[str, list[int]] = {"train": [], "dev": [], "test": []}
    for name, group in groups.items():
        order = list(group.values())
        random.Random(f"{seed} {name}").shuffle(order)
        sizes = [
            max(1, round(share * len(order))) if share and len(order) >= FEWEST_TO_SPLIT else 0
            for share in (dev, test)
        ]
        bounds = (sizes[0], sizes[0] + sizes[1])
        for split, members in (
            ("dev", order[: bounds[0]]),
            ("test", order[bounds[0] : bounds[1]]),
            ("train", order[bounds[1] :]),
        ):
            taken[split] += [number for numbers in members for number in numbers]
    return Split(
        *([rows[number] for number in sorted(taken[split])] for split in ("train", "dev", "test"))
    )


def _rarest(names: Sequence[str], counts: Mapping[str, int]) -> str:
    """The label of a row that the fewest rows have; nothing of a row without one."""
    return min(names, key=lambda name: (counts[name], name), default="")


def _page(
    config: NewConfig,
    roles: Roles,
    *,
    counts: Counter[str],
    words: proposals.Words,
    split: Split,
    split_files: Mapping[str, pathlib.Path],
    sets: LabelSets | None,
) -> str:
    """The YAML file's text, with what each line is for.

    Args:
        sets: how the table's cells hold several labels.
    """
    sizes = {name: len(getattr(split, name)) for name in split_files}
    data = [(name, path.name, f"{sizes[name]} rows") for name, path in split_files.items()]
    if sets is not None and sets.separator is not None:
        data.append(("label_separator", sets.separator, "between the labels in a table's cell"))
    return TaskText(
        name=config.out.stem,
        lm=config.lm,
        method=config.method,
        roles=roles,
        words=words.words,
        data=data,
        head=[
            f"ptune train {shlex.quote(config.out.name)} --out "
            f"{shlex.quote(config.out.stem + '-trained')}",
            f"Made by ptune new from {config.data.name}: {sum(sizes.values())} rows, {len(counts)} "
            "labels.",
            "Change what you like; docs/reference-task.md explains every key, and `ptune train "
            "--help` most.",
        ],
        notes=words.notes,
        lm_note="builtin knows few words: a folder or a name on the hub, such as "
        "bert-base-uncased, knows more",
        data_note=f"drawn from {config.data.name} by seed {config.seed}, each label by its share",
        multi_label=sets is not None,
    ).yaml()
