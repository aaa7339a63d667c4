import json

import pytest
import tiny
import torch

from ptune.answers.label_words import allowed
from ptune.errors import ConfigError, DataError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.tasks.layouts import lama
from ptune.template.language import Template
from ptune.template.tokenizer import Tokens

# Rows whose answer is allowed and majority P@1 of minilm-mlm with LAMA's common vocabulary, and P@1
# of LAMA's own wording.
MINILM = {
    "P106": (958, 0.1430, 0.0564),
    "P108": (383, 0.0783, 0.0313),
    "P127": (687, 0.0684, 0.2314),
    "P1303": (949, 0.2276, 0.1391),
    "P136": (931, 0.5542, 0.1858),
    "P138": (645, 0.0155, 0.3519),
    "P140": (473, 0.5370, 0.0021),
    "P1412": (969, 0.2064, 0.0000),
    "P159": (967, 0.0900, 0.1189),
    "P176": (982, 0.0886, 0.7943),
    "P178": (592, 0.0490, 0.6689),
    "P19": (944, 0.0625, 0.1123),
    "P20": (953, 0.1028, 0.2350),
    "P264": (429, 0.3753, 0.0117),
    "P27": (966, 0.1004, 0.0000),
    "P31": (922, 0.0889, 0.3416),
    "P39": (892, 0.2724, 0.1401),
    "P407": (877, 0.4641, 0.3626),
    "P449": (881, 0.3258, 0.3269),
    "P463": (225, 0.0222, 0.3822),
    "P495": (909, 0.1089, 0.1595),
    "P527": (976, 0.1742, 0.1434),
    "P937": (954, 0.1478, 0.1143),
}


@pytest.fixture(scope="module")
def real(data, minilm_mlm):
    lm = LanguageModel.load(minilm_mlm, device="cpu")
    verbalizer, names, _ = allowed(
        lama.read_vocabulary(data / "lama" / "common_vocab_cased.txt", lm.tokens),
        lm.tokens,
        "spaced",
    )
    relations = [
        lama.restrict(r, names, lm.tokens)
        for r in lama.read_facts(str(data / "lama"), report=lambda _: None)
    ]
    return lm, verbalizer, {r.name: r for r in relations}


def test_rows_and_majorities_of_lama(real):
    counted = {name: (len(r.facts["test"]), round(r.majority, 4)) for name, r in real[2].items()}
    assert counted == {name: expected[:2] for name, expected in MINILM.items()}


@pytest.mark.parametrize("name", ["P463", "P108", "P140"])
def test_manual_prompts_of_a_real_lm(real, name):
    lm, verbalizer, relations = real
    relation = relations[name]
    model = PromptModel(lm)
    task = model.add(
        Task(name, Template.parse(relation.template), verbalizer, "object", loss="vocabulary")
    )
    examples = model.encode(task, relation.facts["test"])
    figures = lama.figures(
        relation, model.scores(examples), examples, {w: i for i, w in enumerate(verbalizer.labels)}
    )
    assert round(figures["p@1"], 4) == MINILM[name][2]
    assert figures["filtered p@1"] >= figures["p@1"] and figures["p@10"] > figures["p@1"]


def test_the_papers_shared_vocabulary(data):
    """29k-vocab.json has a list for each kind of LM; the one that the tokenizer knows is taken."""
    from transformers import GPT2Tokenizer

    gpt2 = Tokens(
        GPT2Tokenizer(
            vocab=str(data / "tokenizers/gpt2/encoder.json"),
            merges=str(data / "tokenizers/gpt2/vocab.bpe"),
        )
    )
    words = lama.read_vocabulary(data / "lama" / "29k-vocab.json", gpt2)
    verbalizer, _, left_out = allowed(words, gpt2, "spaced")
    assert len(words) == 18154 and left_out == 0 and len(verbalizer.labels) == 18154


def put(tmp_path, facts, split="test", name="P1", vocabulary=None):
    folder = tmp_path / "original" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{split}.jsonl").write_text(
        "".join(json.dumps({"sub_label": s, "obj_label": o}) + "\n" for s, o in facts)
    )
    (tmp_path / "relations.jsonl").write_text(
        json.dumps({"relation": "P1", "template": "[X] is [Y] .", "label": "is"})
        + "\n"
        + json.dumps({"relation": "P2", "template": "[X] has [Y] .", "label": "has"})
        + "\n"
    )


def test_figures_plain_and_filtered(tmp_path):
    """Two right answers for one subject: ranked among all, each costs the other a place; filtered,
    none does."""
    put(tmp_path, [("Austria", "Vienna"), ("Austria", "Danube"), ("France", "Paris")])
    relation = lama.read_facts(str(tmp_path), report=lambda _: None)[0]
    assert relation.others(relation.facts["test"][0]) == {"Danube"}
    numbers = {"Vienna": 0, "Danube": 1, "Paris": 2, "Rome": 3}
    scores = [
        torch.tensor([3.0, 4.0, 1.0, 2.0]),
        torch.tensor([3.0, 4.0, 1.0, 2.0]),
        torch.tensor([0.0, 1.0, 2.0, 3.0]),
    ]
    examples = [
        type("E", (), {"row": row, "label": numbers[row["object"]]})
        for row in relation.facts["test"]
    ]
    figures = lama.figures(relation, scores, examples, numbers)
    assert figures == pytest.approx(
        {
            "p@1": 1 / 3,
            "p@10": 1,
            "mrr": (1 / 2 + 1 + 1 / 2) / 3,
            "filtered p@1": 2 / 3,
            "filtered p@10": 1,
            "filtered mrr": (1 + 1 + 1 / 2) / 3,
        }
    )


def test_restriction_counts_what_it_drops_and_follows_the_lms_case(tmp_path):
    put(tmp_path, [("a", "vienna"), ("b", "Paris"), ("c", "Timbuktu")])
    relation = lama.read_facts(str(tmp_path), report=lambda _: None)[0]
    for tokens, kept in (
        (Tokens(tiny.wordpiece()), ["Vienna", "Paris"]),
        (Tokens(tiny.byte_level(False)), ["Paris"]),
    ):
        names = {"Vienna": "Vienna", "Paris": "Paris"}
        restricted = lama.restrict(relation, names, tokens)
        assert [f["object"] for f in restricted.facts["test"]] == kept and restricted.dropped[
            "test"
        ] == 3 - len(kept)


def test_folders_that_lack_something(tmp_path):
    put(tmp_path, [("a", "b")])
    said = []
    assert [r.name for r in lama.read_facts(str(tmp_path), report=said.append)] == [
        "P1"
    ] and "P2" in said[0]
    for names, message in ((["P2"], "P2 has no test.jsonl"), (["P3"], "no relation 'P3'")):
        with pytest.raises((DataError, ConfigError), match=message):
            lama.read_facts(str(tmp_path), names)
    (tmp_path / "original" / "P1" / "test.jsonl").write_text(
        '{"sub_label": "a", "obj_label": "b"}\n{"sub_label": "a"\n{"sub_label": "a", "obj_label": '
        '"c"}\n'
    )
    with pytest.raises(DataError, match="test.jsonl, line 2: not valid JSON"):
        lama.read_facts(str(tmp_path))
    put(tmp_path, [("a", " ")])
    with pytest.raises(DataError, match="line 1: the field 'obj_label' is missing or empty"):
        lama.read_facts(str(tmp_path))
    with pytest.raises(DataError, match="There are no facts at"):
        lama.read_facts("/nowhere")


def test_a_table_of_ones_own(tmp_path):
    table = tmp_path / "capitals.csv"
    table.write_text("subject,object\n" + "".join(f"country {i},Vienna\n" for i in range(40)))
    (relation,) = lama.read_facts(str(table), manual="[X] : [Y]")
    assert (
        relation.name == "capitals"
        and sum(map(len, relation.facts.values())) == 40
        and all(relation.facts.values())
    )
    (again,) = lama.read_facts(str(table))
    assert again.facts == relation.facts and again.template is None
    table.write_text(
        "subject,object,relation,split\na,b,one,train\n c, d ,one ,dev\ne,f, one,test\n"
    )
    assert lama.read_facts(str(table))[0].facts["dev"] == [{"subject": "c", "object": "d"}]
    for text, message in (
        ("subject,objekt\na,b\n", "no column 'object'. Did you mean 'objekt'"),
        ("subject,object\na,\n", "line 2: object is empty"),
        ("subject,object\na,b\n", "too few subjects for"),
        ("subject,object,split\na,b,tset\n", "Did you mean 'test'"),
    ):
        table.write_text(text)
        with pytest.raises(DataError, match=message):
            lama.read_facts(str(table))


def test_vocabularies(tmp_path):
    tokens = Tokens(tiny.wordpiece())
    (tmp_path / "v.json").write_text(json.dumps(["\u0120Vienna", "\u2581Paris", "##x", "euro"]))
    assert lama.read_vocabulary(tmp_path / "v.json", tokens) == ["Vienna", "Paris", "euro"]
    for name, text, message in (
        ("a.txt", "\n", "holds no words"),
        ("a.json", "{", "neither JSON nor"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=message):
            lama.read_vocabulary(tmp_path / name, tokens)
    words = lama.whole_words(tokens)
    assert (
        "vienna" in words and "[MASK]" not in words and "." not in words and "terrible" not in words
    )
    assert all(len(ids) == 1 for ids in tokens.words(words, "spaced"))


def test_builtin_facts():
    relations = lama.read_facts("builtin")
    assert len(relations) >= 12 and all(
        len(r.wordings) == 5 and r.wordings[0] == r.template for r in relations
    )
    seen = {
        split: {f["subject"] for r in relations if r.name != "P1376" for f in r.facts[split]}
        for split in lama.SPLITS
    }
    assert (
        not seen["train"] & seen["test"]
        and not seen["dev"] & seen["test"]
        and not seen["train"] & seen["dev"]
    )
    assert len(seen["train"] | seen["dev"] | seen["test"]) > 200
    by_name = {r.name: r for r in relations}
    assert {"subject": "Austria", "object": "Vienna"} in [
        f for facts in by_name["P36"].facts.values() for f in facts
    ]


def test_a_wording_given_for_a_folder_is_asked(tmp_path):
    (relation,) = lama.read_facts("builtin", ["P36"], "[X] has the capital [Y] .", print)
    assert relation.template == "[X] has the capital [Y] ."
    with pytest.raises(
        ConfigError, match="wording of one relation, and 2 are asked for: name one with --relations"
    ):
        lama.read_facts("builtin", ["P36", "P30"], "[X] has the capital [Y] .", print)


SENTENCE_ROWS = [
    {"pred": "IsA", "masked_sentences": ["A film is a [MASK]."], "obj_label": "art"},
    {"pred": "IsA", "masked_sentences": ["A city is a [MASK]."], "obj_label": "place"},
    {"pred": "IsA", "masked_sentences": ["A town is a [MASK]."], "obj_label": "place"},
    {"pred": "HasA", "masked_sentences": ["A city has a [MASK] in it."], "obj_label": "river"},
]


def sentences(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_rows_that_bring_their_sentence_are_only_asked(tmp_path):
    """As LAMA's of ConceptNet; those of Google-RE and SQuAD name no relation but their file."""
    facts = lama.read_facts(sentences(tmp_path / "ConceptNet.jsonl", SENTENCE_ROWS))
    assert [(r.name, len(r.facts["test"]), r.majority) for r in facts] == [
        ("IsA", 3, pytest.approx(2 / 3)),
        ("HasA", 1, 1.0),
    ]
    assert facts[1].facts == {
        "train": [],
        "dev": [],
        "test": [
            {
                "subject": "A city has a ... in it.",
                "object": "river",
                "before": "A city has a",
                "after": " in it.",
            }
        ],
    }
    assert [r.name for r in lama.read_facts(str(tmp_path / "ConceptNet.jsonl"), ["HasA"])] == [
        "HasA"
    ]
    plain = [{key: row[key] for key in row if key != "pred"} for row in SENTENCE_ROWS]
    (relation,) = lama.read_facts(sentences(tmp_path / "Squad.jsonl", plain))
    assert relation.name == "Squad" and len(relation.facts["test"]) == 4
    twice = [*plain, {**plain[0], "obj_label": "work"}]
    (relation,) = lama.read_facts(sentences(tmp_path / "twice.jsonl", twice))
    assert relation.others(relation.facts["test"][0]) == {"work"}


@pytest.mark.parametrize(
    "row, message",
    [
        ({"masked_sentences": ["Two [MASK] and [MASK]."]}, "one .MASK. behind a space"),
        ({"masked_sentences": ["One [MASK].", "Two [MASK]."]}, "a list of one sentence"),
        ({"masked_sentences": ["[MASK]s are films."]}, "behind a space"),
        ({"masked_sentences": None}, "and it is null"),
        ({"obj_label": " "}, "obj_label is empty"),
        ({"obj_label": None}, "obj_label is empty"),
    ],
)
def test_a_bad_sentence_is_refused_with_its_line(tmp_path, row, message):
    path = sentences(tmp_path / "bad.jsonl", [SENTENCE_ROWS[0], {**SENTENCE_ROWS[1], **row}])
    with pytest.raises(DataError, match=f"line 2.*{message}"):
        lama.read_facts(path)


def test_a_wording_beside_sentences_and_a_relation_that_they_lack_are_refused(tmp_path):
    path = sentences(tmp_path / "ConceptNet.jsonl", SENTENCE_ROWS)
    with pytest.raises(ConfigError, match="--manual is a wording for all rows.*leave it out"):
        lama.read_facts(path, manual="[X] is a [Y] .")
    with pytest.raises(ConfigError, match="no relation 'Isa'.*IsA"):
        lama.read_facts(path, ["Isa"])
