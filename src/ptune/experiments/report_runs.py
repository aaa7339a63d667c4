"""``ptune report``: finished runs side by side, as a table and a page."""

import pathlib
from collections.abc import Sequence

from ptune.base import terminal
from ptune.errors import ConfigError
from ptune.reports import runs_page
from ptune.runs.folder import NOTE, held


def report(folders: Sequence[pathlib.Path], out: pathlib.Path) -> None:
    """Print the table of the runs in some folders, and write ``report.html`` into ``out``.

    Raises:
        StoreError: no folder is given, a run.json cannot be read, or the page cannot be written.
        ConfigError: ``out`` holds a run with a page of its own, or another process works there.
    """
    runs = runs_page.read(folders)
    if (out / "report.html").exists() and any((out / name).exists() for name in (NOTE, "run.json")):
        raise ConfigError(
            f"{out} holds a run, whose page would be overwritten: choose another --out."
        )
    console = terminal.Console()
    console.print(runs_page.table(runs))
    with held(out):
        runs_page.write(runs, out)
    console.print(f"Report: {out / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
