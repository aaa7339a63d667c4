"""Deep prefixes in every family, against keys and values concatenated by hand in plain attention:
scores, losses and gradients of a mixed batch of prefixes, infixes, both depths at once and none.
Each test first shows that a wrong variant is far off."""

import dataclasses
import inspect

import pytest
import reference
import tiny
import torch
from test_families import FAR, ROWS, TOLERANCE, WORDS

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


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
@torch.no_grad()
def test_mixed_batch_is_its_rows_by_hand(family, side):
    model = build(family)
    if side == "left" and not model.lm.pads_left:
        pytest.skip("this LM cannot be padded on the left; test_lm shows that it says so")
    rows = [(e.task, e.fills[0]) for e in examples(model)]
    if side == "left" and model.lm.kind == "encoder-decoder":
        with pytest.raises(ModelError, match="pad on the right"):
            scores(model, rows, side)
        return
    wanted = torch.cat([reference.log_probs(model, task, row) for task, row in rows])

    def far(name, change):
        assert (scores(model, rows, side, change) - wanted).abs().max() > FAR, (
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
            "mask dropped", lambda b: dataclasses.replace(b, attention=torch.ones_like(b.attention))
        )
    if (
        model.lm._offset is not None and not model.lm.route.in_text and family != "modernbert"
    ):  # its rotary positions show gaps only
        far("positions without the prefix", lambda b: dataclasses.replace(b, ahead=None))
    if model.lm.kind == "causal" and not model.lm.route.in_text:
        far("an infix seen by what stands before it", lambda b: dataclasses.replace(b, starts=None))
    torch.testing.assert_close(scores(model, rows, side), wanted, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_losses_and_gradients(family, recompute):
    model = build(family)
    rows = examples(model)
    parameters = list(model.bank.parameters())
    wanted = torch.stack([reference.loss(model, row) for row in rows])
    own = torch.autograd.grad(wanted.sum(), parameters)
    assert all(gradient.abs().max() > 0 for gradient in own)
    model.lm.recompute(recompute)
    found = model.losses(rows)
    gradients = torch.autograd.grad(found.sum(), parameters)
    model.lm.recompute(False)
    torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=TOLERANCE)
    for ours, theirs in zip(gradients, own):
        scale = theirs.abs().max().clamp(min=1)
        torch.testing.assert_close(ours / scale, theirs / scale, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize(
    "family", ["gpt2", "opt", "neox", "llama", "qwen"]
)  # not Gemma: words fall out of its window, a prefix does not
@torch.no_grad()
def test_a_prefix_of_words_is_the_words(family):
    """The LM's own activations of some words, put in front, answer as the words themselves do in
    front of the text."""
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    tokens = model.lm.tokens
    # the words are all that stands before the text, so that the two inputs can be the same
    tokens.before = []
    model.add(
        Task(
            "prefix",
            Template.parse('{prefix:"the capital of"} {subject} is {mask}'),
            WORDS,
            prefix=PrefixSettings(hidden=0),
        )
    )
    model.add(Task("manual", Template.parse("{subject} is {mask}"), WORDS))
    words = tokens.follow(" the capital of")

    def spelt(fill):
        return dataclasses.replace(
            fill,
            ids=(*words, *fill.ids),
            soft_slots=(-1,) * (len(words) + len(fill.ids)),
            prefix=(),
            answer_positions=tuple(at + len(words) for at in fill.answer_positions),
        )

    prefixed = model.encode(0, ROWS)
    alone = [
        dataclasses.replace(
            e, task=1, fills=tuple(dataclasses.replace(fill, prefix=()) for fill in e.fills)
        )
        for e in prefixed
    ]
    wanted = torch.stack(
        model.scores(
            [dataclasses.replace(e, task=1, fills=tuple(map(spelt, e.fills))) for e in prefixed]
        )
    )
    assert (wanted - torch.stack(model.scores(alone))).abs().max() > FAR, (
        "the words do not show, so this test could not fail"
    )
    torch.testing.assert_close(
        torch.stack(model.scores(prefixed)), wanted, atol=TOLERANCE, rtol=TOLERANCE
    )


@pytest.mark.parametrize("family", ["gpt2", "opt", "neox", "llama", "qwen", "t5"])
@torch.no_grad()
def test_a_prefix_is_a_seeded_cache(family):
    """transformers' own cache, filled with the prefix by hand, gives the same scores at every
    position."""
    from transformers import DynamicCache, EncoderDecoderCache

    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    lm = model.lm
    attentions = ("decoder",) if lm.kind == "encoder-decoder" else ()
    model.add(
        Task(
            "prefix",
            Template.parse("{prefix:4} {subject} is {mask}"),
            WORDS,
            prefix=PrefixSettings(0, attentions=attentions),
        )
    )
    torch.nn.init.normal_(next(model.bank.parameters()), 0, 0.7)
    row = model.encode(0, ROWS[2:])[0].fills[0]
    found = scores(model, [(0, row)])
    prefix, cache = model.bank.prefixes[0](), DynamicCache()
    own = [site for site in lm.route.sites if site.group in ("self", "decoder")]
    name = next(
        name
        for name in ("cache", "past_key_values")
        if name in inspect.signature(lm.model.forward).parameters
    )
    for layer, site in enumerate(own):
        keys, values = (
            prefix[:, site.first : site.first + site.width]
            .reshape(4, 2, site.heads, site.size)
            .permute(1, 2, 0, 3)[:, None]
        )
        cache.update(keys, values, layer)
    if attentions:
        ids = {
            "decoder_input_ids": torch.tensor([row.decoder]),
            "input_ids": torch.tensor([row.ids]),
        }
        output = lm.model(**ids, **{name: EncoderDecoderCache(cache, DynamicCache())})
    else:
        ids = {
            "input_ids": torch.tensor([row.ids]),
            "attention_mask": torch.ones(1, 4 + len(row.ids)),
        }
        if lm._offset is not None:
            ids["position_ids"] = torch.arange(4, 4 + len(row.ids))[None] + lm._offset
        output = lm.model(**ids, **{name: cache})
    torch.testing.assert_close(
        found,
        output.logits[0, list(row.answer_positions)].log_softmax(-1),
        atol=TOLERANCE,
        rtol=TOLERANCE,
    )
