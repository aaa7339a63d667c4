"""The rows of a file of JSON: an object a line, or one text."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from ptune.data import row_files
from ptune.data.formats import json_rows
from ptune.data.formats.json_rows import row_of as row_of
from ptune.data.row import FileRow, refuse_or_skip
from ptune.errors import DataError, nearest
from ptune.settings import FileConfig


def json_file_rows(
    path: pathlib.Path,
    form: str,
    options: FileConfig,
    *,
    skipped: list[str] | None,
    notes: list[str],
) -> Iterator[FileRow]:
    """The rows of a file whose lines are JSON objects, or which is one text of JSON, each with its
    file and line.

    Args:
        form: the ending that tells the file's form, such as ".jsonl".
        skipped: gets what is wrong with each row that is left out; None refuses such a row.
        notes: gets what was decided and could have been otherwise.

    Raises:
        DataError: the file cannot be read, an option is of tables alone, or a row is at fault and
            ``skipped`` is None.
    """
    if options.separator or options.quoting or options.columns or options.skip_lines:
        raise DataError(
            f"{path} is JSON by its name: separator, quoting, columns and skip_lines are of tables."
        )
    if options.record_path or not _is_by_line(path, form, options.encoding):
        yield from _whole_json(path, form, options, skipped=skipped, notes=notes)
        return
    newline = row_files.line_end(path, options.encoding)
    with row_files.opened(path, options.encoding, newline, lenient=True) as lines:
        for number, line in enumerate(lines, 1):
            if row_files.is_undecoded(line):
                lenient = skipped is not None
                refuse_or_skip(
                    row_files.undecoded(path, number, options.encoding, lenient), skipped
                )
            elif line.strip(" \t\r\n"):
                try:
                    row = row_of(line)
                except ValueError as error:
                    hint = (
                        " If it is a table, name it .csv or .tsv."
                        if number == 1 and line.lstrip()[:1] not in '{["'
                        else ""
                    )
                    refuse_or_skip(f"{path}, line {number}: {error}{hint}", skipped)
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
    *,
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
        except json_rows.RepeatedKey as error:
            raise DataError(f"{path}: {error}") from error
        except (ValueError, TypeError) as error:
            raise DataError(f"{path} has rows of uneven length.") from error
        if table is not None:
            rows, kind = table
            lines = [1] * len(rows)
            notes.append(f"{path}: read as {kind}.")
    for number, (line, row) in enumerate(zip(lines, rows), 1):
        if not isinstance(row, dict):
            refuse_or_skip(
                f'{path}, line {line}: an object is expected as row {number}, {{"field": "value", '
                f"...}}, and it is: "
                f"{json_rows.written(row)[:60]}",
                skipped,
            )
        elif skipped is not None and (fault := json_rows.half_character(row)):
            refuse_or_skip(f"{path}, line {line}: {fault}.", skipped)
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
