"""Two processes train what one trains. The same for more: ``python tests/ranks_cases.py 4``."""

import pytest
import ranks_cases
import tiny
import torch
from ranks_cases import (
    FIRST,
    QUICK,
    QUICK_SHARDED,
    SHARDED,
    furthest,
    gradients,
    trained,
)
from safetensors.torch import load_file

from ptune.base.ranks import Ranks
from ptune.errors import ModelError
from ptune.experiments.train import train_task
from ptune.lm import language_model
from ptune.lm.language_model import LanguageModel

FORGOTTEN = 0.01  # what is far outside any tolerance here


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What two processes say of all cases; this one is the first."""
    folder = tmp_path_factory.mktemp("ranks")
    with (
        ranks_cases.others(2, folder, QUICK, QUICK_SHARDED),
        ranks_cases.joined(0, 2, folder / "store") as ranks,
    ):
        outcome = ranks_cases.together(ranks, folder, QUICK, QUICK_SHARDED)
    return {**outcome, "folder": folder}


@pytest.mark.parametrize("name", [*QUICK, *QUICK_SHARDED])
def test_many_processes_train_as_one(outcome, name):
    case = {**QUICK, **QUICK_SHARDED}[name]
    outcome = outcome["sharded"] if case.sharding != "none" else outcome
    assert furthest(outcome["gradients"][name], gradients(case, Ranks())) < 1e-5
    values, evaluations = trained(case, Ranks())
    theirs, their_evaluations = outcome["trained"][name]
    assert furthest(theirs, values) < case.tolerance
    assert their_evaluations == [pytest.approx(evaluation, abs=1e-5) for evaluation in evaluations]
    assert outcome["alike"][name]


def test_a_sum_that_is_forgotten_is_far_off(outcome):
    assert furthest(outcome["forgotten"], gradients(FIRST, Ranks())) > FORGOTTEN


def test_all_processes_take_the_values_of_the_first(outcome):
    assert outcome["aligned"] == [0.0, 0.0]


def test_checkpoints_go_from_one_process_to_two_and_back(outcome):
    whole, _ = trained(FIRST, Ranks())
    assert furthest(outcome["resumed"][0], whole) < FIRST.tolerance
    assert furthest(outcome["sharded"]["trained"]["resumed"][0], whole) < FIRST.tolerance
    assert outcome["stopped"]  # by a signal to the second process alone
    for name in ("many", "killed"):
        again, _ = trained(FIRST, Ranks(), folder=outcome["folder"] / name, resume=True)
        assert furthest(again, whole) < FIRST.tolerance


@pytest.mark.parametrize("wrong", ["heads of another", "heads apart"])
def test_heads_that_are_mixed_up_are_far_off(outcome, wrong):
    theirs = outcome["sharded"]["gradients"][wrong]
    assert furthest(theirs, gradients(SHARDED["heads split"], Ranks())) > FORGOTTEN


def test_each_process_holds_its_share_of_the_layers(outcome):
    of_sharded = outcome["sharded"]
    for name, case in QUICK_SHARDED.items():
        if case.family == "t5":
            continue  # tables of positions stay whole
        half = ranks_cases.held(ranks_cases.loaded(case.family, torch.float32)) / 2
        assert of_sharded["held"][name] == pytest.approx(half, rel=0.02)  # behind a step's backward
        if case.family == "bert":
            assert of_sharded["held after"]["fsdp"] == pytest.approx(half, rel=0.02)


def randomise(model, device):
    for weight in model.parameters():
        weight.normal_()


@pytest.mark.parametrize(
    ("switches", "message"), [((), "it answers otherwise"), ((64,), "from 64 positions on")]
)
def test_an_lm_that_would_be_another_one_is_not_sharded(monkeypatch, switches, message):
    lm = LanguageModel(*tiny.tiny("bert"))
    monkeypatch.setattr(lm, "switches", switches)
    monkeypatch.setattr(language_model, "shard_layers", randomise)
    with pytest.raises(ModelError, match=message):
        lm.shard("fsdp", Ranks(0, 2, "fsdp"), torch.device("cpu"))


def test_an_lm_without_a_plan_is_not_split(outcome):
    message = outcome["sharded"]["refused"]["no plan"]
    assert "no tensor-parallel plan for BertForMaskedLM: take --lm-sharding fsdp" in message


def test_the_command_trains_with_a_sharded_lm_and_saves_as_one_process(outcome):
    folder = outcome["folder"] / "command"
    spoken = outcome["sharded"]["command"]["spoken"]
    assert sum("saved in" in line for line in spoken) == 1
    assert "is finished; for another choose" in spoken[-1]
    train_task.train(ranks_cases.task_file(folder, "none", out=folder / "alone"), print)
    ours, theirs = (load_file(folder / out / "prompt.safetensors") for out in ("alone", "out"))
    assert furthest(ours, theirs) < 1e-6  # saved in float32


def test_comparisons_and_probes_find_what_one_process_finds(outcome):
    (theirs, steps), folder = outcome["experiments"], outcome["folder"]
    ours, _ = ranks_cases.experiments(Ranks(), folder / "command", folder / "experiments-alone")
    assert all(steps)  # each process ran a part of them
    assert theirs.keys() == ours.keys() and len(ours) == 9
    assert all(theirs[file] == pytest.approx(ours[file], abs=1e-10) for file in ours)
    assert any(len(numbers) > 40 for numbers in ours.values())  # losses and dev scores too


def test_all_processes_begin_and_end_together(outcome):
    assert outcome["begins"] and not outcome["over"]
    assert "diverged" in outcome["diverged"]
    assert outcome["other rows"].startswith("Process 1 of 2 has another rows of.one.dev rows")
    assert outcome["fault"] == "Process 1 of 2: There is no GPU."
    assert "Another process of this training has ended" in outcome["killed"]
