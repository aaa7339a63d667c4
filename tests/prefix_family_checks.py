"""A model with deep prefixes over a tiny LM of any family, its rows, and the comparisons with keys
and values that are concatenated by hand: prefixes, infixes, both depths at once and none."""

import dataclasses
from collections.abc import Sequence

import pytest
import reference
import tiny
import torch
from family_checks import FAR, ROWS, TOLERANCE, WORDS

from ptune.errors import ModelError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.template.language import Template


def build(family: str) -> PromptModel:
    network, tokenizer = tiny.tiny(family)
    model = PromptModel(LanguageModel(network, tokenizer))
    infix = (
        "{text} {prefix:2} ? {subject} is {mask}"
        if model.lm.kind != "encoder-decoder"
        else "{prefix:2} {text} ? {subject} is {mask}"
    )
    for number, (text, hidden) in enumerate(
        [
            ("{prefix:3} {subject} is {mask}", 8),
            (infix, 0),
            ('{prefix:"capital of"} The {subject} {soft:2} {mask}', 0),
            ("{text} ? {mask}", 0),
            ("{soft:3} {subject} {mask}", 0),
        ]
    ):
        model.add(
            Task(
                f"task {number}",
                Template.parse(text),
                WORDS,
                encoder="table",
                prefix=PrefixSettings(hidden),
            )
        )
    for parameter in model.bank.parameters():  # wide, so that a swapped vector shows
        torch.nn.init.normal_(
            parameter, 0, 0.7, generator=torch.Generator().manual_seed(parameter.numel())
        )
    return model


def examples(model: PromptModel):
    return [example for task in range(5) for example in model.encode(task, ROWS)]


def scores(
    model: PromptModel, rows, side: str = "right", change=lambda batch: batch
) -> torch.Tensor:
    learned = model.learned([task for task, _ in rows])
    batch = model.lm.collate(
        [row for _, row in rows],
        [learned.places.get(model.tasks[task].prompt, -1) for task, _ in rows],
        side,
    )
    return model.lm.scores(change(batch), learned.vectors, learned.prefixes).log_softmax(-1)


@torch.no_grad()
def check_mixed_batch_by_hand(family: str, side: str) -> None:
    """The scores of a mixed batch are those of its rows by hand."""
    model = build(family)
    if side == "left" and not model.lm.pads_left:
        pytest.skip("this LM cannot be padded on the left; test_lm shows that it says so")
    rows = [(e.task, e.fills[0]) for e in examples(model)]
    if side == "left" and model.lm.kind == "encoder-decoder":
        with pytest.raises(ModelError, match="pad on the right"):
            scores(model, rows, side)
        return
    expected = torch.cat([reference.log_probs(model, task, row) for task, row in rows])

    def far(name, change):
        assert (scores(model, rows, side, change) - expected).abs().max() > FAR, (
            f"{name} does not show, so this test could not fail"
        )

    far(
        "prompts swapped",
        lambda b: dataclasses.replace(
            b,
            prompts=torch.where(b.prompts == 0, 2, torch.where(b.prompts == 2, 0, b.prompts))
            if not model.lm.route.in_text
            else b.prompts.flip(0),
        ),
    )
    if model.lm.kind != "causal" or side == "left":
        far(
            "mask dropped",
            lambda b: dataclasses.replace(b, attention=torch.ones_like(b.attention), packing=None),
        )
    if (
        model.lm.forward.offset is not None
        and not model.lm.route.in_text
        and family != "modernbert"
    ):  # its rotary positions show gaps only
        far("positions without the prefix", lambda b: dataclasses.replace(b, ahead=None))
    if model.lm.kind == "causal" and not model.lm.route.in_text:
        far("an infix seen by what stands before it", lambda b: dataclasses.replace(b, starts=None))
    torch.testing.assert_close(scores(model, rows, side), expected, atol=TOLERANCE, rtol=TOLERANCE)


def check_losses_and_gradients(
    family: str, recomputed: Sequence[bool] = (False,), tolerance: float = TOLERANCE
) -> None:
    """The losses of a mixed batch, and the gradients of its prompts, are those of its rows.

    Args:
        recomputed: whether activations are computed anew for the gradients; each is tried.
    """
    model = build(family)
    rows = examples(model)
    parameters = list(model.bank.parameters())
    expected = torch.stack([reference.loss(model, row) for row in rows])
    expected_gradients = torch.autograd.grad(expected.sum(), parameters)
    assert all(gradient.abs().max() > 0 for gradient in expected_gradients)
    for recompute in recomputed:
        model.lm.recompute(recompute)
        actual = model.losses(rows)
        gradients = torch.autograd.grad(actual.sum(), parameters)
        model.lm.recompute(False)
        torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)
        for ours, theirs in zip(gradients, expected_gradients):
            scale = theirs.abs().max().clamp(min=1)
            torch.testing.assert_close(ours / scale, theirs / scale, atol=tolerance, rtol=tolerance)
