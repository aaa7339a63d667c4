import json

import pytest
import tiny
import torch

from ptune import saving, store
from ptune.config import DecodingConfig, TrainConfig
from ptune.errors import ConfigError, StoreError
from ptune.lm import LanguageModel
from ptune.model import PrefixSettings, PromptModel, Task
from ptune.template import Template
from ptune.train import fit
from ptune.verbalizer import Verbalizer

ROWS = [{"x": "Vienna lies", "label": "a"}, {"x": "It was", "label": "b"}, {"x": "great film", "label": "a"}]


def model_of(family="bert", names=("t",), encoder="lstm", **more):
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    for number, name in enumerate(names):
        words = Verbalizer.from_words({"a": ["Yes", "great film"], "b": "No"})
        model.add(Task(name, Template.parse(f"{{soft:{number + 2}@p}} {{x}} {{soft@p}} {{mask}}"), words, encoder=encoder, **more), ROWS)
    return model


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_a_saved_prompt_answers_exactly_as_before(family, tmp_path):
    model = model_of(family)
    saving.save(model, tmp_path, metrics={"accuracy": 0.5})
    loaded = saving.load(tmp_path, LanguageModel(*tiny.tiny(family)))
    rows = model.encode(0, ROWS)
    assert all(map(torch.equal, model.scores(rows), loaded.scores(loaded.encode(0, ROWS))))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["prompt.json", "prompt.safetensors"]
    assert not list(loaded.bank.parameters()), "only the vectors are kept"
    assert json.loads((tmp_path / "prompt.json").read_text())["metrics"] == {"accuracy": 0.5}


def test_many_prompts_load_as_one_bank(tmp_path):
    model = model_of(names=("t", "u", "v"))
    for number, name in enumerate("tuv"):
        saving.save(model, tmp_path / name, number)
    loaded = saving.load([tmp_path / n for n in "vt"], model.lm)
    examples = loaded.encode(0, ROWS) + loaded.encode(1, ROWS)
    wanted = model.encode(2, ROWS) + model.encode(0, ROWS)
    for ours, theirs in zip(loaded.scores(examples), model.scores(wanted)):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_the_lm_is_loaded_from_where_it_came(tmp_path):
    network, tokenizer = tiny.tiny("bert")
    network.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    model = PromptModel(LanguageModel.load(tmp_path / "lm", device="cpu"))
    model.add(Task("t", Template.parse("{soft:2} {x} {mask}"), Verbalizer.from_words({"a": "Yes", "b": "No"})))
    saving.save(model, tmp_path / "prompt")
    assert saving.load(tmp_path / "prompt", device="cpu").predict(ROWS) == model.predict(ROWS)


@pytest.mark.parametrize("encoder", ["lstm", "mlp", "table"])
def test_training_goes_on_from_a_saved_encoder(encoder, tmp_path):
    """PEFT saves a P-tuning prompt without its encoder, and refuses to train it again; P-tuning's own code looks for an MLP
    under a name that is not there."""
    model = model_of(encoder=encoder)
    saving.save(model, tmp_path, encoder=True)
    loaded = saving.load(tmp_path, model.lm, trainable=True)
    config = TrainConfig(batch_size=2, epochs=2, patience=0)
    for own in (model, loaded):
        fit(own, {0: (ROWS, ROWS)}, config)
    assert all(torch.equal(a, b) for a, b in zip(model.bank.encoders[0].state_dict().values(), loaded.bank.encoders[0].state_dict().values()))
    (tmp_path / "encoder.safetensors").unlink()
    with pytest.raises(StoreError, match="encoder.safetensors cannot be read"):
        saving.load(tmp_path, model.lm, trainable=True)


def test_a_prompt_for_another_lm_is_refused(tmp_path):
    saving.save(model_of(), tmp_path)
    for other, message in ((tiny.tiny("bert", seed=1), "has other weights"), (tiny.tiny("gpt2"), "this LM, , is causal"),
                           (tiny.tiny("albert"), "embedding width 32.*of width 16")):
        with pytest.raises(StoreError, match=message):
            saving.load(tmp_path, LanguageModel(*other))


@pytest.mark.parametrize("change, message", [
    ({"format": 99}, "newer ptune"), ({"format": "x"}, "damaged: format"), ({"labels": 3}, "damaged: labels"), ({"surprise": 1}, "damaged: surprise"),
    ({"words": [["Yes"]]}, "2 labels and words for 1"),
    ({"words": [["Yes"], []]}, "the label 'b' has no word, or an empty one"), ({"words": [["Yes"], [" "]]}, "the label 'b' has no word"),
    ({"words": None, "labels": ["a", ""]}, "the label '' has no word"), ({"labels": ["a", "a"]}, "a label stands in it twice"),
    ({"reading": {"offset": [1e999, 0]}}, "reading.offset.0: .*finite"), ({"reading": {"weight": 1e999}}, "reading.weight: .*finite"), ({"length": 7}, "other lengths than its template")])
def test_damaged_notes(tmp_path, change, message):
    model = model_of()
    saving.save(model, tmp_path)
    raw = store.read_json(tmp_path / "prompt.json")
    (tmp_path / "prompt.json").write_text(json.dumps(raw | change).replace("Infinity", "1e999"))
    with pytest.raises(StoreError, match=message):
        saving.load(tmp_path, model.lm)


def test_json_knows_no_nan(tmp_path):
    model = model_of()
    saving.save(model, tmp_path)
    text = (tmp_path / "prompt.json").read_text().replace('"offset": null', '"offset": [NaN, 0]')
    (tmp_path / "prompt.json").write_text(text)
    with pytest.raises(StoreError, match="is not valid JSON .*the number NaN"):
        saving.load(tmp_path, model.lm)


@pytest.mark.parametrize("tensors, message", [
    ({"vectors": torch.zeros(3, 32)}, r"float32 \[2, 32\].*holds torch.float32 \[3, 32\]"),
    ({"vectors": torch.zeros(2, 32, dtype=torch.float16)}, "holds torch.float16"),
    ({"other": torch.zeros(2, 32)}, "holds none"), ({"vectors": torch.full((2, 32), float("nan"))}, "not numbers"),
    ({"vectors": torch.full((2, 32), -3e38)}, r"too large for any LM \(3e\+38\)")])
def test_damaged_vectors(tmp_path, tensors, message):
    model = model_of()
    saving.save(model, tmp_path)
    store.write_tensors(tmp_path / "prompt.safetensors", tensors)
    with pytest.raises(StoreError, match=message):
        saving.load(tmp_path, model.lm)
    whole = (tmp_path / "prompt.safetensors").read_bytes()
    (tmp_path / "prompt.safetensors").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(StoreError, match="damaged"):
        saving.load(tmp_path, model.lm)
    with pytest.raises(StoreError, match="no saved prompt at"):
        saving.load(tmp_path / "none", model.lm)


def prefixed(family="gpt2", hidden=4, dtype=torch.float32):
    model = PromptModel(LanguageModel(*tiny.tiny(family, dtype)))
    settings = PrefixSettings(hidden, attentions=("decoder",) if family == "t5" else ("self",))
    task = Task("t", Template.parse("{prefix:3} {soft:2} {x} is" + (" {mask}" if family != "t5" else "")), None, "y", "table", prefix=settings,
                smoothing=0.1, target_length=9, decoding=DecodingConfig(max_new_tokens=5, beams=2), by=("user", "anna"))
    model.add(task)
    return model


@pytest.mark.parametrize("hidden", [0, 4])
@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_a_saved_prefix_writes_exactly_as_before(family, hidden, tmp_path):
    model = prefixed(family, hidden)
    rows = [{"x": "Vienna", "y": "great"}, {"x": "Rome", "y": "a film"}]
    saving.save(model, tmp_path, encoder=True)
    loaded = saving.load(tmp_path, LanguageModel(*tiny.tiny(family)))
    assert loaded.tasks[0].task == model.tasks[0].task and not list(loaded.bank.parameters())
    assert torch.equal(loaded.losses(loaded.encode(0, rows)), model.losses(model.encode(0, rows)))
    going_on = saving.load(tmp_path, LanguageModel(*tiny.tiny(family)), trainable=True)
    assert all(map(torch.equal, going_on.bank.parameters_of(0), model.bank.parameters_of(0))) and len(model.bank.parameters_of(0)) > 1
    assert torch.equal(going_on.losses(going_on.encode(0, rows)), model.losses(model.encode(0, rows)))


def test_a_prefix_serves_in_another_number_format(tmp_path):
    saving.save(prefixed(), tmp_path)
    low = saving.load(tmp_path, LanguageModel(*tiny.tiny("gpt2", torch.bfloat16)))
    rows = [{"x": "Vienna", "y": "great"}]
    wanted = prefixed().losses(prefixed().encode(0, rows))
    assert abs(float(low.losses(low.encode(0, rows)).detach() / wanted.detach()) - 1) < 0.05


@pytest.mark.parametrize("tensors, message", [
    ({}, "should hold vectors"), ({"vectors": torch.zeros(2, 32)}, "should hold prefix"),
    ({"vectors": torch.zeros(2, 32), "prefix": torch.zeros(3, 127)}, "holds"),
    ({"vectors": torch.zeros(2, 32), "prefix": torch.full((3, 128), float("inf"))}, "not numbers"),
    ({"vectors": torch.zeros(2, 32), "prefix": torch.zeros(3, 128, dtype=torch.float16)}, "float16")])
def test_a_damaged_prefix(tmp_path, tensors, message):
    model = prefixed()
    saving.save(model, tmp_path)
    store.write_tensors(tmp_path / "prompt.safetensors", tensors)
    with pytest.raises(StoreError, match=message):
        saving.load(tmp_path, model.lm)


@pytest.mark.parametrize("change, message", [
    ({"prefix": None}, "other lengths than its template"), ({"prefix.length": 4}, "other lengths"), ({"prefix.width": 5}, "takes 128 by attention"),
    ({"prefix.route": "layer inputs"}, "enters by layer inputs"), ({"prefix.attentions": []}, "takes 0"), ({"format": 1}, "an older ptune"),
    ({"format": 2}, "an older ptune"), ({"format": 4}, "a newer ptune"), ({"decoding": {"beams": 0}}, "damaged: decoding")])
def test_a_damaged_note_of_a_prefix(tmp_path, change, message):
    model = prefixed()
    saving.save(model, tmp_path)
    note = json.loads((tmp_path / "prompt.json").read_text())
    for key, value in change.items():
        *outer, last = key.split(".")
        (note[outer[0]] if outer else note)[last] = value
    store.write_json(tmp_path / "prompt.json", note)
    with pytest.raises(StoreError, match=message):
        saving.load(tmp_path, model.lm)


def test_folders_one_by_one_or_in_a_list(tmp_path):
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    for name in "ab":
        model.add(Task(name, Template.parse("{soft:2} {text} {mask}"), Verbalizer.from_words({"y": "Yes", "n": "No"})))
        saving.save(model, tmp_path / name, name)
    folders = [tmp_path / "a", str(tmp_path / "b")]
    for loaded in (saving.load(*folders, lm=model.lm), saving.load(*folders, model.lm), saving.load(folders, model.lm), saving.load(folders, lm=model.lm)):
        assert [fitted.task.name for fitted in loaded.tasks] == ["a", "b"]
    with pytest.raises(ConfigError, match="A prompt's folder is expected, and it is a int"):
        saving.load(tmp_path / "a", 3)
    with pytest.raises(StoreError, match="No folder of a saved prompt is named"):
        saving.load(lm=model.lm)
