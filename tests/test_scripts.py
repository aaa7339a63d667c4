"""The scripts that make the built-in facts and sentences, and those that compare prompts."""

import argparse
import contextlib
import filecmp
import io
import json
import os
import pathlib
import statistics
import subprocess
import sys

import pytest
import tiny
from matplotlib.figure import Figure
from scripts_kit import load_script

from ptune.cli import main
from ptune.experiments.sweep.sweep_file import read_sweep
from ptune.tasks import yaml_task

ROOT = pathlib.Path(__file__).parents[1]


def test_the_shipped_facts_are_what_the_script_makes(data, tmp_path):
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "make_facts.py", data / "factbook", tmp_path],
        check=True,
        capture_output=True,
    )
    shipped = ROOT / "src" / "ptune" / "builtin" / "facts"
    files = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.jsonl"))
    assert len(files) > 40 and files == sorted(
        p.relative_to(shipped) for p in shipped.rglob("*.jsonl")
    )
    assert filecmp.cmpfiles(tmp_path, shipped, files, shallow=False)[0] == files


def test_no_manual_prompt_is_a_wording_of_the_pretraining_sentences():
    module = load_script("make_sentences")
    lines = (
        (ROOT / "src" / "ptune" / "builtin" / "facts" / "relations.jsonl").read_text().splitlines()
    )

    def plain(text):
        return "".join(c for c in text.lower() if c.isalnum() or c in "[]")

    for relation in map(json.loads, lines):
        read = {plain(w) for w in module.WORDINGS[relation["relation"]]}
        assert len(read) >= 6
        assert not read & {plain(w) for w in relation["wordings"]}


def test_the_answers_to_the_factbook_questions_stand_in_their_pages(data, tmp_path):
    from ptune.documents import read_documents

    subprocess.run(
        [sys.executable, ROOT / "scripts" / "factbook_pages.py", data / "factbook", tmp_path],
        check=True,
    )
    pages = {one.name: one.text for one in read_documents.read([tmp_path / "pages"])}
    rows = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    assert len(pages) == 8 and len(rows) > 60
    assert all(" ".join(row["answer"].split()) in pages[row["document"]] for row in rows)


TEXTS = {
    "0": ("bad film", "the worst", "a bad city", "bad euro"),
    "1": ("great film", "the best", "a great city", "good euro"),
}
PLACES = ("Rome", "Paris", "Berlin", "Madrid", "London", "Vienna", "Austria", "Italy", "France")


def write_film_rows(folder):
    """MR's files, with texts that a tiny LM knows."""
    folder.mkdir(parents=True)
    rows = [
        {"sentence": f"{text} in {place}", "label": int(label)}
        for label, texts in TEXTS.items()
        for text in texts
        for place in PLACES
    ]
    for name, part in (("train", rows), ("test", rows[::7])):
        text = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(text)


RECORDER = '#!/bin/sh\nfor part in "${0##*/}" "$@" ""; do echo "$part" >> "${0%/*}/calls"; done\n'


def calls_of(script, folder, **settings):
    """The commands of a shell script as lists of words, none of which is run.

    Args:
        script: its file and what stands behind it.
        folder: for the programs that stand in for ptune and Python.
    """
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "calls").write_text("")
    for name in ("ptune", "python"):
        (tools / name).write_text(RECORDER)
        (tools / name).chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | settings | {"PATH": path, "PYTHON": str(tools / "python")}
    subprocess.run(["sh", *script], env=environment, check=True)
    return [call.split("\n") for call in (tools / "calls").read_text().split("\n\n") if call]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """What the commands of the script of searched prompts leave and print, and these commands, for
    a draw of tiny rows and then for two."""
    folder = tmp_path_factory.mktemp("searched")
    for part in tiny.tiny("bert"):
        part.save_pretrained(folder / "lm")
    write_film_rows(folder / "data" / "classification" / "mr")
    script = [ROOT / "scripts" / "searched_prompts.sh", folder / "lm", folder / "out", "mr"]
    helper = load_script("searched_prompts")
    calls, printed = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PTUNE_DATA", str(folder / "data"))
        patch.setattr(Figure, "savefig", lambda self, to, **more: to.write("<svg></svg>"))
        for seeds in ("2", "2 3"):
            calls.append(calls_of([*script, seeds], folder, STEPS="2", TEST="6", BEAMS="2"))
            for program, first, *others in calls[-1]:
                output = io.StringIO()
                with contextlib.redirect_stdout(output):
                    if program == "python":
                        helper.main(*others[:2], pathlib.Path(others[2]))
                    else:
                        main.main([first, *others])
            printed.append(output.getvalue())
    return folder / "out", printed, calls


def results_of(out, folder, seed, kind):
    """The result of the fine-tuned prompts of a draw."""
    files = (out / folder / "results" / f"mr-{seed}-{kind}").glob("manual+fine-tune-16-*.json")
    (file,) = files
    return json.loads(file.read_text())


def test_searched_prompts_are_compared_on_the_rows_by_which_they_were_chosen(searched):
    out, *_ = searched
    for seed in (2, 3):
        result = results_of(out, "plain", seed, "words")
        assert (result["seed"], result["rows"]) == (seed, result["rows"] | {"train": 32, "dev": 32})
        best = yaml_task.read(out / f"mr-{seed}" / "label-words" / "best.yaml")
        asked = yaml_task.read(out / f"mr-{seed}" / "words.yaml")
        assert asked.data == best.data and asked.data.seed == seed


def test_searched_prompts_fill_a_table(searched):
    out, (first, both), _ = searched
    rows = [line for line in both.splitlines() if line.startswith("| ")]
    assert rows[0] == "| | mr |" and len(rows) == 1 + 5 * 4
    assert "±" not in first and all("±" in row for row in rows[1:])
    values = [
        results_of(out, "demonstrations", seed, "written")["figures"]["accuracy"] for seed in (2, 3)
    ]
    written = "manual words, generated template, manual+fine-tune, demonstrations"
    assert f"| {written} | {statistics.mean(values):.3f} ± {statistics.stdev(values):.3f} |" in rows
    template = results_of(out, "demonstrations", 2, "written")["template"]
    assert template.startswith("{demonstrations|shorten:start} ")


def test_searched_words_of_each_kind_are_compared(searched):
    out, *_ = searched
    tried = json.loads((out / "mr-2" / "label-words" / "results.json").read_text())["tried"]
    words = {one["source"]: one["words"] for one in tried}
    manual, one, several, bff = (
        point["words"] for point in results_of(out, "plain", 2, "words")["grid"]
    )
    assert manual == {"0": "terrible", "1": "great"}
    assert one == words["likelihood ratio, 1 word a label"]
    assert several == words["likelihood ratio, 3 words a label"]
    assert bff in [
        words[source] for source in words if source.startswith("conditional probabilities")
    ]


def test_the_script_of_searched_prompts_goes_on(searched):
    out, _, (first, second) = searched
    kinds = ["first", "search", "search", "tasks", "compare", "compare", "table"]
    names = [call[1] if call[0] == "ptune" else call[2] for call in first]
    assert names == kinds == [call[1] if call[0] == "ptune" else call[2] for call in second]
    assert not any("--resume" in call for call in first)
    assert [call[1] for call in second if "--resume" in call] == ["compare", "compare"]
    assert not any(str(out / "mr-2" / "first.yaml") in call for call in second)


def test_the_variants_of_prompts_are_trainings_of_each_set_and_found_by_their_settings(
    data, tmp_path, monkeypatch
):
    module = load_script("prompt_variants")
    monkeypatch.setenv("PTUNE_DATA", str(data.resolve()))
    options = argparse.Namespace(lm="builtin", variants=[*module.VARIANTS], steps=60)
    for name in module.SETS:
        words = yaml_task.read(pathlib.Path(name)).labels
        manual = [{"template": f"{mark} {{mask}}: {{sentence}}", "words": words} for mark in "-="]
        file = tmp_path / f"{name}.yaml"
        module.write_sweep(file, name, options, manual)
        settings = [run.settings for run in read_sweep(file)]
        outcomes = [
            {"settings": one, "dev": -number, "figures": {"accuracy": number}}
            for number, one in enumerate(settings)
        ]
        pairs = module.by_variant({"runs": outcomes}, name, manual)
        ordered = [pair for variant in module.VARIANTS for pair in pairs[variant]]
        assert ordered == [(-number, number) for number in range(2 * len(module.VARIANTS))]


@pytest.mark.parametrize(
    "pattern, softened",
    [
        ("{text|shorten} It was {mask}.", "{text|shorten} {soft:3} It was {mask}."),
        ("{mask}: {text}", "{soft:3} {mask}: {text}"),
        ("Say: {text} ({mask}) {other}", "Say: {text} {soft:3} ({mask}) {other}"),
    ],
)
def test_soft_tokens_stand_before_the_words_around_the_mask(pattern, softened):
    assert load_script("prompt_variants").softened(pattern) == softened


def test_variants_that_are_equal_on_dev_count_by_their_mean():
    module = load_script("prompt_variants")
    assert module.chosen_on_dev([(0.5, 1.0), (0.7, 0.2), (0.7, 0.4)]) == pytest.approx(0.3)
