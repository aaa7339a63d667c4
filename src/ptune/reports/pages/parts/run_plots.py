"""The plots on the page of trained runs."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ptune.metrics.labels import deviation, mean
from ptune.reports.pages.design import (
    COLOURS,
    INK,
    Dot,
    DotPlot,
    DotRow,
    dot_plot,
    line_style,
    near_best,
    svg,
)
from ptune.reports.pages.parts.run_columns import (
    LOWER_IS_BETTER,
    Column,
    baselines_of,
    columns_of,
    digits_of,
    gathered,
    labels_of,
    main_figure,
    title_of,
)
from ptune.reports.schemas import Run

MINUS_LOSS = Run.model_fields["dev_score"].default


def figure_dots(columns: Sequence[Column]) -> DotPlot | None:
    """The main figure of every column with its deviation; a title has a colour."""
    name = main_figure(columns)
    titles = list(dict.fromkeys(column.runs[0].title for column in columns))
    scores = [column.score(name) for column in columns]
    best = near_best(scores, digits_of(name), name in LOWER_IS_BETTER)
    rows = []
    for column, score, is_best in zip(columns, scores, best):
        if score is not None:
            series = 1 + titles.index(column.runs[0].title)
            dots = [Dot(score.mean, score.deviation, series)]
            text = score.text(digits_of(name))
            rows.append(DotRow(column.label, dots, text, is_best and len(columns) > 1))
    rows += _baseline_rows(columns) if name else []
    return dot_plot(rows, title_of(name))


def _baseline_rows(columns: Sequence[Column]) -> list[DotRow]:
    """A ring for each baseline: the best that it reached on the rows of any column."""
    rows = []
    for title, scores in baselines_of(columns).items():
        best = max((score for score in scores if score), key=lambda score: score.mean)
        dot = Dot(best.mean, best.deviation, series=0)
        rows.append(DotRow(f"baseline: {title}", [dot], best.text()))
    return rows


def low_data_plot(runs: Sequence[Run]) -> str:
    """An SVG of the main figure over the number of training rows, a line a method, with the
    deviation over seeds; "" where that number is one and the same."""
    columns = columns_of(runs)
    name = main_figure(columns)
    scored = [column for column in columns if column.values(name)]
    rows = sorted({column.rows for column in scored})
    if len(rows) < 2:
        return ""
    drawing = Figure(figsize=(8.5, 3.4), layout="constrained")
    axes = drawing.subplots()
    lines = gathered(
        scored,
        lambda column: [(run.name, run.title, run.lm, run.template) for run in column.runs[:1]],
        lambda column: column.rows,
    )
    labels = labels_of([[run for column in line for run in column.runs] for line in lines])
    for number, (line, label) in enumerate(zip(lines, labels), 1):
        _draw_line(axes, line, name=name, label=textwrap.fill(label, 44), number=number)
    axes.set_xscale("symlog", linthresh=next(number for number in rows if number))
    axes.set_xticks(rows, [f"{number:,}" for number in rows], minor=False)
    axes.minorticks_off()
    axes.set(xlabel="training rows", ylabel=title_of(name))
    drawing.legend(loc="outside upper center", ncols=3, frameon=False)
    return svg(drawing, f"{title_of(name)} by the number of training rows, a line for each method")


def _draw_line(axes: Axes, line: Sequence[Column], *, name: str, label: str, number: int) -> None:
    """A method's figure against the number of training rows, with its deviation over seeds."""
    columns = sorted(line, key=lambda column: column.rows)
    axes.errorbar(
        [column.rows for column in columns],
        [mean(column.values(name)) for column in columns],
        [deviation(column.values(name)) for column in columns],
        lw=1.2,
        ms=4,
        capsize=3,
        label=label,
        **line_style(number),
    )


def learning_curves(columns: Sequence[Column]) -> str:
    """An SVG of the losses and the dev scores over epochs, a line for each prompt of each run; ""
    where nothing was trained."""
    numbered = [
        (number, column)
        for number, column in enumerate(columns, 1)
        if any(history for run in column.runs for history in run.history.values())
    ]
    if not numbered:
        return ""
    runs = [run for _, column in numbered for run in column.runs]
    unit = ", nats a token" if all(run.answer_tokens for run in runs) else ""
    panels = [("loss", f"training loss{unit}", ""), ("dev_loss", f"dev loss{unit}", "")]
    for score in dict.fromkeys(run.dev_score for run in runs if run.dev_score != MINUS_LOSS):
        panels.append(("dev", f"{title_of(score)} on dev", score))
    drawing = Figure(figsize=(8.5, 3), layout="constrained")
    for axes, (key, title, score) in zip(drawing.subplots(1, len(panels)), panels):
        for number, column in numbered:
            for run in column.runs:
                if score in ("", run.dev_score):
                    shown = _by_token(run) if unit else run
                    _draw_history(axes, shown, key, number)
        axes.set(title=title, xlabel="epochs")
    drawing.legend(
        [Line2D([], [], color=_colour(number)) for number, _ in numbered],
        [textwrap.fill(column.label, 44) for _, column in numbered],
        loc="outside upper center",
        ncols=3,
        frameon=False,
    )
    return svg(drawing, f"Over epochs: {', '.join(title for _, title, _ in panels)}")


def _by_token(run: Run) -> Run:
    """A run whose losses are not sums over the tokens of a text, but means a token."""

    def by_token(prompt: str, evaluation: dict[str, float]) -> dict[str, float]:
        tokens = run.answer_tokens.get(prompt, {})
        counts = {"loss": tokens.get("train", 1.0), "dev_loss": tokens.get("dev", 1.0)}
        return {name: value / counts.get(name, 1.0) for name, value in evaluation.items()}

    history = {
        prompt: [by_token(prompt, evaluation) for evaluation in evaluations]
        for prompt, evaluations in run.history.items()
    }
    best = {prompt: by_token(prompt, evaluation) for prompt, evaluation in run.best.items()}
    return run.model_copy(update={"history": history, "best": best})


def _draw_history(axes: Axes, run: Run, key: str, number: int) -> None:
    """One value of each prompt's history, with a point at the state that was kept."""
    for prompt, history in run.history.items():
        line: dict[str, Any] = {"lw": 1, "alpha": 0.8, "color": _colour(number)}
        _draw_evaluations(axes, history, key, line)
        _draw_evaluations(axes, [run.best.get(prompt, {})], key, {"color": INK, "zorder": 3})


def _draw_evaluations(
    axes: Axes, evaluations: Sequence[dict[str, float]], key: str, style: dict[str, Any]
) -> None:
    epochs = [evaluation.get("epoch", math.nan) for evaluation in evaluations]
    values = [evaluation.get(key, math.nan) for evaluation in evaluations]
    axes.plot(epochs, values, ".-", ms=4, **style)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
