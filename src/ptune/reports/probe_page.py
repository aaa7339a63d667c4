"""Results for people: a table in the terminal, and one HTML page with plots."""

import io
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import jinja2
import matplotlib
from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from rich.text import Text

from ptune.base import files
from ptune.metrics.labels import mean
from ptune.reports.schemas import Results

COLOURS = ("#9aa5b1", "#d9480f", "#4c78a8", "#72b7b2", "#b279a2", "#54a24b")
MAIN = "p@1"
DIVERGED = "diverged"  # in place of a figure, where no training had a finite state to keep
MARK = " †"  # behind a figure, where a training diverged
MARKED = (
    f"{MARK.strip()}: in some of the seeds or relations training diverged; the figure is of what "
    "was kept before "
    "that, and without what had nothing to keep."
)
matplotlib.rcParams |= {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,
}  # titles are text, dollars and all


def table(results: Results, labels: dict[str, str]) -> Table:
    """P@1 by relation and method, their means, and how many parameters each method trained."""
    drawn = Table(title="P@1 on test rows", box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    drawn.add_column("relation", no_wrap=True, max_width=24)  # the table fits 80 columns
    drawn.add_column("rows", justify="right", width=4)
    drawn.add_column("majority", justify="right", width=8)
    for method in results.methods.values():
        longest = max(
            map(len, [*method.title.split(), "0.000 ± 0.000" if method.seeds > 1 else "0.0000"])
        )
        marks: list[Any] = [method, *method.relations.values()]
        longest = max(longest, len(DIVERGED)) if any(own.lost for own in marks) else longest
        drawn.add_column(
            method.title,
            justify="right",
            width=longest + len(MARK) * any(own.diverged for own in marks),
        )
    for name, label in labels.items():
        own = [method.relations.get(name) for method in results.methods.values()]
        rows = next((str(r.rows) for r in own if r), "")
        best = _best(own)
        cells = [
            _cell(r, method.seeds, best) if r else "-"
            for r, method in zip(own, results.methods.values())
        ]
        drawn.add_row(
            f"{name} {label}" if name != label else name,
            rows,
            f"{results.majority[name]:.3f}",
            *cells,
        )
    drawn.add_section()
    methods = list(results.methods.values())
    drawn.add_row(
        "mean of relations",
        "",
        f"{mean(list(results.majority.values())):.3f}",
        *[_cell(m, m.seeds, _best(methods)) for m in methods],
    )
    for title, figures in (("P@10", "p@10"), ("MRR", "mrr"), ("P@1, filtered", "filtered p@1")):
        drawn.add_row(title, "", "", *[shown(_of(m, figures)) for m in methods])
    drawn.add_row("P@1, mean of rows", "", "", *[shown(m.micro.get(MAIN)) for m in methods])
    drawn.add_row("parameters trained", "", "", *[count(m.trained_parameters) for m in methods])
    drawn.add_row("parameters kept", "", "", *[count(m.kept_parameters) for m in methods])
    drawn.caption = MARKED if any(method.diverged for method in methods) else None
    return drawn


def count(parameters: int) -> str:
    """A number of parameters, in millions where there are so many."""
    return f"{parameters / 1e6:.1f} M" if parameters >= 1e6 else f"{parameters:,}"


def _of(figures: Any, name: str = MAIN) -> float | None:
    """A figure, or None where every training was lost."""
    value = figures.model_extra.get(name)
    return None if value is None else float(value)


def shown(value: float | None) -> str:
    """A figure as a cell of a table shows it."""
    return "-" if value is None else f"{value:.3f}"


def _best(results: Sequence[Any]) -> str:
    """The best main figure of some results, as it is shown."""
    values = [value for result in results if result and (value := _of(result)) is not None]
    return shown(max(values)) if values else ""


def figure(result: Any, seeds: int) -> str:
    """The main figure of a relation or a method, with its deviation where there are seeds; marked
    where training diverged."""
    value = _of(result)
    if value is None:
        return DIVERGED if result.lost else "-"
    spread = f" ± {result.deviation[MAIN]:.3f}" if seeds > 1 else ""
    return f"{value:.3f}{spread}{MARK if result.diverged else ''}"


def _cell(result: Any, seeds: int, best: str) -> Text:
    text = figure(result, seeds)
    return Text(text, "bold" if shown(_of(result)) == best else "")


def divergences(single: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence for every single result whose training diverged."""
    kept = {
        True: "the figures are those of its best state before that",
        False: "it had no finite state to keep, and has no figures",
    }
    return [
        f"{own.get('problem') or own.get('task')}, {own['method']}, seed {own['seed']}: the "
        f"training diverged; {kept[bool(own.get('figures'))]}."
        for own in single
        if own.get("diverged")
    ]


def wordings_line(results: Results) -> str:
    """The manual prompt in the wording that is best on dev, as a mean over relations, and how far
    the wordings spread."""
    if not results.wordings:
        return ""
    best = mean([max(own, key=lambda w: w["dev"])["test"] for own in results.wordings.values()])
    spread = mean(
        [
            max(w["test"] for w in own) - min(w["test"] for w in own)
            for own in results.wordings.values()
        ]
    )
    return (
        "Manual prompt in the wording that is best on dev, of "
        f"{max(map(len, results.wordings.values()))}: {best:.3f}; from the worst wording "
        f"to the best it moves by {spread:.3f} on average."
    )


def write(
    results: Results,
    single: Sequence[dict[str, Any]],
    labels: dict[str, str],
    notes: Sequence[str],
    folder: pathlib.Path,
) -> None:
    """Write ``report.html``: methods side by side, relations, learning curves, examples, nearest
    words, settings.

    Args:
        single: the single results (``experiment.run``), for curves and examples.
        notes: what a reader must know beside the figures.
    """
    first = [result for result in single if result["seed"] == 0]
    page = render(
        "probe_page.html",
        results=results,
        labels=labels,
        notes=[*notes, wordings_line(results)],
        bars=_bars(results, labels),
        curves=_curves(first, results),
        examples=_examples(first),
        nearest=[r for r in first if r["nearest"]],
        of=_of,
        mean=mean,
        main=MAIN,
        figure=figure,
        shown=shown,
        best=_best(list(results.methods.values())),
        diverged=divergences(single),
        rows=_rows(results),
    )
    files.write_text(folder / "report.html", page)


def _rows(results: Results) -> dict[str, int]:
    """How many test rows each relation has."""
    return {
        name: relation.rows
        for method in results.methods.values()
        for name, relation in method.relations.items()
    }


def render(template: str, **values: Any) -> str:
    """A page from a template in this folder; text is escaped, except where the template calls it
    safe."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def _bars(results: Results, labels: dict[str, str]) -> str:
    """P@1 of every relation by every method, as horizontal bars."""
    methods = list(results.methods.values())
    figure = Figure(
        figsize=(8.5, 0.6 + len(labels) * (0.16 * len(methods) + 0.22)), layout="constrained"
    )
    axes = figure.subplots()
    height = 0.8 / len(methods)
    for number, (method, colour) in enumerate(zip(methods, COLOURS)):
        scored = {
            name: value for name, own in method.relations.items() if (value := _of(own)) is not None
        }
        places = [at + number * height for at, name in enumerate(labels) if name in scored]
        own = [name for name in labels if name in scored]
        spread = [method.relations[name].deviation[MAIN] for name in own]
        axes.barh(
            places,
            [scored[name] for name in own],
            height,
            color=colour,
            label=method.title,
            xerr=spread if method.seeds > 1 and own else None,
            error_kw={"lw": 0.8},
        )
    axes.plot(
        [results.majority[name] for name in labels],
        [at + 0.4 - height / 2 for at in range(len(labels))],
        "|",
        color="black",
        ms=14,
        label="Majority",
    )
    axes.set_yticks(
        [at + 0.4 - height / 2 for at in range(len(labels))],
        [f"{label} ({name})" if name != label else name for name, label in labels.items()],
    )
    axes.invert_yaxis()
    axes.set_xlabel("P@1")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return svg(figure)


def _curves(single: Sequence[dict[str, Any]], results: Results) -> str:
    """Dev score over epochs, one panel a trained method, a line a relation."""
    trained = {
        name: own
        for name in results.methods
        if (own := [r for r in single if r["method"] == name and r["history"]])
    }
    if not trained:
        return ""
    figure = Figure(figsize=(8.5, 2.8), layout="constrained")
    for axes, (name, own) in zip(
        figure.subplots(1, len(trained), sharey=True, squeeze=False)[0], trained.items()
    ):
        for result in own:
            axes.plot(
                [look["epoch"] for look in result["history"]],
                [look["dev"] for look in result["history"]],
                lw=1,
                alpha=0.7,
            )
            axes.plot(result["best"]["epoch"], result["best"]["dev"], ".", color="black", ms=4)
        axes.set(title=results.methods[name].title, xlabel="epochs")
    figure.axes[0].set_ylabel("P@1 on dev")
    return svg(figure)


def svg(figure: Figure) -> str:
    """A figure as an SVG element for a page."""
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # text is drawn with the reader's fonts
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _examples(single: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For every relation the questions that are shown, with the first answers of each method."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for result in single:
        shown = found.setdefault(result["problem"], {})
        for example in result["examples"]:
            row = ", ".join(map(str, example["row"].values()))
            shown.setdefault(row, {"row": row, "right": example["right"], "answers": {}})[
                "answers"
            ][result["method"]] = example["answers"]
    return [{"problem": problem, "rows": list(shown.values())} for problem, shown in found.items()]
