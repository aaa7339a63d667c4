"""Files of every form, read by the form that a task names: plain rows, or a set's own layout."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from ptune.data.rows import AS_IT_IS, iterate_rows, read_rows
from ptune.errors import ConfigError
from ptune.settings import FileConfig
from ptune.tasks.layouts import conll, lines, superglue, table_to_text


def rows_of(
    path: pathlib.Path,
    form: str,
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
    if form in lines.FORMS:
        return lines.read(path, form, options, skipped)
    if form in conll.FORMS:
        return conll.read(path, options, skipped)
    if form in superglue.FORMS:
        return superglue.read(path, form, skipped)
    return table_to_text.read(path, form, options.language, skipped)


def _check_options(form: str, options: FileConfig) -> None:
    """Refuse options that files of a form do not have.

    Raises:
        ConfigError: one is given.
    """
    fitting = {
        "rows": FileConfig.model_fields.keys() - {"language"},
        "webnlg": {"language"},
        **dict.fromkeys(lines.FORMS, {"encoding"}),
        **dict.fromkeys(conll.FORMS, {"encoding", "columns"}),
    }.get(form, set())
    for name in FileConfig.model_fields:
        if getattr(options, name) is not None and name not in fitting:
            raise ConfigError(
                f"{name} is not an option of files of the form {form!r}: leave it out, or name "
                "the form of the file."
            )


def iterate(
    path: pathlib.Path,
    form: str,
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
    return iter(rows_of(path, form, skipped, options, notes))
