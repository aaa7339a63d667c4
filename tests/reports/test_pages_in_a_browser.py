"""All pages in a real browser: nothing is cut on small and large screens, no script fails, and
tables are sorted by a click."""

import html
import json
import pathlib
import re
import shutil
import subprocess
import urllib.parse

import pytest
import test_compare_page
import test_probe_page
from test_runs_page import LOOKS, run

from ptune.reports.pages import compare_page, probe_page, runs_page
from ptune.reports.schemas import Comparison, Output, Reliability, WrongAnswer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS = (400, 1400)
LONG = "a long input of many words that says little about much " * 4
LABELS = ["a label of some length", "post", "money", "weather", "other"]


def label_runs():
    confusion = {right: {label: len(right + label) for label in LABELS} for right in LABELS}
    return [
        run(
            method,
            figures={"accuracy": 0.7, "f1": 0.65},
            confusion=confusion,
            calibration=[
                Reliability(rows=40, probability=0.55, accuracy=0.5),
                Reliability(rows=160, probability=0.97, accuracy=0.85),
            ],
            wrong=[
                WrongAnswer(row={"text": LONG}, right="post", answer="money", probability=0.99),
                WrongAnswer(row={"text": "x"}, right="money", answer="post", probability=0.7),
            ],
            baselines={"majority": {"accuracy": 0.3}, "tf-idf": {"accuracy": 0.72}},
            history={"t": LOOKS},
            best={"t": LOOKS[1]},
        )
        for method in ("prefix-tuning", "fine-tune")
    ]


def text_runs():
    outputs = [
        Output(
            row={"table": f"name : Eagle {number} | area : city centre | price : moderate"},
            text=f"Eagle {number} is a cheap place in the city centre.",
            references=[f"Eagle {number} is a moderately priced place in the centre."] * 4,
        )
        for number in range(3)
    ]
    return [
        run(seed=seed, figures={"bleu": 50.0 + seed, "ter": 40.0}, outputs=outputs)
        for seed in (0, 1)
    ]


def write_pages(folder: pathlib.Path) -> dict[str, str]:
    """The text of each page, by its name."""
    results = test_probe_page.RESULTS
    probe_page.write(
        results,
        single=test_probe_page.RUNS,
        labels=test_probe_page.LABELS,
        notes=["A note."],
        folder=folder,
    )
    pages = {"probe": (folder / "report.html").read_text()}
    cells = [*test_compare_page.CELLS, test_compare_page.cell("manual", 0.5, 0.1, "mr")]
    titles = test_compare_page.TITLES
    compare_page.write(Comparison(cells=cells, titles=titles, settings={}, versions={}), [], folder)
    pages["compare"] = (folder / "report.html").read_text()
    for name, runs in (("labels", label_runs()), ("texts", text_runs())):
        runs_page.write(runs, folder)
        pages[name] = (folder / "report.html").read_text()
    return pages


def in_frames(pages: dict[str, str]) -> str:
    """A page with every page in a frame of each width; faults of its script are kept."""
    keep = "<script>window.faults = []; onerror = (fault) => { faults.push(fault); };</script>"
    frames = [
        f'<iframe title="{name}" width="{width}" height="900" '
        f'srcdoc="{html.escape(page.replace("<head>", f"<head>{keep}", 1))}"></iframe>'
        for name, page in pages.items()
        for width in WIDTHS
    ]
    script = (pathlib.Path(__file__).parent / "browser.js").read_text()
    return f"<!doctype html><body>{''.join(frames)}<script>{script}</script></body>"


def number(text: str) -> float | str:
    parts = re.match(r"[+-]?\d+(\.\d+)?", text.replace(",", ""))
    return float(parts[0]) * (1e6 if " M" in text else 1) if parts else text.lower()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("dark", [False, True])
def test_pages_in_a_browser(dark, tmp_path):
    (tmp_path / "all.html").write_text(in_frames(write_pages(tmp_path)))
    done = subprocess.run(
        [
            str(CHROMIUM),
            *("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            "--virtual-time-budget=10000",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--user-data-dir={tmp_path / 'profile'}",
            (tmp_path / "all.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    result = re.search(r'<pre id="result">(.*?)</pre>', done.stdout)
    assert result, done.stderr[-2000:]
    pages = json.loads(urllib.parse.unquote(result[1]))
    assert len(pages) == 4 * len(WIDTHS)
    for page in pages:
        place = f"{page['page']} at {page['width']}"
        assert page["dark"] == dark
        assert page["faults"] == [], place
        assert page["cut"] == 0, f"{place} is cut by {page['cut']} pixels"
        assert page["columns"] or page["page"] == "texts", place
        check_sorted(page["columns"], place)


def check_sorted(columns, place):
    for column in columns:
        for direction, texts in column["clicks"]:
            assert sorted(texts) == sorted(column["before"]), f"{place}: rows were lost"
            values = [number(text) for text in texts if text not in ("", "-", "diverged")]
            assert texts[len(values) :] == [t for t in texts if t in ("", "-", "diverged")]
            expected = (
                sorted(values, key=str)
                if any(isinstance(v, str) for v in values)
                else sorted(values)
            )
            assert values == (expected if direction == "ascending" else expected[::-1]), (
                f"{place}: {column['name']} is not {direction}: {texts}"
            )
        assert {direction for direction, _ in column["clicks"]} == {"ascending", "descending"}
