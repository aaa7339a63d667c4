"""A sweep is its runs, each as if it were trained alone: none twice, none lost."""

import json
import re
import shlex
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import killing
import pytest
import tiny

from ptune.cli import main
from ptune.errors import ConfigError, DivergedError, PtuneError, StoreError
from ptune.experiments.options import SweepConfig
from ptune.experiments.sweep import sweep_worker
from ptune.experiments.sweep.sweep import sweep
from ptune.experiments.sweep.sweep_file import read_sweep
from ptune.experiments.sweep.sweep_worker import Sweep
from ptune.experiments.train import train_task
from ptune.reports import figure_files
from ptune.reports.sweep_results import SweepResults
from ptune.tasks.resolved import resolve

ROWS = [
    {"text": f"{word} film", "label": label}
    for word, label in (("great", "good"), ("best", "good"), ("worst", "bad"), ("bad", "bad"))
]
TASK = """
name: films
template: "{soft:2} {text} {mask}"
labels: {good: great, bad: bad}
lm: LM
encoder: table
device: cpu
data: {train: rows.jsonl, dev: rows.jsonl, test: rows.jsonl}
train: {steps: 2, batch_size: 2}
"""
SWEEP = """
tasks: films.yaml
grid: {train.seed: [0, 1]}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    network, tokenizer = tiny.tiny("bert")
    network.save_pretrained(tmp_path / "LM")
    tokenizer.save_pretrained(tmp_path / "LM")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "films.yaml").write_text(TASK.replace("LM", str(tmp_path / "LM")))
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def swept(folder, out="out", **more):
    lines: list[str] = []
    config = SweepConfig(file=folder / "sweep.yaml", out=folder / out, **more)
    return sweep(config, lines.append), lines


def swept_with_failures(folder, message):
    """The results of a sweep of which some runs fail, and its lines."""
    lines: list[str] = []
    with pytest.raises(PtuneError, match=message):
        sweep(SweepConfig(file=folder / "sweep.yaml", out=folder / "out"), lines.append)
    return SweepResults.model_validate_json((folder / "out" / "results.json").read_text()), lines


def test_files_that_a_sweep_names_lie_beside_it_as_those_of_a_task_do(folder, tmp_path):
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "few.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    (folder / "sweeps" / "sweep.yaml").write_text(
        "tasks: ../films.yaml\n"
        "grid: {data.train: [few.jsonl, ../rows.jsonl], lm: [../LM], continue_from: [old]}"
    )
    with pytest.raises(ConfigError, match="no .*sweeps/old, as continue_from names"):
        read_sweep(folder / "sweeps" / "sweep.yaml")
    (folder / "sweeps" / "sweep.yaml").write_text(
        "tasks: ../films.yaml\ngrid: {data.train: [few.jsonl, ../rows.jsonl], lm: [../LM]}"
    )
    few, whole = read_sweep(folder / "sweeps" / "sweep.yaml")
    assert few.parts.data.train.read_text().count("\n") == 1
    assert whole.parts.data.train.read_text().count("\n") == len(ROWS)
    assert f"--data.train {folder}/sweeps/few.jsonl --lm {folder}/sweeps/../LM" in few.command


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_device_that_is_not_there_is_refused_before_any_run(folder, dry_run):
    (folder / "sweep.yaml").write_text(SWEEP.replace("{", "{device: [tpu], "))
    with pytest.raises(ConfigError, match="device: tpu.*no device 'tpu'.*This machine has .*cpu"):
        swept(folder, dry_run=dry_run)
    assert not (folder / "out").exists()


@pytest.fixture
def trained(monkeypatch):
    """The folders' names of the runs that were trained, none of which is trained."""
    names: list[str] = []

    def train(parts, *more, **named):
        names.append(parts.output.folder.name)
        time.sleep(0.01)  # so that others come by meanwhile
        if parts.train.seed == 2:
            raise PtuneError("It diverged.")
        rate = parts.overrides.learning_rate or 0.5
        best = {} if parts.method.name == "manual" else {"films": {"dev": rate}}
        figures, seconds = {"accuracy": rate / 2}, {"train": 1.0}
        return SimpleNamespace(
            best=best, dev_score="accuracy", figures=figures, seconds=seconds, pruned=[]
        )

    monkeypatch.setattr(train_task, "train_parts", train)
    monkeypatch.setattr(sweep_worker, "train_together", cannot_be)
    return names


def cannot_be(*given):
    """No joint training: each run is trained alone."""
    raise PtuneError("They cannot be trained together.")


def test_dev_scores_of_unlike_kinds_are_not_compared(folder, monkeypatch):
    """An accuracy is no more than minus a loss of a better run."""

    def train(parts, *more, **named):
        loss = parts.overrides.learning_rate > 0.15
        dev = (-0.9 if loss else 0.6) + parts.overrides.learning_rate
        return SimpleNamespace(
            best={"films": {"dev": dev}},
            dev_score="minus the dev loss" if loss else "accuracy",
            figures={"accuracy": 0.9 if loss else 0.7},
            seconds={"train": 1.0},
            pruned=[],
        )

    monkeypatch.setattr(train_task, "train_parts", train)
    monkeypatch.setattr(sweep_worker, "train_together", cannot_be)
    (folder / "sweep.yaml").write_text(
        "tasks: films.yaml\ngrid: {train.learning_rate: [0.01, 0.1, 0.2, 0.3]}"
    )
    results, lines = swept(folder)
    assert results.dev_scores == ["accuracy", "minus the dev loss"]
    best = {run.dev_score: run.dev for run in results.best()}
    assert best == pytest.approx({"accuracy": 0.7, "minus the dev loss": -0.6})
    assert [round(group.dev, 2) for group in results.groups()] == [0.7, 0.61, -0.6, -0.7]
    output = "\n".join(lines)
    assert "of unlike kinds" in output and "(-0.600, minus the dev loss)" in output
    page = (folder / "out" / "report.html").read_text()
    assert "of unlike kinds" in page and "(parallel coordinates)" not in page
    assert "-0.600 (minus the dev loss)" in page and "of each run on dev" not in page


def vectors(folder, out="out"):
    return {
        path.parent.name: path.read_bytes()
        for path in (folder / out / "runs").glob("*/prompt.safetensors")
    }


def test_a_killed_sweep_goes_on_and_is_its_runs_alone(folder, monkeypatch):
    with killing.killed_after(5, monkeypatch):
        swept(folder, together=1)
    kept = {path.name for path in (folder / "out" / "results").iterdir()}
    assert len(kept) == 1 and len(list((folder / "out" / "runs").iterdir())) == 2
    trained, train = [], train_task.train_parts

    def counted(parts, *more, **named):
        trained.append(parts.output.folder.name)
        return train(parts, *more, **named)

    monkeypatch.setattr(train_task, "train_parts", counted)
    results, lines = swept(folder, together=1)
    assert "2 runs, 1 of which have their results" in lines[0]
    assert [f"{name}.json" for name in trained] == [
        f"{run.name}.json" for run in results.runs if f"{run.name}.json" not in kept
    ]
    assert [run.settings for run in results.runs] == [{"train.seed": "0"}, {"train.seed": "1"}]
    assert len(set(vectors(folder).values())) == 2
    for run, outcome in zip(read_sweep(folder / "sweep.yaml"), results.runs, strict=True):
        output = replace(run.parts.output, folder=folder / run.name)
        alone = train(replace(run.parts, output=output), lambda message: None)
        assert outcome.figures == alone.figures and outcome.dev == alone.best["films"]["dev"]
        prompt = (folder / run.name / "prompt.safetensors").read_bytes()
        assert vectors(folder)[run.name] == prompt
    best = max(results.runs, key=lambda run: run.dev)
    assert results.best() == [best] and best.command in lines[-2]
    page = (folder / "out" / "report.html").read_text()
    assert best.command in page and [len(group.runs) for group in results.groups()] == [2]


def test_the_command_of_a_run_trains_the_same(folder):
    from ptune.cli.train import read_task

    for run in read_sweep(folder / "sweep.yaml"):
        program, command, *arguments = run.command.split()
        assert (program, command) == ("ptune", "train")
        parts = resolve.training(read_task(arguments))
        assert (parts.deciding, parts.source) == (run.parts.deciding, run.parts.source)


def test_a_mapping_takes_the_place_of_what_it_names_in_the_run_and_in_its_command(folder):
    from ptune.cli.train import read_task

    task = TASK.replace("LM", str(folder / "LM")).replace("dev:", "take: {train: 3, test: 2}, dev:")
    (folder / "films.yaml").write_text(task)
    (folder / "sweep.yaml").write_text("tasks: films.yaml\ngrid: {data.take: [{test: 1}]}")
    (run,) = read_sweep(folder / "sweep.yaml")
    assert run.parts.data.take == {"train": 3, "test": 1}
    parts = resolve.training(read_task(shlex.split(run.command)[2:]))
    assert parts.deciding == run.parts.deciding


@pytest.mark.parametrize(
    ("method", "unread", "read"),
    [("manual", "template", "patterns"), ("p-tuning", "patterns", "template")],
)
def test_what_the_method_does_not_ask_by_is_refused_and_not_passed_over(
    folder, capsys, method, unread, read
):
    (folder / "films.yaml").write_text(
        TASK.replace("LM", str(folder / "LM")) + 'patterns: ["{text} is {mask}"]\n'
    )
    other = {"template": "{soft:1} {text} {mask}", "patterns": ["{text}: {mask}"]}
    message = f"{unread} is set, and {method} asks by the {read} of films"
    entry = {"method": method, unread: other[unread]}
    (folder / "sweep.yaml").write_text(json.dumps({"tasks": "films.yaml", "list": [entry]}))
    with pytest.raises(ConfigError, match=message):
        read_sweep(folder / "sweep.yaml")
    given = other[unread] if unread == "template" else other[unread][0]
    with pytest.raises(SystemExit) as ended:
        main.main(["train", "films.yaml", "--method", method, f"--{unread}", given])
    assert ended.value.code == 2 and message in capsys.readouterr().err
    entry = {"method": method, read: other[read]}
    (folder / "sweep.yaml").write_text(json.dumps({"tasks": "films.yaml", "list": [entry]}))
    assert getattr(read_sweep(folder / "sweep.yaml")[0].parts.form, read) in (
        other[read],
        tuple(other[read]),
    )


STARTS = ({"init": "vocabulary"}, {"prefix.init": "zeros"}, {"prefix.hidden": 4})
RATE_OF_PROMPT, RATE_OF_LM = {"train.learning_rate": 0.5}, {"train.lm_learning_rate": 0.5}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"method": "fine-tune", **RATE_OF_PROMPT}, "not trained by fine-tune"),
        ({"method": "p-tuning", **RATE_OF_LM}, "not trained by p-tuning"),
        ({"method": "manual", "train.steps": 3}, "manual trains nothing"),
        ({"pet.repetitions": 3}, "is of methods pet and ipet, and the method is p-tuning"),
        ({"pet.distil.steps": 3}, "is of methods pet and ipet, and the method is p-tuning"),
        ({"method": "pet", "pet.growth": 3}, "is of method ipet, and the method is pet"),
        ({"combine": "vote"}, "one answers the rows of films with p-tuning"),
        ({"data.references": 2}, "the answers of films are no texts"),
        ({"method": "contrastive", "reading.by": "soft"}, "its own reader (linear)"),
        *(({"continue_from": ".", **start}, "this one goes on from") for start in STARTS),
        ({"method": "head", "encoder": "lstm"}, "head asks films without any"),
        ({"method": "regression", "init": "vocabulary"}, "regression asks films without such"),
        ({"method": "optiprompt", "init": "vocabulary"}, "optiprompt asks films without such"),
        ({"prefix.init": "zeros"}, "p-tuning asks films without one"),
    ],
)
def test_what_a_training_would_not_read_is_refused_and_not_passed_over(
    folder, capsys, entry, message
):
    with (folder / "films.yaml").open("a") as file:
        file.write('patterns: ["{text} is {mask}"]\n')
    (folder / "sweep.yaml").write_text(json.dumps({"tasks": "films.yaml", "list": [entry]}))
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_sweep(folder / "sweep.yaml")
    named = {key.replace("continue_from", "from"): str(value) for key, value in entry.items()}
    options = [text for key, value in named.items() for text in (f"--{key}", value)]
    with pytest.raises(SystemExit) as ended:
        main.main(["train", "films.yaml", *options])
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_any_number_of_workers_do_each_run_once(folder, trained, monkeypatch):
    (folder / "sweep.yaml").write_text(
        f"tasks: films.yaml\ngrid: {{train.seed: {[*range(3, 30)]}}}"
    )
    runs, out = read_sweep(folder / "sweep.yaml"), folder / "out"
    shared = Sweep(runs, out, failed={}, together=2)
    monkeypatch.setattr(sweep_worker, "SECONDS_BETWEEN_TRIES", 0.02)
    threads = [
        threading.Thread(target=sweep_worker.work, args=(shared, lambda line: None))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(trained) == sorted(run.name for run in runs) and len(trained) == 27
    assert len(list((out / "results").iterdir())) == 27
    assert not [path for path in (out / "leases").iterdir() if path.name[0] != "."]


def test_a_run_that_fails_is_told_and_costs_no_other(folder, trained):
    rates = "grid: {train.learning_rate: [0.5, 0.7, 0.6], train.seed: [1, 2, 3]}"
    (folder / "sweep.yaml").write_text(f"tasks: films.yaml\n{rates}")
    results, lines = swept_with_failures(folder, "3 of 9 runs failed")
    assert [run.error for run in results.runs] == ["", "It diverged.", ""] * 3
    assert sum(line.startswith("Failed: ptune train") for line in lines) == 3
    groups = [
        (g.runs[0].settings["train.learning_rate"], g.failed, g.dev) for g in results.groups()
    ]
    assert groups == [("0.7", 1, 0.7), ("0.6", 1, 0.6), ("0.5", 1, 0.5)]
    assert results.best()[0].settings["train.learning_rate"] == "0.7"
    assert "3 (1 failed)" in (folder / "out" / "report.html").read_text()


def test_what_failed_is_tried_again_and_what_diverged_is_not(folder, monkeypatch):
    (folder / "sweep.yaml").write_text("tasks: films.yaml\ngrid: {train.seed: [0, 1]}\n")
    tried, faults = [], {0: PtuneError("The disk is full."), 1: DivergedError("It diverged.")}

    def train(parts, *more, **named):
        tried.append(parts.train.seed)
        if parts.train.seed in faults:
            raise faults[parts.train.seed]
        return SimpleNamespace(
            best={}, dev_score="", figures={"accuracy": 1.0}, seconds={}, pruned=[]
        )

    monkeypatch.setattr(train_task, "train_parts", train)
    monkeypatch.setattr(sweep_worker, "train_together", cannot_be)
    swept_with_failures(folder, "2 of 2 runs failed")
    del faults[0]
    results, _ = swept_with_failures(folder, "1 of 2 runs failed")
    assert tried == [0, 1, 0]
    assert [run.error for run in results.runs] == ["", "It diverged."]


def test_an_lm_of_other_weights_is_another_run(folder):
    before = read_sweep(folder / "sweep.yaml")
    with open(folder / "LM" / "model.safetensors", "r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"\x01")
    now = read_sweep(folder / "sweep.yaml")
    assert not {run.name for run in before} & {run.name for run in now}


def test_rows_are_checked_for_each_task_of_the_same_file(folder, trained):
    """The second task has other labels than the rows."""
    text = (folder / "films.yaml").read_text()
    (folder / "second.yaml").write_text(
        text.replace("{good: great, bad: bad}", "{good: great}").replace(
            "name: films", "name: second"
        )
    )
    (folder / "sweep.yaml").write_text("tasks: [films.yaml, second.yaml]\n")
    with pytest.raises(PtuneError, match="bad"):
        swept(folder)
    assert not trained and not (folder / "out").exists()


def test_a_sweep_that_grows_keeps_its_results(folder, trained):
    (folder / "sweep.yaml").write_text("tasks: films.yaml\ngrid: {train.seed: [0]}\n")
    swept(folder)
    more = "tasks: [films.yaml]\nlist: [{method: manual}, {train.seed: 0}]\n"
    (folder / "sweep.yaml").write_text(more)
    results, lines = swept(folder)
    assert "1 of which have" in lines[0] and len(trained) == 2
    assert [run.dev for run in results.runs] == [None, 0.5]
    assert results.groups()[0].runs[0] == results.runs[1]  # what has no dev score stands last


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks: films.yaml\ngrids: {a: [1]}", "no key 'grids'. .*grid"),
        ("grid: {train.seed: [0]}", "names no task"),
        ("tasks: nothing.yaml", "nothing.yaml with no settings: .*cannot be read"),
        ("tasks: films.yaml\ngrid: {train.seed: 3}", "grid.train.seed holds a list"),
        ("tasks: films.yaml\ngrid: {train.rate: [3]}", "with train.rate: 3: .*rate"),
        ("tasks: films.yaml\ngrid: {train.steps: [x]}", "with train.steps: x: .*train.steps"),
        ("tasks: films.yaml\ngrid: {method: [p-tunin]}", "with method: p-tunin: .*p-tuning"),
        ("tasks: films.yaml\ngrid: {method: [auto]}", "name methods"),
        ("tasks: films.yaml\ngrid: {out: [a]}", "out is the sweep's to say"),
        ("tasks: films.yaml\ngrid: {train.seed: [0, 0]}", "two runs are the same"),
        ("tasks: films.yaml\ngrid: {train.seed: [0]}\nlist: [{train.seed: 1}]", "which is meant"),
        ("tasks: films.yaml\nlist: [a]", "settings that go together"),
        ("- films.yaml", "keys and values"),
        ("tasks: films.yaml\nlist: [{train: {steps: 3}}]", "train is a section.*train.KEY"),
        ("tasks: films.yaml\nlist: [{method.x: 3}]", "'method' is no section"),
        ("tasks: films.yaml\nlist: [{data.train.x: 3}]", "'train' is no section"),
        ("tasks: films.yaml\nlist: [{chat: [a]}]", "chat is set in a task's file"),
        (
            "tasks: films.yaml\ngrid: {visibility: [[], [{hide: text, from: mask}]]}",
            "visibility is set in a task's file: name two files under tasks",
        ),
        ("tasks: [films.yaml, other.yaml]", "are both called 'films'"),
        (
            "tasks: films.yaml\ngrid: {data.train: [none.jsonl]}",
            "no .*none.jsonl, as data.train names it",
        ),
    ],
)
def test_a_bad_sweep_is_refused_before_the_first_step(text, message, folder, monkeypatch):
    monkeypatch.setattr(
        train_task, "train_parts", lambda *given, **named: pytest.fail("it was begun")
    )
    (folder / "other.yaml").write_text((folder / "films.yaml").read_text())
    (folder / "sweep.yaml").write_text(text)
    with pytest.raises(PtuneError, match=message):
        swept(folder)
    assert not (folder / "out").exists()


def test_a_finished_sweep_starts_no_process_and_has_no_table_of_methods(
    folder, trained, monkeypatch
):
    swept(folder)
    monkeypatch.setattr("multiprocessing.get_context", lambda kind: pytest.fail("it was started"))
    results, _ = swept(folder, workers=2)
    assert len(results.runs) == len(trained) == 2
    with pytest.raises(StoreError, match="holds a sweep .* name those, .*runs"):
        figure_files.figure_rows([folder / "out"])


def test_a_result_that_is_none_is_named(folder, trained):
    swept(folder)
    file = next((folder / "out" / "results").iterdir())
    file.write_text("{}")
    with pytest.raises(StoreError, match=f"{file.name} holds no result of a trial"):
        swept(folder)


def test_a_sweep_stays_out_of_other_folders(folder):
    (folder / "out").mkdir()
    (folder / "out" / "mine").touch()
    with pytest.raises(ConfigError, match="out holds mine"):
        swept(folder)
    _, lines = swept(folder, dry_run=True)
    assert len(lines) == 2 and all(line.startswith("ptune train") for line in lines)
