"""Runs of a sweep that are trained together are those that are trained alone."""

import json
from dataclasses import replace

import killing
import pytest
import tiny
from safetensors.torch import load_file

from ptune.errors import PtuneError
from ptune.experiments.options import SweepConfig
from ptune.experiments.sweep import sweep_worker, train_together
from ptune.experiments.sweep.sweep import sweep
from ptune.experiments.sweep.sweep_file import read_sweep
from ptune.experiments.train import train_task
from ptune.lm.language_model import LanguageModel
from ptune.reports.pages import runs_page
from ptune.reports.sweep_results import SweepResults
from ptune.tasks.judging import baselines
from ptune.training import loop

WORDS = {"good": ("great", "best", "fine", "new"), "bad": ("worst", "bad", "old", "slow")}
ROWS = [
    {"text": f"{word} film", "label": label} for label, words in WORDS.items() for word in words
]
TASK = """
name: NAME
template: "{soft:2} {text} {mask}"
labels: {good: great, bad: bad}
lm: LM
encoder: table
device: cpu
dtype: float64
data: {train: rows.jsonl, dev: rows.jsonl, test: rows.jsonl}
train: {steps: 6, batch_size: 3, evaluate_every: 2}
"""
SWEEP = """
tasks: [films.yaml, books.yaml]
list:
- {train.learning_rate: 0.3, train.batch_size: 2, train.patience: 1, train.evaluate_every: 1}
- {method: prefix-tuning, template: "{prefix:2} {text} {mask}", train.weight_decay: 0.1,
   train.seed: 3, train.clip: 0, train.steps: 4, train.optimiser: adam}
"""


@pytest.fixture(scope="module", autouse=True)
def baselines_computed():
    """For how many runs baselines were computed, which takes longer here than the trainings, as do
    pages: a file of one line stands in for those."""
    computed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "figures", lambda *given: computed.append(1) or {})
        page = lambda runs, folder: (folder / "report.html").write_text("a page")
        patch.setattr(runs_page, "write", page)
        yield computed


@pytest.fixture
def folder(tmp_path):
    return sweep_in(tmp_path)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with the whole sweep, whose runs were trained alone."""
    folder = sweep_in(tmp_path_factory.mktemp("world"))
    swept(folder, "alone", together=1)
    return folder


def sweep_in(tmp_path):
    for part in tiny.tiny("bert"):
        part.save_pretrained(tmp_path / "LM")
    for name, rows in (("films", ROWS), ("books", ROWS[1:-1])):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        text = TASK.replace("LM", str(tmp_path / "LM")).replace("NAME", name)
        (tmp_path / f"{name}.yaml").write_text(text.replace("rows.jsonl", str(file)))
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path


def swept(folder, out, **options):
    config = SweepConfig(file=folder / "sweep.yaml", out=folder / out, **options)
    return sweep(config, lambda line: None)


def results_of(folder, out):
    return SweepResults.model_validate_json((folder / out / "results.json").read_text())


def far(first, second):
    """How far the trained values of two runs are apart at most."""
    one, other = (load_file(path / "prompt.safetensors") for path in (first, second))
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one if one[name].numel())


def kept(folder):
    """What a run's folder holds, without what hangs on the clock."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    run = json.loads((folder / "run.json").read_text())
    settings = json.loads((folder / "settings.json").read_text())
    run.pop("seconds"), run["train"].pop("save_seconds")
    for values in (run["settings"], settings["identity"]):
        values.pop("out", None), values.pop("resume", None)
    return names, settings, run


def assert_alike(folder, one, other):
    """All runs of two sweeps are equal."""
    for first, second in zip(results_of(folder, one).runs, results_of(folder, other).runs):
        assert first.error == second.error and first.settings == second.settings
        assert first.figures == pytest.approx(second.figures, abs=1e-10)
        assert first.dev == pytest.approx(second.dev, abs=1e-10)
        places = [folder / out / "runs" / first.name for out in (one, other)]
        if first.error:
            continue
        (names, settings, run), (names_2, settings_2, run_2) = map(kept, places)
        assert (names, settings) == (names_2, settings_2)
        for name, evaluations in run["history"].items():
            for evaluation, evaluation_2 in zip(evaluations, run_2["history"][name], strict=True):
                assert evaluation == pytest.approx(evaluation_2, abs=1e-10)
        for name in ("steps", "train", "method", "template", "rows", "baselines", "diverged"):
            assert run[name] == run_2[name]
        if (places[0] / "prompt.safetensors").exists():
            assert far(*places) < 1e-10


def counted_steps(monkeypatch):
    """How many tasks each joint step of a real training has."""
    counts, step = [], loop.take_step
    monkeypatch.setattr(
        loop,
        "take_step",
        lambda model, jobs, *more: counts.append(len(jobs)) or step(model, jobs, *more),
    )
    return counts


def test_together_is_alone(world, monkeypatch):
    """Methods, tasks, rows and settings of four prompts differ."""
    steps = counted_steps(monkeypatch)
    swept(world, "together")
    assert steps[:2] == [4, 4] and len(steps) == 1 + 6 and steps[-1] < 4  # the first is a trial
    assert_alike(world, "alone", "together")
    runs = [run.name for run in results_of(world, "alone").runs]
    first, other = (world / "alone" / "runs" / runs[number] for number in (0, 2))
    assert far(first, other) > 1e-3  # what differs is far outside the tolerance


def test_a_killed_group_goes_on_in_any_grouping(world, monkeypatch):
    """Members have checkpoints of their own, as a run alone writes them."""
    folder = world
    parts = [replace_save(run) for run in read_sweep(folder / "sweep.yaml")]
    monkeypatch.setattr("ptune.experiments.sweep.sweep.read_sweep", lambda file: parts)
    with killing.killed_after(4, monkeypatch):  # the first step tries all of them
        swept(folder, "killed")
    checkpoints = list((folder / "killed" / "runs").glob("*/checkpoint.safetensors"))
    assert len(checkpoints) == 4 and not list((folder / "killed").glob("results/*"))
    run = next(run for run in parts if (checkpoints[0].parent.name == run.name))
    output = replace(run.parts.output, folder=checkpoints[0].parent, resume=True)
    train_task.train_parts(replace(run.parts, output=output), lambda line: None)
    steps = counted_steps(monkeypatch)
    swept(folder, "killed", together=2)
    assert max(steps) == 2
    assert_alike(folder, "alone", "killed")


def replace_save(run):
    train = run.parts.train.model_copy(update={"save_seconds": 0})
    return replace(run, parts=replace(run.parts, train=train))


def test_a_member_that_fails_fails_alone(folder, monkeypatch, baselines_computed):
    """One diverges, one has no rows any more; the others are what they are without them."""
    (folder / "sweep.yaml").write_text(
        "tasks: [films.yaml]\nlist:\n- {train.seed: 1}\n- {train.learning_rate: 1.0e+300}\n"
        "- {train.seed: 2}\n- {train.seed: 3}\n"
    )
    prepare, before = train_task.prepare, len(baselines_computed)

    def failing(setup, *more):
        if setup.parts.train.seed == 3:
            raise RuntimeError("CUDA out of memory")
        return prepare(setup, *more)

    monkeypatch.setattr(train_task, "prepare", failing)
    for out, together in (("together", 8), ("alone", 1)):
        with pytest.raises(PtuneError, match="2 of 4 runs failed"):
            swept(folder, out, together=together)
        assert out == "alone" or len(baselines_computed) == before + 1  # once for all of a task
    assert_alike(folder, "alone", "together")
    errors = [run.error for run in results_of(folder, "together").runs]
    assert [bool(error) for error in errors] == [False, True, False, True]
    assert "diverged" in errors[1] and errors[3] == "RuntimeError: CUDA out of memory"
    assert [run.diverged for run in results_of(folder, "together").runs] == [False, True] + [
        False
    ] * 2


def test_where_a_joint_step_fails_each_is_trained_alone(world, monkeypatch):
    step = loop.take_step

    def without_room(model, jobs, *more):
        if len(jobs) > 1 and jobs[0].step == 2:
            raise RuntimeError("out of memory")
        step(model, jobs, *more)

    monkeypatch.setattr(loop, "take_step", without_room)
    swept(world, "apart")
    assert_alike(world, "alone", "apart")


def test_who_is_trained_with_whom(folder):
    alone = "[{log: [jsonl]}, {method: fine-tune, template: '{text} {mask}'}, {method: manual}]"
    (folder / "sweep.yaml").write_text(f"tasks: films.yaml\nlist: {alone}\n")
    assert [run.trial.bank for run in read_sweep(folder / "sweep.yaml")] == [None] * 3
    text = "tasks: films.yaml\ngrid: {train.seed: [0, 1], dtype: [float64, float32]}\n"
    (folder / "sweep.yaml").write_text(text)
    banks = [run.trial.bank for run in read_sweep(folder / "sweep.yaml")]
    assert banks[:2] == banks[2:] and banks[0] != banks[1] and None not in banks
    parts = read_sweep(folder / "sweep.yaml")[0].parts
    for change in ({"recompute": True}, {"accumulate": 2}, {"context_mb": 0}, {"save_seconds": 1}):
        other = replace(parts, train=parts.train.model_copy(update=change))
        bank, other_bank = (train_together.bank_of(one, "lm") for one in (parts, other))
        assert bank != other_bank


def test_trainings_that_cannot_share_their_steps_are_refused(folder):
    parts = [run.parts for run in read_sweep(folder / "sweep.yaml")][:2]
    parts[1] = replace(parts[1], train=parts[1].train.model_copy(update={"accumulate": 2}))
    parts = [
        replace(one, output=replace(one.output, folder=folder / str(number)))
        for number, one in enumerate(parts)
    ]
    lm = LanguageModel.load(str(folder / "LM"), device="cpu", dtype="float64")
    with pytest.raises(PtuneError, match="have one accumulate, and these have 1 and 2"):
        list(train_together.train_together(parts, lambda *source: lm))


def test_results_are_never_taken_away(folder, monkeypatch):
    """While failed runs are tried again, another process can read all results."""
    (folder / "sweep.yaml").write_text("tasks: films.yaml\ngrid: {train.seed: [0, 1]}\n")
    seen = []

    def failing(parts, *more, **named):
        seen.append(len(list((folder / "out" / "results").glob("*"))))
        raise PtuneError("The disk is full.")

    monkeypatch.setattr(train_task, "train_parts", failing)
    monkeypatch.setattr(sweep_worker, "train_together", lambda *given: failing(None))
    for _ in range(2):
        with pytest.raises(PtuneError, match="2 of 2 runs failed"):
            swept(folder, "out")
    assert seen == [0, 0, 1, 2, 2, 2]
