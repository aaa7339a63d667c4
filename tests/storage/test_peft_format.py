"""Prompts to PEFT and back: what PEFT's own loader makes of our files, and what we make of its.
Logits of both at every place; each comparison first shows that a wrong variant is far outside the
tolerance."""

import dataclasses
import inspect
import json
import pickle
import warnings

import pytest
import tiny
import torch
import transformers
from safetensors.torch import load_file, save_file

from ptune.answers.label_words import Verbalizer
from ptune.errors import ConfigError, StoreError
from ptune.lm.batch import collate
from ptune.lm.language_model import LanguageModel
from ptune.lm.source.loading import local_path
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.storage import peft_format, prompt_folder
from ptune.template.language import Template

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:Position ids are not supported:UserWarning",
    "ignore:`past_key_values` is deprecated:FutureWarning",
    "ignore:Both `past_key_values` and `cache` are set:FutureWarning",
)
RENAMED = "cache" in inspect.signature(transformers.GPT2LMHeadModel.forward).parameters
WRONG_IN_GENERATE = (
    {("gpt2", "{soft:3}"), ("llama", "{prefix:4}"), ("t5", "{prefix:4}")} if RENAMED else set()
)  # as ``ptune export`` says
TOLERANCE = 1e-5
FAR = 100 * TOLERANCE
TEXTS = ["Vienna lies on the Danube", "Is it great ?"]
OUT_SOFT = ("gpt2", "opt", "neox", "qwen", "t5")
OUT_DEEP = ("gpt2", "opt", "neox", "qwen", "llama", "t5")
DECODER = PrefixSettings(hidden=0, attentions=("decoder",))


def build(
    family: str,
    template: str,
    settings: PrefixSettings | None = None,
    verbalizer: Verbalizer | None = None,
) -> PromptModel:
    """One prompt with wide values over a tiny LM."""
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    settings = settings or (
        DECODER if model.lm.kind == "encoder-decoder" else PrefixSettings(hidden=0)
    )
    model.add(Task("t", Template.parse(template), verbalizer, encoder="table", prefix=settings))
    for number, parameter in enumerate(model.bank.parameters()):
        torch.nn.init.normal_(parameter, 0, 0.7, generator=torch.Generator().manual_seed(number))
    return model


def shape(family: str, front: str) -> str:
    return front + (" {x}" if family == "t5" else " {x} = {mask}")


def rows_of(model: PromptModel):
    """The texts as rows that are read at every place, the decoder's in an encoder-decoder."""
    answer = (5, 6, 7) if model.lm.kind == "encoder-decoder" else (None,)
    rows = [
        model.tasks[0].template.encode(
            {"x": text}, model.lm.tokens, model.lm.kind, answer=answer, start=model.lm.start
        )
        for text in TEXTS
    ]
    return [
        dataclasses.replace(row, answer_positions=tuple(range(len(row.decoder or row.ids))))
        for row in rows
    ]


@torch.no_grad()
def ours(model: PromptModel, rows, side="right", **changed) -> torch.Tensor:
    learned = model.learned([0])
    batch = dataclasses.replace(model.lm.collate(rows, [0] * len(rows), side), **changed)
    return model.lm.scores(batch, learned.vectors, learned.prefixes)


@torch.no_grad()
def theirs(wrapped, rows, side="right") -> torch.Tensor:
    """PEFT's logits of the same rows; its soft tokens are not among the ids, and stand before the
    logits of a causal LM."""
    bare = [
        dataclasses.replace(
            row,
            ids=(kept := tuple(token for token, slot in zip(row.ids, row.soft_slots) if slot < 0)),
            soft_slots=(-1,) * len(kept),
            prefix=(),
        )
        for row in rows
    ]
    batch = collate(bare, [-1] * len(rows), 0, side)
    inputs = {"input_ids": batch.ids, "attention_mask": batch.attention}
    if batch.decoder is not None:
        inputs |= {
            "decoder_input_ids": batch.decoder,
            "decoder_attention_mask": batch.decoder_attention,
        }
    logits = wrapped(**inputs).logits
    soft = [sum(slot >= 0 for slot in row.soft_slots) if row.decoder is None else 0 for row in rows]
    widths = [
        len(row.decoder or bare_row.ids) + count for row, bare_row, count in zip(rows, bare, soft)
    ]
    if side == "left":
        return torch.cat(
            [
                torch.cat([row_logits[:count], row_logits[len(row_logits) - width + count :]])
                for row_logits, width, count in zip(logits, widths, soft)
            ]
        )
    return torch.cat([row_logits[:width] for row_logits, width in zip(logits, widths)])


def in_peft(family: str, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PEFT warns of what it does not know or lacks
        return peft.PeftModel.from_pretrained(tiny.tiny(family)[0], str(folder)).eval()


def tampered(folder, change):
    file = folder / peft_format.WEIGHTS
    save_file(
        {"prompt_embeddings": change(load_file(file)["prompt_embeddings"]).contiguous()}, file
    )


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


# To PEFT.


@pytest.mark.parametrize("front", ["{soft:3}", "{soft:2@a}{soft:1}{soft@a}"])
@pytest.mark.parametrize("family", OUT_SOFT)
def test_soft_tokens_answer_in_peft_as_here(family, front, tmp_path):
    model = build(family, shape(family, front))
    peft_format.export(model, tmp_path)
    rows = rows_of(model)
    ptune_logits, peft_logits = ours(model, rows), theirs(in_peft(family, tmp_path), rows)
    tampered(tmp_path, lambda values: values.roll(1, 0))
    assert distance(theirs(in_peft(family, tmp_path), rows), ptune_logits) > FAR, (
        "rolled tokens do not show"
    )
    torch.testing.assert_close(peft_logits, ptune_logits, atol=TOLERANCE, rtol=TOLERANCE)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


@pytest.mark.parametrize("front", ["{prefix:4}", '{prefix:"the capital of"}'])
@pytest.mark.parametrize("family", OUT_DEEP)
def test_a_prefix_answers_in_peft_as_here(family, front, tmp_path):
    model = build(family, shape(family, front))
    peft_format.export(model, tmp_path, "t")
    rows = rows_of(model)
    ptune_logits, peft_logits = ours(model, rows), theirs(in_peft(family, tmp_path), rows)
    whole, parts = (
        load_file(tmp_path / peft_format.WEIGHTS)["prompt_embeddings"],
        4 if family == "t5" else 2,
    )
    wrong = {
        "keys and values swapped": whole.unflatten(1, (parts, 2, -1)).flip(2),
        "layers swapped": whole.unflatten(1, (2, -1)).flip(1),
        "heads swapped": whole.unflatten(1, (parts, 2, -1, model.lm.route.sites[0].size)).flip(3),
    }
    for name, values in wrong.items():
        tampered(tmp_path, lambda _, values=values: values.flatten(1))
        assert distance(theirs(in_peft(family, tmp_path), rows), ptune_logits) > FAR, (
            f"{name} does not show"
        )
    if family == "t5":  # nearer and farther prefix vectors are told apart by the relative bias
        tampered(tmp_path, lambda _: whole.flip(0))
        assert distance(theirs(in_peft(family, tmp_path), rows), ptune_logits) > FAR, (
            "shifted positions do not show"
        )
    else:
        assert distance(ours(model, rows, ahead=None), peft_logits) > FAR, (
            "positions that do not count the prefix do not show"
        )
    torch.testing.assert_close(peft_logits, ptune_logits, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize(
    "family, front",
    [
        ("gpt2", "{soft:3}"),
        ("gpt2", "{prefix:4}"),
        ("llama", "{prefix:4}"),
        ("t5", "{soft:3}"),
        ("t5", "{prefix:4}"),
    ],
)
def test_peft_writes_what_we_write(family, front, tmp_path):
    """One row at a time, since PEFT cannot pad on the left."""
    model = build(family, shape(family, front))
    peft_format.export(model, tmp_path)
    wrapped = in_peft(family, tmp_path)
    learned, length = model.learned([0]), 6
    settings = {
        "max_new_tokens": length,
        "min_new_tokens": length,
        "eos_token_id": model.lm.end,
        "pad_token_id": model.lm.tokens.pad,
        "do_sample": False,
    }
    if family == "t5":
        settings["no_repeat_ngram_size"] = (
            1  # the tiny one says the same token again and again, whatever the prompt
        )
    plain = model.tasks[0].template.encode(
        {"x": TEXTS[0]}, model.lm.tokens, model.lm.kind, start=model.lm.start
    )
    ids = torch.tensor([[token for token, slot in zip(plain.ids, plain.soft_slots) if slot < 0]])
    peft_ids = wrapped.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
    ptune_ids = model.lm.write(
        model.lm.collate([plain], [0], "left" if model.lm.kind == "causal" else "right"),
        learned.vectors,
        learned.prefixes,
        **settings,
    )
    base = tiny.tiny(family)[0].generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), **settings
    )
    with_prompt, in_peft_ids, bare = (
        ids[0, -length:].tolist() for ids in (ptune_ids, peft_ids, base)
    )
    assert with_prompt != bare
    assert (in_peft_ids == with_prompt) == ((family, front) not in WRONG_IN_GENERATE)


def test_padding_on_the_left_is_right_here_and_wrong_in_peft(tmp_path):
    """PEFT's padding comes between the soft tokens and the text, and its positions count it."""
    for front in ("{soft:3}", "{prefix:4}"):
        model = build("gpt2", shape("gpt2", front))
        peft_format.export(model, tmp_path)
        rows, wrapped = rows_of(model), in_peft("gpt2", tmp_path)
        alone = torch.cat([ours(model, [row]) for row in rows])
        torch.testing.assert_close(
            torch.cat([theirs(wrapped, [row]) for row in rows]),
            alone,
            atol=TOLERANCE,
            rtol=TOLERANCE,
        )
        torch.testing.assert_close(ours(model, rows, "left"), alone, atol=TOLERANCE, rtol=TOLERANCE)
        assert distance(theirs(wrapped, rows, "left"), alone) > FAR


ALL = PrefixSettings(hidden=0)
REFUSALS = [
    ("bert", "{x} is {mask}", None, "template without learned tokens"),
    ("bert", "{soft:3} {x} {mask}", None, "no task type for masked LMs"),
    ("bert", "{prefix:3} {x} {mask}", None, "no task type for masked LMs"),
    (
        "llama",
        "{soft:3} {x} {mask}",
        None,
        "ptune puts them behind <s>, which this LM's tokenizer puts before a text",
    ),
    ("bart", "{soft:3} {x}", None, "ptune puts them behind <s>"),
    ("gpt2", "The {soft:3} {x} {mask}", None, "soft tokens stand behind text"),
    ("gpt2", "{soft:3} {x} {soft:2} {mask}", None, "soft tokens stand behind text"),
    ("t5", "{x} {soft:2}", None, "soft tokens stand behind text"),
    (
        "gpt2",
        "{prefix:3} {soft:3} {x} {mask}",
        None,
        "soft tokens and a prefix, and PEFT has one of them at a time",
    ),
    ("gpt2", "{x} {prefix:3} = {mask}", None, "a prefix stands behind text"),
    ("gpt2", "{prefix:3} {x} {prefix:2} = {mask}", None, "a prefix stands behind text"),
    ("t5", "{prefix:3} {x}", ALL, "enters other attentions than the decoder's own"),
    (
        "t5",
        "{prefix:3} {x}",
        PrefixSettings(hidden=0, attentions=("decoder", "cross")),
        "enters other attentions",
    ),
    (
        "t5",
        "{prefix:3} {x}",
        PrefixSettings(hidden=0, attentions=("encoder",)),
        "enters other attentions",
    ),
    (
        "bart",
        "{prefix:3} {x}",
        None,
        "moves the positions of the decoder's tokens, ptune's does not, and those of "
        "BartForConditionalGeneration",
    ),
    ("gemma", "{prefix:3} {x} = {mask}", None, "sliding window, out of which PEFT's prefix falls"),
]


@pytest.mark.parametrize("family, template, settings, reason", REFUSALS)
def test_what_peft_cannot_say_is_refused(family, template, settings, reason, tmp_path):
    words = Verbalizer.from_words({"a": "Yes", "b": "No"}) if family == "bert" else None
    with pytest.raises(ConfigError, match=reason):
        peft_format.export(build(family, template, settings, words), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_ways_in_are_refused(tmp_path, monkeypatch):
    model = build("gpt2", "{prefix:3} {x} = {mask}")
    sites = model.lm.route.sites
    monkeypatch.setattr(
        model.lm.route, "sites", [dataclasses.replace(sites[0], heads=2), *sites[1:]]
    )
    with pytest.raises(ConfigError, match="keys and values of several sizes"):
        peft_format.export(model, tmp_path)
    monkeypatch.setattr(model.lm.model, "forward", lambda inputs_embeds: None)
    with pytest.raises(ConfigError, match="GPT2LMHeadModel takes no position ids"):
        peft_format.export(model, tmp_path)
    monkeypatch.setattr(model.lm, "_route", object())
    with pytest.raises(ConfigError, match="as the inputs of its layers"):
        peft_format.export(model, tmp_path)


@pytest.mark.parametrize(
    "family, front", [("bart", "{prefix:4} {x}"), ("gemma", "{prefix:4} {x} = {mask}")]
)
def test_what_is_refused_would_be_wrong(family, front, tmp_path, monkeypatch):
    """BART's positions and Gemma's window: what PEFT would make of the values is far from ours."""
    model = build(family, front)
    rows = rows_of(model)
    with monkeypatch.context() as patch:
        patch.setattr(peft_format, "_unsaid_by", lambda lm, deep: "")
        peft_format.export(model, tmp_path)
    assert distance(theirs(in_peft(family, tmp_path), rows), ours(model, rows)) > FAR


# From PEFT.


def saved_by_peft(family: str, config, folder, seed=0):
    """A wrapped LM whose prompt has wide values, saved as PEFT saves it."""
    wrapped = peft.get_peft_model(tiny.tiny(family)[0], config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in wrapped.prompt_encoder.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    wrapped.save_pretrained(str(folder))
    return wrapped.eval()


def seq2seq(family: str) -> str:
    return "SEQ_2_SEQ_LM" if family == "t5" else "CAUSAL_LM"


def rest(family: str) -> str:
    return " {x}" if family == "t5" else " {x} = {mask}"


SOFT_CONFIGS = {
    "prompt tuning": lambda **settings: peft.PromptTuningConfig(num_virtual_tokens=3, **settings),
    "P-tuning, MLP": lambda **settings: peft.PromptEncoderConfig(
        num_virtual_tokens=3, encoder_hidden_size=16, **settings
    ),
    "P-tuning, LSTM": lambda **settings: peft.PromptEncoderConfig(
        num_virtual_tokens=3,
        encoder_hidden_size=16,
        encoder_reparameterization_type="LSTM",
        **settings,
    ),
}


@pytest.mark.parametrize("method", SOFT_CONFIGS)
@pytest.mark.parametrize("family", OUT_SOFT)
def test_soft_tokens_that_peft_saved(family, method, tmp_path):
    width = (
        {"token_dim": 16} if family == "opt" else {}
    )  # PEFT takes the hidden size, which is not OPT's embedding width here
    wrapped = saved_by_peft(
        family, SOFT_CONFIGS[method](task_type=seq2seq(family), **width), tmp_path
    )
    model = peft_format.load(tmp_path, LanguageModel(*tiny.tiny(family)), rest(family))
    rows = rows_of(model)
    ptune_logits, peft_logits = ours(model, rows), theirs(wrapped, rows)
    tampered(tmp_path, lambda values: values.roll(1, 0))
    assert (
        distance(ours(peft_format.load(tmp_path, model.lm, rest(family)), rows), peft_logits) > FAR
    ), "rolled tokens do not show"
    torch.testing.assert_close(ptune_logits, peft_logits, atol=TOLERANCE, rtol=TOLERANCE)


def test_soft_tokens_before_the_first_special_token_are_others(tmp_path, monkeypatch):
    wrapped = saved_by_peft("llama", SOFT_CONFIGS["prompt tuning"](task_type="CAUSAL_LM"), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(peft_format, "_unsaid_by", lambda lm, deep: "")
        model = peft_format.load(tmp_path, LanguageModel(*tiny.tiny("llama")), rest("llama"))
    rows = rows_of(model)
    assert distance(ours(model, rows), theirs(wrapped, rows)) > FAR


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("family, layers", [*((family, 2) for family in OUT_DEEP), ("t5", 3)])
def test_a_prefix_that_peft_saved(family, layers, projection, tmp_path, monkeypatch):
    """With a projection PEFT saves what the MLP makes, without the MLP. In T5 it gives one layer
    the values of another."""
    kind, config, tokenizer, sizes = tiny.FAMILIES[family]
    if family == "t5":
        monkeypatch.setitem(
            tiny.FAMILIES, family, (kind, config, tokenizer, dict(sizes, num_layers=layers))
        )
    width = (
        {"token_dim": 48} if family == "t5" else {}
    )  # PEFT takes d_model, and T5's keys are heads x d_kv wide
    config = peft.PrefixTuningConfig(
        num_virtual_tokens=4,
        task_type=seq2seq(family),
        prefix_projection=projection,
        encoder_hidden_size=16 if projection else None,
        **width,
    )
    wrapped = saved_by_peft(family, config, tmp_path)
    model = peft_format.load(tmp_path, LanguageModel(*tiny.tiny(family)), rest(family), name="mine")
    assert model.tasks[0].task.name == "mine" and not list(model.bank.parameters())
    rows = rows_of(model)
    ptune_logits, peft_logits = ours(model, rows), theirs(wrapped, rows)
    monkeypatch.setattr(peft_format, "_taken", lambda sites, layers: list(range(sites)))
    tampered(
        tmp_path,
        lambda values: (
            values if family == "t5" else values.unflatten(1, (2, -1)).flip(1).flatten(1)
        ),
    )
    assert (
        distance(ours(peft_format.load(tmp_path, model.lm, rest(family)), rows), peft_logits) > FAR
    ), "another order of the layers does not show"
    torch.testing.assert_close(ptune_logits, peft_logits, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize(
    "family, front",
    [("gpt2", "{soft:3}"), ("llama", "{prefix:4}"), ("t5", "{soft:3}"), ("t5", "{prefix:4}")],
)
def test_there_and_back(family, front, tmp_path):
    model = build(family, shape(family, front))
    peft_format.export(model, tmp_path / "peft")
    imported = peft_format.load(tmp_path / "peft", model.lm, rest(family))
    assert torch.equal(ours(imported, rows_of(imported)), ours(model, rows_of(model)))
    prompt_folder.save(imported, tmp_path / "ptune")
    again = prompt_folder.load(tmp_path / "ptune", model.lm)
    assert torch.equal(ours(again, rows_of(again)), ours(model, rows_of(model)))


def test_a_verbalizer_may_be_given(tmp_path):
    model = build(
        "gpt2", "{soft:3} {x} = {mask}", verbalizer=Verbalizer.from_words({"a": "Yes", "b": "No"})
    )
    peft_format.export(model, tmp_path)
    loaded = peft_format.load(
        tmp_path,
        model.lm,
        " {x} = {mask}",
        name="t",
        verbalizer=model.tasks[0].task.verbalizer,
        target="kind",
    )
    assert loaded.predict([{"x": text} for text in TEXTS], "t") == model.predict(
        [{"x": text} for text in TEXTS]
    )
    assert loaded.tasks[0].task.target == "kind"


def test_half_precision_is_read(tmp_path):
    model = build("gpt2", "{soft:3} {x} = {mask}")
    peft_format.export(model, tmp_path)
    tampered(tmp_path, lambda values: values.bfloat16())
    vectors = peft_format.load(tmp_path, model.lm, " {x} = {mask}").bank.encoders[0]()
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, model.bank.encoders[0](), atol=0.02, rtol=0.01)


@pytest.mark.parametrize(
    "template", [" {soft:2} {x} = {mask}", "{prefix:2} {x} = {mask}", "(3, 3, 3)"]
)
def test_learned_tokens_in_the_rest_of_the_template(template, tmp_path):
    model = build("gpt2", "{soft:3} {x} = {mask}")
    peft_format.export(model, tmp_path)
    with pytest.raises(ConfigError, match="should be what stands behind PEFT's learned tokens"):
        peft_format.load(tmp_path, model.lm, template)


@pytest.mark.parametrize(
    "family, front, other, message",
    [
        (
            "gpt2",
            "{soft:3}",
            "t5",
            "task type CAUSAL_LM, and this LM, , is encoder-decoder: SEQ_2_SEQ_LM",
        ),
        ("gpt2", "{soft:3}", "bert", "no task type for masked LMs"),
        ("gpt2", "{soft:3}", "llama", "ptune puts them behind <s>"),
        ("gpt2", "{prefix:3}", "gemma", "sliding window"),
        ("t5", "{prefix:3}", "bart", "moves the positions"),
        ("t5", "{soft:3}", "bart", "puts them behind <s>"),
    ],
)
def test_lms_that_take_no_prompt_of_peft(family, front, other, message, tmp_path):
    peft_format.export(build(family, shape(family, front)), tmp_path)
    with pytest.raises(ConfigError, match=message):
        peft_format.load(tmp_path, LanguageModel(*tiny.tiny(other)), rest(family))


def test_a_folder_of_adapters_is_told_with_those_within_it(tmp_path):
    peft_format.export(build("gpt2", "{soft:3} {x} = {mask}"), tmp_path / "second")
    lm = LanguageModel(*tiny.tiny("gpt2"))
    with pytest.raises(ConfigError, match="holds no adapter_config.json.*within it are: .*second"):
        peft_format.load(tmp_path, lm, " {x} = {mask}")


@pytest.mark.parametrize(
    "named, is_told",
    [("meta/Other", True), ("meta/Tiny", False), ("/models/tiny/", False), (None, False)],
)
def test_an_adapter_of_an_lm_of_another_name_is_told(named, is_told, tmp_path):
    lm = LanguageModel(*tiny.tiny("gpt2"), source="/here/tiny")
    (tmp_path / peft_format.CONFIG).write_text(json.dumps({"base_model_name_or_path": named}))
    assert bool(peft_format.other_lm(tmp_path, lm)) == is_told
    if named is not None and is_told:
        assert "trained for the LM meta/Other, and" in peft_format.other_lm(tmp_path, lm)


def test_an_adapter_of_the_builtin_lm_is_of_the_same_lm(tmp_path):
    lm = LanguageModel(*tiny.tiny("gpt2"), source="builtin-causal")
    named = str(local_path("builtin-causal"))
    (tmp_path / peft_format.CONFIG).write_text(json.dumps({"base_model_name_or_path": named}))
    assert not peft_format.other_lm(tmp_path, lm)


def test_other_adapters_are_refused(tmp_path):
    lm = LanguageModel(*tiny.tiny("gpt2"))
    peft.get_peft_model(
        tiny.tiny("gpt2")[0], peft.LoraConfig(task_type="CAUSAL_LM", fan_in_fan_out=True)
    ).save_pretrained(str(tmp_path))
    with pytest.raises(
        ConfigError,
        match="type 'LORA', and ptune loads .*PREFIX_TUNING and CARTRIDGE only",
    ):
        peft_format.load(tmp_path, lm, " {x} = {mask}")
    saved_by_peft("gpt2", SOFT_CONFIGS["P-tuning, MLP"](task_type="CAUSAL_LM"), tmp_path)
    kept = load_file(tmp_path / peft_format.WEIGHTS)
    save_file(kept | {"mlp_head.0.weight": torch.zeros(2, 2)}, tmp_path / peft_format.WEIGHTS)
    with pytest.raises(ConfigError, match="holds more than a prompt: mlp_head.0.weight"):
        peft_format.load(tmp_path, lm, " {x} = {mask}")
    change(tmp_path, task_type="SEQ_CLS")
    with pytest.raises(ConfigError, match="task type SEQ_CLS"):
        peft_format.load(tmp_path, lm, " {x} = {mask}")


def change(folder, **values):
    file = folder / peft_format.CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    "front, values, message",
    [
        ("{soft:3}", {"num_virtual_tokens": 0}, "damaged: num_virtual_tokens"),
        ("{soft:3}", {"num_virtual_tokens": "3"}, "damaged: num_virtual_tokens"),
        ("{soft:3}", {"num_virtual_tokens": 10**30}, "should hold"),
        ("{soft:3}", {"num_transformer_submodules": 0}, "damaged: num_transformer_submodules"),
        (
            "{soft:3}",
            {"num_transformer_submodules": 2},
            r"of \[6, 32\].*holds torch.float32 \[3, 32\]",
        ),
        ("{prefix:3}", {"num_layers": 3}, "LM of 3 layers .* has 2 layers"),
        ("{prefix:3}", {"num_attention_heads": 2}, "with 2 heads.* 2 layers with 4 heads"),
        ("{prefix:3}", {"token_dim": 16}, "16 values a key"),
        ("{prefix:3}", {"num_transformer_submodules": 2}, "is for an LM of"),
        ("{prefix:3}", {"num_virtual_tokens": 2}, r"of \[2, 128\]"),
    ],
)
def test_damaged_configs(front, values, message, tmp_path):
    model = build("gpt2", shape("gpt2", front))
    peft_format.export(model, tmp_path)
    change(tmp_path, **values)
    with pytest.raises(StoreError, match=message):
        peft_format.load(tmp_path, model.lm, " {x} = {mask}")


def test_a_decoders_prefix_for_fewer_layers(tmp_path):
    model = build("t5", "{prefix:3} {x}")
    peft_format.export(model, tmp_path)
    change(tmp_path, num_layers=1)
    with pytest.raises(StoreError, match="for an LM of 1 layers"):
        peft_format.load(tmp_path, model.lm, " {x}")


@pytest.mark.parametrize(
    "tensors, message",
    [
        ({"other": torch.zeros(3, 32)}, "more than a prompt"),
        ({}, "holds nothing"),
        ({"prompt_embeddings": torch.zeros(4, 32)}, r"holds torch.float32 \[4, 32\]"),
        ({"prompt_embeddings": torch.zeros(3, 32, dtype=torch.float64)}, "holds torch.float64"),
        ({"prompt_embeddings": torch.full((3, 32), float("nan"))}, "not numbers"),
    ],
)
def test_damaged_tensors(tensors, message, tmp_path):
    model = build("gpt2", "{soft:3} {x} = {mask}")
    peft_format.export(model, tmp_path)
    save_file(tensors, tmp_path / peft_format.WEIGHTS)
    with pytest.raises((StoreError, ConfigError), match=message):
        peft_format.load(tmp_path, model.lm, " {x} = {mask}")


def test_damaged_files(tmp_path):
    model = build("gpt2", "{soft:3} {x} = {mask}")
    with pytest.raises(StoreError, match="no folder"):
        peft_format.load(tmp_path / "none", model.lm, " {x} = {mask}")
    peft_format.export(model, tmp_path)
    weights = tmp_path / peft_format.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(StoreError, match="damaged"):
        peft_format.load(tmp_path, model.lm, " {x} = {mask}")
    (tmp_path / peft_format.CONFIG).write_text('{"peft_type": ')
    with pytest.raises(StoreError, match="not valid JSON"):
        peft_format.load(tmp_path, model.lm, " {x} = {mask}")
    (tmp_path / peft_format.CONFIG).write_text("[]")
    with pytest.raises(ConfigError, match="type None"):
        peft_format.load(tmp_path, model.lm, " {x} = {mask}")


def test_pickled_weights_are_never_read(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    model = build("gpt2", "{soft:3} {x} = {mask}")
    peft_format.export(model, tmp_path)
    (tmp_path / peft_format.WEIGHTS).unlink()
    (tmp_path / peft_format.PICKLED).write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(StoreError, match="pickled weights"):
        peft_format.load(tmp_path, model.lm, " {x} = {mask}")
    assert not (tmp_path / "ran").exists()


# Cartridges.

needs_cartridges = pytest.mark.skipif(
    not hasattr(peft, "CartridgeConfig"), reason="this PEFT has no cartridges"
)


@needs_cartridges
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen"])
def test_a_cartridge_answers_in_peft_as_here_and_comes_back(family, tmp_path):
    model = build(family, shape(family, "{prefix:4}"))
    peft_format.export(model, tmp_path, "t", cartridge=True)
    config = peft.PeftConfig.from_pretrained(str(tmp_path))
    assert isinstance(config, peft.CartridgeConfig) and config.num_frozen_tokens == 0
    rows = rows_of(model)
    expected = ours(model, rows)
    assert distance(theirs(in_peft(family, tmp_path), rows), expected) < TOLERANCE
    again = peft_format.load(tmp_path, model.lm, " {x} = {mask}", name="t")
    assert torch.equal(ours(again, rows), expected)
    tampered(tmp_path, lambda values: values.flip(0) * 0.9)
    assert distance(theirs(in_peft(family, tmp_path), rows), expected) > FAR


@needs_cartridges
@pytest.mark.parametrize("frozen", [0, 1])
def test_a_cartridge_that_peft_made_answers_here_as_there(frozen, tmp_path):
    network, tokenizer = tiny.tiny("llama")
    config = peft.CartridgeConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, num_frozen_tokens=frozen
    )
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(network, config).eval()
    wrapped.save_pretrained(tmp_path)
    model = peft_format.load(
        tmp_path, LanguageModel(*tiny.tiny("llama")), " {x} = {mask}", name="t"
    )
    rows = rows_of(model)
    assert distance(theirs(wrapped, rows), ours(model, rows)) < TOLERANCE


def test_what_is_no_cartridge_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no cartridge"):
        peft_format.export(build("gpt2", "{soft:2} {x} {mask}"), tmp_path, cartridge=True)
    with pytest.raises(ConfigError, match="is no cartridge"):
        peft_format.export(build("t5", "{prefix:2} {x}"), tmp_path, cartridge=True)
    assert not list(tmp_path.iterdir())
    peft_format.export(build("gpt2", "{prefix:2} {x} {mask}"), tmp_path, cartridge=True)
    with pytest.raises(ConfigError, match="is a cartridge, which is for a causal LM"):
        peft_format.load(tmp_path, LanguageModel(*tiny.tiny("t5")), " {x}")
