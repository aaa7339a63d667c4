import json
from collections import Counter

import pytest

from ptune.errors import DataError
from ptune.tasks.layouts.superglue import FORMS, read

NEWS = "Ann met Bob in Rome.\n@highlight\nBob is 'tired of Rome'\n@highlight\nWill Ann wait?"
DASHED = "Ann met Bob in Rome.\n- Bob is 'tired of Rome'\n- Will Ann wait?"
MULTIRC = {
    "idx": 5,
    "version": 1.1,
    "passage": {
        "text": "<b>Sent 1: </b>It rains.<br><b>Sent 2: </b>Is 3 < 4 ? <br>",
        "questions": [
            {
                "idx": 8,
                "question": "Is it dry? ",
                "answers": [
                    {"idx": 30, "text": "Yes", "label": 0},
                    {"idx": 31, "text": " ", "label": 1},
                ],
            },
            {
                "idx": 9,
                "question": "What falls?",
                "answers": [{"idx": 32, "text": "Rain", "label": 1}],
            },
        ],
    },
}
RECORD = {
    "source": "CNN",
    "idx": 7,
    "passage": {
        "text": f" {NEWS} ",
        "entities": [
            {"start": start, "end": end}
            for start, end in ((1, 3), (9, 11), (16, 19), (33, 35), (50, 53), (72, 74))
        ],
    },
    "qas": [
        {
            "idx": 3,
            "query": "Then @placeholder left.",
            "answers": [
                {"start": 33, "end": 35, "text": "Bob"},
                {"start": 1, "end": 3, "text": "Ann"},
                {"start": 9, "end": 11, "text": "Bob"},
            ],
        },
        {
            "idx": 4,
            "query": "@placeholder's old",
            "answers": [{"start": 16, "end": 19, "text": "Rome"}],
        },
    ],
}
WSC = {
    "idx": 2,
    "text": 'Ann said "Good for  him," he said .',
    "label": True,
    "target": {"span1_index": 0, "span1_text": "Ann", "span2_index": 4, "span2_text": "him"},
}
# One official row of each task, and the flat rows that it gives.
TASKS = {
    "ax-b": (
        {"sentence1": "It rains.", "sentence2": "it is wet", "label": "entailment", "idx": 4},
        [{"id": "4", "premise": "It rains.", "hypothesis": "it is wet", "label": "entailment"}],
    ),
    "ax-g": (
        {"premise": "a .", "hypothesis": "b", "label": "not_entailment", "idx": 6, "pair_id": 551},
        [
            {
                "id": "6",
                "premise": "a .",
                "hypothesis": "b",
                "label": "not_entailment",
                "pair": "3",
            }
        ],
    ),
    "boolq": (
        {"question": "is it so", "passage": "It -- It is. ", "idx": 0, "label": True},
        [{"id": "0", "passage": "It -- It is.", "question": "is it so", "label": "true"}],
    ),
    "cb": (
        {"premise": "It may be.", "hypothesis": "it is", "label": "neutral", "idx": 1},
        [{"id": "1", "premise": "It may be.", "hypothesis": "it is", "label": "neutral"}],
    ),
    "copa": (
        {
            "premise": "It broke.",
            "choice1": "It fell.",
            "choice2": "It flew.",
            "question": "cause",
            "label": 0,
            "idx": 4,
        },
        [
            {
                "id": "4",
                "premise": "It broke.",
                "choice1": "It fell.",
                "choice2": "It flew.",
                "question": "cause",
                "connective": "because",
                "pause": "",
                "lower1": "it fell",
                "lower2": "it flew",
                "label": "0",
            }
        ],
    ),
    "multirc": (
        MULTIRC,
        [
            {
                "id": f"5-{question}-{answer}",
                "passage": "It rains. Is 3 < 4 ?",
                "question": asked,
                "answer": text,
                "label": label,
                "group": f"5-{question}",
            }
            for question, answer, asked, text, label in (
                (8, 30, "Is it dry?", "Yes", "false"),
                (8, 31, "Is it dry?", "", "true"),
                (9, 32, "What falls?", "Rain", "true"),
            )
        ],
    ),
    "record": (
        RECORD,
        [
            {
                "id": f"7-{query}",
                "passage": "Ann met Bob in Rome. Bob is 'tired of Rome'. Will Ann wait?",
                "dashed": DASHED,
                "before": before,
                "after": after,
                "entities": ["Ann", "Bob", "Rome"],
                "answers": answers,
                "label": label,
            }
            for query, before, after, answers, label in (
                (3, "Then ", " left.", ["Bob", "Ann"], "1"),
                (4, "", "'s old", ["Rome"], "2"),
            )
        ],
    ),
    "rte": (
        {"premise": "It is.", "hypothesis": "It is not.", "label": "not_entailment", "idx": 9},
        [{"id": "9", "premise": "It is.", "hypothesis": "It is not.", "label": "not_entailment"}],
    ),
    "wic": (
        {
            "word": "cup",
            "sentence1": "A cup.",
            "sentence2": "He cups it.",
            "idx": 3,
            "label": False,
            "start1": 2,
            "end1": 5,
            "start2": 3,
            "end2": 7,
            "version": 1.1,
        },
        [
            {
                "id": "3",
                "word": "cup",
                "sentence1": "A cup.",
                "sentence2": "He cups it.",
                "label": "false",
            }
        ],
    ),
    "wsc": (
        WSC,
        [
            {
                "id": "2",
                "text": WSC["text"],
                "span1": "Ann",
                "pronoun": "him",
                "marked": 'Ann said "Good for  *him*," he said .',
                "label": "true",
            }
        ],
    ),
}


def put(tmp_path, *rows):
    path = tmp_path / "val.jsonl"
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8"
    )
    return path


def changed(row, place, value=None):
    """A copy of a nested row with another value at a place such as passage.questions.0.idx, or,
    without a value, with none."""
    row = json.loads(json.dumps(row))
    owner, (*steps, last) = (
        row,
        [int(step) if step.isdigit() else step for step in place.split(".")],
    )
    for step in steps:
        owner = owner[step]
    if value is None:
        del owner[last]
    else:
        owner[last] = value
    return row


def unlabelled(value):
    if isinstance(value, list):
        return [unlabelled(item) for item in value]
    return (
        {key: unlabelled(item) for key, item in value.items() if key != "label"}
        if isinstance(value, dict)
        else value
    )


@pytest.mark.parametrize("form", FORMS)
def test_the_official_layout(tmp_path, form):
    raw, rows = TASKS[form]
    assert set(TASKS) == set(FORMS) and read(put(tmp_path, raw), form) == rows
    if form == "record":
        raw = {
            **raw,
            "qas": [
                {key: value for key, value in asked.items() if key != "answers"}
                for asked in raw["qas"]
            ],
        }
    wanted = [
        {key: value for key, value in row.items() if key not in ("label", "answers")}
        for row in rows
    ]
    assert read(put(tmp_path, unlabelled(raw)), form) == wanted


def test_effects_of_copa(tmp_path):
    (row,) = read(put(tmp_path, {**TASKS["copa"][0], "question": "effect", "label": 1}), "copa")
    assert (row["connective"], row["pause"], row["label"]) == ("so", ",", "1")


@pytest.mark.parametrize(
    "text, index, pronoun, marked",
    [
        ("He left.", 0, "he", "*He* left."),
        ("Ann saw (him).", 2, "him", "Ann saw (*him*)."),
        ("his history", 1, "his", "*his* history"),
        ("To use it , now", 1, "it", "To use *it* , now"),
        ("I see it use it", 3, "it", "I see it use *it*"),
        ("it is it", 2, "it", "it is *it*"),
        ("Ann's dog's hers\nnow", 2, "hers", "Ann's dog's *hers*\nnow"),
        ("it", 0, "it", "*it*"),
    ],
)
def test_pronouns(tmp_path, text, index, pronoun, marked):
    (row,) = read(
        put(
            tmp_path,
            {
                **WSC,
                "text": text,
                "target": {**WSC["target"], "span2_index": index, "span2_text": pronoun},
            },
        ),
        "wsc",
    )
    assert row["marked"] == marked and row["text"] == text


def test_passages_as_they_stand(tmp_path):
    path = put(tmp_path, changed(MULTIRC, "passage.text", "Sent 1: a <b>bold</b> word.\n1 < 2 "))
    assert read(path, "multirc")[0]["passage"] == "Sent 1: a <b>bold</b> word.\n1 < 2"
    path = put(
        tmp_path,
        changed(
            RECORD, "passage.text", f" {NEWS} ".replace("\n@highlight\nWill", "  @highlight, Will")
        ),
    )
    assert (
        read(path, "record")[0]["passage"]
        == "Ann met Bob in Rome. Bob is 'tired of Rome'  @highlight, Will Ann wait?"
    )
    path = put(
        tmp_path,
        changed(
            RECORD,
            "passage.text",
            ' Ann met Bob in Rome and said "So be it!"\n@highlight\n(He left.)\n@highlight\nNo: '
            "more  ",
        ),
    )
    assert (
        read(path, "record")[0]["passage"]
        == 'Ann met Bob in Rome and said "So be it!" (He left.) No: more.'
    )


def test_a_row_that_stands_in_the_file_twice(tmp_path):
    raw, rows = TASKS["wic"]
    assert read(put(tmp_path, raw, raw, {**raw, "idx": 1}), "wic") == [
        rows[0],
        rows[0],
        {**rows[0], "id": "1"},
    ], "rows and ids that stand twice are ordinary where nothing is scored by them"
    assert len(read(put(tmp_path, raw, {**raw, "label": True}), "wic")) == 2
    assert len(read(put(tmp_path, MULTIRC, MULTIRC), "multirc")) == len(
        read(put(tmp_path, MULTIRC), "multirc")
    )
    with pytest.raises(DataError, match="line 1: another row has the id '5-8-30' too"):
        read(put(tmp_path, changed(MULTIRC, "passage.questions.0.answers.1.idx", 30)), "multirc")
    with pytest.raises(DataError, match="line 1: another row has the id '7-3' too"):
        read(put(tmp_path, changed(RECORD, "qas.1.idx", 3)), "record")


@pytest.mark.parametrize(
    "form, place, value, message",
    [
        ("boolq", "question", None, "the field 'question' is missing. Known: 'passage'"),
        ("boolq", "idx", None, "the field 'idx' is missing"),
        ("boolq", "passage", 3, "the field 'passage' should be a text, and it is 3"),
        ("boolq", "passage", " ", "the field 'passage' is empty"),
        ("boolq", "idx", "3", "the field 'idx' should be a whole number, and it is '3'"),
        ("boolq", "idx", True, "a whole number, and it is True"),
        ("boolq", "label", 1, "the field 'label' should be one of True, False, and it is 1"),
        ("boolq", "label", "true", "and it is 'true'"),
        (
            "cb",
            "label",
            "entailed",
            "one of 'entailment', 'contradiction', 'neutral', and it is 'entailed'",
        ),
        ("cb", "premise", None, "'premise' is missing"),
        ("rte", "label", "neutral", "one of 'entailment', 'not_entailment', and"),
        ("rte", "hypothesis", [], "should be a text"),
        ("copa", "label", True, "one of 0, 1, and it is True"),
        ("copa", "label", 2, "one of 0, 1"),
        ("copa", "choice2", None, "'choice2' is missing"),
        ("copa", "question", "why", "'question' should be 'cause' or 'effect', and it is 'why'"),
        ("wic", "word", None, "'word' is missing"),
        ("wic", "label", "T", "one of True, False"),
        ("multirc", "passage", "It rains.", "'passage' should be an object, and it is 'It rains.'"),
        ("multirc", "idx", None, "the field 'idx' is missing"),
        ("multirc", "passage.text", None, "the field 'text' is missing"),
        ("multirc", "passage.questions", [], "the field 'questions' is empty"),
        (
            "multirc",
            "passage.questions.1",
            "Who?",
            "question 2: an object is expected, and it is 'Who\\?'",
        ),
        ("multirc", "passage.questions.1.idx", None, "question 2: the field 'idx' is missing"),
        (
            "multirc",
            "passage.questions.1.question",
            "",
            "question 2: the field 'question' is empty",
        ),
        (
            "multirc",
            "passage.questions.1.answers",
            {},
            "question 2: the field 'answers' should be a list",
        ),
        (
            "multirc",
            "passage.questions.0.answers.1.text",
            None,
            "question 1, answer 2: the field 'text' is missing",
        ),
        (
            "multirc",
            "passage.questions.0.answers.1.idx",
            0.5,
            "question 1, answer 2: the field 'idx' should be a whole number",
        ),
        (
            "multirc",
            "passage.questions.0.answers.1.label",
            True,
            "question 1, answer 2: the field 'label' should be one of 0, 1, and it is True",
        ),
        ("record", "passage.entities", [], "the field 'entities' is empty"),
        ("record", "qas", None, "the field 'qas' is missing"),
        (
            "record",
            "passage.entities.1.end",
            82,
            "entity 2: 9 to 82 lies outside the passage, which has 82",
        ),
        ("record", "passage.entities.1.end", 8, "entity 2: 9 to 8"),
        ("record", "passage.entities.1.start", -4, "entity 2: -4 to 11"),
        (
            "record",
            "passage.entities.1.end",
            "11",
            "entity 2: the field 'end' should be a whole number",
        ),
        (
            "record",
            "qas.1.query",
            "Who?",
            "query 2: there should be one @placeholder, and there are 0",
        ),
        (
            "record",
            "qas.0.query",
            "@placeholder and @placeholder",
            "query 1: there should be one @placeholder, and there are 2",
        ),
        ("record", "qas.0.answers", [], "query 1: the field 'answers' is empty"),
        (
            "record",
            "qas.0.answers.2.text",
            "Al",
            "query 1: the answer 'Al' is no entity of the passage",
        ),
        ("record", "qas.0.answers.2.text", None, "query 1, answer 3: the field 'text' is missing"),
        ("wsc", "target", None, "the field 'target' is missing"),
        ("wsc", "target.span1_text", None, "'span1_text' is missing. Did you mean 'span2_text'"),
        ("wsc", "target.span2_index", 8, "span2_index is 8, and the text has 8 words"),
        ("wsc", "target.span2_index", -1, "span2_index is -1"),
        (
            "wsc",
            "target.span2_index",
            2,
            "span2_index 2 is the word '\"Good', and the pronoun is 'him'",
        ),
        ("wsc", "target.span2_text", "hi", "the pronoun is 'hi'"),
        ("wsc", "target.span2_index", "4", "'span2_index' should be a whole number"),
        ("wsc", "label", 1, "one of True, False, and it is 1"),
    ],
)
def test_bad_fields(tmp_path, form, place, value, message):
    with pytest.raises(DataError, match=f"val.jsonl, line 1[:,] .*{message}"):
        read(put(tmp_path, changed(TASKS[form][0], place, value)), form)


def test_bad_files(tmp_path):
    raw = TASKS["boolq"][0]
    for content, message in (
        ((raw, '{"idx": 1,'), "val.jsonl, line 2: not valid JSON"),
        ((raw, "[1]"), "line 2: a JSON object is expected"),
        ((raw, changed(raw, "passage")), "val.jsonl, line 2: the field 'passage'"),
        ((), "holds no rows"),
    ):
        with pytest.raises(DataError, match=message):
            read(put(tmp_path, *content), "boolq")
    with pytest.raises(DataError, match="no form 'boolQ' of SuperGLUE. Did you mean 'boolq'"):
        read(put(tmp_path, raw), "boolQ")
    with pytest.raises(DataError, match="none.jsonl cannot be read"):
        read(tmp_path / "none.jsonl", "boolq")


# How many rows of each label the real files hold.
REAL = {
    "BoolQ/train": {"true": 18, "false": 14},
    "BoolQ/dev32": {"true": 19, "false": 13},
    "BoolQ/val": {"true": 2033, "false": 1237},
    "CB/train": {"entailment": 19, "contradiction": 10, "neutral": 3},
    "CB/dev32": {"entailment": 17, "contradiction": 13, "neutral": 2},
    "CB/val": {"entailment": 23, "contradiction": 28, "neutral": 5},
    "COPA/train": {"0": 14, "1": 18},
    "COPA/dev32": {"0": 15, "1": 17},
    "COPA/val": {"0": 55, "1": 45},
    "COPA/unlabeled": {None: 400},
    "MultiRC/train": {"true": 68, "false": 86},
    "MultiRC/dev32": {"true": 74, "false": 93},
    "MultiRC/val": {"true": 2075, "false": 2773},
    "MultiRC/unlabeled": {None: 27243},
    "RTE/train": {"entailment": 13, "not_entailment": 19},
    "RTE/dev32": {"entailment": 21, "not_entailment": 11},
    "RTE/val": {"entailment": 146, "not_entailment": 131},
    "WiC/train": {"true": 17, "false": 15},
    "WiC/dev32": {"true": 16, "false": 16},
    "WiC/val": {"true": 319, "false": 319},
    "WiC/unlabeled": {None: 5428},  # one row stands there twice
    "WSC/train": {"true": 32},
    "WSC/dev32": {"true": 10, "false": 22},
    "WSC/val": {"true": 38, "false": 66},
    "WSC/unlabeled": {None: 554},
}


def real(data, name):
    folder = "fewglue_unlabeled" if name.endswith("unlabeled") else "fewglue_32dev"
    return read(data / folder / f"{name}.jsonl", name.split("/")[0].lower())


@pytest.mark.parametrize("name", REAL)
def test_labels_of_real_files(data, name):
    rows = real(data, name)
    assert Counter(row.get("label") for row in rows) == REAL[name]
    twice = 1 if name == "WiC/unlabeled" else 0
    assert len({row["id"] for row in rows}) == len(rows) - twice
    assert all(
        isinstance(value, str)
        and value == value.strip()
        and (value or field in ("answer", "pause"))
        for row in rows
        for field, value in row.items()
    )


@pytest.mark.parametrize("name", ["ReCoRD/train", "ReCoRD/dev32"])
def test_real_record(data, name):
    rows = real(data, name)
    assert len(rows) == 32
    for row in rows:
        assert row["entities"][int(row["label"])] == row["answers"][0] and set(
            row["answers"]
        ) <= set(row["entities"])
        assert (
            all(entity in row["passage"] for entity in row["entities"])
            and "@" not in row["before"] + row["after"]
            and "@highlight" not in row["passage"]
        )


def test_real_multirc(data):
    rows = real(data, "MultiRC/val")
    assert (
        len({row["passage"] for row in rows}) == 83 and len({row["group"] for row in rows}) == 953
    )
    assert sum(not row["answer"] for row in real(data, "MultiRC/unlabeled")) == 3


def test_real_pronouns(data):
    rows = {
        row["id"]: row for name in ("train", "dev32", "val") for row in real(data, f"WSC/{name}")
    }
    for row in rows.values():
        before, pronoun, after = row["marked"].split("*")
        assert before + pronoun + after == row["text"] and pronoun == row["pronoun"]
    assert (
        "to use *it* , but" in rows["42"]["marked"]
        and 'Good for *him*," he' in rows["137"]["marked"]
    )


def test_a_bad_row_costs_no_other(tmp_path):
    rows = [{"question": "is it", "passage": "It is.", "label": True, "idx": n} for n in range(3)]
    lines = [*map(json.dumps, rows[:2]), "oops", json.dumps({"idx": 7}), json.dumps(rows[2])]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    skipped = []
    assert [row["id"] for row in read(tmp_path / "a.jsonl", "boolq", skipped)] == ["0", "1", "2"]
    assert ["line 3" in skipped[0], "line 4" in skipped[1], len(skipped)] == [True, True, 2]
