"""Rows that leave the batch when they have ended change nothing of what the others get."""

import pytest
import torch
from writing_checks import WRITERS, build, mixed

from ptune.lm.writing import live_writing
from ptune.model.running.generate import write_live, written_together
from ptune.settings import DecodingConfig

STEPS = 9


def live(model, examples, lengths, keys=None, **settings):
    """The tokens of each row up to its own length, and how many rows each call had."""
    tokens = [[] for _ in examples]
    calls: list[int] = []

    def note(_, given, named):
        values = (*given, *map(named.get, ("input_ids", "inputs_embeds", "decoder_input_ids")))
        calls.append(next(value for value in values if value is not None).shape[0])

    def take(step):
        for row, token, length in zip(tokens, step, lengths):
            if set(row) & set(model.lm.ends):
                assert token == model.lm.tokens.pad
            elif len(row) < length:
                row.append(token)
        return [len(row) < length for row, length in zip(tokens, lengths)]

    handle = model.lm.model.register_forward_pre_hook(note, with_kwargs=True)
    config = DecodingConfig(max_new_tokens=STEPS, **settings)
    write_live(model, examples, config, take, keys=keys)
    handle.remove()
    return tokens, calls


@pytest.mark.parametrize("family", WRITERS)
def test_rows_that_leave_change_nothing_for_the_others(family, monkeypatch):
    model = build(family, torch.float64)
    model.bank.double()
    examples = mixed(model)
    if not model.lm.pads_left:
        together = max(written_together(model, examples, len(examples)), key=len)
        examples = [examples[number] for number in together] * 5
    lengths = [1 + 5 * number % STEPS for number in range(len(examples))]
    left, calls = live(model, examples, lengths)
    alone = [live(model, [row], [length])[0][0] for row, length in zip(examples, lengths)]
    assert left == alone and len({tuple(row) for row in alone}) > 4
    if model.lm.takes_contexts:
        assert calls[-1] < len(examples) // 3 and calls == sorted(calls[:1]) + sorted(
            calls[1:], reverse=True
        )
        with monkeypatch.context() as patch:
            select = torch.tensor
            patch.setattr(live_writing.torch, "tensor", lambda *a, **k: select(*a, **k).flip(0))
            assert live(model, examples, lengths)[0] != alone, "swapped rows do not show"
    else:
        assert set(calls) == {len(examples)}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_rows_that_leave_change_no_draws_of_the_others(family):
    model = build(family, torch.float64)
    model.bank.double()
    examples = mixed(model)
    lengths = [1 + 5 * number % STEPS for number in range(len(examples))]
    keys = [(number % 3, number, 0) for number in range(len(examples))]
    drawn = {"sample": True, "temperature": 3.0}
    left, calls = live(model, examples, lengths, keys=keys, **drawn)
    assert calls[-1] < len(examples) // 3
    for number, example in enumerate(examples):
        alone, _ = live(model, [example], [lengths[number]], keys=[keys[number]], **drawn)
        assert alone[0] == left[number]


def test_rows_stay_where_the_next_token_depends_on_those_before():
    model = build("llama")
    examples = mixed(model)
    lengths = [1] * 10 + [STEPS] * (len(examples) - 10)
    _, calls = live(model, examples, lengths, no_repeat_ngram=2)
    assert min(calls[1:]) == len(examples)
    longer = [1] * 10 + [STEPS + 5] * (len(examples) - 10)
    tokens, _ = live(model, examples, longer, min_new_tokens=STEPS)
    assert {len(row) for row in tokens[10:]} == {STEPS}
    shortest = [2, *[1] * 9, *[STEPS] * (len(examples) - 10)]
    _, calls = live(model, examples, shortest, min_new_tokens=STEPS)
    assert calls[-1] == len(examples) - 9  # five of six that go on are too many to leave one


def test_no_end_comes_before_the_fewest_tokens():
    """Also where rows have left since: the fewest tokens are counted from the first one."""
    model = build("gpt2")
    examples = mixed(model)
    end = model.lm.end

    def insist(module, inputs, logits):
        return logits.index_fill(-1, torch.tensor([end]), 1e4)

    handle = model.lm.model.lm_head.register_forward_hook(insist)
    ends: list[int] = []

    def take(tokens):
        steps.append(1)
        ends.extend(len(steps) for token in tokens[-2:] if token == end)
        return [number >= 12 or len(steps) < 2 for number in range(len(tokens))]

    steps: list[int] = []
    config = DecodingConfig(max_new_tokens=STEPS, min_new_tokens=5)
    write_live(model, examples, config, take)
    handle.remove()
    assert ends[:2] == [6, 6]
