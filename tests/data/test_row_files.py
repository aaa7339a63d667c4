"""What a file is by its first bytes, packed or in another encoding."""

import gzip

import pytest

from ptune.data import row_files
from ptune.data.rows import read_rows
from ptune.errors import DataError
from ptune.settings import FileConfig


def put(folder, name, content):
    (folder / name).write_bytes(content)
    return folder / name


def test_packed_files_are_read_whatever_their_name(tmp_path):
    content = gzip.compress(b"text,label\na,b\n")
    for name in ("a.csv.gz", "A.CSV.GZ", "a.csv"):
        assert read_rows(put(tmp_path, name, content)) == [{"text": "a", "label": "b"}]
    assert read_rows(put(tmp_path, "a.jsonl.gz", gzip.compress(b'{"text": "a"}\n'))) == [
        {"text": "a"}
    ]
    with pytest.raises(DataError, match="packed by gzip and ends before its end"):
        read_rows(put(tmp_path, "a.csv.gz", content[:-12]))


@pytest.mark.parametrize(
    "start, message",
    [
        (b"PK\x03\x04", "Excel workbook .* save it as CSV"),
        (b"\xd0\xcf\x11\xe0", "old Excel workbook"),
        (b"PAR1", "a Parquet file: .*to_json"),
        (b"ARROW1\0\0", "an Arrow file"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"%PDF-1.7", "a PDF"),
        (b"\x93NUMPY", "a NumPy array"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"BZh9", "packed by bzip2: unpack it first"),
        (b"\x80\x04\x95", "is a pickle.* never read"),
        (b"<!DOCTYPE html>\n<html>", "a web page"),
        (b"\n <HTML>", "a web page"),
        (b"<?xml version='1.0'?>", "is XML"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.xlsx"])
def test_other_kinds_are_told_by_their_first_bytes(tmp_path, start, message, name):
    with pytest.raises(DataError, match=message):
        read_rows(put(tmp_path, name, start + bytes(100)))


def test_other_encodings_are_refused_with_the_line_that_reads_them(tmp_path):
    text = "text,label\nein schöner Tag,gut\n"
    for encoding, named, message in (
        ("utf-16", "utf-16", "not UTF-8 text but UTF-16.*encoding: utf-16"),
        (
            "latin-1",
            "latin-1",
            r"not UTF-8 text \(.* in line 2, at byte 18\); save it as UTF-8.*encoding",
        ),
        ("utf-16-le", "utf-16-le", "column|no rows|field"),
    ):
        path = put(tmp_path, "a.csv", text.encode(encoding))
        if encoding != "utf-16-le":
            with pytest.raises(DataError, match=message):
                read_rows(path)
        assert read_rows(path, options=FileConfig(encoding=named)) == [
            {"text": "ein schöner Tag", "label": "gut"}
        ]
    with pytest.raises(DataError, match="is not utf-8 text: .* in line 2"):
        read_rows(
            put(tmp_path, "a.csv", text.encode("latin-1")), options=FileConfig(encoding="utf-8")
        )
    with pytest.raises(DataError, match="unknown encoding: latein.*named as in Python"):
        read_rows(path, options=FileConfig(encoding="latein"))


def test_endings():
    import pathlib

    assert [
        row_files.form_of(pathlib.Path(name))
        for name in ("a.CSV", "a.b.tsv.gz", "a", "a.gz", "train_5500.label")
    ] == [".csv", ".tsv", "", "", ".label"]
