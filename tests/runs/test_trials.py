"""The runner of experiments: what is run, what is read, and what is refused."""

import json
import types

import pytest
from killing import killed_after_every_file
from pydantic import BaseModel

from ptune.errors import ConfigError, StoreError
from ptune.runs import trials
from ptune.runs.trials import JsonResults, Trial, run_trials, unfinished


class Number(BaseModel):
    """A result."""

    name: str
    value: float


def trial(task, seed=0, bank=None, **settings):
    return Trial(
        method="m",
        task=task,
        seed=seed,
        shots=0,
        settings=settings,
        file=f"results/{task}-{seed}.json",
        scratch=f"scratch/{task}-{seed}",
        bank=bank,
    )


class Runner:
    """Runs trials, and remembers which together."""

    def __init__(self):
        self.groups = []

    def __call__(self, group, scratch):
        self.groups.append([one.task for one in group])
        if scratch is not None:
            scratch.mkdir(parents=True, exist_ok=True)
            (scratch / "checkpoint").touch()
        for one in group:
            yield Number(name=one.task, value=len(one.task) + one.seed)


def run(listed, folder, runner, **options):
    return run_trials(listed, folder, run=runner, results=JsonResults(Number), **options)


BANKS = [trial("a", bank=1), trial("bb", bank=1), trial("ccc"), trial("d"), trial("e", bank=2)]


def test_another_process_runs_what_the_first_one_has_no_results_of(tmp_path):
    """The first one tells the others which results it has; a bank with one missing runs again."""
    said, runner = [], Runner()
    first = types.SimpleNamespace(begin=lambda: True, from_first=lambda tell: said.append(tell()))
    run([BANKS[0], BANKS[3]], tmp_path, Runner())
    run(BANKS[:4], tmp_path, Runner(), ranks=first)
    assert said == [[BANKS[0].file, BANKS[3].file]]
    other = types.SimpleNamespace(begin=lambda: True, from_first=lambda tell: said[0])
    trials.assist(BANKS, runner, other)
    assert runner.groups == [["a", "bb"], ["ccc"], ["e"]]
    over = types.SimpleNamespace(begin=lambda: False)
    trials.assist(BANKS, lambda *arguments: 1 / 0, over)


def test_successive_trials_of_a_bank_are_run_together(tmp_path):
    runner, reported = Runner(), []
    gathered = run(BANKS, tmp_path, runner, on_result=reported.append)
    assert runner.groups == [["a", "bb"], ["ccc"], ["d"], ["e"]]
    assert [one.value for one in gathered] == [1, 2, 3, 1, 1] and reported == gathered
    assert not unfinished(BANKS, tmp_path) and not list((tmp_path / "scratch").iterdir())


def test_what_is_there_is_read_and_not_run(tmp_path):
    first, again, reported = run(BANKS, tmp_path, Runner()), Runner(), []
    (tmp_path / "results" / "ccc-0.json").unlink()
    assert [one.task for one in unfinished(BANKS, tmp_path)] == ["ccc"]
    assert run(BANKS, tmp_path, again, on_result=reported.append) == first == reported
    assert again.groups == [["ccc"]]


def test_a_bank_is_run_again_as_a_whole_and_writes_what_is_missing(tmp_path):
    first = run(BANKS, tmp_path, Runner())
    (tmp_path / "results" / "bb-0.json").unlink()
    kept = (tmp_path / "results" / "a-0.json").stat().st_mtime_ns
    again = Runner()
    assert run(BANKS, tmp_path, again) == first and again.groups == [["a", "bb"]]
    assert (tmp_path / "results" / "a-0.json").stat().st_mtime_ns == kept


def test_a_result_of_another_trial_is_refused_before_anything_is_run(tmp_path):
    run([trial("a"), trial("b", lm={"weights": "x"}, rows=3)], tmp_path, Runner())
    runner = Runner()
    other = [trial("new"), trial("b", lm={"weights": "y"}, rows=4)]
    with pytest.raises(ConfigError, match=r'b-0\.json .* settings\.lm\.weights \("x", now "y"\), '):
        run(other, tmp_path, runner)
    assert not runner.groups and not (tmp_path / "results" / "new-0.json").exists()


def test_results_of_older_versions_have_no_record_and_are_taken(tmp_path):
    run([trial("a")], tmp_path, Runner())
    file = tmp_path / "results" / "a-0.json"
    content = json.loads(file.read_text())
    assert content.pop("trial")["settings"] == {}
    file.write_text(json.dumps(content))
    runner = Runner()
    assert run([trial("a", rows=5)], tmp_path, runner)[0].value == 1 and not runner.groups


def test_a_file_that_holds_no_result_is_named(tmp_path):
    run([trial("a")], tmp_path, Runner())
    (tmp_path / "results" / "a-0.json").write_text('{"name": "a"}')
    with pytest.raises(StoreError, match=r"a-0\.json holds no result of a trial \(value: "):
        run([trial("a")], tmp_path, Runner())


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []

    def runs(group, scratch):
        seen.append(scratch)
        yield from Runner()(group, scratch)

    assert len(run_trials(BANKS, None, run=runs, results=JsonResults(Number))) == 5
    assert set(seen) == {None} and not list(tmp_path.iterdir())


def test_killed_after_every_result_it_ends_the_same(tmp_path, monkeypatch):
    whole = run(BANKS, tmp_path / "whole", Runner())
    written = killed_after_every_file(lambda: run(BANKS, tmp_path / "out", Runner()), monkeypatch)
    assert written == [f"{one.task}-0.json" for one in BANKS]
    assert run(BANKS, tmp_path / "out", Runner()) == whole
    for one in BANKS:
        both = [(tmp_path / name / one.file).read_bytes() for name in ("whole", "out")]
        assert both[0] == both[1]


def test_what_a_run_does_after_its_last_result_is_done(tmp_path):
    """Such as putting the LM's weights back."""
    done = []

    def runs(group, scratch):
        yield Number(name="a", value=1)
        done.append(group[0].task)

    run_trials([trial("a"), trial("b")], tmp_path, run=runs, results=JsonResults(Number))
    assert done == ["a", "b"]


def test_a_trial_is_a_value(monkeypatch):
    assert trial("a", rows=1) == trial("a", rows=1) and len({trial("a"), trial("a")}) == 1
    others = [trial("b"), trial("a", seed=1), trial("a", rows=1), trial("a", rows=2)]
    assert len({one.identity for one in [trial("a"), *others]}) == 5
    before = trial("a").identity
    monkeypatch.setattr(trials.identity, "versions", lambda: {"ptune": "0"})
    assert trial("a").identity != before, "another version may give another result"
