"""Deep prefixes in every family, against keys and values concatenated by hand in plain attention:
scores, losses and gradients of a mixed batch of prefixes, infixes, both depths at once and none.
Each test first shows that a wrong variant is far off."""

import dataclasses
import inspect

import pytest
import tiny
import torch
from family_checks import FAR, ROWS, TOLERANCE, WORDS
from prefix_family_checks import (
    check_losses_and_gradients,
    check_mixed_batch_by_hand,
    scores,
)

from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.template.language import Template


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_mixed_batch_is_its_rows_by_hand(family, side):
    check_mixed_batch_by_hand(family, side)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_losses_and_gradients(family):
    check_losses_and_gradients(family, recomputed=(False, True))


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
            answer_positions=tuple(position + len(words) for position in fill.answer_positions),
        )

    prefixed = model.encode(0, ROWS)
    alone = [
        dataclasses.replace(
            e, task=1, fills=tuple(dataclasses.replace(fill, prefix=()) for fill in e.fills)
        )
        for e in prefixed
    ]
    expected = torch.stack(
        model.scores(
            [dataclasses.replace(e, task=1, fills=tuple(map(spelt, e.fills))) for e in prefixed]
        )
    )
    assert (expected - torch.stack(model.scores(alone))).abs().max() > FAR, (
        "the words do not show, so this test could not fail"
    )
    torch.testing.assert_close(
        torch.stack(model.scores(prefixed)), expected, atol=TOLERANCE, rtol=TOLERANCE
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
    actual = scores(model, [(0, row)])
    prefix, cache = model.bank.prefixes[0](), DynamicCache()
    sites = [site for site in lm.route.sites if site.group in ("self", "decoder")]
    name = next(
        name
        for name in ("cache", "past_key_values")
        if name in inspect.signature(lm.model.forward).parameters
    )
    for layer, site in enumerate(sites):
        keys, values = (
            prefix[:, site.start : site.end]
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
        if lm.forward.offset is not None:
            ids["position_ids"] = torch.arange(4, 4 + len(row.ids))[None] + lm.forward.offset
        output = lm.model(**ids, **{name: cache})
    torch.testing.assert_close(
        actual,
        output.logits[0, list(row.answer_positions)].log_softmax(-1),
        atol=TOLERANCE,
        rtol=TOLERANCE,
    )
