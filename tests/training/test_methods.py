"""The presets."""

import pytest

from ptune.errors import ConfigError
from ptune.template.language import Template
from ptune.training.methods import METHODS, method


def test_what_each_method_trains():
    """P-tuning leaves the LM as it is (the most frequent question about its code); its template is
    the paper's."""
    assert {name: preset.tune for name, preset in METHODS.items()} == {
        "manual": "nothing",
        "p-tuning": "prompt",
        "fine-tune": "lm",
        "manual+fine-tune": "lm",
        "prefix-tuning": "prompt",
        "optiprompt": "prompt",
        "prompt-tuning": "prompt",
        "prompt-tuning-adamw": "prompt",
        "p-tuning-v2": "prompt",
        "p-tuning-v2+head": "prompt",
        "p-tuning+lm": "both",
        "head": "both",
        "pet": "lm",
        "ipet": "lm",
        "next-sentence": "nothing",
        "regression": "nothing",
        "contrastive": "prompt",
    }
    paper = method("p-tuning")
    assert (
        paper.encoder == "lstm"
        and Template.parse(paper.template).parts
        == Template.parse("{soft:3} {subject} {soft:3} {mask} {soft:3}").parts
    )
    assert "soft" not in method("fine-tune").template


def test_an_unknown_method():
    with pytest.raises(ConfigError, match="no method 'ptuning'. Did you mean 'p-tuning'"):
        method("ptuning")
