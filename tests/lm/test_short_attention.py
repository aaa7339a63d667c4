"""The attention of an LM that is learned from in bfloat16 on a CPU."""

import family_checks
import prefix_family_checks
import pytest
import tiny
import torch
from torch.nn.functional import scaled_dot_product_attention as stock

from ptune.lm.language_model import LanguageModel
from ptune.lm.patches.cpu import short_attention

FAMILIES = ("bert", "gpt2", "llama", "t5")


@pytest.fixture
def fused(monkeypatch):
    """Whether torch may fuse the attention, at each call of one from now on."""
    monkeypatch.setattr(short_attention, "pays", lambda: True)
    calls: list[bool] = []

    def noted(*arguments, **options):
        calls.append(torch.backends.cuda.flash_sdp_enabled())
        return stock(*arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noted)
    return calls


def gradients(model, rows, products: torch.dtype | None = torch.bfloat16) -> list[torch.Tensor]:
    model.lm.forward.mixed = products
    losses = model.losses(rows)
    return torch.autograd.grad(losses.sum(), list(model.bank.parameters()))


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("checks", [family_checks, prefix_family_checks])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_not_fused_and_as_near_to_what_is_exact(family, checks, again, fused, monkeypatch):
    model = checks.build(family)
    rows = checks.examples(model)
    model.lm.recompute(again)
    fused.clear()
    actual = gradients(model, rows)
    assert fused and not any(fused)
    monkeypatch.setattr(short_attention, "MOST_PAIRS", 0)
    expected = gradients(model, rows)
    assert fused[-1]
    exact = gradients(model, rows, None)
    for ours, theirs, right in zip(actual, expected, exact, strict=True):
        assert (ours - right).norm() < 3 * (theirs - right).norm() + 1e-3 * right.norm()


def test_other_calls_are_left_alone(fused):
    model = family_checks.build("bert")
    rows = family_checks.examples(model)
    fused.clear()
    gradients(model, rows, torch.float16)
    gradients(model, rows, None)
    model.lm.forward.mixed = torch.bfloat16
    with torch.no_grad():
        model.losses(rows)
    assert fused and all(fused)


@pytest.mark.parametrize(
    "shape, is_fused", [((16, 192), False), ((16, 256), True), ((1, 960), True)]
)
def test_large_batches_stay_fused(shape, is_fused, fused):
    with short_attention.attention_to_learn(torch.zeros(*shape, 2).bfloat16()):
        assert torch.backends.cuda.flash_sdp_enabled() == is_fused
    assert torch.backends.cuda.flash_sdp_enabled()


def test_a_deep_lm_takes_a_prefix(fused):
    """What it computes with gradients, layer by layer a little apart, is no leak between rows."""
    network, tokenizer = tiny.tiny("llama", torch.bfloat16, num_hidden_layers=24)
    capabilities = LanguageModel(network, tokenizer).capabilities
    assert not all(fused)
    assert capabilities.prefix and capabilities.packing


def test_a_cpu_without_bfloat16_is_left_alone(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    short_attention.pays.cache_clear()
    with short_attention.attention_to_learn(torch.zeros(1, 2, 2).bfloat16()):
        assert torch.backends.cuda.flash_sdp_enabled()
    short_attention.pays.cache_clear()
