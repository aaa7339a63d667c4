"""What the page of a sweep draws."""

import re

from ptune.reports.pages import sweep_page
from ptune.reports.sweep_results import SweepOutcome, SweepResults


def run(number, method, rate, dev):
    settings = {"method": method, "train.learning_rate": rate, "train.seed": str(number)}
    figures = {} if dev is None else {"accuracy": dev}
    name, command = f"run{number}", "ptune train"
    return SweepOutcome(
        name=name, task="t", settings=settings, command=command, dev=dev, figures=figures
    )


def drawn(folder, *runs):
    sweep_page.write(SweepResults(runs=[run(n, *one) for n, one in enumerate(runs)]), folder)
    labels = re.findall(r'aria-label="([^"]*)"', (folder / "report.html").read_text())
    return [label for label in labels if label.startswith("Settings")]


def test_each_setting_is_a_line_to_its_mean_on_dev(tmp_path):
    runs = [
        ("p-tuning", "0.01", 0.5),
        ("p-tuning", "0.01", 0.7),
        ("prompt-tuning", "0.1", 0.8),
        ("prompt-tuning", "1", None),
    ]
    assert drawn(tmp_path, *runs) == [
        "Settings and their mean score on dev: prompt-tuning, 0.1: 0.800; p-tuning, 0.01: 0.600"
    ]
    assert drawn(tmp_path, *runs[:2]) == []
    assert drawn(tmp_path, ("p-tuning", "0.01", 0.5), ("p-tuning", "0.1", 0.5)) == []


def test_numbers_stand_by_size_and_words_as_they_come():
    assert sweep_page._heights(["10", "9", "10"]) == {"9": 0.25, "10": 0.75}
    assert list(sweep_page._heights(["b", "", "a"])) == ["b", "", "a"]
