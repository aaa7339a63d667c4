"""The table in the terminal and the page."""

import io

import pytest
from rich.console import Console

from ptune.reports.pages import probe_page
from ptune.reports.schemas import summarise
from ptune.reports.trial_results import AnsweredRow, Evaluation, FactsResult, Wording


def single(method, problem, hits, history=(), **values):
    example = AnsweredRow(
        row={"subject": f"<b>{problem}</b>"}, right="austria", answers=["austria", "france"]
    )
    figures = {"p@1": hits, "p@10": 1.0, "mrr": 0.5, "filtered p@1": hits}
    wordings = [
        Wording(template="[X]", dev=0.5, test=0.25),
        Wording(template="in [X]", dev=0.9, test=0.75),
    ]
    return FactsResult(
        method=method,
        problem=problem,
        seed=0,
        figures=figures,
        rows=20,
        template="{soft:3} {subject} {mask}",
        trained=5,
        kept=3,
        wordings=wordings if method == "manual" else [],
        history=list(history),
        best=history[-1] if history else None,
        examples=[example],
        nearest=[["vienna", "wien"]] if method == "p-tuning" else [],
    ).model_copy(update=values)


LOOKS = [
    Evaluation(step=5, epoch=1.0, loss=2.0, dev_loss=1.0, dev=0.3),
    Evaluation(step=10, epoch=2.0, loss=1.0, dev_loss=0.5, dev=0.6),
]
RUNS = [
    single("manual", "P36", 0.2),
    single("p-tuning", "P36", 0.6, LOOKS),
    single("p-tuning", "P30", 0.4, LOOKS),
]
RESULTS = summarise(
    RUNS,
    titles={"manual": "Manual prompt", "p-tuning": "P-tuning"},
    tuned=set(),
    majority={"P36": 0.1, "P30": 0.3},
    dropped={"P36": 4},
    settings={"lm": "tiny", "allowed": 50, "seeds": 1},
    versions={"ptune": "0"},
)
LABELS = {"P36": "capital", "P30": "P30"}


def test_the_table():
    out = io.StringIO()
    Console(file=out, width=120).print(probe_page.table(RESULTS, LABELS))
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert "P36 capital 20 0.100 0.200 0.600" in lines
    assert "P30 20 0.300 - 0.400" in lines, "a method that was not run there has no figure"
    assert "mean of relations 0.200 0.200 0.500" in lines


def test_the_wordings_line_takes_the_best_on_dev():
    assert (
        "0.750; from the worst wording to the best it moves by 0.500"
        in probe_page.wordings_line(RESULTS)
    )


def test_the_page(tmp_path):
    probe_page.write(
        RESULTS, single=RUNS, labels=LABELS, notes=["Read with care."], folder=tmp_path
    )
    page = (tmp_path / "report.html").read_text()
    for expected in (
        "Read with care.",
        "P-tuning",
        "0.600",
        "vienna",
        "capital",
        "&lt;b&gt;P36&lt;/b&gt;",
    ):
        assert expected in page
    assert "<b>P36</b>" not in page, "text of rows is text"
    assert page.count("<svg") == 1, "learning curves"
    assert page.count('<figure class="dots"') == 2, "methods, and relations"
    assert "src=" not in page and "href=" not in page.replace('xlink:href="#', "").replace(
        'href="#', ""
    ), "one page that needs no other file"


@pytest.mark.parametrize("name", ["P1.2", "0", "items", "a b/c"])
def test_a_relation_may_have_any_name(name, tmp_path):
    single_results = [single("manual", name, 0.25), single("p-tuning", name, 0.5, LOOKS)]
    results = summarise(
        single_results,
        titles={"manual": "Manual prompt", "p-tuning": "P-tuning"},
        tuned=set(),
        majority={name: 0.1},
        dropped={name: 4},
        settings={"lm": "tiny", "allowed": 50},
        versions={},
    )
    probe_page.write(results, single=single_results, labels={name: name}, notes=[], folder=tmp_path)
    assert "<td>20<td>4<td>0.100" in (tmp_path / "report.html").read_text()


def test_what_diverged_is_marked_in_table_and_page(tmp_path):
    gone = single("p-tuning", "P36", 0.0, figures={}, diverged=True, examples=[], nearest=[])
    single_results = [
        single("manual", "P36", 0.25),
        gone,
        single("fine-tune", "P36", 0.5, LOOKS, diverged=True),
    ]
    titles = {"manual": "Manual prompt", "p-tuning": "P-tuning", "fine-tune": "Fine-tuning"}
    results = summarise(
        single_results,
        titles=titles,
        tuned=set(),
        majority={"P36": 0.1},
        dropped={},
        settings={"lm": "tiny", "allowed": 50},
        versions={},
    )
    out = io.StringIO()
    Console(file=out, width=80).print(probe_page.table(results, {"P36": "capital"}))
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert (
        "P36 capital 20 0.100 0.250 diverged 0.500 \u2020" in lines
        and "MRR 0.500 - 0.500" in lines
        and "\u2026" not in out.getvalue()
    )
    assert any("in some of the seeds or relations training diverged" in line for line in lines)
    probe_page.write(
        results, single=single_results, labels={"P36": "capital"}, notes=[], folder=tmp_path
    )
    page = (tmp_path / "report.html").read_text()
    assert page.count('<td class="figure">diverged') == 2, "of the method and of the relation"
    assert "0.500 \u2020" in page
    assert (
        "P36, p-tuning, seed 0: the training diverged; it had no finite state to keep, and has no "
        "figures." in page
    )
    assert (
        "P36, fine-tune, seed 0: the training diverged; the figures are those of its best state "
        "before that." in page
    )


def test_relations_are_ordered_by_what_was_gained(tmp_path):
    """P1 gains 0.1, P2 0.5; P3 loses 0.25."""
    hits = {"P1": (0.5, 0.6), "P2": (0.25, 0.75), "P3": (0.5, 0.25)}
    single_results = [
        single(method, name, values[number])
        for number, method in enumerate(("manual", "p-tuning"))
        for name, values in hits.items()
    ]
    titles = {"manual": "Manual prompt", "p-tuning": "P-tuning"}
    majority = dict.fromkeys(hits, 0.0)
    settings = {"lm": "tiny", "allowed": 50}
    results = summarise(
        single_results,
        titles=titles,
        tuned=set(),
        majority=majority,
        dropped={},
        settings=settings,
        versions={},
    )
    probe_page.write(
        results,
        single=single_results,
        labels={name: name for name in hits},
        notes=[],
        folder=tmp_path,
    )
    page = (tmp_path / "report.html").read_text()
    table = page[page.index("<th>gain") :]
    assert table.index("<td>P2") < table.index("<td>P1") < table.index("<td>P3")
    assert "<td>+0.500" in table and "<td>-0.250" in table
    assert "On 2 of 3 relations the best method is above Manual prompt." in page
    assert "<strong>P-tuning</strong> is best: P@1 0.533, 0.116 above Manual prompt" in page
