"""The benchmarks run, and refuse to time sides that compute different things."""

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("peft")
from benchmarks.__main__ import compare, figures
from benchmarks.cases import CASES
from ptune.cli import commands, main


def side(name, proof=None, times=(9.0, 1.0)):
    return SimpleNamespace(
        side=name,
        prove=lambda: proof,
        times=list(times),
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
        "memory_mb": 1,
        "positions": 7,
        "times_as_fast": 2,
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


@pytest.mark.parametrize("case", ["cloze-8"])
def test_a_small_case_runs(case, tmp_path):
    main.main(
        [
            "bench",
            case,
            "--small",
            "--rounds",
            "1",
            "--threads",
            "1",
            "--device",
            "cpu",
            "--json",
            str(tmp_path / "out.json"),
        ]
    )
    cases = json.loads((tmp_path / "out.json").read_text())["cases"]
    assert set(cases) == {case} and tuple(cases[case]) == CASES[case].sides
    assert all(
        result["seconds"] > 0 and result["times_as_fast"] > 0 for result in cases[case].values()
    )


def test_without_the_repository(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        commands, "__file__", str(tmp_path / "site-packages" / "ptune" / "cli" / "commands.py")
    )
    with pytest.raises(SystemExit):
        main.main(["bench"])
    assert "clone it" in capsys.readouterr().err
    monkeypatch.undo()
    with pytest.raises(SystemExit) as stopped:
        main.main(["bench", "no-case"])
    assert stopped.value.code == 2
