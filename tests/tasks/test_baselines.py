"""What a user would get without prompts on the same rows."""

import numpy as np
import pytest
import tiny
import torch

from ptune.lm.language_model import LanguageModel
from ptune.tasks.judging.baselines import (
    MOST_ROWS,
    Question,
    advice,
    behind,
    figures,
    majority,
    vectors,
)
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
