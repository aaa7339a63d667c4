"""Figures of runs, probes and comparisons as CSV and LaTeX."""

import csv
import io
import re

import pytest

from ptune.base import files
from ptune.errors import ConfigError, StoreError
from ptune.experiments import report_runs
from ptune.reports import figure_files
from ptune.reports.pages import runs_page
from ptune.reports.schemas import Cell, Comparison, Run, summarise
from ptune.reports.trial_results import FactsResult


def save_run(folder, title, seed, accuracy, **values):
    run = Run(
        name="tickets",
        method="m",
        title=title,
        template="{x} {mask}",
        lm="tiny",
        lm_parameters=5,
        trained_parameters=0,
        kept_parameters=0,
        rows={"train": 36, "test": 12},
        figures={"accuracy": accuracy},
        settings={"train": {"seed": seed}},
        **values,
    )
    files.write_json(folder / "run.json", run.model_dump(mode="json"))
    return folder


@pytest.fixture
def folders(tmp_path):
    single = FactsResult(
        method="manual",
        problem="P36",
        seed=0,
        figures={"p@1": 0.25},
        rows=20,
        template="t",
        trained=0,
        kept=0,
    )
    probe = summarise(
        [single],
        titles={"manual": "Manual prompt"},
        tuned=set(),
        majority={"P36": 0.1},
        dropped={},
        settings={},
        versions={},
    )
    files.write_json(tmp_path / "probe" / "results.json", probe.model_dump(mode="json"))
    cell = Cell(
        task="trec",
        shots=16,
        method="pet",
        metric="accuracy",
        seeds=3,
        rows={},
        mean={"accuracy": 0.5},
        deviation={"accuracy": 0.0125},
        trained_parameters=0,
        kept_parameters=0,
        seconds=1,
    )
    comparison = Comparison(cells=[cell], titles={"pet": "PET & co_1"}, settings={}, versions={})
    files.write_json(tmp_path / "compare" / "results.json", comparison.model_dump(mode="json"))
    return [
        save_run(tmp_path / "a", "P-tuning", 0, 0.5, intervals={"accuracy": (0.25, 0.75)}),
        save_run(tmp_path / "b", "P-tuning", 1, 0.7, intervals={"accuracy": (0.5, 1.0)}),
        tmp_path / "probe",
        tmp_path / "compare",
    ]


def test_a_name_with_a_carriage_return_stays_in_its_cell():
    row = figure_files.FigureRow("a\rb", "", "m", "p@1", mean=0.1, deviation=0.0, seeds=1)
    _, read = csv.reader(io.StringIO(figure_files.as_csv([row]), newline=""))
    assert read == ["a\rb", "", "m", "p@1", "0.1", "0.0", "1", "", ""]


def test_csv_has_a_line_for_each_figure(folders, tmp_path):
    figure_files.write(folders, tmp_path / "table.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    columns = ["task", "rows", "method", "figure", "mean", "deviation", "seeds", "low", "high"]
    assert list(rows[0]) == columns
    assert [(row["low"], row["high"]) for row in rows] == [("0.375", "0.875"), *[("", "")] * 3]
    assert [(row["task"], row["method"], row["seeds"]) for row in rows] == [
        ("tickets", "P-tuning", "2"),
        ("mean of relations", "Manual prompt", "1"),
        ("P36", "Manual prompt", "1"),
        ("trec", "PET & co_1", "3"),
    ]
    assert float(rows[0]["mean"]) == pytest.approx(0.6)
    assert float(rows[0]["deviation"]) == pytest.approx(0.02**0.5)


def test_latex_has_a_line_for_each_method(folders, tmp_path):
    figure_files.write(folders, tmp_path / "table.tex")
    lines = (tmp_path / "table.tex").read_text().splitlines()
    assert lines[0] == r"\begin{tabular}{lllrr}" and lines[-1] == r"\end{tabular}"
    assert r"task & rows & method & accuracy & p@1 \\" in lines
    assert r"tickets & 36 & P-tuning & 0.600 $\pm$ 0.141 & -- \\" in lines
    assert r"P36 &  & Manual prompt & -- & 0.250 \\" in lines
    assert r"trec & 16 of each label & PET \& co\_1 & 0.500 $\pm$ 0.013 & -- \\" in lines
    assert lines.count(r"\midrule") == 4


def test_no_folder_hides_the_figures_of_another(folders, tmp_path):
    """Two comparisons and two probes of the same method on the same task, as on two LMs."""
    mine = folders[2:]
    for folder in mine:
        text = (folder / "results.json").read_text()
        other = text.replace("0.25", "0.75").replace('"accuracy": 0.5', '"accuracy": 0.625')
        files.write_text(tmp_path / "other" / folder.name / "results.json", other)
    others = [tmp_path / "other" / folder.name for folder in mine]
    figure_files.write([*mine, *others], tmp_path / "table.tex")
    lines = (tmp_path / "table.tex").read_text().splitlines()
    shown = [re.findall(r"0\.\d{3}", line) for line in lines if line.startswith("P36")]
    assert shown == [["0.250"], ["0.750"]]
    written = figure_files.figure_rows([*mine, *others])
    by_method = {(row.task, row.method): row.mean for row in written}
    assert len(by_method) == len(written) == 6
    assert by_method["trec", f"PET & co_1, {mine[1]}"] == 0.5
    assert by_method["trec", f"PET & co_1, {others[1]}"] == 0.625
    alone = [row.method for row in figure_files.figure_rows([mine[0], others[1]])]
    assert alone == ["Manual prompt", "Manual prompt", "PET & co_1"]


def test_report_writes_table_and_page(folders, tmp_path, capsys):
    report_runs.report(folders, tmp_path / "page", tmp_path / "table.csv")
    assert "tickets: figures on the test rows" in capsys.readouterr().out
    assert (tmp_path / "page" / "report.html").exists() and (tmp_path / "table.csv").exists()
    report_runs.report(folders[2:], tmp_path / "none", tmp_path / "other.tex")
    assert not (tmp_path / "none").exists(), "probes and comparisons have pages of their own"


@pytest.mark.parametrize("name", ["table.csv", "table.tex"])
def test_a_table_takes_the_place_of_a_table_of_figures_alone(folders, tmp_path, name):
    figure_files.write(folders[:1], tmp_path / name)
    before = (tmp_path / name).read_text()
    figure_files.write(folders, tmp_path / name)
    assert (tmp_path / name).read_text() != before
    for foreign in ("text,label\na,b\n", "", "\\begin{tabular}{lllr}\n\\hline\n"):
        (tmp_path / name).write_text(foreign)
        with pytest.raises(ConfigError, match="is there already: .* no table that ptune report"):
            report_runs.report(folders, tmp_path / "page", tmp_path / name)
        assert (tmp_path / name).read_text() == foreign
    (tmp_path / f"folder{name}").mkdir()
    with pytest.raises(ConfigError, match="is a folder: give --table the name of a file"):
        figure_files.write(folders, tmp_path / f"folder{name}")


def test_what_cannot_be_written_is_refused(folders, tmp_path):
    with pytest.raises(ConfigError, match=re.escape("the name must end in .csv or .tex")):
        figure_files.write(folders, tmp_path / "table.xlsx")
    with pytest.raises(StoreError, match="No run is named"):
        figure_files.write([], tmp_path / "table.csv")
    with pytest.raises(StoreError, match="holds no single run .a probe, .* and its page is"):
        runs_page.read([tmp_path / "probe"])
    (tmp_path / "probe" / "results.json").write_text("[]")
    with pytest.raises(StoreError, match="does not have the form of the results of ptune probe"):
        figure_files.write([tmp_path / "probe"], tmp_path / "table.csv")
