"""How long an experiment will take: rows are counted, and one is timed."""

import time
from functools import partial

import pytest
import tiny
import torch

from ptune.answers.label_words import Verbalizer
from ptune.cli import main
from ptune.experiments.options import ProbeConfig
from ptune.experiments.probe import duration
from ptune.experiments.probe.probe_setup import methods_of
from ptune.experiments.probe.probe_trials import (
    Plan,
    ProbeTask,
    original_weights,
    run_bank,
    trials_of,
)
from ptune.lm.language_model import LanguageModel
from ptune.reports.trial_results import FactsResult
from ptune.runs.trials import JsonResults, run_trials, unfinished
from ptune.settings import TrainOverrides
from ptune.training.loop import accuracy
from ptune.training.methods import METHODS, method

ROWS = [{"subject": f"vienna {number}", "object": "yn"[number % 2]} for number in range(40)]


@pytest.fixture(scope="module")
def lm():
    return LanguageModel(*tiny.tiny("bert"))


def plan_of(lm, out, names):
    words = Verbalizer.from_words({"y": "Yes", "n": "No"})
    problem = ProbeTask(
        "p",
        "p",
        manual="{subject} is {mask} .",
        wordings=(),
        verbalizer=words,
        target="object",
        train=ROWS[:20],
        dev=ROWS[20:30],
        test=ROWS[30:],
        score=lambda scores, examples: {"p@1": accuracy(scores, examples)},
        main="p@1",
        majority=0.5,
        loss="labels",
    )
    methods = [method(name) for name in names]
    return Plan(lm=lm, problems=[problem], methods=methods, seeds=2, out=out, together=1)


def seconds_at_most(plan):
    return duration.seconds_at_most(plan, unfinished(trials_of(plan), plan.out))


def test_rows_are_counted(lm, tmp_path, monkeypatch):
    monkeypatch.setattr(duration, "_seconds_a_row", lambda plan, method, problem: (1.0, 1.0))
    plan = plan_of(lm, tmp_path, ["manual"])
    assert seconds_at_most(plan) == 10
    settings = method("p-tuning").train
    one = settings.planned_steps(2) // 2 * (20 + 10) + 10
    assert seconds_at_most(plan_of(lm, tmp_path, ["manual", "p-tuning"])) == 10 + 2 * one
    file = tmp_path / trials_of(plan_of(lm, tmp_path, ["manual", "p-tuning"]))[-1].file
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    assert seconds_at_most(plan_of(lm, tmp_path, ["manual", "p-tuning"])) == 10 + one


@pytest.mark.parametrize("names", [["p-tuning"], ["fine-tune"]])
def test_it_is_an_upper_bound_of_the_right_size_and_changes_nothing(lm, tmp_path, names):
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    random = torch.get_rng_state()
    plan = plan_of(lm, tmp_path, names)
    seconds = seconds_at_most(plan)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in lm.model.state_dict().items())
    assert all(
        not parameter.requires_grad and parameter.grad is None
        for parameter in lm.model.parameters()
    )
    began = time.monotonic()
    run_trials(
        trials_of(plan),
        plan.out,
        run=partial(run_bank, plan, original_weights(plan)),
        results=JsonResults(FactsResult),
    )
    took = time.monotonic() - began
    assert 0.05 < seconds / took < 20, (
        seconds,
        took,
    )  # a busy machine, and what is not counted: saving, encoding


@pytest.mark.parametrize(
    "seconds, shown",
    [(0.2, "a moment"), (45, "45 seconds"), (130, "2 minutes"), (7200, "2.0 hours")],
)
def test_as_a_sentence(seconds, shown):
    assert shown in duration.sentence(seconds)


def test_by_default_a_probe_trains_no_lm(capsys):
    assert [m.name for m in methods_of(ProbeConfig().methods, train=TrainOverrides())] == [
        "manual",
        "p-tuning",
    ]
    assert [m.name for m in methods_of("all", train=TrainOverrides())] == [
        "manual",
        "p-tuning",
        "fine-tune",
        "manual+fine-tune",
    ]
    with pytest.raises(SystemExit):
        main.main(["probe", "--help"])
    assert "--methods all" in capsys.readouterr().out


def test_a_probe_waits_half_as_long_where_nothing_says_how_long():
    def p_tuning(preset=None, **train):
        (method,) = methods_of("p-tuning", preset, train=TrainOverrides(**train))
        return method.train

    usual = METHODS["p-tuning"].train
    shorter = p_tuning(learning_rate=0.5)
    assert (usual.patience, usual.patience_steps) == (6, 30)
    assert (shorter.patience, shorter.patience_steps) == (3, 15)
    assert (usual.stopping_threshold, shorter.stopping_threshold) == (None, 1.0)
    assert (shorter.epochs, shorter.least_steps) == (usual.epochs, usual.least_steps)
    assert p_tuning(steps=50) == usual.replaced({"steps": 50})
    assert p_tuning(patience=4) == usual.replaced({"patience": 4})
    never = p_tuning(stopping_threshold=2.0)
    assert never == usual.replaced({"stopping_threshold": 2.0})
    assert p_tuning("paper").patience == 20
    (tuned,) = methods_of("fine-tune", train=TrainOverrides())
    assert tuned == METHODS["fine-tune"]
