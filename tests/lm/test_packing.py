"""Packed rows against padded ones, which test_families and test_prefix_families hold against single
rows."""

import family_checks
import prefix_family_checks
import pytest
import tiny
import torch
from family_checks import FAR, TOLERANCE

from ptune.answers.label_words import Verbalizer
from ptune.lm import batching
from ptune.lm.language_model import LanguageModel
from ptune.lm.patches.packing import Packing
from ptune.model.prompt_model import PromptModel, Task
from ptune.template.language import Template

PADDED_ONLY = {"deberta", "bart"}  # by layer inputs, and positions that are counted within
FAMILIES = [name for name in tiny.FAMILIES if name not in PADDED_ONLY]


def shapes(model: PromptModel) -> list[tuple[int, ...]]:
    """The shapes of all inputs of the LM from now on."""
    actual: list[tuple[int, ...]] = []
    part = model.lm.model.get_encoder() if model.lm.kind == "encoder-decoder" else model.lm.model
    part.register_forward_pre_hook(
        lambda _, given, named: actual.append(tuple(named["inputs_embeds"].shape[:2])),
        with_kwargs=True,
    )
    return actual


def results(model: PromptModel, rows, packs: bool) -> list[torch.Tensor]:
    """Losses, and the gradients of all that is trained."""
    model.lm.__dict__["packs"] = packs
    losses = model.losses(rows)
    return [losses.detach(), *torch.autograd.grad(losses.sum(), list(model.bank.parameters()))]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("tests", [family_checks, prefix_family_checks])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_are_padded_rows(family, tests, recompute, monkeypatch):
    model = tests.build(family)
    rows, seen = tests.examples(model), shapes(model)
    assert model.lm.packs
    seen.clear()
    model.lm.recompute(recompute)
    expected, actual = results(model, rows, False), results(model, rows, True)
    tokens = sum(len(fill.ids) for row in rows for fill in row.learn)
    fills = sum(len(row.learn) for row in rows)
    assert seen == [(fills, max(len(fill.ids) for row in rows for fill in row.learn)), (1, tokens)]
    variants = {
        "padding is seen": lambda pack: torch.ones_like(pack.attention),
        "rows turned about": lambda pack: pack.attention.flip(0),
    }
    for name, wrong in variants.items():
        with monkeypatch.context() as patch:
            right = Packing.mask_arguments
            patch.setattr(
                Packing,
                "mask_arguments",
                lambda pack, wrong=wrong, right=right: (
                    right(pack) | {"attention_mask": wrong(pack)}
                ),
            )
            if (
                model.lm.kind != "causal" or name == "rows turned about"
            ):  # what stands behind never reaches a causal LM
                assert (results(model, rows, True)[0] - expected[0]).abs().max() > FAR, (
                    f"{name} does not show, so this test could not fail"
                )
    for ours, theirs in zip(actual, expected):
        scale = theirs.abs().max().clamp(min=1)
        torch.testing.assert_close(ours / scale, theirs / scale, atol=TOLERANCE, rtol=0)
    model.lm.recompute(False)


@pytest.mark.parametrize("family", sorted(PADDED_ONLY))
def test_what_cannot_be_packed_is_padded(family):
    model = family_checks.build(family)
    seen = shapes(model)
    assert not model.lm.packs
    seen.clear()
    rows = family_checks.examples(model)
    model.losses(rows)
    assert len(seen) == 1 and seen[0][0] == sum(len(row.learn) for row in rows)


def test_an_lm_that_is_otherwise_when_packed_is_padded(monkeypatch):
    network, tokenizer = tiny.tiny("bert")
    monkeypatch.setattr(
        Packing,
        "mask_arguments",
        lambda self: {
            "batch_size": 2,
            "q_length": 9,
            "kv_length": 9,
            "attention_mask": self.attention.flip(0),
        },
    )
    assert not LanguageModel(network, tokenizer).packs
    monkeypatch.setattr(
        Packing, "mask_arguments", lambda self: {"attention_mask": self.attention[:, :3]}
    )  # an error within the LM
    assert not LanguageModel(network, tokenizer).packs


def test_little_padding_is_not_worth_it(monkeypatch):
    network, tokenizer = tiny.tiny("bert")
    model = PromptModel(LanguageModel(network, tokenizer))
    model.add(
        Task(
            "task",
            Template.parse("{x} {soft:2} {mask}"),
            Verbalizer.from_words({"a": "Yes", "b": "No"}),
            encoder="table",
        )
    )
    rows = model.encode(0, [{"x": "Vienna " * count, "label": "a"} for count in (5, 6)])
    seen = shapes(model)
    assert model.lm.packs
    seen.clear()
    model.losses(rows)
    monkeypatch.setattr(batching, "PADDED", 0.0)
    model.losses(rows)
    assert [shape[0] for shape in seen] == [2, 1]


def test_the_trial_is_not_disturbed_by_dropout():
    """An LM that is tuned has its dropout on when its first batch comes."""
    network, tokenizer = tiny.tiny("bert")
    for part in network.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.5
    lm = LanguageModel(network, tokenizer)
    lm.tune(True)
    assert lm.packs and network.training
