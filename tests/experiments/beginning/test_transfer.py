"""New prompts that begin as those of other tasks."""

import copy
import json
import pathlib

import pytest
import tiny
import torch
import two_users

from ptune.answers.label_words import Verbalizer
from ptune.cli import main
from ptune.errors import ConfigError, StoreError
from ptune.experiments.beginning import first_steps, transfer
from ptune.experiments.sweep.sweep_file import read_sweep
from ptune.experiments.train import train_task
from ptune.experiments.train.train_task import train
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.prompts import encoders
from ptune.search.common.searched_task import read_task
from ptune.settings import TrainConfig
from ptune.storage import prompt_folder
from ptune.tasks import yaml_task
from ptune.tasks.resolved import refusals
from ptune.template.language import Template
from ptune.training.loop import fit

pytestmark = pytest.mark.usefixtures("kept_lms")

YAML = """
name: towns
template: "{soft:3} {x} was {mask}"
labels: {a: great, b: bad}
data: {train: rows.jsonl, dev: rows.jsonl}
lm: ./lm
encoder: table
train: {steps: 4, batch_size: 4, evaluate_every: 2, learning_rate: 0.05}
device: cpu
"""
STILL = YAML.replace("learning_rate: 0.05", "learning_rate: 1.0e-30")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny LM's folder, rows of two users and two labels, and seven prompts of other tasks."""
    path = tmp_path_factory.mktemp("world")
    two_users.write(path)
    lm = LanguageModel.load(path / "lm", device="cpu")
    for number in range(7):
        saved(lm, path / f"source-{number}", seed=number)
    saved(lm, path / "recurrent", encoder="lstm")
    saved(lm, path / "short", template="{soft:2} {x} is {mask}")
    saved(lm, path / "deep", template="{prefix:3} {soft:3} {x} is {mask}")
    return path


def saved(lm, folder, template="{soft:1} {x} {soft:2} is {mask}", encoder="table", seed=0):
    model = PromptModel(lm)
    words = Verbalizer.from_words({"Yes": "Yes", "No": "No"})
    task = Task("other", Template.parse(template), words, encoder=encoder, seed=seed)
    model.add(task)
    prompt_folder.save(model, folder, encoder=True)


def task(world, out, text=YAML, **more):
    return two_users.read_task(world, out, text, **more)


def vectors_in(folder):
    return prompt_folder.load(folder, device="cpu").bank.encoders[0]()


@pytest.mark.parametrize(
    ("source", "encoder", "nearness"),
    [("source-1", "table", 1e-6), ("recurrent", "lstm", 1e-6), ("source-1", "lstm", 0.1)],
)
def test_a_prompt_begins_as_another_tasks(world, tmp_path, source, encoder, nearness):
    """Under its own template and labels; an encoder of the same kind takes the parameters, another
    is fitted to the vectors."""
    text, lines = STILL.replace("encoder: table", f"encoder: {encoder}"), []
    train(task(world, tmp_path / "apart", text), lambda _: None)
    begun = task(world, tmp_path / "out", text, transfer=(world / source,))
    train(begun, lines.append)
    theirs, ours = vectors_in(world / source), vectors_in(tmp_path / "out")
    assert (ours - theirs).abs().max() < nearness * theirs.std() + 1e-6
    assert (vectors_in(tmp_path / "apart") - theirs).abs().mean() > 0.3 * theirs.std()
    assert f"towns begins as the prompt in {world / source}." in lines
    loaded = prompt_folder.load(tmp_path / "out", device="cpu").tasks[0].task
    assert loaded.template.source == "{soft:3} {x} was {mask}"
    assert loaded.verbalizer.labels == ("a", "b")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["settings"]["transfer"]


def test_a_prefix_begins_as_another_tasks(world, tmp_path):
    text = STILL.replace("{soft:3}", "{prefix:3}{soft:3}") + "prefix: {hidden: 0}\n"
    lm = LanguageModel.load(world / "lm", device="cpu")
    saved(lm, tmp_path / "source", template="{prefix:3} {soft:3} {x} {mask}")
    train(task(world, tmp_path / "out", text, transfer=(tmp_path / "source",)), lambda _: None)
    ours, theirs = (
        prompt_folder.load(tmp_path / name, device="cpu").bank for name in ("out", "source")
    )
    for kind in ("encoders", "prefixes"):
        begun, other = (getattr(bank, kind)[0]() for bank in (ours, theirs))
        assert (begun - other).abs().max() < 0.1 * other.std()


def reference(world, source, rows):
    """A prompt that begins as a source, trained alone for the trial's steps: its best dev score and
    minus its dev loss."""
    config = task(world, world / "nowhere")
    model = PromptModel(LanguageModel.load(world / "lm", device="cpu"))
    vectors = prompt_folder.load(source, model.lm).bank.encoders[0]()
    words = Verbalizer.from_words({"a": "great", "b": "bad"})
    model.add(
        Task("towns", Template.parse(config.template), words, encoder="table"),
        encoder=encoders.table_of(vectors),
    )
    settings = TrainConfig(
        optimiser="adam",
        steps=4,
        batch_size=4,
        evaluate_every=1,
        patience=0,
        learning_rate=0.05,
        decay="exponential",
        least_steps=0,
    )
    (history,) = fit(model, {0: (rows, rows)}, settings).values()
    return history.best.dev, -history.best.dev_loss


def test_of_several_prompts_the_best_on_dev_after_a_few_steps_is_taken(world, tmp_path):
    rows = [json.loads(line) for line in (world / "rows.jsonl").read_text().splitlines()]
    names = ["source-2", "source-0", "source-5"]
    scores = {name: reference(world, world / name, rows) for name in names}
    best = max(scores, key=scores.get)
    assert len({round(loss, 3) for _, loss in scores.values()}) == 3
    lines = []
    sources = tuple(world / name for name in names)
    train(task(world, tmp_path / "out", transfer=sources), lines.append)
    assert f"towns begins as the prompt in {world / best}." in lines
    (listed,) = [line for line in lines if line.startswith("towns on dev after a few steps")]
    for name, (dev, _) in scores.items():
        assert f"{world / name}: {dev:.3f}" in listed
    train(task(world, tmp_path / "given", transfer=(world / best,)), lambda _: None)
    assert torch.equal(vectors_in(tmp_path / "out"), vectors_in(tmp_path / "given"))


def test_of_many_prompts_the_most_alike_are_tried(world, tmp_path, monkeypatch):
    """As alike as the mean vectors are, the task's own after a few steps."""
    monkeypatch.setattr(transfer, "TRIED", 2)
    rows = [json.loads(line) for line in (world / "rows.jsonl").read_text().splitlines()]
    train(task(world, tmp_path / "apart"), lambda _: None)
    sources = tuple(world / f"source-{number}" for number in range(7))
    copies = []
    original = first_steps.train_copies

    def remembered(*values, **named):
        copies.append(original(*values, **named))
        return copies[-1]

    monkeypatch.setattr(transfer, "train_copies", remembered)
    lines = []
    train(task(world, tmp_path / "out", transfer=sources), lines.append)
    probe, tried = copies
    assert len(probe.numbers) == 1 and len(tried.numbers) == 2 and rows
    twin = probe.model
    ours = twin.bank.encoders[twin.tasks[probe.numbers[0][0]].prompt]().detach().mean(0)
    alike = {
        source: float(ours @ (v := vectors_in(source).mean(0)) / ours.norm() / v.norm())
        for source in sources
    }
    nearest = sorted(alike, key=alike.get, reverse=True)[:2]
    (listed,) = [line for line in lines if line.startswith("towns on dev after a few steps")]
    assert all((f"{source}: " in listed) == (source in nearest) for source in sources)


def test_each_new_user_begins_as_the_best_for_him_and_those_that_are_there_go_on(world, tmp_path):
    text = STILL + "prompt_by: user\n"
    out, sources = tmp_path / "users", (world / "source-0", world / "source-1")
    train(task(world, out, text, only=("anna",)), lambda _: None)
    anna = vectors_in(out / "prompts" / "anna")
    train(task(world, out, text, only=("anna", "bob"), transfer=sources), lambda _: None)
    assert torch.equal(vectors_in(out / "prompts" / "anna"), anna)
    bob = vectors_in(out / "prompts" / "bob")
    assert any(torch.equal(bob, vectors_in(source)) for source in sources)
    train(task(world, tmp_path / "new", STILL, transfer=(out,)), lambda _: None)
    begun = vectors_in(tmp_path / "new")
    assert torch.equal(begun, anna) or torch.equal(begun, bob), "a run's folder is its prompts"


def test_a_run_that_goes_on_begins_as_the_same_prompt_again(world, tmp_path, monkeypatch):
    """It does not choose anew; of other sources it does."""
    sources = tuple(world / f"source-{number}" for number in (0, 1))
    train(task(world, tmp_path / "out", transfer=sources), lambda _: None)
    whole = (tmp_path / "out" / "prompt.safetensors").read_bytes()
    killed = task(world, tmp_path / "killed", transfer=sources)
    with monkeypatch.context() as patch:
        patch.setattr(train_task, "_fit", lambda *values: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(killed, lambda _: None)
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "train_copies", None)
        train(killed.model_copy(update={"resume": True}), lambda _: None)
        assert (tmp_path / "killed" / "prompt.safetensors").read_bytes() == whole
        (tmp_path / "killed" / "run.json").unlink()
        (tmp_path / "killed" / "prompt.json").unlink()
        others = {"transfer": sources[::-1], "resume": True}
        with pytest.raises(ConfigError, match="another transfer"):
            train(killed.model_copy(update=others), lambda _: None)


def test_the_command_takes_several_folders_and_a_file_names_them_from_its_own(world, tmp_path):
    file = world / "command.yaml"
    file.write_text(STILL)
    options = ["--transfer", str(world / "source-3"), str(world / "source-4")]
    main.main(["train", str(file), *options, "--out", str(tmp_path / "out")])
    assert json.loads((tmp_path / "out" / "transfer.json").read_text())["sources"] == options[1:]
    file.write_text(STILL + "transfer: [source-3]\n")
    assert yaml_task.read(file).transfer == (world / "source-3",)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("short", "towns has 3 soft tokens, and the prompt in .*short 2 soft tokens: a prompt"),
        ("deep", "has 3 soft tokens, and the prompt in .*deep 3 soft tokens and 3 prefix vectors"),
    ],
)
def test_a_prompt_of_another_shape_is_refused_before_anything_is_written(
    world, tmp_path, source, message
):
    with pytest.raises(ConfigError, match=message):
        train(task(world, tmp_path / "out", transfer=(world / source,)), lambda _: None)
    assert not (tmp_path / "out").exists()


def test_a_prefix_of_other_attentions_is_refused():
    lm = LanguageModel(*tiny.tiny("bart"))
    models = []
    for attentions in ((), ("decoder",)):
        model = PromptModel(lm)
        model.add(
            Task(
                "t",
                Template.parse("{prefix:2} {x}"),
                None,
                prefix=PrefixSettings(0, attentions=attentions),
            )
        )
        models.append(model)
    source = transfer.Source("there", models[1])
    with pytest.raises(ConfigError, match="has 2 prefix vectors, and .* and in decoder: a prompt"):
        transfer.check(models[0], [0], [source])
    transfer.check(copy.copy(models[1]), [0], [source])


def test_a_prompt_of_another_lm_is_refused(world, tmp_path):
    for part in tiny.tiny("roberta"):
        part.save_pretrained(tmp_path / "lm")
    given = task(world, tmp_path / "out", lm=str(tmp_path / "lm"), transfer=(world / "source-0",))
    with pytest.raises(StoreError, match="source-0"):
        train(given, lambda _: None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "manual"}, "manual trains nothing"),
        ({"method": "fine-tune"}, "fine-tune trains the LM"),
        ({"method": "pet"}, "pet trains several models"),
        ({"continue_from": pathlib.Path("p")}, "leave one of them out"),
    ],
)
def test_transfer_is_refused_where_no_prompt_begins(world, tmp_path, changes, message):
    config = task(world, tmp_path / "out", transfer=(pathlib.Path("p"),), **changes)
    with pytest.raises(ConfigError, match=f"transfer lets a new prompt begin .*{message}"):
        train(config, lambda _: None)


def test_what_begins_prompts_itself_refuses_others_to_begin_as(world, tmp_path):
    text = YAML + "transfer: [source-0]\n"
    config = task(world, tmp_path / "out", text)
    with pytest.raises(ConfigError, match="towns says transfer, and in compare every prompt"):
        refusals.check_comparable(config)
    with pytest.raises(ConfigError, match="towns says continue_from, and in compare"):
        refusals.check_comparable(
            config.model_copy(update={"transfer": (), "continue_from": world / "source-0"})
        )
    with pytest.raises(ConfigError, match="says encoder: multitask, and compare trains every"):
        refusals.check_comparable(config.model_copy(update={"encoder": "multitask"}))
    with pytest.raises(ConfigError, match="towns has transfer, with which ptune search"):
        read_task(world / "task.yaml", lm=None, shots=None, seed=0)
    with pytest.raises(ConfigError, match="says transfer"):
        refusals.check_selection(config.model_copy(update={"encoder": None}))


def test_a_sweep_finds_the_prompts_from_its_own_folder(world):
    (world / "apart.yaml").write_text(YAML)
    (world / "sweeps").mkdir(exist_ok=True)
    sweep = world / "sweeps" / "sweep.yaml"
    sweep.write_text("tasks: ../apart.yaml\ngrid: {transfer: [[../source-0, ../source-1]]}")
    (run,) = read_sweep(sweep)
    folders = tuple(sweep.parent / f"../source-{number}" for number in (0, 1))
    assert run.parts.source.transfer == folders
    assert "--transfer " + " ".join(map(str, folders)) in run.command
    assert run.trial.bank is None, "it is trained alone"
    sweep.write_text("tasks: ../apart.yaml\ngrid: {transfer: [[../none]]}")
    with pytest.raises(ConfigError, match="no .*none, as transfer names it"):
        read_sweep(sweep)
