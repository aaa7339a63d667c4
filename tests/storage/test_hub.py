"""Prompts on a model hub: sent with a card, fetched at a commit, nothing but plain data read."""

import copy
import json
import pickle
import shutil

import pytest
import tiny
import torch
from hub_server import Hub
from peft import LoraConfig, get_peft_model

from ptune.answers.label_words import Verbalizer
from ptune.cli import main
from ptune.errors import ConfigError, ModelError, StoreError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.settings import VisibilityRule
from ptune.storage import peft_format, prompt_folder
from ptune.storage.hub import repository
from ptune.storage.hub.pull import pull, pulled
from ptune.template.language import Template

ROWS = [{"x": "It was", "label": "a"}, {"x": "great film", "label": "b"}]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on this machine, and a folder to work in."""
    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub_of_lms(hub, monkeypatch):
    """The same, where transformers looks for LMs too."""
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
    return hub


def saved(folder, names=("t",), template="{prefix:2}{x} It is {mask}"):
    """Prompts of a tiny causal LM in a folder; the LM."""
    lm = LanguageModel(*tiny.tiny("gpt2"))
    model = PromptModel(lm)
    for name in names:
        words = Verbalizer.from_words({"a": "Yes", "b": "No"})
        task = Task(name, Template.parse(template), words, prefix=PrefixSettings(0))
        model.add(task, ROWS)
        place = folder if len(names) == 1 else folder / "prompts" / name
        prompt_folder.save(model, place, task=name, metrics={"accuracy": 0.75})
        peft_format.export(model, place, name)
    return lm, model


def push(*arguments):
    main.main(["push", "run", "me/films", "--lm", "owner/lm", *arguments])


def test_a_prompt_goes_and_comes_back(hub, tmp_path, capsys):
    lm, model = saved(tmp_path / "run")
    push("--license", "mit", "--private")
    assert hub.private == {"me/films": True} and "commit" in capsys.readouterr().out
    assert sorted(list(hub.commits["me/films"].values())[-1]) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "files.json",
        "prompt.json",
        "prompt.safetensors",
    ]
    loaded = prompt_folder.load("me/films", lm=lm)
    first, second = model.encode(0, ROWS), loaded.encode(0, ROWS)
    assert all(map(torch.equal, model.scores(first), loaded.scores(second)))
    main.main(["pull", "me/films", "here"])
    noted = json.loads((tmp_path / "here" / "hub.json").read_text())
    assert noted["commit"] in hub.commits["me/films"] and noted["commit"] in capsys.readouterr().out
    note = json.loads((tmp_path / "here" / "prompt.json").read_text())
    assert note["lm"]["source"] == "owner/lm" and note["lm"]["absolute"] is None
    adapter = json.loads((tmp_path / "here" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "owner/lm"


def test_the_card_says_what_it_is(hub, tmp_path, capsys):
    saved(tmp_path / "run")
    push("--dry-run", "--license", "mit")
    text = capsys.readouterr().out
    assert hub.commits == {} and "Nothing was sent" in text
    for part in ('license: "mit"', 'base_model: "owner/lm"', "{prefix:2}{x}", "| accuracy | 0.75"):
        assert part in text
    assert "\n\n| figure | value |\n|---|---|\n| accuracy | 0.75 |\n" in text
    assert 'ptune.load("me/films")' in text and "PeftModel.from_pretrained" in text


def test_the_card_says_who_sees_whom_and_what_the_gates_read(hub, tmp_path, capsys):
    model = PromptModel(LanguageModel(*tiny.tiny("gpt2")))
    text = "{prefix:2}{x} It is {mask}"
    rules = [VisibilityRule(hide=("prefix", "x"), from_="words")]
    template = Template.parse(text).with_visibility(rules)
    words = Verbalizer.from_words({"a": "Yes", "b": "No"})
    tasks = {
        "hidden": Task("t", template, words, prefix=PrefixSettings(0, gates=True)),
        "by_row": Task("t", Template.parse(text), words, prefix=PrefixSettings(0, gates="row")),
        "plain": Task("t", Template.parse(text), words, prefix=PrefixSettings(0)),
    }
    cards = {}
    for number, (name, task) in enumerate(tasks.items()):
        model.add(task, ROWS)
        prompt_folder.save(model, tmp_path / name, task=number)
        main.main(["push", name, "me/films", "--lm", "owner/lm", "--dry-run"])
        cards[name] = capsys.readouterr().out
    assert "```\n\nHidden (`visibility`): {hide: [prefix, x], from: words}\n" in cards["hidden"]
    assert "The prefix is multiplied in each row" in cards["by_row"]
    assert all("visibility" not in cards[name] for name in ("by_row", "plain"))
    assert all("multiplied" not in cards[name] for name in ("hidden", "plain"))


def test_a_bank_is_one_repository(hub, tmp_path):
    lm, _ = saved(tmp_path / "run", ("t", "u"))
    push()
    loaded = prompt_folder.load("me/films", lm=lm)
    assert [bound.task.name for bound in loaded.tasks] == ["t", "u"]


def test_a_smaller_bank_takes_the_place_of_a_larger_one(hub, tmp_path):
    lm, _ = saved(tmp_path / "run", ("t", "u"))
    push()
    hub.commit("me/films", {"notes.md": b"by hand", "prompts/u/notes.md": b"by hand"})
    shutil.rmtree(tmp_path / "run")
    saved(tmp_path / "run", ("t",))
    push()
    loaded = prompt_folder.load("me/films", lm=lm)
    assert [bound.task.name for bound in loaded.tasks] == ["t"]
    kept = list(hub.commits["me/films"].values())[-1]
    assert {"notes.md", "prompts/u/notes.md"} <= set(kept)
    assert not any(name.startswith("prompts/") and name.endswith("prompt.json") for name in kept)


@pytest.mark.parametrize("lost", ["prompts/u/prompt.json", "prompts/t/prompt.safetensors"])
def test_a_prompt_that_is_gone_from_a_bank_is_told(hub, tmp_path, lost):
    saved(tmp_path / "run", ("t", "u"))
    push()
    del list(hub.commits["me/films"].values())[-1][lost]
    with pytest.raises(StoreError, match=f"{lost} of me/films was pushed and is gone"):
        pull("me/films", tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_a_revision_is_pinned(hub, tmp_path):
    lm, _ = saved(tmp_path / "run")
    push()
    first = list(hub.commits["me/films"])[0]
    shutil.rmtree(tmp_path / "run")
    saved(tmp_path / "run", template="{prefix:2}{x} It was {mask}")
    push()
    for name, end in ((f"me/films@{first}", "is"), ("me/films", "was")):
        template = prompt_folder.load(name, lm=lm).tasks[0].task.template.source
        assert template.endswith(f"It {end} {{mask}}")


def put_lm(hub, folder, changed=None, seed=0, name="owner/lm"):
    """Put a tiny LM into a repository, and return the commit. Transformers remembers for a while
    which commit is the newest one of a name."""
    network, tokenizer = copy.deepcopy(tiny.tiny("gpt2", seed=seed))
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()} | (changed or {})
    return hub.commit(name, files)


def save_trained_for(lm, folder):
    model = PromptModel(lm)
    words = Verbalizer.from_words({"a": "Yes", "b": "No"})
    model.add(Task("t", Template.parse("{soft:2}{x} It is {mask}"), words), ROWS)
    prompt_folder.save(model, folder)


def test_the_commit_of_an_lm_is_kept_and_another_one_is_noted(hub_of_lms, tmp_path, capsys):
    hub = hub_of_lms
    first = put_lm(hub, tmp_path / "lm")
    lm = LanguageModel.load("owner/lm", device="cpu")
    assert lm.commit == first and LanguageModel.load(tmp_path / "lm", device="cpu").commit is None
    save_trained_for(lm, tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "prompt.json").read_text())["lm"]
    assert kept["commit"] == first and kept["source"] == "owner/lm"
    prompt_folder.load(tmp_path / "run", device="cpu")
    assert "commit" not in capsys.readouterr().err
    second = put_lm(hub, tmp_path / "lm", {"README.md": b"A tiny LM."})
    prompt_folder.load(tmp_path / "run", device="cpu")
    printed = capsys.readouterr().err
    assert f"at the commit {first}, and this is {second}; its weights" in printed
    assert f"--lm owner/lm@{first} takes that one" in printed
    third = put_lm(hub, tmp_path / "lm", seed=1)
    advice = f"other weights.*commit {first}, and this is {third}. --lm owner/lm@{first} takes"
    with pytest.raises(StoreError, match=advice):
        prompt_folder.load(tmp_path / "run", device="cpu")
    pinned = LanguageModel.load(f"owner/lm@{first}", device="cpu")
    assert pinned.commit == first
    prompt_folder.load(tmp_path / "run", lm=pinned)
    assert "commit" not in capsys.readouterr().err


def put_adapter(hub, folder, base, gone=()):
    """Put a LoRA adapter of an LM into a repository, and return the commit."""
    adapted = get_peft_model(
        LanguageModel.load(f"{folder.parent}/lm", device="cpu").model,
        LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False),
    )
    adapted.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base
    (folder / "adapter_config.json").write_text(json.dumps(config))
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return hub.commit("me/lora", files, gone)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of PEFT
def test_an_adapter_of_the_hub_is_an_lm(hub_of_lms, tmp_path):
    """Its LM is never fetched because a file names it."""
    hub = hub_of_lms
    put_lm(hub, tmp_path / "lm", name="owner/base")
    commit = put_adapter(hub, tmp_path / "lora", "owner/base")
    with pytest.raises(ModelError, match="adapter of the LM owner/base, which is not on this"):
        LanguageModel.load("me/lora", device="cpu")
    plain = LanguageModel.load("owner/base", device="cpu")
    lm = LanguageModel.load("me/lora", device="cpu")
    assert lm.commit == commit and lm.fingerprint() != plain.fingerprint()
    here = LanguageModel.load(tmp_path / "lora", device="cpu")
    assert lm.fingerprint() == here.fingerprint()
    save_trained_for(lm, tmp_path / "run")
    put_adapter(hub, tmp_path / "other", "owner/base")
    with pytest.raises(StoreError, match=f"--lm me/lora@{commit} takes"):
        prompt_folder.load(tmp_path / "run", device="cpu")
    pinned = LanguageModel.load(f"me/lora@{commit}", device="cpu")
    assert pinned.fingerprint() == lm.fingerprint()
    hub.shutdown()
    hub.server_close()
    assert LanguageModel.load("me/lora", device="cpu").fingerprint() != lm.fingerprint()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of PEFT
def test_an_adapter_of_the_hub_without_plain_weights_is_refused(hub_of_lms, tmp_path):
    hub = hub_of_lms
    put_lm(hub, tmp_path / "lm", name="owner/other")
    put_adapter(hub, tmp_path / "lora", "owner/other", gone=["adapter_model.safetensors"])
    LanguageModel.load("owner/other", device="cpu")
    with pytest.raises(ModelError, match="holds no adapter_model.safetensors; pickled"):
        LanguageModel.load("me/lora", device="cpu")


def test_the_card_names_the_commit_of_the_lm(hub_of_lms, tmp_path, capsys):
    first = put_lm(hub_of_lms, tmp_path / "lm")
    save_trained_for(LanguageModel.load(f"owner/lm@{first}", device="cpu"), tmp_path / "run")
    main.main(["push", "run", "me/films", "--dry-run"])
    text = capsys.readouterr().out
    assert f"(causal, at commit {first})" in text and 'base_model: "owner/lm"' in text
    main.main(["push", "run", "me/films", "--dry-run", "--lm", "other/lm"])
    assert first not in capsys.readouterr().out, "another repository has commits of its own"


def test_a_pickle_is_never_fetched(hub, tmp_path):
    lm, _ = saved(tmp_path / "run")
    push()
    hub.commit("me/films", {"training_args.bin": pickle.dumps(print), "evil.py": b"1 / 0"})
    prompt_folder.load("me/films", lm=lm)
    assert not {"training_args.bin", "evil.py"} & set(hub.fetched)
    hub.commit("me/other", {"prompt.pkl": pickle.dumps(print)})
    with pytest.raises(StoreError, match="holds no prompt"):
        pulled("me/other")


def test_another_lm_is_refused(hub, tmp_path):
    saved(tmp_path / "run")
    push()
    with pytest.raises(StoreError, match="other weights"):
        prompt_folder.load("me/films", lm=LanguageModel(*tiny.tiny("gpt2", seed=1)))


def test_a_file_that_was_not_pushed_so_is_refused(hub, tmp_path):
    saved(tmp_path / "run")
    push()
    content = list(hub.commits["me/films"].values())[-1]["prompt.safetensors"]
    hub.commit("me/films", {"prompt.safetensors": content[:-1] + b"\x01"})
    with pytest.raises(StoreError, match="SHA-256 differs"):
        pull("me/films", tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_what_cannot_be_is_one_clear_message(hub, tmp_path, monkeypatch):
    saved(tmp_path / "run")
    with pytest.raises(StoreError, match="There is no me/nothing on the hub"):
        prompt_folder.load("me/nothing")
    with pytest.raises(StoreError, match="owner/name"):
        pulled("nothing")
    note = json.loads((tmp_path / "run" / "prompt.json").read_text())
    note["lm"] |= {"source": str(tmp_path), "absolute": str(tmp_path)}
    (tmp_path / "run" / "prompt.json").write_text(json.dumps(note))
    from ptune.storage.hub.push import push as send
    from ptune.storage.options import PushConfig

    with pytest.raises(ConfigError, match="--lm owner/name"):
        send(PushConfig(prompt=tmp_path / "run", repository="me/films"))


def test_a_path_is_no_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert repository.names_repository("me/films@v1") and not repository.names_repository("a/b")
    for text in ("./a/c", "/a/c", "a", "a/b/c", "../a"):
        assert not repository.names_repository(text)
