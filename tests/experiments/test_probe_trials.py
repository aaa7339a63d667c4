"""Methods, problems and seeds: what is run, and what is not run twice."""

import dataclasses
import os
import types
from functools import partial

import psutil
import pytest
import tiny

from ptune.answers.label_words import Verbalizer
from ptune.experiments.probe import probe_setup, probe_trials
from ptune.experiments.probe.probe_trials import (
    Plan,
    ProbeTask,
    original_weights,
    run_bank,
    trials_of,
)
from ptune.lm.language_model import LanguageModel
from ptune.reports.trial_results import FactsResult
from ptune.runs.trials import JsonResults, run_trials
from ptune.settings import TrainConfig
from ptune.training.loop import accuracy
from ptune.training.methods import Method

ROWS = [
    {"x": f"{town} film", "y": "ab"[i % 2]}
    for i, town in enumerate(("Vienna", "Rome", "Paris", "Berlin", "London", "Madrid"))
]
TRAIN = TrainConfig(batch_size=3, epochs=2)
METHODS = (
    Method("manual", "M", "manual", "nothing"),
    Method("p-tuning", "P", "{soft:2} {x} {mask}", tune="prompt", train=TRAIN, encoder="table"),
    Method("fine-tune", "F", "{x} {mask}", tune="lm", train=TRAIN),
)


def problem(name, manual="{x} is {mask}"):
    words = Verbalizer.from_words({"a": "great", "b": "bad"})
    return ProbeTask(
        name,
        name,
        manual=manual,
        wordings=("{x} : {mask}",),
        verbalizer=words,
        target="y",
        train=ROWS[:4],
        dev=ROWS[4:],
        test=ROWS,
        score=lambda scores, examples: {"p@1": accuracy(scores, examples)},
        main="p@1",
        majority=0.5,
    )


def run(plan, report=lambda result: None):
    """All trials of a plan, in its out folder."""
    bank = partial(run_bank, plan, original_weights(plan))
    return run_trials(
        trials_of(plan), plan.out, run=bank, results=JsonResults(FactsResult), on_result=report
    )


@pytest.fixture
def plan(tmp_path):
    lm = LanguageModel(*tiny.tiny("bert"))
    return Plan(
        lm,
        [problem("one"), problem("two"), problem("three", None)],
        methods=METHODS,
        seeds=2,
        out=tmp_path / "out",
        together=2,
    )


def test_what_is_run_and_kept(plan):
    reported = []
    results = run(plan, reported.append)
    names = [(r.method, r.seed, r.problem) for r in results]
    assert sorted(names) == sorted(
        [
            ("manual", 0, "one"),
            ("manual", 0, "two"),
            *[
                (m, s, p)
                for m in ("p-tuning", "fine-tune")
                for s in (0, 1)
                for p in ("one", "two", "three")
            ],
        ]
    )
    assert len(reported) == len(results)
    assert not (plan.out / "checkpoints").exists() or not list((plan.out / "checkpoints").iterdir())
    assert len(list((plan.out / "prompts").iterdir())) == 6


def test_the_lm_is_itself_again_after_fine_tuning(plan):
    before = plan.lm.fingerprint(), {k: v.clone() for k, v in plan.lm.model.state_dict().items()}
    results = run(plan, lambda _: None)
    assert any(r.trained > 10_000 for r in results)
    assert plan.lm.fingerprint() == before[0] and all(
        (v == before[1][k]).all() for k, v in plan.lm.model.state_dict().items()
    )


def test_seeds_begin_where_they_are_told(plan, tmp_path):
    """The second of two seeds from 0 is the first from 1."""
    methods = [
        Method(
            "p-tuning",
            "P",
            "{soft:2} {x} {mask}",
            tune="prompt",
            train=TRAIN.model_copy(update={"seed": seed}),
            encoder="table",
        )
        for seed in (0, 1)
    ]
    histories = []
    for number, method in enumerate(methods):
        again = Plan(
            **(
                vars(plan)
                | {"methods": [method], "seeds": 2 - number, "out": tmp_path / str(number)}
            )
        )
        histories.append([r.history for r in run(again, lambda _: None)])
    assert histories[0][3:] == histories[1] and histories[0][:3] != histories[1]


def test_what_is_there_is_not_run_again(plan, monkeypatch):
    first = run(plan, lambda _: None)
    monkeypatch.setattr(probe_trials, "fit", None)
    monkeypatch.setattr(probe_trials, "PromptModel", None)
    assert run(plan, lambda _: None) == first


@pytest.mark.parametrize("name", ["../../victim", "/{folder}/victim", "a/b", "..", "x" * 300])
def test_names_of_problems_are_no_paths(plan, name, tmp_path):
    """What checkpoints, results, prompts and times are called stays in the folder, and nothing else
    is removed."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept").touch()
    often = METHODS[1].train.model_copy(update={"save_seconds": 0})
    renamed = dataclasses.replace(
        plan,
        problems=[problem(name.format(folder=tmp_path))],
        methods=[dataclasses.replace(METHODS[1], train=often)],
        seeds=1,
    )
    assert len(run(renamed, lambda _: None)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "victim"] and [
        path.name for path in victim.iterdir()
    ] == ["kept"]
    assert len(list((renamed.out / "prompts").iterdir())) == 1


def test_two_methods_and_two_problems_share_no_prompt_folder(plan):
    methods = [dataclasses.replace(METHODS[1], name=name) for name in ("p-tuning", "p-tuning-v2")]
    run(
        dataclasses.replace(
            plan, methods=methods, problems=[problem("v2-x"), problem("x")], seeds=1
        ),
        lambda _: None,
    )
    assert len(list((plan.out / "prompts").iterdir())) == 4


def test_how_many_together_grows_with_the_memory(plan, monkeypatch):
    def free(size):
        memory = types.SimpleNamespace(available=size)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
        return probe_setup.how_many_together(plan.lm, "lstm", length=9, batch_size=16, problems=40)

    assert free(1) == 1 and free(10**12) == 40 and 1 < free(5 * 10**7) < 40


def test_what_diverges_has_no_figures_and_is_not_saved(plan):
    hot = TRAIN.model_copy(update={"learning_rate": 1e30, "lm_learning_rate": 1e30, "clip": 0.0})
    methods = (
        METHODS[0],
        *(dataclasses.replace(entry, train=hot, encoder="lstm") for entry in METHODS[1:]),
        METHODS[2],
    )
    methods = (*methods[:3], dataclasses.replace(METHODS[2], name="after"))
    reported = []
    results = run(dataclasses.replace(plan, methods=methods, seeds=1), reported.append)
    by_method = {
        name: [entry for entry in results if entry.method == name]
        for name in ("manual", "p-tuning", "fine-tune", "after")
    }
    for name in ("p-tuning", "fine-tune"):
        assert all(
            entry.diverged and entry.figures == {} and entry.best is None and not entry.examples
            for entry in by_method[name]
        )
    assert all(
        entry.figures and not entry.diverged
        for name in ("manual", "after")
        for entry in by_method[name]
    )
    assert not (plan.out / "prompts").exists()


def test_how_many_prompts_train_together_is_known_on_every_system(monkeypatch):
    """macOS and Windows have no count of free pages."""
    monkeypatch.setattr(
        os,
        "sysconf",
        lambda name: (_ for _ in ()).throw(ValueError("unrecognized configuration name")),
    )
    lm = LanguageModel(*tiny.tiny("bert"))
    assert probe_setup.how_many_together(lm, "lstm", length=9, batch_size=16, problems=5) == 5
    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: type("Memory", (), {"available": 2**20})()
    )
    assert probe_setup.how_many_together(lm, "lstm", length=9, batch_size=16, problems=5) == 1
