"""A comparison for people: a table for each number of shots, and one page with plots."""

import pathlib
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from rich.text import Text

from ptune.base import files
from ptune.metrics.labels import BASELINES
from ptune.reports.probe_page import (
    COLOURS,
    DIVERGED,
    MARK,
    MARKED,
    count,
    divergences,
    render,
    svg,
)
from ptune.reports.schemas import Cell, Comparison

COMPANY = "Above the line: baselines, without prompts, on the same rows."


def tables(results: Comparison) -> list[Table]:
    """For each number of shots, methods by as many tasks as 80 columns hold: each task's main
    figure, with its deviation over seeds."""
    most, drawn = 2 if any(cell.seeds > 1 for cell in results.cells) else 3, []
    for shots in sorted({cell.shots for cell in results.cells}):
        names = list(dict.fromkeys(cell.task for cell in results.cells if cell.shots == shots))
        drawn += [
            _table(results, shots, names[first : first + most])
            for first in range(0, len(names), most)
        ]
    return drawn


def _table(results: Comparison, shots: int, names: Sequence[str]) -> Table:
    cells = [cell for cell in results.cells if cell.shots == shots and cell.task in names]
    drawn = Table(title=_title(shots), box=box.SIMPLE_HEAD, pad_edge=False)
    drawn.add_column("method", no_wrap=True)
    for name in names:
        metric = next(cell.metric for cell in cells if cell.task == name)
        drawn.add_column(f"{name}\n{metric}", justify="right", no_wrap=True)
    drawn.add_column("trained", justify="right", no_wrap=True)
    notes = [COMPANY] if any(cell.baseline for cell in cells) else []
    drawn.caption = (
        " ".join([*notes, *([MARKED] if any(cell.diverged for cell in cells) else [])]) or None
    )
    for method, title in results.titles.items():
        own = [
            next((cell for cell in cells if (cell.task, cell.method) == (name, method)), None)
            for name in names
        ]
        if any(own):
            is_last = [name for name in results.titles if name in BASELINES][-1:] == [method]
            style = "italic" if method in BASELINES else ""
            drawn.add_row(
                Text(title, style=style),
                *[_shown(cell, cells) for cell in own],
                _trained(own),
                end_section=is_last,
            )
    return drawn


def _title(shots: int) -> str:
    return (
        f"{shots} row{'s' * (shots > 1)} of each label" if shots else "Few-shot files of the tasks"
    )


def _shown(cell: Cell | None, cells: Sequence[Cell]) -> Text:
    if cell is None or not cell.mean:
        return Text(figure(cell) if cell else "-")
    best = max(
        other.mean[other.metric] for other in cells if other.task == cell.task and other.mean
    )
    return Text(
        figure(cell), style="bold" if f"{cell.mean[cell.metric]:.3f}" == f"{best:.3f}" else ""
    )


def figure(cell: Cell) -> str:
    """A cell's main figure, with its deviation where there are seeds, and a mark where a training
    diverged."""
    if not cell.mean:
        return DIVERGED if cell.lost else "-"
    spread = f" ± {cell.deviation[cell.metric]:.3f}" if cell.seeds > 1 else ""
    return f"{cell.mean[cell.metric]:.3f}{spread}{MARK if cell.diverged else ''}"


def _trained(cells: Sequence[Cell | None]) -> str:
    most = max((cell.trained_parameters for cell in cells if cell), default=0)
    return count(most) if most else ""


def write(results: Comparison, single: Sequence[dict[str, Any]], folder: pathlib.Path) -> None:
    """Write ``report.html``: the tables with all figures, score against shots, the spread over
    patterns and verbalizers, settings.

    Args:
        single: the single results, of which the patterns are shown.
    """
    groups = []
    for shots in sorted({cell.shots for cell in results.cells}):
        cells = [cell for cell in results.cells if cell.shots == shots]
        names = list(dict.fromkeys(cell.task for cell in cells))
        rows = [
            (
                method,
                title,
                [
                    next(
                        (cell for cell in cells if (cell.task, cell.method) == (name, method)), None
                    )
                    for name in names
                ],
            )
            for method, title in results.titles.items()
        ]
        groups.append({"title": _title(shots), "tasks": names, "rows": rows})
    page = render(
        "compare_page.html",
        results=results,
        groups=groups,
        figure=figure,
        count=count,
        shots=_against_shots(results),
        grid=_spread(results, single),
        baselines=BASELINES,
        diverged=divergences(single),
        patterns=[one for one in single if one["seed"] == 0 and one.get("template")],
        tuned=sorted({cell.task for cell in results.cells}),
    )
    files.write_text(folder / "report.html", page)


def _against_shots(results: Comparison) -> str:
    """The main figure against the rows of each label, one panel a task; nothing where there is only
    one number of shots."""
    names = [
        name
        for name in dict.fromkeys(cell.task for cell in results.cells)
        if len({cell.shots for cell in results.cells if cell.task == name}) > 1
    ]
    if not names:
        return ""
    figure_ = Figure(figsize=(8.5, 3.2 * -(-len(names) // 3)), layout="constrained")
    for axes, name in zip(figure_.subplots(-(-len(names) // 3), 3, squeeze=False).flat, names):
        for number, (method, title) in enumerate(results.titles.items()):
            own = sorted(
                (
                    cell
                    for cell in results.cells
                    if (cell.task, cell.method) == (name, method) and cell.mean
                ),
                key=lambda cell: cell.shots,
            )
            axes.errorbar(
                [cell.shots for cell in own],
                [cell.mean[cell.metric] for cell in own],
                [cell.deviation[cell.metric] for cell in own],
                marker="o",
                ms=3,
                lw=1.2,
                capsize=2,
                color=COLOURS[number % len(COLOURS)],
                ls="-" if number < len(COLOURS) else "--",
                label=title,
            )
        axes.set(title=name, xlabel="rows of each label", xscale="log")
        ticks = sorted({cell.shots for cell in results.cells if cell.task == name})
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.minorticks_off()
    for axes in figure_.axes[len(names) :]:
        axes.remove()
    handles, labels = figure_.axes[0].get_legend_handles_labels()
    figure_.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return svg(figure_)


def _spread(results: Comparison, single: Sequence[dict[str, Any]]) -> str:
    """Every pattern with every verbalizer as a point, a line of them for each task and method: how
    much the choice matters."""
    lines = [
        (
            f"{one['task']}{', ' + str(one['shots']) + ' shots' if one['shots'] else ''}: "
            f"{results.titles[one['method']]}",
            [point["figures"][one["metric"]] for point in one["grid"]],
            one["figures"][one["metric"]],
        )
        for one in single
        if one["seed"] == 0 and one.get("figures") and len(one.get("grid", ())) > 1
    ]
    if not lines:
        return ""
    figure_ = Figure(figsize=(8.5, 0.8 + 0.26 * len(lines)), layout="constrained")
    axes = figure_.subplots()
    for at, (_, points, chosen) in enumerate(lines):
        axes.plot(
            [min(points), max(points)],
            [at, at],
            color="#c8ced6",
            lw=4,
            solid_capstyle="round",
            zorder=1,
        )
        axes.plot(points, [at] * len(points), "o", color=COLOURS[2], ms=4, alpha=0.7)
        axes.plot(chosen, at, "|", color="black", ms=12)
    axes.set_yticks(range(len(lines)), [name for name, _, _ in lines])
    axes.invert_yaxis()
    axes.set_xlabel("main figure on test")
    return svg(figure_)
