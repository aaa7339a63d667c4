"""CoNLL's files: sentences as rows, and each fault with its line."""

import pytest

from ptune.answers.word_labels import WordLabels
from ptune.errors import ConfigError, DataError
from ptune.settings import FileConfig
from ptune.tasks.judging.judge_words import faults_of
from ptune.tasks.layouts import conll

LABELS = WordLabels("words", ("O", "B-a", "I-a"))


def read(tmp_path, text, skipped=None, **options):
    path = tmp_path / "rows.conll"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return conll.read(path, FileConfig(**options), skipped)


def test_sentences_are_rows_that_know_their_line(tmp_path):
    text = "\ufeff\n\nVienna\tB-a\nis\tO\n\t\n \nRome\tB-a\r\n.\tO"
    rows = read(tmp_path, text)
    assert rows == [
        {"words": ["Vienna", "is"], "label": ["B-a", "O"]},
        {"words": ["Rome", "."], "label": ["B-a", "O"]},
    ]
    assert [row.line for row in rows] == [3, 7]


def test_columns_documents_and_comments(tmp_path):
    text = "-DOCSTART- -X- O\n\nEU NNP B-a\n# NN O\n"
    assert read(tmp_path, text) == [
        {"words": ["EU", "#"], "column 2": ["NNP", "NN"], "label": ["B-a", "O"]}
    ]
    named = read(tmp_path, text, columns=("token", "pos", "ner"))
    assert list(named[0]) == ["token", "pos", "ner"]
    unlabelled = read(tmp_path, "EU NNP\n", columns=("token", "pos", "ner"))
    assert unlabelled == [{"token": ["EU"], "pos": ["NNP"]}]
    remarks = "# id = 1 2\n#hash\tO\nNew York\tB-a\n"
    assert read(tmp_path, remarks)[0]["words"] == ["#hash", "New York"]
    parted = read(tmp_path, "EU B-a\n-DOCSTART- O\nRome B-a\n\n-DOCSTART- O\nis O\n")
    assert [row["words"] for row in parted] == [["EU"], ["Rome"], ["is"]]
    assert [row.line for row in parted] == [1, 3, 6]
    assert read(tmp_path, "only\nwords\n\nhere\n") == [
        {"words": ["only", "words"]},
        {"words": ["here"]},
    ]


REMARKED = """
# id 3fa1 domain=train
eli _ _ B-a
rose _ _ O

# id 77c0 domain=train
# _ _ O
Rome _ _ B-a
"""


def test_comments_above_each_sentence_of_a_file_with_white_space(tmp_path):
    """As MultiCoNER's files have them: a comment has as many words as there are columns."""
    rows = read(tmp_path, REMARKED)
    assert [row["words"] for row in rows] == [["eli", "rose"], ["#", "Rome"]]
    assert [row["label"] for row in rows] == [["B-a", "O"], ["O", "B-a"]]
    assert [row.line for row in rows] == [3, 7]
    of_udpipe = "# sent_id = 1\n# text = it\nit O\n\n# text = so it was\n# sent_id = 2\nso O\n"
    assert [row["words"] for row in read(tmp_path, of_udpipe)] == [["it"], ["so"]]


def test_answers_leave_the_comments_above_sentences_as_they_were(tmp_path):
    (tmp_path / "rows.conll").write_text(REMARKED)
    answers = conll.Answers(tmp_path / "rows.conll", FileConfig(), LABELS.labels)
    for labels in (["B-a", "O"], ["O", "I-a"]):
        answers.put({}, {"prediction": labels})
    lines = answers.text.splitlines()
    assert lines[1] == "# id 3fa1 domain=train" and lines[5] == "# id 77c0 domain=train"
    assert lines[2] == "eli _ _ B-a B-a" and lines[6] == "# _ _ O O"


@pytest.mark.parametrize(
    "text, message",
    [
        ("a\tO\nb\nc\tO\n", r"line 2: a word and its label with a tab .* in line 1, .*: 'b'"),
        ("a O\nb\n", r"line 2: .* white space"),
        ("a\tO\n\tO\n", "line 2"),
        ("a\tO\nb\t\n", "line 2"),
        ("a x O\nb O\n", "line 2: 3 columns"),
        ("a\nb O\n", "line 2: a word alone"),
        ("\n\n", "holds no (rows|sentences)"),
        (b"a\tO\n\xff\tO\n", "line 2"),
    ],
)
def test_a_bad_line_is_told(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_a_file_of_json_is_none(tmp_path):
    """A line of JSON with a space in it would be a word and a label."""
    (tmp_path / "rows.jsonl").write_text('{"words": ["a"]}\n')
    with pytest.raises(DataError, match="named as JSON"):
        conll.read(tmp_path / "rows.jsonl", FileConfig())


def test_wnut17_has_the_sentences_and_labels_that_it_should_have(data):
    folder = data / "sequence" / "wnut17"
    if not folder.is_dir():
        pytest.skip(f"no WNUT17 at {folder}")
    train, dev = (conll.read(folder / f"{name}.conll", FileConfig()) for name in ("train", "dev"))
    kinds = ("corporation", "creative-work", "group", "location", "person", "product")
    labels = ["O", *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI")]
    assert (len(train), len(dev)) == (3394, 1009)
    assert sum(len(row["words"]) for row in train) == 62_730
    assert not faults_of([*train, *dev], WordLabels("words", tuple(labels)), "label", True)


def test_a_bad_line_leaves_out_its_sentence_alone(tmp_path):
    skipped = []
    rows = read(tmp_path, "a\tO\n\nb\nc\tO\n\nd\tO\n", skipped)
    assert [row["words"] for row in rows] == [["a"], ["d"]] and "line 3" in skipped[0]


@pytest.mark.parametrize("parted", [" ", "\t"])
def test_a_space_within_a_word_parts_no_columns(tmp_path, parted):
    text = f"10\u00a0000{parted}O\nJo\x85e\u3000{parted}B-PER\n"
    (row,) = read(tmp_path, text)
    assert row["words"] == ["10\u00a0000", "Jo\x85e\u3000"]


@pytest.mark.parametrize("sign", ["\r", "\x0b", "\x1e", "\x85", "\u2028", '"', ",", "\0"])
def test_a_sign_that_ends_lines_elsewhere_stays_in_its_word(tmp_path, sign):
    """Where tabs part columns, and in the file that answers make of it."""
    (row,) = read(tmp_path, f"a{sign}b\tO\nc\tO\n\n")
    assert row == {"words": [f"a{sign}b", "c"], "label": ["O", "O"]}
    answers = conll.Answers(tmp_path / "rows.conll", FileConfig(), LABELS.labels)
    answers.put(row, {"prediction": ["B-a", "O"]})
    (again,) = read(tmp_path, answers.text)
    assert again["words"] == row["words"] and again["label"] == ["B-a", "O"]


def test_columns_that_are_not_as_many(tmp_path):
    with pytest.raises(ConfigError, match="has 2 columns, and columns names 4"):
        read(tmp_path, "a\tO\n", columns=("a", "b", "c", "d"))
    with pytest.raises(DataError, match="names 'a' twice: which column is meant"):
        read(tmp_path, "a\tO\n", columns=("a", "a"))


def test_labels_are_held_against_those_of_the_task_by_their_line(tmp_path):
    rows = read(tmp_path, "a\tO\nb\tI-a\n\nc\tB-a\nd\tI-b\n")
    first, second = faults_of(rows, LABELS, "label", is_by_line=True)
    assert "line 2: the word 'b' has the label 'I-a' behind 'O', and an entity begins" in first
    assert "line 5: There is no label 'I-b'" in second
    assert not faults_of(rows[:1], WordLabels("words", LABELS.labels, None, "iob1"), "label")


def test_a_line_that_begins_a_document_takes_no_words_with_it(tmp_path):
    rows = read(tmp_path, "-DOCSTART- O\nVienna B-place\nlies O\n")
    assert rows == [{"words": ["Vienna", "lies"], "label": ["B-place", "O"]}] and rows[0].line == 2


@pytest.mark.parametrize("text, place", [("a b\n", "white space"), ("a\tb\n", "a tab")])
def test_a_label_that_its_column_cannot_hold_is_refused(tmp_path, text, place):
    (tmp_path / "rows.conll").write_text(text)
    labels = ["O", "B-work\tof art"] if place == "a tab" else ["O", "B-work of"]
    with pytest.raises(ConfigError, match=f"have {place} between them, and the label 'B-work"):
        conll.Answers(tmp_path / "rows.conll", FileConfig(), labels)
    conll.Answers(tmp_path / "rows.conll", FileConfig(), ["O", "B-work"])
