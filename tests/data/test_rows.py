import pytest

from ptune.data.rows import read_rows
from ptune.errors import DataError


def put(tmp_path, name, text, encoding="utf-8"):
    (tmp_path / name).write_bytes(text.encode(encoding))
    return tmp_path / name


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.jsonl", '{"x": "Wien, \\u00e4", "y": "1"}\n\n{"x": "b", "y": "2"}\n'),
        ("a.csv", 'x,y\n"Wien, \u00e4",1\nb,2\n'),
        ("a.tsv", "x\ty\nWien, \u00e4\t1\nb\t2\n"),
        ("a.csv", '\ufeffx,y\r\n"Wien, \u00e4",1\r\nb,2\r\n'),
    ],
)
def test_rows_of_every_format(tmp_path, name, text):
    assert read_rows(put(tmp_path, name, text)) == [
        {"x": "Wien, \u00e4", "y": "1"},
        {"x": "b", "y": "2"},
    ]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.jsonl", '{"x": 1}\n{"x": \n{"x": 3}\n', "a.jsonl, line 2: not valid JSON"),
        ("a.jsonl", '{"x": 1}\n[2]\n', "line 2: a JSON object is expected"),
        ("a.csv", "x,y\n1,2\n3\n", "a.csv, line 3: 1 fields where the first line names 2"),
        ("a.csv", "x,y\n1,2,3\n", "line 2"),
        ("a.csv", 'x,y\n"1,2\n', "line 2: a quotation mark is out of place: .* is never closed"),
        ("a.jsonl", "", "holds no rows"),
        ("a.csv", "x,y\n", "holds no rows"),
        ("a.txt", "x", "no known format"),
    ],
)
def test_bad_files(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message):
        read_rows(put(tmp_path, name, text))


def test_missing_file_and_wrong_encoding(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_rows(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="not UTF-8"):
        read_rows(put(tmp_path, "a.jsonl", '{"x": "\u00e4"}\n', "latin-1"))


def test_bad_lines_may_be_skipped_and_are_reported(tmp_path):
    skipped = []
    assert read_rows(put(tmp_path, "a.jsonl", '{"x": 1}\noops\n{"x": 3}\n'), skipped) == [
        {"x": 1},
        {"x": 3},
    ]
    assert len(skipped) == 1 and "line 2" in skipped[0]
    skipped = []
    assert read_rows(put(tmp_path, "a.csv", "x,y\n1,2\n3\n4,5\n"), skipped) == [
        {"x": "1", "y": "2"},
        {"x": "4", "y": "5"},
    ]
    assert len(skipped) == 1 and "line 3" in skipped[0]
