"""A prompt that is saved where another one lies: nothing of the earlier one is used any more, and
nothing of anyone else's goes lost."""

import contextlib
import json

import killing
import pytest
import tiny
import torch
from safetensors.torch import save_file

from ptune.answers.label_words import Verbalizer
from ptune.base import files
from ptune.errors import StoreError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.serving.bank.prompt_files import prompts_in
from ptune.storage import peft_format, prompt_folder
from ptune.template.language import Template

ROWS = [{"x": "Vienna lies", "label": "a"}, {"x": "It was", "label": "b"}]
ENCODER = "encoder.safetensors"
LORA = {"peft_type": "LORA", "r": 4, "revision": None}


def model_of(seed, family="bert", template="{soft:2} {x} {mask}", **settings):
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    words = Verbalizer.from_words({"a": "Yes", "b": "No"})
    settings = {"encoder": "lstm", **settings}
    model.add(Task("t", Template.parse(template), words, seed=seed, **settings), ROWS)
    return model


def scores(model):
    return torch.stack(list(model.scores(model.encode(0, ROWS))))


def saved_with_all(model, folder):
    prompt_folder.save(model, folder, encoder=True)
    peft_format.export(model, folder)


@pytest.mark.parametrize("encoder", ["lstm", "table"])
def test_training_goes_on_from_the_newer_prompt(encoder, tmp_path):
    earlier, later = model_of(1, encoder=encoder), model_of(2, encoder=encoder)
    assert not torch.allclose(scores(earlier), scores(later), atol=1e-3), "they differ"
    prompt_folder.save(earlier, tmp_path, encoder=True)
    prompt_folder.save(later, tmp_path)
    loaded = prompt_folder.load(tmp_path, later.lm, trainable=True)
    torch.testing.assert_close(scores(loaded), scores(later), atol=1e-5, rtol=1e-5)
    assert list(loaded.bank.parameters())


def test_the_files_of_an_earlier_prompt_go_and_those_of_others_stay(tmp_path):
    saved_with_all(model_of(1, "gpt2", "{soft:2}{x} {mask}"), tmp_path)
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "estimator.json").write_text('{"kind": "a surveyor\'s"}')
    prompt_folder.save(model_of(2, "gpt2", "{soft:2}{x} {mask}"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "estimator.json",
        "prompt.json",
        "prompt.safetensors",
        "run.json",
    ]


@pytest.mark.parametrize(
    "tensors", [{"lora_A": torch.ones(2)}, {"prompt_embeddings": torch.ones(2)}]
)
def test_an_adapter_that_ptune_did_not_write_stays(tensors, tmp_path):
    (tmp_path / peft_format.CONFIG).write_text(json.dumps(LORA))
    save_file(tensors, tmp_path / peft_format.WEIGHTS, {"format": "pt"})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    prompt_folder.save(model_of(1), tmp_path)
    assert before == {path: path.read_bytes() for path in before}


@contextlib.contextmanager
def killed_at(change, monkeypatch):
    """What is run within this is killed before it removes or places something for the time of that
    number."""
    seen = []

    def dying(function):
        def changing(*arguments):
            if len(seen) == change:
                raise killing.Stop
            seen.append(1)
            function(*arguments)

        return changing

    with monkeypatch.context() as patch, contextlib.suppress(killing.Stop):
        for name in ("_remove", "place"):
            patch.setattr(files, name, dying(getattr(files, name)))
        yield seen


def test_a_kill_at_any_moment_mixes_no_prompts(tmp_path, monkeypatch):
    """The folder then holds one of the two prompts, or none."""
    earlier, later = (model_of(seed, "gpt2", "{soft:2}{x} {mask}") for seed in (1, 2))
    outcomes, expected = [], [scores(earlier), scores(later)]
    for change in range(14):
        folder = tmp_path / str(change)
        saved_with_all(earlier, folder)
        with killed_at(change, monkeypatch):
            prompt_folder.save(later, folder, encoder=True)
        try:
            loads = [
                scores(prompt_folder.load(folder, earlier.lm, trainable=trainable))
                for trainable in (False, True)
            ]
            (outcome,) = (
                number
                for number, one in enumerate(expected)
                if all(torch.allclose(loaded, one, atol=1e-5) for loaded in loads)
            )
            outcomes.append(outcome)
            assert (folder / peft_format.CONFIG).exists() == (outcome == 0)
        except StoreError as error:
            assert "holds no saved prompt" in str(error)
            outcomes.append(None)
        prompt_folder.save(later, folder)
        names = sorted(path.name for path in folder.glob("[!.]*"))
        assert names == ["prompt.json", "prompt.safetensors"]
    assert list(dict.fromkeys(outcomes)) == [0, None, 1]


@pytest.mark.parametrize(
    ("template", "settings", "part"),
    [
        ("{soft:2} {x} {mask}", {}, "soft"),
        ("{prefix:2}{x} {mask}", {"prefix": PrefixSettings(hidden=4)}, "prefix"),
        ("{prefix:2}{x} {mask}", {"prefix": PrefixSettings(hidden=0, gates="row")}, "prefix"),
    ],
)
def test_an_encoder_of_other_vectors_is_refused(template, settings, part, tmp_path):
    """0.1.0 left it beside the newer vectors."""
    model = model_of(1, "gpt2", template, **settings)
    prompt_folder.save(model, tmp_path, encoder=True)
    assert prompt_folder.load(tmp_path, model.lm, trainable=True)
    states = files.read_tensors(tmp_path / ENCODER)
    name = next(name for name in states if "embedding" in name or "openings" in name)
    assert name.startswith(part)
    files.write_tensors(tmp_path / ENCODER, states | {name: states[name] + 1})
    assert prompt_folder.load(tmp_path, model.lm), "it answers without it"
    with pytest.raises(
        StoreError,
        match="encoder.safetensors does not make the vectors of .*prompt.safetensors: .* remove",
    ):
        prompt_folder.load(tmp_path, model.lm, trainable=True)


def test_what_is_not_whole_yet_is_no_prompt(tmp_path):
    """A kill can leave a folder of files beside the prompts of a bank."""
    model = model_of(1)
    prompt_folder.save(model, tmp_path / "run" / "prompts" / f"{files.TEMPORARY}a")
    assert not list(prompts_in(tmp_path))
    with pytest.raises(StoreError, match="holds no saved prompt"):
        prompt_folder.folders_in(tmp_path / "run")
    whole = tmp_path / "run" / "prompts" / "a"
    prompt_folder.save(model, whole)
    assert prompt_folder.folders_in(tmp_path / "run") == [whole]
    assert [one.folders for one in prompts_in(tmp_path)] == [(whole,)]
