"""What an LM knows, for people: a table in the terminal, and one HTML page with plots."""

import pathlib
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from rich.text import Text

from ptune.base import files
from ptune.metrics.labels import mean
from ptune.reports.pages import design
from ptune.reports.pages.design import DIVERGED, MARK, MARKED, Dot, DotRow, Score, count
from ptune.reports.schemas import MethodResult, RelationResult, Results
from ptune.reports.trial_results import FactsResult, divergences

MAIN = "p@1"
Result = MethodResult | RelationResult


def table(results: Results, labels: dict[str, str]) -> Table:
    """P@1 by relation and method, their means, and how many parameters each method trained.

    Args:
        labels: for each relation the name that is shown.
    """
    methods = list(results.methods.values())
    table = Table(title="P@1 on test rows", box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("relation", no_wrap=True, max_width=24)  # the table fits 80 columns
    table.add_column("rows", justify="right", width=4)
    table.add_column("majority", justify="right", width=8)
    for method in methods:
        table.add_column(method.title, justify="right", width=_column_width(method))
    for name, label in labels.items():
        relations = [method.relations.get(name) for method in methods]
        table.add_row(
            f"{name} {label}" if name != label else name,
            next((str(relation.rows) for relation in relations if relation), ""),
            f"{results.majority[name]:.3f}",
            *_cells(relations, methods),
        )
    table.add_section()
    majority = f"{mean(list(results.majority.values())):.3f}"
    table.add_row("mean of relations", "", majority, *_cells(methods, methods))
    for title, name in (("P@10", "p@10"), ("MRR", "mrr"), ("P@1, filtered", "filtered p@1")):
        table.add_row(title, "", "", *[shown(_value(method, name)) for method in methods])
    table.add_row("P@1, mean of rows", "", "", *[shown(m.micro.get(MAIN)) for m in methods])
    table.add_row("parameters trained", "", "", *[count(m.trained_parameters) for m in methods])
    table.add_row("parameters kept", "", "", *[count(m.kept_parameters) for m in methods])
    table.caption = MARKED if any(method.diverged for method in methods) else None
    return table


def _column_width(method: MethodResult) -> int:
    """How many characters a method's column needs."""
    results: list[Result] = [method, *method.relations.values()]
    texts = [*method.title.split(), "0.000 ± 0.000" if method.seeds > 1 else "0.0000"]
    if any(result.lost for result in results):
        texts.append(DIVERGED)
    return max(map(len, texts)) + len(MARK) * any(result.diverged for result in results)


def _cells(results: Sequence[Result | None], methods: Sequence[MethodResult]) -> list[Text]:
    """A cell for each method; the best and what is within one deviation of it are bold."""
    best = _near_best(results, methods)
    return [
        Text(figure(result, method.seeds) if result else "-", "bold" if is_best else "")
        for result, method, is_best in zip(results, methods, best)
    ]


def _near_best(results: Sequence[Result | None], methods: Sequence[MethodResult]) -> list[bool]:
    return design.near_best(
        [
            _score(result, method.title, method.seeds) if result else None
            for result, method in zip(results, methods)
        ]
    )


def _score(result: Result, title: str, seeds: int) -> Score | None:
    """The main figure of a method or a relation, or None where every training was lost."""
    value = _value(result)
    return None if value is None else Score(title, value, result.deviation.get(MAIN, 0.0), seeds)


def _value(result: Result, name: str = MAIN) -> float | None:
    """A figure, or None where every training was lost."""
    value = (result.model_extra or {}).get(name)
    return None if value is None else float(value)


def shown(value: float | None) -> str:
    """A figure as a cell of a table shows it."""
    return "-" if value is None else f"{value:.3f}"


def figure(result: Result, seeds: int) -> str:
    """The main figure of a relation or a method, with its deviation where there are seeds; marked
    where training diverged."""
    score = _score(result, "", seeds)
    if score is None:
        return DIVERGED if result.lost else "-"
    return score.text() + (MARK if result.diverged else "")


def wordings_line(results: Results) -> str:
    """The manual prompt in the wording that is best on dev, as a mean over relations, and how far
    the wordings spread."""
    if not results.wordings:
        return ""
    best = [
        max(wordings, key=lambda wording: wording.dev).test
        for wordings in results.wordings.values()
    ]
    scores = [[wording.test for wording in wordings] for wordings in results.wordings.values()]
    spread = mean([max(values) - min(values) for values in scores])
    return (
        f"Manual prompt in the wording that is best on dev, of {max(map(len, scores))}: "
        f"{mean(best):.3f}; from the worst wording to the best it moves by {spread:.3f} on average."
    )


def write(
    results: Results,
    *,
    single: Sequence[FactsResult],
    labels: dict[str, str],
    notes: Sequence[str],
    folder: pathlib.Path,
) -> None:
    """Write ``report.html``: which method is best, methods side by side, relations ordered by what
    was gained, learning curves, examples, nearest words, settings.

    Args:
        single: the single results of trials, for curves and examples.
        labels: for each relation the name that is shown.
        notes: what a reader must know beside the figures.
    """
    first_seed = [result for result in single if result.seed == 0]
    methods = list(results.methods.values())
    gains = _gains(results)
    order = sorted(labels, key=lambda name: -gains[name] if name in gains else float("inf"))
    page = design.render(
        "probe_page.html",
        results=results,
        answer=_answer(results),
        gained=_gained(results, gains),
        method_dots=_method_dots(results),
        relation_dots=_relation_dots(results, {name: labels[name] for name in order}),
        order=order,
        gains=gains,
        labels=labels,
        notes=[*notes, wordings_line(results)],
        curves=_curves(first_seed, results),
        examples=_examples(first_seed),
        nearest=[result for result in first_seed if result.nearest],
        of=_value,
        mean=mean,
        main=MAIN,
        figure=figure,
        shown=shown,
        best=_near_best(methods, methods),
        best_in={
            name: _near_best([m.relations.get(name) for m in methods], methods) for name in labels
        },
        diverged=divergences(single),
        marked=MARKED if any(method.diverged for method in methods) else "",
        rows=_rows(results),
    )
    files.write_text(folder / "report.html", page)


def _scores(results: Results) -> list[Score]:
    scores = [_score(method, method.title, method.seeds) for method in results.methods.values()]
    return [score for score in scores if score is not None]


def _majority(results: Results) -> Score:
    return Score("Majority answer", mean(list(results.majority.values())))


def _answer(results: Results) -> design.Answer | None:
    return design.answer(_scores(results), "P@1", baseline=_majority(results))


def _gains(results: Results) -> dict[str, float]:
    """For each relation how far the best method is above the first one (the manual prompt, where
    that was run), or above the majority answer where only one method was run."""
    first, *others = results.methods.values()
    gains = {}
    for name, majority in results.majority.items():
        start = _value(first.relations[name]) if name in first.relations else None
        values = [_value(method.relations[name]) for method in others if name in method.relations]
        if not others:
            values, start = [start], majority
        present = [value for value in values if value is not None]
        if present and start is not None:
            gains[name] = max(present) - start
    return gains


def _gained(results: Results, gains: dict[str, float]) -> str:
    """On how many relations the methods gain, and against what."""
    if not gains:
        return ""
    first, *others = results.methods.values()
    start = first.title if others else "the majority answer"
    best = "the best method" if others else first.title
    higher = sum(gain > 0 for gain in gains.values())
    return f"On {higher} of {len(gains)} relations {best} is above {start}."


def _method_dots(results: Results) -> design.DotPlot | None:
    methods = list(results.methods.values())
    majority = _majority(results)
    rows = [DotRow(majority.label, [Dot(majority.mean, series=0)], majority.text())]
    for number, (method, best) in enumerate(zip(methods, _near_best(methods, methods)), 1):
        dots = _dot(method, method, number)
        rows.append(DotRow(method.title, dots, figure(method, method.seeds), best))
    return design.dot_plot(rows, "P@1, mean of relations")


def _relation_dots(results: Results, labels: dict[str, str]) -> design.DotPlot | None:
    """A line for each relation, with a dot for each method and one for the majority answer."""
    methods = list(results.methods.values())
    rows = []
    for name, label in labels.items():
        dots = [Dot(results.majority[name], series=0, title="Majority answer")]
        for number, method in enumerate(methods, 1):
            if name in method.relations:
                dots += _dot(method.relations[name], method, number)
        rows.append(DotRow(f"{label} ({name})" if name != label else name, dots))
    legend = [(0, "Majority answer"), *enumerate((method.title for method in methods), 1)]
    return design.dot_plot(rows, "P@1", legend)


def _dot(result: Result, method: MethodResult, number: int) -> list[Dot]:
    score = _score(result, method.title, method.seeds)
    return [Dot(score.mean, score.deviation, number, method.title)] if score else []


def _rows(results: Results) -> dict[str, int]:
    """How many test rows each relation has."""
    return {
        name: relation.rows
        for method in results.methods.values()
        for name, relation in method.relations.items()
    }


def _curves(single: Sequence[FactsResult], results: Results) -> str:
    """Dev score over epochs, one panel a trained method, a line a relation."""
    trained: dict[str, list[FactsResult]] = {}
    for name in results.methods:
        histories = [result for result in single if result.method == name and result.history]
        if histories:
            trained[name] = histories
    if not trained:
        return ""
    drawing = Figure(figsize=(8.5, 2.8), layout="constrained")
    panels = drawing.subplots(1, len(trained), sharey=True, squeeze=False)[0]
    for axes, (name, histories) in zip(panels, trained.items()):
        for number, result in enumerate(histories):
            axes.plot(
                [evaluation.epoch for evaluation in result.history],
                [evaluation.dev for evaluation in result.history],
                color=design.COLOURS[number % len(design.COLOURS)],
                lw=1,
                alpha=0.7,
            )
            if result.best:
                axes.plot(result.best.epoch, result.best.dev, ".", color=design.INK, ms=4)
        axes.set(title=results.methods[name].title, xlabel="epochs")
    drawing.axes[0].set_ylabel("P@1 on dev")
    titles = ", ".join(results.methods[name].title for name in trained)
    return design.svg(drawing, f"P@1 on dev rows over epochs: {titles}")


def _examples(single: Sequence[FactsResult]) -> list[dict[str, Any]]:
    """For every relation the questions that are shown, with the first answers of each method."""
    by_relation: dict[str, dict[str, dict[str, Any]]] = {}
    for result in single:
        questions = by_relation.setdefault(result.problem, {})
        for example in result.examples:
            row = ", ".join(map(str, example.row.values()))
            question = {"row": row, "right": example.right, "answers": {}}
            questions.setdefault(row, question)["answers"][result.method] = example.answers
    return [
        {"problem": problem, "rows": list(questions.values())}
        for problem, questions in by_relation.items()
    ]
