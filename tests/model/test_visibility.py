"""Tokens that are hidden from others, against stock networks that get a mask of all pairs by hand,
one row at a time: scores, gradients and texts, padded and packed, beside rows without rules."""

import dataclasses

import pytest
import reference
import torch
import visible_by_hand as plain
from family_checks import FAR, TOLERANCE
from more_families import more_families  # noqa: F401 (a fixture)

from ptune.lm.batching import PADDED
from ptune.lm.patches.packing import Packing
from ptune.model.running.generate import write, write_all, write_live
from ptune.settings import DecodingConfig, TrainConfig
from ptune.training.loop import fit

FAMILIES = ("bert", "roberta", "modernbert", "gpt2", "llama", "qwen", "gemma", "mistral", "t5")
TASKS = range(len(plain.RULES))
ANOTHER = len(plain.RULES)


def encoded(model):
    """Each row by each task, and by one of another template without rules."""
    return [
        (task, row, model.encode(task, [row], labelled=False)[0].fills[0])
        for row in plain.ROWS
        for task in (*TASKS, ANOTHER)
    ]


def scores(model, rows, side="right", packs=False, change=lambda batch: batch):
    learned = model.learned([task for task, *_ in rows])
    prompts = [learned.places[model.tasks[task].prompt] for task, *_ in rows]
    batch = model.lm.collate([row for *_, row in rows], prompts, side)
    packing = Packing(batch.attention, model.lm.device) if packs else None
    batch = dataclasses.replace(batch, packing=packing)
    return model.lm.scores(change(batch), learned.vectors, learned.prefixes).log_softmax(-1)


def by_hand(model, family, task, row, encoded):
    if task == ANOTHER:
        return reference.log_probs(model, task, encoded)
    return plain.log_probs(model, family, task, row, encoded)


@pytest.mark.parametrize("family", [*FAMILIES, "albert", "electra", "opt", "neox"])
@torch.no_grad()
def test_scores_are_those_of_a_mask_by_hand(family):
    model = plain.build(family, texts=family == "t5")
    rows = encoded(model)
    by_row = [by_hand(model, family, *one) for one in rows]
    expected, sizes = torch.cat(by_row), [len(values) for values in by_row]
    dropped = scores(model, rows, change=lambda batch: dataclasses.replace(batch, visibility=None))
    shows = []
    for (task, *_), values, without in zip(rows, by_row, dropped.split(sizes)):
        if task in TASKS[:-1]:
            shows.append((values - without).abs().max() > FAR)
        else:
            torch.testing.assert_close(without, values, atol=TOLERANCE, rtol=TOLERANCE)
    # some answers are too far from the soft tokens to see what they see, where LMs have windows
    assert sum(shows) / len(shows) > (0.5 if family in plain.WINDOWED else 0.9), shows
    swapped = scores(
        model,
        rows,
        change=lambda batch: dataclasses.replace(
            batch, visibility=batch.visibility.of_rows(torch.arange(len(rows)).flip(0))
        ),
    )
    assert (swapped - expected).abs().max() > FAR, "rules of other rows do not show"
    ways = [("right", False)]
    ways += [("left", False)] if model.lm.pads_left else []
    ways += [("right", True)] if model.lm.packs else []
    ways += [("left", True)] if model.lm.packs and model.lm.pads_left else []
    for side, packs in ways:
        torch.testing.assert_close(
            scores(model, rows, side, packs), expected, atol=TOLERANCE, rtol=TOLERANCE
        )
    for one, values in zip(rows, by_row):
        torch.testing.assert_close(scores(model, [one]), values, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("family", ["bert", "gpt2", "qwen", "t5"])
def test_gradients_are_those_of_a_mask_by_hand(family):
    model = plain.build(family, texts=family == "t5")
    parameters = list(model.bank.parameters())
    rows = encoded(model)
    expected = torch.cat([by_hand(model, family, *one) for one in rows])[:, 5].sum()
    gradients = torch.autograd.grad(expected, parameters)
    assert all(gradient.abs().max() > FAR for gradient in gradients)
    for recompute in (False, True):
        for packs in (False, True):
            model.lm.recompute(recompute)
            actual = torch.autograd.grad(scores(model, rows, packs=packs)[:, 5].sum(), parameters)
            model.lm.recompute(False)
            for ours, theirs in zip(actual, gradients):
                scale = theirs.abs().max().clamp(min=1)
                torch.testing.assert_close(ours / scale, theirs / scale, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen", "gemma", "mistral", "t5"])
@torch.no_grad()
def test_texts_are_those_of_recomputing_everything(family):
    """With a cache, read ahead or not, and by steps of which rows leave."""
    model = plain.build(family, texts=True)
    rows = [*plain.ROWS[:2], {"premise": "Rome", "hypothesis": "good"}]
    examples = [
        example for task in TASKS for example in model.encode(task, rows, labelled=False, room=6)
    ]
    encoded = [example.fills[0] for example in examples]
    assert model.lm.collate(encoded, [0] * len(encoded)).padded > PADDED, "no row is read ahead"
    expected = [alone(model, family, example, 6) for example in examples]
    without = [text for n, text in enumerate(expected) if n // 3 == TASKS[-1]] * len(TASKS)
    assert sum(a != b for a, b in zip(expected, without)) > 2, "no rule shows in the texts"
    greedy = DecodingConfig(max_new_tokens=6)
    assert write(model, examples, greedy) == expected
    assert write(model, examples, greedy.model_copy(update={"rows": 1})) == expected
    packs, model.lm.packs = model.lm.packs, False
    assert write(model, examples, greedy) == expected
    model.lm.packs = packs
    beams = DecodingConfig(max_new_tokens=6, beams=3, texts=2)
    together = write_all(model, examples, beams)
    assert together == [write_all(model, [example], beams)[0] for example in examples]
    lengths = [1 + 5 * number % 6 for number in range(len(examples))]
    left = live(model, examples, lengths)
    assert left == [live(model, [e], [count])[0] for e, count in zip(examples, lengths)]
    tokens = live(model, examples, [6] * len(examples))
    ends = [next((n for n, one in enumerate(row) if one in model.lm.ends), 6) for row in tokens]
    decode = model.lm.tokens.tokenizer.decode
    texts = [decode(row[:end], skip_special_tokens=True) for row, end in zip(tokens, ends)]
    assert [text.strip() for text in texts] == expected


def live(model, examples, lengths):
    tokens = [[] for _ in examples]

    def take(step):
        for row, token, length in zip(tokens, step, lengths):
            if len(row) < length and not set(row) & set(model.lm.ends):
                row.append(token)
        return [len(row) < length for row, length in zip(tokens, lengths)]

    write_live(model, examples, DecodingConfig(max_new_tokens=6), take)
    return tokens


def alone(model, family, example, steps):
    """Greedy, one row, everything computed anew at every token, by hand."""
    fitted, ids = model.tasks[example.task], []
    for _ in range(steps):
        row = fitted.template.encode(
            example.row,
            model.lm.tokens,
            model.lm.kind,
            answer=(*ids, None),
            start=model.lm.start,
        )
        values = plain.log_probs(model, family, example.task, example.row, row)
        ids.append(int(values[-1].argmax()))
        if ids[-1] in model.lm.ends:
            break
    decode = model.lm.tokens.tokenizer.decode
    return decode([i for i in ids if i not in model.lm.ends], skip_special_tokens=True).strip()


@torch.no_grad()
def test_beams_are_those_without_a_cache():
    """Of an LM with windows too, whose usual cache drops what is out of them."""
    beams = {"num_beams": 3, "max_new_tokens": 6, "eos_token_id": None, "pad_token_id": 0}
    for family in ("gpt2", "mistral", "gemma3", "llama4", "gpt-oss"):
        model = plain.build(family, texts=True)
        rows = [one for one in encoded(model) if one[0] != ANOTHER]
        learned = model.learned([task for task, *_ in rows])
        prompts = [learned.places[model.tasks[task].prompt] for task, *_ in rows]
        batch = model.lm.collate([row for *_, row in rows], prompts, "left")
        cached = model.lm.write(batch, learned.vectors, copies=3, **beams)
        whole = model.lm.write(batch, learned.vectors, copies=3, use_cache=False, **beams)
        assert torch.equal(cached, whole)


def test_a_bank_trained_together_is_its_prompts_trained_apart():
    """In float64, since Adam makes a rounding of a gradient near 0 a step of its own size."""
    settings = TrainConfig(
        batch_size=2, learning_rate=1e-2, patience=0, epochs=3, evaluate_every=100
    )
    names = list(plain.RULES)
    rules = {name: plain.RULES[name] for name in names[:3]} | {"none": []}

    def trained(chosen):
        named = {name: rules[name] for name in chosen}
        model = plain.build_with("gpt2", plain.TEMPLATE, named, dtype=torch.float64)
        before = [encoder().detach().clone() for encoder in model.bank.encoders]
        fit(model, dict.fromkeys(chosen, (plain.ROWS, plain.ROWS)), settings)
        return before, [encoder().detach() for encoder in model.bank.encoders]

    before, together = trained(rules)
    assert (together[0] - together[-1]).abs().max() > FAR, "the rules do not show"
    for name, begun, of_bank in zip(rules, before, together):
        _, (alone,) = trained([name])
        assert (alone - begun).abs().max() > FAR
        torch.testing.assert_close(of_bank, alone, atol=TOLERANCE, rtol=TOLERANCE)


HIDDEN_PREFIX = [("prefix", "premise"), ("premise", "hypothesis")]


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama"])
@torch.no_grad()
def test_a_prefix_that_some_do_not_see(family):
    model = with_prefix(family)
    learned = model.learned([0, 1])
    rows = [(task, row) for row in plain.ROWS for task in (0, 1)]
    encoded = [model.encode(task, [row], labelled=False)[0].fills[0] for task, row in rows]
    batch = model.lm.collate(encoded, [learned.places[task] for task, _ in rows])
    actual = model.lm.scores(batch, learned.vectors, learned.prefixes).log_softmax(-1)
    expected = []
    for (task, row), one in zip(rows, encoded):
        called = plain.names(model, row, len(one.answer_positions))
        called = called[: len(called) - len(one.ids)] + called[-len(one.ids) :]
        blind = [place for place, names in enumerate(called) if "premise" in names]
        seen = plain.visible(model, HIDDEN_PREFIX if task else [], called)
        prefix = model.bank.prefixes[model.tasks[task].prompt]()
        positions = torch.arange(len(one.ids)) + len(prefix) + (model.lm.forward.offset or 0)
        model.lm.model.set_attn_implementation("eager")
        with reference.by_hand(model.lm, prefix, one.prefix, blind if task else ()):
            logits = plain.run(model, one, task, seen, position_ids=positions[None])
        model.lm.model.set_attn_implementation("ptune")
        expected.append(logits[list(one.answer_positions)].log_softmax(-1))
    expected = torch.cat(expected)
    for change in (
        {"prefix": batch.visibility.prefix * 0},
        {"tokens": batch.visibility.tokens * 0},
    ):
        visibility = dataclasses.replace(batch.visibility, **change)
        other = dataclasses.replace(batch, visibility=visibility)
        wrong = model.lm.scores(other, learned.vectors, learned.prefixes).log_softmax(-1)
        assert (wrong - expected).abs().max() > FAR
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=TOLERANCE)


def with_prefix(family):
    """A prefix that all see, and the same one with rules."""
    return plain.build_with(
        family, "{prefix:3} " + plain.TEMPLATE, {"all": [], "some": HIDDEN_PREFIX}
    )


@torch.no_grad()
def test_a_prefix_that_a_decoder_does_not_see_is_one_of_its_encoder():
    template = "{prefix:3} {premise} and {hypothesis}"
    rules = {"encoder": [("prefix", "mask")], "decoder": [("prefix", ("fields", "words"))]}
    attentions = {"encoder": ("encoder",), "decoder": ("decoder", "cross")}
    for name, pairs in rules.items():
        model = plain.build_with("t5", template, {name: pairs})
        other = plain.build_with("t5", template, {name: []})
        examples = model.encode(0, plain.ROWS, labelled=False)
        plain_examples = other.encode(0, plain.ROWS, labelled=False)
        greedy = DecodingConfig(max_new_tokens=6)
        learned = other.learned([0])
        reach = learned.prefixes.reach * False
        for group in attentions[name]:
            reach[:, slice(*other.lm.route.spans[group])] = True
        partial = dataclasses.replace(learned.prefixes, reach=reach)
        rows = [example.fills[0] for example in plain_examples]
        expected = other.lm.scores(other.lm.collate(rows, [0] * 3), None, partial)
        whole = other.lm.scores(other.lm.collate(rows, [0] * 3), None, learned.prefixes)
        batch = model.lm.collate([example.fills[0] for example in examples], [0] * 3)
        actual = model.lm.scores(batch, None, model.learned([0]).prefixes)
        assert (whole - expected).abs().max() > FAR
        torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=TOLERANCE)
        assert write(model, examples, greedy) == [
            write(model, [example], greedy)[0] for example in examples
        ]


@torch.no_grad()
def test_kept_contexts_beside_rows_with_rules():
    """A row with rules is whole, beside others of which the beginning is kept."""
    behind = "{premise} {hypothesis} and {premise} {soft:2} is {mask}"
    rules = {"rules": [("premise", "hypothesis")], "none": []}
    model = plain.build_with("gpt2", behind, rules)
    examples = [e for task in (0, 1, 1) for e in model.encode(task, plain.ROWS, labelled=False)]
    expected = torch.stack(model.scores(examples))
    assert (expected[:3] - expected[3:6]).abs().max() > FAR
    rows = [example.fills[0] for example in examples]
    with model.lm.keeping_contexts(rows, 100):
        _, tails = model.lm.contexts.split(rows)
        assert [len(tail.ids) for tail in tails[:3]] == [len(row.ids) for row in rows[:3]]
        assert all(len(tail.ids) < len(row.ids) for tail, row in zip(tails[3:], rows[3:]))
        kept = torch.stack(model.scores(examples))
    torch.testing.assert_close(kept, expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_rows_without_rules_cost_nothing(monkeypatch):
    model = plain.build("bert")
    examples = model.encode(ANOTHER, plain.ROWS) + model.encode(TASKS[-1], plain.ROWS)
    monkeypatch.setattr(type(model.lm.route), "hiding", None)
    assert model.scores(examples)
    with pytest.raises(TypeError):
        model.scores(model.encode(0, plain.ROWS))


@torch.no_grad()
def test_more_rules_than_bits_of_a_byte():
    many = [("premise", "premise")] * 11 + [("premise", "mask")]
    few = [("premise", "premise"), ("premise", "mask")]
    model = plain.build_with("bert", plain.TEMPLATE, {"many": many, "few": few, "none": []})
    scores = [torch.stack(model.scores(model.encode(task, plain.ROWS))) for task in range(3)]
    torch.testing.assert_close(scores[0], scores[1], atol=TOLERANCE, rtol=TOLERANCE)
    assert (scores[0] - scores[2]).abs().max() > FAR
