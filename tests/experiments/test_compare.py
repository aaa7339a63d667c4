"""Methods on the same few rows: results, resume, refusals, the table and the page."""

import io
import json
import re

import pytest
import tiny
import torch
from rich.console import Console
from transformers import BertForPreTraining

from ptune.cli import main
from ptune.errors import ConfigError, DataError, DivergedError, TemplateError
from ptune.experiments.compare import compare, compare_checks, compare_methods, compare_summary
from ptune.experiments.compare.compare_rows import draw_all, read_tasks
from ptune.experiments.options import CompareConfig
from ptune.metrics.labels import deviation, mean
from ptune.reports.pages import compare_page
from ptune.reports.schemas import Cell, Comparison
from ptune.template.language import Template
from ptune.template.parts import with_soft_words

GOOD, BAD = (
    ["great film", "the best", "a great city", "good euro"],
    ["terrible film", "the worst", "a bad city", "bad euro"],
)
YAML = """
name: opinions
template: "{soft:2} {text} is {mask}"
patterns: ["{text} is {mask}", "{mask} , {text}"]
labels: {good: great, bad: bad}
verbalizers: [{good: Yes, bad: No}]
data: {train: rows.jsonl, test: rows.jsonl, unlabeled: rows.jsonl, shots: 2, take: {test: 12}}
metrics: [accuracy, f1-macro]
lm: ./lm
encoder: table
"""
METHODS = (
    "majority,tf-idf,linear-probe,manual,head,manual+fine-tune,p-tuning,p-tuning+lm,p-tuning-v2,"
    "p-tuning-v2+head,prompt-tuning-adamw"
)

pytestmark = pytest.mark.usefixtures("kept_lms")


@pytest.fixture
def folder(tmp_path):
    network, tokenizer = tiny.tiny("bert")
    network.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    rows = [
        {"text": f"{text} {place}", "label": label}
        for label, texts in (("good", GOOD), ("bad", BAD))
        for text in texts
        for place in ("Rome", "Paris")
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.yaml").write_text(YAML)
    return tmp_path


def run(folder, **more):
    said = []
    given = {
        "methods": METHODS,
        "seeds": 2,
        "steps": 3,
        "looks": 2,
        "device": "cpu",
        "out": folder / "out",
        "as_json": False,
    } | more
    return compare.compare(
        CompareConfig(tasks=[str(folder / "task.yaml")], **given), said.append
    ), said


def test_truths_of_json_are_labels(folder):
    """They are judged, and learned by baselines, as the labels true and false."""
    results = {}
    for name, labels in (("texts", ("true", "false")), ("truths", (True, False))):
        rows = [{"text": text, "label": labels[0]} for text in GOOD]
        rows += [{"text": text, "label": labels[1]} for text in BAD]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        text = YAML.replace("good:", '"true":').replace("bad:", '"false":')
        (folder / "task.yaml").write_text(text)
        result, _ = run(folder, methods="majority,tf-idf,manual", seeds=1, out=folder / name)
        results[name] = [cell.mean for cell in result.cells]
    assert results["truths"] == results["texts"]


def test_every_method_learns_from_the_same_rows(folder, monkeypatch):
    seen = {}
    real = compare_methods.fit

    def watched(model, data, config, **more):
        ((rows, dev),) = data.values()
        seen.setdefault(config.seed, []).append(
            [[row["text"] for row in split] for split in (rows, dev)]
        )
        return real(model, data, config, **more)

    monkeypatch.setattr(compare_checks, "rehearse", lambda *given: None)
    monkeypatch.setattr(compare_methods, "fit", watched)
    results, said = run(folder)
    assert (
        set(seen) == {0, 1}
        and all(
            len(draws) == 7 and all(one == draws[0] for one in draws) for draws in seen.values()
        )
        and seen[0][0] != seen[1][0]
    )
    assert not set(seen[0][0][0]) & set(seen[0][0][1]), "dev rows were learned from"
    assert [cell.method for cell in results.cells] == METHODS.split(",") and {
        cell.seeds for cell in results.cells
    } == {2}
    by_name = {cell.method: cell for cell in results.cells}
    single = [
        json.loads(file.read_text())
        for file in sorted((folder / "out" / "results").rglob("head-2-*.json"))
    ]
    assert by_name["head"].mean["accuracy"] == mean([one["figures"]["accuracy"] for one in single])
    assert by_name["head"].deviation["f1-macro"] == deviation(
        [one["figures"]["f1-macro"] for one in single]
    )
    sizes = {name: cell.trained_parameters for name, cell in by_name.items()}
    assert (
        sizes["manual"] == sizes["majority"] == 0
        and sizes["p-tuning"] == 2 * 32
        and sizes["p-tuning-v2"] == 8 * 2 * 2 * 32
    )
    assert (
        sizes["head"]
        == sizes["manual+fine-tune"] + 32 * 32 + 32 + 2 * 32 + 2
        == sizes["p-tuning+lm"] - 2 * 32 + 32 * 32 + 32 + 2 * 32 + 2
    )
    assert by_name["majority"].mean["accuracy"] == 0.5
    assert sum(line.startswith("opinions  ") for line in said) == 22


def test_the_lm_is_the_same_for_every_method(folder):
    """What a method is given does not hang on those before it: the LM is put back after each that
    tunes it."""
    together = {cell.method: cell.mean for cell in run(folder)[0].cells}
    for name in ("manual", "head", "p-tuning"):
        assert run(folder, methods=name, out=folder / name)[0].cells[-1].mean == together[name]


def test_resume_and_another_run(folder, monkeypatch):
    whole = run(folder, methods="manual,head,p-tuning")[0]
    calls = []
    real = compare_methods.fit

    def stops(*given, **more):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given, **more)

    monkeypatch.setattr(compare_checks, "rehearse", lambda *given: None)
    monkeypatch.setattr(compare_methods, "fit", stops)
    with pytest.raises(KeyboardInterrupt):
        run(folder, methods="manual,head,p-tuning", out=folder / "other")
    again = run(folder, methods="manual,head,p-tuning", out=folder / "other", resume=True)[0]
    assert [cell.mean for cell in again.cells] == [cell.mean for cell in whole.cells] and len(
        calls
    ) == 5, "what was finished was run again"
    more = run(folder, methods="manual,majority", seeds=3, out=folder / "other", resume=True)[0]
    assert {cell.seeds for cell in more.cells} == {3} and len(calls) == 5
    with pytest.raises(
        ConfigError, match="holds a run of ptune compare already: go on with --resume"
    ):
        run(folder, out=folder / "other")
    with pytest.raises(ConfigError, match="begun with another steps"):
        run(folder, out=folder / "other", resume=True, steps=4)


def changed(folder, old, new, file="task.yaml"):
    path = folder / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            lambda folder: changed(folder, "great film", "grand film", "rows.jsonl"),
            "tasks.opinions.data.train (what it holds has changed), tasks.opinions.data.test",
        ),
        (
            lambda folder: changed(folder, "good: great, bad: bad", "good: bad, bad: great"),
            'tasks.opinions.labels.good ("great", now "bad")',
        ),
        (
            lambda folder: changed(folder, "{text} is {mask}", "{text} was {mask}"),
            "tasks.opinions.template",
        ),
        (
            lambda folder: changed(folder, "encoder: table", "encoder: mlp"),
            'tasks.opinions.encoder ("table", now "mlp")',
        ),
        (lambda folder: tiny.tiny("bert", seed=1)[0].save_pretrained(folder / "lm"), "lm."),
    ],
)
def test_a_comparison_goes_on_with_the_same_rows_task_and_lm_alone(folder, change, what):
    run(folder, methods="manual", seeds=1)
    change(folder)
    with pytest.raises(ConfigError, match=re.escape(f"begun with another {what}")):
        run(folder, methods="manual", resume=True)


def test_a_text_that_is_learned_from_and_scored_is_told(folder):
    _, said = run(folder, methods="majority", seeds=1)
    (leak,) = [
        line for line in said if "Leakage: test has" in line and "that train has too" in line
    ]
    assert leak.startswith("opinions, 2 shots, seed 0: Leakage: test has ")
    rows = [{"text": f"{text} now", "label": "good"} for text in GOOD]
    rows += [{"text": f"{text} now", "label": "bad"} for text in BAD]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = YAML.replace("test: rows.jsonl", "test: test.jsonl").replace("test: 12", "test: 8")
    (folder / "task.yaml").write_text(text)
    _, said = run(folder, methods="majority", seeds=1, out=folder / "other")
    assert not any("Leakage" in line for line in said)


def test_names_of_tasks_are_no_paths(folder):
    changed(folder, "name: opinions", "name: ../../esc")
    run(folder, methods="manual,pet", seeds=1)
    assert sorted(path.name for path in folder.iterdir()) == [
        "lm",
        "out",
        "rows.jsonl",
        "task.yaml",
    ]
    with pytest.raises(ConfigError, match="Two of the tasks are called '../../esc'"):
        compare.compare(CompareConfig(tasks=[str(folder / "task.yaml")] * 2, out=folder / "twice"))


def test_the_grid_and_what_is_chosen(folder):
    """Zero-shot the untrained LM's accuracy on the few labelled rows decides, not that on test."""
    results, _ = run(folder, methods="manual,p-tuning-v2", grid=True, seeds=1)
    for name, front in (("manual", ""), ("p-tuning-v2", "{prefix:8} ")):
        result = json.loads(
            (folder / "out" / "results" / "opinions" / f"{name}-2-0.json").read_text()
        )
        assert [point["template"] for point in result["grid"]] == [
            front + text for text in ("{text} is {mask}",) * 2 + ("{mask} , {text}",) * 2
        ]
        assert result["template"] in {point["template"] for point in result["grid"]}
        points = [point["figures"]["accuracy"] for point in result["grid"]]
        cell = next(cell for cell in results.cells if cell.method == name)
        assert cell.grid == {
            "worst": min(points),
            "best": max(points),
            "deviation": deviation(points),
        }


@pytest.mark.parametrize("select", ["first", "zero-shot", "splits"])
def test_a_pattern_is_chosen_without_test_rows(folder, select, monkeypatch):
    judged = []
    real = compare_methods.judge

    def watched(model, rows, metrics, **more):
        judged.append((len(rows), model.tasks[0].task.template.source))
        return real(model, rows, metrics, **more)

    monkeypatch.setattr(compare_checks, "rehearse", lambda *given: None)
    monkeypatch.setattr(compare_methods, "judge", watched)
    halves = {"splits": 2} if select == "splits" else {}
    run(folder, methods="manual+fine-tune", select=select, seeds=1, **halves)
    assert [size for size, _ in judged] == [
        *{"first": [], "zero-shot": [8] * 4, "splits": [4] * 8}[select],
        12,
    ]
    assert select != "first" or judged[-1][1] == "{text} is {mask}"


def test_optiprompt_takes_the_pattern_that_a_manual_prompt_takes(folder, monkeypatch):
    """The untrained LM is asked by each hand-written pattern, and once for both methods."""
    judged = []
    real = compare_methods.judge

    def watched(model, rows, metrics, **more):
        judged.append(len(rows))
        return real(model, rows, metrics, **more)

    monkeypatch.setattr(compare_checks, "rehearse", lambda *given: None)
    monkeypatch.setattr(compare_methods, "judge", watched)
    run(folder, methods="manual,optiprompt", seeds=1)
    results = folder / "out" / "results" / "opinions"
    manual, trained = (
        json.loads((results / f"{name}-2-0.json").read_text()) for name in ("manual", "optiprompt")
    )
    softened = with_soft_words(Template.parse(manual["template"]).parts)
    assert trained["template"] == softened != manual["template"]
    assert trained["words"] == manual["words"] and trained["trained"] == 32
    assert judged.count(8) == 4


def test_optiprompt_passes_over_patterns_without_words(folder):
    text = (folder / "task.yaml").read_text()
    kept = '  - "{text} is {mask}"\n'
    without = "patterns:\n  - '\"{text}\" {mask}'\n"
    (folder / "task.yaml").write_text(
        re.sub(r"patterns:.*\n(?=labels)", without + kept, text, flags=re.S)
    )
    run(folder, methods="manual,optiprompt", seeds=1, select="first")
    results = folder / "out" / "results" / "opinions"
    templates = [
        json.loads((results / f"{name}-2-0.json").read_text())["template"]
        for name in ("manual", "optiprompt")
    ]
    assert templates == ['"{text}" {mask}', '{text} {soft:"is"} {mask}']
    (folder / "task.yaml").write_text(re.sub(r"patterns:.*\n(?=labels)", without, text, flags=re.S))
    results, _ = run(folder, methods="optiprompt", seeds=1, out=folder / "other")
    assert "has no words that optiprompt could train" in results.cells[-1].impossible


def test_pet_and_ipet(folder):
    results, _ = run(folder, methods="pet,ipet", seeds=1)
    for name, generations in (("pet", 1), ("ipet", 4)):
        result = json.loads(
            (folder / "out" / "results" / "opinions" / f"{name}-2-0.json").read_text()
        )
        assert (
            len(result["members"]) == 4 * generations
            and len(result["ensembles"]) == generations
            and result["rows"]["unlabeled"] == 16
        )
    assert not list((folder / "out" / "pet").glob("*")), "an LM for every member was left behind"
    assert results.cells[-1].trained_parameters > 10_000
    figure = results.cells[-1].mean["accuracy"]
    low, high = results.cells[-1].intervals["accuracy"]
    assert low < high and low <= figure <= high


def test_the_seeds_begin_with_that_of_the_task(folder):
    """So that a task that ptune search wrote with its --seed is compared on the rows by which its
    prompt was chosen; the test rows are the same whatever the seed."""

    def drawn(seeds):
        (task,) = read_tasks([str(folder / "task.yaml")])
        return draw_all(task, "", seeds)

    from_0 = drawn(3)
    changed(folder, "shots: 2", "shots: 2, seed: 1")
    from_1 = drawn(2)
    assert [split.seed for split in from_1] == [1, 2]
    assert from_0[0].train != from_0[1].train
    for of_task, counted in zip(from_1, from_0[1:], strict=True):
        assert (of_task.train, of_task.dev) == (counted.train, counted.dev)
        assert of_task.test == from_0[0].test


def test_the_majority_is_that_of_all_rows_to_learn_from(folder):
    """Of the few drawn rows every label has as many; the first of the labels is no majority."""
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    more = [{"text": f"bad {word}", "label": "bad"} for word in ("euro", "city", "film")]
    lines = {"rows.jsonl": [*rows, *more], "test.jsonl": [*rows[:2], *rows[-6:]]}
    for name, rows_of_file in lines.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows_of_file))
    (folder / "task.yaml").write_text(
        YAML.replace("test: rows.jsonl", "test: test.jsonl").replace(
            "[accuracy, f1-macro]", "[accuracy, auc, f1:bad]"
        )
    )
    assert run(folder, methods="majority", seeds=1)[0].cells[0].mean == pytest.approx(
        {"accuracy": 6 / 8, "auc": 0.5, "f1:bad": 12 / 14}
    )
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert (
        run(folder, methods="majority", seeds=1, out=folder / "tie")[0].cells[0].mean["accuracy"]
        == 0.5
    ), "of two equally frequent labels the mean"


def test_shots_that_no_task_reads_are_refused_and_those_that_one_does_not_read_are_told(folder):
    """Nobody takes what was learned from a whole file for sixteen rows of each label."""
    whole = YAML.replace("shots: 2, ", "dev: rows.jsonl, ").replace("opinions", "whole")
    (folder / "whole.yaml").write_text(whole)
    files = [str(folder / name) for name in ("whole.yaml", "task.yaml")]

    def compared(tasks, shots):
        lines: list[str] = []
        config = CompareConfig(
            tasks=tasks, methods="majority", shots=shots, out=folder / f"{len(tasks)}{shots}"
        )
        return compare.compare(config, lines.append), lines

    with pytest.raises(ConfigError, match="whole: the rows are those of .*data: {shots: 16}"):
        compared(files[:1], "1")
    with pytest.raises(ConfigError, match="--shots takes whole numbers"):
        compared(files[:1], "zzz")
    results, lines = compared(files, "1")
    assert lines[0] == ("whole: the rows are those of the task's files, and --shots is not read.")
    assert {(cell.task, cell.shots) for cell in results.cells} == {("whole", 0), ("opinions", 1)}
    assert "not read" not in "".join(compared(files, "")[1])


def test_metrics_are_checked_before_an_lm_is_loaded(folder, monkeypatch):
    (folder / "task.yaml").write_text(YAML.replace("f1-macro", "f1"))
    monkeypatch.setattr(compare, "LanguageModel", None)
    with pytest.raises(ConfigError, match="f1:good or f1:bad"):
        run(folder, methods="majority")


def test_baselines_stand_beside_every_method(folder, capsys):
    """Those of scikit-learn tell the rows apart, and the untrained LM does not."""
    results, said = run(folder, methods="manual", seeds=1)
    assert [(cell.method, cell.baseline) for cell in results.cells] == [
        ("majority", True),
        ("tf-idf", True),
        ("linear-probe", True),
        ("manual", False),
    ]
    figures = {cell.method: cell.mean["accuracy"] for cell in results.cells}
    best = max(("majority", "tf-idf", "linear-probe"), key=lambda name: figures[name])
    behind = [line for line in said if "behind a baseline" in line]
    assert len(behind) == (figures["manual"] < figures[best]) and all(
        line == said[-1] for line in behind
    )
    assert "Above the line: baselines" in " ".join(capsys.readouterr().out.split())
    assert (folder / "out" / "report.html").read_text().count("(baseline, without prompts)") == 3


def cell_of(method, figure, baseline=False):
    return Cell(
        task="t",
        shots=16,
        method=method,
        baseline=baseline,
        metric="accuracy",
        seeds=1,
        rows={},
        mean={} if figure is None else {"accuracy": figure},
        deviation={} if figure is None else {"accuracy": 0.0},
        trained_parameters=0,
        kept_parameters=0,
        seconds=1,
    )


@pytest.mark.parametrize(
    "figures, last",
    [
        (
            {"p-tuning": 0.3, "head": 0.8},
            "t, 16 shots: behind a baseline, Linear probe on the LM (0.700), are p-tuning "
            "(0.300); try head.",
        ),
        (
            {"p-tuning": 0.3},
            "t, 16 shots: behind a baseline, Linear probe on the LM (0.700), are p-tuning "
            "(0.300); try contrastive.",
        ),
        (
            {"contrastive": None, "head": 0.3},
            "t, 16 shots: behind a baseline, Linear probe on the LM (0.700), are head (0.300); "
            "try manual+fine-tune.",
        ),
        ({"p-tuning": 0.7}, None),
    ],
)
def test_what_is_behind_a_baseline_is_told(figures, last):
    cells = [
        cell_of("majority", 0.5, True),
        cell_of("linear-probe", 0.7, True),
        *(cell_of(*values) for values in figures.items()),
    ]
    assert compare_summary.behind_baselines(
        Comparison(cells=cells, titles={}, settings={}, versions={})
    ) == ([last] if last else [])


def test_what_diverges_is_marked_in_table_json_and_page(folder, capsys):
    hot = {"train": {"learning_rate": 1e30, "lm_learning_rate": 1e30, "clip": 0.0}}
    results, said = run(folder, methods="manual,manual+fine-tune,p-tuning,pet", seeds=1, **hot)
    by_name = {cell.method: cell for cell in results.cells}
    for name in ("manual+fine-tune", "p-tuning", "pet"):
        assert by_name[name].mean == {} and (by_name[name].diverged, by_name[name].lost) == (1, 1)
        assert any(
            line.startswith(f"opinions, {name}, seed 0: the training diverged") for line in said
        )
    assert by_name["manual"].mean["accuracy"] >= 0 and by_name["manual"].lost == 0
    raw = json.loads((folder / "out" / "results.json").read_text())
    assert [cell["lost"] for cell in raw["cells"]] == [0, 0, 0, 0, 1, 1, 1]
    assert (
        capsys.readouterr().out.count("diverged") >= 3
        and ">diverged<" in (folder / "out" / "report.html").read_text()
    )
    assert (
        run(folder, methods="manual", seeds=1, out=folder / "alone")[0].cells[-1].mean
        == by_name["manual"].mean
    )
    del hot["train"]["lm_learning_rate"]
    with pytest.raises(DivergedError, match="Every training diverged.*lower the learning rates"):
        run(folder, methods="p-tuning", seeds=1, out=folder / "none", **hot)


def test_a_point_of_the_grid_that_diverges_is_no_worst_point(folder, monkeypatch):
    real, calls = compare_methods.fit, []

    def diverges(*given, **more):
        calls.append(1)
        if len(calls) == 2:
            raise DivergedError("diverged", {0: None})
        return real(*given, **more)

    monkeypatch.setattr(compare_checks, "rehearse", lambda *given: None)
    monkeypatch.setattr(compare_methods, "fit", diverges)
    results, _ = run(folder, methods="p-tuning-v2", grid=True, seeds=1, select="first")
    result = json.loads(
        (folder / "out" / "results" / "opinions" / "p-tuning-v2-2-0.json").read_text()
    )
    assert len(result["grid"]) == 3 and results.cells[-1].grid["worst"] == min(
        point["figures"]["accuracy"] for point in result["grid"]
    )


def test_what_an_lm_cannot_read_is_left_out(folder, tmp_path_factory):
    """A causal LM sees nothing behind the mask: that pattern is not asked; nor does it have a
    next-sentence head."""
    network, tokenizer = tiny.tiny("gpt2")
    network.save_pretrained(folder / "causal")
    tokenizer.save_pretrained(folder / "causal")
    results, _ = run(folder, methods="manual,head", seeds=1, lm=str(folder / "causal"))
    result = json.loads((folder / "out" / "results" / "opinions" / "manual-2-0.json").read_text())
    assert [point["template"] for point in result["grid"]] == ["{text} is {mask}"] * 2 and all(
        cell.mean for cell in results.cells
    )
    (folder / "task.yaml").write_text(YAML.replace('"{text} is {mask}", ', ""))
    results, said = run(
        folder, methods="manual,head", seeds=1, lm=str(folder / "causal"), out=folder / "other"
    )
    assert (
        not results.cells[3].mean
        and "a causal LM cannot see" in results.cells[3].impossible
        and results.cells[4].mean
    )
    assert any("cannot see" in line for line in said)


def test_the_next_sentence_head(folder):
    """Zero-shot, where the LM has one; else a dash that says why."""
    (folder / "task.yaml").write_text(YAML + "relations: {good: adjacent, bad: not adjacent}\n")
    results, _ = run(folder, methods="next-sentence", seeds=1)
    assert (
        not results.cells[-1].mean and "has no next-sentence head" in results.cells[-1].impossible
    )
    network, tokenizer = tiny.tiny("bert")
    torch.manual_seed(0)
    both = BertForPreTraining(network.config)
    both.save_pretrained(folder / "pair")
    tokenizer.save_pretrained(folder / "pair")
    assert (
        run(
            folder, methods="next-sentence", seeds=1, lm=str(folder / "pair"), out=folder / "other"
        )[0]
        .cells[-1]
        .mean
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"methods": "manual,petx"}, "no method 'petx' to compare. Did you mean 'pet'"),
        ({"shots": "16,x"}, "--shots takes whole numbers"),
        ({"methods": "fine-tune"}, "no method 'fine-tune'"),
        ({"dtype": "float16"}, "not tuned in float16"),
        ({"train": {"seed": 3}}, "--train.seed is the number of each draw here: --seeds"),
        ({"splits": 9}, "--splits is of --select splits, and patterns are chosen by zero-shot"),
        (
            {"methods": "manual+fine-tune,pet", "train": {"learning_rate": 0.5}},
            "not trained by manual+fine-tune, pet",
        ),
        (
            {"methods": "manual,p-tuning", "train": {"lm_learning_rate": 0.5}},
            "not trained by manual, p-tuning",
        ),
    ],
)
def test_refusals(folder, change, message):
    with pytest.raises(ConfigError, match=re.escape(message) if "." not in message else message):
        run(folder, **change)


def test_the_longest_input_may_be_set(folder):
    with pytest.raises(TemplateError, match=r"line \d+ \(\w+\): .* needs 7 tokens .* and 6 fit"):
        run(folder, methods="manual", max_length=6)
    (folder / "task.yaml").write_text(YAML.replace("{text}", "{text|shorten}"))
    assert run(folder, methods="manual,head", max_length=6, out=folder / "short")[0].cells


def test_a_task_without_patterns_or_labels(folder):
    (folder / "task.yaml").write_text(re.sub("patterns.*\n", "", YAML))
    with pytest.raises(ConfigError, match="has no patterns, by which methods are compared"):
        run(folder)
    (folder / "task.yaml").write_text(
        re.sub("(labels|verbalizers).*\n", "", YAML).replace("shots: 2, ", "")
    )
    with pytest.raises(ConfigError, match="compare is for tasks with labels"):
        run(folder)


def test_the_command_prints_a_table_and_json(folder, capsys):
    arguments = [
        "compare",
        str(folder / "task.yaml"),
        "--methods",
        "majority,manual",
        "--shots",
        "1,2",
        "--seeds",
        "2",
        "--device",
        "cpu",
        "--out",
    ]
    main.main([*arguments, str(folder / "table")])
    printed = capsys.readouterr().out
    assert (
        "1 row of each label" in printed
        and "2 rows of each label" in printed
        and "Manual prompt" in printed
        and "0.500 ± 0.000" in printed
    )
    main.main([*arguments, str(folder / "json"), "--json"])
    assert Comparison.model_validate_json(capsys.readouterr().out).cells[0].shots == 1
    page = (folder / "table" / "report.html").read_text()
    assert (
        page.count("<svg") == 2
        and "How much the choice of pattern" in page
        and "{mask} , {text}" in page
    )


def test_a_table_fits_eighty_columns():
    cells = [
        Cell(
            task=f"task{number}",
            shots=16,
            method=name,
            metric="accuracy",
            seeds=3,
            rows={},
            mean={"accuracy": 0.5},
            deviation={"accuracy": 0.01},
            trained_parameters=22_700_000,
            kept_parameters=0,
            seconds=1,
        )
        for number in range(7)
        for name in compare.TITLES
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    for table in compare_page.tables(
        Comparison(cells=cells, titles=compare.TITLES, settings={}, versions={})
    ):
        console.print(table)
    printed = console.export_text()
    assert (
        "\u2026" not in printed
        and all(f"task{number}" in printed for number in range(7))
        and printed.count("Manual prompt + fine-tuning") == 4
    )


def test_every_row_is_tried_before_the_first_training(folder, monkeypatch):
    """With every template of every method; what is shortened is told once for each split."""
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    (folder / "test.jsonl").write_text(
        "".join(
            json.dumps(row) + "\n" for row in [*rows[:3], {"text": "great " * 50, "label": "good"}]
        )
    )
    text = YAML.replace("test: rows.jsonl", "test: test.jsonl").replace("{text}", "{text|shorten}")
    (folder / "task.yaml").write_text(text)
    _, said = run(folder, methods="manual", seeds=1, max_length=20)
    shortened = [line for line in said if "were shortened" in line]
    assert (
        len(shortened) == 1
        and "1 of 4 test rows of opinions were shortened to fit, by " in shortened[0]
        and shortened[0].startswith("Warning")
    )
    (folder / "task.yaml").write_text(text.replace("{text|shorten}", "{text}"))
    monkeypatch.setattr(compare_methods, "fit", None)
    monkeypatch.setattr(compare_methods, "judge", None)
    with pytest.raises(TemplateError, match=r"line \d+ \(\w+\): The row needs"):
        run(folder, methods="p-tuning,manual", seeds=1, max_length=20, out=folder / "other")


@pytest.mark.parametrize("kind, methods", [("bert", "manual,p-tuning"), ("gpt2", "manual,pet")])
def test_every_method_is_tried_before_the_first(folder, kind, methods):
    """Of the last method a setting is at fault: the auxiliary loss needs unlabelled rows, which PET
    alone has, and a masked LM."""
    for part in tiny.tiny(kind):
        part.save_pretrained(folder / "lm")
    (folder / "task.yaml").write_text(
        YAML.replace('"{text} is {mask}", "{mask} , {text}"', '"{text} is {mask}"')
    )
    with pytest.raises(ConfigError, match="unlabelled rows" if kind == "bert" else "masked"):
        run(folder, methods=methods, seeds=1, train={"auxiliary": 0.1})
    assert not (folder / "out").exists()


def test_texts_that_the_lm_does_not_know_are_refused_or_told(folder):
    rows = [
        {"text": f"\u8fd9\u90e8\u7535\u5f71\u5f88\u597d {number}", "label": label}
        for number in range(8)
        for label in ("good", "bad")
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"methods": "manual", "seeds": 1}
    with pytest.raises(DataError, match="The train rows of opinions: .*Chinese.*--allow-unknown"):
        run(folder, **given)
    _, said = run(folder, **given, allow_unknown=True)
    assert sum("unknown to this LM's vocabulary" in line for line in said) == 4
    _, said = run(folder, **given, allow_unknown=True, resume=True)
    assert not any("unknown to this LM's vocabulary" in line for line in said), "read once"
    (folder / "task.yaml").write_text(YAML + "allow_unknown: true\n")
    _, said = run(folder, **given, out=folder / "other")
    assert any("The test rows of opinions" in line for line in said)
