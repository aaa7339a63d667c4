"""Rows from files as people have them: CSV, TSV and their kin, JSON lines, JSON; a fault is told
with its line."""

import math
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import Any

from ptune.data import delimited, json_rows, row_files
from ptune.data.json_rows import row_of as row_of
from ptune.errors import DataError, nearest
from ptune.settings import FileConfig

TABLES = tuple(delimited.BY_ENDING)
JSON = (".jsonl", ".json", ".ndjson")
FORMATS = (".jsonl", ".json", ".csv", ".tsv")
AS_IT_IS = FileConfig()
MARKDOWN_RULE = re.compile(r"\|?(\s*:?-+:?\s*\|)+(\s*:?-+:?\s*)?")
QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")
LIST_IN_A_CELL = re.compile(r"""\[\s*(('[^']*'|"[^"]*")\s*(,\s*|(?=\])))*\]""")


class FileRow(dict[str, Any]):
    """A row that knows where it stands.

    Attributes:
        file: the file; line: the number of its first line there; split: what it is for, such as
            "train", where that is known.
    """

    __slots__ = ("file", "line", "split")

    def __init__(self, values: Mapping[str, Any], file: str = "", line: int = 0, split: str = ""):
        super().__init__(values)
        self.file, self.line, self.split = file, line, split

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return f"{self.file}, line {self.line}{f' ({self.split})' if self.split else ''}"

    def changed(self, values: Mapping[str, Any], split: str = "") -> "FileRow":
        """Other values in the same place."""
        return FileRow(values, self.file, self.line, split or self.split)


def place_of(row: Mapping[str, Any], number: int) -> str:
    """Where a row stands: its line in its file, or the number that it has among others."""
    return row.place if isinstance(row, FileRow) and row.file else f"Row {number}"


def spelled(value: Any) -> str:
    """A value as its file spells it: JSON's true, 5.00, a text as it is."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def label_of(value: Any, labels: Sequence[str]) -> str:
    """The label that a row's value stands for; a truth may be a task's label True as well as
    true."""
    name = spelled(value)
    return (
        str(value)
        if isinstance(value, bool) and name not in labels and str(value) in labels
        else name
    )


def chosen(value: Any) -> Any:
    """A value, of an object with nothing but "choices" those."""
    return value["choices"] if isinstance(value, dict) and list(value) == ["choices"] else value


def label_names(value: Any, separator: str | None) -> list[str]:
    """The labels of a row that may have several: a list, an object with a list of "choices" (Label
    Studio), or a cell of a table, which is split by the separator, or is written as a list, as
    pandas writes one. An empty cell has none.

    Raises:
        DataError: it is neither a list nor a text.
    """
    value = chosen(value)
    if isinstance(value, str):
        if LIST_IN_A_CELL.fullmatch(value.strip()):
            value = [name[1:-1] for name in QUOTED.findall(value)]
        else:
            value = value.split(separator) if separator else [value]
    if not isinstance(value, list) or any(isinstance(name, list | dict) for name in value):
        raise DataError(
            'A row that may have several labels (multi_label) holds a list of them, ["a", "b"], or '
            f"[] where it has none, and this one holds {json_rows.written(value)[:60]}."
        )
    if any(is_missing(name) for name in value):
        raise DataError("A list of labels holds null: leave that out.")
    names = [spelled(name).strip() for name in value]
    return list(dict.fromkeys(name for name in names if name))


def is_missing(value: Any) -> bool:
    """Whether a value is none: null, or the NaN that data frames write in its place."""
    return value is None or isinstance(value, float) and math.isnan(value)


def read_rows(
    path: str | os.PathLike[str],
    skipped: list[str] | None = None,
    options: FileConfig = AS_IT_IS,
    notes: list[str] | None = None,
) -> list[FileRow]:
    """The rows of a file.

    Args:
        skipped: where given, bad lines are left out and what was wrong with them is put here.
        options: how to read it, where it is not to be decided by the file itself.
        notes: where given, what was decided and could have been otherwise is put here.

    Raises:
        DataError: the file is missing, empty, or of no known format, or a line is bad: its number
            is told.
    """
    rows = list(iterate_rows(path, skipped, options, notes))
    if not rows:
        raise DataError(f"{path} holds no rows.")
    return rows


def iterate_rows(
    path: str | os.PathLike[str],
    skipped: list[str] | None = None,
    options: FileConfig = AS_IT_IS,
    notes: list[str] | None = None,
) -> Iterator[FileRow]:
    """The rows of a file one by one; see ``read_rows``."""
    path, notes = pathlib.Path(path), [] if notes is None else notes
    form = row_files.form_of(path)
    if form in JSON:
        rows = _json(path, form, options, skipped, notes)
    elif form in TABLES or options.separator:
        rows = _table(path, options, skipped, notes)
    else:
        with row_files.opened(path, options.encoding):
            pass  # what it is by its first bytes is more useful to know
        raise DataError(
            f"{path} is of no known format ({', '.join(FORMATS)}); .jsonl holds one JSON object a "
            "line. A table with another ending is read "
            f'by data: {{separator: ","}}, a text on each line by data: {{form: lines}}.'
        )
    for row in rows:
        yield _renamed(row, options.rename) if options.rename else row


def _renamed(row: FileRow, names: Mapping[str, str]) -> FileRow:
    for name in names:
        if name not in row and names[name] not in row:
            raise DataError(
                f"{row.place}: rename speaks of {name!r}, and there is no such column. "
                f"{nearest(name, row)}"
            )
    renamed = {names.get(name, name): value for name, value in row.items()}
    if len(renamed) < len(row):
        twice = next(
            new for new in names.values() if [names.get(name, name) for name in row].count(new) > 1
        )
        raise DataError(f"{row.place}: by rename two columns would be called {twice!r}.")
    return row.changed(renamed)


def _bad(message: str, skipped: list[str] | None) -> None:
    if skipped is None:
        raise DataError(message)
    skipped.append(message)


# Tables.


def _table(
    path: pathlib.Path, options: FileConfig, skipped: list[str] | None, notes: list[str]
) -> Iterator[FileRow]:
    lenient = skipped is not None
    opened = table_lines(path, options)
    dialect = table_dialect(path, options, opened, lenient)
    if dialect.note:
        notes.append(f"{path}: {dialect.note}.")
    names = tuple(options.columns or ())
    with opened() as lines:
        rest = islice(lines, dialect.skip, None)
        for record in delimited.records(
            rest, dialect.separator, dialect.quoting, dialect.skip + 1, lenient
        ):
            if record.is_blank:
                continue
            fault = _fault_of(path, record, len(names), dialect, options, lenient)
            if fault:
                _bad(fault, skipped if names else None)  # nothing can be read without the header
            elif not names:
                names = column_names(record, path)
            else:
                yield FileRow(dict(zip(names, record.fields)), str(path), record.line)


def _fault_of(
    path: pathlib.Path,
    record: delimited.Record,
    width: int,
    dialect: delimited.Dialect,
    options: FileConfig,
    lenient: bool,
) -> str:
    """What is wrong with a record; empty where nothing is.

    Args:
        width: how many columns there are; 0 for the record that names them.
    """
    if record.fault:
        return f"{path}, line {record.line}: a quotation mark is out of place: {record.fault}."
    if any(map(row_files.is_undecoded, record.fields)):
        return row_files.undecoded(path, record.line, options.encoding, lenient)
    if width and len(record.fields) != width:
        return _uneven(path, record, width, dialect, bool(options.columns))
    return ""


def table_lines(
    path: pathlib.Path, options: FileConfig
) -> Callable[[], AbstractContextManager[Iterator[str]]]:
    """What opens a table's lines, as often as it is called.

    Raises:
        DataError: the file holds JSON.
    """
    newline = row_files.line_end(path, options.encoding)
    with row_files.opened(path, options.encoding, newline, lenient=True) as stream:
        _refuse_other_texts(path, [stream.readline(1 << 16) for _ in range(2)])

    @contextmanager
    def opened() -> Iterator[Iterator[str]]:
        with row_files.opened(path, options.encoding, newline, lenient=True) as stream:
            yield stream

    return opened


def _refuse_other_texts(path: pathlib.Path, lines: Sequence[str]) -> None:
    """Refuse JSON and Markdown that are called a table.

    Args:
        lines: the first two.
    """
    if lines[0].startswith("|") and MARKDOWN_RULE.fullmatch(lines[1].strip()):
        raise DataError(
            f"{path}, line 2: this is a table as Markdown has it, with a line of dashes below the "
            "names. Take that line, and the bars at the start and the end of every line, off, and "
            "the spaces around the other bars; or export the table as CSV."
        )
    start = lines[0].lstrip()
    if start.startswith(('{"', '[{"')) or start.rstrip() in ("{", "["):
        raise DataError(
            f"{path} is called a table and begins as JSON does: {start[:60]!r}. Name it .jsonl if "
            "each line is an object, else .json."
        )


def table_dialect(
    path: pathlib.Path, options: FileConfig, opened: delimited.Opened, lenient: bool = False
) -> delimited.Dialect:
    """How a table is written.

    Raises:
        DataError: its quotation marks fit neither CSV nor plain text.
    """
    usual = delimited.BY_ENDING.get(row_files.form_of(path), ",")
    try:
        return delimited.decide(
            opened,
            usual,
            options.separator,
            options.quoting,
            len(options.columns or ()),
            lenient,
            options.skip_lines or 0,
        )
    except delimited.UnclearTable as error:
        raise DataError(
            f"{path}, {error}. Read as plain text the marks leave rows of uneven length, or "
            "others are set as CSV sets them. Mend "
            f"the line, or read them as plain text by data: {{quoting: none}}."
        ) from error


def column_names(record: delimited.Record, path: pathlib.Path) -> tuple[str, ...]:
    """The columns' names from a table's first line; those without a name are numbered where there
    are several.

    Raises:
        DataError: a name stands twice.
    """
    names = record.fields
    if names.count("") > 1:
        names = [name or f"column {number}" for number, name in enumerate(names, 1)]
    for name in names:
        if names.count(name) > 1:
            places = [number for number, other in enumerate(names, 1) if other == name]
            advice = headerless_hint(names) or "Rename one of them in the file."
            raise DataError(
                f"{path}, line {record.line}: the column {name!r} stands twice, as columns "
                f"{places[0]} and {places[1]}: "
                f"which is meant? {advice}"
            )
    return tuple(names)


def looks_like_data(names: Iterable[str]) -> bool:
    """Whether names of columns look like a row: a number or a long text among them."""
    return any(re.fullmatch(r"[-+]?\d[\d.,:-]*", name.strip()) or len(name) > 100 for name in names)


HEADER_TAKEN = (
    "The first line of the file was taken for the names of its {} columns and looks like a row: "
    "if it is one,"
)


def headerless_hint(names: Iterable[str]) -> str:
    """What to do where a table's first line seems to be a row; empty where it does not."""
    names = list(names)
    if not looks_like_data(names) and not any(
        len(name) > 40 or name.strip().endswith((".", "?", "!")) for name in names
    ):
        return ""
    return header_advice(names)


def header_advice(names: Sequence[str]) -> str:
    """What to do where a table's first line is a row."""
    return (
        f"{HEADER_TAKEN.format(len(names))} name the columns by "
        f"data: {{columns: [{', '.join(likely_names(names))}]}} (a name for each of the "
        f"{len(names)})."
    )


def likely_names(first_line: Sequence[str]) -> list[str]:
    """A name for each column of a table whose first line is a row: its longest value is taken for
    the text, its shortest for the label."""
    lengths = list(map(len, first_line))
    names = [f"column{number}" for number in range(1, len(lengths) + 1)]
    names[lengths.index(min(lengths))] = "label"
    names[lengths.index(max(lengths))] = "text"
    return names


def field_hint(name: str, row: Mapping[str, Any]) -> str:
    """Where a field that a row lacks may be: under a like name, in a file without a header, deeper
    in a nested file."""
    if (
        isinstance(row, FileRow)
        and row_files.form_of(pathlib.Path(row.file)) in TABLES
        and (hint := headerless_hint(map(str, row)))
    ):
        return hint
    if path := json_rows.path_to(dict(row), name):
        return (
            f"It stands deeper in the file: data: {{record_path: {path}}} takes the rows from "
            "there."
        )
    return nearest(name, map(str, row))


def _uneven(
    path: pathlib.Path,
    record: delimited.Record,
    width: int,
    dialect: delimited.Dialect,
    named_by_settings: bool,
) -> str:
    named = (
        f"data: {{columns: ...}} names {width}"
        if named_by_settings
        else f"the first line names {width}"
    )
    message = f"{path}, line {record.line}: {len(record.fields)} fields where {named}."
    if len(record.fields) > width:
        sign = delimited.SEPARATORS.get(dialect.separator, repr(dialect.separator))
        plain = ", which are taken as plain text here" if dialect.quoting == "none" else ""
        message += f" A text that has a {sign} in it must stand in quotation marks{plain}."
    if width == 1:
        message += (
            " If the first lines are a title or comments, data: {skip_lines: 1} leaves so many out."
        )
    elif record.fields[-1] == "" or len(record.fields) == width + 1 and record.line == 2:
        message += (
            " If all rows have a field that the first line does not name (an index at the start, "
            "or nothing behind the last separator), data: {skip_lines: 1, columns: [...]} names "
            f"all {len(record.fields)}."
        )
    return message


# JSON.


def _json(
    path: pathlib.Path, form: str, options: FileConfig, skipped: list[str] | None, notes: list[str]
) -> Iterator[FileRow]:
    if options.separator or options.quoting or options.columns or options.skip_lines:
        raise DataError(
            f"{path} is JSON by its name: separator, quoting, columns and skip_lines are of tables."
        )
    if options.record_path or not _is_by_line(path, form, options.encoding):
        yield from _whole_json(path, form, options, skipped, notes)
        return
    newline = row_files.line_end(path, options.encoding)
    with row_files.opened(path, options.encoding, newline, lenient=True) as lines:
        for number, line in enumerate(lines, 1):
            if row_files.is_undecoded(line):
                lenient = skipped is not None
                _bad(row_files.undecoded(path, number, options.encoding, lenient), skipped)
            elif line.strip(" \t\r\n"):
                try:
                    row = row_of(line)
                except ValueError as error:
                    hint = (
                        " If it is a table, name it .csv or .tsv."
                        if number == 1 and line.lstrip()[:1] not in '{["'
                        else ""
                    )
                    _bad(f"{path}, line {number}: {error}{hint}", skipped)
                else:
                    yield FileRow(row, str(path), number)


def _is_by_line(path: pathlib.Path, form: str, encoding: str | None) -> bool:
    """Whether each line is an object; else the file is one text of JSON."""
    with row_files.opened(path, encoding, row_files.line_end(path, encoding), True) as lines:
        filled = (line for line in lines if line.strip(" \t\r\n"))
        first_line, second_line = next(filled, ""), next(filled, "")
    start = first_line.lstrip(" \t\r\n")[:1]
    if start == "[":
        return _is_whole(first_line) and bool(second_line)
    if start != "{":
        return True
    if _is_whole(first_line):
        return form != ".json" or bool(second_line)
    return not second_line or second_line.lstrip(" \t\r\n")[:1] == "{"


def _is_whole(text: str) -> bool:
    try:
        json_rows.parsed(text)
    except json_rows.RepeatedKey:
        return True
    except (ValueError, RecursionError):
        return False
    return True


def _whole_json(
    path: pathlib.Path,
    form: str,
    options: FileConfig,
    skipped: list[str] | None,
    notes: list[str],
) -> Iterator[FileRow]:
    with row_files.opened(path, options.encoding, lenient=skipped is not None) as stream:
        text = stream.read()
    try:
        values_by_line = list(json_rows.values(text, check=skipped is None))
    except ValueError as error:
        hint = "" if skipped is None else ". Bad lines are skipped where each line is an object."
        raise DataError(f"{path}, {error}{hint}") from error
    lines = [line for line, _ in values_by_line]
    rows = [value for _, value in values_by_line]
    if options.record_path:
        lines, rows = _nested(path, values_by_line, options.record_path)
    elif (
        len(rows) == 1
        and form == ".json"
        and isinstance(rows[0], dict)
        and text.lstrip()[:1] == "{"
    ):
        try:
            table = json_rows.of_object(rows[0])
        except (ValueError, TypeError) as error:
            raise DataError(f"{path} has rows of uneven length.") from error
        if table is not None:
            rows, kind = table
            lines = [1] * len(rows)
            notes.append(f"{path}: read as {kind}.")
    for number, (line, row) in enumerate(zip(lines, rows), 1):
        if not isinstance(row, dict):
            _bad(
                f'{path}, line {line}: an object is expected as row {number}, {{"field": "value", '
                f"...}}, and it is: "
                f"{json_rows.written(row)[:60]}",
                skipped,
            )
        elif skipped is not None and (fault := json_rows.half_character(row)):
            _bad(f"{path}, line {line}: {fault}.", skipped)
        else:
            yield FileRow(row, str(path), line)


def _nested(
    path: pathlib.Path, values_by_line: Sequence[tuple[int, Any]], record_path: str
) -> tuple[list[int], list[dict[str, Any]]]:
    try:
        pairs = [
            (line, row)
            for line, value in values_by_line
            for row in json_rows.along(value, record_path.split("."))
        ]
    except KeyError as error:
        known = (
            values_by_line[0][1]
            if values_by_line and isinstance(values_by_line[0][1], dict)
            else {}
        )
        raise DataError(
            f"{path}: record_path speaks of {error.args[0]!r}, which is not there. "
            f"{nearest(error.args[0], known)}"
        ) from error
    return [line for line, _ in pairs], [row for _, row in pairs]
