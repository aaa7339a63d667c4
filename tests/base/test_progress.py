"""Progress where there is no terminal."""

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


def test_a_line_without_figures(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.Progress("rounds", 4) as bar:
        now[0] += 40.0
        bar.advance()
    assert capsys.readouterr().err == "rounds: 1/4, 2.0 min left\n"
