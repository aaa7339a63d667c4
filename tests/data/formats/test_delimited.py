"""Tables read back as they were written, whatever wrote them, or refused with the line."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptune.data.rows import read_rows
from ptune.errors import DataError
from ptune.settings import FileConfig

NAMES = ("text", "label", "Review Text")


def put(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


DEFAULTS = FileConfig()


def texts_of(path, options=DEFAULTS):
    return [list(row.values()) for row in read_rows(path, options=options)]


@given(
    st.lists(
        st.lists(
            st.text(st.sampled_from("ab \"'é."), min_size=1, max_size=8), min_size=2, max_size=2
        ),
        min_size=2,
        max_size=8,
    )
)
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_plain_quotation_marks_between_tabs(tmp_path, rows):
    """As GLUE writes them, with a row that no CSV could be."""
    rows = [*rows, ['"Well', "a"], ['he said "no', "b"]]
    path = put(tmp_path, "a.tsv", "".join("\t".join(row) + "\n" for row in [NAMES[:2], *rows]))
    assert texts_of(path, FileConfig(quoting="none")) == rows
    try:
        assert texts_of(path) == rows
    except DataError as error:
        assert "quotation mark" in str(error) and "line " in str(error)


TOLD = "taken as plain text"


@pytest.mark.parametrize(
    "name, content, rows, note",
    [
        (
            "a.tsv",
            'text\tlabel\n" Well made .\tpos\ncold\tneg\nShe left "\tneg\n"A fine evening"\tpos\n',
            [
                ['" Well made .', "pos"],
                ["cold", "neg"],
                ['She left "', "neg"],
                ['"A fine evening"', "pos"],
            ],
            TOLD,
        ),
        (
            "a.tsv",
            'text\tlabel\n"A fine evening"\tpos\ncold\tneg\n',
            [['"A fine evening"', "pos"], ["cold", "neg"]],
            TOLD,
        ),
        (
            "a.tsv",
            'text\tlabel\n"He said ""fine"""\tpos\ncold\tneg\n',
            [['He said "fine"', "pos"], ["cold", "neg"]],
            "",
        ),
        ("a.tsv", '"text"\t"label"\n"A fine evening"\t"pos"\n', [["A fine evening", "pos"]], ""),
        (
            "a.csv",
            'text,label\n"good film",pos\nbad film,neg\n',
            [["good film", "pos"], ["bad film", "neg"]],
            "taken as CSV's",
        ),
        (
            "a.csv",
            'text,label\nfine,pos\n"soft" and warm,pos\n',
            [["fine", "pos"], ['"soft" and warm', "pos"]],
            TOLD,
        ),
        ("a.csv", 'text,label\n5" disk,pos\n', [['5" disk', "pos"]], ""),
        (
            "a.csv",
            "sep=;\r\ntext;label\r\n1,5;a\r\n",
            [["1,5", "a"]],
            "its separator is a semicolon",
        ),
        (
            "a.csv",
            "text;label\n1,5;a\n2,0;b\n",
            [["1,5", "a"], ["2,0", "b"]],
            "its separator is a semicolon",
        ),
        ("a.csv", "text\tlabel\na, b\tc\n", [["a, b", "c"]], "its separator is a tab"),
        ("a.csv", "text|label\na|c\n", [["a", "c"]], "a vertical bar"),
        ("a.tsv", 'text,label\n"a, b",c\n', [["a, b", "c"]], "its separator is a comma"),
        ("a.CSV", "text,label\na,b\n", [["a", "b"]], ""),
        ("a.csv", "text:label\na, b:c\nd:e\n", [["a, b", "c"], ["d", "e"]], "a colon"),
        ("a.csv", "text\nWell: no\nnote: a: b\n", [["Well: no"], ["note: a: b"]], ""),
        (
            "a.csv",
            'text,label\n"say \\"a, b\\"",c\n"back\\\\",d\n',
            [['say "a, b"', "c"], ["back\\", "d"]],
            "quoting: backslash",
        ),
        ("a.csv", "text,label\n'a, it''s','c'\n'd',e\n", [["a, it's", "c"], ["d", "e"]], "single"),
        ("a.csv", 'text, label\n"a, b", "c"\n"d", "e"\n', [["a, b", "c"], ["d", "e"]], "spaced"),
        ("a.tsv", 'text\tlabel\na\t "c"\n', [["a", ' "c"']], ""),
        ("a.csv", "text\na;b\nc|d\n", [["a;b"], ["c|d"]], ""),
        ("a.csv", "text,label\ra,b\rc,d", [["a", "b"], ["c", "d"]], ""),
        ("a.csv", "text,label\na\rb,c\nd,e\n", [["a\rb", "c"], ["d", "e"]], ""),
        ("a.csv", "text,label\n\na,b\n\n", [["a", "b"]], ""),
        ("a.csv", f'text,label\n"{"x" * 200_000}",b\n', [["x" * 200_000, "b"]], ""),
        ("a.tsv", "text\tlabel\n\u2028a\x0b\x85\tb\n", [["\u2028a\x0b\x85", "b"]], ""),
    ],
)
def test_what_is_decided_by_the_file_and_told(tmp_path, name, content, rows, note):
    notes = []
    assert [
        list(row.values()) for row in read_rows(put(tmp_path, name, content), notes=notes)
    ] == rows
    assert note in " ".join(notes) and bool(notes) == bool(note)


@pytest.mark.parametrize(
    "name, content, message",
    [
        (
            "a.csv",
            'text,label\n"a, b",c\n"d" e,f\n"g, h",i\n',
            "a.csv, line 3: a quotation mark is out of place: .*closes before 'e,f'.*quoting: none",
        ),
        (
            "a.csv",
            'text,label\n"a,\nb",c\n"d,e\nf,g\n',
            "a.csv, line 4: a quotation mark is out of place: .*'d,e' is never closed",
        ),
        ("a.tsv", 'text\tlabel\n"a\tb\nc\n', "line 2: a quotation mark"),
        ("a.csv", "| text | label |\n|---|:--:|\n| a | b |\n", "line 2: .*Markdown"),
        (
            "a.csv",
            "text,label,text\na,b,c\n",
            "line 1: the column 'text' stands twice, as columns 1 and 3: which is meant",
        ),
        ("a.csv", "1,good,1\n2,bad,3\n", r"the column '1' stands twice.* data: \{columns: \["),
        (
            "a.csv",
            "text,label\na,b,c\n",
            "line 2: 3 fields where the first line names 2. A text that has a comma in it must "
            "stand in quotation marks",
        ),
        ("a.csv", '{"text": "a", "label": "b"}\n', "begins as JSON does.*Name it .jsonl"),
    ],
)
def test_refused_with_the_line(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read_rows(put(tmp_path, name, content))


def test_lines_are_those_of_the_file(tmp_path):
    rows = read_rows(put(tmp_path, "a.csv", 'text,label\n\n"two\nlines",a\n\nb,c\n'))
    assert [row.line for row in rows] == [3, 6] and rows[1].place.endswith("a.csv, line 6")


def test_columns_are_named_where_the_first_line_is_a_row(tmp_path):
    path = put(tmp_path, "a.csv", '"3","Acme, Inc."\n"4","Robot"\n')
    rows = read_rows(path, options=FileConfig(columns=("label", "text"), rename={"text": "body"}))
    assert rows == [{"label": "3", "body": "Acme, Inc."}, {"label": "4", "body": "Robot"}]
    with pytest.raises(DataError, match="line 1: 2 fields where data: {columns: ...} names 4"):
        read_rows(path, options=FileConfig(columns=("a", "b", "c", "d")))
    with pytest.raises(DataError, match="names 'text' twice: which column is meant"):
        read_rows(path, options=FileConfig(columns=("text", "text")))
    with pytest.raises(
        DataError, match="rename speaks of 'txt', and there is no such column. Did you mean 'text'"
    ):
        read_rows(path, options=FileConfig(columns=("label", "text"), rename={"txt": "body"}))
    with pytest.raises(DataError, match="two columns would be called 'text'"):
        read_rows(path, options=FileConfig(columns=("label", "text"), rename={"label": "text"}))


def test_another_ending_is_read_with_its_separator(tmp_path):
    path = put(tmp_path, "a.txt", "text;label\na;b\n")
    assert texts_of(path, FileConfig(separator=";")) == [["a", "b"]]
    with pytest.raises(DataError, match="no known format.*separator"):
        read_rows(path)
