"""Two processes train what one trains. The same for more: ``python tests/ranks_cases.py 4``."""

import pytest
import ranks_cases
from ranks_cases import FIRST, QUICK, furthest, gradients, trained

from ptune.base.ranks import Ranks

pytestmark = pytest.mark.xdist_group("ranks")  # the processes run once
FORGOTTEN = 0.01  # what is far outside any tolerance here


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What two processes say of all cases; this one is the first."""
    folder = tmp_path_factory.mktemp("ranks")
    with ranks_cases.others(2, folder, QUICK):
        ranks_cases.stopped(Ranks(), folder / "one")
        with ranks_cases.joined(0, 2, folder / "store") as ranks:
            return {**ranks_cases.together(ranks, folder, QUICK), "folder": folder}


@pytest.mark.parametrize("name", QUICK)
def test_many_processes_train_as_one(outcome, name):
    case = QUICK[name]
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
    assert outcome["stopped"]  # by a signal to the second process alone
    for name in ("many", "killed"):
        again, _ = trained(FIRST, Ranks(), folder=outcome["folder"] / name, resume=True)
        assert furthest(again, whole) < FIRST.tolerance


def test_all_processes_begin_and_end_together(outcome):
    assert outcome["begins"] and not outcome["over"]
    assert "diverged" in outcome["diverged"]
    assert outcome["other rows"].startswith("Process 1 of 2 has another rows of.one.dev rows")
    assert outcome["fault"] == "Process 1 of 2: There is no GPU."
    assert "Another process of this training has ended" in outcome["killed"]
