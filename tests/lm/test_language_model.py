"""Loading and trying LMs. What they compute is in test_families.py."""

import copy
import gc
import io
import json
import shutil
import weakref

import pytest
import tiny
import torch
import transformers
from more_families import more_families  # noqa: F401 (a fixture)
from safetensors.torch import load_file, save_file
from transformers import (
    BertForMaskedLM,
    BertModel,
    FNetConfig,
    FNetForMaskedLM,
    Gemma4ForCausalLM,
    Gemma4TextConfig,
    MarianConfig,
    MarianMTModel,
    PretrainedConfig,
    PreTrainedModel,
    XLNetConfig,
    XLNetLMHeadModel,
)
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as hf_logging

from ptune.answers.label_words import Verbalizer
from ptune.answers.readers import next_sentence
from ptune.cli import main
from ptune.errors import ConfigError, ModelError, StoreError, TemplateError
from ptune.lm.batch import collate
from ptune.lm.forward import fill
from ptune.lm.identity.older_records import has_weights_of, sample
from ptune.lm.language_model import LanguageModel, nearest_words
from ptune.lm.source.loading import choose_device, choose_dtype, load_model, load_tokenizer, locate
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.model.running.generate import write
from ptune.settings import DecodingConfig, TrainConfig
from ptune.template.language import EncodedRow, Template
from ptune.training.loop import fit


def row(ids, answer):
    return EncodedRow(tuple(ids), (-1,) * len(ids), None, (answer,))


def test_fill_by_a_loop():
    torch.manual_seed(0)
    embeddings, vectors = torch.randn(3, 5, 4), torch.randn(2, 3, 4)
    prompts, soft_slots = (
        torch.tensor([1, -1, 0]),
        torch.tensor([[-1, 0, 2, -1, 1], [-1] * 5, [2, -1, -1, 0, 0]]),
    )
    expected = embeddings.clone()
    for b in range(3):
        for t in range(5):
            if soft_slots[b, t] >= 0:
                expected[b, t] = vectors[prompts[b], soft_slots[b, t]]
    assert torch.equal(fill(embeddings, vectors, prompts, soft_slots), expected)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_load_from_a_folder(family, tmp_path):
    network, tokenizer = tiny.tiny(family)
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    lm = LanguageModel.load(tmp_path, device="cpu")
    assert lm.kind == LanguageModel(network, tokenizer).kind and lm.source == str(tmp_path)
    assert lm.fingerprint() == LanguageModel(network, tokenizer).fingerprint()
    assert has_weights_of(lm, sample(LanguageModel(network, tokenizer)))
    for dtype in (
        torch.bfloat16,
        torch.float16,
    ):  # a prompt that was trained in one number format serves in another
        assert has_weights_of(LanguageModel(tiny.tiny(family, dtype)[0], tokenizer), sample(lm))
    assert not any(p.requires_grad for p in lm.model.parameters()) and not lm.model.training
    low = LanguageModel.load(tmp_path, device="cpu", dtype="bfloat16")
    assert low.dtype == torch.bfloat16
    other, _ = tiny.tiny(family, seed=1)
    assert not has_weights_of(LanguageModel(other, tokenizer), sample(lm))


class OddConfig(PretrainedConfig):
    model_type = "odd"


class OddModel(PreTrainedModel):
    """An LM of a class that ptune has never heard of: a mean over the visible tokens added to
    each."""

    config_class = OddConfig
    base_model_prefix = "body"

    def __init__(self, config):
        super().__init__(config)
        self.body = OddBody(config)
        self.readout = torch.nn.Linear(8, config.vocab_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.body.words

    def forward(self, input_ids=None, inputs_embeds=None, attention_mask=None, position_ids=None):
        return MaskedLMOutput(
            logits=self.readout(
                self.body(input_ids, inputs_embeds, attention_mask, position_ids)[0]
            )
        )


class OddBody(PreTrainedModel):
    config_class = OddConfig

    def __init__(self, config):
        super().__init__(config)
        self.words, self.places = (
            torch.nn.Embedding(config.vocab_size, 8),
            torch.nn.Embedding(80, 8),
        )
        self.post_init()

    def forward(self, input_ids=None, inputs_embeds=None, attention_mask=None, position_ids=None):
        x = self.words(input_ids) if inputs_embeds is None else inputs_embeds
        places = torch.arange(x.shape[1])[None] + 3 if position_ids is None else position_ids
        x = torch.tanh(x + self.places(places))
        shown = attention_mask[..., None].to(x)
        return BaseModelOutput(
            last_hidden_state=x + (x * shown).sum(1, keepdim=True) / shown.sum(1, keepdim=True)
        )


def test_an_lm_that_the_source_never_names():
    torch.manual_seed(0)
    model = OddModel(OddConfig(vocab_size=len(tiny.wordpiece())))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.5)
    lm = LanguageModel(model, tiny.wordpiece(), kind="masked")
    assert (
        lm.width == 8
        and lm.forward.offset == 3
        and lm.forward.gathers == [model.body]
        and lm.pads_left
    )
    batch = collate([row([2, 9, 10, 4, 3], 3), row([2, 8, 3], 1)], [-1, -1], 0, "left")
    alone = model(torch.tensor([[2, 8, 3]]), attention_mask=torch.ones(1, 3)).logits[0, 1]
    torch.testing.assert_close(lm.scores(batch)[1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: FNetForMaskedLM(FNetConfig(vocab_size=200, **tiny.SHAPE)),
            "ignores the attention mask",
        ),
        (
            lambda: XLNetLMHeadModel(
                XLNetConfig(vocab_size=200, d_model=32, n_layer=1, n_head=4, d_inner=48)
            ),
            "so it is no causal one",
        ),
        (
            lambda: MarianMTModel(
                MarianConfig(
                    vocab_size=200,
                    d_model=32,
                    encoder_layers=1,
                    decoder_layers=1,
                    encoder_attention_heads=4,
                    decoder_attention_heads=4,
                    encoder_ffn_dim=48,
                    decoder_ffn_dim=48,
                    scale_embedding=True,
                    pad_token_id=0,
                    decoder_start_token_id=0,
                    eos_token_id=1,
                )
            ),
            "not compute the same from its embeddings",
        ),
    ],
)
def test_lms_that_cannot_take_prompts_are_refused(make, message):
    torch.manual_seed(0)
    model = make()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, 0, 0.25)
    with pytest.raises(ModelError, match=message):
        LanguageModel(model, tiny.wordpiece())


def test_left_padding_is_refused_where_it_would_be_wrong():
    network, tokenizer = tiny.tiny("bart")
    lm = LanguageModel(network, tokenizer)
    rows = [
        EncodedRow(
            ids=ids, soft_slots=(-1,) * len(ids), types=None, answer_positions=(0,), decoder=(2,)
        )
        for ids in ((0, 30, 31, 32, 2), (0, 33, 2))
    ]
    with pytest.raises(ModelError, match="padding on the left"):
        lm.scores(collate(rows, [-1, -1], 1, "left"))
    assert lm.scores(collate(rows, [-1, -1], 1, "right")).shape == (2, len(tokenizer))


def test_the_head_runs_at_answer_places_only():
    for family in tiny.FAMILIES:
        network, tokenizer = tiny.tiny(family)
        lm = LanguageModel(network, tokenizer)
        seen = []
        network.get_output_embeddings().register_forward_hook(
            lambda _, inputs, __, seen=seen: seen.append(inputs[0].shape)
        )
        ids = (3, 30, 31, 32, 33)
        one = EncodedRow(
            ids=ids,
            soft_slots=(-1,) * 5,
            types=None,
            answer_positions=(0 if lm.kind == "encoder-decoder" else 2,),
            decoder=(2,) if lm.kind == "encoder-decoder" else None,
        )
        lm.scores(collate([one] * 4, [-1] * 4, 0))
        assert [tuple(shape[:-1]) for shape in seen] in ([(1, 4)], [(4,)]), family


def test_an_lm_whose_head_takes_no_hook_still_answers():
    network, tokenizer = tiny.tiny("bert")
    lm = LanguageModel(network, tokenizer)
    batch = collate([row([2, 9, 10, 4, 3], 3), row([2, 8, 3], 1)], [-1, -1], 0)
    hidden, features, scores = lm.read(batch)
    lm.forward.gathers.pop()._forward_hooks.clear()
    slow_hidden, slow_features, slow = lm.read(batch)
    torch.testing.assert_close(slow_features, features, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(slow, scores, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(slow_hidden, hidden, atol=1e-5, rtol=1e-5)


def test_folders_that_hold_no_lm(tmp_path):
    with pytest.raises(ModelError, match="There is no LM folder /nowhere"):
        LanguageModel.load("/nowhere/at/all")
    with pytest.raises(ModelError, match="There is no file"):
        LanguageModel.load(tmp_path / "x.gguf")
    network, tokenizer = tiny.tiny("bert")
    tokenizer.save_pretrained(tmp_path)
    network.config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="holds no weights"):
        LanguageModel.load(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="pickled ones"):
        LanguageModel.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x10\x00\x00")
    with pytest.raises(ModelError, match="No LM can be loaded"):
        LanguageModel.load(tmp_path)


def test_an_encoder_without_a_head_loads_without_one(tmp_path):
    lm = LanguageModel.load(encoder_folder(tmp_path))
    assert type(lm.model) is BertModel and not lm.has_head and lm.vocabulary is None
    assert lm.packs and lm.capabilities.prefix and lm.capabilities.gradients
    assert lm.fingerprint() == LanguageModel.load(tmp_path).fingerprint()


def test_weights_that_lack_more_than_the_head_are_refused(tmp_path):
    encoder_folder(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(dict(list(weights.items())[:-4]), tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="lacks weights of BertForMaskedLM: .*not whole"):
        LanguageModel.load(tmp_path)


def test_half_a_head_is_refused(tmp_path):
    lm_folder(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["cls.predictions.transform.dense.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="lacks weights of BertForMaskedLM"):
        LanguageModel.load(tmp_path)


def encoder_folder(path):
    """A folder with a tiny encoder that has no vocabulary head."""
    network, tokenizer = tiny.tiny("bert")
    network.base_model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def lm_folder(path, family="bert", **changes):
    """A folder with a tiny LM, its config changed."""
    network, tokenizer = tiny.tiny(family)
    network.save_pretrained(path)
    tokenizer.save_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))
    return path


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A folder in which code lies that leaves a file behind if it runs, and standard input that
    answers yes."""
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n1\n" * 20))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    yield tmp_path
    assert not (tmp_path / "ran").exists()


def test_code_in_a_model_folder_is_not_run(stranger):
    code = {
        "AutoConfig": "code.C",
        "AutoModelForMaskedLM": "code.M",
        "AutoModelForNextSentencePrediction": "code.M",
    }
    lm_folder(stranger, model_type="stranger", auto_map=code)
    for load in (LanguageModel.load, next_sentence.of):
        with pytest.raises(ModelError, match=r"names code of its own \(auto_map.*never runs"):
            load(stranger)
    lm_folder(
        stranger, auto_map=code
    )  # of a kind that transformers knows: its own code runs, and not the folder's
    LanguageModel.load(stranger, device="cpu")


def test_code_of_a_tokenizer_is_not_run(stranger):
    lm_folder(stranger)
    path = stranger / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {
        "tokenizer_class": "Strange",
        "auto_map": {"AutoTokenizer": [None, "code.T"]},
    }
    path.write_text(json.dumps(config))
    for load in (LanguageModel.load, load_tokenizer):
        with pytest.raises(ModelError, match=r"No tokenizer can be loaded.*names code of its own"):
            load(str(stranger))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"attn_implementation": "stranger/kernel"}, "names a kernel to be fetched and run"),
        (
            {"_attn_implementation": "stranger/kernel@main:attend"},
            "names a kernel to be fetched and run",
        ),
        ({"attn_implementation": {"": "stranger/kernel"}}, "names a kernel to be fetched and run"),
        (
            {"text_config": {"attn_implementation": "paged|stranger/kernel"}},
            "names a kernel to be fetched and run",
        ),
        ({"experts_implementation": "stranger/kernel"}, "names a kernel to be fetched and run"),
        ({"transformers_weights": "adapter_model.bin"}, "reads safetensors only"),
    ],
)
def test_configs_that_ask_for_code_are_refused(stranger, changes, message):
    lm_folder(stranger, **changes)
    with pytest.raises(ModelError, match=message):
        LanguageModel.load(stranger)


@pytest.mark.parametrize("asked", ["flash_attention_2", "flex_attention", "eager"])
def test_attention_is_transformers_own(tmp_path, asked):
    for family, given in (("llama", "sdpa"), ("deberta", "eager")):
        model, _ = load_model(
            str(lm_folder(tmp_path / family, family, attn_implementation=asked)),
            None,
            torch.float32,
        )
        assert model.config._attn_implementation == given


@pytest.mark.parametrize(
    "name", ["model.bin", "../model.safetensors", "/etc/model.safetensors", "a\\b.safetensors", 3]
)
def test_an_index_names_safetensors_of_the_folder_alone(stranger, name):
    lm_folder(stranger)
    (stranger / "model.safetensors").rename(stranger / "model-1.safetensors")
    torch.save({}, stranger / "model.bin")
    (stranger / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"a": name}})
    )
    with pytest.raises(
        ModelError,
        match="takes weights from .* and ptune reads safetensors files of the LM's folder only",
    ):
        LanguageModel.load(stranger)


def test_an_adapter_is_no_lm(stranger):
    lm_folder(stranger)
    (stranger / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "stranger/lm"})
    )
    with pytest.raises(ModelError, match="is an adapter of PEFT and no LM"):
        LanguageModel.load(stranger)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "llama"])
def test_a_folder_without_a_tokenizer(tmp_path, family):
    tiny.tiny(family)[0].save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="holds no tokenizer|No LM can be loaded"):
        LanguageModel.load(tmp_path)


def test_names_of_lms(monkeypatch, tmp_path):
    for source in ("", "  "):
        with pytest.raises(ModelError, match="An LM has a name"):
            LanguageModel.load(source)
    assert locate("name@v1") == ("name", {"revision": "v1"}) and locate("org/name") == (
        "org/name",
        {},
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lm@home").mkdir()
    assert locate("lm@home") == ("lm@home", {}), "a folder of that name is the folder"
    for source in ("name@", "@v1"):
        with pytest.raises(ModelError, match="as in name@revision"):
            locate(source)


def test_a_revision_goes_to_transformers_and_into_saved_prompts(monkeypatch, tmp_path):
    asked = []

    def instead(loader):
        """The loader of a folder, in place of one from the hub."""

        def load(name, *_, **settings):
            asked.append((name, settings.pop("revision", None)))
            return loader(tmp_path, **settings)

        return load

    lm_folder(tmp_path)
    monkeypatch.setattr("ptune.lm.source.model_files.check", lambda *_, **__: None)
    monkeypatch.setattr("ptune.lm.source.adapter.fetch", lambda name, revision: None)
    for kind in ("AutoConfig", "AutoTokenizer", "AutoModelForMaskedLM"):
        auto = getattr(transformers, kind)
        monkeypatch.setattr(auto, "from_pretrained", instead(auto.from_pretrained))
    lm = LanguageModel.load("org/name@v1", device="cpu")
    assert set(asked) >= {("org/name", "v1")} and lm.source == "org/name@v1"


def test_a_gguf_file(tmp_path, data):
    """A real Llama of 260,032 parameters, written as GGUF."""
    gguf = pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    from stories import stories260k, write_gguf

    write_gguf(gguf, data / "weights" / "stories260K", tmp_path / "stories.gguf")
    lm = LanguageModel.load(tmp_path / "stories.gguf", device="cpu")
    network, _ = stories260k(data / "weights" / "stories260K")
    ids = torch.tensor([[1, 410, 430, 260]])
    torch.testing.assert_close(lm.model(ids).logits, network(ids).logits, atol=1e-4, rtol=1e-4)
    shutil.rmtree(tmp_path)


def test_devices_and_dtypes():
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32
    with pytest.raises(ConfigError, match="no dtype 'int3'"):
        choose_dtype("int3", torch.device("cpu"))
    with pytest.raises(ConfigError, match="'cuda:97' is not there"):
        choose_device("cuda:97")
    with pytest.raises(ConfigError, match="no device 'gpu'. Did you mean 'cuda'"):
        choose_device("gpu")
    with pytest.raises(ConfigError, match="Known: 'auto', 'cpu', 'cuda'"):
        choose_device("x")


def test_what_is_no_lm_is_told_with_what_is(tmp_path, monkeypatch):
    (tmp_path / "prompt.json").write_text("{}")
    with pytest.raises(ModelError, match=f"a saved prompt, and no LM: .* --from {tmp_path}"):
        LanguageModel.load(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="a folder, a .gguf file, its name on the hub, or builtin"):
        LanguageModel.load("no-such-lm-7")


def test_nearest_words_are_those_of_the_vectors():
    network, tokenizer = tiny.tiny("bert")
    lm = LanguageModel(network, tokenizer)
    ids = tokenizer.convert_tokens_to_ids(["vienna", "euro"])
    assert [words[0] for words in nearest_words(lm, lm.embed(torch.tensor(ids)) * 3)] == [
        "vienna",
        "euro",
    ]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_head_is_trained_by_itself(family):
    """Its vectors part from the input's embeddings without a change of the scores, and then they
    move alone: no layer, no embedding."""
    lm = LanguageModel(*tiny.tiny(family))
    ids = (3, 30, 31, 32, 33)
    batch = collate(
        [
            EncodedRow(
                ids=ids, soft_slots=(-1,) * 5, types=None, answer_positions=(0,), decoder=(2,)
            )
            if lm.kind == "encoder-decoder"
            else row(ids, 2),
            row(ids[:3], 1),
        ][:1],
        [-1],
        0,
    )
    before, embedded = lm.scores(batch), lm.embed(torch.arange(40)).clone()
    network = {id(p): (name, p.detach().clone()) for name, p in lm.model.named_parameters()}
    lm.tune_head()
    torch.testing.assert_close(lm.scores(batch).detach(), before, atol=1e-6, rtol=1e-6)
    trained = {name for name, p in lm.model.named_parameters() if p.requires_grad}
    assert (
        lm.vocabulary.weight.requires_grad
        and lm.vocabulary.weight is not lm.model.get_input_embeddings().weight
        and not lm.model.training
    )
    body = lm.model.base_model if lm.model.base_model is not lm.model else lm.model.get_encoder()
    assert len(trained) < 8 and not trained & {
        name
        for name, p in lm.model.named_parameters()
        if any(p is of_body for of_body in body.parameters())
    }
    start = lm.vocabulary.weight.detach().clone()
    (-lm.scores(batch).log_softmax(-1)[0, 7]).backward()
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter -= 0 if parameter.grad is None else 0.1 * parameter.grad
    assert not torch.equal(lm.vocabulary.weight, start) and torch.equal(
        lm.embed(torch.arange(40)), embedded
    )
    moved = {
        name
        for name, p in lm.model.named_parameters()
        if id(p) in network and not torch.equal(p, network[id(p)][1])
    }
    assert moved <= trained and float((lm.scores(batch) - before).detach().abs().max()) > 1e-3


def with_trained_head(folder, family="bert"):
    """An LM whose head was trained by itself, and saved in a folder."""
    network, tokenizer = tiny.tiny(family)
    lm = LanguageModel(network, tokenizer)
    lm.tune_head()
    with torch.no_grad():
        for parameter in lm.head_parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    lm.save(folder)
    return lm


@pytest.mark.parametrize("family", [*tiny.FAMILIES, "distilbert", "mbart"])
def test_an_lm_whose_head_was_trained_by_itself_is_loaded_again(family, tmp_path):
    """Biases of BERT's head and tables of BART stay two names of one weight."""
    lm = with_trained_head(tmp_path, family)
    loaded = LanguageModel.load(tmp_path, device="cpu")
    before, after = (
        dict(one.model.named_parameters(remove_duplicate=False)) for one in (lm, loaded)
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert loaded.fingerprint() == lm.fingerprint(), "it is the LM of the prompts trained with it"
    assert loaded.vocabulary.weight is not loaded.model.get_input_embeddings().weight
    loaded.save(tmp_path / "again")
    assert LanguageModel.load(tmp_path / "again", device="cpu").fingerprint() == lm.fingerprint()


@pytest.mark.parametrize("lost", ["decoder.weight", "bias"])
def test_a_trained_head_that_lacks_weights_is_refused(lost, tmp_path):
    with_trained_head(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights[f"cls.predictions.{lost}"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=f"lacks weights of BertForMaskedLM: .*predictions.{lost}"):
        LanguageModel.load(tmp_path)


class TwoWays(BertForMaskedLM):
    """Divides the scores where the head is tied, as T5 does in older versions of transformers."""

    def forward(self, **inputs):
        output = super().forward(**inputs)
        output.logits = output.logits / (2 if self.config.tie_word_embeddings else 1)
        return output


def test_a_head_that_cannot_be_trained_by_itself_stays_as_it_was():
    network, tokenizer = tiny.tiny("bert")
    network.__class__ = TwoWays
    lm = LanguageModel(network, tokenizer)
    batch = collate([row([2, 9, 10, 4, 3], 3)], [-1], 0)
    before = lm.scores(batch)
    with pytest.raises(ModelError, match="computes otherwise when its head has vectors of its own"):
        lm.tune_head()
    assert (
        torch.equal(lm.scores(batch), before)
        and lm.vocabulary.weight is network.get_input_embeddings().weight
    )
    torch.manual_seed(0)
    odd = OddModel(OddConfig(vocab_size=len(tokenizer)))
    for parameter in odd.parameters():
        torch.nn.init.normal_(parameter, 0, 0.5)
    lm = LanguageModel(odd, tokenizer, kind="masked")
    assert lm.vocabulary is None
    with pytest.raises(ModelError, match="no vocabulary head that could be trained by itself"):
        lm.tune_head()
    assert not any(parameter.requires_grad for parameter in odd.parameters())


@pytest.mark.parametrize(
    "dtype, weights, mixed",
    [
        ("bfloat16", torch.float32, torch.bfloat16),
        ("float32", torch.float32, None),
        ("float64", torch.float64, None),
    ],
)
def test_an_lm_that_is_tuned_keeps_its_weights_exact(tmp_path, dtype, weights, mixed):
    """Steps of fine-tuning are smaller than what bfloat16 can add to a weight."""
    network, tokenizer = tiny.tiny("bert")
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    lm = LanguageModel.load(tmp_path, device="cpu", dtype=dtype, tuned=True)
    assert lm.dtype == weights and lm.mixed == mixed
    assert LanguageModel.load(tmp_path, device="cpu", dtype=dtype).dtype == getattr(torch, dtype)
    with pytest.raises(ConfigError, match="not tuned in float16"):
        LanguageModel.load(tmp_path, device="cpu", dtype="float16", tuned=True)
    if mixed:
        lm.tune(True)
        exact, row = (
            LanguageModel.load(tmp_path, device="cpu"),
            Template.parse("{x} is {mask}").encode({"x": "Vienna"}, lm.tokens, "masked"),
        )
        with lm.evaluating():
            short = lm.scores(lm.collate([row], [-1]))
        assert (
            1e-4
            < float(
                (short.detach() - exact.scores(exact.collate([row], [-1]))).abs().max()
                / short.detach().std()
            )
            < 0.1
        )
        short.sum().backward()
        assert all(
            parameter.grad.dtype == torch.float32
            for parameter in lm.model.parameters()
            if parameter.grad is not None
        )


def test_a_part_that_somebody_left_in_training_is_quiet_while_the_lm_evaluates():
    lm = LanguageModel(*tiny.tiny("bert"))
    lm.model.bert.encoder.train()
    with lm.evaluating():
        assert not any(part.training for part in lm.model.modules())


# Tokens without an embedding.


def grown(family: str, **added):
    """A tiny LM, and its tokenizer with tokens that were added after it was trained."""
    network, tokenizer = tiny.tiny(family)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({key: value for key, value in added.items() if key != "words"})
    tokenizer.add_tokens(added.get("words", []))
    return network, tokenizer


def test_a_padding_token_without_an_embedding_is_masked_as_any_other():
    network, tokenizer = grown("gpt2", pad_token="[PAD]")
    lm, plain = LanguageModel(network, tokenizer), LanguageModel(*tiny.tiny("gpt2"))
    assert (
        tokenizer.pad_token_id == len(tokenizer) - 1 == network.config.vocab_size
        and lm.tokens.pad < lm.words == len(tokenizer) - 1
    )
    models = [PromptModel(language_model) for language_model in (lm, plain)]
    rows = [{"x": "Vienna", "label": "a"}, {"x": "the capital of France is Paris", "label": "b"}]
    for model in models:
        words = Verbalizer.from_words({"a": "Yes", "b": "No"})
        for init in ("random", "vocabulary"):
            model.add(
                Task(
                    init,
                    Template.parse("{soft:3} {x} is {mask}"),
                    words,
                    encoder="table",
                    init=init,
                ),
                rows,
            )
        fit(
            model,
            {"random": (rows, rows), "vocabulary": (rows, rows)},
            TrainConfig(epochs=2, batch_size=2),
        )
    actual, expected = (
        torch.stack(
            [scores for task in (0, 1) for scores in model.scores(model.encode(task, rows))]
        )
        for model in models
    )
    assert actual.shape == expected.shape == (4, 2) and torch.isfinite(actual).all()
    torch.testing.assert_close(*(model.scores(model.encode(1, rows)) for model in models))
    assert all(
        len(language_model) == 5 for language_model in nearest_words(lm, torch.randn(3, lm.width))
    )
    assert write(PromptModel(lm), [], DecodingConfig()) == []


def test_hidden_words_are_tokens_with_an_embedding():
    network, tokenizer = grown("bert", words=[f"extra{number}" for number in range(3000)])
    model = PromptModel(LanguageModel(network, tokenizer))
    model.add(
        Task("t", Template.parse("{x} {mask}"), Verbalizer.from_words({"a": "Yes", "b": "No"}))
    )
    hidden = model.hidden_words(
        0, [{"x": "Vienna lies on the Danube " * 3}] * 200, torch.Generator().manual_seed(0)
    )
    assert (
        max(id_ for example in hidden for id_ in example.learn[0].ids) < network.config.vocab_size
    )
    with pytest.raises(
        ModelError,
        match=r"Row 2 of t: The tokenizer has the token 'extra7' of number \d+, "
        r"and the LM has only",
    ):
        model.encode(0, [{"x": "Vienna"}, {"x": "Vienna extra7"}], labelled=False)
    with pytest.raises(ModelError, match="the token 'extra7'"):
        model.add(
            Task(
                "u",
                Template.parse("{x} {mask}"),
                Verbalizer.from_words({"a": "Yes", "b": "extra7"}),
            )
        )
    with pytest.raises(ModelError, match="the token 'extra7'"):
        model.add(
            Task(
                "v",
                Template.parse('{soft:"extra7"} {x} {mask}'),
                Verbalizer.from_words({"a": "Yes", "b": "No"}),
            )
        )


def test_a_mask_without_an_embedding_is_refused_when_the_lm_is_loaded():
    with pytest.raises(
        ModelError, match=r"the token '\[HOLE\]' of number \d+, and the LM has only \d+ embeddings"
    ):
        LanguageModel(*grown("bert", mask_token="[HOLE]"), kind="masked")


# Vectors that are no word's.


def test_an_lm_that_looks_its_embeddings_up_among_its_words_is_refused():
    tokenizer = tiny.byte_level(False)
    shape = dict(
        tiny.LLAMA,
        vocab_size=len(tokenizer),
        vocab_size_per_layer_input=len(tokenizer),
        hidden_size_per_layer_input=8,
        num_kv_shared_layers=0,
        global_head_dim=8,
        layer_types=["sliding_attention", "full_attention"],
        enable_moe_block=False,
    )
    torch.manual_seed(0)
    network = Gemma4ForCausalLM(Gemma4TextConfig(**shape)).eval()
    with pytest.raises(
        ModelError,
        match="takes the embeddings of its own words only, and soft tokens are no word's: It "
        "seems like",
    ):
        LanguageModel(network, tokenizer)


def test_an_lm_that_rounds_its_embeddings_to_words_is_refused(monkeypatch):
    """It would not fail, and soft tokens would be words."""
    network, tokenizer = tiny.tiny("bert")
    layer = network.bert.embeddings
    words, forward = layer.word_embeddings, layer.forward

    def rounded(**named):
        given = named.pop("inputs_embeds")
        if given is not None:
            named["input_ids"] = torch.cdist(given, words.weight[None]).argmin(-1)
        return forward(**named)

    monkeypatch.setattr(layer, "forward", rounded)
    with pytest.raises(ModelError, match="compute the same|does not notice soft tokens"):
        LanguageModel(network, tokenizer)


# What is installed in a network.


def hooks(network) -> list[tuple[str, int, int, bool]]:
    return [
        (name, len(part._forward_hooks), len(part._forward_pre_hooks), "compute_bias" in vars(part))
        for name, part in network.named_modules()
    ]


def used(network, tokenizer) -> weakref.ref:
    """An LM that is made of a network and used with a prefix, where it takes one, and dropped; a
    reference to the network's layers."""
    model = PromptModel(LanguageModel(network, tokenizer))
    model.lm.recompute(True)
    model.lm.recompute(False)
    text = (
        "{prefix:2} {x} {soft:1} {mask}" if model.lm.capabilities.prefix else "{x} {soft:1} {mask}"
    )
    model.add(
        Task(
            "t",
            Template.parse(text),
            Verbalizer.from_words({"a": "Yes", "b": "No"}),
            encoder="table",
            prefix=PrefixSettings(0),
        )
    )
    model.losses(
        model.encode(
            0, [{"x": "Vienna", "label": "a"}, {"x": "Vienna lies on the Danube", "label": "b"}]
        )
    ).sum().backward()
    if model.lm.kind != "masked":
        writing = model.add(
            Task(
                "u",
                Template.parse("{x} is" + (" {mask}" if model.lm.kind == "causal" else "")),
                None,
            )
        )
        write(
            model,
            model.encode(writing, [{"x": "Vienna"}], labelled=False),
            DecodingConfig(max_new_tokens=2),
        )
    return weakref.ref(
        next(part for part in network.modules() if isinstance(part, torch.nn.ModuleList))[0]
    )


@pytest.mark.parametrize("family", [*tiny.FAMILIES, "bloom", "falcon", "mt5"])
def test_a_network_is_changed_once_and_freed_with_its_lm(family):
    network, tokenizer = tiny.tiny(family)
    used(network, tokenizer)
    once = hooks(network)
    methods = {
        name: method
        for name, part in network.named_modules()
        for method in [vars(part).get("compute_bias")]
        if method
    }
    layer = used(network, tokenizer)
    used(network, tokenizer)
    assert hooks(network) == once
    assert all(
        vars(network.get_submodule(name))["compute_bias"] is method
        for name, method in methods.items()
    )
    assert not any(
        "forward" in vars(part)
        for part in network.modules()
        if not isinstance(part, torch.nn.Linear | Conv1D)
    )
    del network, methods
    gc.collect()
    assert layer() is None


def test_a_tokenizer_is_freed_with_its_lm():
    lm = LanguageModel(*grown("bert", words=["extra"]))
    Verbalizer.from_words({"a": "Yes", "b": "No"}).bind(lm.tokens, "spaced", lm.kind)
    tokens = weakref.ref(lm.tokens)
    del lm
    gc.collect()
    assert tokens() is None


@pytest.mark.parametrize("shows", [True, False])
def test_saving_shows_no_bar_of_another_library(tmp_path, capfd, shows):
    switch = {True: hf_logging.enable_progress_bar, False: hf_logging.disable_progress_bar}
    lm = LanguageModel(*tiny.tiny("bert"))
    switch[shows]()
    try:
        capfd.readouterr()
        lm.save(tmp_path / "lm")
        assert capfd.readouterr().err == ""
        LanguageModel.load(tmp_path / "lm", device="cpu")
        assert hf_logging.is_progress_bar_enabled() == shows
    finally:
        hf_logging.enable_progress_bar()


@pytest.mark.parametrize("part", ["model", "tokenizer"])
def test_a_full_disk_while_an_lm_is_saved(part, tmp_path, monkeypatch):
    lm = LanguageModel(*tiny.tiny("bert"))
    lm.save(tmp_path / "lm")
    before = {path.name: path.read_bytes() for path in (tmp_path / "lm").iterdir()}

    def full(*_, **__):
        raise (
            OSError(28, "No space left on device")
            if part == "model"
            else Exception("No space left on device (os error 28)")
        )

    monkeypatch.setattr(
        lm.model if part == "model" else type(lm.tokens.tokenizer), "save_pretrained", full
    )
    with pytest.raises(StoreError, match="lm could not be written: No space left on device"):
        lm.save(tmp_path / "lm")
    assert {path.name: path.read_bytes() for path in (tmp_path / "lm").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["lm"]


@pytest.mark.parametrize(
    "command",
    [("inspect", "{soft:2} {x} {mask}"), ("pretrain", "--texts", "t.txt", "--out", "out")],
)
def test_no_command_takes_an_empty_name_for_the_builtin_lm(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.txt").write_text("some words\n" * 50)
    with pytest.raises(SystemExit):
        main.main([*command, "--from" if command[0] == "pretrain" else "--lm", ""])
    assert "An LM has a name" in capsys.readouterr().err


# Diagnoses.


@pytest.mark.parametrize("family", ["gpt-oss", "phimoe"])
def test_a_mixture_of_experts_in_float64_is_told_what_it_runs_in(family):
    with pytest.raises(
        ModelError,
        match="does not run here in float64: Expected .* Mixtures of experts run in float32, "
        "bfloat16 and",
    ):
        LanguageModel(*tiny.tiny(family, torch.float64))


def test_more_soft_tokens_than_the_lm_has_places_are_the_ones_to_cut():
    for template in (
        "{soft:90} {x} {mask}",
        "{prefix:90} {x|shorten} is {mask}",
        "{soft:50} {x} {soft:40} {mask}",
    ):
        model = PromptModel(LanguageModel(*tiny.tiny("gpt2")))
        model.add(
            Task(
                "t", Template.parse(template), None, "y", encoder="table", prefix=PrefixSettings(0)
            )
        )
        with pytest.raises(
            TemplateError,
            match="Row 1 of t: .* and 80 fit: 90 of them are soft tokens and prefix vectors. Ask "
            "for",
        ):
            model.encode(0, [{"x": "Vienna"}], labelled=False)
