"""Write constraints-hashes.txt: what ``pip install -c constraints.txt -e '.[dev]'`` installs on this
machine, each package with the SHA-256 of its file. Run it again after a change of constraints.txt.

    python scripts/make_hashes.py
"""

import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
HEAD = """\
# The files that the tests pass with, each by its SHA-256: for Linux on x86-64 with Python 3.11 and torch for CPUs.
# pip takes nothing else:
#     pip install --require-hashes --no-deps --extra-index-url https://download.pytorch.org/whl/cpu -r constraints-hashes.txt
#     pip install --no-deps --no-build-isolation -e .
# Written by scripts/make_hashes.py from constraints.txt.
"""


def packages() -> list[str]:
    """A line for each package that pip would install."""
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder, "report.json")
        options = ["--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
        subprocess.run(
            [sys.executable, "-m", "pip", "install", *options]
            + ["-c", str(ROOT / "constraints.txt"), f"{ROOT}[dev]"],
            check=True,
        )
        installed = json.loads(report.read_text())["install"]
    lines = []
    for package in installed:
        name, version = package["metadata"]["name"], package["metadata"]["version"]
        if name != "ptune":
            sha256 = package["download_info"]["archive_info"]["hashes"]["sha256"]
            lines.append(f"{name}=={version} --hash=sha256:{sha256}")
    return sorted(lines, key=str.lower)


if __name__ == "__main__":
    (ROOT / "constraints-hashes.txt").write_text(HEAD + "".join(f"{line}\n" for line in packages()))
