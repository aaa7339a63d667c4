"""What files of rows hold and what is odd about them, counted in two passes over each."""

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ptune.data.file_form import FIRST_LINE_IS_A_ROW, FileForm, seen
from ptune.data.row import FileRow, is_missing, spelled
from ptune.data.rows import iterate_rows
from ptune.errors import DataError
from ptune.settings import FileConfig, Form
from ptune.survey import columns as column_survey
from ptune.survey import findings
from ptune.survey.columns import Column, Roles
from ptune.survey.label_sets import LabelSets
from ptune.survey.odd_rows import OddRows
from ptune.survey.text_checks.duplicates import Duplicates, SeenTexts
from ptune.survey.text_checks.texts import Texts
from ptune.survey.word_task_text import WordLabelCounts

SPLIT_NAMES = {
    "train": ("train",),
    "dev": ("dev", "valid", "val", "eval"),
    "test": ("test",),
    "unlabeled": ("unlabel", "unsup"),
}
SHOWN_FAULTS = 5
Row = Mapping[str, Any]


class FirstFaults(list[str]):
    """The first few of many faults, and how many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def append(self, fault: str) -> None:
        """Count a fault, and keep it where it is one of the first five."""
        self.total += 1
        if len(self) < SHOWN_FAULTS:
            super().append(fault)


@dataclass
class CheckedFile:
    """A file, and what was counted over its rows.

    Attributes:
        split: what its rows are for, such as "train"; name: what it is called in sentences.
        form: how it is written; None of a set in a layout of its own.
        faults: what is wrong with lines that cannot be read.
        word_labels: those of its words, where each has one.
    """

    path: pathlib.Path
    split: str
    name: str
    layout: Form
    options: FileConfig
    form: FileForm | None = None
    rows: int = 0
    faults: FirstFaults = field(default_factory=FirstFaults)
    columns: dict[str, Column] = field(default_factory=dict)
    texts: Texts = field(default_factory=Texts)
    word_labels: WordLabelCounts | None = None

    def label_sets(self, roles: Roles) -> LabelSets | None:
        """The labels, where a row may have several."""
        if roles.of_words:
            return None
        column = self.columns.get(roles.label) if roles.label else None
        return column.label_sets if column else None

    def read(self, faults: list[str] | None = None) -> Iterator[Row]:
        """Its rows, one by one.

        Args:
            faults: gets what is wrong with lines that are left out.
        """
        skipped = FirstFaults() if faults is None else faults
        if self.layout == "rows":
            return iterate_rows(self.path, skipped, self.options)
        if self.layout == "conll":
            from ptune.tasks.layouts import conll

            return iter(conll.read(self.path, self.options, skipped))
        if self.layout in ("lines", "trec"):
            from ptune.tasks.layouts import lines

            return iter(lines.read(self.path, self.layout, self.options, skipped))
        from ptune.tasks.layouts.forms import iterate  # needs torch, as no plain file does

        return iterate(self.path, self.layout, skipped=skipped, options=self.options)

    def count_columns(self) -> None:
        """Count its rows and what their columns hold.

        Raises:
            DataError: it has no rows.
        """
        for row in self.read(self.faults):
            self.rows += 1
            column_survey.add(self.columns, row)
        if not self.rows and not self.faults:
            raise DataError(f"{self.path} holds no rows{self._only_a_header()}.")

    def _only_a_header(self) -> str:
        is_table = self.form is not None and self.form.kind == "a table"
        return ", only the names of its columns" if is_table and self.path.stat().st_size else ""

    def take_first_line(self) -> None:
        """Take the first line for a row, and count anew with numbered columns."""
        names = tuple(self.columns)
        numbered = tuple(f"column {number}" for number in range(1, len(names) + 1))
        self.options = self.options.model_copy(update={"columns": numbered})
        if self.form is not None:
            notes = [*self.form.notes, FIRST_LINE_IS_A_ROW]
            self.form = replace(self.form, first_line=names, notes=notes)
        self.rows, self.columns, self.faults = 0, {}, FirstFaults()
        self.count_columns()

    def rename_columns(self, names: Mapping[str, str]) -> None:
        """Call its numbered columns by other names."""
        numbered = self.options.columns or ()
        renamed = tuple(names.get(name, name) for name in numbered)
        self.options = self.options.model_copy(update={"columns": renamed})
        self.columns = {names.get(name, name): column for name, column in self.columns.items()}
        for name, column in self.columns.items():
            column.name = name
        if self.form is not None:
            self.form.needed["columns"] = renamed


@dataclass
class Checked:
    """All that a check shows.

    Attributes:
        roles: which columns are read, and which holds the answer.
        lacking: the places of rows without a text or an answer.
        yaml: a task that reads the files; empty where it could not be written, for which then
            ``no_yaml`` is the reason.
        lengths: for each file the lengths of its rows in tokens, and how many of those are cut.
    """

    files: list[CheckedFile]
    roles: Roles
    duplicates: Duplicates
    findings: list[str]
    lacking: FirstFaults = field(default_factory=FirstFaults)
    yaml: str = ""
    no_yaml: str = ""

    @property
    def label_sets(self) -> LabelSets | None:
        """The labels, where a row of the first file may have several."""
        return self.files[0].label_sets(self.roles)

    @property
    def faults(self) -> int:
        """How many lines cannot be read."""
        return sum(file.faults.total for file in self.files)

    @property
    def refused(self) -> int:
        """How many rows training by the YAML would refuse, for want of a text or a label."""
        return self.lacking.total if self.yaml else 0


def files_of(
    paths: Sequence[pathlib.Path], options: FileConfig, layout: Form | None
) -> list[CheckedFile]:
    """The files to be checked, each with how it is written.

    Args:
        layout: the layout that they are said to have; None where their content shows it.

    Raises:
        DataError: one cannot be read, or holds no rows.
    """
    files = []
    for path, split in zip(paths, _splits(paths)):
        form = seen(path, options, layout)
        name = split if len(paths) > 1 else str(path)
        files.append(
            CheckedFile(
                path=path, split=split, name=name, layout=form.form, options=form.options, form=form
            )
        )
    return files


def _splits(paths: Sequence[pathlib.Path]) -> list[str]:
    """What each file is for, by its name, or else by its place."""
    by_name = [
        next(
            (
                split
                for split, parts in SPLIT_NAMES.items()
                if any(part in path.name.lower() for part in parts)
            ),
            "",
        )
        for path in paths
    ]
    if all(by_name) and len(set(by_name)) == len(by_name):
        return by_name
    names = [*SPLIT_NAMES][:3]
    return [names[number] if number < 3 else f"file {number + 1}" for number in range(len(paths))]


def survey(
    files: Sequence[CheckedFile],
    roles: Callable[[CheckedFile], Roles],
    text_of: Callable[[Row, str], str],
) -> Checked:
    """Count what the rows of files hold, in two passes over each.

    Args:
        roles: which columns of the first file are read, once those are counted.
        text_of: the text that a row has in a column.
    """
    for file in files:
        file.count_columns()
    if not files[0].rows:
        return Checked(list(files), Roles(()), Duplicates(), [])
    chosen, lacking = roles(files[0]), FirstFaults()
    has_label_sets = files[0].label_sets(chosen) is not None
    odd_rows = {file.name: OddRows() for file in files}
    with SeenTexts() as texts:
        for file in files if chosen.texts else ():
            file.word_labels = WordLabelCounts() if chosen.of_words and chosen.label else None
            for row in file.read():
                line = row.line if isinstance(row, FileRow) else 0
                odd_rows[file.name].add(row, line)
                text = " ".join(text_of(row, name) for name in chosen.texts)
                file.texts.add(text, line)
                answer = _answer(row, chosen)
                if file.word_labels is not None:
                    file.word_labels.add(row.get(str(chosen.label)))
                texts.add(text, answer, file.name, line)
                needs_label = chosen.label and file.split != "unlabeled" and not has_label_sets
                if not text.strip() or needs_label and not answer:
                    lacking.append(f"{file.path}, line {line}")
        duplicates = texts.duplicates() if chosen.texts else Duplicates()
    sentences = [sentence for file in files for sentence in _findings_of(file, chosen)]
    for name, odd in odd_rows.items():
        sentences += odd.sentences(f"{name}: ")
    sentences += findings.of_duplicates(duplicates)
    return Checked(
        files=list(files), roles=chosen, duplicates=duplicates, findings=sentences, lacking=lacking
    )


def _answer(row: Row, roles: Roles) -> str:
    name = roles.label or roles.answer
    value = row.get(name) if name else None
    return "" if value is None else spelled(value).strip()


def plain_text(row: Row, name: str) -> str:
    """The text that a row has in a column; none where it is missing."""
    value = row.get(name)
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return " ".join(value)
    return "" if is_missing(value) else spelled(value)


def _of_words(file: CheckedFile, where: str) -> list[str]:
    """What is odd about a file whose words have labels."""
    assert file.word_labels is not None
    broken = file.word_labels.sentence if file.form is not None else ""
    return [
        *findings.of_labels(file.word_labels.words, where),
        *([f"{where}{broken}"] if broken else []),
        *findings.of_texts(file.texts, where),
    ]


def _findings_of(file: CheckedFile, roles: Roles) -> list[str]:
    where = f"{file.name}: "
    sentences = [f"{where}{note}." for note in (file.form.notes if file.form else ())]
    if repeated := column_survey.repeated_headers(file.columns):
        sentences.append(
            f"{where}{findings.rows_in_words(repeated)} repeating the names of the columns, as "
            "where files were put together: leave them out."
        )
    answer = roles.label or roles.answer
    if answer and (column := file.columns.get(answer)):
        sets = column.label_sets if roles.label else None
        if file.word_labels is not None:
            return [*sentences, *_of_words(file, where)]
        if sets is None:
            sentences += findings.of_answers(column, file.rows, where)
        else:
            sentences += findings.of_label_sets(column.name, sets, where)
        if roles.label:
            sentences += findings.of_labels(sets.labels if sets else column.values, where)
    for name in (*roles.texts, *([answer] if answer else [])):
        if file.rows and name not in file.columns and "." not in name:
            sentences.append(f"{where}there is no column {name!r}, which the first file has.")
    return sentences + findings.of_texts(file.texts, where)
