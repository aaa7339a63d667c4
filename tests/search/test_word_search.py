"""Label words: what is proposed is what a plain loop over all words proposes, and a search keeps to
its budget, its rows and its folder."""

import itertools
import json
import math

import pytest
import torch
from search_kit import (
    YAML,
    config_of,
    log_probs_at_answer,
    plain_score,
    running,
    search,
    word_id,
    write_task,
)

from ptune.cli import main
from ptune.errors import ConfigError
from ptune.experiments.compare import compare
from ptune.experiments.options import CompareConfig
from ptune.model.running import forward
from ptune.reports.search_results import CandidateScore
from ptune.search.common import candidates
from ptune.search.words import label_words, scores
from ptune.tasks import yaml_task

WORDS = ["great", "bad", "good", "Yes", "No", "city", "film", "best", "is", "in", "the", "of"]
FAMILIES = ("bert", "gpt2", "t5")


def words_of(run):
    """Words of one token each."""
    return [word for word in WORDS if len(run.task.lm.tokens.follow(f" {word}")) == 1]


def plain_words(search, pattern, words):
    """The log probability of each word for each train row, one row in a call."""
    task = search.task
    rows = [
        log_probs_at_answer(task.lm, pattern.removesuffix(" {mask}").replace("{text}", row["text"]))
        for row in task.train
    ]
    return [[float(row[word_id(task.lm, word)]) for word in words] for row in rows]


@pytest.mark.parametrize("family", FAMILIES)
def test_words_are_those_of_a_plain_loop(family, tmp_path):
    write_task(tmp_path, family)
    run = running(tmp_path, by="label-words")
    words = words_of(run)
    assert len(words) > 4
    right = [row["label"] for row in run.task.train]
    wanted_ratios: dict = {}
    for pattern in run.task.patterns:
        table = plain_words(run, pattern, words)
        one = label_words.word_scores(run, pattern, words)
        assert list(one.words) == words
        assert torch.allclose(one.log_probs, torch.tensor(table), atol=1e-5)
        for label, (number, word) in itertools.product(("good", "bad"), enumerate(words)):
            odds = [row[number] - math.log(1 - math.exp(row[number])) for row in table]
            mine = sum(o for o, name in zip(odds, right) if name == label)
            others = sum(o for o, name in zip(odds, right) if name != label)
            weight = right.count("bad" if label == "good" else "good") / right.count(label)
            key = label, word
            wanted_ratios[key] = wanted_ratios.get(key, 0) + weight * mine - others
    proposed = label_words.propose(running(tmp_path, by="label-words"), words, 1)
    by_ratio = next(one for one in proposed if one.source == "likelihood ratio, 1 word a label")
    best = {
        label: max(words, key=lambda word: wanted_ratios[label, word]) for label in ("good", "bad")
    }
    assert by_ratio.words == best


@pytest.mark.parametrize("family", FAMILIES)
def test_assignments_and_scores_are_those_of_a_plain_loop(family, tmp_path):
    yaml = YAML.replace(', "the {text} : {mask}"', "")
    write_task(tmp_path, family, yaml)
    run = running(tmp_path, by="label-words")
    pattern, task = run.task.patterns[0], run.task
    words = words_of(run)[:5]
    every = [dict(zip(("good", "bad"), pair)) for pair in itertools.permutations(words, 2)]
    plain = [plain_score(task.lm, pattern, words, task.train) for words in every]
    order = sorted(range(len(every)), key=lambda number: (-plain[number][0], plain[number][1]))
    proposed = label_words.propose(run, words, 1)
    first = next(one for one in proposed if one.source == "conditional probabilities, 1")
    assert first.words == every[order[0]]
    asked = [CandidateScore(template=pattern, words=words) for words in every]
    for mine, wanted in zip(candidates.score(task, asked, task.train), plain):
        assert mine == pytest.approx(wanted, abs=1e-5)


def test_words_of_several_tokens_are_searched_too(tmp_path):
    write_task(tmp_path, "gpt2", YAML)
    run = running(tmp_path, by="label-words")
    words = ["great film", "bad city", "the worst"]
    one = label_words.word_scores(run, run.task.patterns[0], words)
    tokens = [run.task.lm.tokens.follow(f" {word}") for word in words]
    assert max(map(len, tokens)) > 1
    text = run.task.train[0]["text"] + " is"
    for number, ids in enumerate(tokens):
        total, read = 0.0, run.task.lm.tokens.start(text)
        for token in ids:
            with torch.no_grad():
                logits = run.task.lm.model(input_ids=torch.tensor([read])).logits[0, -1]
            total += float(logits.log_softmax(-1)[token])
            read = [*read, token]
        assert float(one.log_probs[0, number]) == pytest.approx(total, abs=1e-5)


def test_all_combinations_are_at_most_as_many_as_are_compared():
    assert scores.words_each(2) == 316 and scores.words_each(6) == 6 and scores.words_each(30) == 1


def test_a_search_reads_no_test_row_and_keeps_to_its_budget(tmp_path):
    """The test file does not exist; rows are counted where the LM is asked, of which those that
    differ by the words of the labels alone are read once."""
    write_task(tmp_path)
    run = running(tmp_path, by="label-words")
    asked = read = 0
    run_rows, read_rows = forward.run_rows, type(run.task.lm).read_rows

    def counted(model, rows, *rest):
        nonlocal asked
        asked += len(rows)
        return run_rows(model, rows, *rest)

    def read_noted(self, rows, *rest):
        nonlocal read
        read += len(rows)
        return read_rows(self, rows, *rest)

    for budget in (None, 120):
        asked = read = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(forward, "run_rows", counted)
            patch.setattr(type(run.task.lm), "read_rows", read_noted)
            results = search(
                config_of(
                    tmp_path, by="label-words", out=tmp_path / str(budget), budget=budget, keep=2
                ),
                lambda line: None,
            )
        assert results.calls == asked and asked <= (budget or 10**9)
        assert 0 < read < 0.6 * asked
        assert results.candidates[0].dev == max(one.dev for one in results.candidates)
        assert len(results.candidates) == 2
    with pytest.raises(ConfigError, match="--budget 20 is too small"):
        search(
            config_of(tmp_path, by="label-words", out=tmp_path / "20", budget=20),
            lambda line: None,
        )


def test_what_is_chosen_is_a_task_that_compare_takes(tmp_path, capsys):
    write_task(tmp_path, yaml=YAML.replace("missing.jsonl", "rows.jsonl"))
    out = tmp_path / "out"
    main.main(
        [
            "search",
            str(tmp_path / "task.yaml"),
            "--by",
            "label-words",
            "--out",
            str(out),
            "--device",
            "cpu",
        ]
    )
    assert "Chosen on dev" in capsys.readouterr().out
    best = json.loads((out / "results.json").read_text())["candidates"][0]
    task = yaml_task.read(out / "best.yaml")
    assert task.patterns == (best["template"],) and task.labels == best["words"]
    done = compare.compare(
        CompareConfig(
            tasks=[str(out / "best.yaml")], methods="manual", out=tmp_path / "c", device="cpu"
        ),
        lambda line: None,
    )
    assert {cell.method for cell in done.cells} >= {"manual"}
    assert len(yaml_task.read(out / "kept.yaml").verbalizers) > 1


def test_a_task_that_cannot_be_searched_is_refused_with_the_reason(tmp_path):
    for yaml, reason in (
        (YAML.replace("labels: {good: great, bad: bad}", ""), "neither labels nor a vocabulary"),
        (YAML.replace(", shots: 4", ""), "needs rows for train and for dev"),
        (YAML + "reading: {refine: true}\n", "has reading.refine"),
        (YAML + "reading: {by: weighted-words}\n", "has reading.by: weighted-words"),
    ):
        write_task(tmp_path, yaml=yaml)
        with pytest.raises(ConfigError, match=reason):
            search(config_of(tmp_path, by="label-words"), lambda line: None)
    write_task(tmp_path, yaml=YAML)
    (tmp_path / "words.txt").write_text("great\n")
    with pytest.raises(ConfigError, match="this LM knows 1, and opinions has 2 labels"):
        search(
            config_of(tmp_path, by="label-words", words=tmp_path / "words.txt"),
            lambda line: None,
        )


def test_the_rows_of_a_rare_label_weigh_as_much_as_the_others():
    log_probs, right = torch.tensor([[0.6], [0.2], [0.2], [0.4]]).log(), torch.tensor([0, 1, 1, 1])
    odds = [math.log(p / (1 - p)) for p in (0.6, 0.2, 0.2, 0.4)]
    proposed = scores.likelihood_ratio(log_probs, right, 0)
    assert float(proposed[0]) == pytest.approx(3 * odds[0] - sum(odds[1:]), abs=1e-5)
