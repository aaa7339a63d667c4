"""Whether the probability of an answer is the share of such answers that is right: a curve, and the
most confident answers that are wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from ptune.reports.pages import design
from ptune.reports.pages.parts.run_columns import Column
from ptune.reports.schemas import Reliability, WrongAnswer

SHOWN = 10  # wrong answers on the page


@dataclass(frozen=True)
class CalibrationSection:
    """What the page shows of one column.

    Attributes:
        title: the column's label.
        plot: the curve as SVG.
        sentence: how far probabilities are from shares, in words.
        wrong: the most confident wrong answers of its first run.
    """

    title: str
    plot: str
    sentence: str
    wrong: Sequence[WrongAnswer]


def of_columns(columns: Sequence[Column]) -> list[CalibrationSection]:
    """A section for each column whose runs hold probabilities; those of several seeds are put
    together."""
    sections = []
    for number, column in enumerate(columns, 1):
        parts = [part for run in column.runs for part in run.calibration]
        if parts:
            steps = _merged(parts)
            wrong = next((run.wrong for run in column.runs if run.calibration), [])
            plot = _plot(column.label, steps, number)
            sections.append(CalibrationSection(column.label, plot, _sentence(steps), wrong[:SHOWN]))
    return sections


def _merged(parts: Sequence[Reliability]) -> list[Reliability]:
    """The parts of several runs, those of the same tenth as one."""
    by_tenth: dict[int, list[Reliability]] = {}
    for part in parts:
        by_tenth.setdefault(min(9, int(part.probability * 10)), []).append(part)
    return [_mean(by_tenth[tenth]) for tenth in sorted(by_tenth)]


def _mean(parts: Sequence[Reliability]) -> Reliability:
    rows = sum(part.rows for part in parts)
    return Reliability(
        rows=rows,
        probability=sum(part.probability * part.rows for part in parts) / rows,
        accuracy=sum(part.accuracy * part.rows for part in parts) / rows,
    )


def _sentence(parts: Sequence[Reliability]) -> str:
    """How far probabilities are from shares on average (the expected calibration error), and in
    which direction."""
    whole = _mean(parts)
    error = sum(abs(part.probability - part.accuracy) * part.rows for part in parts) / whole.rows
    direction = "high" if whole.probability > whole.accuracy else "low"
    return (
        f"The answers have a probability of {whole.probability:.2f} on average, and "
        f"{whole.accuracy:.2f} of them are right; so it is too {direction} by "
        f"{abs(whole.probability - whole.accuracy):.2f}. Over the points of the curve the mean "
        f"distance is {error:.3f} (expected calibration error)."
    )


def _plot(label: str, parts: Sequence[Reliability], number: int) -> str:
    """The share of right answers over their probability, as SVG."""
    drawing = Figure(figsize=(4.4, 3.2), layout="constrained")
    axes = drawing.subplots()
    axes.plot([0, 1], [0, 1], color=design.COLOURS[0], lw=1, ls=":")
    style = {**design.line_style(number), "ms": 6}
    axes.plot([p.probability for p in parts], [p.accuracy for p in parts], **style)
    for part in parts:
        axes.annotate(
            f"{part.rows:,}",
            (part.probability, part.accuracy),
            xytext=(6, -11),
            textcoords="offset points",
            fontsize=7.5,
        )
    axes.set(xlim=(0, 1.05), ylim=(0, 1.05), xlabel="probability of the answer")
    axes.set_ylabel("share that is right")
    points = "; ".join(f"{p.probability:.2f}: {p.accuracy:.2f} of {p.rows}" for p in parts)
    return design.svg(drawing, f"{label}: share of right answers by their probability. {points}")
