"""The fuzzer itself, and fifteen seconds of it (``PTUNE_FUZZ_SECONDS``); ``python -m tests.fuzz``
runs as long as one likes."""

import os
import random
import sys
import tempfile

import fuzz


def test_odd_input_ends_well_or_with_a_message():
    seconds = float(os.environ.get("PTUNE_FUZZ_SECONDS", "15"))
    assert fuzz.fuzz(seconds, 0, list(fuzz.KINDS)) == []


def test_what_ends_otherwise_is_seen(monkeypatch):
    with tempfile.TemporaryDirectory() as name:
        fuzzer = fuzz.Fuzzer(fuzz.pathlib.Path(name))

        def crash(arguments):
            raise ZeroDivisionError(arguments)

        for end, fault in (
            (crash, "ZeroDivisionError"),
            (lambda _: sys.exit(1), "exit 1"),
            (lambda _: sys.exit(2), "without a message"),
            (lambda _: sys.exit(130), ""),
            (lambda _: None, ""),
        ):
            monkeypatch.setattr(fuzz.cli, "main", end)
            assert fault in fuzzer.run(fuzz.Case(["inspect"])) and bool(fault) == bool(
                fuzzer.run(fuzz.Case(["inspect"]))
            )


def test_a_seed_draws_the_same_cases(monkeypatch):
    with tempfile.TemporaryDirectory() as name:
        fuzzer = fuzz.Fuzzer(fuzz.pathlib.Path(name))
        for kind, draw in fuzz.KINDS.items():
            assert draw(fuzzer, random.Random(kind)) == draw(fuzzer, random.Random(kind))
