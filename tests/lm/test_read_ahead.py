"""Rows that are read ahead without their padding get the scores of rows that are padded."""

from dataclasses import replace

import pytest
import torch
from family_checks import FAR, TOLERANCE
from more_families import more_families  # noqa: F401 (a fixture)
from writing_checks import ROWS, WRITERS, build, mixed

from ptune.lm.patches.packing import Packing
from ptune.model.prompt_model import Task
from ptune.model.running.forward import prompt_vectors
from ptune.template.language import Template

CAUSAL = [family for family in WRITERS if family not in ("t5", "bart")]


def written(model, examples, packs):
    """The scores of the first three tokens of each row [3, B, V], and what shapes ran."""
    model.lm.__dict__["packs"] = packs
    shapes: list[tuple[int, int]] = []

    def note(_, given, named):
        ids = named.get("input_ids", given[0] if given else None)
        shapes.append(tuple((named["inputs_embeds"] if ids is None else ids).shape[:2]))

    handle = model.lm.model.register_forward_pre_hook(note, with_kwargs=True)
    learned = prompt_vectors(model, [example.task for example in examples])
    prompts = [learned.places.get(model.tasks[example.task].prompt, -1) for example in examples]
    batch = model.lm.collate([example.fills[0] for example in examples], prompts, "left")
    output = model.lm.write(
        batch,
        learned.vectors,
        learned.prefixes,
        max_new_tokens=3,
        min_new_tokens=3,
        eos_token_id=model.lm.ends,
        pad_token_id=model.lm.tokens.pad,
        output_logits=True,
        return_dict_in_generate=True,
        use_cache=True,
    )
    handle.remove()
    return torch.stack(output.logits), shapes


@pytest.mark.parametrize("family", CAUSAL)
def test_rows_read_ahead_are_padded_rows(family, monkeypatch):
    model = build(family)
    assert model.lm.packs and model.lm.takes_contexts
    examples = mixed(model)
    rows = [example.fills[0] for example in examples]
    width, tokens = max(len(row.ids) for row in rows), sum(len(row.ids) for row in rows)
    expected, shapes = written(model, examples, False)
    assert shapes[0] == (len(rows), width)
    actual, shapes = written(model, examples, True)
    assert shapes == [(1, tokens - len(rows)), *[(len(rows), 1)] * 3]
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=TOLERANCE)
    with monkeypatch.context() as patch:
        right = Packing.spread
        patch.setattr(Packing, "spread", lambda pack, values: right(pack, values).roll(1, 0))
        wrong, _ = written(model, examples, True)
    assert (wrong - expected).abs().max() > FAR, "another row's cache does not show"


def test_the_last_token_may_be_a_learned_one():
    model = build("llama")
    number = model.add(Task("last", Template.parse("{soft:2} {x} {soft:1} {mask}"), None, "y"))
    for place, parameter in enumerate(model.bank.parameters_of(model.tasks[number].prompt)):
        torch.nn.init.normal_(parameter, 0, 0.7, generator=torch.Generator().manual_seed(place))
    examples = model.encode(number, ROWS, labelled=False, room=7)
    expected, _ = written(model, examples, False)
    actual, _ = written(model, examples, True)
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_rows_of_one_token_and_rows_of_one_length():
    model = build("gpt2")
    (example,) = model.encode(4, ROWS[:1], labelled=False, room=7)
    fill = example.fills[0]
    shorter = replace(fill, ids=fill.ids[:1], soft_slots=(-1,), answer_positions=(0,))
    short = replace(example, fills=(shorter,))
    for examples in ([short, example], [short, short], [example, example]):
        expected, _ = written(model, examples, False)
        actual, shapes = written(model, examples, True)
        torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=TOLERANCE)
        assert (shapes[0][0] == 1) == (examples[0] is not examples[1])


def test_rows_are_not_read_ahead_where_their_last_token_changes_what_is_computed():
    """Phi-3 computes all positions of a row otherwise where it has more than twelve."""
    model = build("phi3")
    assert model.lm.switches == (12,)
    (example,) = model.encode(4, ROWS[1:2], labelled=False, room=2)
    fill, examples = example.fills[0], []
    for length in (13, 20):
        ids = (fill.ids * 4)[:length]
        row = replace(fill, ids=ids, soft_slots=(-1,) * length, answer_positions=(length - 1,))
        examples.append(replace(example, fills=(row,)))
    expected, _ = written(model, examples, False)
    actual, shapes = written(model, examples, True)
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=TOLERANCE)
    assert shapes[0] == (2, 20)
