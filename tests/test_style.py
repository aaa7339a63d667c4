"""Style and types, checked like the rest."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(
    "command", [("ruff", "check", "--no-cache"), ("mypy", "--cache-dir", "/dev/null")]
)
def test_nothing_to_mend(command):
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
    )
    if "No module named" in done.stderr:
        pytest.skip(f"{command[0]} is not installed")
    assert done.returncode == 0, done.stdout
