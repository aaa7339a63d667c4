"""The table in the terminal and the page."""
import io

from rich.console import Console

from ptune import report
from ptune.results import summarise


def single(method, problem, hits, history=()):
    example = {"row": {"subject": f"<b>{problem}</b>"}, "right": "austria", "answers": ["austria", "france"]}
    figures = {"p@1": hits, "p@10": 1.0, "mrr": 0.5, "filtered p@1": hits}
    return {"method": method, "problem": problem, "seed": 0, "figures": figures, "rows": 20, "template": "{soft:3} {subject} {mask}", "trained": 5, "kept": 3,
            "wordings": [{"template": "[X]", "dev": 0.5, "test": 0.25}, {"template": "in [X]", "dev": 0.9, "test": 0.75}] if method == "manual" else [],
            "history": list(history), "best": history[-1] if history else None, "examples": [example],
            "nearest": [["vienna", "wien"]] if method == "p-tuning" else []}


LOOKS = [{"step": 5, "epoch": 1.0, "loss": 2.0, "dev_loss": 1.0, "dev": 0.3}, {"step": 10, "epoch": 2.0, "loss": 1.0, "dev_loss": 0.5, "dev": 0.6}]
RUNS = [single("manual", "P36", 0.2), single("p-tuning", "P36", 0.6, LOOKS), single("p-tuning", "P30", 0.4, LOOKS)]
RESULTS = summarise(RUNS, {"manual": "Manual prompt", "p-tuning": "P-tuning"}, set(), {"P36": 0.1, "P30": 0.3}, {"P36": 4},
                    {"lm": "tiny", "allowed": 50, "seeds": 1}, {"ptune": "0"})
LABELS = {"P36": "capital", "P30": "P30"}


def test_the_table():
    out = io.StringIO()
    Console(file=out, width=120).print(report.table(RESULTS, LABELS))
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert "P36 capital 20 0.100 0.200 0.600" in lines
    assert "P30 20 0.300 - 0.400" in lines, "a method that was not run there has no figure"
    assert "mean of relations 0.200 0.200 0.500" in lines


def test_the_wordings_line_takes_the_best_on_dev():
    assert "0.750; from the worst wording to the best it moves by 0.500" in report.wordings_line(RESULTS)


def test_the_page(tmp_path):
    report.write(RESULTS, RUNS, LABELS, ["Read with care."], tmp_path)
    page = (tmp_path / "report.html").read_text()
    for wanted in ("Read with care.", "P-tuning", "0.600", "vienna", "capital", "&lt;b&gt;P36&lt;/b&gt;"):
        assert wanted in page
    assert "<b>P36</b>" not in page, "text of rows is text"
    assert page.count("<svg") == 2, "bars and learning curves"
    assert "src=" not in page and "href=" not in page.replace("xlink:href=\"#", "").replace("href=\"#", ""), "one page that needs no other file"
