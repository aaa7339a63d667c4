"""The rows of a table: CSV, TSV and their kin."""

import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice

from ptune.data import row_files
from ptune.data.formats import delimited, dialect
from ptune.data.formats.header import column_names, given_names
from ptune.data.formats.json_rows import row_of as row_of
from ptune.data.row import FileRow, refuse_or_skip
from ptune.errors import DataError
from ptune.settings import FileConfig

MARKDOWN_RULE = re.compile(r"\|?(\s*:?-+:?\s*\|)+(\s*:?-+:?\s*)?")


def table_rows(
    path: pathlib.Path, options: FileConfig, skipped: list[str] | None, notes: list[str]
) -> Iterator[FileRow]:
    """The rows of a table, each with its file and the line on which it begins.

    Args:
        skipped: gets what is wrong with each row that is left out; None refuses such a row.
        notes: gets what was decided and could have been otherwise.

    Raises:
        DataError: the file cannot be read, its form is not clear, or a row is at fault and
            ``skipped`` is None.
    """
    lenient, names = skipped is not None, given_names(path, options)
    opened = table_lines(path, options)
    dialect = table_dialect(path, options, opened, lenient)
    if dialect.note:
        notes.append(f"{path}: {dialect.note}.")
    with opened() as lines:
        rest = islice(lines, dialect.skip, None)
        for record in delimited.records(
            rest,
            dialect.separator,
            quoting=dialect.quoting,
            first_number=dialect.skip + 1,
            lenient=lenient,
        ):
            if record.is_blank:
                continue
            fault = _fault_of(
                path, record, len(names), dialect=dialect, options=options, lenient=lenient
            )
            if fault:
                refuse_or_skip(
                    fault, skipped if names else None
                )  # nothing can be read without the header
            elif not names:
                names = column_names(record, path)
            else:
                yield FileRow(dict(zip(names, record.fields)), str(path), record.line)
    if not names:
        raise DataError(f"{path} holds no rows, and not even a line that names the columns.")


def columns_of(path: pathlib.Path, options: FileConfig) -> tuple[str, ...]:
    """The names of a table's columns.

    Raises:
        DataError: the file cannot be read, or a name stands twice.
    """
    if names := given_names(path, options):
        return names
    opened = table_lines(path, options)
    dialect = table_dialect(path, options, opened)
    with opened() as lines:
        records = delimited.records(
            islice(lines, dialect.skip, None), dialect.separator, quoting=dialect.quoting
        )
        first = next((record for record in records if not record.is_blank), None)
        return () if first is None else column_names(first, path)


def _fault_of(
    path: pathlib.Path,
    record: delimited.Record,
    width: int,
    *,
    dialect: dialect.Dialect,
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
        return _uneven(
            path, record, width, dialect=dialect, named_by_settings=bool(options.columns)
        )
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
) -> dialect.Dialect:
    """How a table is written.

    Raises:
        DataError: its quotation marks fit neither CSV nor plain text.
    """
    usual = delimited.BY_ENDING.get(row_files.form_of(path), ",")
    try:
        return dialect.decide(
            opened,
            usual,
            separator=options.separator,
            quoting=options.quoting,
            columns=len(options.columns or ()),
            lenient=lenient,
            skip=options.skip_lines or 0,
        )
    except dialect.UnclearTable as error:
        raise DataError(
            f"{path}, {error}. Read as plain text the marks leave rows of uneven length, or "
            "others are set as CSV sets them. Mend "
            f"the line, or read them as plain text by data: {{quoting: none}}."
        ) from error


def _uneven(
    path: pathlib.Path,
    record: delimited.Record,
    width: int,
    *,
    dialect: dialect.Dialect,
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
