"""Texts that are longer than the LM takes, read part by part, beside a plain computation."""

from dataclasses import replace

import pytest
import tiny
import torch

from ptune.answers.from_row import Choices
from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader_table import READERS
from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.storage import prompt_folder
from ptune.template.language import Template

WORDS = Verbalizer.from_words({"a": "Yes", "b": "No"})
LONG = (
    "the great film was a great film and the people of the city of Vienna said it was the best " * 3
)
ROWS = [
    {"x": "a great film", "label": "a"},
    {"x": LONG, "label": "b"},
    {"x": LONG[:90], "label": "a"},
]


def model_of(
    windows,
    family="bert",
    words=WORDS,
    reader="words",
    template="{soft:2} {x|shorten} {mask}",
    **more,
):
    model = PromptModel(LanguageModel(*tiny.tiny(family, torch.float64)), max_length=18)
    task = Task(
        "t", Template.parse(template), words, windows=windows, reader=READERS[reader], **more
    )
    model.add(task)
    return model


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_windows_hold_all_words_and_fit(family):
    model = model_of("mean", family)
    for example in model.encode(0, ROWS):
        tokens, texts = model.lm.tokens, []
        size = len(model.tasks[0].answers(example.labels))
        for fill in example.fills[::size]:
            assert fill.cut == 0 and len(fill.ids) <= 18
            texts += [id_ for id_, slot in zip(fill.ids, fill.soft_slots) if slot < 0]
        special = {*tokens.tokenizer.all_special_ids}
        read = [id_ for id_ in texts if id_ not in special]
        whole = [id_ for id_ in tokens.plain(example.row["x"]) if id_ not in special]
        strip = model.lm.tokens.tokenizer.decode
        assert strip(read).split() == strip(whole).split()
    assert len(model.encode(0, ROWS)[1].fills) > 3


@pytest.mark.parametrize("windows", ["mean", "max"])
@pytest.mark.parametrize("reader", ["words", "soft"])
@pytest.mark.parametrize("several", [False, True])
def test_scores_and_losses_are_those_of_the_windows(windows, reader, several):
    words = Verbalizer.from_words({"a": "Yes", "b": "great film"}) if several else WORDS
    model = model_of(windows, words=words, reader=reader)
    plain = model_of("none", words=words, reader=reader)
    plain.bank = model.bank
    examples = model.encode(0, ROWS)
    scores = model.scores(examples)
    losses = model.losses(examples)
    size = len(plain.encode(0, ROWS[:1])[0].fills)
    for example, scored, loss in zip(examples, scores, losses):
        parts = [
            replace(example, fills=example.fills[start : start + size])
            for start in range(0, len(example.fills), size)
        ]
        shares = torch.stack([s.softmax(0) for s in plain.scores(parts)])
        combined = shares.mean(0) if windows == "mean" else shares.amax(0)
        assert torch.allclose(scored.softmax(0), combined / combined.sum(), atol=1e-6)
        right = "ab".index(example.row["label"])
        assert float(loss.detach()) == pytest.approx(
            float(-(combined / combined.sum())[right].log()), abs=1e-5
        )
    losses.sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.bank.parameters_of(0))


def test_a_saved_prompt_reads_in_windows_too(tmp_path):
    network, tokenizer = tiny.tiny("bert", torch.float64)
    network.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    model = PromptModel(LanguageModel.load(str(tmp_path / "lm"), device="cpu"), max_length=18)
    model.add(
        Task(
            "t", Template.parse("{soft:2} {x|shorten} {mask}"), WORDS, windows="max", max_length=18
        )
    )
    prompt_folder.save(model, tmp_path / "p", task=0)
    loaded = prompt_folder.load([tmp_path / "p"], device="cpu")
    answers = model.predict(ROWS)
    assert [a["prediction"] for a in loaded.predict(ROWS)] == [a["prediction"] for a in answers]
    assert loaded.tasks[0].task.windows == "max"


def test_what_cannot_be_read_in_windows_is_refused():
    for options, message in (
        ({"words": Choices(("x",))}, "labels that are compared"),
        ({"loss": "vocabulary"}, "labels that are compared"),
        ({"reader": "prototypes"}, "compares whole rows"),
        ({"swap": ("x", "y")}, "neither swap"),
        ({"template": "{soft:2} {x} {mask}"}, "it marks 0"),
        ({"template": "{soft:2} {x|shorten} {y|shorten} {mask}"}, "it marks 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            model_of("mean", **options)
