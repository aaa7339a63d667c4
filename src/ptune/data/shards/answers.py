"""The answers to a piece of rows as a file: the rows as they are, and the answers beside them."""

import io
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ptune.base import files
from ptune.data import answer_files
from ptune.data.answer_files import KEY
from ptune.data.formats.columnar import COLUMNAR
from ptune.data.row import FileRow
from ptune.data.shards.pieces import Piece
from ptune.errors import StoreError

Answers = Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]


def checker(ending: str) -> Callable[[Mapping[str, Any]], None]:
    """What refuses rows that cannot be put out with an answer in a file of that ending."""
    name = "answers.csv" if ending in COLUMNAR else f"answers{ending}"
    return answer_files.writer(pathlib.Path(name), io.StringIO()).check


def write_answers(
    path: pathlib.Path, piece: Piece, answers: Answers, label_separator: str | None
) -> None:
    """Write the rows of a piece that were answered, whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """

    def put_text(temporary: str) -> None:
        with open(temporary, "w", encoding="utf-8", newline="") as stream:
            writer = answer_files.writer(path, stream, label_separator)
            for row, answer in answers:
                writer.check(row)
                writer.put(row, answer)

    def put_columns(temporary: str) -> None:
        _write_columns(temporary, path, with_answers(piece, answers))

    files.write(path, put_columns if path.suffix in COLUMNAR else put_text)


def with_answers(piece: Piece, answers: Answers) -> Any:
    """The Arrow table of the rows that were answered: their columns as they were, and one for each
    part of the answer."""
    import pyarrow

    kept = [row.line - piece.first for row, _ in answers if isinstance(row, FileRow)]
    table = piece.columns
    if len(kept) < table.num_rows:
        table = table.take(pyarrow.array(kept, pyarrow.int64()))
    cells = [answer_files.cells(answer) for _, answer in answers]
    for name in dict.fromkeys(name for row in cells for name in row):
        table = table.append_column(f"{KEY}_{name}", _column(name, [row[name] for row in cells]))
    return table


def _column(name: str, values: Sequence[Any]) -> Any:
    """A part of the answers as a column, whose type does not hang on the values of one piece: that
    a row has one label, or a list of them, holds for all rows of a prompt."""
    import pyarrow

    texts = pyarrow.list_(pyarrow.string())
    entity = {
        "kind": pyarrow.string(),
        "start": pyarrow.int64(),
        "end": pyarrow.int64(),
        "words": texts,
    }
    types = {
        "prediction": pyarrow.string(),
        "probability": pyarrow.float64(),
        "set": texts,
        "start": pyarrow.int64(),
        "end": pyarrow.int64(),
        "entities": pyarrow.list_(pyarrow.struct(entity)),
        "text": pyarrow.string(),
        "texts": texts,
        "shortened": pyarrow.int64(),
        "unknown": pyarrow.float64(),
    }
    has_lists = name in ("prediction", "probability") and any(
        isinstance(value, list) for value in values
    )
    return pyarrow.array(values, pyarrow.list_(types[name]) if has_lists else types[name])


def _write_columns(temporary: str, path: pathlib.Path, table: Any) -> None:
    """Write an Arrow table in the form that the name of the file says."""
    import pyarrow
    from pyarrow import ipc, parquet

    try:
        if path.suffix == ".parquet":
            parquet.write_table(table, temporary)
            return
        with ipc.new_file(temporary, table.schema) as writer:
            writer.write_table(table.unify_dictionaries())  # such a file has one for each column
    except pyarrow.ArrowException as error:
        raise StoreError(f"{path} could not be written: {error}.") from error
