"""Trained runs side by side: the table and the page."""

import io
import re

import pytest
from rich.console import Console

from ptune.base import files
from ptune.errors import ConfigError, StoreError
from ptune.experiments import report_runs
from ptune.reports.pages import runs_page
from ptune.reports.pages.parts import run_plots
from ptune.reports.pages.parts.run_columns import columns_of
from ptune.reports.schemas import Output, Run

TITLES = {"prefix-tuning": "Prefix-tuning", "fine-tune": "Fine-tuning"}
LOOKS = [
    {"step": 5, "epoch": 1.0, "loss": 2.0, "dev_loss": 1.0, "dev": -1.0},
    {"step": 10, "epoch": 2.0, "loss": 1.0, "dev_loss": 0.5, "dev": -0.5},
]


def run(method="prefix-tuning", seed=0, figures=None, rows=1000, test=20, train=None, **fields):
    """A run that is whole, but for what is left to its defaults."""
    values = {
        "name": "e2e",
        "method": method,
        "title": TITLES[method],
        "template": "{prefix:5} {table} {answer}",
        "lm": "tiny",
        "lm_parameters": 2_000_000,
        "trained_parameters": 900,
        "kept_parameters": 300,
        "rows": {"train": rows, "dev": 10, "test": test},
        "figures": figures or {"bleu": 50.0},
        "seconds": {"train": 90.0},
        "settings": {"train": {"seed": seed, **(train or {})}, "out": f"out/{method}-{seed}"},
    }
    return Run(**{**values, **fields})


def cells(runs):
    """The table as text: for each row its cells by the column's label; the best in stars."""
    drawn = runs_page.table(runs)
    labels = [str(column.header) for column in drawn.columns]
    rows = zip(
        *[
            [
                f"*{cell}*" if getattr(cell, "style", "") == "bold" else str(cell)
                for cell in column.cells
            ]
            for column in drawn.columns
        ]
    )
    return {row[0]: dict(zip(labels[1:], row[1:])) for row in rows}


def page(runs, folder):
    runs_page.write(runs, folder)
    return (folder / "report.html").read_text()


SEEDS = [
    run(seed=seed, figures={"bleu": bleu, "ter": ter}, seconds={"train": 60.0 * minutes})
    for seed, bleu, ter, minutes in ((0, 60.0, 40.0, 1), (1, 62.0, 42.0, 2), (2, 67.0, 44.0, 3))
]
TUNED = run(
    "fine-tune",
    figures={"bleu": 65.0, "ter": 45.0, "accuracy": 0.12345},
    trained_parameters=2_000_000,
    kept_parameters=2_000_000,
)


def test_seeds_are_gathered_in_the_table():
    """60, 62, 67: the mean is 63 and the deviation the root of (9 + 1 + 16) / 2."""
    figures = cells([SEEDS[0], TUNED, *SEEDS[1:]])
    assert figures == {
        "BLEU": {"Prefix-tuning": "63.00 ± 3.61", "Fine-tuning": "*65.00*"},
        "TER ↓": {"Prefix-tuning": "*42.00 ± 2.00*", "Fine-tuning": "45.00"},
        "accuracy": {"Prefix-tuning": "-", "Fine-tuning": "0.123"},
        "seeds": {"Prefix-tuning": "3", "Fine-tuning": "1"},
        "trained parameters": {"Prefix-tuning": "900", "Fine-tuning": "2.0 M"},
        "kept parameters": {"Prefix-tuning": "300", "Fine-tuning": "2.0 M"},
        "training rows": {"Prefix-tuning": "1,000", "Fine-tuning": "1,000"},
        "minutes of training": {"Prefix-tuning": "2.0 ± 1.0", "Fine-tuning": "1.5"},
    }


def test_seeds_are_gathered_on_the_page(tmp_path):
    text = page([*SEEDS, TUNED], tmp_path)
    for expected in (
        '<td class="figure best">65.00',
        '<td class="figure best">42.00 ± 2.00',
        '<td class="figure">63.00 ± 3.61',
        '<td class="figure">45.00',
        '<td class="figure">2.0 ± 1.0',
        "tiny with 2.0 M parameters",
        "Prefix-tuning, seed 2",
    ):
        assert expected in text


def test_intervals_over_test_rows_are_means_over_seeds(tmp_path):
    runs = [
        run(seed=n, figures={"accuracy": 0.5}, intervals={"accuracy": (0.25 + n / 4, 0.75)})
        for n in range(2)
    ]
    assert "0.375 to 0.750" in page(runs, tmp_path)
    assert "in 95 of 100 redraws" in page(runs, tmp_path)
    assert "0.375 to 0.750" in str(cells(runs))
    assert "redraws" not in page([run(figures={"accuracy": 0.5})], tmp_path)


def test_figures_that_show_the_same_are_both_the_best():
    figures = cells(
        [run(figures={"bleu": 50.001, "ter": 3.0}), run("fine-tune", figures={"bleu": 49.999})]
    )
    assert figures["BLEU"] == {"Prefix-tuning": "*50.00*", "Fine-tuning": "*50.00*"}
    assert figures["TER ↓"] == {"Prefix-tuning": "3.00", "Fine-tuning": "-"}, (
        "the only one is not called the best"
    )


def test_parts_stand_under_the_whole(tmp_path):
    parts = {"seen": {"bleu": 60.0}, "unseen": {"bleu": 40.0}}
    figures = cells([run(parts=parts), run("fine-tune")])
    assert list(figures)[:3] == ["BLEU", "BLEU, seen", "BLEU, unseen"] and figures[
        "BLEU, unseen"
    ] == {
        "Prefix-tuning": "40.00",
        "Fine-tuning": "-",
    }
    assert "<th>unseen<th>BLEU" in page([run(parts=parts)], tmp_path)


@pytest.mark.parametrize(
    ("run_a", "run_b", "labels"),
    [
        (run(), run(), ["Prefix-tuning", "Prefix-tuning (2)"]),
        (run(), run(seed=None), ["Prefix-tuning", "Prefix-tuning (2)"]),
        (run(), run(seed=1, lm="big"), ["Prefix-tuning, tiny", "Prefix-tuning, big"]),
        (
            run(rows=50),
            run(seed=1, template="{prefix:1}"),
            ["Prefix-tuning, 50 rows", "Prefix-tuning, 1,000 rows"],
        ),
        (
            run(),
            run(seed=1, template="{prefix:1}"),
            ["Prefix-tuning, {prefix:5} {table} {answer}", "Prefix-tuning, {prefix:1}"],
        ),
        (
            run(train={"clip_at": None}),
            run(seed=1, train={"clip_at": 0.1}),
            ["Prefix-tuning, clip at default", "Prefix-tuning, clip at 0.1"],
        ),
    ],
)
def test_runs_that_differ_in_more_than_the_seed_stay_apart(run_a, run_b, labels):
    assert list(cells([run_a, run_b])["BLEU"]) == labels


def test_tasks_are_compared_each_on_its_own(tmp_path):
    runs = [
        run(figures={"bleu": 50.0}),
        run("fine-tune", figures={"bleu": 40.0}),
        run(figures={"bleu": 90.0}, name="webnlg", rows=5),
    ]
    figures = cells(runs)
    assert figures["task"] == {
        "Prefix-tuning, e2e": "e2e",
        "Fine-tuning": "e2e",
        "Prefix-tuning, webnlg": "webnlg",
    }
    assert figures["BLEU"] == {
        "Prefix-tuning, e2e": "*50.00*",
        "Fine-tuning": "40.00",
        "Prefix-tuning, webnlg": "90.00",
    }
    assert re.findall("<h2>(.*)</h2>", page(runs, tmp_path)) == [
        "Figures on the test rows, e2e",
        "Figures on the test rows, webnlg",
        "Settings and versions",
    ]


def test_other_test_rows_are_told():
    assert cells([run(), run("fine-tune", test=7)])["test rows"] == {
        "Prefix-tuning": "20",
        "Fine-tuning": "7",
    }


def test_square_brackets_are_no_markup():
    out = io.StringIO()
    Console(file=out, width=100).print(
        runs_page.table([run(title="[bold]Way[/bold]", name="[red]", figures={"[/x]": 1.0})])
    )
    assert (
        "[bold]Way[/bold]" in out.getvalue()
        and "[/x]" in out.getvalue()
        and "[red]: figures" in out.getvalue()
    )


def test_the_low_data_plot():
    runs = [
        run(method, seed, {"ter": 1.0, "rouge-l": 10.0 + seed}, rows)
        for method in TITLES
        for rows in (0, 50, 1000)
        for seed in (0, 1)
    ]
    plot = run_plots.low_data_plot(runs)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", plot)
    assert {"0", "50", "1,000", "training rows", "ROUGE-L"} <= set(texts)
    assert texts.count("Prefix-tuning") == texts.count("Fine-tuning") == 1, "a line a method"
    assert (
        run_plots.low_data_plot(runs[:2])
        == run_plots.low_data_plot([])
        == ""
        != run_plots.low_data_plot(runs[:3])
    )
    assert run_plots.low_data_plot([run(), run(rows=50, figures={"nist": 1.0})]) == "", (
        "one of them has no BLEU"
    )


def test_the_low_data_plot_has_means_and_deviations(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "matplotlib.axes.Axes.errorbar", lambda self, *values, **style: drawn.append(values)
    )
    monkeypatch.setattr("matplotlib.figure.Figure.legend", lambda self, **style: None)
    other = [
        run(figures={"bleu": 30.0}, rows=50),
        run(figures={"bleu": 20.0}, rows=50, train={"epochs": 9}),
    ]
    run_plots.low_data_plot([*SEEDS, *other])
    assert [list(map(list, values)) for values in drawn] == [
        [[50, 1000], [30.0, 63.0], [0.0, 13**0.5]],
        [[50], [20.0], [0.0]],
    ], "runs with other settings are no seeds of one another"


def test_the_page_is_whole(tmp_path):
    runs = [
        run(
            rows=rows,
            history={"e2e": LOOKS},
            best={"e2e": LOOKS[1]},
            outputs=[Output(row={"table": "a : b"}, text="A is b.", references=["B is a."])],
            dev_score=score,
            left_out={"meteor": "no WordNet"},
            versions={"torch": "9.9"},
        )
        for rows, score in ((50, "bleu"), (1000, "minus the dev loss"))
    ]
    text = page(runs, tmp_path)
    assert re.findall("<h2>(.*)</h2>", text) == [
        "Figures on the test rows",
        "By the number of training rows",
        "Learning curves",
        "Texts beside references",
        "Settings and versions",
    ]
    assert text.count("<svg") == 2 and text.count('<figure class="dots"') == 1
    for expected in (
        ">BLEU on dev</text>",
        "a : b",
        "B is a.",
        "METEOR is left out: no WordNet",
        "9.9",
        "{prefix:5} {table} {answer}",
        "&#34;seed&#34;: 0",
    ):
        assert expected in text
    assert (
        "src=" not in text
        and "href=" not in re.sub('(xlink:)?href="#', "", text)
        and "@import" not in text
    ), "one page that needs no other file"


def test_texts_stand_side_by_side(tmp_path):
    rows = [{"table": f"name : {number}", "more": [1]} for number in range(33)]

    def outputs(word, order):
        return [
            Output(
                row=rows[number],
                text=f"{word} {number}",
                references=[f"right {number}", "b", "c", "d"],
            )
            for number in order
        ]

    runs = [
        run(outputs=outputs("first", range(33))),
        run(seed=1, outputs=outputs("second", range(33))),
        run("fine-tune", outputs=outputs("right", reversed(range(33))), left_out={"meteor": "why"}),
    ]
    text = page(runs, tmp_path)
    shown = re.findall(r'<tr><td data-of="input">.*?</tr>', text, re.S)
    assert len(shown) == 30
    printed = [text for text in re.split(r"<[^>]*>|\s*\n\s*", shown[3]) if text.strip()]
    assert printed == [
        "table",
        "name : 3",
        "more",
        "[",
        "1",
        "]",
        "right 3",
        "b",
        "c",
        "1 more",
        "d",
        *("first", "right", " 3"),
        "with other seeds",
        "1: ",
        *("second", "right", " 3"),
        "right 3",
    ]
    assert shown[3].count('class="text right"') == 1
    assert "METEOR is left out (Fine-tuning): why" in text


def test_text_is_text(tmp_path):
    bad = "<script>alert('$x_1$ & \u4e2d')</script>"
    runs = [
        run(
            title=title,
            name=bad,
            template=bad,
            lm=bad,
            dev_score=bad,
            figures={bad: 1.0, "bleu": bleu},
            parts={bad: {bad: 1.0}},
            rows=rows,
            history={bad: LOOKS},
            left_out={bad: bad},
            settings={bad: bad},
            versions={bad: bad},
            outputs=[Output(row={bad: bad, "list": [bad]}, text=bad, references=[bad])],
        )
        for rows, title, bleu in ((1, bad, 1.0), (2, bad + bad, 2.0))
    ]
    text = page(runs, tmp_path)
    assert "<script>" not in text
    assert "alert('" not in re.sub("<svg.*?</svg>", "", text, flags=re.S)
    assert text.count("&lt;script&gt;") > 30 and text.count("$x_1$") > 30


def test_a_run_of_little(tmp_path):
    bare = {
        "name": "t",
        "method": "manual",
        "title": "Manual prompt",
        "template": "{x} {mask}",
        "lm": "tiny",
        "lm_parameters": 5,
        "trained_parameters": 0,
        "kept_parameters": 0,
        "rows": {},
    }
    files.write_json(tmp_path / "run.json", bare)
    runs = runs_page.read([tmp_path])
    assert runs == [Run(**bare)]
    assert cells(runs)["minutes of training"] == {"Manual prompt": "-"}
    assert "<svg" not in page(runs, tmp_path)
    assert "<svg" not in page([Run(**bare, history={"t": []})], tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"name": "e2e", ', "is not valid JSON"),
        (
            "[]",
            "does not have the form of a run of ptune train: Input should be a valid dictionary",
        ),
        (
            run().model_dump_json(exclude={"title"}),
            "does not have the form of a run of ptune train: title: Field required.",
        ),
        (
            run().model_dump_json().replace('"bleu":50.0', '"bleu":"many"'),
            "figures.bleu: Input should be a valid number",
        ),
    ],
)
def test_a_run_that_is_damaged(tmp_path, content, message):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(StoreError, match=re.escape(message)) as caught:
        runs_page.read([tmp_path])
    assert str(tmp_path / "run.json") in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_that_is_missing(tmp_path):
    with pytest.raises(StoreError, match=re.escape(f"There is no folder {tmp_path / 'none'}.")):
        runs_page.read([tmp_path / "none"])
    with pytest.raises(StoreError, match="There is no finished run of ptune train in"):
        runs_page.read([tmp_path])
    with pytest.raises(StoreError, match="No run is named"):
        runs_page.read([])


def test_report(tmp_path, capsys):
    files.write_json(tmp_path / "one" / "run.json", TUNED.model_dump(mode="json"))
    report_runs.report([tmp_path / "one"], tmp_path / "out")
    printed = capsys.readouterr().out
    assert "e2e: figures on the test rows" in printed and "65.00" in printed
    assert (
        printed.endswith(f"Report: {tmp_path / 'out' / 'report.html'}\n")
        and (tmp_path / "out" / "report.html").exists()
    )


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_a_report_in_the_place_of_a_file_is_refused_before_its_table(out, tmp_path, capsys):
    files.write_json(tmp_path / "one" / "run.json", TUNED.model_dump(mode="json"))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="file is a file, and .* is to be a folder"):
        report_runs.report([tmp_path / "one"], tmp_path / out)
    assert not capsys.readouterr().out and (tmp_path / "file").read_text() == "mine"


def test_runs_that_diverged_are_marked(tmp_path, capsys):
    runs = [run(diverged=["e2e"]), TUNED, run(seed=1, lost=["e2e/anna"])]
    figures = cells(runs)
    assert figures["BLEU"] == {"Prefix-tuning": "50.00 ± 0.00 †", "Fine-tuning": "*65.00*"}
    assert (
        "training diverged" in runs_page.table(runs).caption
        and runs_page.table([TUNED]).caption is None
    )
    text = page(runs, tmp_path)
    assert (
        "50.00 ± 0.00 †" in text
        and "Prefix-tuning, seed 0: the training of e2e diverged; its best state before that is "
        "kept."
        in text
    )
    assert (
        "Prefix-tuning, seed 1: the training of e2e/anna diverged and left nothing to keep." in text
    )


def test_baselines_stand_below_the_figures(tmp_path):
    beside = {"majority": {"accuracy": 0.25}, "linear-probe": {"accuracy": 0.75}}
    runs = [
        run(figures={"accuracy": 0.5}, baselines=beside),
        run("fine-tune", figures={"accuracy": 0.625}),
    ]
    figures = cells(runs)
    assert (
        figures["baseline: Majority"] == {"Prefix-tuning": "0.250", "Fine-tuning": "-"}
        and "baseline: TF-IDF, logistic regression" not in figures
    )
    assert figures["baseline: Linear probe on the LM"]["Prefix-tuning"] == "0.750"
    assert "baseline: Linear probe on the LM" in page(runs, tmp_path)


def test_a_page_does_not_take_the_place_of_a_runs_own(tmp_path, capsys):
    files.write_json(tmp_path / "one" / "run.json", TUNED.model_dump(mode="json"))
    runs_page.write([TUNED], tmp_path / "one")
    before = (tmp_path / "one" / "report.html").read_bytes()
    with pytest.raises(ConfigError, match="one holds a run, whose page would be overwritten"):
        report_runs.report([tmp_path / "one"], tmp_path / "one")
    assert (tmp_path / "one" / "report.html").read_bytes() == before
    for place in ("Report: ", "Report (in place of the page that stood there): "):
        report_runs.report([tmp_path / "one"], tmp_path)
        assert f"{place}{tmp_path / 'report.html'}" in capsys.readouterr().out


def test_a_page_does_not_take_the_place_of_a_foreign_one(tmp_path):
    files.write_json(tmp_path / "one" / "run.json", TUNED.model_dump(mode="json"))
    (tmp_path / "report.html").write_text("<!doctype html><title>mine</title>")
    with pytest.raises(
        ConfigError, match="report.html is no page of this version of ptune, and would be"
    ):
        report_runs.report([tmp_path / "one"], tmp_path)
    assert "mine" in (tmp_path / "report.html").read_text()


def test_without_test_rows_the_dev_score_is_shown_by_its_name(tmp_path):
    runs = [
        Run(**{**run(seed=seed).model_dump(), "figures": {}}).model_copy(
            update={"dev_score": "accuracy", "best": {"e2e": {"epoch": 1.0, "dev": dev}}}
        )
        for seed, dev in ((0, 0.5), (1, 0.75))
    ]
    title = "accuracy on dev rows (there are no test rows)"
    assert cells(runs)[title] == {"Prefix-tuning": "0.625 ± 0.177"}
    text = page(runs, tmp_path)
    assert title in text and "No test rows. " in text
    assert "reaches on the dev rows accuracy 0.625 ± 0.177." in text
    assert "chosen by it" in text


def test_the_answer_stands_in_the_first_screen(tmp_path):
    text = page([*SEEDS, TUNED], tmp_path)
    first = text[text.index("<h1>") : text.index("<h2>")]
    assert "<strong>Fine-tuning</strong> is best: BLEU 65.00, 2.00 above Prefix-tuning" in first


def test_confused_labels_stand_on_the_page(tmp_path):
    confusion = {"<i>a</i>": {"<i>a</i>": 2, "b": 1}, "b": {"<i>a</i>": 0, "b": 3}}
    text = page([run(confusion=confusion, figures={"accuracy": 5 / 6})], tmp_path)
    assert "<tr><td>b<td>3<td>0.750<td>1.000<td>0.857</tr>" in text
    assert '<td style="--share:0.333">1' in text and "<i>a</i>" not in text


def test_losses_of_texts_are_drawn_a_token():
    """20 tokens an answer in training and 10 on dev: losses of 2.0 and 1.0 are 0.1 a token."""
    tokens = {"t": {"train": 20.0, "dev": 10.0}}
    history, best = {"t": LOOKS}, {"t": LOOKS[1]}
    runs = [run(history=history, best=best, answer_tokens=tokens)]
    curves = run_plots.learning_curves(columns_of(runs))
    assert "training loss, nats a token" in curves and "dev loss, nats a token" in curves
    assert ">0.10<" in curves
    curves = run_plots.learning_curves(columns_of([run(history=history, best=best)]))
    assert "nats" not in curves and ">0.10<" not in curves
