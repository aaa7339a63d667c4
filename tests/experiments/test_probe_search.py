"""A probe whose prompts a program looks for: one table with hand-written, searched and trained
ones."""

import pytest
import tiny
import torch
from killing import killed_after_every_file

from ptune.errors import ConfigError
from ptune.experiments.options import ProbeConfig
from ptune.experiments.probe import probe, probe_search
from ptune.lm.language_model import LanguageModel
from ptune.lm.source.random_weights import with_random_weights

TOWNS = ("Vienna", "Rome", "Paris", "Berlin", "London", "Madrid")
COLUMNS = ["manual", "mined", "mined-ensemble", "autoprompt", "pez"]


@pytest.fixture
def folder(tmp_path):
    for part in tiny.tiny("bert"):
        part.save_pretrained(tmp_path / "lm")
    facts = [f"{town} {n},{TOWNS[n % 3].lower()}\n" for town in TOWNS for n in range(6)]
    (tmp_path / "facts.csv").write_text("subject,object\n" + "".join(facts))
    sentences = [
        f"The film {town} {n} lies in {TOWNS[n % 3]} ." for town in TOWNS for n in range(6)
    ]
    (tmp_path / "corpus.txt").write_text("\n".join(sentences))
    return tmp_path


def run(folder, out, **options):
    given = {
        "lm": str(folder / "lm"),
        "facts": str(folder / "facts.csv"),
        "manual": "[X] is [Y] .",
        "methods": "manual",
        "search": "mine,gradient,pez",
        "corpus": [folder / "corpus.txt"],
        "search_rows": 6,
        "search_steps": 2,
        "allow_unknown": True,
        "out": out,
        "resume": (out / "settings.json").exists(),
        "device": "cpu",
    }
    return probe.probe(ProbeConfig(**given | options), lambda line: None)


def test_searches_are_columns_of_the_table_and_a_kill_loses_nothing(folder, tmp_path, monkeypatch):
    results = run(folder, tmp_path / "whole")
    assert list(results.methods) == COLUMNS
    for method in results.methods.values():
        assert 0 <= method.relations["facts"].model_extra["p@1"] <= 1
    killed_after_every_file(lambda: run(folder, tmp_path / "kills"), monkeypatch)
    for path in (tmp_path / "whole" / "results").rglob("*.json"):
        other = tmp_path / "kills" / path.relative_to(tmp_path / "whole")
        assert other.read_text() == path.read_text(), path
    assert not (tmp_path / "whole" / "searches").exists() or not any(
        (tmp_path / "whole" / "searches").rglob("*.json")
    )


def test_test_rows_decide_no_choice(folder, tmp_path, monkeypatch):
    """The rows that a search gets are train and dev rows."""
    seen = []
    real = probe_search.searched_task

    def watched(lm, problem, rows):
        task = real(lm, problem, rows)
        seen.append((task, problem))
        return task

    monkeypatch.setattr(probe_search, "searched_task", watched)
    run(folder, tmp_path / "out", search="pez", corpus=[])
    for task, problem in seen:
        scored = {row["subject"] for row in (*task.train, *task.dev)}
        assert scored and not scored & {row["subject"] for row in problem.test}


def test_a_search_that_cannot_run_is_refused_before_the_first(folder, tmp_path):
    with pytest.raises(ConfigError, match="There is no search 'mined'"):
        run(folder, tmp_path / "a", search="mined")
    with pytest.raises(ConfigError, match="--corpus is of --search mine"):
        run(folder, tmp_path / "b", search="")
    with pytest.raises(ConfigError, match="name texts with --corpus"):
        run(folder, tmp_path / "c", corpus=[])


def test_the_control_has_random_weights_and_the_same_form(folder, tmp_path):
    lm = LanguageModel.load(folder / "lm", device="cpu")
    before, state = lm.fingerprint(), torch.get_rng_state()
    first, again, other = (with_random_weights(lm, seed) for seed in (0, 0, 1))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert lm.fingerprint() == before != first.fingerprint()
    assert torch.equal(torch.get_rng_state(), state) and first.kind == lm.kind
    unsearched = {"search": "", "corpus": [], "search_rows": 100, "search_steps": 60}  # by default
    plain = run(folder, tmp_path / "plain", **unsearched)
    control = run(folder, tmp_path / "control", **unsearched, control="random-lm")
    assert control.settings["lm"].endswith("random weights")
    assert control.methods["manual"] != plain.methods["manual"]
