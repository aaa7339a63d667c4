"""The page of a comparison: what is best stands first and is bold, and nothing else is."""

import re

from ptune.reports.pages import compare_page
from ptune.reports.schemas import Cell, Comparison


def cell(method, mean, deviation, task="trec", **values):
    return Cell(
        task=task,
        shots=16,
        method=method,
        metric="accuracy",
        seeds=3,
        rows={},
        mean={"accuracy": mean} if mean is not None else {},
        deviation={"accuracy": deviation} if mean is not None else {},
        trained_parameters=10,
        kept_parameters=0,
        seconds=1,
        **values,
    )


TITLES = {"majority": "Majority", "manual": "Manual", "pet": "PET", "head": "<b>Head</b>"}
CELLS = [
    cell("majority", 0.4, 0.0, baseline=True),
    cell("manual", 0.5, 0.3),
    cell("pet", 0.8, 0.02),
    cell("head", 0.79, 0.2),
]


def page(cells, folder):
    results = Comparison(cells=cells, titles=TITLES, settings={}, versions={})
    compare_page.write(results, [], folder)
    return (folder / "report.html").read_text()


def test_only_the_best_and_what_is_within_its_deviation_is_bold(tmp_path):
    text = page(CELLS, tmp_path)
    assert re.findall(r'<td class="figure best">([^<\n]*)', text) == [
        "0.800 ± 0.020",
        "0.790 ± 0.200",
    ]
    results = Comparison(cells=CELLS, titles=TITLES, settings={}, versions={})
    column = compare_page.tables(results)[0].columns[1]
    assert [str(cell) for cell in column.cells if cell.style == "bold"] == [
        "0.800 ± 0.020",
        "0.790 ± 0.200",
    ]


def test_the_answer_stands_first(tmp_path):
    text = page([*CELLS, *(cell(m, 0.5, 0.1, "mr") for m in ("manual", "pet"))], tmp_path)
    first = text[text.index("<h1>") : text.index("<h2>")]
    assert "16 rows of each label, over 2 tasks: " in first
    assert "<strong>PET</strong> is best: a mean of 0.650, 0.150 above Manual" in first
    assert "the baseline Majority (0.400 ± 0.000)" in text
    assert "<b>Head</b>" not in text, "text is text"


def test_a_comparison_without_any_figure_has_a_page(tmp_path):
    text = page([cell("manual", None, None, impossible="no mask")], tmp_path)
    assert '<span title="no mask">-</span>' in text and 'class="dots"' not in text


def test_intervals_over_test_rows_stand_beside_deviations(tmp_path):
    ends = {"accuracy": (0.75, 0.862)}
    cells = [*CELLS[:2], cell("pet", 0.8, 0.02, intervals=ends)]
    assert "0.750 to 0.862" in page(cells, tmp_path)
    results = Comparison(cells=cells, titles=TITLES, settings={}, versions={})
    caption = compare_page.tables(results)[0].caption
    assert "With other test rows a figure may be up to 0.056 off (95 %)." in caption
