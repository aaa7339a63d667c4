"""Parquet and Arrow files: what their types become in rows."""

import datetime
import decimal
import json
import pathlib

import pytest

from ptune.cli import main
from ptune.data import file_form
from ptune.data.rows import read_rows
from ptune.data.shards import answers, listing, pieces
from ptune.errors import DataError
from ptune.settings import FileConfig

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow, which writes such files, is missing")
parquet = pytest.importorskip("pyarrow.parquet")

TYPED = {
    "at": datetime.datetime(2024, 1, 2, 3, 4, 5),
    "cost": decimal.Decimal("1.50"),
    "old": b"caf\xc3\xa9",
    "deep": [{"day": datetime.date(2024, 1, 2), "none": None, "number": 2}],
}


def pieces_of(path: pathlib.Path, size: int = 2) -> list[pieces.Piece]:
    return list(pieces.columnar_pieces(path, FileConfig(), size))


def test_dates_exact_numbers_and_texts_as_bytes_are_texts_in_rows(tmp_path):
    parquet.write_table(pyarrow.Table.from_pylist([TYPED]), tmp_path / "rows.parquet")
    expected = {
        "at": "2024-01-02 03:04:05",
        "cost": "1.50",
        "old": "café",
        "deep": [{"day": "2024-01-02", "none": None, "number": 2}],
    }
    assert json.loads(json.dumps(read_rows(tmp_path / "rows.parquet"))) == [expected]
    (piece,) = pieces_of(tmp_path / "rows.parquet")
    assert list(piece.rows) == [expected] and piece.columns.to_pylist() == [TYPED]


def test_bytes_that_are_no_text_are_refused_where_rows_would_hold_them(tmp_path):
    rows = [{"text": "a", "image": {"bytes": name}} for name in (b"ok", b"\xff\xd8")]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"'image' holds bytes .*row 2 has the first"):
        read_rows(tmp_path / "rows.parquet")
    assert pieces_of(tmp_path / "rows.parquet")[0].columns.to_pylist() == rows


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 2, names=["text", "text"])
    parquet.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet: two columns are called 'text'"):
        read_rows(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet: two columns are called 'text'"):
        pieces.check_same_columns(listing.shard_files(str(tmp_path / "rows.parquet")))


def test_a_column_to_be_renamed_that_is_not_there_is_told(tmp_path):
    parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "rows.parquet")
    options = FileConfig(rename={"txet": "words"})
    with pytest.raises(DataError, match="rename speaks of 'txet'.*'text'"):
        list(pieces.columnar_pieces(tmp_path / "rows.parquet", options, 2))


def test_batches_with_dictionaries_of_their_own_become_one_arrow_file(tmp_path):
    batches = [
        pyarrow.RecordBatch.from_arrays([pyarrow.array(words).dictionary_encode()], names=["label"])
        for words in (["good", "bad"], ["fair", "bad"])
    ]
    with pyarrow.ipc.new_stream(tmp_path / "rows.arrow", batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    (piece,) = pieces_of(tmp_path / "rows.arrow", 4)
    answered = [(row, {"text": row["label"]}) for row in piece.rows]
    answers.write_answers(tmp_path / "out.arrow", piece, answered, None)
    expected = [{"label": word, "ptune_text": word} for word in ("good", "bad", "fair", "bad")]
    assert read_rows(tmp_path / "out.arrow") == expected


def test_a_table_with_types_is_checked_and_made_a_task_of(tmp_path, capsys):
    rows = [{"text": f"{name} {n}", "label": name} for n in range(6) for name in ("good", "bad")]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    main.main(["check", str(tmp_path / "rows.parquet")])
    printed = capsys.readouterr().out
    assert "rows.parquet: Parquet, a table with types; 12 rows" in printed
    assert "# 12 rows" in printed
    main.main(["new", str(tmp_path / "rows.parquet"), "--out", str(tmp_path / "task.yaml")])
    assert "12 rows; text: 'text'; label: 'label'" in capsys.readouterr().out
    with pytest.raises(DataError, match="encoding is an option of text files"):
        file_form.seen(tmp_path / "rows.parquet", FileConfig(encoding="utf-8"))
