"""Every family, against the slow plain way: scores, losses and gradients of a mixed batch, each
prompt with another template, length and encoder. Each test first shows that a wrong variant is far
outside the tolerance."""

import dataclasses

import pytest
import reference
import tiny
import torch
from family_checks import FAR, ROWS, TOLERANCE, build, examples

from ptune.answers.label_words import Verbalizer
from ptune.lm.batch import collate
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.template.language import Template


def scores(model: PromptModel, batch) -> torch.Tensor:
    vectors = model.learned([0, 1, 2]).vectors
    return model.lm.scores(batch, vectors).log_softmax(-1)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
@torch.no_grad()
def test_mixed_batch_is_its_rows_one_by_one(family, side):
    model = build(family)
    if side == "left" and not model.lm.pads_left:
        pytest.skip("this LM cannot be padded on the left; test_lm shows that it says so")
    rows = [(e.task, e.fills[0]) for e in examples(model)]
    prompts = [model.tasks[task].prompt for task, _ in rows]
    batch = model.lm.collate([row for _, row in rows], prompts, side)
    expected = torch.cat([reference.log_probs(model, task, row) for task, row in rows])
    actual = scores(model, batch)

    wrong = {
        "slots swapped": dataclasses.replace(
            batch,
            soft_slots=torch.where(
                batch.soft_slots == 0, 1, torch.where(batch.soft_slots == 1, 0, batch.soft_slots)
            ),
        ),
        "prompts swapped": dataclasses.replace(
            batch, prompts=torch.tensor([{0: 1, 1: 0}.get(p, p) for p in prompts])
        ),
    }
    unmasked = dataclasses.replace(batch, attention=torch.ones_like(batch.attention), packing=None)
    if model.lm.kind != "causal" or side == "left":  # what stands behind never reaches a causal LM
        wrong["mask dropped"] = unmasked
    for name, variant in wrong.items():
        assert (scores(model, variant) - expected).abs().max() > FAR, (
            f"{name} does not show, so this test could not fail"
        )
    if model.lm.forward.offset is not None:
        relative = family in (
            "llama",
            "qwen",
            "gemma",
            "neox",
            "modernbert",
        )  # rotary positions: only a gap shows, not a shift of all
        model.lm.forward.run, run = shifted_positions(model.lm, gap=relative), model.lm.forward.run
        assert (scores(model, batch) - expected).abs().max() > FAR, "shifted positions do not show"
        model.lm.forward.run = run
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=TOLERANCE)


def shifted_positions(lm: LanguageModel, gap: bool):
    """A wrong variant of the run: all positions one too far, or with a gap in the middle."""
    forward, run = lm.model.forward, lm.forward.run

    def wrong(*args, **kwargs):
        positions = kwargs["position_ids"]
        kwargs["position_ids"] = positions + (positions > 2) * 5 if gap else positions + 1
        return forward(*args, **kwargs)

    def shifted(*args, **kwargs):
        lm.model.forward = wrong
        try:
            return run(*args, **kwargs)
        finally:
            del lm.model.forward

    return shifted


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_losses_and_gradients_of_a_mixed_batch(family, side, monkeypatch):
    model = build(family)
    if side == "left" and not model.lm.pads_left:
        pytest.skip("this LM cannot be padded on the left; test_lm shows that it says so")
    rows = examples(model)
    parameters = list(model.bank.parameters())
    expected = torch.stack([reference.loss(model, row) for row in rows])
    gradients = torch.autograd.grad(expected.sum(), parameters)

    def swapped(*arguments):
        batch = collate(*arguments[:3], side)
        return dataclasses.replace(
            batch,
            soft_slots=torch.where(
                batch.soft_slots == 0, 1, torch.where(batch.soft_slots == 1, 0, batch.soft_slots)
            ),
        )

    monkeypatch.setattr("ptune.lm.batching.collate", swapped)
    wrong = model.losses(rows)
    assert (wrong - expected).abs().max() > FAR, (
        "swapped slots do not show, so this test could not fail"
    )
    assert (
        max(
            float((a - b).abs().max())
            for a, b in zip(torch.autograd.grad(wrong.sum(), parameters), gradients)
        )
        > FAR
    )
    monkeypatch.setattr(
        "ptune.lm.batching.collate", lambda *arguments: collate(*arguments[:3], side)
    )
    actual = model.losses(rows)
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=TOLERANCE)
    for ours, theirs in zip(torch.autograd.grad(actual.sum(), parameters), gradients):
        scale = theirs.abs().max().clamp(min=1)
        assert theirs.abs().max() > 0, "a parameter without a gradient: this test could not fail"
        torch.testing.assert_close(ours / scale, theirs / scale, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_label_scores_of_several_words_and_tokens(family):
    """Words of one and of several tokens, several words a label: against the plain way, and unlike
    scoring a first piece."""
    network, tokenizer = tiny.tiny(family)
    model = PromptModel(LanguageModel(network, tokenizer))
    verbalizer = Verbalizer.from_words(
        {"good": ["great", "positive film"], "bad": ["bad", "terrible city"], "other": "Maybe"}
    )
    task = model.add(Task("t", Template.parse("{text} {soft:2} It was {mask}"), verbalizer))
    assert len({len(ids) for ids in model.tasks[task].verbalizer.ids}) > 1
    rows = model.encode(task, ROWS, labelled=False)
    with torch.no_grad():
        expected = torch.stack([reference.label_scores(model, row) for row in rows])
    actual = torch.stack(model.scores(rows, rows=3))
    first_piece = torch.stack(
        [
            reference.log_probs(model, task, row.fills[0])[
                0, [ids[0] for ids in model.tasks[task].verbalizer.ids]
            ]
            for row in rows
        ]
    )
    assert (first_piece[:, 1] - expected[:, 0]).abs().max() > FAR
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_hidden_states_are_those_that_the_head_gets(family):
    model = build(family)
    row = model.encode(3, ROWS[:1])[0].fills[0]
    batch = collate([row], [-1], model.lm.tokens.pad)
    with torch.no_grad():
        hidden = model.lm.hidden(batch)
        inputs = {"input_ids": batch.ids} | (
            {"decoder_input_ids": batch.decoder} if batch.decoder is not None else {}
        )
        if batch.types is not None and "token_type_ids" in model.lm.forward.parameters:
            inputs["token_type_ids"] = batch.types
        body = model.lm.forward.gathers[0]
        kept = []
        handle = body.register_forward_hook(lambda _, __, output: kept.append(output[0]))
        model.lm.model(**inputs)
        handle.remove()
    assert (
        hidden - kept[0][0, [read + 1 if read == 0 else read - 1 for read in row.answer_positions]]
    ).abs().max() > FAR, "another place does not show"
    torch.testing.assert_close(
        hidden, kept[0][0, list(row.answer_positions)], atol=TOLERANCE, rtol=TOLERANCE
    )
