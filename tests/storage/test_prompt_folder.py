import json
import shutil

import pytest
import tiny
import torch

from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader_table import READERS
from ptune.base import files
from ptune.errors import ConfigError, StoreError
from ptune.lm.language_model import LanguageModel
from ptune.lm.source import loading
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.settings import DecodingConfig, LayoutConfig, TrainConfig
from ptune.storage import prompt_folder
from ptune.template.language import Template
from ptune.training.loop import fit

ROWS = [
    {"x": "Vienna lies", "label": "a"},
    {"x": "It was", "label": "b"},
    {"x": "great film", "label": "a"},
]


def model_of(family="bert", names=("t",), encoder="lstm", **settings):
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    for number, name in enumerate(names):
        words = Verbalizer.from_words({"a": ["Yes", "great film"], "b": "No"})
        model.add(
            Task(
                name,
                Template.parse(f"{{soft:{number + 2}@p}} {{x}} {{soft@p}} {{mask}}"),
                words,
                encoder=encoder,
                **settings,
            ),
            ROWS,
        )
    return model


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_a_saved_prompt_answers_exactly_as_before(family, tmp_path):
    model = model_of(family)
    prompt_folder.save(model, tmp_path, metrics={"accuracy": 0.5})
    loaded = prompt_folder.load(tmp_path, LanguageModel(*tiny.tiny(family)))
    rows = model.encode(0, ROWS)
    assert all(map(torch.equal, model.scores(rows), loaded.scores(loaded.encode(0, ROWS))))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["prompt.json", "prompt.safetensors"]
    assert not list(loaded.bank.parameters()), "only the vectors are kept"
    assert json.loads((tmp_path / "prompt.json").read_text())["metrics"] == {"accuracy": 0.5}


@pytest.mark.parametrize(
    "settings",
    [
        {
            "target": "goal",
            "init": "great film",
            "seed": 7,
            "smoothing": 0.1,
            "target_length": 9,
            "decoding": DecodingConfig(max_new_tokens=3),
            "combine": "weighted",
            "by": ("user", "a"),
            "swap": ("x", "y"),
            "temperature": 2.0,
            "max_length": 30,
            "layout": LayoutConfig(form="lines"),
            "metrics": ("accuracy",),
            "parts": "genre",
        },
        {"loss": "vocabulary", "verbalizer": Verbalizer.from_words({"a": "Yes", "b": "No"})},
        {"template": Template.parse("{x|shorten} {soft:2}"), "reader": READERS["head"]}
        | {"pooling": "mean", "layer": 1, "windows": "max"},
    ],
)
def test_every_setting_of_a_task_is_saved(settings, tmp_path):
    model = model_of(names=())
    words = Verbalizer.from_words({"a": ["Yes", "great film"], "b": "No"})
    usual = {"name": "t", "template": Template.parse("{x} {soft:2} {mask}"), "verbalizer": words}
    task = Task(**{**usual, "encoder": "table", **settings})
    model.add(task)
    prompt_folder.save(model, tmp_path)
    assert prompt_folder.load(tmp_path, model.lm).tasks[0].task == task


def test_many_prompts_load_as_one_bank(tmp_path):
    model = model_of(names=("t", "u", "v"))
    for number, name in enumerate("tuv"):
        prompt_folder.save(model, tmp_path / name, task=number)
    loaded = prompt_folder.load([tmp_path / n for n in "vt"], model.lm)
    examples = loaded.encode(0, ROWS) + loaded.encode(1, ROWS)
    expected = model.encode(2, ROWS) + model.encode(0, ROWS)
    for ours, theirs in zip(loaded.scores(examples), model.scores(expected)):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def stored_lm(folder, family="bert", **settings):
    network, tokenizer = tiny.tiny(family, **settings)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def prompt_over(source, folder, family="bert", **settings):
    model = PromptModel(LanguageModel.load(source, device="cpu", **settings))
    words = Verbalizer.from_words({"a": "Yes", "b": "No"}) if family == "bert" else None
    model.add(Task("t", Template.parse("{soft:2} {x} {mask}"), words, encoder="table"))
    prompt_folder.save(model, folder)
    return model


def test_the_lm_is_loaded_from_where_it_came(tmp_path, monkeypatch):
    """Its folder is named from the working folder; the prompt loads from any other, and after both
    were moved together."""
    monkeypatch.chdir(tmp_path)
    stored_lm("home/lm")
    predictions = prompt_over("./home/lm", "home/prompt").predict(ROWS)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert prompt_folder.load("../home/prompt", device="cpu").predict(ROWS) == predictions
    (tmp_path / "home").rename(tmp_path / "moved")
    assert prompt_folder.load("../moved/prompt", device="cpu").predict(ROWS) == predictions
    (tmp_path / "moved" / "prompt").rename(tmp_path / "prompt")
    (tmp_path / "moved").rename(tmp_path / "home")
    assert prompt_folder.load("../prompt", device="cpu").predict(ROWS) == predictions, (
        "the LM is where it was"
    )
    stored_lm(tmp_path / "lm", seed=1)
    shutil.copytree(tmp_path / "prompt", tmp_path / "deep" / "prompt")
    shutil.copytree(tmp_path / "lm", tmp_path / "deep" / "lm")
    assert prompt_folder.load("../deep/prompt", device="cpu").predict(ROWS) == predictions, (
        "another LM lies where it lay from the prompt"
    )
    shutil.rmtree(tmp_path / "home")
    shutil.rmtree(tmp_path / "lm")
    with pytest.raises(
        StoreError,
        match="looked for at .*home/lm and is not there: put it back, or name it with --lm",
    ):
        prompt_folder.load(tmp_path / "prompt", device="cpu")


def test_a_local_lm_is_never_asked_of_the_hub(tmp_path, monkeypatch):
    def hub(*arguments, **options):
        assert options.get("local_files_only"), "it would ask the hub"
        return load(*arguments, **options)

    load = loading.AutoTokenizer.from_pretrained
    monkeypatch.setattr(loading.AutoTokenizer, "from_pretrained", hub)
    monkeypatch.chdir(tmp_path)
    stored_lm("me/lm")
    prompt_over("me/lm", "prompt")
    assert prompt_folder.load("prompt", device="cpu").lm.source.endswith("me/lm")
    note = files.read_json("prompt/prompt.json")
    for place in ("relative", "absolute"):
        note["lm"].pop(place)
    for source in (
        "./me/lm",
        "../me/lm",
    ):  # as older versions wrote it: from the working folder or from the prompt's
        note["lm"]["source"] = source
        files.write_json("prompt/prompt.json", note)
        assert prompt_folder.load("prompt", device="cpu").predict(ROWS)
    note["lm"]["source"] = "./nowhere"
    files.write_json("prompt/prompt.json", note)
    with pytest.raises(StoreError, match="is not there: put it back, or name it with --lm"):
        prompt_folder.load("prompt", device="cpu")


@pytest.mark.parametrize(
    "settings",
    [{"dtype": "float64"}, {"dtype": "bfloat16"}, {"dtype": "bfloat16", "tuned": True}, {}],
)
def test_an_lm_is_loaded_in_the_number_format_it_was_used_in(settings, tmp_path):
    stored_lm(tmp_path / "lm")
    model = prompt_over(tmp_path / "lm", tmp_path / "prompt", **settings)
    loaded = prompt_folder.load(tmp_path / "prompt", device="cpu")
    assert (loaded.lm.dtype, loaded.lm.mixed) == (
        model.lm.dtype,
        model.lm.mixed,
    ) and loaded.predict(ROWS) == model.predict(ROWS)
    assert (
        prompt_folder.load(tmp_path / "prompt", device="cpu", dtype="float32").lm.dtype
        == torch.float32
    )


@pytest.mark.parametrize("encoder", ["lstm", "mlp", "table"])
def test_training_goes_on_from_a_saved_encoder(encoder, tmp_path):
    """PEFT saves a P-tuning prompt without its encoder, and refuses to train it again; P-tuning's
    own code looks for an MLP under a name that is not there."""
    model = model_of(encoder=encoder)
    prompt_folder.save(model, tmp_path, encoder=True)
    loaded = prompt_folder.load(tmp_path, model.lm, trainable=True)
    config = TrainConfig(batch_size=2, epochs=2, patience=0)
    for each_model in (model, loaded):
        fit(each_model, {0: (ROWS, ROWS)}, config)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            model.bank.encoders[0].state_dict().values(),
            loaded.bank.encoders[0].state_dict().values(),
        )
    )


def test_a_prompt_for_another_lm_is_refused(tmp_path):
    prompt_folder.save(model_of(), tmp_path)
    for other, message in (
        (tiny.tiny("bert", seed=1), "has other weights"),
        (tiny.tiny("gpt2"), "this LM, , is causal"),
        (tiny.tiny("albert"), "embedding width 32.*of width 16"),
    ):
        with pytest.raises(StoreError, match=message):
            prompt_folder.load(tmp_path, LanguageModel(*other))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"format": 99}, "newer ptune"),
        ({"format": "x"}, "damaged: format"),
        ({"labels": 3}, "damaged: labels"),
        ({"surprise": 1}, "damaged: surprise.* If a later version of ptune saved it, update"),
        (
            {"reading": {"by": "crystal"}},
            r"damaged: reading\.by: .*'crystal'\)\. If a later version of ptune saved it, update",
        ),
        ({"words": [["Yes"]]}, "2 labels and words for 1"),
        ({"words": [["Yes"], []]}, "the label 'b' has no word, or an empty one"),
        ({"words": [["Yes"], [" "]]}, "the label 'b' has no word"),
        ({"words": None, "labels": ["a", ""]}, "the label '' has no word"),
        ({"labels": ["a", "a"]}, "a label stands in it twice"),
        ({"reading": {"offset": [1e999, 0]}}, "reading.offset.0: .*finite"),
        ({"reading": {"weight": 1e999}}, "reading.weight: .*finite"),
        ({"length": 7}, "other lengths than its template"),
        ({"length": -1}, r"damaged: length: [^.]*\.$"),
        ({"max_length": -5}, "damaged: max_length"),
        ({"target_length": 0}, "damaged: target_length"),
        ({"temperature": 0.0}, "damaged: temperature"),
        ({"smoothing": 1.0}, "damaged: smoothing"),
        ({"reading": {"layer": 0}}, "damaged: reading.layer"),
        ({"labels": [], "words": None}, "damaged: labels: "),
        ({"name": "\ud800"}, "is not valid JSON .*surrogates"),
    ],
)
def test_damaged_notes(tmp_path, change, message):
    model = model_of()
    prompt_folder.save(model, tmp_path)
    raw = files.read_json(tmp_path / "prompt.json")
    (tmp_path / "prompt.json").write_text(json.dumps(raw | change).replace("Infinity", "1e999"))
    with pytest.raises(StoreError, match=message):
        prompt_folder.load(tmp_path, model.lm)


@pytest.mark.parametrize("name", ["rows", "tokens"])
def test_a_damaged_record_of_the_lm(name, tmp_path):
    model = model_of()
    prompt_folder.save(model, tmp_path)
    raw = files.read_json(tmp_path / "prompt.json")
    raw["lm"]["record"][name] = -1
    (tmp_path / "prompt.json").write_text(json.dumps(raw))
    with pytest.raises(StoreError, match=f"damaged: lm.record.{name}: "):
        prompt_folder.load(tmp_path, model.lm)


def test_a_sign_of_two_escapes_is_read(tmp_path):
    model = model_of(names=("\U0001f600",))
    prompt_folder.save(model, tmp_path)
    raw = files.read_json(tmp_path / "prompt.json")
    (tmp_path / "prompt.json").write_text(json.dumps(raw))
    assert "\\ud83d\\ude00" in (tmp_path / "prompt.json").read_text()
    assert prompt_folder.load(tmp_path, model.lm).tasks[0].task.name == "\U0001f600"


def test_json_knows_no_nan(tmp_path):
    model = model_of()
    prompt_folder.save(model, tmp_path)
    text = (tmp_path / "prompt.json").read_text().replace('"offset": null', '"offset": [NaN, 0]')
    (tmp_path / "prompt.json").write_text(text)
    with pytest.raises(StoreError, match="is not valid JSON .*the number NaN"):
        prompt_folder.load(tmp_path, model.lm)


@pytest.mark.parametrize(
    "tensors, message",
    [
        ({"vectors": torch.zeros(3, 32)}, r"float32 \[2, 32\].*holds torch.float32 \[3, 32\]"),
        ({"vectors": torch.zeros(2, 32, dtype=torch.float16)}, "holds torch.float16"),
        ({"other": torch.zeros(2, 32)}, "holds none"),
        ({"vectors": torch.full((2, 32), float("nan"))}, "not numbers"),
        ({"vectors": torch.full((2, 32), -3e38)}, r"too large for any LM \(3e\+38\)"),
    ],
)
def test_damaged_vectors(tmp_path, tensors, message):
    model = model_of()
    prompt_folder.save(model, tmp_path)
    files.write_tensors(tmp_path / "prompt.safetensors", tensors)
    with pytest.raises(StoreError, match=message):
        prompt_folder.load(tmp_path, model.lm)
    whole = (tmp_path / "prompt.safetensors").read_bytes()
    (tmp_path / "prompt.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match="damaged"):
        prompt_folder.load(tmp_path, model.lm)
    (tmp_path / "empty").mkdir()
    (tmp_path / "task.yaml").write_text("name: t")
    for name, said in (
        ("none", "There is no folder .*none"),
        ("empty", "The folder .*empty holds no saved prompt"),
        ("task.yaml", "task.yaml is a task: train it .* --out"),
    ):
        for read in (lambda path: prompt_folder.load(path, model.lm), prompt_folder.folders_in):
            with pytest.raises(StoreError, match=said):
                read(tmp_path / name)


def prefixed(family="gpt2", hidden=4, dtype=torch.float32):
    model = PromptModel(LanguageModel(*tiny.tiny(family, dtype)))
    settings = PrefixSettings(hidden, attentions=("decoder",) if family == "t5" else ("self",))
    task = Task(
        "t",
        Template.parse("{prefix:3} {soft:2} {x} is" + (" {mask}" if family != "t5" else "")),
        verbalizer=None,
        target="y",
        encoder="table",
        prefix=settings,
        smoothing=0.1,
        target_length=9,
        decoding=DecodingConfig(max_new_tokens=5, beams=2),
        by=("user", "anna"),
    )
    model.add(task)
    return model


@pytest.mark.parametrize("hidden", [0, 4])
@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_a_saved_prefix_writes_exactly_as_before(family, hidden, tmp_path):
    model = prefixed(family, hidden)
    rows = [{"x": "Vienna", "y": "great"}, {"x": "Rome", "y": "a film"}]
    prompt_folder.save(model, tmp_path, encoder=True)
    loaded = prompt_folder.load(tmp_path, LanguageModel(*tiny.tiny(family)))
    assert loaded.tasks[0].task == model.tasks[0].task and not list(loaded.bank.parameters())
    assert torch.equal(loaded.losses(loaded.encode(0, rows)), model.losses(model.encode(0, rows)))
    going_on = prompt_folder.load(tmp_path, LanguageModel(*tiny.tiny(family)), trainable=True)
    assert (
        all(map(torch.equal, going_on.bank.parameters_of(0), model.bank.parameters_of(0)))
        and len(model.bank.parameters_of(0)) > 1
    )
    assert torch.equal(
        going_on.losses(going_on.encode(0, rows)), model.losses(model.encode(0, rows))
    )


def test_a_prefix_serves_in_another_number_format(tmp_path):
    prompt_folder.save(prefixed(), tmp_path)
    low = prompt_folder.load(tmp_path, LanguageModel(*tiny.tiny("gpt2", torch.bfloat16)))
    rows = [{"x": "Vienna", "y": "great"}]
    expected = prefixed().losses(prefixed().encode(0, rows))
    assert abs(float(low.losses(low.encode(0, rows)).detach() / expected.detach()) - 1) < 0.05


@pytest.mark.parametrize(
    "tensors, message",
    [
        ({}, "should hold vectors"),
        ({"vectors": torch.zeros(2, 32)}, "should hold prefix"),
        ({"vectors": torch.zeros(2, 32), "prefix": torch.zeros(3, 127)}, "holds"),
        (
            {"vectors": torch.zeros(2, 32), "prefix": torch.full((3, 128), float("inf"))},
            "not numbers",
        ),
        (
            {"vectors": torch.zeros(2, 32), "prefix": torch.zeros(3, 128, dtype=torch.float16)},
            "float16",
        ),
    ],
)
def test_a_damaged_prefix(tmp_path, tensors, message):
    model = prefixed()
    prompt_folder.save(model, tmp_path)
    files.write_tensors(tmp_path / "prompt.safetensors", tensors)
    with pytest.raises(StoreError, match=message):
        prompt_folder.load(tmp_path, model.lm)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"prefix": None}, "other lengths than its template"),
        ({"prefix.length": 4}, "other lengths"),
        ({"prefix.width": 5}, "takes 128 by attention"),
        (
            {"prefix.route": "layer inputs"},
            "enters by layer inputs.*take the release that the prompt was trained with",
        ),
        ({"prefix.attentions": []}, "takes 0"),
        ({"format": 1}, "an older ptune"),
        ({"format": 2}, "an older ptune"),
        ({"format": 4}, "a newer ptune"),
        ({"decoding": {"beams": 0}}, "damaged: decoding"),
    ],
)
def test_a_damaged_note_of_a_prefix(tmp_path, change, message):
    model = prefixed()
    prompt_folder.save(model, tmp_path)
    note = json.loads((tmp_path / "prompt.json").read_text())
    for key, value in change.items():
        *outer, last = key.split(".")
        (note[outer[0]] if outer else note)[last] = value
    files.write_json(tmp_path / "prompt.json", note)
    with pytest.raises(StoreError, match=message):
        prompt_folder.load(tmp_path, model.lm)


def test_folders_one_by_one_or_in_a_list(tmp_path):
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    for name in "ab":
        model.add(
            Task(
                name,
                Template.parse("{soft:2} {text} {mask}"),
                Verbalizer.from_words({"y": "Yes", "n": "No"}),
            )
        )
        prompt_folder.save(model, tmp_path / name, task=name)
    folders = [tmp_path / "a", str(tmp_path / "b")]
    for loaded in (
        prompt_folder.load(*folders, lm=model.lm),
        prompt_folder.load(*folders, model.lm),
        prompt_folder.load(folders, model.lm),
        prompt_folder.load(folders, lm=model.lm),
    ):
        assert [fitted.task.name for fitted in loaded.tasks] == ["a", "b"]
    with pytest.raises(ConfigError, match="A prompt's folder is expected, and it is a int"):
        prompt_folder.load(tmp_path / "a", 3)
    with pytest.raises(StoreError, match="No folder of a saved prompt is named"):
        prompt_folder.load(lm=model.lm)


# Going on.


@pytest.mark.parametrize("encoder", ["table", "lstm"])
def test_vectors_without_their_encoder_go_on_as_a_table(encoder, tmp_path):
    """What was imported, or saved to answer, has vectors alone, and these can be trained on."""
    model = model_of(encoder=encoder)
    prompt_folder.save(model, tmp_path)
    loaded = prompt_folder.load(tmp_path, model.lm, trainable=True)
    assert loaded.tasks[0].task.encoder == "table"
    examples = model.encode(0, ROWS)
    assert all(map(torch.equal, model.scores(examples), loaded.scores(loaded.encode(0, ROWS))))
    before = loaded.bank.encoders[0]().detach().clone()
    fit(loaded, {0: (ROWS, ROWS)}, TrainConfig(batch_size=2, epochs=1, learning_rate=0.1))
    assert not torch.equal(loaded.bank.encoders[0](), before)
    prompt_folder.save(loaded, tmp_path / "again", encoder=True)
    assert prompt_folder.load(tmp_path / "again", model.lm, trainable=True).predict(
        ROWS
    ) == loaded.predict(ROWS)


def test_a_prefix_without_its_encoder_goes_on_as_it_is(tmp_path):
    model = prefixed(hidden=4)
    prompt_folder.save(model, tmp_path)
    loaded = prompt_folder.load(tmp_path, model.lm, trainable=True)
    rows = [{"x": "Vienna", "y": "great"}]
    assert torch.equal(loaded.losses(loaded.encode(0, rows)), model.losses(model.encode(0, rows)))
    assert loaded.tasks[0].task.prefix.hidden == 0 and len(loaded.bank.parameters_of(0)) == 2
    fit(loaded, {0: (rows, rows)}, TrainConfig(batch_size=2, epochs=1))


def test_a_prompt_that_was_loaded_to_answer_says_so(tmp_path):
    model = model_of()
    prompt_folder.save(model, tmp_path, encoder=True)
    for again in (prompt_folder.load(tmp_path, model.lm), prompt_folder.load(tmp_path, model.lm)):
        with pytest.raises(
            ConfigError,
            match="was loaded to answer, and not to be trained: load it with trainable=True",
        ):
            fit(again, {0: (ROWS, ROWS)}, TrainConfig(epochs=1))
    prompt_folder.save(again, tmp_path / "twice", encoder=True)
    assert not (tmp_path / "twice" / "encoder.safetensors").exists()
    assert prompt_folder.load(tmp_path / "twice", model.lm, trainable=True).predict(
        ROWS
    ) == model.predict(ROWS)
