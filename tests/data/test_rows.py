import gzip
import os

import pytest

from ptune.data import row_files
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
    (tmp_path / "tickets.csv").write_text("a,b\n")
    with pytest.raises(
        DataError, match=r"No such file or directory\. Did you mean '.*tickets.csv'"
    ):
        read_rows(tmp_path / "ticket.csv")
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


GOOD = 'great,"a, b"\nbad,c\n'
SKIPPED_LINES = {
    "an unclosed mark": ("a.csv", f'x,y\n{GOOD}"open,d\n{GOOD}{GOOD}', [2, 3, 5, 6, 7, 8], [4]),
    "one at the end": ("a.csv", f'x,y\n{GOOD}"open,d\nbad,e\n', [2, 3, 5], [4]),
    "two": ("a.csv", f'x,y\n{GOOD}"open,d\n"open,d\n{GOOD}', [2, 3, 6, 7], [4, 5]),
    "a mark within": ("a.csv", f'x,y\n{GOOD}"an "open" one",d\n{GOOD}', [2, 3, 5, 6], [4]),
    "a broken record": (
        "a.csv",
        f'x,y\n{GOOD}"one\nsays "so" to\nme",d\n{GOOD}',
        [2, 3, 7, 8],
        [4, 5, 6],
    ),
    "bytes": ("a.csv", b"x,y\n1,2\n\xff\xfe,3\n4,5\n", [2, 4], [3]),
    "bytes and tabs": ("a.tsv", b"x\ty\n1\t2\n3\t\xe9\n4\t5\n", [2, 4], [3]),
    "bytes in JSON": ("a.jsonl", b'{"x": 1}\n{"x": "\xff"}\n{"x": 2}\n', [1, 3], [2]),
    "half a character": ("a.jsonl", '{"x": 1}\n{"x": "\\ud800"}\n{"x": 2}\n', [1, 3], [2]),
    "too deep": ("a.jsonl", f'{{"x": 1}}\n{"[" * 100_000}\n{{"x": 2}}\n', [1, 3], [2]),
    "elements": (
        "a.json",
        b'[{"x": 1},\n{"x": "\xff"},\n{"x": "\\ud800"},\n3,\n{"x": 2}]\n',
        [1, 5],
        [2, 3, 4],
    ),
}


@pytest.mark.parametrize("name", SKIPPED_LINES)
def test_a_bad_line_costs_no_other(tmp_path, name):
    file, text, good, bad = SKIPPED_LINES[name]
    (tmp_path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    skipped = []
    rows = read_rows(tmp_path / file, skipped)
    assert [row.line for row in rows] == good
    assert [f"line {line}:" in message for line, message in zip(bad, skipped, strict=True)] == [
        True
    ] * len(bad)
    with pytest.raises(DataError, match=f"line {bad[0]}"):
        read_rows(tmp_path / file)


def test_a_bad_header_is_no_row_to_skip(tmp_path):
    for number, text in enumerate((b'"x,y\nz,1\nw,2\n', b"x,\xff\nz,1\n")):
        (tmp_path / f"{number}.csv").write_bytes(text)
        with pytest.raises(DataError, match="line 1"):
            read_rows(tmp_path / f"{number}.csv", [])


def test_what_is_no_file_of_rows_ends_at_once(tmp_path, monkeypatch):
    """Pipes and devices, which never end, loops, bombs, endless lines."""
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "a.csv").symlink_to(tmp_path / "b.csv")
    (tmp_path / "b.csv").symlink_to(tmp_path / "a.csv")
    (tmp_path / "zeros.csv.gz").write_bytes(gzip.compress(b"\0" * 300_000))
    damaged = bytearray(gzip.compress(b"x,y\n" + bytes(range(256)) * 40))
    damaged[60] ^= 255
    (tmp_path / "damaged.csv.gz").write_bytes(damaged)
    (tmp_path / "long.csv").write_text("x" * 3000)
    monkeypatch.setattr(row_files, "UNPACKED_BYTES", 100_000)
    monkeypatch.setattr(row_files, "LINE_CHARACTERS", 2000)
    for path, message in (
        (tmp_path / "pipe.csv", "a pipe or a device"),
        ("/dev/zero", "a pipe or a device"),
        (tmp_path / "a.csv", "symbolic links"),
        (tmp_path / "zeros.csv.gz", "unpacks to more than 200 times its size"),
        (tmp_path / "damaged.csv.gz", "damaged|cannot be read"),
        (tmp_path / "long.csv", "more than 2,000 characters"),
    ):
        with pytest.raises(DataError, match=message):
            read_rows(path)
