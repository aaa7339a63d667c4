"""Mined and listed templates, and ensembles of them, equal plain loops."""

import itertools
import json
import re
from collections import Counter

import pytest
import torch
from search_kit import config_of, log_probs_at_answer, running, search, word_id, write_task

from ptune.errors import ConfigError, DataError
from ptune.reports.search_results import CandidateScore
from ptune.search.templates import ensembles, mining, paraphrases
from ptune.search.templates.corpus import sentences

FACTS = {"Austria": "Vienna", "France": "Paris", "Italy": "Rome", "Germany": "Berlin"}
YAML = """
name: capitals
patterns: ["the capital of {country} is {mask}"]
vocabulary: towns.txt
target: town
loss: vocabulary
data: {train: rows.jsonl, dev: rows.jsonl}
lm: ./lm
"""
CORPUS = """In 1990 Vienna is the great capital of Austria . The capital of France is Paris .
Rome lies in the east of Italy, said the people . Berlin is the great capital of Germany .
Parisian people of France . The people of Germany pay in Berlin 12 euro .
the capital of Italy is Rome
"""


@pytest.fixture
def folder(tmp_path):
    write_task(tmp_path, "bert", YAML)
    (tmp_path / "towns.txt").write_text("vienna\nparis\nrome\nberlin\nlondon\nmadrid\n")
    rows = [{"country": country, "town": town.lower()} for country, town in FACTS.items()]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "corpus.txt").write_text(CORPUS)
    return tmp_path


def plain_templates(texts):
    """The same by a loop over all pairs and all places of each sentence."""
    counts = Counter()
    for text, (x, y) in itertools.product(texts, FACTS.items()):
        for a, b in itertools.product(*(re.finditer(rf"\b{name}\b", text) for name in (x, y))):
            first, second = sorted((a, b), key=lambda match: match.start())
            middle = text[first.end() : second.start()]
            names = ("[X]", "[Y]") if first is a else ("[Y]", "[X]")
            core = f"{names[0]}{middle}{names[1]}"
            before, after = text[: first.start()].split(), text[second.end() :]
            found_texts = [core]
            for size in (1, 2):
                if len(before) >= size:
                    found_texts.append(" ".join([*before[-size:], core]))
                if len(after.split()) >= size:
                    gap = " " if after[0] == " " else ""
                    found_texts.append(core + gap + " ".join(after.split()[:size]))
            counts.update(t for t in found_texts if not re.search(r"\d", t))
    return counts


def test_templates_are_those_of_a_plain_loop(folder):
    texts = list(sentences([folder / "corpus.txt"]))
    assert "The capital of France is Paris ." in texts
    pairs = mining.pairs_of((x, [y]) for x, y in FACTS.items())
    counts = mining.count(pairs, texts)
    assert counts == plain_templates(texts) and counts["[Y] is the great capital of [X]"] == 2
    proposed = mining.propose(running(folder, by="mine", corpus=[folder]), texts)
    assert proposed[0].source == "manual"
    one_row = running(folder, by="mine", corpus=[folder], rows=1)
    assert len(one_row.task.train) == 1 and mining.propose(one_row, texts) == proposed
    best = next(one for one in proposed if one.source == "mined, 2 times")
    assert "{country}" in best.template and "{mask}" in best.template


def test_lama_evidence_and_tables_are_a_corpus(tmp_path):
    row = {"evidences": [{"masked_sentence": "He was born in [MASK].", "obj_surface": "Rome"}]}
    (tmp_path / "lama.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "table.csv").write_text("text\nOne. Two.\n")
    assert list(sentences([tmp_path])) == ["He was born in Rome.", "One.", "Two."]
    (tmp_path / "table.csv").write_text("words\nOne.\n")
    with pytest.raises(DataError, match="no field text"):
        list(sentences([tmp_path / "table.csv"]))


def test_templates_together_answer_as_by_a_plain_loop(folder):
    run = running(folder, by="mine", corpus=[folder])
    texts = ("the capital of {country} is {mask}", "{country} is {mask}", "in {country} : {mask}")
    asked = [CandidateScore(template=text) for text in texts]
    mine = ensembles.answers_of(run.task, asked, run.task.train)
    words = mine.examples[0].labels.labels
    ids = [word_id(run.task.lm, word) for word in words]
    rows = [
        [
            log_probs_at_answer(
                run.task.lm,
                text.removesuffix(" {mask}").replace("{country}", row["country"]),
            )[ids].log_softmax(0)
            for row in run.task.train
        ]
        for text in texts
    ]
    plain = torch.stack([torch.stack(of_text) for of_text in rows])
    assert torch.allclose(mine.log_probs, plain, atol=1e-5)
    assert torch.allclose(ensembles.mean(plain).exp(), plain.exp().mean(0), atol=1e-5)
    weights = ensembles.learned_weights(plain, mine.right)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-5)

    def loss(shares):
        mixed = sum(share * one for share, one in zip(shares, plain)).log_softmax(-1)
        return -float(mixed[range(len(mixed)), mine.right].mean())

    tried = [(a / 20, b / 20, (20 - a - b) / 20) for a in range(21) for b in range(21 - a)]
    assert loss(weights.tolist()) <= min(map(loss, tried)) + 1e-4
    scores, _ = ensembles.answered(run.task, asked, run.task.train, weights)
    wanted = sum(share * one for share, one in zip(weights.tolist(), plain)).log_softmax(-1)
    assert torch.allclose(torch.stack(scores), wanted, atol=1e-5)


def test_a_list_is_read_and_scored_and_what_no_lm_can_read_is_told(folder):
    lines = [{"pattern": "[X] is [Y]"}, {"pattern": "[X] , [Y]"}, {"pattern": "[X] is"}]
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    with pytest.raises(ConfigError, match="--by paraphrase needs --paraphrases FILE"):
        search(config_of(folder, by="paraphrase"), print)
    options = {"by": "paraphrase", "paraphrases": folder / "list.jsonl"}
    results = search(config_of(folder, **options), lambda line: None)
    assert {one.template for one in results.candidates} == {
        "the capital of {country} is {mask}",
        "{country} is {mask}",
        "{country} , {mask}",
    }
    assert "has no {mask}" in results.tried[-1].impossible
    assert set(results.ensembles) == {"mean of probabilities", "learned weights"}
    assert "learned weights" in (folder / "out" / "report.html").read_text()
    (folder / "list.jsonl").write_text('{"text": "[X] is [Y]"}\n')
    with pytest.raises(DataError, match=r"line 1: no key pattern"):
        paraphrases.read(folder / "list.jsonl")


def test_a_search_without_what_it_reads_is_refused(folder):
    with pytest.raises(ConfigError, match="--by mine needs --corpus FILE"):
        search(config_of(folder, by="mine"), lambda line: None)
    (folder / "corpus.txt").write_text("Nothing of it .\n")
    with pytest.raises(ConfigError, match="No sentence of the corpus"):
        search(config_of(folder, by="mine", corpus=[folder / "corpus.txt"]), lambda line: None)
