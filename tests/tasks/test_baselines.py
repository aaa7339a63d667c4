"""What a user would get without prompts on the same rows."""

import numpy as np
import pytest
import tiny
import torch

from ptune.answers.word_labels import WordLabels
from ptune.lm.language_model import LanguageModel
from ptune.model.running import token_answers
from ptune.tasks.judging import word_baselines
from ptune.tasks.judging.baselines import (
    MOST_ROWS,
    Question,
    advice,
    behind,
    figures,
    majority,
    vectors,
)
from ptune.tasks.resolved import resolve
from ptune.tasks.schema import TaskConfig
from ptune.template.language import Template

GOOD, BAD = (
    ["great film", "the best", "a great city", "good euro"],
    ["terrible film", "the worst", "a bad city", "bad euro"],
)
ROWS = [
    {"text": text, "label": label}
    for label, texts in (("good", GOOD), ("bad", BAD))
    for text in texts
]


def question(inputs="{text|shorten}", **more):
    given = {
        "train": ROWS,
        "test": ROWS,
        "labels": ("bad", "good"),
        "training_labels": [row["label"] for row in ROWS],
        "target": "label",
        "metrics": ("accuracy",),
    }
    return Question(**{**given, "inputs": Template.parse(inputs), **more})


@pytest.mark.parametrize(
    "family", ["bert", "roberta", "deberta", "gpt2", "llama", "t5", "bart", "distilbert"]
)
def test_the_vectors_are_transformers_own(family):
    """The mean over the row's own tokens, whatever rows share its batch."""
    network, tokenizer = tiny.tiny(family)
    lm = LanguageModel(network, tokenizer)
    row_vectors = vectors(
        lm, Template.parse("{text|shorten}"), [*ROWS, {"text": "film " * 200, "label": "bad"}]
    )
    plain = network.get_encoder() if lm.kind == "encoder-decoder" else network.base_model
    for row, vector in zip(ROWS, row_vectors):
        ids = Template.parse("{text|shorten}").encode(row, lm.tokens, lm.kind).ids
        with torch.no_grad():
            hidden = plain(input_ids=torch.tensor([ids])).last_hidden_state[0]
        np.testing.assert_allclose(vector, hidden.mean(0).numpy(), atol=1e-4, rtol=1e-4)


def test_what_each_learns_from_the_training_rows_alone():
    lm = LanguageModel(*tiny.tiny("bert"))
    names = ["accuracy", "f1-macro", "auc", "recall:good"]
    by_baseline = figures(question(metrics=names), lm)
    assert list(by_baseline) == ["majority", "tf-idf", "linear-probe"] and all(
        list(by_name) == names for by_name in by_baseline.values()
    )
    assert (
        by_baseline["tf-idf"]["accuracy"] == by_baseline["linear-probe"]["accuracy"] == 1.0
        and by_baseline["majority"]["accuracy"] == 0.5
    )
    swapped = [{**row, "label": "bad" if row["label"] == "good" else "good"} for row in ROWS]
    assert all(
        figures(question(test=swapped), lm)[name]["accuracy"] == 0
        for name in ("tf-idf", "linear-probe")
    ), "the test rows taught"


def test_the_majority_is_of_all_rows():
    assert majority(question(train=ROWS[:2], training_labels=["bad"] * 3 + ["good"])) == {
        "accuracy": 0.5
    }
    assert majority(question(test=ROWS[:4], training_labels=["good", "bad"]))["accuracy"] == 0.5
    assert majority(question(test=ROWS[:4], training_labels=["good"]))["accuracy"] == 1.0


def test_what_cannot_be_learned_is_left_out():
    lm = LanguageModel(*tiny.tiny("bert"))
    assert list(figures(question(train=ROWS[:4]), lm)) == ["majority"], "one label"
    assert list(figures(question(train=[{**row, "text": "? !"} for row in ROWS]), lm)) == [
        "majority",
        "linear-probe",
    ], "no words"
    three = question(labels=("other", "bad", "good"), metrics=("accuracy",))
    assert figures(three, lm)["tf-idf"]["accuracy"] == 1.0, "a label without training rows"
    assert MOST_ROWS >= 1000


def test_which_baseline_is_ahead():
    assert behind(0.5, {"majority": 0.4, "tf-idf": 0.5}) is None
    assert behind(0.5, {"majority": 0.4, "tf-idf": 0.6, "linear-probe": 0.7}) == (
        "linear-probe",
        0.7,
    )
    assert advice("p-tuning") == "try --method auto" and "sentence encoder" in advice("auto")


WORDS = WordLabels("words", ("O", "B-place", "I-place"))
SENTENCES = [
    {"words": ["Rome", "is", "great"], "label": ["B-place", "O", "O"]},
    {"words": ["Vienna", "lies", "in", "Rome"], "label": ["B-place", "O", "O", "B-place"]},
    {"words": ["in", "the", "Rome", "film"], "label": ["O", "O", "O", "O"]},
]


def word_form(labels=WORDS, template="{prefix:2} {words}"):
    raw = {"name": "places", "tag": "words", "labels": list(labels.labels), "template": template}
    return resolve.task_form(TaskConfig.model_validate({**raw, "method": "p-tuning-v2+head"}))


def test_a_word_has_the_label_that_it_has_most_often_in_training_rows():
    asked = [{"words": ["Rome", "in", "Madrid", "Vienna"]}]
    answers = word_baselines.most_frequent(WORDS, "label", train=SENTENCES, test=asked)
    assert answers == [["B-place", "O", "O", "B-place"]]
    plain = WordLabels("words", ("NOUN", "VERB"))
    rows = [{"words": ["is", "film", "Rome"], "label": ["VERB", "NOUN", "NOUN"]}]
    answers = word_baselines.most_frequent(
        plain, "label", train=rows, test=[{"words": ["a", "is"]}]
    )
    assert answers == [["NOUN", "VERB"]]


def test_words_have_two_baselines_that_learn_from_the_training_rows():
    lm = LanguageModel(*tiny.tiny("bert"))
    figures = word_baselines.figures(word_form(), lm, train=SENTENCES, test=SENTENCES)
    assert list(figures) == ["most-frequent-label", "linear-probe"]
    frequent = {"entity-f1": 6 / 7, "entity-precision": 3 / 4, "entity-recall": 1.0}
    for name, figure in frequent.items():
        assert figures["most-frequent-label"][name] == pytest.approx(figure)
    assert figures["most-frequent-label"]["word-accuracy"] == pytest.approx(10 / 11)
    assert figures["linear-probe"]["entity-f1"] == 1.0, "the LM tells Rome's film from Rome"
    outside = [{**row, "label": ["O"] * len(row["words"])} for row in SENTENCES]
    of_one = word_baselines.figures(word_form(), lm, train=outside, test=SENTENCES)
    assert list(of_one) == ["most-frequent-label"]


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_vectors_of_words_are_the_lms_at_their_tokens(family):
    """As they are without a prompt, whatever rows share their batch."""
    lm = LanguageModel(*tiny.tiny(family))
    model = word_baselines.plain_model(word_form(), WORDS, lm)
    for row, of_row in zip(SENTENCES, token_answers.word_vectors(model, SENTENCES)):
        example = model.encode(0, [row])[0]
        fill = example.fills[0]
        with torch.no_grad():
            hidden = lm.model.base_model(input_ids=torch.tensor([fill.ids])).last_hidden_state[0]
        expected = hidden[list(fill.answer_positions)].numpy()
        assert example.words == tuple(range(len(row["words"]))) and set(fill.soft_slots) == {-1}
        np.testing.assert_allclose(of_row.numpy(), expected, atol=1e-4, rtol=1e-4)
