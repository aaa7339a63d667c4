"""Rows that are in memory already: tables of pandas, polars and pyarrow, data sets, any iterable of
mappings."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ptune.errors import DataError


def rows_from(data: object) -> Sequence[Mapping[str, Any]]:
    """The rows of a table or of an iterable; a list of rows stays as it is.

    Args:
        data: a list of dictionaries, a generator of them, a pandas or polars data frame, a
            pyarrow table, or a ``datasets.Dataset`` (also a streamed one).

    Raises:
        DataError: it is a single row, a text, has two columns of one name, or holds something that
            has no fields.
    """
    if hasattr(data, "columns"):
        check_columns(data)
    rows = _sequence_of(data)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise DataError(
                f"Row {number} is a {type(row).__name__}, and a row is a dictionary of its fields: "
                '{"field": "text"}.'
            )
    return rows


def check_columns(table: Any) -> None:
    """Refuse a table with two columns of one name, since a row would hold one of them alone.

    Raises:
        DataError: it has two.
    """
    counts = Counter(map(str, getattr(table, "column_names", table.columns)))
    if twice := next((name for name, count in counts.items() if count > 1), None):
        raise DataError(f"Two columns of the table are called {twice!r}: rename one of them.")


def _sequence_of(data: Any) -> Sequence[Any]:
    """What is in a table or an iterable, as a sequence.

    Raises:
        DataError: it is neither.
    """
    if isinstance(data, Sequence) and not isinstance(data, str):
        return data
    for name in ("to_dicts", "to_pylist"):  # polars, pyarrow
        if callable(records := getattr(data, name, None)):
            return list(records())
    if hasattr(data, "columns") and callable(records := getattr(data, "to_dict", None)):  # pandas
        return list(records("records"))
    if isinstance(data, Mapping | str) or not isinstance(data, Iterable):
        raise DataError(
            f"A list of rows is expected, each a dictionary of its fields, and this is "
            f"a {type(data).__name__}.{_hint(data)}"
        )
    return list(data)


def _hint(data: object) -> str:
    values = list(data.values()) if isinstance(data, Mapping) else []
    if values and all(isinstance(value, list | tuple) for value in values):
        return " For rows of these columns: pandas.DataFrame(...)."
    return " Write [row] for a single row." if isinstance(data, Mapping) else ""
