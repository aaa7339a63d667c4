"""Sentences of files that a user gives: texts, tables and JSON lines with a column of text, and
LAMA's rows with their evidence."""

import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ptune.base import plain_files
from ptune.data.rows import read_rows
from ptune.errors import DataError

END = re.compile(r"(?<=[.!?])\s+")
TABLES = (".jsonl", ".json", ".csv", ".tsv")
MASK = "[MASK]"  # in the place of the answer in LAMA's evidence


def sentences(paths: Sequence[pathlib.Path]) -> Iterator[str]:
    """The sentences of files, and of all files in folders.

    Raises:
        DataError: a file cannot be read, or holds no text.
    """
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and not file.name.startswith("."):
                yield from _of_file(file)


def _of_file(path: pathlib.Path) -> Iterator[str]:
    if path.suffix.lower() in TABLES:
        yield from of_rows(read_rows(path), str(path))
        return
    try:
        text = plain_files.read_text(path, "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The corpus {path} cannot be read: {error}.") from error
    for paragraph in text.split("\n"):
        yield from filter(None, END.split(paragraph.strip()))


def of_rows(rows: Iterable[Any], name: str) -> Iterator[str]:
    """The sentences of rows with a field text, or of LAMA's with their evidence.

    Raises:
        DataError: a row has neither.
    """
    for row in rows:
        if isinstance(row.get("text"), str):
            yield from filter(None, END.split(row["text"].strip()))
        elif isinstance(row.get("evidences"), list):
            for evidence in row["evidences"]:
                surface = str(evidence.get("obj_surface", ""))
                yield str(evidence.get("masked_sentence", "")).replace(MASK, surface)
        else:
            raise DataError(f"{name} is to be a corpus, and a row of it has no field text.")
