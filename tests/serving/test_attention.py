"""Who attends to whom, beside transformers' own attention weights."""

import json

import pytest
import serving_kit
import tiny
import torch
from transformers import DynamicCache

from ptune import LanguageModel, PromptModel, Task, Template, Verbalizer, load
from ptune.errors import ConfigError, ModelError
from ptune.model.running.forward import prompt_vectors
from ptune.model.task import PrefixSettings
from ptune.serving.attention import attention_of
from ptune.serving.problems import Problem

ROW = {"x": "Vienna lies on the Danube"}
WORDS = {"yes": "Yes", "no": "No"}


def prompt_on(family: str, template: str, words=WORDS) -> PromptModel:
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    verbalizer = Verbalizer.from_words(words) if words else None
    task = Task(
        "t", Template.parse(template), verbalizer, encoder="table", prefix=PrefixSettings(0)
    )
    model.add(task)
    torch.manual_seed(1)
    for parameter in model.bank.parameters():
        torch.nn.init.normal_(parameter, 0, 0.7)
    return model


def attention(model: PromptModel, layer: int | None = None, row=ROW):
    return attention_of(model, model.encode_for(row, 1, labelled=False)[0], layer)


def weights_of_transformers(model: PromptModel) -> list[torch.Tensor]:
    """Of each layer [P + T], by transformers' eager attention with the prefix in its cache."""
    lm, example = model.lm, model.encode_for(ROW, 1, labelled=False)[0]
    learned, row = prompt_vectors(model, [0]), example.fills[0]
    network, _ = tiny.tiny(lm_family(model))
    network.set_attn_implementation("eager")
    with torch.no_grad():
        inputs = lm.forward.embed_batch(lm.collate([row], [0]), learned.vectors)
        cache, options = DynamicCache(config=network.config), {}
        if row.prefix:
            for number, site in enumerate(lm.route.sites):
                part = learned.prefixes.values[0, :, site.start : site.end]
                keys, values = part.unflatten(-1, (2, site.heads, site.size)).permute(1, 2, 0, 3)
                cache.update(keys[None], values[None], number)
            options = {"past_key_values": cache}
        output = network(inputs_embeds=inputs, output_attentions=True, **options)
    return [weights[0, :, row.answer_positions[0]].mean(0) for weights in output.attentions]


def lm_family(model: PromptModel) -> str:
    kinds = {"gpt2": "gpt2", "llama": "llama", "qwen3": "qwen", "bert": "bert"}
    return kinds[model.lm.model.config.model_type]


@pytest.mark.parametrize(
    ("family", "template"),
    [
        ("gpt2", "{prefix:3} {soft:2} {x} is {mask}"),
        ("llama", "{prefix:3} {x} is {mask}"),
        ("qwen", "{soft:2} {x} is {soft:2} {mask}"),
        ("bert", "{soft:2} {x} is {mask}"),
        ("gpt2", "{x} is {mask}"),
    ],
)
def test_weights_are_those_of_transformers(family, template):
    model = prompt_on(family, template)
    wanted = weights_of_transformers(model)
    for layer, weights in enumerate(wanted, 1):
        shown = attention(model, layer)
        shares = torch.tensor([one.weight for one in shown.attended])
        assert torch.allclose(shares, weights, atol=1e-5)
        assert abs(float(shares.sum()) - 1) < 1e-5
        others = [other for other in wanted if other is not weights]
        assert all((shares - other).abs().max() > 0.01 for other in others)  # no other layer's
        assert (shown.layer, shown.layers, shown.heads) == (layer, 2, 4)
    assert attention(model) == shown  # the last by default


def test_a_prefix_of_a_masked_lm_has_its_share():
    """By the softmax of the scaled products, written out; in the first layer, whose input is that
    of the LM."""
    model = prompt_on("bert", "{prefix:3} {x} is {mask}")
    row = model.encode_for(ROW, 1, labelled=False)[0].fills[0]
    learned, network = prompt_vectors(model, [0]), model.lm.model
    site = model.lm.route.sites[0]
    with torch.no_grad():
        batch = model.lm.collate([row], [0])
        inner = network.bert.embeddings(
            input_ids=batch.ids,
            token_type_ids=batch.types,
            position_ids=model.lm.forward.positions(batch),
        )[0]
        attend = network.bert.encoder.layer[0].attention.self
        query = attend.query(inner[row.answer_positions[0]]).unflatten(0, (site.heads, site.size))
        keys = attend.key(inner).unflatten(1, (site.heads, site.size))
        part = learned.prefixes.values[0, :, site.start : site.end]
        prefix_keys = part.unflatten(-1, (2, site.heads, site.size))[:, 0]
        scores = torch.einsum("hd,khd->hk", query, torch.cat([prefix_keys, keys]))
        wanted = (scores / site.size**0.5).softmax(-1).mean(0)
        without = torch.einsum("hd,khd->hk", query, keys) / site.size**0.5
    shown = attention(model, 1).attended
    shares = torch.tensor([one.weight for one in shown])
    prefix = torch.tensor([one.kind == "prefix" for one in shown])
    assert torch.allclose(torch.cat([shares[prefix], shares[~prefix]]), wanted, atol=1e-5)
    assert (shares[~prefix] - without.softmax(-1).mean(0)).abs().max() > 0.01


def test_it_is_named_what_is_attended_to_in_the_order_of_the_row():
    shown = attention(prompt_on("gpt2", "Rome {prefix:2} {soft:2} {x} {mask}"), row={"x": "Vienna"})
    kinds = [one.kind for one in shown.attended]
    first = kinds.index("prefix")
    assert first > 0 and kinds[first : first + 4] == ["prefix", "prefix", "soft", "soft"]
    assert [one.text for one in shown.attended[first : first + 4]] == ["1", "2", "1", "2"]
    texts = [one.text for one in shown.attended if one.kind == "token"]
    assert "".join(texts).split() == ["Rome", "Vienna"]


def test_an_encoder_decoder_attends_to_the_tokens_of_its_encoder():
    shown = attention(prompt_on("t5", "{prefix:3} {soft:2} {x} is {mask}"))
    assert [one.kind for one in shown.attended[:5]] == ["prefix"] * 3 + ["soft"] * 2
    assert abs(sum(one.weight for one in shown.attended) - 1) < 1e-5


def test_it_is_refused_with_the_reason(monkeypatch):
    with pytest.raises(ModelError, match="DebertaV2ForMaskedLM does not go through"):
        attention(prompt_on("deberta", "{soft:2} {x} is {mask}"))
    model = prompt_on("gpt2", "{soft:2} {x} is {mask}")
    with pytest.raises(Problem, match="There is no layer 3: the LM has 2"):
        attention(model, 3)
    monkeypatch.setattr("ptune.serving.attention.LONGEST", 4)
    with pytest.raises(ConfigError, match="rows of 4 tokens at most, and this one has"):
        attention(model)
    monkeypatch.undo()
    place = "transformers.models.gpt2.modeling_gpt2.eager_attention_forward"

    def other(module, query, key, value, mask, **options):
        weights = torch.full((1, query.shape[1], 1, key.shape[2]), 1 / key.shape[2])
        return (weights @ value).transpose(1, 2), weights

    monkeypatch.setattr(place, other)
    with pytest.raises(ModelError, match="computes something else than the one that answers"):
        attention(model)
    monkeypatch.setattr(place, None)
    with pytest.raises(ModelError, match="GPT2Attention has no attention function that gives"):
        attention(model)


NAMES = ("film", "deep", "city")


@pytest.fixture(scope="module")
def served(prompts):
    with serving_kit.serving(*(prompts / name for name in NAMES)) as both:
        yield both


def test_the_route_answers_and_no_answer_changes(served, prompts):
    _, client = served
    row = {"rows": [{"prompt": name, "fields": ROW} for name in ("film", "city")]}
    before = client.post("/v1/classify", json=row).json()
    for name in NAMES:
        body = {"prompt": name, "fields": ROW, "layer": 1}
        answer = client.post("/v1/attention", json=body).json()
        wanted = attention(load(prompts / name, serving_kit.lm()), 1)
        assert [one["weight"] for one in answer["attended"]] == pytest.approx(
            [one.weight for one in wanted.attended], abs=1e-6
        )
        assert answer["source"] == ("last token" if name == "deep" else "answer")
    assert client.post("/v1/classify", json=row).json() == before


def test_what_is_wrong_with_a_request_for_attention(served, monkeypatch):
    server, client = served
    cases = [
        ({"prompt": "other", "fields": ROW}, 404, "prompt", "no prompt"),
        ({"prompt": "film", "fields": {"y": "a"}}, 400, "fields", "has no field 'x'"),
        ({"prompt": "film", "fields": ROW, "layer": 9}, 400, "layer", "There is no layer 9"),
        ({"prompt": "film", "fields": ROW, "layer": 0}, 400, "layer", "greater than or equal"),
        ({"prompt": "film", "fields": {"x": float("inf")}}, 400, "fields", "infinite"),
    ]
    for body, status, field, text in cases:
        content = json.dumps(body)
        answer = client.post(
            "/v1/attention", content=content, headers={"content-type": "application/json"}
        )
        assert (answer.status_code, answer.json()["field"]) == (status, field), answer.text
        assert text in answer.json()["detail"]
    for _ in range(4):
        assert server.attentions.acquire(blocking=False)
    full = client.post("/v1/attention", json={"prompt": "film", "fields": ROW})
    assert full.status_code == 429 and full.headers["retry-after"] == "1"
    for _ in range(4):
        server.attentions.release()
    assert client.post("/v1/attention", json={"prompt": "film", "fields": ROW}).status_code == 200
    monkeypatch.setattr(server.scheduler.engine.lm, "switches", (1,))
    answer = client.post("/v1/attention", json={"prompt": "film", "fields": ROW})
    assert answer.status_code == 400 and "keeps a state of its last call" in answer.json()["detail"]


def test_work_that_nobody_waits_for_any_more_holds_nothing_up(served):
    server, _ = served
    scheduler = server.scheduler

    def cancelled_twice():
        first = scheduler.call(lambda: 1 / 0)
        first.cancel()
        return first, scheduler.call(lambda: "done")

    first, second = scheduler.call(cancelled_twice).result(10)
    assert second.result(10) == "done" and first.cancelled()
