"""The benchmarks run, and refuse to time sides that compute different things."""

import json
import multiprocessing
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("peft")
import benchmarks.__main__
from benchmarks import documents, few_labels
from benchmarks.__main__ import compare, figures
from benchmarks.cases import CASES
from ptune.cli import commands, main

LM = pathlib.Path(commands.__file__).parents[1] / "builtin" / "lm"


def side(name, proof=None, times=(9.0, 1.0)):
    return SimpleNamespace(
        side=name,
        prove=lambda: proof,
        times=list(times),
        cpu_times=[2 * seconds for seconds in times],
        memory=lambda: 2**20,
        positions=lambda: 7 * bool(proof),
        waits=list,
    )


def test_sides_that_compute_different_things_are_not_timed():
    compare("case", [side("ptune", [1.0, 2.0]), side("PEFT", [1.0, 2.00001]), side("floor")])
    compare("case", [side("a"), side("b")])
    for other in ([1.0, 2.1], [1.0]):
        with pytest.raises(SystemExit, match="case: ptune and PEFT compute different things"):
            compare("case", [side("ptune", [1.0, 2.0]), side("PEFT", other)])


def test_figures_are_medians_of_a_rounds_ratios():
    """The first round warms up; a slow round slows both sides."""
    ours, peer, floor = (
        side("ptune", [1.0], (50, 1, 10, 3)),
        side("PEFT", times=(50, 2, 20, 9)),
        side("floor", times=(50, 0.5, 4, 1)),
    )
    result = figures(ours, [ours, peer, floor])
    assert result == {
        "seconds": 3,
        "cpu_seconds": 6,
        "memory_mb": 1,
        "positions": 7,
        "times_as_fast": 2,
        "times_less_cpu": 2,
        "times_the_floor": 2.5,
    }
    assert "memory_mb" not in figures(floor, [ours, peer, floor])
    assert (
        figures(ours, [ours, peer, floor, side("floor, oneDNN", times=(50, 0.6, 8, 3))])[
            "times_the_floor"
        ]
        == 2.5
    )
    assert (
        figures(ours, [ours, peer, floor, side("floor, oneDNN", times=(50, 0.25, 2, 0.5))])[
            "times_the_floor"
        ]
        == 5
    )


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_small_case_runs(tmp_path, monkeypatch):
    """Its sides are forks, which load no library anew."""
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: fork)
    case, file = "autoprompt", tmp_path / "out.json"
    options = f"--small --rounds 1 --threads 1 --device cpu --json {file}"
    monkeypatch.setattr(sys, "argv", ["ptune bench", case, *options.split()])
    benchmarks.__main__.main()
    cases = json.loads(file.read_text())["cases"]
    assert set(cases) == {case} and tuple(cases[case]) == CASES[case].sides
    assert all(
        result["seconds"] > 0 and result["times_as_fast"] > 0 for result in cases[case].values()
    )


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT asks for it
@pytest.mark.parametrize("case", ["cloze-8", "document", "documents"])
def test_a_prompt_learns_in_peft_and_alone_as_here(case):
    if "document" in case and not hasattr(documents.peft, "CartridgeConfig"):
        pytest.skip("this PEFT has no cartridges")
    ours, other = (CASES[case].build(name, "cpu", True) for name in CASES[case].sides[:2])
    compare(case, [side("ptune", ours.proof()), side("other", other.proof())])
    ours.step()
    with pytest.raises(SystemExit, match="compute different things"):
        compare(case, [side("ptune", ours.proof()), side("other", other.proof())])
    other.step()
    compare(case, [side("ptune", ours.proof()), side("other", other.proof())])


def test_without_the_repository(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        commands, "__file__", str(tmp_path / "site-packages" / "ptune" / "cli" / "commands.py")
    )
    with pytest.raises(SystemExit):
        main.main(["bench"])
    assert "clone it" in capsys.readouterr().err
    monkeypatch.undo()
    begun = []

    def run(command, **options):
        begun.append((command[-3:], options["env"]["PYTHONPATH"]))
        return SimpleNamespace(returncode=2)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SystemExit) as stopped:
        main.main(["bench", "no-case"])
    root = str(pathlib.Path(__file__).parents[1])
    assert stopped.value.code == 2 and begun == [(["-m", "benchmarks", "no-case"], root)]
    monkeypatch.setattr(sys, "argv", ["ptune bench", "no-case"])
    with pytest.raises(SystemExit, match="2"):
        benchmarks.__main__.main()
    assert "there is no case no-case" in capsys.readouterr().err


TASK = """
name: films
patterns: ["{text} {mask}"]
target: label
labels: {good: good, bad: bad}
data: {train: train.jsonl, test: test.jsonl}
"""
OTHER_SIDE = """
import json, sys
for line in sys.stdin:
    job = json.loads(line)
    counted = sorted(label for _, label in job["train"])
    assert counted == [0, 0, 1, 1] and job["pairs"] == 3, job
    assert sorted(job["test"]) == ["bad", "good"], job
    print(json.dumps({"answers": [1, 1], "cpu_seconds": 5, "bytes": 8000}), flush=True)
"""


def test_setfit_and_ptune_learn_from_the_same_rows_and_answer_the_same(
    tmp_path, monkeypatch, capsys
):
    for split, count in (("train", 3), ("test", 1)):
        rows = [{"text": label, "label": label} for label in ("good", "bad")] * count
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "films.yaml").write_text(TASK)
    (tmp_path / "bin").mkdir()
    (tmp_path / "other.py").write_text(OTHER_SIDE)
    python = tmp_path / "bin" / "python"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} {tmp_path / 'other.py'}\n")
    python.chmod(0o755)
    given = (
        f"few_labels {tmp_path} --lm {LM} --out {tmp_path / 'out'} --tasks {tmp_path}/films.yaml"
    )
    monkeypatch.setattr(
        sys, "argv", f"{given} --shots 2 --seeds 1 --pairs 3 --methods regression,setfit".split()
    )
    few_labels.main()
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0].startswith("films-2-0-regression: 1.000") and "films-2-0-setfit: 0.500" in lines[1]
    )
    assert "0.500 ± 0.000" in lines[-2] and lines[-2].split()[-2:] == ["8", "│"]
    python.unlink()  # what is there is not run again
    few_labels.main()
    assert capsys.readouterr().out.splitlines() == lines
