"""How long the command line takes until it says how it is used, beside the import of torch
alone."""

import subprocess
import sys

from benchmarks.side import Work

PROGRAMS = {"ptune --help": ["-m", "ptune", "--help"], "import torch": ["-c", "import torch"]}


def starting(side: str, device: str, small: bool) -> Work:
    return Work(
        lambda: subprocess.run([sys.executable, *PROGRAMS[side]], check=True, capture_output=True)
    )
