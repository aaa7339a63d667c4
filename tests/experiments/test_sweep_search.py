"""A search chooses a sweep's settings by dev alone, and goes on after a kill as it would have."""

import json
import math
from types import SimpleNamespace

import killing
import pytest
from test_sweep import folder, swept  # noqa: F401 - the fixture

from ptune.errors import ConfigError, PtuneError
from ptune.experiments.sweep import search, sweep_worker
from ptune.experiments.sweep.search_space import Choice, Range, parse
from ptune.experiments.train import train_task

RATE = "train.learning_rate=log:1e-4..1"


def test_ranges_and_lists_are_read_as_they_stand():
    space = parse(
        [RATE, "train.steps=50..400", "init=random,vocabulary", "x=0.5..1", "y=1,2.5,yes"]
    )
    assert space["train.learning_rate"] == Range(1e-4, 1.0, is_whole=False, is_log=True)
    assert space["train.steps"] == Range(50, 400, is_whole=True, is_log=False)
    assert space["init"] == Choice(("random", "vocabulary"))
    assert space["x"] == Range(0.5, 1, is_whole=False, is_log=False)
    assert space["y"] == Choice((1, 2.5, "yes"))
    assert parse(["s=-3..-1"])["s"].ends == (-3, -1)


def test_a_number_has_few_digits_and_stays_within_its_range():
    values = Range(0.00123456, 0.00123459, is_whole=False, is_log=True)
    assert values.value(0.001234567) == 0.00123459  # 0.001235 is above
    assert Range(0.1, 1.0, is_whole=False, is_log=False).value(0.123456) == 0.1235
    assert type(Range(1, 9, is_whole=True, is_log=False).value(4.0)) is int


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.learning_rate", "it is KEY=LOW..HIGH"),
        ("=1..2", "it is KEY=LOW..HIGH"),
        ("a=", "it is KEY=LOW..HIGH"),
        ("a=2..1", "from a number to a larger one"),
        ("a=1..1", "from a number to a larger one"),
        ("a=log:0..1", "begins above 0"),
        ("a=low..1", "'low' is no number"),
        ("a=1..inf", "'inf' is no number"),
        ("a=nan..1", "'nan' is no number"),
        ("a=1..2..3", "'2..3' is no number"),
        ("a=log:1,2", "it is KEY=LOW..HIGH"),
        ("a=x", "two different values"),
        ("a=x,x", "two different values"),
        ("a=x,,y", "two different values"),
    ],
)
def test_what_is_no_range_and_no_list_is_refused(text, message):
    with pytest.raises(ConfigError, match=message) as refused:
        parse([text])
    assert text in str(refused.value)
    with pytest.raises(ConfigError, match="names a twice"):
        parse(["a=1..2", "a=3..4"])


def searched(place, out="out", *, texts=(RATE,), trials=6, **more):
    return swept(place, out, search=tuple(texts), trials=trials, **more)


def test_a_search_is_refused_before_anything_starts(folder, monkeypatch):  # noqa: F811
    monkeypatch.setattr(search, "find_spec", lambda name: True)

    def refused(message, **given):
        with pytest.raises(ConfigError, match=message):
            swept(folder, **given)
        assert not (folder / "out").exists()

    refused("--search and --trials go together", search=(RATE,))
    refused("--search and --trials go together", trials=3)
    refused("--prune ends trials of a search", prune=True)
    refused("--dry-run prints runs that are known", search=(RATE,), trials=3, dry_run=True)
    refused("learning_rat.*learning_rate", search=("train.learning_rat=0.1..1",), trials=3)
    refused("train.steps: -1", search=("train.steps=-1..4",), trials=3)
    refused("encoder: lstn", search=("encoder=lstm,lstn",), trials=3)
    refused("a seed is no setting to choose", search=("train.seed=0..5",), trials=3)
    refused("is the sweep's to say", search=("out=a,b",), trials=3)
    refused("trains nothing", search=("method=manual,p-tuning",), trials=3)
    beside = ("method=p-tuning,p-tuning-v2", "encoder=table,lstm")  # the file has encoder: table
    (folder / "films.yaml").write_text(
        (folder / "films.yaml").read_text() + 'patterns: ["{text} is {mask}"]\n'
    )
    refused("encoder says how soft tokens are made", search=beside, trials=3)
    several = ("this run has several: leave --prune out", {"prune": True, "trials": 3})
    refused(several[0], search=("method=p-tuning,pet",), **several[1])
    (folder / "sweep.yaml").write_text("tasks: films.yaml\nlist: [{prompt_by: text}]")
    refused(several[0], search=(RATE,), **several[1])
    (folder / "sweep.yaml").write_text("tasks: films.yaml\ngrid: {train.learning_rate: [0.1]}")
    refused("sets train.learning_rate, and --search too", search=(RATE,), trials=3)
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    refused(r"pip install 'ptune\[search\]'", search=(RATE,), trials=3)


def needs_optuna():
    pytest.importorskip("optuna", reason="optuna, which searches, is not installed")


@pytest.fixture
def trained(monkeypatch):
    """The rates that were tried, none of which is trained: dev is best at 0.03, and test at 1."""
    needs_optuna()
    rates: list[tuple[float, int]] = []

    def train(parts, *more, pruner=None):
        rate, seed = parts.overrides.learning_rate, parts.train.seed
        rates.append((rate, seed))
        if getattr(train, "dies_at", None) == len(rates):
            raise killing.Stop
        dev = -abs(math.log(rate / 0.03)) + seed
        return SimpleNamespace(
            best={"films": {"dev": dev}},
            dev_score="accuracy",
            figures={"accuracy": rate},
            seconds={"train": 1.0},
            pruned=[],
        )

    def cannot_be(*given):
        raise PtuneError("They cannot be trained together.")

    rates_and = SimpleNamespace(rates=rates, train=train)
    monkeypatch.setattr(train_task, "train_parts", train)
    monkeypatch.setattr(sweep_worker, "train_together", cannot_be)
    return rates_and


def test_a_search_closes_in_on_the_best_of_dev(folder, trained):  # noqa: F811
    results, lines = searched(folder, trials=25)
    rates = [rate for rate, seed in trained.rates if seed == 0]
    assert len(results.runs) == 50 and len(rates) == 25
    assert all(1e-4 <= rate <= 1 for rate in rates)
    near = sum(abs(math.log10(rate / 0.03)) < 0.25 for rate in rates)
    assert near >= 6  # of 25 drawn at random it would be 3
    assert lines[0] == "25 trials of 1 settings, 0 of which were begun already"
    best = results.groups()[0].runs[0].settings["train.learning_rate"]
    assert abs(math.log10(best / 0.03)) < 0.15
    assert any("--train.learning-rate" in line and "--out" in line for line in lines[-3:])


@pytest.mark.parametrize("dies_at", [1, 4, 5, 9])
def test_a_killed_search_goes_on_to_the_same_trials(dies_at, folder, trained):  # noqa: F811
    whole, _ = searched(folder, "whole")
    trained.rates.clear()
    trained.train.dies_at = dies_at
    with pytest.raises(killing.Stop):
        searched(folder)
    trained.train.dies_at = None
    results, lines = searched(folder)
    assert [run.model_dump() for run in results.runs] == [run.model_dump() for run in whole.runs]
    assert lines[0].endswith(f"{(dies_at + 1) // 2} of which were begun already")
    assert len(trained.rates) == 12 + 1  # the one that was killed is trained again


def test_more_trials_go_on_and_other_ranges_are_refused(folder, trained):  # noqa: F811
    first, _ = searched(folder, trials=3)
    more, lines = searched(folder, trials=6)
    whole, _ = searched(folder, "whole", trials=6)
    assert [run.name for run in more.runs] == [run.name for run in whole.runs]
    assert [run.name for run in more.runs][:6] == [run.name for run in first.runs]
    with pytest.raises(ConfigError, match="was begun with another --search"):
        searched(folder, texts=["train.learning_rate=log:1e-3..1"])


def test_scores_of_unlike_kinds_are_not_searched_together(folder, trained, monkeypatch):  # noqa: F811
    fine = trained.train

    def by_loss(parts, *more, **named):
        outcome = fine(parts, *more, **named)
        outcome.dev_score = "minus the dev loss" if len(trained.rates) > 4 else "accuracy"
        return outcome

    monkeypatch.setattr(train_task, "train_parts", by_loss)
    with pytest.raises(PtuneError, match="by minus the dev loss on dev, and trials before it by a"):
        searched(folder)
    assert len(trained.rates) == 6


def test_a_run_that_fails_ends_no_search(folder, trained, monkeypatch):  # noqa: F811
    fine = trained.train

    def failing(parts, *more, **named):
        if len(trained.rates) in (2, 3):
            trained.rates.append((0.0, 0))
            raise PtuneError("It does not fit.")
        return fine(parts, *more, **named)

    monkeypatch.setattr(train_task, "train_parts", failing)
    with pytest.raises(PtuneError, match="2 of 8 runs failed"):
        searched(folder, trials=4)
    results = json.loads((folder / "out" / "results.json").read_text())
    assert len(results["runs"]) == 8


def test_no_dev_score_is_told(folder, trained, monkeypatch):  # noqa: F811
    fine = trained.train

    def unscored(*given, **named):
        run = fine(*given, **named)
        run.best.clear()
        return run

    monkeypatch.setattr(train_task, "train_parts", unscored)
    with pytest.raises(PtuneError, match="has no dev score, by which a search chooses"):
        searched(folder)


def test_each_task_is_searched_by_itself(folder, trained):  # noqa: F811
    text = (folder / "films.yaml").read_text()
    (folder / "books.yaml").write_text(text.replace("name: films", "name: books"))
    (folder / "sweep.yaml").write_text(
        "tasks: [films.yaml, books.yaml]\nlist: [{init: random}, {init: vocabulary}]"
    )
    results, lines = searched(folder, trials=2)
    counts = {}
    for run in results.runs:
        key = (run.task, run.settings["init"])
        counts[key] = counts.get(key, 0) + 1
    assert counts == dict.fromkeys(
        [(task, init) for task in ("films", "books") for init in ("random", "vocabulary")], 2
    )
    assert lines[0].startswith("8 trials")


def test_workers_share_the_studies_and_their_trials_train(folder):  # noqa: F811
    needs_optuna()
    texts = (RATE, "encoder=table,mlp")
    results, _ = searched(folder, texts=texts, trials=3, workers=2)
    assert len(results.runs) == 6 and all(run.dev is not None for run in results.runs)
    assert len(list((folder / "out" / "runs").glob("*/prompt.safetensors"))) == 6
