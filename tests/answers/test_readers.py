"""The readers as objects: their table, and a new one written as a single class."""

import typing
from typing import ClassVar

import pytest
import tiny
import torch
from by_hand import Plain

from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader import Reader
from ptune.answers.readers.reader_table import READERS
from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.settings import ReaderName, TrainConfig
from ptune.template.language import Template
from ptune.training.loop import fit

ROWS = [
    {"a": "Vienna lies on the Danube", "label": "good"},
    {"a": "Paris", "label": "bad"},
    {"a": "the best film", "label": "good"},
]
LABELS = Verbalizer.from_words({"good": "good", "bad": "bad"})


class PlainReader(Reader):
    """Scores the labels from the hidden state of the first token by one layer."""

    name: ClassVar[str] = "plain"
    mask = "optional"

    def __init__(self, width: int, labels: int):
        super().__init__()
        self.classifier = torch.nn.Linear(width, labels)

    def forward(self, hidden):
        return self.classifier(hidden)


def test_the_table_has_a_reader_for_every_name_of_the_settings():
    assert tuple(READERS) == typing.get_args(ReaderName)
    assert all(reader.name == name for name, reader in READERS.items())


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_new_reader_is_one_class(family):
    """It scores rows in one batch with others, and learns."""
    model, plain = PromptModel(LanguageModel(*tiny.tiny(family))), Plain(family)
    model.add(Task("plain", Template.parse("{a} ?"), LABELS, reader=PlainReader))
    model.add(Task("words", Template.parse("{a} ? {mask}"), LABELS))
    examples = model.encode(0, ROWS) + model.encode(1, ROWS)
    expected = [model.reader(0)(plain.hidden([f"{row['a']} ?"], None)) for row in ROWS]
    scores = model.scores(examples, rows=6)
    torch.testing.assert_close(torch.stack(scores[:3]), torch.stack(expected).detach())
    history = fit(
        model,
        {0: (ROWS, ROWS)},
        TrainConfig(batch_size=3, epochs=30, patience=0, learning_rate=1e-1),
    )[0].history
    assert history[-1].dev == 1 and history[-1].loss < history[0].loss


def test_a_reader_by_its_name_is_refused():
    """A task takes the class; the name belongs into a YAML file."""
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    with pytest.raises(ConfigError, match=r"is 'head', and should be a class: ptune\.READERS"):
        model.add(Task("t", Template.parse("{a}"), LABELS, reader="head"))
