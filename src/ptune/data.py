"""Rows from files: JSON lines, CSV or TSV; a fault is told with its line."""
import csv
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from ptune.errors import DataError

FORMATS = (".jsonl", ".json", ".csv", ".tsv")


def read_rows(path: str | os.PathLike[str], skipped: list[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a file.

    Args:
        skipped: where given, bad lines are left out and what was wrong with them is put here.

    Raises:
        DataError: the file is missing, empty, or of no known format, or a line is bad: its number is told.
    """
    rows = list(iterate_rows(path, skipped))
    if not rows:
        raise DataError(f"{path} holds no rows.")
    return rows


def iterate_rows(path: str | os.PathLike[str], skipped: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a file one by one; see ``read_rows``."""
    path = pathlib.Path(path)
    if path.suffix not in FORMATS:
        raise DataError(f"{path} is of no known format ({', '.join(FORMATS)}); .jsonl holds one JSON object a line.")
    for number, line in _lines(path, skipped):
        try:
            yield row_of(line) if isinstance(line, str) else line
        except ValueError as error:
            _bad(f"{path}, line {number}: {error}", skipped)


def _lines(path: pathlib.Path, skipped: list[str] | None) -> Iterator[tuple[int, str | dict[str, Any]]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            if path.suffix in (".csv", ".tsv"):
                yield from _table(path, csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True), skipped)
            else:
                yield from ((number, line) for number, line in enumerate(stream, 1) if line.strip())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"{path} is not a well-formed table: {error}.") from error


def _table(path: pathlib.Path, reader: Any, skipped: list[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    for row in reader:
        if None in row or None in row.values():
            _bad(f"{path}, line {reader.line_num}: {len([v for v in row.values() if v is not None])} fields where the first line "
                 f"names {len(reader.fieldnames)}.", skipped)
        else:
            yield reader.line_num, row


def row_of(line: str) -> dict[str, Any]:
    """The row that a line of JSON holds; a ValueError says why it holds none."""
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError(f"JSON that is nested too deeply: {line.strip()[:60]!r}") from error
    except UnicodeEncodeError as error:
        raise ValueError(f"half of a character (a lone surrogate): {line.strip()[:60]!r}") from error
    except ValueError as error:
        raise ValueError(f"not valid JSON ({error}): {line.strip()[:60]!r}") from error
    if not isinstance(row, dict):
        raise ValueError(f"a JSON object is expected, {{\"field\": \"value\", ...}}, and it is: {line.strip()[:60]!r}")
    return row


def _bad(message: str, skipped: list[str] | None) -> None:
    if skipped is None:
        raise DataError(message)
    skipped.append(message)
