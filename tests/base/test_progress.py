"""Progress where there is no terminal."""

import sys

import pytest

from ptune.base import progress


def test_lines_now_and_then(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.Progress("training", 100, done=40) as bar:
        for _ in range(30):
            now[0] += 10.0
            bar.advance(loss=0.5)
            bar.advance(0, dev=0.25)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 300 // 40
    assert lines[0] == "training: 44/100, loss 0.500 dev 0.250, 9.3 min left"


@pytest.mark.parametrize("in_a_terminal", [False, True])
def test_no_step_waits_for_a_device(in_a_terminal, monkeypatch):
    """A figure is fetched from its device where it is shown, not at every step."""
    fetched = []

    class OnADevice:
        def __float__(self):
            fetched.append(self)
            return 0.5

    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: in_a_terminal)
    with progress.Progress("training", 100) as bar:
        for _ in range(100):
            now[0] += 0.01
            bar.advance(loss=OnADevice())
    assert 3 <= len(fetched) <= 5 if in_a_terminal else not fetched


def test_a_line_without_figures(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.Progress("rounds", 4) as bar:
        now[0] += 40.0
        bar.advance()
    assert capsys.readouterr().err == "rounds: 1/4, 2.0 min left\n"
