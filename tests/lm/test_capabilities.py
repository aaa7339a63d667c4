"""Which families can do what, as a contract: an LM that loses a capability with a new release of
transformers shows here, and not in a slower run."""

import dataclasses
import inspect
import re

import pytest
import tiny
import transformers
from more_families import BY_LENGTH, MORE, OTHERS, STATES, Losing, more_families  # noqa: F401

from ptune.errors import ModelError
from ptune.lm.language_model import LanguageModel
from ptune.lm.patches.prefixes.hidden_tokens import ActiveVisibility
from ptune.lm.trials.capabilities import Capabilities, Capability
from ptune.template.encoding.visibility import RowVisibility
from ptune.template.language import EncodedRow

CACHED = (
    "cache" in inspect.signature(transformers.GPTJForCausalLM.forward).parameters
)  # transformers 5.24 and later
NAMES = [field.name for field in dataclasses.fields(Capabilities)]
ALL, MASKED, BOTH = set(NAMES), {"kept_contexts", "writing"}, {"kept_contexts"}
LACKS = {
    **dict.fromkeys(("gpt2", "opt", "neox", "llama", "qwen", "gemma"), set()),
    **dict.fromkeys(
        ("bert", "roberta", "albert", "electra", "distilbert", "modernbert", "eager bert"), MASKED
    ),
    **dict.fromkeys(("t5", "mt5", "umt5", "t5-v1.1", "t5gemma", "eager t5"), BOTH),
    **dict.fromkeys(("bart", "mbart"), BOTH | {"left_padding", "packing"}),
    **dict.fromkeys(
        ("mistral", "gemma3", "gpt-oss", "phi", "starcoder2", "olmo2", "opt-350m", "eager gpt2"),
        set(),
    ),
    **dict.fromkeys(("phi3", "phimoe", "dynamic"), set()),
    "llama4": {"packing"},
    "deberta": MASKED | {"packing"},
    "mpnet": MASKED | {"packing"},
    "bloom": {"packing", "kept_contexts"},
    "falcon": {"packing"},
    "gpt-neo": {"packing"},
    "deepseek": {"packing", "kept_contexts"},
    "gptj": set() if CACHED else {"packing"},
    "longt5": BOTH | {"packing"},
    "led": BOTH | {"left_padding", "packing", "prefix"},
    "squeezebert": MASKED | {"packing", "prefix"},
    **dict.fromkeys(("mamba", "qwen3-next", "lfm2"), BOTH | {"packing", "prefix"}),
    "recurrentgemma": BOTH | {"left_padding", "packing", "prefix"},
    "bamba": MASKED | {"packing", "prefix"},
    "rwkv": MASKED | {"left_padding", "packing", "prefix"},
}
BY_LAYER_INPUTS = {"deberta", "mpnet", "bloom", "falcon", "gpt-neo", "deepseek"} | (
    set() if CACHED else {"gptj"}
)
for _family, _lacking in LACKS.items():  # what is hidden from others is hidden in attention
    if _family in BY_LAYER_INPUTS or "prefix" in _lacking or _family == "longt5":
        LACKS[_family] = _lacking | {"visibility"}


def test_every_family_is_in_the_contract():
    others = MORE | BY_LENGTH | STATES | OTHERS
    assert set(LACKS) == set(tiny.FAMILIES) | set(others)


@pytest.mark.parametrize("family", LACKS)
def test_what_a_family_can_do(family):
    lm = LanguageModel(*tiny.tiny(family))
    capabilities = lm.capabilities
    able = {name: getattr(capabilities, name) for name in NAMES} | {"visibility": lm.hides_tokens}
    assert {name for name in able if not able[name]} == LACKS[family]
    assert all(able[name].note for name in LACKS[family]), "what is missing has a reason"
    if capabilities.prefix:
        assert capabilities.prefix.note == (
            "by layer inputs" if family in BY_LAYER_INPUTS else "by attention"
        )


def test_the_record_is_frozen_and_reads_well():
    capabilities = LanguageModel(*tiny.tiny("bart")).capabilities
    with pytest.raises(dataclasses.FrozenInstanceError):
        capabilities.packing = Capability(True)
    lines = str(capabilities).splitlines()
    assert lines[0] == "left padding   no   it counts positions through padding on the left"
    assert [line[:13].strip().replace(" ", "_") for line in lines] == NAMES and lines[3].endswith(
        "yes  by attention"
    )


def test_gradients_that_are_lost_are_said():
    network, tokenizer = tiny.tiny("llama")
    network.model.layers[0].self_attn.o_proj.__class__ = Losing
    gradients = LanguageModel(network, tokenizer).capabilities.gradients
    assert (
        not gradients
        and gradients.note == "none comes back to a prefix, as from some quantised LMs"
    )


@pytest.mark.parametrize(
    "wrong, note",
    [
        (lambda mask, unseen: mask, "its tokens see others past its mask of attention"),
        (lambda mask, unseen: ~unseen, "it computes otherwise where its mask .* is given"),
    ],
)
def test_tokens_that_are_not_hidden_are_said(monkeypatch, wrong, note):
    def hide(self, sites, mask, query, keys):
        self.reached.update(sites)
        return wrong(mask, self._unseen(self.groups[sites[0]], query.shape[2], keys))

    monkeypatch.setattr(ActiveVisibility, "hide", hide)
    visibility = LanguageModel(*tiny.tiny("gpt2")).hides_tokens
    assert not visibility and re.fullmatch(note, visibility.note)


def test_an_attention_that_was_not_reached_is_said():
    """One that was set to another function since."""
    lm = LanguageModel(*tiny.tiny("gpt2"))
    row = EncodedRow((1, 2, 3), (-1,) * 3, None, (2,))
    hidden = dataclasses.replace(row, visibility=RowVisibility(((1, 0), (0, 1), (0, 1))))
    assert lm.scores(lm.collate([hidden], [-1])).shape[0] == 1
    lm.model.set_attn_implementation("sdpa")
    with pytest.raises(ModelError, match="What is hidden from others did not reach 2 of the 2"):
        lm.scores(lm.collate([hidden], [-1]))
    with pytest.raises(ModelError, match="DebertaV2ForMaskedLM cannot hide tokens from others: it"):
        lm = LanguageModel(*tiny.tiny("deberta"))
        lm.scores(lm.collate([hidden], [-1]))
