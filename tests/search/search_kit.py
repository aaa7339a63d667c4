"""Tiny tasks in which prompts are searched, and a slow plain reference for a candidate's scores."""

import functools
import json

import pytest
import tiny
import torch

from ptune.lm.language_model import LanguageModel
from ptune.search import run_search
from ptune.search.common.running_search import Budget, RunningSearch
from ptune.search.common.searched_task import of_task, read_task
from ptune.search.options import SearchConfig

GOOD = ("great film", "the best", "a great city", "good euro")
BAD = ("terrible film", "the worst", "a bad city", "bad euro")
YAML = """
name: opinions
patterns: ["{text} is {mask}", "the {text} : {mask}"]
labels: {good: great, bad: bad}
data: {train: rows.jsonl, test: missing.jsonl, shots: 4}
lm: ./lm
"""


def write_task(folder, family="bert", yaml=YAML):
    """A task's file, its rows, and a tiny LM."""
    for part in tiny.tiny(family):
        part.save_pretrained(folder / "lm")
    rows = [
        {"text": f"{text} {place}", "label": label}
        for label, texts in (("good", GOOD), ("bad", BAD))
        for text in texts
        for place in ("Rome", "Paris")
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "task.yaml").write_text(yaml)
    return folder / "task.yaml"


def config_of(folder, **options):
    """The options of a search in a folder."""
    return SearchConfig(
        **{"task": folder / "task.yaml", "out": folder / "out", "device": "cpu"} | options
    )


@functools.cache
def lm_of(family):
    """A tiny LM of a family, the same for all tests."""
    return LanguageModel(*tiny.tiny(family))


def search(config, report):
    """A search that takes its LM from ``lm_of`` and does not load it."""
    file = config.task.parent / "lm" / "config.json"
    lm = lm_of(json.loads(file.read_text())["model_type"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LanguageModel, "load", lambda *source, **options: lm)
        return run_search.search(config, report)


def running(folder, **options):
    """A search that keeps no files."""
    config = config_of(folder, **options)
    task = read_task(config.task, lm=config.lm, shots=config.shots, seed=config.seed)
    lm = lm_of(json.loads((folder / "lm" / "config.json").read_text())["model_type"])
    searched = of_task(
        task.form,
        task.data,
        lm,
        learning=task.learning,
        most_rows=config.rows,
        seed=config.seed,
        report=lambda line: None,
    )
    return RunningSearch(
        by=config.by,
        task=searched,
        keep=config.keep,
        seed=config.seed,
        budget=Budget(config.budget),
        report=lambda line: None,
    )


@torch.no_grad()
def log_probs_at_answer(lm, text_before, text_after=""):
    """The log probabilities of the vocabulary where the answer stands between two texts, by the
    network alone, one row in a call."""
    tokenizer, network = lm.tokens.tokenizer, lm.model
    if lm.kind == "causal":
        ids = tokenizer(text_before, return_tensors="pt")["input_ids"]
        return network(input_ids=ids).logits[0, -1].log_softmax(-1)
    if lm.kind == "masked":
        text = f"{text_before} {tokenizer.mask_token}{text_after}"
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        place = ids[0].tolist().index(tokenizer.mask_token_id)
        return network(input_ids=ids).logits[0, place].log_softmax(-1)
    number, end = tokenizer.convert_tokens_to_ids(["<extra_id_0>", "</s>"])
    before = tokenizer(text_before, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[*before, number, end]])
    decoder = torch.tensor([[network.config.decoder_start_token_id, number]])
    return network(input_ids=ids, decoder_input_ids=decoder).logits[0, -1].log_softmax(-1)


def word_id(lm, word):
    """The token of a word behind other text."""
    return lm.tokens.follow(f" {word}")[0]


def plain_score(lm, template, words, rows):
    """Accuracy and loss of a template that ends with its mask, row by row."""
    hits, losses = 0, []
    for row in rows:
        text = template.removesuffix(" {mask}").replace("{text}", row["text"])
        proposed = log_probs_at_answer(lm, text)
        scores = torch.stack([proposed[word_id(lm, word)] for word in words.values()])
        right = list(words).index(row["label"])
        hits += int(scores.argmax()) == right
        losses.append(-float(scores.log_softmax(0)[right]))
    return hits / len(rows), sum(losses) / len(losses)
