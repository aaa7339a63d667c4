"""The runs of a sweep side by side: a table in the terminal, and a page."""

import contextlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from rich.text import Text

from ptune.base import files
from ptune.reports.pages import design
from ptune.reports.sweep_results import SweepGroup, SweepResults

QUIET: dict[str, Any] = {"color": design.COLOURS[0], "lw": 1, "alpha": 0.45}
BEST: dict[str, Any] = {"color": design.COLOURS[1], "lw": 2.5, "zorder": 3}
UNLIKE = (
    "The dev scores are of unlike kinds, which cannot be compared: the best is told of each kind."
)


def table(results: SweepResults) -> Table:
    """The settings, with their figures on dev and test."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("task", *results.keys):
        table.add_column(Text(name))
    for name in ("runs", "dev", results.metric):
        table.add_column(Text(name), justify="right")
    for group in results.groups():
        shown = [group.runs[0].task, *values(results, group), *figures(results, group)]
        table.add_row(*map(Text, shown))
    return table


def values(results: SweepResults, group: SweepGroup) -> list[str]:
    """The settings in which it differs from others."""
    return [str(group.runs[0].settings.get(key, "")) for key in results.keys]


def figures(results: SweepResults, group: SweepGroup) -> list[str]:
    """The number of its runs, and its figures on dev, with their kind where there are several, and
    on test."""
    counts = {"failed": group.failed, "pruned": group.pruned}
    ended = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    noted = f" ({ended})" if ended else ""
    spread = f" ± {group.deviation:.3f}" if group.deviation is not None else ""
    test = "" if group.test is None else f"{group.test:.3f}{spread}"
    dev = "" if group.dev is None else f"{group.dev:.3f}"
    kind = f" ({group.dev_score})" if dev and results.has_unlike_scores else ""
    return [f"{len(group.runs)}{noted}", f"{dev}{kind}", test]


def write(results: SweepResults, folder: pathlib.Path) -> None:
    """Write ``report.html``."""
    page = design.render(
        "sweep_page.html",
        results=results,
        groups=results.groups(),
        values=lambda group: values(results, group),
        figures=lambda group: figures(results, group),
        unlike=UNLIKE if results.has_unlike_scores else "",
        best=results.best(),
        failed=[run for run in results.runs if run.error],
        pruned=sum(run.pruned for run in results.runs),
        seconds=sum(run.seconds for run in results.runs),
        coordinates=_coordinates(results),
        scatter=_scatter(results),
    )
    files.write_text(folder / "report.html", page)


def _coordinates(results: SweepResults) -> str:
    """An SVG in which the runs of each setting are a line through its values to their mean score on
    dev (parallel coordinates); empty where fewer than two keys differ, or where their scores are of
    unlike kinds."""
    groups = [group for group in results.groups() if group.dev is not None]
    paths = [[group.runs[0].task, *values(results, group)] for group in groups]
    titles = ["task", *results.keys]
    if len({path[0] for path in paths}) == 1:
        paths, titles = [path[1:] for path in paths], titles[1:]
    if len(titles) < 2 or len(groups) < 2 or results.has_unlike_scores:
        return ""
    drawing = Figure(figsize=(1.9 * len(titles) + 2, 3.6), layout="constrained")
    axes = drawing.subplots()
    heights = [_heights(column) for column in zip(*paths)]
    for number, placed in enumerate(heights):
        _draw_axis(axes, number, titles[number], placed)
    scores = [group.dev for group in groups if group.dev is not None]
    low, high = min(scores), max(scores)
    reach = high - low or 1.0
    ends = {f"{score:.3f}": (score - low) / reach for score in (low, high)}
    _draw_axis(axes, len(titles), "dev", ends)
    tasks = set[str]()
    for group, path, score in zip(groups, paths, scores):
        line = [placed[value] for placed, value in zip(heights, path)] + [(score - low) / reach]
        style = QUIET if group.runs[0].task in tasks else BEST  # the first is the best of its task
        tasks.add(group.runs[0].task)
        axes.plot(range(len(line)), line, **style)
    axes.axis("off")
    shown = "; ".join(f"{', '.join(path)}: {score:.3f}" for path, score in zip(paths, scores))
    return design.svg(drawing, f"Settings and their mean score on dev: {shown}")


def _heights(column: Sequence[str]) -> dict[str, float]:
    """Where the distinct values of a setting stand on its axis: numbers by size, others as they
    come."""
    distinct = list(dict.fromkeys(column))
    with contextlib.suppress(ValueError):
        distinct.sort(key=float)
    return {value: (place + 0.5) / len(distinct) for place, value in enumerate(distinct)}


def _draw_axis(axes: Axes, number: int, title: str, placed: Mapping[str, float]) -> None:
    """Draw an upright axis with the names of its values."""
    axes.plot([number, number], [0, 1], color=design.INK, lw=1)
    axes.text(number, 1.06, title, ha="center", fontweight="bold")
    for name, height in placed.items():
        axes.text(number + 0.03, height + 0.015, name, fontsize=8)


def _scatter(results: SweepResults) -> str:
    """An SVG of each run's figure on test over that on dev; empty where no run has both, or
    where the scores on dev are of unlike kinds."""
    points = [
        (run.dev, run.figures[results.metric])
        for run in results.runs
        if run.dev is not None and results.metric in run.figures
    ]
    if not points or results.has_unlike_scores:
        return ""
    drawing = Figure(figsize=(5, 3.4), layout="constrained")
    axes = drawing.subplots()
    axes.plot(*zip(*points), ls="", marker="o", color=design.COLOURS[2])
    axes.set_xlabel("dev")
    axes.set_ylabel(f"{results.metric} on test")
    shown = ", ".join(f"{dev:.3f} and {test:.3f}" for dev, test in points)
    return design.svg(drawing, f"Figures of each run on dev and on test: {shown}")
