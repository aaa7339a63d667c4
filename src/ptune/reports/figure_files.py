"""The figures of runs, probes and comparisons as one table in a CSV or LaTeX file."""

import pathlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from itertools import chain
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ptune.base import files
from ptune.data import output_files
from ptune.data.formats import delimited
from ptune.errors import ConfigError, StoreError, first_fault
from ptune.metrics.labels import BASELINES
from ptune.reports.pages.parts.run_columns import Column, columns_of, names_of
from ptune.reports.schemas import Cell, Comparison, MethodResult, Results, Run

BEGINNING_BYTES = 4096  # of a table, its names of columns among them
LATEX_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)
BEGINNINGS = {
    ".csv": rb"task,rows,method,figure,mean,deviation,",
    ".tex": rb"\\begin\{tabular\}\{lllr*\}\n\\toprule\ntask & rows & method ",
}
Form = TypeVar("Form", bound=BaseModel)


@dataclass(frozen=True)
class FigureRow:
    """One figure of one method on one task: its mean and standard deviation over seeds, and the
    ends between which it lies in 95 of 100 redraws of the test rows, where these are known."""

    task: str
    rows: str
    method: str
    figure: str
    mean: float
    deviation: float
    seeds: int
    low: float | None = None
    high: float | None = None


def write(folders: Sequence[pathlib.Path], path: pathlib.Path) -> None:
    """Write the figures in the out folders of train, probe and compare.

    A .csv has a line for each figure; a .tex a line for each method and a column for each figure.

    Raises:
        ConfigError: the file's name ends otherwise, or something other than such a table stands
            there.
        StoreError: no folder is given, or a file of results is missing or damaged.
    """
    if path.suffix not in BEGINNINGS:
        raise ConfigError(f"--table {path}: the name must end in .csv or .tex.")
    output_files.check(
        path,
        "--table",
        may_replace=_is_table_of_figures(path),
        advice="delete it, since it is no table that ptune report wrote",
    )
    if not folders:
        raise StoreError("No run is named; give the out folders of ptune train.")
    rows = figure_rows([pathlib.Path(folder) for folder in folders])
    files.write_text(path, as_csv(rows) if path.suffix == ".csv" else as_latex(rows))


def _is_table_of_figures(path: pathlib.Path) -> bool:
    """Whether a file begins as those that ``write`` makes."""
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        return re.match(BEGINNINGS[path.suffix], stream.read(BEGINNING_BYTES)) is not None


def figure_rows(folders: Sequence[pathlib.Path]) -> list[FigureRow]:
    """The figures of all folders; runs that differ in the seed alone are gathered, and where probes
    or comparisons have the same method on the same task, their folders stand behind its name.

    Raises:
        StoreError: a file of results is missing, damaged or of another form.
    """
    runs = [read_run(folder) for folder in folders if not has_own_page(folder)]
    rows = [row for column in columns_of(runs) for row in _rows_of_column(column)]
    by_folder = {folder: _rows_of_folder(folder) for folder in filter(has_own_page, folders)}
    keys = [set(map(_line_of, some)) for some in (rows, *by_folder.values())]
    often = {key for key, count in Counter(chain.from_iterable(keys)).items() if count > 1}
    for folder, rows_of_folder in by_folder.items():
        rows += [
            replace(row, method=f"{row.method}, {folder}") if _line_of(row) in often else row
            for row in rows_of_folder
        ]
    return rows


def _rows_of_folder(folder: pathlib.Path) -> list[FigureRow]:
    """The figures of a probe or a comparison."""
    results = _read_results(folder / "results.json")
    if isinstance(results, Comparison):
        return [row for cell in results.cells for row in _rows_of_cell(cell, results.titles)]
    return [row for method in results.methods.values() for row in _rows_of_method(method)]


def _line_of(row: FigureRow) -> tuple[str, str, str]:
    """What tells the lines of a table apart."""
    return row.task, row.rows, row.method


def has_own_page(folder: pathlib.Path) -> bool:
    """Whether a folder is one of ptune probe, ptune compare or ptune distil."""
    return (folder / "results.json").exists() and not (folder / "run.json").exists()


def read_run(folder: pathlib.Path) -> Run:
    """The run in the out folder of ``ptune train``.

    Raises:
        StoreError: its run.json is missing, damaged or of another form.
    """
    if not folder.exists():
        raise StoreError(f"There is no folder {folder}.")
    if not (folder / "run.json").exists():
        raise StoreError(f"There is no finished run of ptune train in {folder} (run.json).")
    return _validated(folder / "run.json", Run, "a run of ptune train")


def _read_results(path: pathlib.Path) -> Results | Comparison:
    content = files.read_json(path)
    if isinstance(content, dict) and "documents" in content:
        raise StoreError(
            f"{path.parent} holds documents (ptune distil), whose figures stand in "
            f"{path.parent / 'report.html'} and results.json, and not in a table of methods."
        )
    if isinstance(content, dict) and "tried" in content:
        raise StoreError(
            f"{path.parent} holds a search (ptune search), whose scores are of train and dev rows: "
            f"ptune compare {path.parent / 'best.yaml'} scores its choice on test rows."
        )
    if isinstance(content, dict) and "runs" in content:
        raise StoreError(
            f"{path.parent} holds a sweep (ptune sweep), whose runs have folders of their own: "
            f"name those, {path.parent / 'runs' / '*'}."
        )
    if isinstance(content, dict) and "cells" in content:
        return _validated(path, Comparison, "the results of ptune compare")
    return _validated(path, Results, "the results of ptune probe")


def _validated(path: pathlib.Path, form: type[Form], name: str) -> Form:
    try:
        return form.model_validate(files.read_json(path))
    except ValidationError as error:
        raise StoreError(
            f"{path} does not have the form of {name}: {first_fault(error)}."
        ) from error


def _rows_of_column(column: Column) -> Iterator[FigureRow]:
    """The figures of runs that differ in the seed alone, on all test rows and on parts of them."""
    run = column.runs[0]
    for part, names in names_of([column]).items():
        for name in names:
            score = column.score(name, part)
            if score is not None:
                title = f"{name}, {part}" if part else name
                low, high = (None if part else column.interval(name)) or (None, None)
                yield FigureRow(
                    task=run.name,
                    rows=str(column.rows),
                    method=column.label,
                    figure=title,
                    mean=score.mean,
                    deviation=score.deviation,
                    seeds=score.seeds,
                    low=low,
                    high=high,
                )


def _rows_of_cell(cell: Cell, titles: dict[str, str]) -> Iterator[FigureRow]:
    method = titles.get(cell.method, BASELINES.get(cell.method, cell.method))
    shots = f"{cell.shots} of each label" if cell.shots else str(cell.rows.get("train", ""))
    for name, value in cell.mean.items():
        deviation = cell.deviation.get(name, 0.0)
        seeds = cell.seeds - cell.lost
        low, high = cell.intervals.get(name, (None, None))
        yield FigureRow(
            task=cell.task,
            rows=shots,
            method=method,
            figure=name,
            mean=value,
            deviation=deviation,
            seeds=seeds,
            low=low,
            high=high,
        )


def _rows_of_method(method: MethodResult) -> Iterator[FigureRow]:
    """A method's means over relations, and then each relation's figures."""
    for name, value in (method.model_extra or {}).items():
        deviation = method.deviation.get(name, 0.0)
        yield FigureRow(
            task="mean of relations",
            rows="",
            method=method.title,
            figure=name,
            mean=value,
            deviation=deviation,
            seeds=method.seeds,
        )
    for relation, result in method.relations.items():
        for name, value in (result.model_extra or {}).items():
            deviation = result.deviation.get(name, 0.0)
            seeds = method.seeds - result.lost
            yield FigureRow(
                task=relation,
                rows="",
                method=method.title,
                figure=name,
                mean=value,
                deviation=deviation,
                seeds=seeds,
            )


def as_csv(rows: Sequence[FigureRow]) -> str:
    """A line for each figure, under the names of ``FigureRow``; numbers in full."""
    lines = [[field.name for field in fields(FigureRow)]]
    lines += [["" if cell is None else str(cell) for cell in astuple(row)] for row in rows]
    return "".join(delimited.written(line, ",") for line in lines)


def as_latex(rows: Sequence[FigureRow]) -> str:
    """A tabular for the package booktabs: a line for each method on each task, a column for each
    figure."""
    figures = list(dict.fromkeys(row.figure for row in rows))
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in sorted(rows, key=lambda row: _order(rows, row)):
        line = cells.setdefault(_line_of(row), {})
        line[row.figure] = f"{row.mean:.3f}"
        if row.seeds > 1:
            line[row.figure] += f" $\\pm$ {row.deviation:.3f}"
    lines = [
        f"\\begin{{tabular}}{{lll{'r' * len(figures)}}}",
        "\\toprule",
        _latex_line(["task", "rows", "method", *figures]),
    ]
    task = None
    for key, by_figure in cells.items():
        if key[0] != task:
            lines.append("\\midrule")
            task = key[0]
        texts = [by_figure.get(figure, "--") for figure in figures]
        lines.append(f"{' & '.join([*map(_escaped, key), *texts])} \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _order(rows: Sequence[FigureRow], row: FigureRow) -> int:
    """Where a row's task first occurs, so that the lines of a task stand together."""
    return next(number for number, other in enumerate(rows) if other.task == row.task)


def _latex_line(texts: Sequence[str]) -> str:
    return f"{' & '.join(map(_escaped, texts))} \\\\"


def _escaped(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return " ".join(text.translate(LATEX_ESCAPES).split())
