"""Single results of a comparison gathered over seeds, and what they say beside the baselines."""

from collections.abc import Mapping, Sequence
from typing import Any

from ptune.metrics.intervals import Interval
from ptune.metrics.labels import BASELINES, deviation, mean
from ptune.reports.schemas import Cell, Comparison, versions
from ptune.reports.trial_results import ComparedResult, lost_trainings
from ptune.tasks.judging import baselines

STRONG_METHODS = ("contrastive", "head", "manual+fine-tune", "p-tuning+lm")
"""Advised where a baseline is ahead, in the order of docs/figures.md's figures on few rows."""


def summarise(
    results: Sequence[ComparedResult], titles: Mapping[str, str], settings: Mapping[str, Any]
) -> Comparison:
    """The mean and the deviation of every figure over seeds, for each task, number of shots and
    method.

    Args:
        titles: the compared methods in order, with their titles.
    """
    groups: dict[tuple[str, int, str], list[ComparedResult]] = {}
    for result in results:
        groups.setdefault((result.task, result.shots, result.method), []).append(result)
    return Comparison(
        cells=[_cell(group) for group in groups.values()],
        titles=dict(titles),
        settings=dict(settings),
        versions=versions(),
    )


def _cell(results: Sequence[ComparedResult]) -> Cell:
    """The results of all seeds of one task, number of shots and method."""
    first = results[0]
    with_figures = [result for result in results if result.figures]
    names = with_figures[0].figures if with_figures else ()
    values = {name: [result.figures[name] for result in with_figures] for name in names}
    return Cell(
        task=first.task,
        shots=first.shots,
        method=first.method,
        baseline=first.method in BASELINES,
        metric=first.metric,
        seeds=len(results),
        rows=first.rows,
        mean={name: mean(seeds) for name, seeds in values.items()},
        deviation={name: deviation(seeds) for name, seeds in values.items()},
        by_seed=values,
        intervals=_intervals(with_figures),
        grid=_grid(with_figures),
        trained_parameters=max((result.trained for result in with_figures), default=0),
        kept_parameters=max((result.kept for result in with_figures), default=0),
        steps=[result.steps for result in with_figures if result.steps is not None],
        train=next((result.train for result in with_figures if result.train), {}),
        seconds=mean([result.seconds for result in results]),
        impossible=first.impossible,
        **lost_trainings(results),
    )


def _intervals(results: Sequence[ComparedResult]) -> dict[str, Interval]:
    """The ends of each figure's interval over test rows, as means over seeds."""
    names = results[0].intervals if results else ()
    return {
        name: (
            mean([result.intervals[name][0] for result in results if name in result.intervals]),
            mean([result.intervals[name][1] for result in results if name in result.intervals]),
        )
        for name in names
    }


def _grid(results: Sequence[ComparedResult]) -> dict[str, float]:
    """How far the main figure differs between the patterns and words, as means over seeds."""
    grids = [
        [point.figures[result.metric] for point in result.grid]
        for result in results
        if len(result.grid) > 1
    ]
    if not grids:
        return {}
    return {
        "worst": mean([min(figures) for figures in grids]),
        "best": mean([max(figures) for figures in grids]),
        "deviation": mean([deviation(figures) for figures in grids]),
    }


def behind_baselines(comparison: Comparison) -> list[str]:
    """A sentence for each task and number of shots of which a method is behind a baseline, with the
    method to try."""
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in comparison.cells:
        groups.setdefault((cell.task, cell.shots), []).append(cell)
    sentences = [_behind_baseline(cells) for cells in groups.values()]
    return [sentence for sentence in sentences if sentence]


def _behind_baseline(cells: Sequence[Cell]) -> str | None:
    """The sentence of one task and number of shots; None where no method is behind a baseline."""
    scores = {cell.method: cell.mean[cell.metric] for cell in cells if cell.mean}
    baseline_scores = {
        cell.method: scores[cell.method] for cell in cells if cell.baseline and cell.mean
    }
    method_scores = {
        cell.method: scores[cell.method] for cell in cells if not cell.baseline and cell.mean
    }
    behind = [
        name for name, score in method_scores.items() if baselines.behind(score, baseline_scores)
    ]
    if not behind:
        return None
    baseline, score = baselines.behind(min(method_scores.values()), baseline_scores) or ("", 0.0)
    best = max(method_scores, key=lambda name: method_scores[name])
    if method_scores[best] >= score:
        advice = best
    else:
        tried = {cell.method for cell in cells}
        untried = (name for name in STRONG_METHODS if name not in tried)
        advice = next(untried, "more steps or rows")
    shots = f", {cells[0].shots} shots" if cells[0].shots else ""
    listed = ", ".join(f"{name} ({method_scores[name]:.3f})" for name in behind)
    return (
        f"{cells[0].task}{shots}: behind a baseline, {BASELINES[baseline]} ({score:.3f}), are "
        f"{listed}; try {advice}."
    )
