"""A comparison for people: a table for each number of shots, and one page with plots."""

import pathlib
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from rich.text import Text

from ptune.base import files
from ptune.metrics.labels import BASELINES, mean
from ptune.reports.pages import design
from ptune.reports.pages.design import (
    COLOURS,
    DIVERGED,
    INK,
    MARK,
    MARKED,
    Dot,
    DotRow,
    Score,
    count,
    line_style,
)
from ptune.reports.schemas import Cell, Comparison
from ptune.reports.trial_results import ComparedResult, divergences

BASELINES_NOTE = "Above the line: baselines, without prompts, on the same rows."


def tables(results: Comparison) -> list[Table]:
    """For each number of shots, methods by as many tasks as 80 columns hold: each task's main
    figure, with its deviation over seeds."""
    tasks_in_table = 2 if any(cell.seeds > 1 for cell in results.cells) else 3
    tables = []
    for shots in _numbers_of_shots(results):
        tasks = _tasks(_cells_with(results, shots))
        for start in range(0, len(tasks), tasks_in_table):
            tables.append(_table(results, shots, tasks[start : start + tasks_in_table]))
    return tables


def _numbers_of_shots(results: Comparison) -> list[int]:
    return sorted({cell.shots for cell in results.cells})


def _cells_with(results: Comparison, shots: int) -> list[Cell]:
    return [cell for cell in results.cells if cell.shots == shots]


def _tasks(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.task for cell in cells))


def _table(results: Comparison, shots: int, tasks: Sequence[str]) -> Table:
    cells = [cell for cell in _cells_with(results, shots) if cell.task in tasks]
    table = Table(title=_title(shots), box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for task in tasks:
        metric = next(cell.metric for cell in cells if cell.task == task)
        table.add_column(f"{task}\n{metric}", justify="right", no_wrap=True)
    table.add_column("trained", justify="right", no_wrap=True)
    last_baseline = [name for name in results.titles if name in BASELINES][-1:]
    for method, title in results.titles.items():
        row = [_cell(cells, task, method) for task in tasks]
        if any(row):
            table.add_row(
                Text(title, style="italic" if method in BASELINES else ""),
                *[_shown(cell, cells) for cell in row],
                _trained(row),
                end_section=last_baseline == [method],
            )
    table.caption = _caption(cells)
    return table


def _caption(cells: Sequence[Cell]) -> str | None:
    notes = [BASELINES_NOTE] if any(cell.baseline for cell in cells) else []
    intervals = [cell.intervals[cell.metric] for cell in cells if cell.metric in cell.intervals]
    if intervals:
        widest = max((high - low) / 2 for low, high in intervals)
        notes.append(f"With other test rows a figure may be up to {widest:.3f} off (95 %).")
    notes += [MARKED] if any(cell.diverged for cell in cells) else []
    return " ".join(notes) or None


def _cell(cells: Sequence[Cell], task: str, method: str) -> Cell | None:
    return next((cell for cell in cells if (cell.task, cell.method) == (task, method)), None)


def _title(shots: int) -> str:
    return (
        f"{shots} row{'s' * (shots > 1)} of each label" if shots else "Few-shot files of the tasks"
    )


def _shown(cell: Cell | None, cells: Sequence[Cell]) -> Text:
    if cell is None:
        return Text("-")
    return Text(figure(cell), style="bold" if is_near_best(cell, cells) else "")


def is_near_best(cell: Cell, cells: Sequence[Cell]) -> bool:
    """Whether a cell is the best of its task or within one deviation of it.

    Args:
        cells: all cells with the same number of shots, this one among them.
    """
    rivals = [other for other in cells if other.task == cell.task]
    return design.near_best([_score(rival, "") for rival in rivals])[rivals.index(cell)]


def _score(cell: Cell, title: str) -> Score | None:
    """A cell's main figure, or None where it has no figures."""
    if cell.metric not in cell.mean:
        return None
    deviation = cell.deviation.get(cell.metric, 0.0)
    return Score(title, cell.mean[cell.metric], deviation, cell.seeds)


def figure(cell: Cell) -> str:
    """A cell's main figure, with its deviation where there are seeds, and a mark where a training
    diverged."""
    score = _score(cell, "")
    if score is None:
        return DIVERGED if cell.lost else "-"
    return score.text() + (MARK if cell.diverged else "")


def _trained(cells: Sequence[Cell | None]) -> str:
    parameters = max((cell.trained_parameters for cell in cells if cell), default=0)
    return count(parameters) if parameters else ""


def write(results: Comparison, single: Sequence[ComparedResult], folder: pathlib.Path) -> None:
    """Write ``report.html``: which method is best, the tables with all figures, score against
    shots, the spread over patterns and verbalizers, settings.

    Args:
        single: the single results, of which the patterns are shown.
    """
    groups = [_group(results, shots) for shots in _numbers_of_shots(results)]
    page = design.render(
        "compare_page.html",
        results=results,
        groups=groups,
        figure=figure,
        count=count,
        interval=design.interval,
        shots=_against_shots(results),
        grid=_pattern_spread(results, single),
        baselines=BASELINES,
        diverged=divergences(single),
        marked=MARKED if any(cell.diverged for cell in results.cells) else "",
        patterns=[result for result in single if result.seed == 0 and result.template],
        tasks=sorted({cell.task for cell in results.cells}),
    )
    files.write_text(folder / "report.html", page)


def _group(results: Comparison, shots: int) -> dict[str, Any]:
    """What the page shows of one number of shots."""
    cells = _cells_with(results, shots)
    tasks = _tasks(cells)
    rows = []
    for method, title in results.titles.items():
        row = [_cell(cells, task, method) for task in tasks]
        if any(row):
            rows.append(
                (method, title, [(c, c is not None and is_near_best(c, cells)) for c in row])
            )
    metrics = {task: next(c.metric for c in cells if c.task == task) for task in tasks}
    return {
        "title": _title(shots),
        "tasks": tasks,
        "metrics": metrics,
        "rows": rows,
        "answers": _answers(results, cells, metrics),
        "dots": {task: _dots(results, cells, task) for task in tasks},
    }


def _answers(
    results: Comparison, cells: Sequence[Cell], metrics: dict[str, str]
) -> list[tuple[str, design.Answer]]:
    """For each task which method with prompts is best, by how much, and how far the best baseline
    is; of several tasks first the mean over them, of the methods that did all."""
    answers = []
    if len(metrics) > 1:
        methods, baselines = _mean_scores(results, cells, list(metrics))
        answer = design.answer(methods, "a mean of", baseline=_best(baselines))
        answers += [(f"over {len(metrics)} tasks", answer)] if answer else []
    for task, metric in metrics.items():
        of_task = [cell for cell in cells if cell.task == task]
        methods = _scores(results, of_task, baseline=False)
        baselines = _scores(results, of_task, baseline=True)
        answer = design.answer(methods, metric, baseline=_best(baselines))
        answers += [(task, answer)] if answer else []
    return answers


def _scores(results: Comparison, cells: Sequence[Cell], baseline: bool) -> list[Score]:
    scores = [
        _score(cell, results.titles[cell.method]) for cell in cells if cell.baseline == baseline
    ]
    return [score for score in scores if score is not None]


def _mean_scores(
    results: Comparison, cells: Sequence[Cell], tasks: Sequence[str]
) -> tuple[list[Score], list[Score]]:
    """The mean over tasks of methods, and of baselines, that have a figure for each task."""
    methods: list[Score] = []
    baselines: list[Score] = []
    for method, title in results.titles.items():
        row = [_cell(cells, task, method) for task in tasks]
        scores = [score for cell in row if cell and (score := _score(cell, title))]
        if len(scores) == len(tasks):
            group = baselines if method in BASELINES else methods
            group.append(Score(title, mean([score.mean for score in scores])))
    return methods, baselines


def _best(scores: Sequence[Score]) -> Score | None:
    return max(scores, key=lambda score: score.mean, default=None)


def _dots(results: Comparison, cells: Sequence[Cell], task: str) -> design.DotPlot | None:
    """A dot for each method on one task; those of baselines are rings."""
    rows = []
    for cell in cells:
        score = _score(cell, results.titles[cell.method])
        if cell.task == task and score is not None:
            dot = Dot(score.mean, score.deviation, 0 if cell.baseline else 2)
            rows.append(DotRow(score.label, [dot], figure(cell), is_near_best(cell, cells)))
    metric = next(cell.metric for cell in cells if cell.task == task)
    return design.dot_plot(rows, metric)


def _against_shots(results: Comparison) -> str:
    """The main figure against the rows of each label, one panel a task; "" where there is only one
    number of shots."""
    tasks = [task for task in _tasks(results.cells) if len(_shots_of(results, task)) > 1]
    if not tasks:
        return ""
    panels_in_row = min(3, len(tasks))
    lines = -(-len(tasks) // panels_in_row)
    drawing = Figure(figsize=(8.5, 3.2 * lines), layout="constrained")
    panels = drawing.subplots(lines, panels_in_row, squeeze=False)
    for axes, task in zip(panels.flat, tasks):
        _draw_shots(axes, results, task)
    for axes in drawing.axes[len(tasks) :]:
        axes.remove()
    handles, labels = drawing.axes[0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return design.svg(drawing, f"Main figure by rows of each label: {', '.join(tasks)}")


def _shots_of(results: Comparison, task: str) -> list[int]:
    return sorted({cell.shots for cell in results.cells if cell.task == task})


def _draw_shots(axes: Axes, results: Comparison, task: str) -> None:
    """One task's main figure against the rows of each label, a line for each method."""
    for number, (method, title) in enumerate(results.titles.items()):
        cells = [cell for cell in results.cells if (cell.task, cell.method) == (task, method)]
        cells = sorted((cell for cell in cells if cell.mean), key=lambda cell: cell.shots)
        axes.errorbar(
            [cell.shots for cell in cells],
            [cell.mean[cell.metric] for cell in cells],
            [cell.deviation[cell.metric] for cell in cells],
            ms=4,
            lw=1.2,
            capsize=2,
            label=title,
            **line_style(number),
        )
    axes.set(title=task, xlabel="rows of each label", xscale="log")
    ticks = _shots_of(results, task)
    axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axes.minorticks_off()


def _pattern_spread(results: Comparison, single: Sequence[ComparedResult]) -> str:
    """Every pattern with every verbalizer as a point, a line of them for each task and method: how
    much the choice matters."""
    first_seed = [
        result for result in single if result.seed == 0 and result.figures and len(result.grid) > 1
    ]
    if not first_seed:
        return ""
    drawing = Figure(figsize=(8.5, 0.8 + 0.26 * len(first_seed)), layout="constrained")
    axes = drawing.subplots()
    for height, result in enumerate(first_seed):
        points = [point.figures[result.metric] for point in result.grid]
        chosen = result.figures[result.metric]
        ends, colour = [min(points), max(points)], COLOURS[0]
        axes.plot(ends, [height] * 2, color=colour, lw=2, alpha=0.5, zorder=1)
        axes.plot(points, [height] * len(points), "o", color=COLOURS[2], ms=4, alpha=0.7)
        axes.plot(chosen, height, "|", color=INK, ms=12)
    axes.set_yticks(
        range(len(first_seed)), [_pattern_label(results, result) for result in first_seed]
    )
    axes.invert_yaxis()
    axes.set_xlabel("main figure on test")
    return design.svg(drawing, "Main figure of every pattern with every verbalizer, by method")


def _pattern_label(results: Comparison, result: ComparedResult) -> str:
    shots = f", {result.shots} shots" if result.shots else ""
    return f"{result.task}{shots}: {results.titles[result.method]}"
