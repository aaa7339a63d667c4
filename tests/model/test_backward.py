"""The gradients of a batch that runs in parts, against those of the whole at once."""

import family_checks
import prefix_family_checks
import pytest
import torch
from family_checks import TOLERANCE

from ptune.model.running import losses


def gradients(model) -> list[torch.Tensor]:
    actual = [
        torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.bank.parameters()
    ]
    model.bank.zero_grad()
    return actual


@pytest.mark.parametrize("limit", [1, 60, 10_000])
@pytest.mark.parametrize("tests", [family_checks, prefix_family_checks])
@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
def test_parts_are_the_whole(family, tests, limit, monkeypatch):
    model = tests.build(family)
    rows = tests.examples(model)
    weights = [0.5 + number / 7 for number in range(len(rows))]
    wanted = model.losses(rows) * torch.tensor(weights)
    wanted.sum().backward()
    whole = gradients(model)
    assert any(gradient.abs().max() > 1e-3 for gradient in whole)
    monkeypatch.setattr(losses, "CPU_TOKENS", limit)
    calls, encoders, loads, part_losses = [], [], [], losses.losses

    def counted(model, examples, learned):
        calls.append(len(examples))
        loads.extend(example.load for example in examples)
        return part_losses(model, examples, learned)

    monkeypatch.setattr(losses, "losses", counted)
    for encoder in model.bank.encoders:
        encoder.register_forward_hook(lambda *_: encoders.append(1))
    actual = model.backward(rows, weights)
    tokens = [sum(len(fill.ids) for fill in row.learn) for row in rows]
    assert sum(calls) == len(rows) and (
        len(calls) == len(rows)
        if limit == 1
        else len(calls) > 1
        if sum(tokens) > limit
        else len(calls) == 1
    )
    assert loads == sorted(loads), "rows of like length do not run together"
    assert len(encoders) <= len(model.bank.encoders), "an encoder ran twice"
    assert not actual.requires_grad
    torch.testing.assert_close(actual, wanted.detach(), atol=TOLERANCE, rtol=TOLERANCE)
    for ours, theirs in zip(gradients(model), whole):
        scale = theirs.abs().max().clamp(min=1)
        torch.testing.assert_close(ours / scale, theirs / scale, atol=TOLERANCE, rtol=0)
