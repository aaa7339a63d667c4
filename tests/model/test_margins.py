"""The hinge loss: the right label or choice ahead of each other one by a margin."""

import pytest
import tiny
import torch
from torch.nn.functional import multi_margin_loss

from ptune import LanguageModel, PromptModel, Task, Template, TrainConfig, Verbalizer, fit
from ptune.answers.from_row import Choices, Span
from ptune.answers.readers.reader_table import READERS
from ptune.errors import ConfigError
from ptune.storage import prompt_folder

WORDS = Verbalizer.from_words({"a": "Yes", "b": ["No", "terrible city"], "c": "Maybe"})
CHOICES = Choices(("choices",))
ROWS = [
    {"x": "Vienna lies on the Danube", "choices": ["great", "bad film", "Rome"], "label": "a"},
    {"x": "it was the worst", "choices": ["Yes", "a terrible film", "No"], "label": "c"},
]


def model_of(answers, rows, **settings):
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    template = Template.parse("{soft:2} {x} {mask}")
    model.add(Task("task", template, answers, encoder="table", loss="hinge", **settings), rows)
    return model


@pytest.mark.parametrize("answers", [WORDS, CHOICES])
def test_the_loss_is_that_of_torch_summed_over_the_wrong_labels(answers):
    rows = ROWS if answers is WORDS else [{**row, "label": 2 - n} for n, row in enumerate(ROWS)]
    model = model_of(answers, rows)
    examples = model.encode(0, rows)
    losses, scores = model.losses(examples), model.scores(examples)
    for example, loss, values in zip(examples, losses, scores):
        expected = multi_margin_loss(values[None], torch.tensor([example.label])) * len(values)
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
        assert example.loss_of_scores(values) == pytest.approx(float(expected), abs=1e-5)


def test_training_puts_the_right_label_ahead_and_is_saved(tmp_path):
    model = model_of(WORDS, ROWS)
    config = TrainConfig(steps=40, learning_rate=0.05, patience=0, evaluate_every=20)
    fit(model, {0: (ROWS, ROWS)}, config)
    examples = model.encode(0, ROWS)
    assert all(loss < 0.2 for loss in model.losses(examples).tolist())
    prompt_folder.save(model, tmp_path / "a")
    assert prompt_folder.load(tmp_path / "a", lm=model.lm).tasks[0].task.loss == "hinge"


@pytest.mark.parametrize(
    "answers, settings",
    [(Span("x"), {}), (WORDS, {"reader": READERS["prototypes"]})],
)
def test_what_has_no_margin(answers, settings):
    with pytest.raises(ConfigError, match="has the loss hinge"):
        model_of(answers, ROWS, **settings)
