"""Trials end where the median stopping rule says that most others are ahead, and nowhere else."""

import json
import math
import statistics
from types import SimpleNamespace

import killing
import pytest
from test_sweep import folder, swept  # noqa: F401 - the fixture

from ptune.errors import ConfigError
from ptune.experiments.sweep import pruning, sweep_worker
from ptune.experiments.sweep.pruning import FINISHED
from ptune.experiments.train import train_task
from ptune.reports.sweep_results import SweepOutcome, SweepResults

RATE = "train.learning_rate=log:1e-4..1"
LOOKS = (5, 10, 15, 20)


def searched(place, out="out", trials=16, texts=(RATE,)):
    return swept(place, out, search=texts, trials=trials, prune=True)


def looks_of(rate, seed):
    """The best dev score so far of a made-up run at each of its looks: it falls in between, and a
    good rate shows late."""
    final = 1 - abs(math.log10(rate / 0.03)) / 4
    third = (0.7 if rate > 0.03 else 0.9) + 0.5 * seed
    shares = (0.5 + 0.1 * seed, 0.4, third, 1.0)
    scores = [share * final for share in shares]
    return [max(scores[: place + 1]) for place in range(len(scores))]


@pytest.fixture
def made_up(monkeypatch):
    """Runs whose looks are ``looks_of``; what each was asked and when it ended."""
    pytest.importorskip("optuna", reason="optuna, which searches, is not installed")
    state = SimpleNamespace(runs=[], dies_at=None, looks=0)

    def train(parts, *more, pruner):
        rate, seed = parts.overrides.learning_rate, parts.train.seed
        run = SimpleNamespace(rate=rate, seed=seed, step=0, is_pruned=False, dev=0.0)
        for step, dev in zip(LOOKS, looks_of(rate, seed)):
            state.looks += 1
            if state.looks == state.dies_at:
                raise killing.Stop
            run.step, run.dev = step, dev
            if step < LOOKS[-1] and pruner(step, dev):
                run.is_pruned = True
                break
        state.runs.append(run)
        return SimpleNamespace(
            best={"films": {"dev": run.dev}},
            dev_score="accuracy",
            figures={"accuracy": run.dev},
            seconds={"train": 1.0},
            pruned=["films"] if run.is_pruned else [],
        )

    def apart(*given):
        raise RuntimeError("They cannot be trained together.")

    monkeypatch.setattr(train_task, "train_parts", train)
    monkeypatch.setattr(sweep_worker, "train_together", apart)
    return state


def by_hand(rates):
    """Where the runs of the first seed end, by the median of the finished trials alone."""
    finished: list[list[float]] = []
    ends = []
    for rate in rates:
        looks, end = looks_of(rate, 0), LOOKS[-1]
        for place, step in enumerate(LOOKS[:-1]):
            medians = statistics.median([other[place] for other in finished] or [0.0])
            if len(finished) >= FINISHED and looks[place] < medians:
                end = step
                break
        else:
            finished.append(looks)
        ends.append(end)
    return ends


def test_trials_end_where_the_median_of_the_finished_ones_is_ahead(folder, made_up):  # noqa: F811
    results, lines = searched(folder)
    first = [run for run in made_up.runs if run.seed == 0]
    second = [run for run in made_up.runs if run.seed == 1]
    ends = by_hand([run.rate for run in first])
    assert [run.step for run in first] == ends
    pruned = [end < LOOKS[-1] for end in ends]
    assert 3 <= sum(pruned) < len(pruned) - FINISHED  # else the rule was not tried
    for leader, follower in zip(first, second):  # it ends with the first seed, and never by itself
        assert follower.rate == leader.rate and follower.step == leader.step
    assert [run.pruned for run in results.runs] == [flag for flag in pruned for _ in range(2)]
    assert sum(", pruned" in line for line in lines) == 2 * sum(pruned)
    assert all(not run.pruned for run in results.best())
    page = (folder / "out" / "report.html").read_text()
    assert f"{2 * sum(pruned)} pruned: ended early" in page and "2 (2 pruned)" in page


@pytest.mark.parametrize("dies_at", [2, 50, 57, 62, 70])
def test_a_killed_search_prunes_the_same_trials(dies_at, folder, made_up):  # noqa: F811
    whole, _ = searched(folder, "whole")
    ended = [vars(run) for run in made_up.runs]
    made_up.runs.clear()
    made_up.looks, made_up.dies_at = 0, dies_at
    with pytest.raises(killing.Stop):
        searched(folder)
    made_up.dies_at = None
    results, _ = searched(folder)
    assert [vars(run) for run in made_up.runs] == ended
    assert [run.model_dump() for run in results.runs] == [run.model_dump() for run in whole.runs]


def test_a_search_that_is_killed_as_it_prunes_prunes_there_again(folder, made_up, monkeypatch):  # noqa: F811
    from optuna.storages import JournalStorage

    def dying(storage, trial, name, value):
        if name == pruning.PRUNED_AT and value > LOOKS[0]:
            raise killing.Stop
        return set_attribute(storage, trial, name, value)

    set_attribute = JournalStorage.set_trial_user_attr
    searched(folder, "whole")
    ended = [vars(run) for run in made_up.runs]
    made_up.runs.clear()
    with monkeypatch.context() as patch, pytest.raises(killing.Stop):
        patch.setattr(JournalStorage, "set_trial_user_attr", dying)
        searched(folder)
    searched(folder)
    assert [vars(run) for run in made_up.runs] == ended
    assert any(run.is_pruned and run.step > LOOKS[0] for run in made_up.runs)


def test_what_was_begun_with_pruning_goes_on_with_it(folder, made_up):  # noqa: F811
    searched(folder, trials=2)
    with pytest.raises(ConfigError, match="begun with another --search or --prune .*--prune: yes"):
        swept(folder, search=(RATE,), trials=3)
    searched(folder, trials=3)


def test_a_pruned_run_is_not_the_best():
    outcomes = [
        SweepOutcome(name=name, task="films", settings={}, command="", dev=dev, pruned=pruned)
        for name, dev, pruned in (("a", 0.5, False), ("b", 0.9, True), ("c", 0.7, False))
    ]
    assert [run.name for run in SweepResults(runs=outcomes).best()] == ["c"]
    assert SweepResults(runs=outcomes[1:2]).best() == []


def test_real_trainings_end_early_with_their_best_state(folder):  # noqa: F811
    pytest.importorskip("optuna", reason="optuna, which searches, is not installed")
    task = (folder / "films.yaml").read_text()
    short = "steps: 2, batch_size: 2"
    long = "steps: 12, batch_size: 4, evaluate_every: 2, patience: 0"
    (folder / "films.yaml").write_text(task.replace(short, long))
    results, _ = searched(folder, texts=("train.learning_rate=1e-5,0.3,0.5,0.7",))
    pruned = [run for run in results.runs if run.pruned]
    assert 0 < len(pruned) < len(results.runs)
    for run in results.runs:
        saved = json.loads((folder / "out" / "runs" / run.name / "run.json").read_text())
        (steps,), (looks,) = saved["steps"].values(), saved["history"].values()
        assert (steps < 12) == run.pruned == bool(saved["pruned"])
        assert steps == looks[-1]["step"] and run.dev == max(
            evaluation["dev"] for evaluation in looks
        )
        assert (folder / "out" / "runs" / run.name / "prompt.safetensors").exists()
