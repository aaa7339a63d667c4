"""The public names, and which file may import which."""

import pathlib
import re

import pytest

import ptune

ROOT = pathlib.Path(__file__).parents[1]


def test_every_public_name_is_there():
    assert sorted(ptune.__all__) == sorted(ptune._HOMES)
    for name in ptune.__all__:
        assert getattr(ptune, name).__doc__
    with pytest.raises(AttributeError):
        _ = ptune.nothing


def test_imports_run_one_way():
    """Each file imports only from rooms before it; no circles."""
    rooms = [
        ["errors", "terminal", "config", "progress", "stopping", "yaml_files"],
        [
            "tokens",
            "template",
            "encoders",
            "row_files",
            "delimited",
            "json_rows",
            "unknown_text",
            "data",
            "fewshot",
            "metrics",
            "text_metrics",
            "ensemble",
            "store",
            "file_names",
            "answer_files",
        ],
        [
            "prompts",
            "verbalizer",
            "proposals",
            "batch",
            "packing",
            "google_format",
            "seeding",
            "capabilities",
        ],
        ["attention", "layer_inputs", "linear", "lm_files", "loading", "task"],
        ["pair_head", "trial", "context"],
        ["readers", "answer_places", "fingerprint"],
        ["lm"],
        ["identity"],
        ["run_folder"],
        ["starting"],
        ["model", "generate"],
        ["calibration"],
        ["saving", "peft_format", "train"],
        ["exchange", "rehearsal"],
        ["corpus", "vocabulary"],
        ["methods", "baselines", "pretrain", "experiment"],
        ["pet"],
        ["tasks", "results", "report", "run_report", "compare_report"],
        ["doctor", "duration", "inspection", "probe", "compare", "estimators", "new_task"],
        ["cli"],
        ["__main__"],
    ]
    place = {name: number for number, names in enumerate(rooms) for name in names}
    source = ROOT / "src" / "ptune"
    for path in source.rglob("*.py"):
        own = path.relative_to(source).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        text = path.read_text()
        used = set(re.findall(r"^\s*from ptune\.(\w+)", text, re.M))
        used |= {
            name.split()[0]
            for line in re.findall(r"^\s*from ptune import ([^#\n]+)", text, re.M)
            for name in line.split(",")
        }
        for name in used:
            assert place[name] <= place[own], f"{path.name} imports {name}"
    graph = {
        p.stem: set(re.findall(r"^from ptune\.(\w+)", p.read_text(), re.M))
        for p in source.glob("*.py")
    }
    done: set[str] = set()
    while ready := {n for n in graph if n not in done and graph[n] <= done | {"tasks"}}:
        done |= ready
    assert done == set(graph), f"a circle among {set(graph) - done}"
    assert "torch" not in (source / "template.py").read_text().replace("imports no torch", "")
