"""The runs of a sweep side by side: a table in the terminal, and a page."""

import pathlib

from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from rich.text import Text

from ptune.base import files
from ptune.reports.pages import design
from ptune.reports.sweep_results import SweepGroup, SweepResults


def table(results: SweepResults) -> Table:
    """The settings, with their figures on dev and test."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("task", *results.keys):
        table.add_column(Text(name))
    for name in ("runs", "dev", results.metric):
        table.add_column(Text(name), justify="right")
    for group in results.groups():
        shown = [group.runs[0].task, *values(results, group), *figures(group)]
        table.add_row(*map(Text, shown))
    return table


def values(results: SweepResults, group: SweepGroup) -> list[str]:
    """The settings in which it differs from others."""
    return [str(group.runs[0].settings.get(key, "")) for key in results.keys]


def figures(group: SweepGroup) -> list[str]:
    """The number of its runs, and its figures on dev and test."""
    failed = f" ({group.failed} failed)" if group.failed else ""
    spread = f" ± {group.deviation:.3f}" if group.deviation is not None else ""
    test = "" if group.test is None else f"{group.test:.3f}{spread}"
    return [f"{len(group.runs)}{failed}", "" if group.dev is None else f"{group.dev:.3f}", test]


def write(results: SweepResults, folder: pathlib.Path) -> None:
    """Write ``report.html``."""
    page = design.render(
        "sweep_page.html",
        results=results,
        groups=results.groups(),
        values=lambda group: values(results, group),
        figures=figures,
        best=results.best(),
        failed=[run for run in results.runs if run.error],
        seconds=sum(run.seconds for run in results.runs),
        scatter=_scatter(results),
    )
    files.write_text(folder / "report.html", page)


def _scatter(results: SweepResults) -> str:
    """An SVG of each run's figure on test over that on dev; empty where no run has both."""
    points = [
        (run.dev, run.figures[results.metric])
        for run in results.runs
        if run.dev is not None and results.metric in run.figures
    ]
    if not points:
        return ""
    drawing = Figure(figsize=(5, 3.4), layout="constrained")
    axes = drawing.subplots()
    axes.plot(*zip(*points), ls="", marker="o", color=design.COLOURS[2])
    axes.set_xlabel("dev")
    axes.set_ylabel(f"{results.metric} on test")
    shown = ", ".join(f"{dev:.3f} and {test:.3f}" for dev, test in points)
    return design.svg(drawing, f"Figures of each run on dev and on test: {shown}")
