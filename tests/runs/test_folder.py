"""A folder is one run's, and one process's."""

import multiprocessing
import os
import signal
import threading

import pytest

from ptune.base import files
from ptune.errors import ConfigError, StoreError
from ptune.runs import folder as run_folder
from ptune.runs.folder import working_in
from ptune.runs.identity import with_contents

RUN = {"lm": {"sample": [1.0]}, "seed": 0, "tasks": {"a": {"rows": "x"}}}


def begun(folder, identity=RUN, kept=None, **options):
    with working_in(folder, "ptune probe", **options) as run:
        kept_there = run.claim(identity, kept)
        files.write_text(folder / "result.json", "{}")
    return kept_there


def test_a_run_goes_on_with_the_same_and_with_nothing_else(tmp_path):
    out = tmp_path / "out"
    assert (
        begun(out, kept={"together": 3})
        == {"together": 3}
        == begun(out, kept={"together": 7}, resume=True)
    )
    with pytest.raises(
        ConfigError, match="holds a run of ptune probe already: go on with --resume"
    ):
        begun(out)
    with pytest.raises(
        ConfigError,
        match=r"begun with another lm.sample \(\[1.0\], now \[2.0\]\), seed \(0, now 1\): go on "
        r"with the same",
    ):
        begun(out, {**RUN, "lm": {"sample": [2.0]}, "seed": 1}, resume=True)
    assert not list(out.glob(".*")), "the lock is left behind"


def test_a_file_of_another_content_is_told_as_that(tmp_path):
    (tmp_path / "rows.csv").write_text("a")
    before = with_contents({"data": {"train": tmp_path / "rows.csv"}})
    (tmp_path / "rows.csv").write_text("b")
    after = with_contents({"data": {"train": tmp_path / "rows.csv"}})
    begun(tmp_path / "out", before)
    with pytest.raises(ConfigError, match="data.train .what it holds has changed.: go on"):
        begun(tmp_path / "out", after, resume=True)


def test_other_versions_are_other_runs(tmp_path, monkeypatch):
    begun(tmp_path)
    monkeypatch.setattr(run_folder, "versions", lambda: {"torch": "0"})
    with pytest.raises(ConfigError, match="another versions.*torch"):
        begun(tmp_path, resume=True)


def test_what_may_grow_or_change(tmp_path):
    begun(tmp_path)
    both = {**RUN, "tasks": {"a": {"rows": "x"}, "b": {"rows": "y"}}}
    for identity in (both, RUN, {**RUN, "tasks": {"b": {"rows": "y"}}}):
        with working_in(tmp_path, "ptune probe", resume=True) as run:
            run.claim(identity, grows="tasks")
    assert files.read_json(tmp_path / "settings.json")["identity"]["tasks"] == both["tasks"]
    with working_in(tmp_path, "ptune probe", adds=True) as run:
        run.claim({**both, "seed": 5}, free=["seed"])
        with pytest.raises(ConfigError, match="another tasks.b.rows"):
            run.claim({**RUN, "tasks": {"b": {"rows": "z"}}}, grows="tasks")


def test_what_is_not_the_runs_own_is_never_touched(tmp_path):
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm" / "model.safetensors").write_text("weights")
    with pytest.raises(
        ConfigError, match="lm holds model.safetensors, which this run did not write"
    ):
        begun(tmp_path / "lm")
    with pytest.raises(
        ConfigError,
        match="There is no run of ptune probe in .*lm to go on with: leave --resume out",
    ):
        begun(tmp_path / "lm", resume=True)
    with pytest.raises(ConfigError, match="There is no run of ptune probe"):
        begun(tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()
    begun(tmp_path / "probe")
    for resume in (True, False):
        with (
            pytest.raises(
                ConfigError, match="holds a run of ptune probe, and not one that this ptune train"
            ),
            working_in(tmp_path / "probe", "ptune train", resume),
        ):
            pass
    with pytest.raises(StoreError, match="model.safetensors is a file, and"):
        begun(tmp_path / "lm" / "model.safetensors")


def test_a_run_that_ended_before_it_did_anything_claims_no_folder(tmp_path):
    with working_in(tmp_path / "out", "ptune probe") as run:
        run.claim(RUN)
    assert begun(tmp_path / "out", {**RUN, "seed": 1}) == {}


def test_a_damaged_note(tmp_path):
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(StoreError, match="not valid JSON"):
        begun(tmp_path)


def test_one_at_a_time(tmp_path):
    with (
        working_in(tmp_path / "out", "ptune probe"),
        pytest.raises(ConfigError, match="Another process is working in .*out"),
        working_in(tmp_path / "out", "ptune probe"),
    ):
        pass
    messages = []

    def work():
        try:
            begun(tmp_path / "out")
        except ConfigError as error:
            messages.append(str(error))

    with working_in(tmp_path / "out", "ptune probe"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(messages) == 1 and "Another process" in messages[0]
    begun(tmp_path / "out")


def hold(folder, ready):
    with working_in(folder, "ptune probe") as run:
        run.claim(RUN)
        ready.set()
        signal.pause()


def test_a_dead_process_holds_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path / "out", ready))
    process.start()
    ready.wait()
    with pytest.raises(ConfigError, match="Another process is working"):
        begun(tmp_path / "out")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert begun(tmp_path / "out") == {}
