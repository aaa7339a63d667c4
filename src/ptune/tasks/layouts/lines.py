"""Files of plain lines: a text on each line, or TREC's questions (Li and Roth 2002), "DESC:manner
How did serfdom develop ?"."""

import os
import pathlib
import re

from ptune.data import row_files
from ptune.data.row import FileRow
from ptune.errors import DataError
from ptune.settings import FileConfig

QUESTION = re.compile(r"(([A-Z]+):\w+)\s+(\S.*)")


def read(
    path: str | os.PathLike[str], form: str, options: FileConfig, skipped: list[str] | None = None
) -> list[FileRow]:
    """The rows of a file of lines; empty lines are no rows.

    Args:
        form: "lines": rows of ``text``. "trec": rows of ``label`` (DESC), ``fine`` (DESC:manner)
            and ``text``.
        skipped: where given, bad lines are left out and what was wrong with them is put here.

    Raises:
        DataError: it cannot be read, holds no rows, or a line is not of that form.
    """
    path = pathlib.Path(path)
    rows = []
    newline = row_files.line_end(path, options.encoding)
    with row_files.opened(path, options.encoding, newline, lenient=True) as stream:
        for number, line in enumerate(stream, 1):
            text = line.rstrip("\r\n")
            if not text.strip():
                continue
            try:
                rows.append(FileRow(_values(text, form), str(path), number))
            except ValueError as error:
                message = f"{path}, line {number}: {error}"
                if row_files.is_undecoded(text):
                    lenient = skipped is not None
                    message = row_files.undecoded(path, number, options.encoding, lenient)
                if skipped is None:
                    raise DataError(message) from error
                skipped.append(message)
    if not rows:
        raise DataError(f"{path} holds no rows.")
    return rows


def _values(text: str, form: str) -> dict[str, str]:
    """The row of a line; a ValueError says why it is none."""
    text.encode()
    if form == "lines":
        return {"text": text}
    if question := QUESTION.fullmatch(text):
        return {"label": question[2], "fine": question[1], "text": question[3]}
    raise ValueError(f"LABEL:fine and a text are expected, and it is: {text[:60]!r}")


FORMS = ("lines", "trec")
