"""How many threads a command takes where not all CPUs of the machine are its own."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "limits, threads",
    [
        ({"LOKY_MAX_CPU_COUNT": "1"}, 1),
        ({"LOKY_MAX_CPU_COUNT": "1", "OMP_NUM_THREADS": "2"}, 2),
    ],
    ids=["a container with one CPU", "a number of the user's"],
)
def test_torch_takes_as_many_threads_as_there_are_cpus_to_use(limits, threads):
    """joblib reads a limit from the variable as it reads one of a container."""
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    shown = subprocess.run(
        [sys.executable, "-m", "ptune", "doctor", "--device", "cpu"],
        env={**inherited, "COLUMNS": "200", **limits},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"cpu ({threads} thread" in shown
