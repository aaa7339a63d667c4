"""What decides a result: all of it is there, and what differs is named."""

import pathlib
from dataclasses import fields, replace

import pytest
import tiny
import torch

from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader_table import READERS
from ptune.errors import DataError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, Task
from ptune.runs import identity
from ptune.settings import PetConfig, TrainConfig, TrainOverrides
from ptune.tasks.schema import TaskConfig
from ptune.template.language import Template

WORDS = Verbalizer.from_words({"a": "great", "b": "bad"})
TASK = Task("t", Template.parse("{soft:2} {x} {mask}"), WORDS)


def test_every_field_of_a_task_tells():
    others = {
        "name": "u",
        "template": Template.parse("{soft:2} {x} . {mask}"),
        "verbalizer": Verbalizer.from_words({"b": "great", "a": "bad"}),
        "prefix": PrefixSettings(7),
        "domain": Template.parse("x {mask}"),
        "reader": READERS["head"],
    }
    for field in fields(Task):
        changed = {
            **identity.of_task(TASK),
            field.name: identity.of_task(
                replace(TASK, **{field.name: others.get(field.name, "other")})
            ).get(field.name),
        }
        assert [
            name.split()[0] for name in identity.differing(identity.of_task(TASK), changed)
        ] == [field.name]
    swapped = replace(TASK, verbalizer=Verbalizer.from_words({"a": "bad", "b": "great"}))
    assert identity.differing(identity.of_task(TASK), identity.of_task(swapped)) == ["verbalizer"]


def test_another_lm_another_tokenizer_another_number_format():
    def lm(family="bert", dtype=torch.float32, seed=0):
        return identity.of_lm(LanguageModel(*tiny.tiny(family, dtype, seed)))

    record = lm()
    assert identity.differing(record, lm()) == []
    changed = identity.differing(record, lm(seed=1))
    assert changed == ["weights (what it holds has changed)"] and "number format" in "".join(
        identity.differing(record, lm(dtype=torch.bfloat16))
    )
    assert "config.num_key_value_heads" in "".join(identity.differing(lm("llama"), lm("gpt2")))
    network, tokenizer = tiny.tiny("bert")
    again = type(tokenizer)(tokenizer_object=tokenizer._tokenizer, **tokenizer.special_tokens_map)
    vocabulary = again.get_vocab()
    again.get_vocab = lambda: {
        **vocabulary,
        "vienna": vocabulary["rome"],
        "rome": vocabulary["vienna"],
    }
    assert identity.differing(record, identity.of_lm(LanguageModel(network, again))) == [
        "tokens (what it holds has changed)"
    ]


def test_settings_and_the_files_that_they_name(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("a\nb\n")
    config = TaskConfig(
        name="t", vocabulary=words, train={"seed": 3, "save_seconds": 9}, labels={"a": "x"}
    )
    content = identity.of_settings(config, ("out", "resume"))
    assert (
        content["train"] == {"seed": 3}
        and "out" not in content
        and len(content["vocabulary"]) == 64
    )
    elsewhere = tmp_path / "other.txt"
    elsewhere.write_text("a\nb\n")
    assert (
        identity.of_settings(config.model_copy(update={"vocabulary": elsewhere}), ("out", "resume"))
        == content
    )
    words.write_text("a\nc\n")
    changed = identity.of_settings(
        config.model_copy(update={"train": TrainOverrides(seed=4), "pet": PetConfig(growth=6)}),
        ("out", "resume"),
    )
    assert identity.differing(content, changed) == [
        "vocabulary (what it holds has changed)",
        "pet.growth (5.0, now 6.0)",
        "train.seed (3, now 4)",
    ]
    with pytest.raises(DataError, match="none.txt cannot be read"):
        identity.of_settings(config.model_copy(update={"vocabulary": pathlib.Path("none.txt")}))


def test_rows_in_their_order():
    rows = [{"x": "a", "y": 1}, {"x": "b", "y": None}]
    assert (
        identity.of_rows(rows)
        == identity.of_rows([dict(row) for row in rows])
        != identity.of_rows(rows[::-1])
    )


def test_values_that_are_long_or_hashed_are_named_alone():
    assert identity.differing(
        {"a": "x" * 99, "b": identity.of_value(1), "c": 1},
        {"a": "y", "b": identity.of_value(2), "d": 1},
    ) == ["a", "b (what it holds has changed)", "c", "d"]
    assert identity.of_settings(TrainConfig()).get("context_mb") is None, "it changes no result"
