"""How a file is written is seen by its content, and what is needed so that it is read."""

import io
import json
import zipfile

import pytest

from ptune.data import file_form
from ptune.data.rows import read_rows
from ptune.errors import DataError
from ptune.settings import FileConfig

ROWS = [("the parcel is wet", "post"), ("my invoice is wrong", "money"), ("lost, again", "post")]


def table(separator=",", header="text{0}label\n", rows=ROWS, end=""):
    quoted = (
        separator.join(f'"{cell}"' if separator in cell else cell for cell in row) for row in rows
    )
    return header.format(separator) + "".join(f"{line}{end}\n" for line in quoted)


@pytest.mark.parametrize(
    "name, content, needed, note",
    [
        ("a.csv", table(), {}, ""),
        ("a.csv", table("^"), {"separator": "^"}, "its separator is a caret"),
        ("a.csv", table("\x01"), {"separator": "\x01"}, "its separator is a control sign 1"),
        ("a.csv", f"# made by a tool\n{table()}", {"skip_lines": 1},
            "its first line has another number of fields than those behind, and is left out"),
        ("a.csv", f"Tickets\n\n# 2024\n{table(';')}", {"skip_lines": 3, "separator": ";"},
            "its first 3 lines have another number of fields than those behind, and are left out"),
        ("a.tsv", table(), {"separator": ","}, "its separator is a comma"),
        ("a", table("\t"), {"separator": "\t"}, ""),
        ("a.csv", table().encode("utf-16"), {"encoding": "utf-16"}, ""),
        ("a.csv", table().encode("utf-16-le"), {"encoding": "utf-16-le"}, ""),
        ("a.csv", table().encode("utf-16-be"), {"encoding": "utf-16-be"}, ""),
        ("a.csv", table(rows=[*ROWS, ("caf\xe9 \u2013 \u20ac5", "post")]).encode("cp1252"),
            {"encoding": "cp1252"}, "which is a guess"),
        ("a.json", json.dumps({"version": 1, "data": [{"items": [
            dict(zip(("text", "label"), row)) for row in ROWS]}]}),
            {"record_path": "data.items"}, "its rows stand deeper"),
        ("a.csv", table().replace("\n", "\r\n", 1), {}, "end in several ways"),
        ("a.csv", table(rows=[*ROWS, ('"one\ntwo ""three"""', "post")]).replace("\n", "\r\n")
            .replace("one\r\n", "one\n"), {}, ""),
    ],
)  # fmt: skip
def test_what_is_needed_reads_the_file(tmp_path, name, content, needed, note):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    form = file_form.seen(tmp_path / name)
    assert form.needed == needed
    assert any(note in sentence for sentence in form.notes) if note else not form.notes
    for options in (form.options, FileConfig(**needed)):
        rows = read_rows(tmp_path / name, options=options)
        assert [(row["text"], row["label"]) for row in rows][:3] == ROWS


def zipped(*names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return stream.getvalue()


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.csv", zipped("data.csv"), "a zip archive that holds data.csv: unpack it"),
        ("a.csv", zipped("a", "b", "c"), "that holds a and 2 more"),
        ("a.xlsx", zipped("[Content_Types].xml", "xl/workbook.xml"), "an Excel workbook"),
        ("a.csv", zipped("word/document.xml"), "an Office document"),
        ("a.csv", b"PK\x03\x04 cut", "or another zip archive"),
        ("a.csv", "<!-- saved -->\n<!doctype html><html></html>", "a web page"),
        ("a.csv", table().encode("utf-16-le"), "seems to be UTF-16-LE.*encoding: utf-16-le"),
        ("a.csv", f"a title\n{table()}", "line 2: 2 fields .* names 1.*skip_lines"),
        ("a.csv", table(end=",x"), r"line 2: 3 fields .*skip_lines: 1, columns: \[...\]"),
        ("a.jsonl", '{"text": "a",}\n', "before a closing bracket"),
        ("a.jsonl", '{"text": "a"},\n{"text": "b"},\n', r"put \[ and \] around all lines"),
        ("a.jsonl", "{'text': 'a'}\n", "Python's spelling"),
        ("a.json", '[{"text": "a"}, {"text": "b', "ends before its end"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        read_rows(tmp_path / name)
