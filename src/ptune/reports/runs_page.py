"""Trained runs side by side: a table in the terminal, and one HTML page with plots and with what
the LM wrote."""

import json
import math
import pathlib
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pydantic import ValidationError
from rich import box
from rich.table import Table
from rich.text import Text

from ptune.base import files
from ptune.errors import StoreError, reason
from ptune.metrics.labels import BASELINES, deviation, mean
from ptune.metrics.texts import METRICS
from ptune.reports.probe_page import COLOURS, MARK, MARKED, count, render, svg
from ptune.reports.schemas import Run
from ptune.settings import SIDE

SHOWN = 30  # test rows whose texts are on the page
TITLES = {"cider": "CIDEr", "chrf": "chrF", "ter": "TER ↓"}
LOWER_IS_BETTER = ("ter",)
PASSING = {
    "seed",
    "out",
    "resume",
    "device",
    *SIDE,
}  # settings in which the runs of a column may differ
MINUS_LOSS = Run.model_fields["dev_score"].default
Cell = tuple[str, bool]  # a figure as text, and whether it is the best
T = TypeVar("T")


@dataclass(frozen=True)
class _Column:
    """A run, or several that differ in the seed alone."""

    label: str
    runs: Sequence[Run]

    @property
    def rows(self) -> int:
        """How many rows it was trained on."""
        return self.runs[0].rows.get("train", 0)

    @property
    def diverged(self) -> bool:
        """Whether the training of one of its runs diverged."""
        return any(run.diverged or run.lost for run in self.runs)

    def values(self, name: str, part: str = "") -> list[float]:
        """A figure, on all test rows or on a part of them, of each run that has it."""
        found = [run.parts.get(part, {}) if part else run.figures for run in self.runs]
        return [own[name] for own in found if name in own]


def read(folders: Sequence[pathlib.Path]) -> list[Run]:
    """The runs in the out folders of ``ptune train``.

    Raises:
        StoreError: there is no folder, or a run.json is missing, damaged or of another form.
    """
    if not folders:
        raise StoreError("No run is named; give the out folders of ptune train.")
    return [_read(pathlib.Path(folder) / "run.json") for folder in folders]


def _read(path: pathlib.Path) -> Run:
    try:
        return Run.model_validate(files.read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{key}: " for key in [".".join(map(str, first["loc"]))] if key)
        raise StoreError(
            f"{path} does not have the form of a run of ptune train: {place}{reason(first)}."
        ) from error


def table(runs: Sequence[Run]) -> Table:
    """Figures, sizes and times, a column for each run; runs that differ in the seed alone share
    one."""
    columns = _columns(runs)
    tasks = list(dict.fromkeys(run.name for run in runs))
    drawn = Table(
        title=Text(f"{', '.join(tasks)}: figures on the test rows"),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    drawn.add_column("", overflow="fold")
    for column in columns:
        drawn.add_column(Text(column.label), justify="right", overflow="fold")
    if len(tasks) > 1:
        drawn.add_row("task", *[Text(column.runs[0].name) for column in columns], end_section=True)
    for part, figures in _figures(columns).items():
        for title, cells in figures.items():
            drawn.add_row(
                Text(f"{title}, {part}" if part else title),
                *[Text(text, "bold" if best else "") for text, best in cells],
            )
        drawn.add_section()
    for title, texts in _baselines(columns).items():
        drawn.add_row(Text(title), *map(Text, texts))
    drawn.add_section()
    for title, texts in _sizes(columns).items():
        drawn.add_row(title, *texts)
    drawn.caption = MARKED if any(column.diverged for column in columns) else None
    return drawn


def _columns(runs: Sequence[Run]) -> list[_Column]:
    groups = _gathered(runs, lambda run: (run.title, _facets(run)), _seed)
    return [_Column(label, group) for label, group in zip(_labels(groups), groups)]


def _seed(run: Run) -> int:
    train = run.settings.get("train")
    return train.get("seed") or 0 if isinstance(train, dict) else 0


def _gathered(
    items: Sequence[T], same: Callable[[T], Any], apart: Callable[[T], Any]
) -> list[list[T]]:
    """Items that are the same in one thing, in lists in which no two are the same in the other."""
    lists: list[list[T]] = []
    for item in items:
        own = next(
            (
                own
                for own in lists
                if same(own[0]) == same(item) and apart(item) not in map(apart, own)
            ),
            None,
        )
        if own is None:
            lists.append(own := [])
        own.append(item)
    return lists


def _facets(run: Run) -> dict[str, str]:
    """What may tell runs of one title apart, the seed aside: the words for a label, the most
    telling first."""
    facets = {
        "name": run.name,
        "lm": run.lm,
        "rows": f"{run.rows.get('train', 0):,} rows",
        "template": run.template,
    }
    return facets | {key: text for key, text in _settings(run.settings) if key not in facets}


def _settings(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{before}{key}.")
        elif key not in PASSING:
            yield before + key, f"{key.replace('_', ' ')} {'default' if value is None else value}"


def _labels(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Titles, and where these are alike, what tells the groups apart."""
    labels = [group[0].title for group in groups]
    facets = [
        {
            key: text
            for key, text in _facets(group[0]).items()
            if all(_facets(run).get(key) == text for run in group)
        }
        for group in groups
    ]
    for key in dict.fromkeys(key for own in facets for key in own):
        alike = [
            {own.get(key) for own, other in zip(facets, labels) if other == label}
            for label in labels
        ]
        labels = [
            f"{label}, {own[key]}" if len(texts) > 1 and key in own else label
            for label, own, texts in zip(labels, facets, alike)
        ]
    return [
        f"{label} ({labels[:number].count(label) + 1})" if label in labels[:number] else label
        for number, label in enumerate(labels)
    ]


def _figures(columns: Sequence[_Column]) -> dict[str, dict[str, list[Cell]]]:
    """The figures on all test rows (under "") and on each part: by title, a cell for each
    column."""
    return {
        part: {_title(name): _cells(columns, name, part) for name in names}
        for part, names in _names(columns).items()
    }


def _names(columns: Sequence[_Column]) -> dict[str, list[str]]:
    found: dict[str, dict[str, None]] = {"": {}}
    for run in (run for column in columns for run in column.runs):
        for part, own in {"": run.figures, **run.parts}.items():
            found.setdefault(part, {}).update(dict.fromkeys(own))
    return {part: list(names) for part, names in found.items()}


def _title(name: str) -> str:
    return TITLES.get(name, name.upper() if name in METRICS else name)


def _cells(columns: Sequence[_Column], name: str, part: str) -> list[Cell]:
    """A figure of each column; those that show the best of their task are marked, where there are
    several."""
    digits = 2 if name in METRICS else 3
    values = [column.values(name, part) for column in columns]
    means = [round(mean(own), digits) if own else None for own in values]
    cells = []
    for column, own, shown in zip(columns, values, means):
        rivals = [
            m
            for other, m in zip(columns, means)
            if m is not None and other.runs[0].name == column.runs[0].name
        ]
        best = len(rivals) > 1 and shown == (min if name in LOWER_IS_BETTER else max)(rivals)
        cells.append((_spread(own, digits) + (MARK if own and column.diverged else ""), best))
    return cells


def _baselines(columns: Sequence[_Column]) -> dict[str, list[str]]:
    """What each column's user would get without prompts on the same rows: the first figure of each
    baseline."""
    rows: dict[str, list[str]] = {}
    for name, title in BASELINES.items():
        values = [
            [
                own[next(iter(run.figures))]
                for run in column.runs
                if run.figures and (own := run.baselines.get(name))
            ]
            for column in columns
        ]
        if any(values):
            rows[f"baseline: {title}"] = [_spread(own, 3) for own in values]
    return rows


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return "-"
    return f"{mean(values):.{digits}f}" + (
        f" ± {deviation(values):.{digits}f}" if len(values) > 1 else ""
    )


def _sizes(columns: Sequence[_Column]) -> dict[str, list[str]]:
    """What each column took: seeds (where there are several), parameters, rows, time."""
    first = [column.runs[0] for column in columns]
    seeds = (
        {"seeds": [str(len(column.runs)) for column in columns]}
        if any(len(column.runs) > 1 for column in columns)
        else {}
    )
    tests = [run.rows.get("test", 0) for run in first]
    return seeds | {
        "trained parameters": [count(run.trained_parameters) for run in first],
        "kept parameters": [count(run.kept_parameters) for run in first],
        "training rows": [f"{column.rows:,}" for column in columns],
        **({"test rows": [f"{rows:,}" for rows in tests]} if len(set(tests)) > 1 else {}),
        "minutes of training": [
            _spread([run.seconds["train"] / 60 for run in column.runs if "train" in run.seconds], 1)
            for column in columns
        ],
    }


def write(runs: Sequence[Run], folder: pathlib.Path) -> None:
    """Write ``report.html``: figures, learning curves, figures by training rows, texts beside
    references, settings; one task after the other."""
    sections = []
    for name in dict.fromkeys(run.name for run in runs):
        own = [run for run in runs if run.name == name]
        columns = _columns(own)
        sections.append(
            {
                "name": name,
                "columns": columns,
                "figures": _figures(columns),
                "sizes": _sizes(columns),
                "bars": _bars(columns),
                "low_data": low_data_plot(own),
                "curves": _curves(columns),
                "texts": _texts(columns),
                "left_out": _left_out(columns),
                "diverged": _divergences(columns),
                "baselines": _baselines(columns),
            }
        )
    page = render(
        "runs_page.html",
        sections=sections,
        lms=dict.fromkeys((run.lm, count(run.lm_parameters)) for run in runs),
        as_json=_as_json,
        seed=_seed,
    )
    files.write_text(folder / "report.html", page)


def _main(columns: Sequence[_Column]) -> str:
    """The figure that plots show."""
    names = _names(columns)[""]
    return next((name for name in ("bleu", "rouge-l", *names) if name in names), "")


def _bars(columns: Sequence[_Column]) -> str:
    """The main figure of every column, as horizontal bars; a title has a colour."""
    name = _main(columns)
    shown = [column for column in columns if column.values(name)]
    if not shown:
        return ""
    titles = list(dict.fromkeys(column.runs[0].title for column in columns))
    figure = Figure(figsize=(8.5, 0.7 + 0.36 * len(shown)), layout="constrained")
    axes = figure.subplots()
    values = [column.values(name) for column in shown]
    axes.barh(
        range(len(shown)),
        list(map(mean, values)),
        0.7,
        color=[_colour(titles.index(column.runs[0].title)) for column in shown],
        xerr=list(map(deviation, values)) if any(len(own) > 1 for own in values) else None,
        error_kw={"lw": 0.8},
    )
    axes.set_yticks(range(len(shown)), [textwrap.fill(column.label, 44) for column in shown])
    axes.invert_yaxis()
    axes.set_xlabel(_title(name))
    return svg(figure)


def _colour(number: int) -> str:
    return COLOURS[(number + 1) % len(COLOURS)]


def low_data_plot(runs: Sequence[Run]) -> str:
    """An SVG of the main figure over the number of training rows, a line a method, with the
    deviation over seeds; "" where that number is one and the same."""
    columns = _columns(runs)
    name = _main(columns)
    shown = [column for column in columns if column.values(name)]
    rows = sorted({column.rows for column in shown})
    if len(rows) < 2:
        return ""
    figure = Figure(figsize=(8.5, 3.4), layout="constrained")
    axes = figure.subplots()
    lines = _gathered(
        shown,
        lambda column: [(run.name, run.title, run.lm, run.template) for run in column.runs[:1]],
        lambda column: column.rows,
    )
    for number, (line, label) in enumerate(
        zip(lines, _labels([[run for column in line for run in column.runs] for line in lines]))
    ):
        points = [
            (column.rows, column.values(name))
            for column in sorted(line, key=lambda column: column.rows)
        ]
        axes.errorbar(
            [x for x, _ in points],
            [mean(own) for _, own in points],
            [deviation(own) for _, own in points],
            color=_colour(number),
            lw=1.2,
            marker="o",
            ms=4,
            capsize=3,
            label=textwrap.fill(label, 44),
        )
    axes.set_xscale("symlog", linthresh=next(x for x in rows if x))
    axes.set_xticks(rows, [f"{x:,}" for x in rows], minor=False)
    axes.minorticks_off()
    axes.set(xlabel="training rows", ylabel=_title(name))
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return svg(figure)


def _curves(columns: Sequence[_Column]) -> str:
    """Training loss, dev loss and dev score over epochs, a panel each, with a line for each prompt
    of each run."""
    shown = [
        (number, column)
        for number, column in enumerate(columns)
        if any(looks for run in column.runs for looks in run.history.values())
    ]
    if not shown:
        return ""
    scores = dict.fromkeys(
        run.dev_score for _, column in shown for run in column.runs if run.dev_score != MINUS_LOSS
    )
    panels = [
        ("loss", "training loss", ""),
        ("dev_loss", "dev loss", ""),
        *(("dev", f"{_title(score)} on dev", score) for score in scores),
    ]
    figure = Figure(figsize=(8.5, 3), layout="constrained")
    for axes, (key, title, score) in zip(figure.subplots(1, len(panels)), panels):
        for number, run in (
            (number, run)
            for number, column in shown
            for run in column.runs
            if score in ("", run.dev_score)
        ):
            for prompt, looks in run.history.items():
                for own, style in (
                    (looks, {"lw": 1, "alpha": 0.8, "color": _colour(number)}),
                    ([run.best.get(prompt, {})], {"color": "black", "zorder": 3}),
                ):
                    axes.plot(
                        [look.get("epoch", math.nan) for look in own],
                        [look.get(key, math.nan) for look in own],
                        ".-",
                        ms=4,
                        **style,
                    )
        axes.set(title=title, xlabel="epochs")
    figure.legend(
        [Line2D([], [], color=_colour(number)) for number, _ in shown],
        [textwrap.fill(column.label, 44) for _, column in shown],
        loc="outside upper center",
        ncols=3,
        frameon=False,
    )
    return svg(figure)


def _texts(columns: Sequence[_Column]) -> list[dict[str, Any]]:
    """The first test rows, each with its references and, for each column, the texts of its runs."""
    found: dict[str, dict[str, Any]] = {}
    for number, column in enumerate(columns):
        for run in column.runs:
            for output in run.outputs:
                row = found.setdefault(
                    _as_json(output.row),
                    {
                        "row": output.row,
                        "references": output.references,
                        "texts": [[] for _ in columns],
                    },
                )
                row["texts"][number].append((_seed(run), output.text))
    return list(found.values())[:SHOWN]


def _left_out(columns: Sequence[_Column]) -> dict[tuple[str, str], list[str]]:
    """For each metric that is missing and the reason, the columns that lack it, unless all do."""
    found: dict[tuple[str, str], list[str]] = {}
    for column in columns:
        for name, why in {item: None for run in column.runs for item in run.left_out.items()}:
            found.setdefault((_title(name), why), []).append(column.label)
    return {
        missing: labels if len(labels) < len(columns) else [] for missing, labels in found.items()
    }


def _divergences(columns: Sequence[_Column]) -> list[str]:
    """A sentence for every run whose training diverged."""
    told = []
    for column in columns:
        for run in column.runs:
            told += [
                f"{column.label}, seed {_seed(run)}: the training of {name} diverged; its best "
                "state before that is kept."
                for name in run.diverged
            ]
            told += [
                f"{column.label}, seed {_seed(run)}: the training of {name} diverged and left "
                "nothing to keep."
                for name in run.lost
            ]
    return told


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
