"""LoRA adapters beneath prompts, beside PEFT's own unmerged layers."""

import json
import shutil

import peft
import pytest
import safetensors.torch
import tiny
import torch
from by_hand import Plain

from ptune.answers.label_words import Verbalizer
from ptune.cli import main
from ptune.errors import ModelError, StoreError
from ptune.lm.language_model import LanguageModel
from ptune.lm.source import loading
from ptune.model.prompt_model import PromptModel, Task
from ptune.storage import prompt_folder
from ptune.template.language import Template

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

WORDS = Verbalizer.from_words({"a": "Yes", "b": "No"})
ROWS = [{"x": "Vienna film", "label": "a"}, {"x": "the east of Austria", "label": "b"}]
TARGETS = {
    "bert": ["query", "value", "dense"],
    "gpt2": ["c_attn", "c_proj"],
    "llama": ["q_proj", "v_proj", "down_proj"],
    "t5": ["q", "v", "wo"],
}
FORMS = {
    "plain": {},
    "wide": {"r": 8, "lora_alpha": 4, "use_rslora": True},
    "of unlike ranks": {"rank_pattern": {"value": 2}, "alpha_pattern": {"query": 30}},
    "by direction": {"use_dora": True},
    "with biases": {"bias": "lora_only"},
    "with layers of its own": {"modules_to_save": ["LayerNorm"]},
    "with a head of its own, which was tied": {"modules_to_save": ["decoder"]},
}


def adapter(folder, family="bert", part=None, **settings):
    """A LoRA of wide weights on a tiny LM, in a folder beside the LM's; and PEFT's model of both,
    not merged."""
    network, tokenizer = tiny.tiny(family)
    network.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    lora = {"r": 4, "target_modules": TARGETS[family], **settings}
    whole = network
    network = network if part is None else getattr(network, part)
    adapted = peft.get_peft_model(network, peft.LoraConfig(**lora))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            wide = 0.3 * torch.randn(parameter.shape, generator=generator)
            parameter.data = parameter.data + wide if "lora" not in name else wide
    adapted.save_pretrained(folder / "adapter")
    said(folder / "adapter", base_model_name_or_path="../base")
    return whole.eval()


def said(folder, **values):
    """Change what the adapter's config says."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def scores(lm):
    model = PromptModel(lm)
    model.add(Task("t", Template.parse("{soft:2} {x} is {mask}"), WORDS, encoder="table"))
    return torch.stack(model.scores(model.encode(0, ROWS))), model


def by_hand(family, network, vectors):
    """The same, row by row, by PEFT's layers as they are."""
    plain = Plain(family)
    plain.network = network
    return torch.stack(
        [
            torch.cat(plain.words([0, 1, f" {row['x']}", " is"], [["Yes"], ["No"]], None, vectors))
            for row in ROWS
        ]
    )


@pytest.mark.parametrize("family", TARGETS)
def test_an_adapter_is_an_lm_that_answers_as_pefts_layers(family, tmp_path):
    network = adapter(tmp_path, family)
    ours, model = scores(LanguageModel.load(tmp_path / "adapter", device="cpu"))
    vectors = model.bank.encoders[0]().detach()
    theirs = by_hand(family, network, vectors)
    assert (ours - theirs).abs().max() < 1e-4 * max(1, float(theirs.abs().max()))
    without = by_hand(family, tiny.tiny(family)[0].eval(), vectors)
    assert (without - theirs).abs().max() > 0.05


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_lora_is_merged_as_peft_runs_it(form, tmp_path):
    settings = {"target_modules": ["query", "value"], **FORMS[form]}
    network = adapter(tmp_path, **settings)
    ours, model = scores(LanguageModel.load(tmp_path / "adapter", device="cpu"))
    theirs = by_hand("bert", network, model.bank.encoders[0]().detach())
    assert (ours - theirs).abs().max() < 1e-4


def test_an_adapter_of_the_encoder_alone(tmp_path):
    network = adapter(tmp_path, part="bert", target_modules=["query"])
    ours, model = scores(LanguageModel.load(tmp_path / "adapter", device="cpu"))
    theirs = by_hand("bert", network, model.bank.encoders[0]().detach())
    assert (ours - theirs).abs().max() < 1e-4


def test_an_encoder_without_a_head_takes_its_adapter(tmp_path):
    network, tokenizer = tiny.tiny("bert")
    network.bert.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    lora = peft.LoraConfig(r=4, target_modules=["query"], init_lora_weights=False)
    peft.get_peft_model(network.bert, lora).save_pretrained(tmp_path / "adapter")
    said(tmp_path / "adapter", base_model_name_or_path="../base")
    lm = LanguageModel.load(tmp_path / "adapter", device="cpu")
    base = LanguageModel.load(tmp_path / "base", device="cpu")
    first, second = (one.model.encoder.layer[0].attention.self.query.weight for one in (lm, base))
    assert not lm.has_head and not torch.equal(first, second)


def test_a_prompt_on_an_adapter_answers_as_trained_and_is_of_that_adapter(tmp_path):
    """By its command, from another folder, and moved with its LM; on the LM alone, or with another
    adapter, it is refused."""
    adapter(tmp_path)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "task.yaml").write_text(
        'name: t\ntemplate: "{soft:2} {x} is {mask}"\nlabels: {a: "Yes", b: "No"}\n'
        "data: {train: rows.jsonl, dev: rows.jsonl}\nlm: ./adapter\nencoder: table\n"
        "train: {steps: 3, learning_rate: 0.05}\ndevice: cpu\n"
    )
    main.main(["train", str(tmp_path / "task.yaml"), "--out", str(tmp_path / "out")])
    model = prompt_folder.load(tmp_path / "out", device="cpu")
    loss = json.loads((tmp_path / "out" / "prompt.json").read_text())["metrics"]["dev loss"]
    assert (
        abs(
            loss
            + sum(
                float(score.log_softmax(-1)["ab".index(row["label"])])
                for score, row in zip(model.scores(model.encode(0, ROWS)), ROWS)
            )
            / 2
        )
        < 1e-5
    )
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("base", "adapter", "out"):
        shutil.copytree(tmp_path / name, moved / name)
    before = model.predict(ROWS)
    assert prompt_folder.load(moved / "out", device="cpu").predict(ROWS) == before
    base = LanguageModel.load(tmp_path / "base", device="cpu")
    with pytest.raises(StoreError, match="has other weights|differ"):
        prompt_folder.load(tmp_path / "out", base)
    weights = safetensors.torch.load_file(moved / "adapter" / "adapter_model.safetensors")
    name = next(name for name in weights if "lora_B" in name)
    changed = {**weights, name: weights[name] + 0.1}
    safetensors.torch.save_file(changed, moved / "adapter" / "adapter_model.safetensors")
    with pytest.raises(StoreError, match="trained for"):
        prompt_folder.load(moved / "out", LanguageModel.load(moved / "adapter", device="cpu"))


def test_an_lm_of_the_hub_is_taken_from_its_cache_alone(tmp_path, monkeypatch):
    adapter(tmp_path)
    folder = tmp_path / "adapter"
    for name in ("owner/lm", "lm"):
        said(folder, base_model_name_or_path=name, revision="v1")
        with pytest.raises(ModelError, match=f"of the LM {name}@v1, which is not on this machine"):
            LanguageModel.load(folder)
        cached = lambda *values, **named: str(tmp_path / "base" / "config.json")  # noqa: E731
        with monkeypatch.context() as patch:
            patch.setattr("ptune.lm.source.adapter.try_to_load_from_cache", cached)
            assert loading.locate(str(folder)) == (name, {"revision": "v1"})
    for name in (None, "", "../nothing", "/nothing"):
        said(folder, base_model_name_or_path=name, revision=None)
        with pytest.raises(ModelError, match="does not say which LM|not on this machine"):
            LanguageModel.load(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "'PROMPT_TUNING', and no LM: .*`ptune import` reads"),
        ({"megatron_config": {"a": 1}}, "has megatron_config, which ptune does not load"),
        ({"alora_invocation_tokens": [1]}, "has alora_invocation_tokens"),
        ({"layer_replication": [[0, 1]]}, "has layer_replication"),
        ({"init_lora_weights": "pissa"}, "began by 'pissa', which changes the LM's own weights"),
        ({"target_modules": ["nowhere"]}, "does not fit its LM: .*nowhere"),
        ({"target_modules": ["query"]}, "holds, beside what its config speaks of, .*value"),
        ({"target_modules": ["query", "value", "key"]}, "lacks .*key"),
        ({"r": 3}, r"of the shape \[4, 32\], and its LM takes \[3, 32\]"),
        ({"base_model_name_or_path": "."}, "which is one too"),
    ],
)
def test_what_an_adapter_may_not_say(values, message, tmp_path):
    adapter(tmp_path, target_modules=["query", "value"])
    said(tmp_path / "adapter", **values)
    with pytest.raises(ModelError, match=message):
        LanguageModel.load(tmp_path / "adapter")


@pytest.mark.parametrize(("family", "layer"), [("bert", "decoder"), ("gpt2", "wte")])
def test_a_layer_that_is_tied_to_another_is_refused(family, layer, tmp_path):
    """Merged, the LM's input would change with its head, and every answer."""
    adapter(tmp_path, family, target_modules=[layer])
    with pytest.raises(ModelError, match=f"changes .*{layer}, whose weights another part"):
        LanguageModel.load(tmp_path / "adapter")


def test_damaged_and_pickled_adapters_are_refused(tmp_path, monkeypatch):
    adapter(tmp_path)
    folder = tmp_path / "adapter"
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ModelError, match="adapter of PEFT, which is not installed: pip install"):
        LanguageModel.load(folder)
    monkeypatch.undo()
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="pickled weights are not read"):
        LanguageModel.load(folder)
    (folder / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError):
        LanguageModel.load(folder)
    for text in ("{", "[]"):
        (folder / "adapter_config.json").write_text(text)
        with pytest.raises(ModelError, match="is damaged"):
            LanguageModel.load(folder)
