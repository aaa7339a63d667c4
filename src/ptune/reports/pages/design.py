"""The design that all pages share: layout, colours, plots, and the rule for what counts as best."""

import functools
import io
import pathlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import matplotlib
from markupsafe import escape
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Colours that stay apart for colour-blind readers. On a page each is a CSS variable, --c0 to --c5,
# so that it has another shade on a dark screen; INK becomes the colour of the text.
COLOURS = ("#5b6770", "#c44e00", "#0072b2", "#007a5a", "#a8518a", "#9a6700")
MARKERS = "osD^vP"
INK = "#1f2934"
DIVERGED = "diverged"  # in place of a figure, where no training had a finite state to keep
MARK = " †"  # behind a figure, where a training diverged
MARKED = (
    f"{MARK.strip()}: in some of the seeds or relations training diverged; the figure is of what "
    "was kept before that, and without what had nothing to keep."
)
matplotlib.rcParams |= {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.parse_math": False,  # titles are text, dollars and all
} | dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color"), INK)
matplotlib.rcParams["ytick.color"] = INK


@dataclass(frozen=True)
class Score:
    """What one method reached: a mean over seeds and its standard deviation."""

    label: str
    mean: float
    deviation: float = 0.0
    seeds: int = 1

    def text(self, digits: int = 3) -> str:
        """The mean, with its deviation where there are several seeds."""
        spread = f" ± {self.deviation:.{digits}f}" if self.seeds > 1 else ""
        return f"{self.mean:.{digits}f}{spread}"


def near_best(
    scores: Sequence[Score | None], digits: int = 3, lower_is_better: bool = False
) -> list[bool]:
    """Whether each score is the best or within one deviation of it (the best's deviation).

    Scores are compared as they are shown, rounded to ``digits``; None stands for no score.
    """
    sign = -1 if lower_is_better else 1
    present = [score for score in scores if score is not None]
    if not present:
        return [False] * len(scores)
    best = max(present, key=lambda score: sign * score.mean)
    reach = round(best.deviation, digits) if best.seeds > 1 else 0.0
    limit = sign * round(best.mean, digits) - reach
    return [
        score is not None and sign * round(score.mean, digits) >= limit - 1e-9 for score in scores
    ]


@dataclass(frozen=True)
class Answer:
    """The first sentence of a page: the best method, and a text that says by how much."""

    best: str
    text: str


def answer(
    scores: Sequence[Score],
    figure: str,
    *,
    digits: int = 3,
    lower_is_better: bool = False,
    baseline: Score | None = None,
) -> Answer | None:
    """Which method is best and by how much; None where there is no score.

    Args:
        figure: the name of what is compared, for example "accuracy".
        baseline: the best of what one gets without prompts.
    """
    if not scores:
        return None
    order = sorted(scores, key=lambda score: score.mean, reverse=not lower_is_better)
    best = order[0]
    text = f"{figure} {best.text(digits)}"
    if len(order) > 1:
        text = f"is best: {text}, {_distance(best, order[1], digits, lower_is_better)}"
    else:
        text = f"reaches {text}"
    if baseline is not None:
        text += f"; {_difference(best, baseline, digits)} the baseline {baseline.label}"
        text += f" ({baseline.text(digits)})"
    return Answer(best.label, f"{text}.")


def _distance(best: Score, second: Score, digits: int, lower_is_better: bool) -> str:
    """How far the best is from the second, and whether that is more than its deviation."""
    text = f"{_difference(best, second, digits)} {second.label} ({second.text(digits)})"
    if best.seeds == 1:
        return f"{text}, from one seed"
    within = near_best([best, second], digits, lower_is_better)[1]
    return f"{text}, {'within' if within else 'more than'} one standard deviation"


def _difference(score: Score, other: Score, digits: int) -> str:
    difference = round(score.mean, digits) - round(other.mean, digits)
    if not round(difference, digits):
        return "level with"
    return f"{abs(difference):.{digits}f} {'above' if difference > 0 else 'below'}"


@dataclass(frozen=True)
class Dot:
    """A mean with its deviation to both sides; the series gives colour and shape."""

    value: float
    deviation: float = 0.0
    series: int = 1
    title: str = ""


@dataclass(frozen=True)
class DotRow:
    """A line of a dot plot: a label, its dots, and the figure as text at the end."""

    label: str
    dots: Sequence[Dot]
    text: str = ""
    best: bool = False

    def shift(self, number: int) -> float:
        """How many pixels a dot of several stands below the middle, so that equal ones are seen."""
        return 12 * (number / (len(self.dots) - 1) - 0.5) if len(self.dots) > 1 else 0.0


@dataclass(frozen=True)
class DotPlot:
    """A dot plot that a page draws in HTML, so that its text keeps its size on small screens."""

    rows: Sequence[DotRow]
    title: str
    ticks: Sequence[float]
    legend: Sequence[tuple[int, str]] = ()

    def place(self, value: float) -> float:
        """Where a value stands between the first tick and the last, in percent."""
        low, high = self.ticks[0], self.ticks[-1]
        return round(100 * (min(max(value, low), high) - low) / (high - low), 2)

    @property
    def description(self) -> str:
        """The plot in words, for those who do not see it."""
        lines = [
            f"{row.label}: {row.text or ', '.join(f'{d.title} {d.value:.3f}' for d in row.dots)}"
            for row in self.rows
        ]
        return f"{self.title} as dots. {'; '.join(lines)}."


def dot_plot(
    rows: Sequence[DotRow], title: str, legend: Sequence[tuple[int, str]] = ()
) -> DotPlot | None:
    """A dot plot of rows on one axis; None where no row has a dot."""
    dots = [dot for row in rows for dot in row.dots]
    if not dots:
        return None
    low = min(dot.value - dot.deviation for dot in dots)
    high = max(dot.value + dot.deviation for dot in dots)
    if min(dot.value for dot in dots) >= 0:
        low = max(low, 0.0)
    if high - low < 1e-6:
        low, high = low - 0.05, high + 0.05
    ticks = [float(tick) for tick in MaxNLocator(4).tick_values(low, high)]
    return DotPlot(rows, title, ticks, legend)


def count(parameters: int) -> str:
    """A number of parameters, in millions where there are so many."""
    return f"{parameters / 1e6:.1f} M" if parameters >= 1e6 else f"{parameters:,}"


def render(template: str, **values: Any) -> str:
    """A page from a template in this folder; text is escaped, except where the template calls it
    safe."""
    return _templates().get_template(template).render(**values)


def is_page(path: pathlib.Path) -> bool:
    """Whether a file is a page that ``render`` made."""
    with open(path, "rb") as stream:
        return b'<meta name="generator" content="ptune">' in stream.read(1024)


@functools.cache
def _templates() -> jinja2.Environment:
    """The templates in this folder, each of which is parsed once."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def svg(figure: Figure, description: str) -> str:
    """A figure as an SVG element for a page, in the page's colours.

    Args:
        description: what the figure shows, in words for those who do not see it.
    """
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # text is drawn with the reader's fonts
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = text.replace(f": {INK}", ": currentColor")
    for number, colour in enumerate(COLOURS):
        text = text.replace(f": {colour}", f": var(--c{number})")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)


def line_style(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of a line, so that no two of the first twelve look alike."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "ls": "-" if number < len(COLOURS) else "--",
    }


def interval(ends: tuple[float, float], digits: int = 3) -> str:
    """The two ends of an interval."""
    return f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"
