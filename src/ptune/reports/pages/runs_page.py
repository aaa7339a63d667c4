"""Trained runs side by side: a table in the terminal, and one HTML page with plots and with what
the LM wrote."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from ptune.base import files
from ptune.errors import StoreError
from ptune.reports import calibration, figure_files, label_figures
from ptune.reports.pages import design
from ptune.reports.pages.design import MARKED, Score, count
from ptune.reports.pages.parts import run_columns, run_plots
from ptune.reports.pages.parts.run_columns import (
    LOWER_IS_BETTER,
    Column,
    columns_of,
    seed_of,
    shown,
)
from ptune.reports.pages.parts.text_differences import differences
from ptune.reports.schemas import Run

TEXTS_SHOWN = 30  # test rows whose texts are on the page


def read(folders: Sequence[pathlib.Path]) -> list[Run]:
    """The runs in the out folders of ``ptune train``.

    Raises:
        StoreError: there is no folder, or a run.json is missing, damaged or of another form.
    """
    if not folders:
        raise StoreError("No run is named; give the out folders of ptune train.")
    return [_read(pathlib.Path(folder)) for folder in folders]


def _read(folder: pathlib.Path) -> Run:
    if figure_files.has_own_page(folder):
        raise StoreError(
            f"{folder} holds no single run (a probe, a comparison, a search, a sweep or "
            f"documents), and its page is {folder / 'report.html'}; with --table the figures of a "
            "probe or a comparison are written as CSV or LaTeX."
        )
    return figure_files.read_run(folder)


def table(runs: Sequence[Run]) -> Table:
    """Figures, sizes and times, a column for each run; runs that differ in the seed alone share
    one."""
    columns = columns_of(runs)
    tasks = list(dict.fromkeys(run.name for run in runs))
    table = Table(
        title=Text(f"{', '.join(tasks)}: figures on the test rows"),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("", overflow="fold")
    for column in columns:
        table.add_column(Text(column.label), justify="right", overflow="fold")
    if len(tasks) > 1:
        table.add_row("task", *[Text(column.runs[0].name) for column in columns], end_section=True)
    _add_figures(table, columns)
    for name, scores in run_columns.dev_scores_of(columns).items():
        table.add_row(Text(_dev_title(name)), *[Text(shown(score)) for score in scores])
    for title, scores in run_columns.baselines_of(columns).items():
        table.add_row(Text(f"baseline: {title}"), *[Text(shown(score)) for score in scores])
    table.add_section()
    for title, texts in run_columns.sizes_of(columns).items():
        table.add_row(title, *texts)
    table.caption = MARKED if any(column.diverged for column in columns) else None
    return table


def _add_figures(table: Table, columns: Sequence[Column]) -> None:
    """The figures on all test rows and on their parts, a section for each."""
    for part, figures in run_columns.figures_of(columns).items():
        for title, cells in figures.items():
            table.add_row(
                Text(f"{title}, {part}" if part else title),
                *[Text(cell.text, "bold" if cell.best else "") for cell in cells],
            )
            if any(cell.interval for cell in cells):
                table.add_row(
                    Text("  with other test rows, 95 %", "dim"),
                    *[Text(cell.interval, "dim") for cell in cells],
                )
        table.add_section()


def _dev_title(name: str) -> str:
    return f"{run_columns.title_of(name)} on dev rows (there are no test rows)"


def write(runs: Sequence[Run], folder: pathlib.Path) -> None:
    """Write ``report.html``: which run is best, figures, labels that were confused, figures by
    training rows, learning curves, texts beside references, settings; one task after the other."""
    page = design.render(
        "runs_page.html",
        sections=[_section(name, runs) for name in dict.fromkeys(run.name for run in runs)],
        lms=dict.fromkeys((run.lm, count(run.lm_parameters)) for run in runs),
        as_json=_as_json,
        seed=seed_of,
        shown=shown,
        differences=differences,
    )
    files.write_text(folder / "report.html", page)


def _section(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    """What the page shows of one task."""
    of_task = [run for run in runs if run.name == name]
    columns = columns_of(of_task)
    dev_scores = run_columns.dev_scores_of(columns)
    return {
        "name": name,
        "columns": columns,
        "answer": _answer(columns),
        "dev_answers": _dev_answers(dev_scores),
        "figures": run_columns.figures_of(columns),
        "dev_scores": {_dev_title(score): scores for score, scores in dev_scores.items()},
        "lower_is_better": bool({*run_columns.names_of(columns)[""]} & {*LOWER_IS_BETTER}),
        "has_intervals": any(run.intervals for run in of_task),
        "sizes": run_columns.sizes_of(columns),
        "dots": run_plots.figure_dots(columns),
        "low_data": run_plots.low_data_plot(of_task),
        "curves": run_plots.learning_curves(columns),
        "labels": label_figures.of_columns(columns),
        "calibration": calibration.of_columns(columns),
        "texts": _texts(columns),
        "left_out": _left_out(columns),
        "diverged": _divergences(columns),
        "marked": MARKED if any(column.diverged for column in columns) else "",
        "baselines": run_columns.baselines_of(columns),
        "selections": [run.selection for run in of_task if run.selection],
        "data_findings": list(
            dict.fromkeys(sentence for run in of_task for sentence in run.data_findings)
        ),
    }


def _answer(columns: Sequence[Column]) -> design.Answer | None:
    """Which column is best on the test rows, and by how much."""
    name = run_columns.main_figure(columns)
    if not name:
        return None
    scores = [score for column in columns if (score := column.score(name)) is not None]
    lower_is_better = name in LOWER_IS_BETTER
    best = (min if lower_is_better else max)(scores, key=lambda score: score.mean)
    number = [column.label for column in columns].index(best.label)
    rivals = [row[number] for row in run_columns.baselines_of(columns).values()]
    present = [score for score in rivals if score is not None]
    return design.answer(
        scores,
        run_columns.title_of(name).removesuffix(" ↓"),
        digits=run_columns.digits_of(name),
        lower_is_better=lower_is_better,
        baseline=max(present, key=lambda score: score.mean, default=None),
    )


def _dev_answers(dev_scores: dict[str, list[Score | None]]) -> list[design.Answer]:
    """The same for runs without test rows, on the dev rows by which their states were chosen."""
    answers = []
    for name, scores in dev_scores.items():
        present = [score for score in scores if score is not None]
        answer = design.answer(present, f"on the dev rows {run_columns.title_of(name)}")
        if answer is not None:
            answers.append(answer)
    return answers


def _texts(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """The first test rows, each with its references and, for each column, the texts of its runs."""
    rows: dict[str, dict[str, Any]] = {}
    for number, column in enumerate(columns):
        for run in column.runs:
            for output in run.outputs:
                texts: list[list[tuple[int, str]]] = [[] for _ in columns]
                empty = {"row": output.row, "references": output.references, "texts": texts}
                row = rows.setdefault(_as_json(output.row), empty)
                row["texts"][number].append((seed_of(run), output.text))
    return list(rows.values())[:TEXTS_SHOWN]


def _left_out(columns: Sequence[Column]) -> dict[tuple[str, str], list[str]]:
    """For each metric that is missing and the reason, the columns that lack it, unless all do."""
    labels_of_metric: dict[tuple[str, str], list[str]] = {}
    for column in columns:
        missing = dict.fromkeys(item for run in column.runs for item in run.left_out.items())
        for name, reason in missing:
            labels_of_metric.setdefault((run_columns.title_of(name), reason), []).append(
                column.label
            )
    return {
        metric: labels if len(labels) < len(columns) else []
        for metric, labels in labels_of_metric.items()
    }


def _divergences(columns: Sequence[Column]) -> list[str]:
    """A sentence for every run whose training diverged."""
    sentences = []
    for column in columns:
        for run in column.runs:
            start = f"{column.label}, seed {seed_of(run)}: the training of"
            sentences += [
                f"{start} {name} diverged; its best state before that is kept."
                for name in run.diverged
            ]
            sentences += [f"{start} {name} diverged and left nothing to keep." for name in run.lost]
    return sentences


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
