"""A property of every table of texts, whatever program writes it: it is read back exactly, or
refused with the line or what has to be said, and never read as something else."""

import csv
import io
import json

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from ptune.base.file_names import partial_file
from ptune.data import answer_files
from ptune.data.formats.delimited import SEPARATORS
from ptune.data.rows import read_rows
from ptune.errors import DataError
from ptune.settings import FileConfig

NAMES = ("text", "label", "Review Text")
TEXTS = st.text(
    st.sampled_from("ab1 é😀\"\"'',;:\t|^~\x01\x1f\n\r\\[{\u2028\x0b")
    | st.characters(exclude_categories=["Cs"]),
    max_size=12,
)
TABLES = st.integers(1, 3).flatmap(
    lambda width: st.lists(st.lists(TEXTS, min_size=width, max_size=width), min_size=1, max_size=6)
)
SIGNS = st.sampled_from(list(SEPARATORS))
PROPERTY = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
ENDINGS = {"\t": ".tsv", "|": ".psv"}


def check(folder, rows, name, content, **options):
    """Read a file as it is, and with the options that say how it was written."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        read = [list(row.values()) for row in read_rows(path)]
    except DataError as error:
        message = str(error)
        assert "line " in message or "encoding" in message, message
    else:
        assert read == rows
    if options:
        assert [
            list(row.values()) for row in read_rows(path, options=FileConfig(**options))
        ] == rows


def ending_of(separator):
    return ENDINGS.get(separator, ".csv")


def without_lone_returns(rows, quoting):
    """Python's csv, and pandas by it, leaves a carriage return bare before Python 3.13, which then
    ends a line."""
    if quoting != csv.QUOTE_MINIMAL:
        return rows
    return [[text.replace("\r", "\n") for text in row] for row in rows]


@given(
    TABLES,
    SIGNS,
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["\n", "\r\n"]),
)
@PROPERTY
def test_pythons_csv(tmp_path, rows, separator, quoting, end):
    rows = without_lone_returns(rows, quoting)
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator, quoting=quoting, lineterminator=end)
    writer.writerows([NAMES[: len(rows[0])], *rows])
    options = {"separator": separator, "quoting": "csv"}
    check(tmp_path, rows, f"a{ending_of(separator)}", stream.getvalue(), **options)


@given(TABLES, SIGNS, st.sampled_from(["backslash", "single", "spaced"]))
@PROPERTY
def test_marks_that_are_not_csvs(tmp_path, rows, separator, quoting):
    """Spark's and MySQL's backslashes, single quotation marks, a space before quoted fields."""
    assume(quoting != "spaced" or len(rows[0]) > 1)
    quoted = {"backslash": r"\"", "single": "''", "spaced": '""'}
    mark = "'" if quoting == "single" else '"'

    def cell(text):
        text = text.replace("\\", "\\\\") if quoting == "backslash" else text
        return mark + text.replace(mark, quoted[quoting]) + mark

    between = f"{separator} " if quoting == "spaced" else separator
    lines = [between.join(map(cell, row)) for row in [NAMES[: len(rows[0])], *rows]]
    path = tmp_path / f"a{ending_of(separator)}"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    options = FileConfig(separator=separator, quoting=quoting)
    assert [list(row.values()) for row in read_rows(path, options=options)] == rows


@given(TABLES, st.sampled_from([None, 2]), st.booleans())
@PROPERTY
def test_pythons_json(tmp_path, rows, indent, ascii_only):
    names = NAMES[: len(rows[0])]
    objects = [dict(zip(names, row)) for row in rows]
    columns = {name: [row[number] for row in rows] for number, name in enumerate(names)}

    def dump(value, indent=indent):
        return json.dumps(value, indent=indent, ensure_ascii=ascii_only)

    check(tmp_path, rows, "a.jsonl", "".join(dump(row, None) + "\n" for row in objects))
    check(tmp_path, rows, "a.json", dump(objects))
    check(tmp_path, rows, "b.json", dump({"data": objects}), record_path="data")
    if len(names) > 1:
        check(tmp_path, rows, "c.json", dump(columns))


@given(TABLES, SIGNS, st.sampled_from(["plain", "mark", "sep", "utf-16", "empty quoted"]))
@PROPERTY
def test_excel(tmp_path, rows, separator, how):
    """Its CSV (semicolons in German and French), CSV UTF-8 with a mark, sep=;, Unicode text; and
    what quotes an empty text, to tell it from none, as databases and polars do."""
    assume(len(rows[0]) > 1 or all(row[0] for row in rows))  # an empty line is no row

    def cell(text):
        quoted = any(sign in text for sign in (separator, '"', "\n", "\r"))
        quoted |= how == "empty quoted" and not text
        return '"' + text.replace('"', '""') + '"' if quoted else text

    lines = [separator.join(map(cell, row)) for row in [NAMES[: len(rows[0])], *rows]]
    if how == "sep":
        lines.insert(0, f"sep={separator}")
    text = "\ufeff" * (how == "mark") + "".join(f"{line}\r\n" for line in lines)
    encoding = "utf-16" if how == "utf-16" else "utf-8"
    options = {"separator": separator, "quoting": "csv"}
    options |= {"encoding": "utf-16"} if how == "utf-16" else {}
    check(tmp_path, rows, f"a{ending_of(separator)}", text.encode(encoding), **options)


@given(
    TABLES,
    SIGNS,
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.booleans(),
)
@PROPERTY
def test_pandas(tmp_path, rows, separator, quoting, with_mark):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed, which writes tables")
    rows = without_lone_returns(rows, quoting)
    frame = pandas.DataFrame(rows, columns=NAMES[: len(rows[0])], dtype=str)
    path = tmp_path / f"a{ending_of(separator)}"
    encoding = "utf-8-sig" if with_mark else "utf-8"
    frame.to_csv(path, index=False, sep=separator, quoting=quoting, encoding=encoding)
    options = {"separator": separator, "quoting": "csv"}
    check(tmp_path, rows, path.name, path.read_bytes(), **options)
    check(tmp_path, rows, "a.json", frame.to_json(orient="records"))
    check(tmp_path, rows, "a.jsonl", frame.to_json(orient="records", lines=True))
    if len(rows[0]) > 1:
        check(tmp_path, rows, "b.json", frame.to_json())


@given(
    TABLES,
    SIGNS,
    st.sampled_from(["necessary", "always", "non_numeric"]),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
@PROPERTY
def test_polars(tmp_path, rows, separator, quoting, with_mark, end):
    polars = pytest.importorskip("polars", reason="polars is not installed, which writes tables")
    frame = polars.DataFrame(rows, schema=list(NAMES[: len(rows[0])]), orient="row")
    path = tmp_path / f"a{ending_of(separator)}"
    frame.write_csv(
        path,
        separator=separator,
        quote_style=quoting,
        include_bom=with_mark,
        line_terminator=end,
    )
    options = {"separator": separator, "quoting": "csv"}
    check(tmp_path, rows, path.name, path.read_bytes(), **options)
    check(tmp_path, rows, "a.json", frame.write_json())
    check(tmp_path, rows, "a.jsonl", frame.write_ndjson())


ODD = [
    "a\rb",
    "a\r\nb",
    "a\nb",
    "\r",
    "\n",
    'a"b',
    '"',
    ",",
    "\t",
    ";",
    " a ",
    "\ta",
    "",
    "\0",
    "'",
]
ENDINGS_OF_ANSWERS = st.sampled_from([".csv", ".tsv"])


def answered_by_ptune(path, rows):
    """Write a table of answers to rows; return the cells that are expected there."""
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = answer_files.writer(path, stream)
        for number, row in enumerate(rows):
            writer.check(dict(zip(NAMES, row)))
            writer.put(dict(zip(NAMES, row)), {"text": str(number)})
    return [[*row, str(number)] for number, row in enumerate(rows)]


@given(TABLES, ENDINGS_OF_ANSWERS)
@example([[text] for text in ODD], ".csv")
@example([[text] for text in ODD], ".tsv")
@PROPERTY
def test_ptunes_answers(tmp_path, rows, ending):
    separator, path = answer_files.DELIMITERS[ending], tmp_path / f"answers{ending}"
    expected = answered_by_ptune(path, rows)
    content = path.read_bytes()
    _, *read = csv.reader(io.StringIO(content.decode(), newline=""), delimiter=separator)
    assert read == expected
    check(tmp_path, expected, path.name, content, separator=separator, quoting="csv")


@given(TABLES, ENDINGS_OF_ANSWERS)
@example([[text] for text in ODD if text != "\0"], ".csv")
@example([[text] for text in ODD if text != "\0"], ".tsv")
@PROPERTY
def test_pandas_reads_ptunes_answers(tmp_path, rows, ending):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed, which reads tables")
    separator, path = answer_files.DELIMITERS[ending], tmp_path / f"answers{ending}"
    expected = answered_by_ptune(path, rows)
    frame = pandas.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    assert frame.values.tolist() == expected


@given(TABLES, ENDINGS_OF_ANSWERS)
@example([[text] for text in ODD], ".csv")
@example([[text] for text in ODD], ".tsv")
@example([["x" * 200_000, "\r"]], ".csv")
@PROPERTY
def test_a_record_of_ptunes_answers_is_known_for_its_rows(tmp_path, rows, ending):
    """By this a run that was stopped goes on."""
    path = tmp_path / f"answers{ending}"
    answered_by_ptune(path, rows)
    path.rename(partial_file(path))
    (header, _), *records = answer_files.records(path)
    assert len(records) == len(rows)
    writer = answer_files.writer(path, io.StringIO())
    writer.check(dict(zip(NAMES, rows[0])))
    assert writer.has(dict(zip(NAMES, rows[0])), header)
    for row, (record, _) in zip(rows, records):
        assert writer.has(dict(zip(NAMES, row)), record)
        assert not writer.has(dict(zip(NAMES, [f"{row[0]}.", *row[1:]])), record)
