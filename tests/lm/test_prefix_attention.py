"""How deep prefixes enter LMs beyond those of tiny.py, which LMs are refused and why, gradient
checkpointing, number formats, LMs that lose the gradient, and what else goes wrong with prefixes
elsewhere. Each comparison first shows that a wrong variant is far outside the tolerance."""

import dataclasses
import threading
import weakref

import prefix_family_checks as deep
import pytest
import reference
import tiny
import torch
import transformers
import writing_checks as decoding
from family_checks import FAR, ROWS, TOLERANCE, WORDS
from more_families import (  # noqa: F401 (more_families is a fixture)
    BY_ATTENTION,
    BY_LENGTH,
    ENCODER_DECODER,
    MORE,
    SLIDING,
    STATES,
    Losing,
    gpt,
    more_families,
)

from ptune.errors import ConfigError, ModelError, TemplateError
from ptune.lm import batching
from ptune.lm.language_model import LanguageModel
from ptune.lm.patches.prefixes import prefix_attention
from ptune.lm.patches.prefixes.attention_route import AttentionRoute
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.model.running.generate import write, write_all
from ptune.settings import DecodingConfig, TrainConfig
from ptune.template.language import Template
from ptune.training.loop import fit

DROPOUTS = {
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "albert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "deberta": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "llama": ("attention_dropout",),
    "opt": ("dropout", "attention_dropout", "layerdrop"),
    "t5": ("dropout_rate",),
    "bart": (
        "dropout",
        "attention_dropout",
        "activation_dropout",
        "encoder_layerdrop",
        "decoder_layerdrop",
    ),
}


def one(family: str, template: str, prefix: PrefixSettings | None = None, **more) -> PromptModel:
    """One prompt with wide values."""
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    model.add(
        Task(
            "t",
            Template.parse(template),
            WORDS,
            encoder="table",
            prefix=prefix or PrefixSettings(0),
            **more,
        )
    )
    for parameter in model.bank.parameters():
        torch.nn.init.normal_(
            parameter, 0, 0.7, generator=torch.Generator().manual_seed(parameter.numel())
        )
    return model


# More families, by hand.


@pytest.mark.parametrize(
    "name, side",
    [
        (name, side)
        for name in MORE
        for side in ("right", "left")
        if side == "right" or name not in ENCODER_DECODER
    ],
)
def test_scores_of_more_families(name, side):
    deep.check_mixed_batch_by_hand(name, side)
    assert deep.build(name).lm.route.name == (
        "attention" if name in BY_ATTENTION else "layer inputs"
    )


@pytest.mark.parametrize("name", MORE)
def test_gradients_of_more_families(name):
    tolerance = 5 * TOLERANCE  # T5 does not scale its scores, which rounds more
    deep.check_losses_and_gradients(name, recomputed=(False, True), tolerance=tolerance)


@pytest.mark.parametrize("name", [name for name in MORE if name not in ("mpnet", "eager bert")])
def test_texts_of_more_families(name):
    decoding.check_mixed_batch_with_cache(name)


@pytest.mark.parametrize("name", ["gemma3", "t5gemma", "mt5", "bloom"])
@torch.no_grad()
def test_the_first_step_of_a_text_is_what_is_scored(name):
    """The logits themselves, also of an LM whose texts are much alike."""
    model = decoding.build(name)

    def first_step(example) -> torch.Tensor:
        seen = []
        handle = model.lm.model.register_forward_hook(
            lambda *call: seen.append(call[2].logits[0, -1])
        )
        write(model, [example], DecodingConfig(max_new_tokens=1))
        handle.remove()
        return seen[0].log_softmax(-1)

    for example in decoding.mixed(model, decoding.ROWS[:1]):
        expected = reference.log_probs(model, example.task, example.fills[0])[0]
        if example.fills[0].prefix:
            assert (
                first_step(
                    dataclasses.replace(
                        example,
                        task=4,
                        fills=model.encode(4, [example.row], labelled=False)[0].fills,
                    )
                )
                - expected
            ).abs().max() > FAR
        torch.testing.assert_close(first_step(example), expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("name", ["mistral", "mt5", "falcon", "gptj", "bloom"])
def test_beams_of_more_families(name):
    decoding.check_beams_of_a_batch(name)


@torch.no_grad()
def test_rows_without_a_prefix_beside_a_bank_with_some():
    """Where prefixes are layer inputs, a batch of rows that all have none is no fault."""
    model = deep.build("falcon")
    rows = deep.examples(model)
    expected = torch.stack([reference.label_scores(model, row) for row in rows])
    torch.testing.assert_close(
        torch.stack(model.scores(rows, rows=1)), expected, atol=TOLERANCE, rtol=TOLERANCE
    )


def test_a_multimodal_lm_is_the_lm_in_it():
    """Its config has layers and positions in a part, which is not to lack them."""
    text = dict(SLIDING, vocab_size=len(gpt()))
    vision = dict(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    config = transformers.Gemma3Config(
        text_config=text,
        vision_config=vision,
        image_token_index=5,
        boi_token_index=6,
        eoi_token_index=7,
    )
    torch.manual_seed(0)
    lm = LanguageModel(transformers.AutoModelForCausalLM.from_config(config), gpt())
    assert lm.route.name == "attention" and len(lm.route.sites) == 2 and lm.max_length == 80


@pytest.mark.parametrize("name", BY_LENGTH)
def test_lms_that_compute_by_length(name):
    """Rotary factors and chunks of attention that begin at a length, with rows on both sides of
    it."""
    lengths = {
        len(row.ids) + len(row.prefix)
        for example in deep.examples(deep.build(name))
        for row in example.fills
    }
    assert min(lengths) < 8 and max(lengths) > 12
    deep.check_losses_and_gradients(name)
    if name not in ("phi3", "phimoe"):  # below
        decoding.check_mixed_batch_with_cache(name)


@torch.no_grad()
def test_rows_that_would_change_each_other_share_no_call():
    model = deep.build("phi3")
    rows = [(example.task, example.fills[0]) for example in deep.examples(model)]
    assert model.lm.switches == (12,)
    with pytest.raises(
        ModelError, match="where one has more than 12 tokens: run longer rows apart"
    ):
        deep.scores(model, rows)
    model = decoding.build("phi3")
    with pytest.raises(
        ModelError,
        match="computes otherwise from 12 tokens on, and 7 new ones behind a row of 9 would go "
        "beyond",
    ):
        write(model, decoding.mixed(model), decoding.SHORT)
    few = DecodingConfig(max_new_tokens=2)
    examples = decoding.mixed(model)
    assert {model.lm.side(example.fills[0]) for example in examples} == {0, 1}
    assert write(model, examples, few) == [
        decoding.alone(model, example, 2) for example in examples
    ]


def test_a_length_from_which_a_row_changes_others_is_the_longest_that_is_taken(monkeypatch):
    """An LM with something that begins at a length and that nobody knows."""
    network, tokenizer = tiny.tiny("mistral")
    forward = network.model.forward

    def warped(*given, **named):
        output = forward(*given, **named)
        if named["attention_mask"].shape[1] > 8 and (named["attention_mask"] == 0).any():
            output.last_hidden_state = 2 * output.last_hidden_state
        return output

    assert LanguageModel(network, tokenizer).max_length == 80
    monkeypatch.setattr(network.model, "forward", warped)
    monkeypatch.setattr(batching, "PADDED", 1.0)
    monkeypatch.setattr("ptune.lm.trials.trial.Trial.same_padded", lambda *_: True)
    assert LanguageModel(network, tokenizer).max_length == 8


# Which attentions a prefix enters.


@pytest.mark.parametrize("name", ["t5", "bart", "mt5"])
@torch.no_grad()
def test_a_prefix_enters_the_attentions_that_it_is_for(name):
    """PEFT's enters the decoder's own only: its encoder's output is as without a prefix, its cross
    attention has none."""
    model = PromptModel(LanguageModel(*tiny.tiny(name)))
    for group in ("encoder", "decoder", "cross", "none"):
        template = "{x} is" if group == "none" else "{prefix:3} {x} is"
        model.add(
            Task(
                group,
                Template.parse(template),
                None,
                "y",
                prefix=PrefixSettings(0, attentions=(group,)),
            )
        )
    for parameter in model.bank.parameters():
        torch.nn.init.normal_(parameter, 0, 0.7, generator=torch.Generator().manual_seed(0))
    encoded, attended, scores = {}, {}, {}
    for number, group in enumerate(("encoder", "decoder", "cross", "none")):
        handle = model.lm.model.get_encoder().register_forward_hook(
            lambda *call, group=group: encoded.update({group: call[2][0]})
        )
        row = model.encode(number, [{"x": "Vienna", "y": "great film"}])[0]
        cross = next(
            module
            for key, module in model.lm.model.named_modules()
            if key.endswith(("encoder_attn", "EncDecAttention"))
        )
        other = cross.register_forward_hook(
            lambda *call, group=group: attended.update({group: call[2][0]})
        )
        scores[group] = deep.scores(model, [(number, row.learn[0])])
        handle.remove()
        other.remove()
    for group in ("encoder", "decoder", "cross"):
        assert (scores[group] - scores["none"]).abs().max() > FAR, group
        assert torch.allclose(encoded[group], encoded["none"], atol=TOLERANCE) == (
            group != "encoder"
        ), group
    assert (attended["cross"] - attended["none"]).abs().max() > FAR


@torch.no_grad()
def test_an_encoder_that_cannot_be_reached():
    """LongT5's encoder does not go through the attention interface: a prefix for all attentions is
    refused, one for the others is right."""
    with pytest.raises(
        ConfigError, match="no attention 'encoder' for a prefix to enter. .*decoder"
    ):
        one("longt5", "{prefix:3} {subject} is {mask}")
    model = one(
        "longt5",
        "{prefix:3} {subject} is {mask}",
        PrefixSettings(0, attentions=("decoder", "cross")),
    )
    assert [site.group for site in model.lm.route.sites] == ["decoder", "cross"] * 2
    rows = [(0, e.fills[0]) for e in model.encode(0, ROWS)]
    expected, actual = (
        torch.cat([reference.log_probs(model, 0, row) for _, row in rows]),
        deep.scores(model, rows),
    )
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # the cross attention taken for the decoder's own gets a relative bias
        patch.setattr(
            model.lm.route,
            "sites",
            [dataclasses.replace(site, group="decoder") for site in model.lm.route.sites],
        )
        bias = next(
            module
            for module in model.lm.model.get_decoder().modules()
            if hasattr(module, "relative_attention_bias")
        )
        for module, home in prefix_attention.homes.items():
            if type(module) is type(bias) and home.sites:
                patch.setattr(home, "bias", weakref.ref(bias))
        assert (deep.scores(model, rows) - expected).abs().max() > FAR
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=TOLERANCE)


# Refusals, with the reason.


@pytest.mark.parametrize("name", STATES)
def test_layers_that_keep_a_state_take_no_prefix_and_soft_tokens_work(name):
    model = PromptModel(LanguageModel(*tiny.tiny(name)))
    with pytest.raises(
        ModelError,
        match=r"takes no prefix: .*keep a state instead of keys and values. Soft tokens "
        r"\(\{soft:5\}\) work",
    ):
        model.add(Task("deep", Template.parse("{prefix:3} {x} is {mask}"), None, "y"))
    for number, text in enumerate(
        ["{soft:3} {x} is {mask}", "{x} {soft:2} is {mask}", "The {x} is {mask}"]
    ):
        model.add(Task(f"task {number}", Template.parse(text), None, "y", encoder="table"))
    for parameter in model.bank.parameters():
        torch.nn.init.normal_(
            parameter, 0, 0.7, generator=torch.Generator().manual_seed(parameter.numel())
        )
    rows = [
        example
        for task in range(3)
        for example in model.encode(task, [{**row, "y": "a film"} for row in decoding.ROWS])
    ]
    expected = torch.stack(
        [
            -sum(values[k, token] for k, token in enumerate(row.answer))
            for row in rows
            for values in [reference.log_probs(model, row.task, row.learn[0])]
        ]
    )
    torch.testing.assert_close(model.losses(rows), expected, atol=10 * TOLERANCE, rtol=TOLERANCE)
    model.losses(rows).sum().backward()
    assert all((parameter.grad.abs().sum(1) > 0).all() for parameter in model.bank.parameters())
    model.lm.check_gradients(soft=True, deep=False)
    if name == "bamba":
        with pytest.raises(
            ModelError,
            match="transformers does not let BambaForCausalLM write so: You passed `inputs_embeds`",
        ):
            write(model, rows, decoding.SHORT)
        return
    examples = decoding.mixed(model)
    expected = [decoding.alone(model, example, 7) for example in examples]
    assert len(set(expected)) >= 4 and write(model, examples, decoding.SHORT) == expected


def test_keys_wider_than_values_do_not_enter_by_attention():
    """DeepSeek's: another way in is taken (above), and the LM's own attention is put back."""
    network, tokenizer = tiny.tiny("deepseek")
    lm, before = LanguageModel(network, tokenizer), network.config._attn_implementation
    with pytest.raises(ModelError, match="keys and values of DeepseekV3Attention differ in shape"):
        AttentionRoute(network, lambda: network(torch.tensor([[5, 6, 7]])), causal=True)
    assert network.config._attn_implementation == before and lm.route.name == "layer inputs"


@pytest.mark.parametrize(
    "name, reason",
    [
        (
            "led",
            "LEDForConditionalGeneration does not go through transformers' attention interface; "
            ".* has an encoder and a decoder",
        ),
        (
            "squeezebert",
            "SqueezeBertForMaskedLM does not go through .*; SqueezeBertForMaskedLM does not run "
            "its 2 layers once each",
        ),
    ],
)
def test_lms_with_no_way_in(name, reason):
    lm = LanguageModel(*tiny.tiny(name))
    for _ in range(2):  # the second time it is not taken for found
        with pytest.raises(
            ModelError, match=rf"takes no prefix: {reason}.*Soft tokens \(\{{soft:5\}}\) work"
        ):
            _ = lm.route


def test_a_layer_that_a_prefix_would_miss_is_told():
    network, tokenizer = tiny.tiny("llama")
    network.config.num_hidden_layers = 3
    with pytest.raises(
        ModelError,
        match="only 2 of the 3 layers of LlamaForCausalLM go through .*; .* keeps its layers in "
        "no list of 3",
    ):
        _ = LanguageModel(network, tokenizer).route
    lm = LanguageModel(*tiny.tiny("gpt-neo"))
    route = lm.route
    lm.model.transformer.h[1].forward = lambda hidden_states, *_, **__: lm.embed(
        torch.zeros(hidden_states.shape[:2], dtype=torch.long)
    )
    with pytest.raises(ModelError, match="does not take a prefix into account at every layer"):
        lm.trial().check_prefix(route)


# Training: gradients, checkpointing, number formats.


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_every_prefix_vector_gets_a_gradient_at_every_layer_and_the_lm_none(name):
    """Elsewhere half of an encoder-decoder's vectors are never read, and are counted and saved all
    the same."""
    model = one(name, "{prefix:3} {subject} is {mask}")
    model.losses(model.encode(0, ROWS)).sum().backward()
    gradient = model.bank.prefixes[0].encoder.embedding.weight.grad
    assert gradient.shape == (3, model.lm.route.width)
    assert all(
        (gradient[:, first:end].abs().amax(1) > 0).all() for first, end in model.lm.route.parts
    )
    assert sum(end - first for first, end in model.lm.route.parts) == model.lm.route.width
    assert all(parameter.grad is None for parameter in model.lm.model.parameters())


@pytest.mark.parametrize("name", DROPOUTS)
def test_recomputing_keeps_less_and_wakes_no_dropout(name, monkeypatch):
    *entry, shape = tiny.FAMILIES[name]
    monkeypatch.setitem(tiny.FAMILIES, name, (*entry, shape | dict.fromkeys(DROPOUTS[name], 0.5)))
    model = deep.build(name)
    rows, parameters = deep.examples(model), list(model.bank.parameters())

    def run() -> tuple[torch.Tensor, tuple[torch.Tensor, ...], int]:
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda value: kept.append(value.numel()) or value, lambda value: value
        ):
            losses = model.losses(
                rows
            )  # what the layers keep under checkpointing is not seen from here
        return losses, torch.autograd.grad(losses.sum(), parameters), sum(kept)

    expected, expected_gradients, whole = run()
    model.lm.model.train()
    assert (model.losses(rows) - expected).abs().max() > FAR, "dropout does not show"
    model.lm.model.eval()
    model.lm.recompute(True)
    actual, gradients, kept = run()
    model.lm.recompute(False)
    assert kept < whole / 2 and not any(module.training for module in model.lm.model.modules())
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=TOLERANCE)
    for ours, theirs in zip(gradients, expected_gradients):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=TOLERANCE)
    assert run()[2] == whole, "recomputing is not off again"


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5", "opt"])
def test_transformers_own_checkpointing_is_no_harm(name):
    """Switched on beneath a prefix, it crashes elsewhere, or no gradient comes back."""
    model = deep.build(name)
    rows, parameters = deep.examples(model), list(model.bank.parameters())
    expected = torch.autograd.grad(model.losses(rows).sum(), parameters)
    model.lm.model.activation_checkpointing_enable()
    assert all(gradient.abs().max() > 0 for gradient in expected)
    torch.testing.assert_close(
        torch.autograd.grad(model.losses(rows).sum(), parameters),
        expected,
        atol=TOLERANCE,
        rtol=TOLERANCE,
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "t5", "falcon"])
def test_gradients_in_half_precision_are_those_of_float32(name, dtype):
    """Prompts stay in float32."""
    actual = []
    for weights_dtype in (torch.float32, dtype):
        network, tokenizer = tiny.tiny(name)
        for parameter in (
            network.parameters()
        ):  # T5 does not scale its scores: with weights so wide a few digits are too few
            parameter.data /= 3 if name == "t5" and parameter.dim() > 1 else 1
        model = PromptModel(LanguageModel(network.to(weights_dtype), tokenizer))
        for number, text in enumerate(
            (
                "{soft:3} {subject} {mask}",
                "{prefix:3} {subject} is {mask}",
                "{prefix:2} The {subject} {soft:2} {mask}",
            )
        ):
            model.add(
                Task(
                    f"task {number}",
                    Template.parse(text),
                    WORDS,
                    encoder="table",
                    prefix=PrefixSettings(0),
                )
            )
        for number, parameter in enumerate(model.bank.parameters()):
            torch.nn.init.normal_(
                parameter, 0, 0.7, generator=torch.Generator().manual_seed(number)
            )
        losses = model.losses(
            [example for task in range(3) for example in model.encode(task, ROWS)]
        )
        actual.append(torch.autograd.grad(losses.sum(), list(model.bank.parameters())))
        assert losses.dtype == torch.float32 and all(
            gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in actual[-1]
        )
    for full, half in zip(*actual):

        def likeness(other, full=full):
            return float(torch.cosine_similarity(other.flatten(), full.flatten(), dim=0))

        assert likeness(half.roll(1, 0)) < 0.7 and likeness(half) > 0.99


@pytest.mark.parametrize("name", ["llama", "bert", "t5", "falcon"])
def test_lms_that_lose_the_gradient_serve_but_do_not_train(name):
    network, tokenizer = tiny.tiny(name)
    model = PromptModel(LanguageModel(network, tokenizer))
    for text in (
        "{soft:3} {subject} is {mask}",
        "{prefix:3} {subject} is {mask}",
        "{prefix:3} {subject} is {soft:2} {mask}",
    ):
        model.add(
            Task(text, Template.parse(text), WORDS, encoder="table", prefix=PrefixSettings(0))
        )
    expected = [model.predict(ROWS, task) for task in range(3)]
    head = network.get_output_embeddings()
    layers = [
        module
        for module in network.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    ]
    for module in layers:
        module.__class__ = Losing
    fresh = PromptModel(
        LanguageModel(network, tokenizer), model.bank, model.tasks
    )  # as one that was loaded so
    assert (
        fresh.lm.route.name == model.lm.route.name
        and [fresh.predict(ROWS, task) for task in range(3)] == expected
    )
    for task, lost in enumerate(("soft tokens", "a prefix", "soft tokens and a prefix")):
        with pytest.raises(
            ModelError,
            match=f"No gradient comes back through {type(network).__name__} to {lost}, so nothing "
            "could be learned",
        ):
            fit(fresh, {task: (ROWS, ROWS)}, TrainConfig(epochs=1))
    for module in layers:
        module.__class__ = torch.nn.Linear
    fit(fresh, {0: (ROWS, ROWS), 1: (ROWS, ROWS)}, TrainConfig(epochs=1))


def test_a_gradient_that_one_layer_loses_is_missed():
    network, tokenizer = tiny.tiny("llama")
    model = PromptModel(LanguageModel(network, tokenizer))
    model.add(
        Task("t", Template.parse("{prefix:3} {subject} is {mask}"), WORDS, prefix=PrefixSettings(0))
    )
    network.model.layers[0].self_attn.o_proj.__class__ = Losing
    with pytest.raises(ModelError, match="to a prefix"):
        fit(model, {0: (ROWS, ROWS)}, TrainConfig(epochs=1))


# Rows, threads and room.


@pytest.mark.parametrize("name", ["llama", "bert", "t5", "falcon"])
def test_more_rows_than_the_prefixes_are_for(name):
    """Twice as many would pass for two beams each."""
    model = one(name, "{prefix:3} {subject} is {mask}")
    learned = model.learned([0])
    few, many = (
        model.lm.collate([e.fills[0] for e in model.encode(0, ROWS[:1] * count)], [0] * count)
        for count in (2, 4)
    )
    with (
        pytest.raises(ModelError, match="prefixes of 2 rows do not fit 4 rows"),
        model.lm.route.entering(few, learned.prefixes),
        torch.no_grad(),
    ):
        model.lm.forward.run(many)
    with model.lm.route.entering(few, learned.prefixes, copies=2), torch.no_grad():
        model.lm.forward.run(many)


@pytest.mark.parametrize("name", ["opt", "t5", "falcon"])
@torch.no_grad()
def test_prefixes_where_no_part_takes_the_hook_that_picks_answers(name):
    model = deep.build(name)
    rows = [(e.task, e.fills[0]) for e in deep.examples(model)]
    expected = deep.scores(model, rows)
    assert (expected[:3] - expected[3:6]).abs().max() > FAR
    model.lm.forward.gathers[0]._forward_hooks.clear()
    model.lm.forward.gathers = []
    torch.testing.assert_close(deep.scores(model, rows), expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("name", ["llama", "bert", "falcon"])
@torch.no_grad()
def test_threads_have_prefixes_of_their_own(name):
    """Two calls at the same moment, held together behind every layer."""
    model = one(name, "{prefix:3} {subject} is {mask}")
    model.add(dataclasses.replace(model.tasks[0].task, name="u"))
    torch.nn.init.normal_(model.bank.parameters_of(1)[0], 0, 0.7)
    rows = [[(e.task, e.fills[0]) for e in model.encode(task, ROWS[:1])] for task in (0, 1)]
    expected = [deep.scores(model, of_task) for of_task in rows]
    assert (expected[0] - expected[1]).abs().max() > FAR
    meeting, actual = threading.Barrier(2), [None, None]
    layers = next(
        module for module in model.lm.model.modules() if isinstance(module, torch.nn.ModuleList)
    )
    for layer in layers:
        layer.register_forward_hook(lambda *_: (meeting.wait(20), None)[1])

    def run(number: int) -> None:
        with torch.no_grad():
            actual[number] = deep.scores(model, rows[number])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(map(torch.equal, actual, expected))


@pytest.mark.parametrize(
    "name, limit", [("gpt2", 80), ("opt", 80), ("roberta", 78), ("gptj", 80), ("mpnet", 78)]
)
@torch.no_grad()
def test_a_prefix_takes_of_the_room_and_nothing_overflows(name, limit):
    """One token more would be behind the last position; elsewhere that is an IndexError in the
    LM."""
    model = one(name, "{prefix:9} {text|shorten} is {mask}")
    example = model.encode(0, [{"text": "a " * 500, "label": "a"}])[0]
    row = example.fills[0]
    assert row.cut and len(row.prefix) == 9 and len(row.ids) + 9 == limit == model.lm.max_length
    torch.testing.assert_close(
        deep.scores(model, [(0, row)]),
        reference.log_probs(model, 0, row),
        atol=TOLERANCE,
        rtol=TOLERANCE,
    )
    longer = dataclasses.replace(row, ids=row.ids[:1] + row.ids, soft_slots=(-1,) + row.soft_slots)
    with pytest.raises((IndexError, RuntimeError)):
        deep.scores(model, [(0, longer)])
    with pytest.raises(TemplateError, match=f"Row 1 of t: .* and {limit} fit"):
        one(name, "{prefix:9} {text} is {mask}").encode(0, [{"text": "a " * 500, "label": "a"}])


@pytest.mark.parametrize("name", ["bart", "recurrentgemma", "rwkv"])
def test_rows_whose_padding_would_show_are_written_for_apart(name):
    """BART's decoder begins with the text before {mask}, of another length in each row; the others
    mind padding on the left."""
    model = PromptModel(LanguageModel(*tiny.tiny(name)))
    model.add(Task("t", Template.parse("{x} {soft:2} is {mask}"), None, "y", encoder="table"))
    examples = model.encode(0, [{"x": "Vienna " * count} for count in (1, 9, 3, 3)], labelled=False)
    assert write(model, examples, decoding.SHORT) == [
        decoding.alone(model, example, 7) for example in examples
    ]
    batch = model.lm.collate(
        [example.fills[0] for example in examples], [0] * 4, "right" if name == "bart" else "left"
    )
    with pytest.raises(
        ModelError, match="of different lengths" if name == "bart" else "rows of equal length"
    ):
        model.lm.write(batch, model.learned([0]).vectors, max_new_tokens=3)
    if name == "rwkv":
        with pytest.raises(ModelError, match="mixes up rows"):
            write_all(model, examples, DecodingConfig(max_new_tokens=3, sample=True, texts=2))


# Nothing is skipped in silence.


@pytest.mark.parametrize("name", ["llama", "bert", "t5", "falcon", "deberta"])
@torch.no_grad()
def test_a_prefix_that_does_not_reach_the_lm_raises(name):
    model = one(name, "{prefix:3} {subject} is {mask}")
    lm, learned, rows = (
        model.lm,
        model.learned([0]),
        [e.fills[0] for e in model.encode(0, ROWS[:2])],
    )
    batch = lm.collate(rows, [0, 0])
    with pytest.raises(ModelError, match="have a prefix, and its values are not given"):
        lm.scores(batch, learned.vectors)
    other = (
        dataclasses.replace(batch, deep=None)
        if lm.route.in_text
        else dataclasses.replace(batch, deep=batch.soft_slots)
    )
    if lm.route.in_text:
        other = dataclasses.replace(other, starts=torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises(ModelError, match="spelt out as layer inputs"):
        lm.scores(other, learned.vectors, learned.prefixes)
    expected = lm.scores(batch, learned.vectors, learned.prefixes)
    if lm.route.in_text:
        short = dataclasses.replace(
            batch, deep=torch.nn.functional.pad(batch.deep, (0, 3), value=-1)
        )
        with pytest.raises(ModelError, match="rows of .* tokens do not fit"):
            lm.scores(short, learned.vectors, learned.prefixes)
        for layer in lm.route.layers:
            layer._forward_pre_hooks.clear()
        with pytest.raises(ModelError, match=r"A prefix did not reach 2 of the 2 layers of"):
            lm.scores(batch, learned.vectors, learned.prefixes)
        return
    lm.model.set_attn_implementation("eager")
    with pytest.raises(ModelError, match=r"A prefix did not reach .* of the .* attentions of"):
        lm.scores(batch, learned.vectors, learned.prefixes)
    lm.model.set_attn_implementation("ptune")
    assert torch.equal(lm.scores(batch, learned.vectors, learned.prefixes), expected)
