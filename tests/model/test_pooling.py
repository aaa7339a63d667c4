"""What a head reads: the mean of a row's tokens, and encoders that have no vocabulary head."""

from dataclasses import replace

import pytest
import tiny
import torch

from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader_table import READERS
from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.model.check_task import WITHOUT_WORDS
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.storage import prompt_folder
from ptune.template.language import Template
from ptune.training.loop import fit
from ptune.training.methods import METHODS

LABELS = Verbalizer.from_words({"a": "Yes", "b": "No"})
TEXTS = ["Vienna is great", "the Danube lies in the east of Austria , and in the west", "Rome"]
ROWS = [{"text": text, "label": "ab"[number % 2]} for number, text in enumerate(TEXTS)]


@pytest.fixture
def encoder(tmp_path):
    """A tiny encoder without a vocabulary head, and its folder."""
    network, tokenizer = tiny.tiny("bert")
    network.base_model.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    return LanguageModel.load(tmp_path / "lm")


def task(text="{text}", **settings):
    settings = {
        "reader": READERS["head"],
        "pooling": "mean",
        "prefix": PrefixSettings(0),
    } | settings
    return Task("task", Template.parse(text), LABELS, **settings)


def read(model):
    """What the head of a model of one task reads of every row [B, H]."""
    rows = [example.fills[0] for example in model.encode(0, ROWS)]
    learned = model.learned([0])
    prompts = [0 if model.tasks[0].template.prefixes(model.lm.tokens) else -1] * len(rows)
    return model.lm.read_rows(rows, prompts, learned.vectors, learned.prefixes).hidden


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta", "modernbert", "llama", "gpt2"])
@torch.no_grad()
def test_the_mean_is_that_of_plain_transformers(family):
    network, tokenizer = tiny.tiny(family)
    model = PromptModel(LanguageModel(network, tokenizer))
    model.add(task())
    expected = []
    for text in TEXTS:
        ids = model.encode(0, [{"text": text, "label": "a"}])[0].fills[0].ids
        hidden = network.base_model(torch.tensor([ids])).last_hidden_state
        expected.append(hidden[0].mean(0))
    torch.testing.assert_close(read(model), torch.stack(expected), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_encoder_without_a_head_has_the_hidden_states_of_plain_transformers(encoder):
    network, tokenizer = tiny.tiny("bert")
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    hidden = network.base_model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    for pooling, expected in (
        ("first", hidden[:, 0]),
        ("mean", (hidden * mask).sum(1) / mask.sum(1)),
    ):
        model = PromptModel(encoder)
        model.add(task(pooling=pooling))
        torch.testing.assert_close(read(model), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["bert", "deberta"])
@torch.no_grad()
def test_the_vectors_of_a_prefix_are_left_out_of_the_mean(family):
    """By both routes of prefixes: the mean is over as many tokens as the row has without one."""
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    model.add(task("{prefix:3} {text}"))
    rows = [example.fills[0] for example in model.encode(0, ROWS)]
    batch = replace(model.lm.collate(rows, [0, 0, 0]), packing=None)
    learned = model.learned([0])
    with model.lm.prefixed(batch, learned.prefixes):
        hidden = model.lm.forward.run(batch, output_hidden_states=True).hidden_states[-1]
    keep = (
        batch.attention.bool() if batch.deep is None else batch.attention.bool() & (batch.deep < 0)
    )
    assert keep.sum(1).tolist() == [len(row.ids) for row in rows]
    expected = torch.stack([values[kept].mean(0) for values, kept in zip(hidden, keep)])
    torch.testing.assert_close(read(model), expected, atol=1e-5, rtol=1e-5)


def test_a_pooled_prompt_of_an_encoder_without_a_head_learns_and_is_saved(encoder, tmp_path):
    model = PromptModel(encoder)
    model.add(task("{prefix:2} {text}", encoder="table"))
    before = model.bank.prefixes[0].encoder.embedding.weight.detach().clone()
    settings = METHODS["p-tuning-v2+head"].train.replaced({"epochs": 2, "least_steps": 0})
    fit(model, {0: (ROWS, ROWS)}, settings)
    assert not torch.equal(model.bank.prefixes[0].encoder.embedding.weight, before)
    prompt_folder.save(model, tmp_path / "prompt")
    loaded = prompt_folder.load(tmp_path / "prompt")
    assert loaded.tasks[0].task.pooling == "mean" and not loaded.lm.has_head
    assert loaded.predict(ROWS) == model.predict(ROWS)


def test_methods_that_say_words_are_refused_for_an_encoder_without_a_head(encoder):
    for settings in ({"reader": READERS["words"]}, {"reader": READERS["soft"]}):
        with pytest.raises(ConfigError, match="without a vocabulary head.*contrastive, regression"):
            PromptModel(encoder).add(task("{text} {mask}", pooling="first", **settings))
    readers = {name: READERS[method.reader or "words"] for name, method in METHODS.items()}
    without = {
        name
        for name, reader in readers.items()
        if not (reader.binds_words or reader.words_are_relations)
    }
    assert set(WITHOUT_WORDS) == without


def test_a_mean_is_refused_where_one_place_is_read():
    bert, t5 = (LanguageModel(*tiny.tiny(family)) for family in ("bert", "t5"))
    for lm, message, refused in (
        (bert, "stand at one place", task("{text} {mask}", reader=READERS["words"])),
        (bert, "has a {mask}, where its answer is read", task("{text} {mask}")),
        (t5, "read at its decoder", task()),
    ):
        with pytest.raises(ConfigError, match=message):
            PromptModel(lm).add(refused)


@pytest.mark.parametrize("family", ["bert", "deberta", "modernbert", "llama", "gpt2"])
@torch.no_grad()
def test_a_layer_is_read_as_plain_transformers_has_it(family, tmp_path):
    """Also beside a row that is read at the last layer, in a batch of rows of unlike lengths."""
    network, tokenizer = tiny.tiny(family)
    model = PromptModel(LanguageModel(network, tokenizer))
    model.add(task(layer=1))
    model.add(task(pooling="first"))
    rows, expected = [], []
    for number, text in enumerate(TEXTS * 2):
        rows.append(model.encode(number % 2, [{"text": text, "label": "a"}])[0].fills[0])
        ids = torch.tensor([rows[-1].ids])
        states = network.base_model(ids, output_hidden_states=True).hidden_states
        place = 0 if model.lm.kind == "masked" else -1
        expected.append(states[-1][0, place] if number % 2 else states[1][0].mean(0))
    actual = model.lm.read_rows(rows, [-1] * len(rows)).hidden
    torch.testing.assert_close(actual, torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_a_layer_is_saved_and_one_that_is_not_there_refused(encoder, tmp_path):
    model = PromptModel(encoder)
    model.add(task(layer=1))
    prompt_folder.save(model, tmp_path / "prompt")
    loaded = prompt_folder.load(tmp_path / "prompt")
    assert loaded.tasks[0].task.layer == 1
    assert loaded.predict(ROWS) == model.predict(ROWS)
    with pytest.raises(ConfigError, match="this LM has the layers 1 to 2"):
        model.add(task(layer=3))
    words = task("{text} {mask}", pooling="first", layer=1, reader=READERS["words"])
    with pytest.raises(ConfigError, match="reads by words, which stands on the last layer"):
        PromptModel(LanguageModel(*tiny.tiny("bert"))).add(words)
