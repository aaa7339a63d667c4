"""Rows that are in memory, and Parquet and Arrow files."""

import pytest

from ptune.data.in_memory import rows_from
from ptune.data.rows import read_rows
from ptune.errors import DataError
from ptune.settings import FileConfig

ROWS = [{"text": "great", "label": 1}, {"text": "bad", "label": 0}]


def test_any_iterable_of_mappings():
    assert rows_from(ROWS) is ROWS
    assert rows_from(row for row in ROWS) == ROWS
    assert rows_from(tuple(ROWS)) == tuple(ROWS)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_data_frame(library):
    frames = pytest.importorskip(library, reason=f"{library} is not installed")
    rows = rows_from(frames.DataFrame(ROWS))
    assert rows == ROWS and all(type(row["label"]) is int for row in rows)


def test_a_data_set_and_a_table():
    datasets = pytest.importorskip("datasets", reason="the library datasets is not installed")
    data_set = datasets.Dataset.from_list(ROWS)
    assert rows_from(data_set) == ROWS
    assert rows_from(data_set.to_iterable_dataset()) == ROWS
    assert rows_from(data_set.data.table) == ROWS


class Frame:
    """What a pandas data frame shows, for machines without one."""

    columns = ("text", "label")

    def __iter__(self):
        return iter(self.columns)

    def to_dict(self, orient):
        assert orient == "records"
        return ROWS


def test_what_shows_itself_as_a_frame():
    assert rows_from(Frame()) == ROWS


class FrameOfOneName(Frame):
    columns = ("text", "text")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (FrameOfOneName(), "Two columns of the table are called 'text': rename one of them"),
        (ROWS[0], r"Write \[row\] for a single row"),
        ({"text": ["a", "b"]}, "pandas.DataFrame"),
        ("text", "this is a str"),
        (["text"], "Row 1 is a str"),
        (iter([ROWS[0], 3]), "Row 2 is a int"),
    ],
)
def test_what_is_no_rows(data, message):
    with pytest.raises(DataError, match=message):
        rows_from(data)


def test_parquet_and_arrow_files(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import feather, ipc, parquet

    table = pyarrow.Table.from_pylist(ROWS)
    parquet.write_table(table, tmp_path / "a.parquet")
    feather.write_feather(table, tmp_path / "a.feather", compression="uncompressed")
    with ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as stream:
        stream.write_table(table)
    for name in ("a.parquet", "a.feather", "a.arrow"):
        rows = read_rows(tmp_path / name, options=FileConfig(rename={"text": "review"}))
        assert [row["review"] for row in rows] == ["great", "bad"]
        assert rows[1].place == f"{tmp_path / name}, line 2"
    with pytest.raises(DataError, match="separator is an option of text files"):
        read_rows(tmp_path / "a.parquet", options=FileConfig(separator=";"))
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"b.parquet cannot be read as a Parquet file"):
        read_rows(tmp_path / "b.parquet")


def test_without_pyarrow_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"ptune\[data\].*read_parquet"):
        read_rows(tmp_path / "a.parquet")
