"""Files of plain lines: a text on each line, or TREC's questions (Li and Roth 2002), "DESC:manner
How did serfdom develop ?"."""

import os
import pathlib
import re

from ptune.data import row_files
from ptune.data.rows import FileRow
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
    with row_files.opened(
        path, options.encoding, row_files.line_end(path, options.encoding)
    ) as stream:
        for number, line in enumerate(stream, 1):
            text = line.rstrip("\r\n")
            if not text.strip():
                continue
            if form == "lines":
                rows.append(FileRow({"text": text}, str(path), number))
            elif question := QUESTION.fullmatch(text):
                rows.append(
                    FileRow(
                        {"label": question[2], "fine": question[1], "text": question[3]},
                        str(path),
                        number,
                    )
                )
            else:
                message = (
                    f"{path}, line {number}: LABEL:fine and a text are expected, and it is: "
                    f"{text[:60]!r}"
                )
                if skipped is None:
                    raise DataError(message)
                skipped.append(message)
    if not rows:
        raise DataError(f"{path} holds no rows.")
    return rows


FORMS = ("lines", "trec")
