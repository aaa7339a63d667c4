"""Files of every form, read by the form that a task names: plain rows, or a set's own layout."""

import pathlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ptune.data.rows import AS_IT_IS, iterate_rows, read_rows
from ptune.errors import ConfigError
from ptune.settings import FileConfig
from ptune.tasks.layouts import conll, lines, superglue, table_to_text

Read = Callable[[pathlib.Path, str, FileConfig, list[str] | None], Sequence[dict[str, Any]]]


@dataclass(frozen=True)
class Layout:
    """How files of one form are read.

    Attributes:
        read: the rows of a file of that form, read as the options say; bad lines are left out and
            told in a list, where there is one.
        options: the names of the options that such files take.
    """

    read: Read
    options: frozenset[str] = frozenset()


def _tables(
    path: pathlib.Path, form: str, options: FileConfig, skipped: list[str] | None
) -> Sequence[dict[str, Any]]:
    return table_to_text.read(path, form, options.language, skipped)


LAYOUTS: dict[str, Layout] = {
    **dict.fromkeys(lines.FORMS, Layout(lines.read, frozenset({"encoding"}))),
    "conll": Layout(
        lambda path, form, options, skipped: conll.read(path, options, skipped),
        frozenset({"encoding", "columns"}),
    ),
    **dict.fromkeys(
        superglue.FORMS,
        Layout(lambda path, form, options, skipped: superglue.read(path, form, skipped)),
    ),
    **dict.fromkeys(table_to_text.FORMS, Layout(_tables)),
    "webnlg": Layout(_tables, frozenset({"language"})),
}
"""The layouts of sets by the forms that a task's file names, beside plain rows."""


def rows_of(
    path: pathlib.Path,
    form: str,
    *,
    skipped: list[str] | None = None,
    options: FileConfig = AS_IT_IS,
    notes: list[str] | None = None,
) -> Sequence[dict[str, Any]]:
    """The rows of a file in a set's own layout, or of a plain one (``data.read_rows``).

    Raises:
        DataError: it cannot be read.
        ConfigError: an option is not of files of that form.
    """
    _check_options(form, options)
    if form == "rows":
        return read_rows(path, skipped, options, notes)
    return LAYOUTS[form].read(path, form, options, skipped)


def _check_options(form: str, options: FileConfig) -> None:
    """Refuse options that files of a form do not have.

    Raises:
        ConfigError: one is given.
    """
    of_rows = FileConfig.model_fields.keys() - {"language"}
    fitting = of_rows if form == "rows" else LAYOUTS[form].options
    for name in FileConfig.model_fields:
        if getattr(options, name) is not None and name not in fitting:
            raise ConfigError(
                f"{name} is not an option of files of the form {form!r}: leave it out, or name "
                "the form of the file."
            )


def iterate(
    path: pathlib.Path,
    form: str,
    *,
    skipped: list[str] | None = None,
    options: FileConfig = AS_IT_IS,
    notes: list[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """The rows of a file one by one; see ``rows_of``. A file in a set's own layout is read whole at
    once.

    Raises:
        DataError: it cannot be read.
    """
    if form == "rows":
        _check_options(form, options)
        return iterate_rows(path, skipped, options, notes)
    return iter(rows_of(path, form, skipped=skipped, options=options, notes=notes))
