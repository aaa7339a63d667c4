"""``ptune check``: what it shows of files, and that the YAML it prints reads them."""

import contextlib
import gzip
import json
import subprocess
import sys
import unicodedata

import pytest

from ptune.cli import main
from ptune.tasks import task_members, yaml_task
from ptune.tasks.resolved import resolve
from ptune.tasks.rows import task_rows

TEAMS = ("post", "money")
TEXTS = [f"{word} number {number}" for number in range(6) for word in ("parcel", "invoice")]
ROWS = [(text, TEAMS["invoice" in text]) for text in TEXTS]


def table(rows, separator=",", header=("ticket", "team")):
    return "".join(separator.join(row) + "\n" for row in [*([header] if header else []), *rows])


def check(capsys, *arguments):
    """The exit code and what was printed."""
    code = 0
    try:
        main.main(["check", *map(str, arguments)])
    except SystemExit as stopped:
        code = stopped.code
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def rows_by_yaml(folder, page):
    """The rows of all splits that the printed task reads, as text and label."""
    (folder / "task.yaml").write_text(page)
    task = yaml_task.read(folder / "task.yaml")
    form = resolve.task_form(task)
    fields, splits = task_members.fields(form), task_rows.read(form, task.data)
    return {
        split: [(*(row[field.name] for field in fields), row.get(task.target)) for row in rows]
        for split, rows in splits.items()
    }


SPACED = [(text, f"{label} " if number % 3 else label) for number, (text, label) in enumerate(ROWS)]
SHOUTED = [(text, label.upper() if "3" in text else label) for text, label in ROWS]
COMPOSED = [(text, "caf\u00e9" if label == "post" else "bar") for text, label in ROWS]
MIXED = [
    (text, unicodedata.normalize("NFD", label) if "3" in text else label)
    for text, label in COMPOSED
]
CURLY = [(f"\u201c{text}\u201d \u2013 \u20ac5", label) for text, label in ROWS]


@pytest.mark.parametrize(
    "name, content, rows, sentence",
    [
        ("a.csv", table(ROWS).encode(), ROWS, "a comma"),
        ("a.csv", table(ROWS, ";").encode("utf-8-sig"), ROWS, "a semicolon"),
        ("a.csv", f"sep=|\r\n{table(ROWS, '|')}".encode(), ROWS, "a vertical bar"),
        ("a.csv", table(ROWS, "\t").encode("utf-16"), ROWS, "UTF-16 by its byte order mark"),
        ("a.csv", table(CURLY).encode("cp1252"), CURLY, "read here as cp1252, which is a guess"),
        ("a.dat", table(ROWS, "\t").encode(), ROWS, "a tab"),
        ("a.csv", table([(text, "17"[label == "post"]) for text, label in ROWS], header=None)
            .encode(), [(text, "17"[label == "post"]) for text, label in ROWS], "looks like a row"),
        ("a.csv.gz", gzip.compress(table(ROWS).encode(), mtime=0), ROWS, "packed by gzip"),
        ("a.csv", table(ROWS, header=("Review Text", "文 本")).encode(), ROWS, "Review Text"),
        ("a.json", json.dumps([dict(zip(("ticket", "team"), row)) for row in ROWS]).encode(),
            ROWS, "a JSON array"),
        ("a.label", "".join(f"{label.upper()}:x {text}\n" for text, label in ROWS).encode(),
            [(text, label.upper()) for text, label in ROWS], "TREC"),
        ("a.csv", "".join(f"'{text}, it is',{label}\n" for text, label in [("t", "l"), *ROWS])
            .replace("'t, it is',l", "ticket,team").encode(),
            [(f"{text}, it is", label) for text, label in ROWS], "single quotation marks"),
        ("a.csv", "".join(f'"{text}, \\"so\\"",{label}\n' for text, label in [("t", "l"), *ROWS])
            .replace('"t, \\"so\\"",l', "ticket,team").encode(),
            [(f'{text}, "so"', label) for text, label in ROWS], "behind a backslash"),
        ("a.csv", table([(text, label, "0,5") for text, label in ROWS], ";", ("t x", "team", "n"))
            .encode("cp1252"), ROWS, "its separator is a semicolon"),
        ("a.jsonl", "".join(json.dumps(dict(zip(("ticket", "team"), row))) + "\r" for row in ROWS)
            .encode(), ROWS, "lines end with CR"),
        ("a.csv", table(SPACED).encode(), ROWS, "the white space around them"),
        ("a.csv", table(SHOUTED).encode(), ROWS, "upper and lower case"),
        ("a.csv", table(MIXED).encode(), COMPOSED, "NFC and NFD"),
    ],
)  # fmt: skip
def test_the_yaml_reads_the_file(tmp_path, monkeypatch, capsys, name, content, rows, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    code, printed = check(capsys, name)
    assert code == 0 and sentence in printed
    page = printed[printed.index("# Made by ptune check") :]
    assert rows_by_yaml(tmp_path, page)["train"] == rows
    code, printed = check(capsys, name, "--json")
    checked = json.loads(printed)
    assert checked["files"][0]["rows"] == len(rows) and checked["yaml"] in page + "\n"


def test_several_files_are_splits_and_leakage_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.csv").write_text(table([*ROWS[:8], (ROWS[0][0].upper(), "money")]))
    (tmp_path / "my-test.csv").write_text(table([*ROWS[8:], ROWS[2], ROWS[2]]))
    (tmp_path / "a-train.csv").write_text(table(ROWS[:3]))
    code, printed = check(capsys, "b.csv", "my-test.csv")
    assert code == 0
    assert "train: b.csv" in printed and "test: my-test.csv" not in printed  # by place: not named
    code, printed = check(capsys, "my-test.csv", "a-train.csv", "--json")
    checked = json.loads(printed)
    assert [file["split"] for file in checked["files"]] == ["test", "train"]
    assert checked["duplicates"]["between"] == [{"first": "test", "second": "train", "rows": 1}]
    assert checked["duplicates"]["within"] == {"test": 1, "train": 0}
    code, printed = check(capsys, "b.csv", "my-test.csv")
    assert "Leakage: dev has 2 rows with a text that train has too" in printed
    assert "train: 1 row with the text of another (line 10 repeats line 2)" in printed
    assert "1 stand there under several labels (train line 2 and line 10)" in printed


def test_bad_lines_are_counted_and_the_first_five_shown(tmp_path, capsys):
    good = table(ROWS)
    (tmp_path / "a.csv").write_text(good + "one field\n" * 7)
    code, printed = check(capsys, tmp_path / "a.csv")
    assert code == 2 and printed.count("1 fields where the first line names 2") == 5
    assert "... and 2 more." in printed and "line 14" in printed


@pytest.mark.parametrize("option", ["--sample", "--max-length"])
def test_options_of_counting_tokens_need_an_lm(tmp_path, capsys, option):
    (tmp_path / "a.csv").write_text(table(ROWS))
    code, printed = check(capsys, tmp_path / "a.csv", option, "3")
    assert code == 2 and f"{option} is of counting tokens: name an --lm too" in printed
    code, printed = check(capsys, tmp_path / "a.csv", option, "20", "--lm", "builtin")
    assert code == 0 and "is of counting tokens" not in printed


def test_a_yaml_that_training_refuses_is_told_as_that(tmp_path, capsys):
    rows = [*ROWS[:6], ("", "post"), *ROWS[6:], ("the parcel came", "")]
    (tmp_path / "a.csv").write_text(table(rows))
    code, printed = check(capsys, tmp_path / "a.csv")
    title = next(line for line in printed.splitlines() if line.startswith("The YAML"))
    assert "which training refuses as long as" in title and "--skip-bad-lines" in title
    assert "a.csv, line 8; " in title and f"a.csv, line {len(rows) + 1} has no" in title
    assert code == 2
    code, printed = check(capsys, tmp_path / "a.csv", "--json")
    places = [f"{tmp_path / 'a.csv'}, line {number}" for number in (8, len(rows) + 1)]
    assert code == 2 and json.loads(printed)["refused"] == {"rows": 2, "first": places}
    (tmp_path / "a.csv").write_text(table(ROWS))
    code, printed = check(capsys, tmp_path / "a.csv")
    assert code == 0 and "\nThe YAML that reads it:\n" in printed


def test_rows_to_learn_from_without_labels_need_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.csv").write_text(table(ROWS))
    (tmp_path / "unlabeled.csv").write_text(table([(text, "") for text, _ in ROWS]))
    code, printed = check(capsys, "train.csv", "unlabeled.csv")
    assert code == 0 and "\nThe YAML that reads it:\n" in printed
    assert len(rows_by_yaml(tmp_path, printed[printed.index("# Made by") :])["unlabeled"]) == 12


def test_what_no_task_can_be_made_of_is_told(tmp_path, capsys):
    scores = "".join(f"{number} a long sentence,{number / 7}\n" for number in range(1100))
    for name, content, message in (
        ("a.csv", f"sentence,score\n{scores}", "regression"),
        ("b.csv", "ticket,team\n", "holds no rows, only the names of its columns"),
        ("c.csv", "", "holds no rows"),
        ("d.csv", "ticket\nthe parcel is wet\nthe parcel is late\n", "--label"),
        (
            "g.json",
            '[{"id": 1, "annotations": [{"result": []}], "data": {"text": "a"}}]',
            "JSON-MIN",
        ),
        ("h.txt", "__label__post the parcel\n__label__money a bill\n", "fastText"),
        ("i.json", '{"x": "a"}{"x": "b"}', "put each on a line of its own"),
        ("e.csv", "<!DOCTYPE html><html></html>", "is a web page"),
        ("f.csv", "PK\x03\x04", "an Excel workbook"),
    ):
        (tmp_path / name).write_text(content)
        code, printed = check(capsys, tmp_path / name)
        assert message in printed, printed
        assert code == (0 if name in ("a.csv", "d.csv", "g.json") else 2)


def test_with_an_lm_lengths_cuts_and_unknown_pieces_are_told(tmp_path, capsys):
    rows = [*ROWS, ("包装很好" * 10, "post"), ("parcel " * 600, "post")]
    (tmp_path / "a.csv").write_text(table(rows))
    _, printed = check(capsys, tmp_path / "a.csv", "--lm", "builtin")
    assert "1 of 14 rows have more than 512 tokens" in printed and "would be cut" in printed
    assert "unknown to this LM's vocabulary, which cannot read Chinese characters" in printed
    assert "Chinese characters 7.1%" in printed
    code, printed = check(capsys, tmp_path / "a.csv", "--lm", "builtin", "--json")
    assert json.loads(printed)["files"][0]["tokens"]["cut"] == 1


def test_the_files_of_a_task_are_checked_as_training_would(tmp_path, capsys):
    (tmp_path / "a.csv").write_text(table([*ROWS, ("a text", "lost"), ("a text", "lost")]))
    (tmp_path / "task.yaml").write_text(
        "name: t\ntemplate: '{ticket} {mask}'\ntarget: team\nlabels: {post: post, money: money}\n"
        "data: {train: a.csv, test: a.csv}\n"
    )
    code, printed = check(capsys, tmp_path / "task.yaml")
    assert code == 2 and "line 14" in printed and "'lost', which the task does not have" in printed
    assert "Leakage: test has 14 rows" in printed and "lengths in tokens" in printed


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({}, 0, "1 of 3 rows have more than 30 tokens, by 31 at most, and would be cut."),
        ({"reading": {"windows": "mean"}}, 0, "and would be read in windows."),
        ({"template": None, "tag": "words", "target": "tags"}, 0, "and would be read in windows."),
        (
            {"template": "{text} {mask}"},
            2,
            "1 of 3 rows are too long, and training refuses them. {file}, line 3: The row needs 61",
        ),
        ({"labels": {"a": "good", "b": "good"}}, 2, "'a' and 'b' have the same word for this LM"),
    ],
)
def test_what_becomes_of_long_rows_is_what_training_makes_of_them(
    changes, code, message, tmp_path, capsys
):
    file = tmp_path / "rows.jsonl"
    texts = ("good", "bad", "good " * 57 + "end")
    rows = [
        {"text": text, "label": "ab"[number % 2], "words": text.split()}
        for number, text in enumerate(texts)
    ]
    rows = [{**row, "tags": ["ab"[n % 2] for n, _ in enumerate(row["words"])]} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = {
        "name": "t",
        "template": "{text|shorten} {mask}",
        "labels": {"a": "good", "b": "bad"},
        "data": {"train": str(file), "dev": str(file)},
        "method": "manual",
        "max_length": 30,
    } | changes
    if "tag" in content:
        content |= {"method": "p-tuning", "labels": ["a", "b"], "train": {"steps": 1}}
    content = {name: value for name, value in content.items() if value is not None}
    (tmp_path / "task.yaml").write_text(json.dumps(content))
    got, printed = check(capsys, tmp_path / "task.yaml")
    assert got == code and message.format(file=file) in printed, printed
    with contextlib.suppress(SystemExit):
        main.main(["train", str(tmp_path / "task.yaml"), "--out", str(tmp_path / "out")])
    errors = capsys.readouterr().err
    assert ("ptune: " in errors) == (code == 2), errors


def test_a_texts_columns_may_be_a_pair_or_an_answer_to_write(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pair = [(text, f"so {text}", label) for text, label in ROWS]
    (tmp_path / "a.tsv").write_text(table(pair, "\t", ("sentence1", "sentence2", "label")))
    _, printed = check(capsys, "a.tsv")
    page = printed[printed.index("# Made by") :]
    assert rows_by_yaml(tmp_path, page)["train"] == pair
    articles = [(f"{text} " * 20, text) for text, _ in ROWS]
    (tmp_path / "b.csv").write_text(table(articles, header=("article", "summary")))
    _, printed = check(capsys, "b.csv")
    page = printed[printed.index("# Made by") :]
    assert rows_by_yaml(tmp_path, page)["train"] == articles
    assert "method: prefix-tuning" in page and "target: summary" in page


def test_plain_files_need_no_torch(tmp_path):
    (tmp_path / "a.csv").write_text(table(ROWS))
    source = (
        "import sys; from ptune.cli.main import main; main(['check', sys.argv[1]]); "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", source, str(tmp_path / "a.csv")])
    assert done.returncode == 0


def test_several_labels_in_a_cell_are_told_and_read(tmp_path, capsys):
    cells = ["noise; lift", "lift", "", "noise", "lift;noise"] * 3
    rows = [(f"a report of number {number}", cell) for number, cell in enumerate(cells)]
    (tmp_path / "rows.csv").write_text(table(rows, header=("report", "topics")))
    code, shown = check(capsys, tmp_path / "rows.csv")
    assert code == 0 and "labels (topics): noise 9, lift 9" in shown
    assert "with ';' between them" in shown and 'label_separator: ";"' in shown
    (tmp_path / "task.yaml").write_text(shown[shown.index("# Made by") :])
    task = yaml_task.read(tmp_path / "task.yaml")
    assert task.multi_label and task.data.label_separator == ";"
    assert check(capsys, tmp_path / "task.yaml")[0] == 0
