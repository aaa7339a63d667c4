"""Rows that are the same for the LM are run once, whatever reads them."""

import pytest
import tiny
import torch

from ptune.answers.label_words import Verbalizer
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.template.language import Template

TEXTS = ["Vienna lies on the Danube", "great film", "It was", "great film", "a long film it was"]
ROWS = [{"text": text, "label": "a"} for text in TEXTS]
WORDS = [{"a": "the", "b": "film"}, {"a": "great", "b": "is"}, {"a": "and", "b": "film"}]


def model_of(family, words, template="{text} {mask}"):
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    for number, words_of_label in enumerate(words):
        verbalizer = Verbalizer.from_words(words_of_label)
        model.add(Task(f"t{number}", Template.parse(template), verbalizer), ROWS)
    return model


def counting(model, monkeypatch):
    """How many rows each call of the LM reads from now on."""
    sizes, read_rows = [], model.lm.read_rows

    def read(rows, *more):
        sizes.append(len(rows))
        return read_rows(rows, *more)

    monkeypatch.setattr(model.lm, "read_rows", read)
    return sizes


def scores_of(model, monkeypatch, limit=None):
    """The scores of all rows by all prompts, a prompt's beside each other, and how many rows the LM
    read for them."""
    examples = [example for n in range(len(WORDS)) for example in model.encode(n, ROWS)]
    sizes = counting(model, monkeypatch)
    return torch.stack(model.scores(examples, limit)), sum(sizes)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_a_text_that_several_verbalizers_read_is_run_once(family, monkeypatch):
    scores, read = scores_of(model_of(family, WORDS), monkeypatch)
    assert read == len(set(TEXTS))
    for number, words in enumerate(WORDS):
        alone = model_of(family, [words])
        expected = [alone.scores([example])[0] for example in alone.encode(0, ROWS)]
        of_prompt = scores[number * len(ROWS) : (number + 1) * len(ROWS)]
        torch.testing.assert_close(of_prompt, torch.stack(expected), atol=1e-5, rtol=0)
    assert (scores[0] - scores[len(ROWS)]).abs().max() > 1e-2  # another verbalizer is seen


def test_what_is_the_same_shares_a_batch(monkeypatch):
    """Three rows at once: each batch is one text, of which one stands in the rows twice."""
    scores, read = scores_of(model_of("bert", WORDS), monkeypatch, limit=len(WORDS))
    assert read == len(ROWS)


def test_prompts_of_their_own_are_run_apart(monkeypatch):
    template = "{soft:2} {text} {mask}"
    scores, read = scores_of(model_of("bert", WORDS, template), monkeypatch)
    assert read == len(set(TEXTS)) * len(WORDS)


def test_rows_that_are_learned_from_are_run_as_they_are(monkeypatch):
    """Where the LM is tuned, dropout tells equal rows apart."""
    model = model_of("bert", WORDS[:1], "{soft:2} {text} {mask}")
    sizes = counting(model, monkeypatch)
    model.losses(model.encode(0, ROWS)).sum().backward()
    assert sum(sizes) == len(ROWS)
