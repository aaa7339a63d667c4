"""``ptune report``: finished runs side by side, as a table and a page."""

import pathlib
from collections.abc import Sequence

from ptune.base import terminal
from ptune.errors import ConfigError
from ptune.reports import figure_files
from ptune.reports.pages import design, runs_page
from ptune.runs.folder import NOTE, held


def report(
    folders: Sequence[pathlib.Path], out: pathlib.Path, table_file: pathlib.Path | None = None
) -> None:
    """Print the table of the runs in some folders, and write ``report.html`` into ``out``.

    Args:
        table_file: where the figures go as CSV or LaTeX, by the ending of the name; with it the
            folders may also be those of probes and comparisons, which have pages of their own.

    Raises:
        StoreError: no folder is given, a file of results cannot be read, or the page cannot be
            written.
        ConfigError: ``out`` holds a run with a page of its own or a page of another program,
            another process works there, or the table's name ends neither in .csv nor in .tex or is
            that of a file of something else.
    """
    console = terminal.Console()
    if table_file is not None:
        figure_files.write(folders, table_file)
        console.print(f"Table: {table_file}", markup=False, highlight=False, soft_wrap=True)
        folders = [folder for folder in folders if not figure_files.has_own_page(folder)]
        if not folders:
            return
    with held(out):
        _report(console, folders, out)


def _report(console: terminal.Console, folders: Sequence[pathlib.Path], out: pathlib.Path) -> None:
    """Print the table, and write the page into a folder that is held."""
    runs = runs_page.read(folders)
    if (out / "report.html").exists() and any((out / name).exists() for name in (NOTE, "run.json")):
        raise ConfigError(
            f"{out} holds a run, whose page would be overwritten: choose another --out."
        )
    replaces = (out / "report.html").exists()
    if replaces and not design.is_page(out / "report.html"):
        raise ConfigError(
            f"{out / 'report.html'} is no page of this version of ptune, and would be overwritten: "
            "choose another --out, or delete it."
        )
    console.print(runs_page.table(runs))
    runs_page.write(runs, out)
    place = " (in place of the page that stood there)" if replaces else ""
    console.print(
        f"Report{place}: {out / 'report.html'}", markup=False, highlight=False, soft_wrap=True
    )
