"""Which families can do what, as a contract: an LM that loses a capability with a new release of
transformers shows here, and not in a slower run."""

import dataclasses
import inspect

import pytest
import tiny
import transformers
from more_families import BY_LENGTH, MORE, OTHERS, STATES, Losing, more_families  # noqa: F401

from ptune.lm.language_model import LanguageModel
from ptune.lm.trials.capabilities import Capabilities, Capability

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


def test_every_family_is_in_the_contract():
    others = MORE | BY_LENGTH | STATES | OTHERS
    assert set(LACKS) == set(tiny.FAMILIES) | set(others)


@pytest.mark.parametrize("family", LACKS)
def test_what_a_family_can_do(family):
    capabilities = LanguageModel(*tiny.tiny(family)).capabilities
    assert {name for name in NAMES if not getattr(capabilities, name)} == LACKS[family]
    assert all(getattr(capabilities, name).note for name in LACKS[family]), (
        "what is missing has a reason"
    )
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
