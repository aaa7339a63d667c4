"""An LM whose trials are remembered is as one that was tried anew, and another one is tried."""

import pytest
import tiny
import torch
from tried_lms import network_of

from ptune.errors import ModelError
from ptune.lm.language_model import LanguageModel

FOUND = ("capabilities", "width", "pads_left", "packs", "takes_contexts", "max_length")


@pytest.fixture
def calls(monkeypatch, tried):
    """The calls of networks, where none has been tried before."""
    monkeypatch.setattr(tried, "outcomes", {})
    called = []
    call = torch.nn.Module.__call__

    def counted(module, *given, **named):
        called.append(module)
        return call(module, *given, **named)

    monkeypatch.setattr(torch.nn.Module, "__call__", counted)
    return called


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "gemma", "t5", "bart"])
def test_what_is_remembered_is_what_is_found(calls, family):
    anew, again = (LanguageModel(*tiny.tiny(family)) for _ in range(2))
    for name in FOUND:
        assert getattr(again, name) == getattr(anew, name), name
    assert again.forward.offset == anew.forward.offset
    assert [type(site) for site in again.route.parts] == [type(site) for site in anew.route.parts]
    of_one = [calls.count(lm.model) for lm in (anew, again)]
    assert of_one[1] < of_one[0] / 2


def test_other_weights_are_tried_anew(calls):
    """In the second one padding on the left counts: each token is added to those behind it."""
    LanguageModel(*tiny.tiny("bert"))
    network, tokenizer = tiny.tiny("bert")
    forward = network.bert.embeddings.forward
    network.bert.embeddings.forward = lambda *given, **named: forward(*given, **named).cumsum(1)
    assert LanguageModel(network, tokenizer).capabilities.left_padding.present is False
    with pytest.raises(ModelError):
        network, _ = tiny.tiny("bert")
        network.bert.get_input_embeddings().weight.data.zero_()
        LanguageModel(network, tokenizer)


def test_one_changed_number_makes_another_network(calls):
    lms = [LanguageModel(*tiny.tiny("gpt2")) for _ in range(2)]
    for lm in lms:
        unwrap(lm.model)
    assert network_of(lms[0]) == network_of(lms[1]) is not None
    with torch.no_grad():
        lms[1].model.transformer.h[1].mlp.c_fc.weight[0, 0] += 1e-6
    assert network_of(lms[0]) != network_of(lms[1])


def unwrap(network):
    """Take out what an LM has put into it."""
    for part in network.modules():
        vars(part).pop("forward", None)
        part._forward_hooks.clear()
        part._forward_pre_hooks.clear()
