"""Every command that writes, killed after every file that it writes, ends with the files of a run
that was not killed."""

import json

import pytest
import tiny
import torch
import two_users
from killing import killed_after_every_file
from two_users import TOWNS

from ptune.documents import train_documents
from ptune.documents.options import DistilConfig
from ptune.experiments import report_runs
from ptune.experiments.compare import compare
from ptune.experiments.options import CompareConfig, ProbeConfig, SweepConfig
from ptune.experiments.probe import probe
from ptune.experiments.sweep.sweep import sweep
from ptune.experiments.train import train_task
from ptune.pretraining import loop
from ptune.pretraining.options import PretrainConfig
from ptune.storage import convert, google_format
from ptune.storage.options import ExportConfig, ImportConfig
from ptune.tasks import new_task, yaml_task
from ptune.tasks.options import NewConfig

TASK = """
name: towns
template: "{soft:2} {x} is {mask}"
patterns: ["{x} is {mask}", "{mask} , {x}"]
labels: {a: great, b: bad}
data: {train: rows.jsonl, dev: rows.jsonl, test: rows.jsonl, unlabeled: rows.jsonl}
lm: ./lm
encoder: table
train: {epochs: 1, steps: 1, batch_size: 4}
pet: {distil: {epochs: 1, steps: 1}}
device: cpu
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny LM, rows, facts, and text."""
    path = tmp_path_factory.mktemp("world")
    two_users.write(path)
    (path / "task.yaml").write_text(TASK)
    (path / "facts.csv").write_text(
        "subject,object\n"
        + "".join(
            f"{town} {number},{TOWNS[number % 3].lower()}\n"
            for town in TOWNS
            for number in range(6)
        )
    )
    (path / "text.txt").write_text(
        "\n\n".join(f"The capital of {town} is {town} ." for town in TOWNS * 4) + "\n"
    )
    for part in tiny.tiny("gpt2"):
        part.save_pretrained(path / "causal")
    (path / "pages").mkdir()
    for name, text in zip(("a", "b"), tiny.TEXT):
        (path / "pages" / f"{name}.txt").write_text(text[:60])
    google_format.write(path / "p.npy", torch.ones(2, 32))
    return path


def quiet(*lines):
    pass


def train(world, out, resume, **settings):
    train_task.train(
        yaml_task.read(world / "task.yaml").model_copy(
            update={"out": out, "resume": resume, **settings}
        ),
        quiet,
    )


def train_one(world, out, resume):
    if not (out / "run.json").exists():
        train(world, out, False, prompt_by="user", patterns=())
    train(world, out, resume, prompt_by="user", patterns=(), only=("anna",))


def train_from_others(world, out, resume):
    """Prompts that begin as others, of which each is tried."""
    sources = world / "sources"
    if not (sources / "run.json").exists():
        train(world, sources, False, prompt_by="user", patterns=())
    train(world, out, resume, patterns=(), transfer=(sources,))


def train_sharing(world, out, resume):
    """Prompts that share a table."""
    train(world, out, resume, prompt_by="user", patterns=(), encoder="multitask")


def probe_facts(world, out, resume):
    probe.probe(
        ProbeConfig(
            lm=str(world / "lm"),
            facts=str(world / "facts.csv"),
            allow_unknown=True,
            manual="[X] is [Y] .",
            methods="manual,p-tuning,fine-tune",
            out=out,
            resume=resume,
            device="cpu",
            train={"epochs": 1, "batch_size": 8},
        ),
        quiet,
    )


def compare_methods(world, out, resume):
    compare.compare(
        CompareConfig(
            tasks=[str(world / "task.yaml")],
            methods="majority,p-tuning,pet",
            steps=1,
            looks=1,
            out=out,
            resume=resume,
            device="cpu",
        ),
        quiet,
    )


def pretrain_lm(world, out, resume):
    loop.pretrain(
        PretrainConfig(
            texts=[world / "text.txt"],
            out=out,
            hidden_size=16,
            layers=1,
            heads=2,
            steps=2,
            batch_tokens=256,
            length=32,
            vocabulary_size=80,
            held_out=0.1,
            next_sentence="two-way",
            resume=resume,
            device="cpu",
        ),
        quiet,
    )


def distil_documents(world, out, resume):
    train_documents.distil(
        DistilConfig(
            documents=[world / "pages"],
            lm=str(world / "causal"),
            out=out,
            length=2,
            cover=1,
            slice_tokens=6,
            together=1,
            train={"steps": 1, "batch_size": 2},
            resume=resume,
            device="cpu",
        ),
        quiet,
    )


def import_prompt(world, out, resume):
    convert.import_prompt(
        ImportConfig(
            source=world / "p.npy", out=out, lm=str(world / "causal"), template=" {x} is {mask}"
        ),
        quiet,
    )


def sweep_seeds(world, out, resume):
    """Runs that are trained together, which go on without --resume."""
    (world / "one.yaml").write_text(TASK.replace("patterns:", "#"))
    (world / "sweep.yaml").write_text("tasks: [one.yaml]\ngrid: {train.seed: [0, 1]}\n")
    for lease in (out / "leases").glob("*"):
        if lease.name[0] != ".":
            lease.unlink()  # its holder, this process, did not end
    sweep(SweepConfig(file=world / "sweep.yaml", out=out), quiet)


COMMANDS = {
    "train": train,
    "train the LM": lambda world, out, resume: train(
        world, out, resume, method="fine-tune", patterns=(), template="{x} is {mask}"
    ),
    "train PET": lambda world, out, resume: train(world, out, resume, method="pet"),
    "train from other prompts": train_from_others,
    "train prompts that share a table": train_sharing,
    "probe": probe_facts,
    "compare": compare_methods,
    "sweep": sweep_seeds,
    "pretrain": pretrain_lm,
    "distil": distil_documents,
}


def state(folder):
    """What stands in a folder, without what hangs on the clock; pages have to be there."""
    contents = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            continue
        content = path.read_bytes()
        if path.suffix == ".json":
            content = timeless(
                json.loads(content.decode().replace(str(folder), "OUT").replace(folder.name, "OUT"))
            )
        contents[name] = bool(content) if path.suffix == ".html" else content
    return contents


def timeless(value):
    if isinstance(value, dict):
        return {
            name: timeless(member)
            for name, member in value.items()
            if name not in ("seconds", "resume")
        }
    return [timeless(element) for element in value] if isinstance(value, list) else value


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_that_is_killed_and_resumed_is_the_run_that_was_not(
    command, world, tmp_path, monkeypatch
):
    run, whole, out = COMMANDS[command], tmp_path / "whole", tmp_path / "kills"
    run(world, whole, False)
    written = killed_after_every_file(
        lambda: run(world, out, (out / "settings.json").exists()), monkeypatch
    )
    assert written[0] == "settings.json" and len(written) > 4
    assert state(out) == state(whole)


def test_one_prompt_of_a_bank(world, tmp_path, monkeypatch):
    train_one(world, tmp_path / "whole", False)
    out = tmp_path / "kills"
    train(world, out, False, prompt_by="user", patterns=())
    killed_after_every_file(
        lambda: train_one(world, out, (out / "checkpoint.safetensors").exists()), monkeypatch
    )
    assert state(out) == state(tmp_path / "whole")


def test_a_new_task(world, tmp_path, monkeypatch):
    def new(folder):
        out = tmp_path / folder / "task.yaml"
        if not out.exists():
            options = {"data": world / "rows.jsonl", "text": "x", "lm": str(world / "lm")}
            new_task.new(NewConfig(**options, label="label", out=out), quiet)

    assert len(killed_after_every_file(lambda: new("kills"), monkeypatch)) == 4
    new("whole")
    assert state(tmp_path / "kills") == state(tmp_path / "whole")


def test_report_export_and_import(world, tmp_path, monkeypatch, capsys):
    """These have nothing to resume: the same command again ends the same."""
    killed_after_every_file(lambda: import_prompt(world, tmp_path / "kills", False), monkeypatch)
    import_prompt(world, tmp_path / "whole", False)
    assert state(tmp_path / "kills") == state(tmp_path / "whole")
    train(world, tmp_path / "run", False, patterns=())
    assert killed_after_every_file(
        lambda: report_runs.report([tmp_path / "run"], tmp_path / "page"), monkeypatch
    ) == ["report.html"]
    for to in ("peft", "google"):
        names = [tmp_path / f"{to}{number}{'.npy' * (to == 'google')}" for number in range(2)]
        for name in names:

            def again(name=name, to=to):
                if to == "peft" or not name.exists():
                    convert.export(
                        ExportConfig(
                            prompt=tmp_path / "kills", out=name, to=to, lm=str(world / "causal")
                        ),
                        quiet,
                    )

            killed_after_every_file(again, monkeypatch) if name == names[0] else again()
        both = [state(name) if name.is_dir() else name.read_bytes() for name in names]
        assert both[0] == both[1]
