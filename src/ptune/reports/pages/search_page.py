"""What a search for prompts chose and tried: a table in the terminal, and a page."""

import pathlib

from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from rich.text import Text

from ptune.base import files
from ptune.reports.pages import design
from ptune.reports.search_results import CandidateScore, SearchResults

SHOWN = 10  # candidates in the terminal
TRIED = 200  # candidates on the page


def table(results: SearchResults) -> Table:
    """The candidates that were kept, with their figures on train and dev, and after fine-tuning
    where they are ranked so."""
    title = f"{results.task}: {results.metric} of the best, by {results.by}"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    is_tuned = any(one.tuned is not None for one in results.candidates)
    for name in ("train", "dev", *(["tuned"] if is_tuned else [])):
        table.add_column(name, justify="right", width=6)
    table.add_column("prompt")
    table.add_column("words")
    table.add_column("by")
    for one in results.candidates[:SHOWN]:
        figures = [_figure(one.train), _figure(one.dev)]
        figures += [_figure(one.tuned)] if is_tuned else []
        table.add_row(*figures, Text(one.template), Text(words(one)), Text(one.source))
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def words(one: CandidateScore) -> str:
    """A candidate's label words, in a line."""
    listed = {
        label: value if isinstance(value, str) else ", ".join(value)
        for label, value in one.words.items()
    }
    return "; ".join(f"{label}: {value}" for label, value in listed.items())


def write(results: SearchResults, folder: pathlib.Path) -> None:
    """Write ``report.html``."""
    page = design.render(
        "search_page.html",
        results=results,
        best=results.candidates[0],
        answer=_answer(results),
        words=words,
        figure=_figure,
        tried=results.tried[:TRIED],
        left_out=len(results.tried) - min(TRIED, len(results.tried)),
        scatter=_scatter(results),
        steps=_steps(results) if results.steps else "",
    )
    files.write_text(folder / "report.html", page)


def _answer(results: SearchResults) -> str:
    """The choice, in a sentence."""
    best = results.candidates[0]
    manual = [one for one in results.candidates if one.source == "manual" and one.dev is not None]
    text = f"{results.metric} {_figure(best.dev)} on {results.rows['dev']} dev rows"
    if best.tuned is not None:
        text += f", and {_figure(best.tuned)} after fine-tuning, by which it was chosen"
    if manual and best.source != "manual":
        text += f"; the best hand-written one that was kept has {_figure(manual[0].dev)}"
    return f"{text}."


def _scatter(results: SearchResults) -> str:
    """An SVG of the figures of what was kept: on dev over train."""
    drawing = Figure(figsize=(5, 3.4), layout="constrained")
    axes = drawing.subplots()
    points = [(one.train, one.dev) for one in results.candidates]
    axes.plot(*zip(*points), ls="", marker="o", color=design.COLOURS[2])
    axes.set_xlabel(f"{results.metric} on train")
    axes.set_ylabel(f"{results.metric} on dev")
    shown = ", ".join(f"{_figure(x)} and {_figure(y)}" for x, y in points)
    return design.svg(drawing, f"Figures on train and on dev of what was kept: {shown}")


def _steps(results: SearchResults) -> str:
    """An SVG of the loss over the steps."""
    drawing = Figure(figsize=(8.5, 3), layout="constrained")
    axes = drawing.subplots()
    numbers = [step.number for step in results.steps]
    losses = [step.loss for step in results.steps]
    axes.plot(numbers, losses, color=design.COLOURS[1])
    axes.set_xlabel("steps")
    axes.set_ylabel("loss on train")
    return design.svg(
        drawing, f"The loss goes from {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} steps"
    )
