"""Leases: one holder at a time, and none for ever."""

import json
import os
import socket
import subprocess
import threading
import time

from ptune.runs import leases
from ptune.runs.leases import Leases


def test_a_lease_has_one_holder(tmp_path):
    first, second = Leases(tmp_path), Leases(tmp_path)
    names = ["a", "b"]
    with first.taken(names) as of_first, second.taken(names) as of_second:
        assert (of_first, of_second) == (["a"], ["b"])
        with first.taken(names) as of_third:
            assert of_third == []
    with second.taken(names, most=3) as of_second:
        assert of_second == names
    assert not (tmp_path / "a").exists()


def test_of_many_at_once_one_gets_it(tmp_path):
    start, taken, over = threading.Barrier(6), [], threading.Event()

    def take():
        start.wait()
        with Leases(tmp_path).taken(["a"]) as is_mine:
            taken.append(is_mine)
            over.wait(5)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    while len(taken) < 6:
        time.sleep(0.01)
    over.set()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [[]] * 5 + [["a"]]


def write(path, host: str, process: int, began: float = 0.0) -> None:
    path.write_text(json.dumps({"host": host, "process": process, "began": began}))


def test_the_lease_of_a_process_that_has_ended_is_free(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    all_leases = Leases(tmp_path)
    write(tmp_path / "a", socket.gethostname(), ended.pid)
    write(tmp_path / "b", socket.gethostname(), os.getpid())  # began at another time
    (tmp_path / "c").write_text('{"host')
    for name in "abc":
        with all_leases.taken([name]) as is_mine:
            assert is_mine


def test_the_lease_of_another_machine_is_free_when_it_is_not_touched(tmp_path, monkeypatch):
    all_leases = Leases(tmp_path)
    write(tmp_path / "a", "elsewhere", 1)
    with all_leases.taken(["a"]) as is_mine:
        assert not is_mine
    long_ago = time.time() - 2 * leases.STALE_SECONDS
    os.utime(tmp_path / "a", (long_ago, long_ago))
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.01)
    with all_leases.taken(["a"]) as is_mine:
        assert is_mine
        os.utime(tmp_path / "a", (long_ago, long_ago))
        for _ in range(200):
            if (tmp_path / "a").stat().st_mtime > long_ago + 1:
                break
            time.sleep(0.01)
        assert (tmp_path / "a").stat().st_mtime > long_ago + 1, "the holder does not touch it"
