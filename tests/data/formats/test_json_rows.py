"""Rows of JSON in the forms that people have, with their own spelling."""

import copy
import json
import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptune.data.formats import json_rows
from ptune.data.row import label_of
from ptune.data.rows import read_rows
from ptune.errors import DataError
from ptune.settings import FileConfig
from ptune.template.language import Field, text_of

ROWS = [{"text": "a good day", "n": 1}, {"text": "b", "n": 2}]
SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": "T",
            "paragraphs": [
                {
                    "context": "C",
                    "qas": [{"question": "Q1", "id": "1"}, {"question": "Q2", "id": "2"}],
                }
            ],
        }
    ],
}


def put(folder, name, content):
    (folder / name).write_text(
        content if isinstance(content, str) else json.dumps(content), encoding="utf-8"
    )
    return folder / name


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.json", ROWS),
        ("a.jsonl", ROWS),
        ("a.json", json.dumps(ROWS, indent=2)),
        ("a.json", "".join(json.dumps(row) + "\n" for row in ROWS)),
        ("a.jsonl", "\n".join(json.dumps(row, indent=1) for row in ROWS)),
        ("a.json", {"text": ["a good day", "b"], "n": [1, 2]}),
        ("a.json", {"text": {"0": "a good day", "1": "b"}, "n": {"0": 1, "1": 2}}),
        ("a.json", {"0": ROWS[0], "1": ROWS[1]}),
        ("a.json", {"text": {"3": "a good day", "17": "b"}, "n": {"3": 1, "17": 2}}),
        ("a.json", {"17": ROWS[0], "3": ROWS[1]}),
        (
            "a.json",
            {"columns": ["text", "n"], "index": [0, 1], "data": [["a good day", 1], ["b", 2]]},
        ),
        ("a.json", {"schema": {"x": 1}, "data": ROWS}),
        ("a.json", json.dumps({"version": 1, "data": ROWS}, indent=4)),
        ("A.JSONL", "".join(json.dumps(row) + "\r\n" for row in ROWS)),
        ("a.ndjson", "\ufeff" + "".join(json.dumps(row) + "\n" for row in ROWS)),
    ],
)
def test_rows_in_every_form(tmp_path, name, content):
    assert read_rows(put(tmp_path, name, content)) == ROWS


@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=5),
            st.text(max_size=8)
            | st.booleans()
            | st.none()
            | st.integers()
            | st.floats(allow_nan=False),
            min_size=1,
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([None, 2]),
    st.booleans(),
    st.booleans(),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_rows_come_back_as_they_were(tmp_path, rows, indent, ascii_only, array):
    try:
        parts = [
            json.dumps(row, indent=indent, ensure_ascii=ascii_only).encode().decode()
            for row in rows
        ]
        json.dumps(rows, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return  # half of a character
    content = "[" + ", ".join(parts) + "]" if array else "\n".join(parts)
    rows_read = read_rows(put(tmp_path, "a.jsonl", content))
    assert rows_read == rows and [json.loads(json_rows.written(row)) for row in rows_read] == rows


def test_lines_of_an_array(tmp_path):
    assert [row.line for row in read_rows(put(tmp_path, "a.json", json.dumps(ROWS, indent=1)))] == [
        2,
        6,
    ]
    assert [
        row.line for row in read_rows(put(tmp_path, "a.json", '[\n{"a": 1}\n,\n\n{"a": 2}]\n'))
    ] == [2, 5]


def test_nested_rows_by_the_path_of_their_list(tmp_path):
    path = put(tmp_path, "a.json", SQUAD)
    rows = read_rows(path, options=FileConfig(record_path="data.paragraphs.qas"))
    assert rows == [
        {"version": "1.1", "title": "T", "context": "C", "question": f"Q{n}", "id": str(n)}
        for n in (1, 2)
    ]
    assert json_rows.path_to(SQUAD, "question") == "data.paragraphs.qas"
    several = put(tmp_path, "adv.json", {"sst2": ROWS, "rte": [{"premise": "p"}]})
    assert read_rows(several, options=FileConfig(record_path="sst2")) == ROWS
    with pytest.raises(
        DataError, match="record_path speaks of 'sst', which is not there. Did you mean 'sst2'"
    ):
        read_rows(several, options=FileConfig(record_path="sst"))


def test_how_a_table_in_one_object_was_read_is_told(tmp_path):
    notes = []
    read_rows(put(tmp_path, "a.json", {"text": ["a", "b"]} | {"n": [1, 2]}), notes=notes)
    assert "read as an object of columns" in notes[0]


def test_numbers_keep_their_spelling_and_missing_ones_are_none():
    row = json_rows.row_of(
        '{"a": 5.00, "b": 1e3, "c": -0, "d": NaN, "e": 12, "f": true, "g": [1.50]}'
    )
    assert [str(row[name]) for name in "abce"] == ["5.00", "1e3", "-0", "12"] and row["d"] is None
    assert (
        row["a"] == 5.0
        and type(row["e"]) is int
        and f"{row['a']}" == "5.00"
        and text_of(row, Field("b")) == "1e3"
    )
    assert (
        json_rows.written(row)
        == '{"a": 5.00, "b": 1e3, "c": -0, "d": null, "e": 12, "f": true, "g": [1.50]}'
    )
    assert str(pickle.loads(pickle.dumps(row["a"]))) == str(copy.deepcopy(row)["a"]) == "5.00"
    assert str(json_rows.parsed("9" * 5000)) == "9" * 5000


def test_labels_by_their_own_spelling():
    row = json_rows.row_of('{"a": true, "b": 1.0, "c": 1, "d": "01"}')
    assert [label_of(value, ("true", "1", "1.0", "01")) for value in row.values()] == [
        "true",
        "1.0",
        "1",
        "01",
    ]
    assert label_of(True, ("True", "False")) == "True" and label_of(False, ()) == "false"


@pytest.mark.parametrize(
    "name, content, message",
    [
        (
            "a.jsonl",
            '{"text": "a", "n": 1}\n{"text": "a", "text": "b"}\n',
            "line 2: the key 'text' stands twice, as value 1 and value 2",
        ),
        (
            "a.json",
            '[{"a": 1},\n{"a": 1, "b": 2, "a": 3}]',
            "line 2: the key 'a' stands twice, as value 1 and value 3",
        ),
        ("a.json", '[{"a": 1},\n{"a": }]', "line 2: not valid JSON"),
        ("a.json", '[{"a": 1}\n', "line 2: a comma or the end of the array"),
        ("a.json", '[{"a": 1}] x', "something stands behind the end"),
        ("a.json", '[{"a": 1},\n 3]', "line 2: an object is expected as row 2.* it is: 3"),
        ("a.json", '{\n "a": 1,\n "b": x\n}', "line 3: not valid JSON"),
        ("a.jsonl", '{"a": "\\ud800"}\n', r"line 1: .*half of a character .*\\ud800"),
        ("a.jsonl", "text,label\na,b\n", "line 1: not valid JSON.*If it is a table, name it .csv"),
        ("a.jsonl", "[" * 100_000, "JSON"),
        ("a.json", '{"data": [[1, 2], [3]], "columns": ["a", "b"]}', "rows of uneven length"),
        ("a.json", "[]", "holds no rows"),
        (
            "a.json",
            '{"columns": ["text", "n", "text"], "data": [["a", 1, "b"]]}',
            "the column 'text' stands twice",
        ),
    ],
)
def test_faults_are_told_with_their_line(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read_rows(put(tmp_path, name, content))


def test_emoji_written_as_two_halves_is_one_character(tmp_path):
    assert read_rows(put(tmp_path, "a.jsonl", '{"a": "\\ud83d\\ude00"}\n')) == [{"a": "😀"}]


def test_options_of_tables_are_refused(tmp_path):
    with pytest.raises(DataError, match="separator, quoting, columns and skip_lines are of tables"):
        read_rows(put(tmp_path, "a.jsonl", '{"a": 1}\n'), options=FileConfig(separator=";"))
