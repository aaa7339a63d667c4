"""A prefix that begins as what a document's own words attend to most, by plain transformers."""

import copy
from types import SimpleNamespace

import pytest
import torch
from documents_kit import TEXT, built, config, lessons_of, lm_of
from transformers import DynamicCache

from ptune.documents.options import DistilConfig
from ptune.documents.teaching import attended_start
from ptune.documents.train_documents import distil
from ptune.errors import ConfigError
from ptune.lm.patches.prefixes import attention_weights

FAMILIES = ("llama", "qwen", "neox", "gpt2", "opt")
SIZE = 10
SETTINGS = DistilConfig(
    documents=["x"], lm="x", start="attended", length=5, slice_tokens=SIZE, cover=2
)


def cache_of(pairs):
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(pairs):
        cache.update(keys, values, layer)
    return cache


def pairs_of(cache):
    return [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers]


@torch.no_grad()
def kept_by_hand(lm, ids, count):
    """The keys and values of the tokens that get most attention in each head, at their own places,
    by an LM whose attention is transformers' eager one."""
    network = copy.deepcopy(lm.model)
    network.set_attn_implementation("eager")
    whole = pairs_of(network(torch.tensor([ids]), use_cache=True).past_key_values)
    heads = whole[0][0].shape[1]
    sums = torch.zeros(len(whole), heads, len(ids))
    line, step = lm.tokens.plain("\n"), SIZE // 2
    for start in range(0, max(1, len(ids) - step), step):
        row = [*line, *ids[start : start + SIZE]]
        places = torch.arange(len(ids), len(ids) + len(row))[None]
        output = network(
            torch.tensor([row]),
            past_key_values=cache_of(whole),
            position_ids=places,
            output_attentions=True,
        )
        for layer, weights in enumerate(output.attentions):  # [1, H, T, S + T]
            for head, of_head in enumerate(weights[0]):
                group = head * heads // weights.shape[1]
                sums[layer, group] += of_head[:, : len(ids)].sum(0)
    kept = []
    for layer, (keys, values) in enumerate(whole):
        chosen = [sorted(of_head.topk(count).indices.tolist()) for of_head in sums[layer]]
        kept.append(
            tuple(
                torch.stack([part[0, head, places] for head, places in enumerate(chosen)])[None]
                for part in (keys, values)
            )
        )
    return kept


@torch.no_grad()
def log_probs(lm, kept, row, first):
    """Of the tokens of a row behind kept keys and values."""
    places = torch.arange(first, first + len(row))[None]
    output = lm.model(torch.tensor([row]), past_key_values=cache_of(kept), position_ids=places)
    return output.logits[0].log_softmax(-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_start_is_the_document_s_cache_without_the_other_tokens(family):
    lm = lm_of(family)
    one = lessons_of(lm, SETTINGS)
    model, _ = built(lm, SETTINGS, one)
    ids, count = [*lm.tokens.before, *one.ids], one.length
    kept = kept_by_hand(lm, ids, count)
    question = {"document": "a", "question": "the capital ?", "answer": "Vienna"}
    (example,) = model.encode(0, [question])
    row, wanted = list(example.learn[0].ids), list(example.learn[0].answer_positions)
    is_relative = attended_start.counts_distances(lm)
    assert is_relative == (family not in ("gpt2", "opt"))
    first = len(ids) if is_relative else count
    scores = log_probs(lm, kept, row, first)[wanted]
    expected = -float(scores.gather(1, torch.tensor(example.answer)[:, None]).sum())
    assert float(model.losses([example])[0].detach()) == pytest.approx(expected, abs=1e-4)
    others = [(keys.flip(1), values.flip(1)) for keys, values in kept]
    wrong = log_probs(lm, others, row, first)[wanted]
    assert (wrong - scores).abs().max() > 1e-2, "other heads' tokens do not show"


def test_with_all_tokens_it_is_the_document():
    lm = lm_of("llama")
    ids = tuple(lm.tokens.start(TEXT))
    whole = attended_start.vectors(lm, [ids], len(ids), SIZE)
    torch.testing.assert_close(whole, lm.activations(ids), atol=1e-5, rtol=1e-5)


def test_stretches_get_parts_of_the_prefix_by_their_lengths():
    lm = lm_of("llama")
    texts = [tuple(lm.tokens.start(text)) for text in (TEXT, TEXT[10:], TEXT[:40])]
    length = sum(map(len, texts)) - 4  # so near to all of them that equal parts would not do
    vectors = attended_start.vectors(lm, texts, length, SIZE)
    assert len(vectors) == length
    begin, before, total = 0, 0, length + 4
    for ids in texts:
        before += len(ids)
        count = length * before // total - begin
        assert 0 < count <= len(ids)
        moved = attended_start._activations(lm, ids, length - len(ids))
        received = attended_start._received(lm, ids, SIZE)
        alone = attended_start._chosen(lm, received, moved, count=count)
        torch.testing.assert_close(vectors[begin : begin + count], alone, atol=0, rtol=0)
        begin += count


def test_an_lm_whose_attention_cannot_be_seen_is_refused_before_the_first_step(
    world, tmp_path, monkeypatch
):
    modules = {"transformers.models.gpt2.modeling_gpt2": object()}
    monkeypatch.setattr(attention_weights, "sys", SimpleNamespace(modules=modules))
    with pytest.raises(ConfigError, match="no attention function that gives its weights.*--start"):
        distil(config(world, tmp_path / "out", start="attended"), lambda line: None)
    assert not (tmp_path / "out" / "prompts").exists()


def test_an_attention_that_adds_up_otherwise_is_not_believed(monkeypatch):
    lm = lm_of("llama")
    monkeypatch.setattr(attention_weights.torch, "allclose", lambda *given, **named: False)
    with pytest.raises(ConfigError, match="computes something else"):
        attended_start.check(lm)
