import json
import math
import os
import signal
import time
from dataclasses import replace

import forked
import pytest
import tiny
import torch
from by_hand import Plain, of_labels
from killing import killed_after

from ptune.answers.from_row import Choices
from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader_table import READERS
from ptune.base.interrupts import Interrupted
from ptune.errors import ConfigError, DataError, DivergedError, StoreError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.model.rows.encode_rows import encode_row
from ptune.model.rows.examples import HiddenWordsExample
from ptune.model.running import losses as model_losses
from ptune.runs.logs.json_lines import JsonLinesLog
from ptune.runs.logs.open_logs import opened_logs
from ptune.settings import SettingsError, TrainConfig
from ptune.template.language import Template
from ptune.training import loop, prompt_training, rehearsal
from ptune.training.loop import Training, account, fit
from ptune.training.steps import optimisers

WORDS = Verbalizer.from_words({"a": "Yes", "b": "No"})
TOWNS = (
    "Vienna Paris Rome Berlin Madrid London Austria France Italy Germany euro film city "
    "people east capital"
).split()
TEMPLATES = [
    "{soft:3} {x} {soft:2} {mask} {soft:1}",
    "{x} {soft:4} is {mask}",
    "Question : {x} ? {soft:2} {mask}",
]


def rows(seed, count=13):
    generator = torch.Generator().manual_seed(seed)
    words = [TOWNS[i] for i in torch.randint(len(TOWNS), (count,), generator=generator)]
    return [
        {"x": f"{w} {words[i - 1]}", "label": "a" if w < "P" else "b"} for i, w in enumerate(words)
    ]


def bank(names, dtype=torch.float32, encoder="lstm", family="bert"):
    """A model with some of the three tasks, named by number, and their rows."""
    network, tokenizer = tiny.tiny(family, dtype)
    model = PromptModel(LanguageModel(network, tokenizer))
    for number in names:
        model.add(
            Task(
                f"task {number}",
                Template.parse(TEMPLATES[number]),
                WORDS,
                encoder=encoder,
                loss="vocabulary" if number else "labels",
            )
        )
    model.bank.to(dtype)
    return model, {f"task {n}": (rows(n, 13 + 4 * n), rows(n + 10, 6)) for n in names}


def states(model):
    return [
        {k: v.clone() for k, v in encoder.state_dict().items()} for encoder in model.bank.encoders
    ]


def apart(tensors, other_tensors):
    return max(float((a[k] - b[k]).abs().max()) for a, b in zip(tensors, other_tensors) for k in a)


def run(names, dtype=torch.float32, **settings):
    model, data = bank(names, dtype)
    before = states(model)
    trained = fit(
        model,
        data,
        TrainConfig(**{"batch_size": 4, "learning_rate": 3e-3, "patience": 0, **settings}),
    )
    return model, before, trained


def stop_at(jobs, steps):
    for job in jobs:
        if job.step >= steps:
            job.steps = steps


@pytest.mark.parametrize(
    "data, config, message",
    [
        ({0: rows(0)}, None, "a pair for each task"),
        (rows(0), None, "a pair for each task"),
        ({0: (rows(0), rows(1))}, {"steps": 1}, "are a TrainConfig, and this is a dict"),
    ],
)
def test_data_and_settings_of_another_kind_are_refused(data, config, message):
    with pytest.raises(ConfigError, match=message):
        fit(bank([0])[0], data, config)


def test_together_is_apart_step_by_step():
    """A bank of three for 20 steps, against each alone; one that trains on others' gradients would
    be far off."""

    def vectors(model):
        return [{"vectors": encoder().detach()} for encoder in model.bank.encoders]

    for steps in (1, 5, 20):
        settings = dict(evaluate_every=steps, epochs=steps, learning_rate=1e-3)
        with pytest.MonkeyPatch.context() as patch:
            step = loop.take_step
            patch.setattr(
                loop,
                "take_step",
                lambda model, jobs, config, ranks, step=step, steps=steps: (
                    step(model, jobs, config, ranks),
                    stop_at(jobs, steps),
                ),
            )
            together, _, _ = run([0, 1, 2], **settings)
            alone = [vectors(run([n], **settings)[0])[0] for n in range(3)]
        untrained = vectors(bank([0, 1, 2])[0])
        assert apart(vectors(together), untrained) > 100 * 1e-5
        assert apart(vectors(together), alone) < 1e-5


def test_together_is_apart_over_whole_runs_in_float64():
    """Different lengths, early stopping and best looks of their own: the same to the last
    decimals."""
    settings = dict(
        epochs=8, patience=2, optimiser="adamw", weight_decay=0.1, warmup=0.1, decay="linear"
    )
    together, _, trained = run([0, 1, 2], torch.float64, **settings)
    ends = set()
    for number in range(3):
        alone, before, alone_history = run([number], torch.float64, **settings)
        assert apart(states(alone), before) > 1e-3
        assert apart([states(together)[number]], states(alone)) < 1e-9
        ours, theirs = trained[f"task {number}"].history, alone_history[f"task {number}"].history
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs):
            assert (
                (a.step, a.dev) == (b.step, b.dev)
                and a.loss == pytest.approx(b.loss, abs=1e-9)
                and a.dev_loss == pytest.approx(b.dev_loss, abs=1e-9)
            )
        ends.add(ours[-1].step)
    assert len(ends) > 1, "all tasks stopped at once, so a stopped one was never left out"


def test_one_call_of_the_lm_per_joint_step():
    model, data = bank([0, 1, 2])
    calls = []
    assert model.lm.packs  # which is tried out once
    model.lm.model.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    fit(model, data, TrainConfig(batch_size=4, epochs=2, patience=0))
    assert sum(calls) == 1 + 2 * math.ceil(
        (13 + 8) / 4
    )  # one to see that gradients come back; the longest of the three decides


def test_accumulation_gives_the_same_step():
    whole, before, _ = run([0, 1], torch.float64, epochs=2)
    parts, _, _ = run([0, 1], torch.float64, epochs=2, accumulate=3)
    assert apart(states(whole), before) > 1e-3 and apart(states(whole), states(parts)) < 1e-9


def test_deterministic_and_seeded():
    model, same_seed, other_seed = (run([0], epochs=2, seed=seed)[0] for seed in (1, 1, 2))
    assert apart(states(model), states(same_seed)) == 0
    assert apart(states(model), states(other_seed)) > 1e-4


def test_rows_come_in_another_order_every_epoch(monkeypatch):
    """OptiPrompt never shuffles. Every row comes once an epoch."""
    model, data = bank([0])
    seen = []
    losses = model_losses.losses

    def noted(model, examples, *arguments):
        seen.extend(example.row["x"] + example.row["label"] for example in examples)
        return losses(model, examples, *arguments)

    monkeypatch.setattr(model_losses, "losses", noted)
    fit(model, data, TrainConfig(batch_size=4, epochs=2, patience=0))
    expected = sorted(row["x"] + row["label"] for row in data["task 0"][0])
    assert sorted(seen[:13]) == sorted(seen[13:]) == expected and seen[:13] != seen[13:]


def test_the_prompt_learns_and_the_lm_does_not():
    model, data = bank([0])
    frozen = {k: v.clone() for k, v in model.lm.model.state_dict().items()}
    trained = fit(
        model, data, TrainConfig(batch_size=4, epochs=30, learning_rate=1e-2, patience=0)
    )["task 0"]
    assert trained.history[-1].loss < 0.5 * trained.history[0].loss
    assert all(torch.equal(v, frozen[k]) for k, v in model.lm.model.state_dict().items())
    assert not model.lm.model.training


def test_the_best_state_is_restored():
    """PEFT cannot load the best prompt at the end."""
    model, data = bank([0])
    looks, kept = [], []

    def metric(scores, examples):
        looks.append(len(looks))
        kept.append(states(model))
        return [0.1, 0.7, 0.3, 0.7, 0.2][looks[-1]]

    trained = fit(model, data, TrainConfig(batch_size=4, epochs=5, patience=0), metric=metric)[
        "task 0"
    ]
    assert apart(states(model), kept[3 if trained.best.step == trained.history[3].step else 1]) == 0
    assert trained.best.dev == 0.7 and apart(states(model), kept[4]) > 0


@pytest.mark.parametrize(
    "dev, losses, looks, best",
    [
        (
            [0.5, 0.5, 0.5, 0.5, 0.5, 0.5],
            [6, 5, 4, 3, 2, 1],
            6,
            6,
        ),  # a tie with a lower loss is a gain; P-tuning's counter rises on ties
        ([0.5, 0.6, 0.5, 0.4, 0.9, 0.9], [1, 1, 1, 1, 1, 1], 4, 2),
    ],
)
def test_patience(dev, losses, looks, best, monkeypatch):
    model, data = bank([0])
    evaluate = loop.PromptTraining.evaluate
    monkeypatch.setattr(
        loop.PromptTraining,
        "evaluate",
        lambda job, *_: evaluate(
            job, losses[len(job.trained.history)], lambda: dev[len(job.trained.history)]
        ),
    )
    trained = fit(model, data, TrainConfig(batch_size=13, epochs=6, patience=2))["task 0"]
    assert len(trained.history) == looks and trained.best.step == best


def test_patience_counts_in_steps_too_where_epochs_are_short(monkeypatch):
    model, data = bank([0])
    evaluate = loop.PromptTraining.evaluate
    monkeypatch.setattr(
        loop.PromptTraining, "evaluate", lambda job, *_: evaluate(job, 1.0, lambda: 0.5)
    )
    settings = TrainConfig(batch_size=13, epochs=30, patience=2, patience_steps=9)
    trained = fit(model, data, settings)["task 0"]
    assert trained.best.step == 1 and (trained.step, trained.planned, trained.stopped) == (
        10,
        30,
        True,
    )
    falling = "the training loss still falling: a larger patience may get further"
    assert account("It", trained, settings) == [
        f"It was stopped by patience at step 10 of 30, {falling}."
    ]
    trained.history[-1] = replace(trained.history[-1], loss=trained.best.loss)
    assert account("It", trained, settings) == ["It was stopped by patience at step 10 of 30."]


def test_training_stops_where_the_dev_score_reaches_a_threshold(monkeypatch):
    model, data = bank([0])
    scores = iter([0.5, 0.75, 1.0, 1.0])
    evaluate = loop.PromptTraining.evaluate
    monkeypatch.setattr(
        loop.PromptTraining,
        "evaluate",
        lambda job, loss, _: evaluate(job, loss, lambda: next(scores)),
    )
    settings = TrainConfig(batch_size=13, epochs=4, patience=2, stopping_threshold=0.75)
    trained = fit(model, data, settings)["task 0"]
    assert (trained.step, trained.best.dev, trained.stopped) == (2, 0.75, True)
    assert account("It", trained, settings) == [
        "It was stopped at step 2 of 4, where its dev score reached 0.75."
    ]
    with pytest.raises(SettingsError):
        TrainConfig(stopping_threshold=float("nan"))


@pytest.mark.parametrize("killed", [None, 1, 4])
def test_a_training_that_is_pruned_ends_there_and_spares_the_others(killed, tmp_path, monkeypatch):
    config = TrainConfig(batch_size=5, epochs=4, patience=0, save_seconds=0, learning_rate=3e-3)
    asked: list[tuple[int, float]] = []

    def pruner(step, dev):
        asked.append((step, dev))
        return step >= 6

    def trained(names, **more):
        model, data = bank(names)
        trainings = [
            Training(
                {name: data[name]},
                config,
                pruner=pruner if name == "task 0" else None,
                folder=tmp_path / name,
                **more,
            )
            for name in data
        ]
        histories = loop.fit_together(model, trainings)
        return model, [history for part in histories for history in part.values()]

    alone = run([2], batch_size=5, epochs=4)[0]
    if killed:
        with killed_after(killed, monkeypatch):
            trained([0, 2])
    model, (pruned, other) = trained([0, 2], resume=True)
    assert (pruned.step, pruned.planned, pruned.pruned, pruned.stopped) == (6, 12, True, True)
    assert not other.pruned and other.step == other.planned == 20
    best = pruned.history[0].dev
    for evaluation, (step, dev) in zip(pruned.history, asked[-len(pruned.history) :]):
        best = max(best, evaluation.dev)
        assert (step, dev) == (evaluation.step, best)
    assert account("It", pruned, config) == [
        "It was pruned at step 6 of 12, where most others were ahead on dev."
    ]
    assert apart(states(model)[1:], states(alone)) < 1e-5
    again = trained([0, 2], resume=True)[1][0]
    assert again.pruned and again.step == 6


def test_a_training_that_is_done_asks_no_pruner():
    model, data = bank([0])
    asked: list[int] = []
    training = Training(
        data,
        TrainConfig(batch_size=5, epochs=2, patience=0),
        pruner=lambda step, dev: bool(asked.append(step)),
    )
    ((history,),) = (part.values() for part in loop.fit_together(model, [training]))
    assert asked == [3] and not history.pruned and history.step == 6
    rehearsal.one_step(model, [replace(training, data={0: data["task 0"]})])
    assert asked == [3]


def test_steps_that_epochs_cut_short_are_told():
    model, data = bank([0])
    settings = TrainConfig(batch_size=4, epochs=1, steps=50, patience=0)
    trained = fit(model, data, settings)["task 0"]
    assert (trained.step, trained.planned, trained.stopped) == (4, 4, False)
    assert account("It", trained, settings) == [
        "It had 4 steps at most, and not the 50 that are asked for, since epochs is 1."
    ]
    assert fit(model, data, TrainConfig(batch_size=4, steps=6, patience=0))["task 0"].step == 6


def test_schedule():
    def rates(**settings):
        config = TrainConfig(**settings)
        return [optimisers.rate_share(step, 10, 5, config) for step in range(10)]

    assert rates() == [1.0] * 10
    assert rates(warmup=0.2, decay="linear") == pytest.approx(
        [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )
    assert rates(decay="exponential") == pytest.approx([1.0] * 5 + [0.98] * 5)


def test_clipping_is_each_tasks_own():
    model, data = bank([0, 1])
    norms = []
    clip = torch.nn.utils.clip_grad_norm_

    def seen(parameters, limit):
        norms.append(float(clip(parameters, limit)))
        assert math.sqrt(sum(float(p.grad.square().sum()) for p in parameters)) < limit * 1.001
        return norms[-1]

    prompt_training.nn.utils.clip_grad_norm_ = seen
    try:
        fit(model, data, TrainConfig(batch_size=4, epochs=1, clip=0.01))
    finally:
        prompt_training.nn.utils.clip_grad_norm_ = clip
    assert len(norms) == 4 + 5 and max(norms) > 0.01


def test_divergence_stops_the_one_and_spares_the_others():
    model, data = bank([0, 1])
    with torch.no_grad():
        model.bank.encoders[0].embedding.weight.fill_(float("nan"))
    with pytest.raises(
        DivergedError, match="training of task 0 diverged .* lower learning_rate"
    ) as raised:
        fit(model, data, TrainConfig(batch_size=4, epochs=2))
    trained = raised.value.trained
    assert trained["task 0"].diverged and trained["task 0"].best is None
    assert not trained["task 1"].diverged and trained["task 1"].best is not None


@pytest.mark.parametrize(
    "tune, rates", [("prompt", {"learning_rate": 1e30}), ("lm", {"lm_learning_rate": 1e30})]
)
def test_what_diverges_before_the_first_look_is_as_it_began(tune, rates):
    model, data = bank([0])
    network = {name: value.clone() for name, value in model.lm.model.state_dict().items()}
    prompt = states(model)
    with pytest.raises(DivergedError, match=r"lower .*\(it is 1e\+30\)"):
        fit(model, data, TrainConfig(batch_size=4, epochs=2, clip=0.0, **rates), tune=tune)
    assert apart(states(model), prompt) == 0
    assert all(
        torch.equal(value, network[name]) for name, value in model.lm.model.state_dict().items()
    )


def test_a_dev_score_that_is_no_finite_number_is_no_best_state():
    model, data = bank([0])
    with pytest.raises(DivergedError):
        fit(
            model,
            data,
            TrainConfig(batch_size=4, epochs=2),
            metric=lambda scores, examples: math.nan,
        )


@pytest.mark.parametrize("tune", ["lm", "both"])
def test_tuning_the_lm(tune):
    model, data = bank([0])
    network = {k: v.clone() for k, v in model.lm.model.state_dict().items()}
    prompt = states(model)
    trained = fit(
        model,
        data,
        TrainConfig(batch_size=4, epochs=6, lm_learning_rate=1e-3, patience=0),
        tune=tune,
    )["task 0"]
    assert trained.history[-1].loss < trained.history[0].loss
    assert any(not torch.equal(v, network[k]) for k, v in model.lm.model.state_dict().items())
    assert (apart(states(model), prompt) > 0) == (tune == "both")
    assert not model.lm.model.training and not any(
        p.requires_grad for p in model.lm.model.parameters()
    )
    with pytest.raises(ConfigError, match="one task at a time"):
        fit(*bank([0, 1]), TrainConfig(), tune=tune)


def test_dropout_of_a_frozen_lm_is_off_and_of_a_tuned_one_on():
    for tune, training_mode in (("prompt", False), ("lm", True)):
        model, data = bank([0])
        modes = []
        model.lm.model.register_forward_hook(
            lambda module, *_, modes=modes: (
                modes.append(module.training) if torch.is_grad_enabled() else None
            )
        )
        fit(model, data, TrainConfig(batch_size=4, epochs=1), tune=tune)
        assert set(modes) == {training_mode}


def test_trainings_with_rates_are_tried_with_their_first_tasks(monkeypatch):
    monkeypatch.setattr(rehearsal, "MOST_TASKS", 2)
    model, data = bank([0, 1, 2])
    by_number = {model.number(name): rows_of for name, rows_of in data.items()}
    training = Training(by_number, TrainConfig(), rates=dict.fromkeys(by_number, 1e-3))
    assert len(rehearsal.one_step(model, [training]).tasks) == 3


def test_what_cannot_be_trained():
    model, data = bank([0])
    with pytest.raises(DataError, match="task 0 has 13 training rows and 0 dev rows"):
        rehearsal.one_step(model, [Training({0: (data["task 0"][0], [])}, TrainConfig())])
    with pytest.raises(DataError, match="task 0 has 0 training rows and 6 dev rows"):
        fit(model, {0: ([], data["task 0"][1])})
    number = model.add(Task("manual", Template.parse("{x} is {mask}"), WORDS))
    with pytest.raises(
        ConfigError, match="no soft tokens and no prefix, so there is no prompt to train"
    ):
        fit(model, {number: data["task 0"]})


@pytest.mark.parametrize("tune", ["prompt", "lm"])
def test_a_run_that_is_stopped_and_resumed_is_the_run_that_was_not(tune, tmp_path, monkeypatch):
    """Stopped at every kind of moment: mid-epoch, at a look, after early stopping of one task."""
    names = [0, 1, 2] if tune == "prompt" else [0]
    config = TrainConfig(
        batch_size=4,
        epochs=5,
        patience=2,
        warmup=0.1,
        decay="linear",
        save_seconds=0,
        learning_rate=3e-3,
        lm_learning_rate=1e-3,
    )

    def result(model, trained):
        values = (
            states(model)
            if tune == "prompt"
            else [{k: v.clone() for k, v in model.lm.model.state_dict().items()}]
        )
        return values, {
            name: [vars(evaluation) for evaluation in training.history]
            for name, training in trained.items()
        }

    model, data = bank(names)
    whole, history = result(model, fit(model, data, config, tune=tune))
    for stop in (1, 4, 11):
        folder = tmp_path / str(stop)
        with killed_after(stop, monkeypatch):
            fit(*bank(names), config, tune=tune, folder=folder)
        model, data = bank(names)
        torch.manual_seed(99)
        values, evaluations = result(
            model, fit(model, data, config, tune=tune, folder=folder, resume=True)
        )
        assert apart(values, whole) == 0 and evaluations == history


def test_checkpoints_of_other_runs_are_refused(tmp_path):
    config = TrainConfig(batch_size=4, epochs=1, save_seconds=0)
    fit(*bank([0]), config, folder=tmp_path)
    with pytest.raises(StoreError, match="belongs to another run"):
        fit(*bank([1]), config, folder=tmp_path, resume=True)
    with pytest.raises(StoreError, match="belongs to another run"):
        fit(*bank([0]), TrainConfig(batch_size=5, epochs=1), folder=tmp_path, resume=True)
    (tmp_path / "checkpoint.safetensors").write_bytes(
        (tmp_path / "checkpoint.safetensors").read_bytes()[:-9]
    )
    with pytest.raises(StoreError, match="damaged"):
        fit(*bank([0]), config, folder=tmp_path, resume=True)


def test_ctrl_c_saves_all(tmp_path, monkeypatch):
    """Pressed in the middle of a step: the step is finished, so that no task is a step behind the
    others."""
    update, count = loop.PromptTraining.update, []

    def interrupted(job):
        count.append(1)
        if len(count) == 12:
            os.kill(os.getpid(), signal.SIGINT)
        update(job)

    config = TrainConfig(batch_size=4, epochs=4, patience=0)
    whole, _, _ = run([0, 1, 2], epochs=4, learning_rate=1e-3)
    monkeypatch.setattr(loop.PromptTraining, "update", interrupted)
    with pytest.raises(Interrupted, match="checkpoint.safetensors holds all"):
        fit(*bank([0, 1, 2]), config, folder=tmp_path)
    monkeypatch.setattr(loop.PromptTraining, "update", update)
    model, data = bank([0, 1, 2])
    fit(model, data, config, folder=tmp_path, resume=True)
    assert apart(states(model), states(whole)) == 0


def test_a_real_kill(tmp_path):
    """kill -9 in the middle of a run, and the same vectors at the end."""
    settings = {"batch_size": 4, "epochs": 5, "patience": 0, "save_seconds": 0}

    def work():
        model, data = bank([0, 1, 2])
        fit(model, data, TrainConfig(**settings), folder=tmp_path / "killed")

    process = forked.Forked(work, tmp_path)
    while not list((tmp_path / "killed").rglob("*.safetensors")):
        assert process.poll() is None, "the run was over before it was killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was over before it was killed"
    ends = []
    for name in ("killed", "whole"):
        model, data = bank([0, 1, 2])
        fit(model, data, TrainConfig(**settings), folder=tmp_path / name, resume=True)
        ends.append(states(model))
    assert apart(*ends) == 0


# Labels' shares, which another model gave.


def shared(family, *shares, temperature=1.0, loss="labels", **settings):
    """A model with one task, its LM by hand, and rows whose labels have shares."""
    model, plain = PromptModel(LanguageModel(*tiny.tiny(family))), Plain(family)
    words = ["great", "a film"] if loss == "labels" else "great"
    model.add(
        Task(
            "t",
            Template.parse("{x} is {mask}"),
            Verbalizer.from_words({"a": words, "b": "bad", "c": "Maybe"}),
            loss=loss,
            temperature=temperature,
            **settings,
        )
    )
    return (
        model,
        plain,
        [
            {"x": f"{TOWNS[number]} and {' '.join(TOWNS[:number])}", "label": degrees}
            for number, degrees in enumerate(shares)
        ],
    )


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_shares_are_learned_as_they_are(family, temperature):
    """Beside rows with labels. LM-BFF compares shares by KLDivLoss(log_target=True), for which a
    share of 1 is a share of e / (e + 1)."""
    shares = [[0.2, 0.5, 0.3], [1.0, 0.0, 0.0], [0.0, 0.4, 0.6]]
    model, plain, texts = shared(family, *shares, "c", temperature=temperature)
    examples = model.encode(0, texts)
    assert [example.label for example in examples] == [1, 0, 2, 2]
    expected, untempered = [], []
    for row in texts:
        scores = of_labels(
            plain.words([f"{row['x']} is"], [["great", "a film"], ["bad"], ["Maybe"]])
        )
        true_shares = [0.0, 0.0, 1.0] if row["label"] == "c" else row["label"]
        degrees = 1.0 if row["label"] == "c" else temperature

        def divergence(degrees, scores=scores, true_shares=true_shares):
            predicted_shares = (scores / degrees).exp() / (scores / degrees).exp().sum()
            return degrees**2 * sum(
                share * math.log(share / float(q))
                for share, q in zip(true_shares, predicted_shares)
                if share
            )

        expected.append(divergence(degrees))
        untempered.append(divergence(1.0))
    assert temperature == 1 or max(abs(a - b) for a, b in zip(expected, untempered)) > 1e-3
    torch.testing.assert_close(model.losses(examples), torch.tensor(expected), atol=1e-5, rtol=1e-5)
    right, _, plainly = shared(family, "a")
    torch.testing.assert_close(
        model.losses(examples[1:2]),
        right.losses(right.encode(0, [{**texts[1], "label": "a"}]))
        if temperature == 1
        else torch.tensor(expected[1:2]),
        atol=1e-5,
        rtol=1e-5,
    )


def test_a_share_of_one_ends_at_one():
    scores = torch.zeros(2, requires_grad=True)
    optimiser = torch.optim.Adam([scores], lr=0.1)
    for _ in range(300):  # LM-BFF's loss, of the same shares
        optimiser.zero_grad()
        torch.nn.functional.kl_div(
            scores.log_softmax(0), torch.tensor([1.0, 0.0]), reduction="sum", log_target=True
        ).backward()
        optimiser.step()
    assert float(scores.detach().softmax(0)[0]) == pytest.approx(0.731, abs=1e-3)
    model, _, texts = shared("bert", [1.0, 0.0, 0.0], [0.3, 0.7, 0.0], reader=READERS["soft"])
    optimiser, examples = (
        torch.optim.Adam(model.bank.parameters_of(0), lr=0.05),
        model.encode(0, texts),
    )
    for _ in range(150):
        optimiser.zero_grad()
        model.losses(examples).sum().backward()
        optimiser.step()
    certain, uncertain = (prediction["scores"] for prediction in model.predict(texts))
    assert (
        certain["a"] > 0.99
        and uncertain["a"] == pytest.approx(0.3, abs=0.02)
        and uncertain["b"] == pytest.approx(0.7, abs=0.02)
    )


@pytest.mark.parametrize(
    "degrees",
    [[0.5, 0.5], [0.5, 0.2, 0.2], [1.2, -0.2, 0.0], ["a", "b", "c"], [float("nan"), 1.0, 0.0], []],
)
def test_shares_that_are_none(degrees):
    model, _, texts = shared("bert", degrees)
    with pytest.raises(DataError, match="Row 1 of t: .*3 shares that add up to 1"):
        model.encode(0, texts)


def test_shares_of_choices_and_of_a_whole_vocabulary():
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    model.add(Task("t", Template.parse("{x} is {mask}"), Choices(("all",))))
    both = [
        {"x": "Vienna", "all": ["great", "a film"], "label": [0.25, 0.75]},
        {"x": "Rome", "all": ["bad", "great", "the capital"], "label": [0.0, 0.0, 1.0]},
    ]
    examples = model.encode(0, both)
    expected = [
        sum(p * (math.log(p) - float(q)) for p, q in zip(row["label"], scores.log_softmax(0)) if p)
        for row, scores in zip(both, model.scores(examples))
    ]
    torch.testing.assert_close(model.losses(examples), torch.tensor(expected), atol=1e-5, rtol=1e-5)
    with pytest.raises(DataError, match="2 shares that add up to 1"):
        model.encode(0, [{**both[0], "label": [0.25, 0.5, 0.25]}])
    model, _, texts = shared("bert", [1.0, 0.0, 0.0], loss="vocabulary")
    with pytest.raises(ConfigError, match="Row 1 of t: .*not compared with the whole vocabulary"):
        model.encode(0, texts)


# Words of unlabelled rows, hidden and told beside the task.


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "deberta"])
def test_hidden_words_are_told_as_transformers_would(family):
    """In one batch with labelled rows: the mean over a row's hidden words of transformers' own loss
    on the same ids, its other labels -100; with soft tokens, on the same vectors."""
    model, plain = PromptModel(LanguageModel(*tiny.tiny(family))), Plain(family)
    model.add(Task("plain", Template.parse("{x} is {mask}"), WORDS))
    model.add(
        Task("soft", Template.parse("{soft:2} {x} {soft:2} is {mask}"), WORDS, encoder="table")
    )
    torch.nn.init.normal_(
        model.bank.encoders[0].embedding.weight, 0, 0.5, generator=torch.Generator().manual_seed(0)
    )
    texts = [
        {"x": " ".join(TOWNS)},
        {"x": "Rome"},
        {"x": "the capital of France is Paris and the capital of Germany is Berlin"},
    ]
    hidden = [
        example
        for task in range(2)
        for example in model.hidden_words(task, texts, torch.Generator().manual_seed(4))
    ]
    losses = model.losses([*model.encode(0, rows(0)), *hidden])[len(rows(0)) :]
    expected, all_places = [], []
    vectors = model.bank.encoders[0]()
    for example in hidden:
        row = example.learn[0]
        labels = torch.full((1, len(row.ids)), -100)
        labels[0, list(row.answer_positions)] = torch.tensor(example.answer)
        if max(row.soft_slots) < 0:
            expected.append(plain.network(input_ids=torch.tensor([row.ids]), labels=labels).loss)
            all_places.append(
                plain.network(
                    input_ids=torch.tensor([row.ids]), labels=torch.tensor([row.ids])
                ).loss
            )
        else:
            words = plain.network.get_input_embeddings()
            embedded = torch.stack(
                [
                    vectors[slot] if slot >= 0 else words(torch.tensor(id_))
                    for id_, slot in zip(row.ids, row.soft_slots)
                ]
            )
            expected.append(plain.network(inputs_embeds=embedded[None], labels=labels).loss)
            all_places.append(expected[-1] + 1)
    assert (torch.stack(expected) - torch.stack(all_places)).abs().min() > 1e-3
    torch.testing.assert_close(losses, torch.stack(expected), atol=1e-5, rtol=1e-5)
    (ours,) = torch.autograd.grad(losses.sum(), [vectors])
    (theirs,) = torch.autograd.grad(torch.stack(expected).sum(), [vectors])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_which_words_are_hidden():
    """Fifteen in a hundred of the text's own tokens: eight in ten as masks, one as another token,
    one as itself. Never a special token, the answer's mask, or the place of a soft token; and
    always one, however short the row."""
    model, _ = bank([])
    number = model.add(
        Task("t", Template.parse("{soft:3} {x} {sep} {soft:1} is {mask}"), WORDS, encoder="table")
    )
    texts = [{"x": " ".join(TOWNS[start:] + TOWNS[:start])} for start in range(len(TOWNS))] * 25
    examples = model.hidden_words(number, texts, torch.Generator().manual_seed(0))
    whole = [encode_row(model, model.tasks[number], row) for row in texts]
    special, kinds, free = set(model.lm.tokens.tokenizer.all_special_ids), [], 0
    for example, row in zip(examples, whole):
        learn, places = example.learn[0], example.learn[0].answer_positions
        assert (
            all(
                row.soft_slots[position] < 0 and row.ids[position] not in special
                for position in places
            )
            and tuple(row.ids[position] for position in places) == example.answer
        )
        assert [
            position
            for position in range(len(row.ids))
            if learn.ids[position] != row.ids[position] and position not in places
        ] == [] and places
        assert (learn.soft_slots, learn.types) == (row.soft_slots, row.types)
        free += sum(slot < 0 and id_ not in special for id_, slot in zip(row.ids, row.soft_slots))
        kinds += [
            "mask"
            if learn.ids[position] == model.lm.tokens.mask
            else "same"
            if learn.ids[position] == row.ids[position]
            else "other"
            for position in places
        ]
    shares = {kind: kinds.count(kind) / len(kinds) for kind in ("mask", "same", "other")}
    assert len(kinds) / free == pytest.approx(0.15, abs=0.01)
    assert (
        shares["mask"] == pytest.approx(0.8, abs=0.03)
        and shares["same"] == pytest.approx(0.1, abs=0.03)
        and shares["other"] == pytest.approx(0.1, abs=0.03)
    )
    assert all(
        len(example.answer) >= 1
        for example in model.hidden_words(number, [{"x": "film"}] * 20, torch.Generator())
    )
    again = model.hidden_words(number, texts[:20], torch.Generator().manual_seed(0))
    assert [example.learn for example in again] == [example.learn for example in examples[:20]]


def test_a_row_without_a_word_to_hide_teaches_nothing():
    """All its letters are unknown to the LM."""
    model, _ = bank([])
    number = model.add(Task("t", Template.parse("{soft:3} {x} {mask}"), WORDS, encoder="table"))
    assert not model.hidden_words(number, [{"x": "\u4e2d \u6587"}], torch.Generator())
    trained = fit(
        model,
        {number: (rows(0), rows(1))},
        TrainConfig(batch_size=13, epochs=1, auxiliary=0.5),
        unlabeled=[{"x": "\u4e2d"}],
    )[number]
    assert trained.best is not None


def test_hidden_words_need_a_masked_lm_and_rows():
    model, data = bank([0], family="gpt2")
    with pytest.raises(ConfigError, match="which only a masked LM can tell"):
        fit(model, data, TrainConfig(auxiliary=0.1), unlabeled=[{"x": "Vienna"}])
    with pytest.raises(ConfigError, match="there are none: give some"):
        fit(*bank([0]), TrainConfig(auxiliary=0.1))


def test_the_auxiliary_loss_has_its_weight(monkeypatch):
    """The loss of a step is (1 - weight) times the mean of its rows' losses plus weight times that
    of as many rows with hidden words."""
    model, data = bank([0, 1])
    losses, seen = model_losses.losses, []

    def kept(model, examples, *arguments):
        row_losses = losses(model, examples, *arguments)
        if torch.is_grad_enabled():
            seen.append(
                [
                    (example.task, isinstance(example, HiddenWordsExample), float(loss))
                    for example, loss in zip(examples, row_losses.detach())
                ]
            )
        return row_losses

    monkeypatch.setattr(model_losses, "losses", kept)
    config = TrainConfig(batch_size=5, epochs=1, evaluate_every=1, patience=0, auxiliary=0.3)
    trained = fit(model, data, config, unlabeled=[{"x": f"{town} is a city"} for town in TOWNS])
    for number in range(2):
        for evaluation, step in zip(trained[f"task {number}"].history, seen):
            rows_, hidden_losses = (
                [loss for task, auxiliary, loss in step if (task, auxiliary) == (number, kind)]
                for kind in (False, True)
            )
            assert len(rows_) == len(hidden_losses) > 0
            assert evaluation.loss == pytest.approx(
                0.7 * sum(rows_) / len(rows_) + 0.3 * sum(hidden_losses) / len(hidden_losses),
                abs=1e-5,
            )


def test_hidden_words_teach_together_as_apart():
    unlabeled = [{"x": f"{town} is a city in {other}"} for town, other in zip(TOWNS, TOWNS[1:])]
    config = TrainConfig(
        batch_size=4, epochs=1, evaluate_every=100, patience=0, auxiliary=0.4, learning_rate=1e-3
    )

    def vectors(names, **settings):
        model, data = bank(names)
        fit(model, data, config.model_copy(update=settings), unlabeled=unlabeled)
        return [{"vectors": encoder().detach()} for encoder in model.bank.encoders]

    together, alone = vectors([0, 1]), [vectors([0])[0], vectors([1])[0]]
    assert apart(together, vectors([0, 1], auxiliary=0.0)) > 1e-3 and apart(together, alone) < 1e-5


@pytest.mark.parametrize("tune", ["prompt", "lm"])
def test_a_run_with_hidden_words_is_resumed_as_if_it_had_not_stopped(tune, tmp_path, monkeypatch):
    names, unlabeled = (
        ([0, 1] if tune == "prompt" else [0]),
        [{"x": f"{town} is a city"} for town in TOWNS],
    )
    config = TrainConfig(
        batch_size=4,
        epochs=2,
        patience=0,
        save_seconds=0,
        learning_rate=3e-3,
        lm_learning_rate=1e-3,
        auxiliary=0.3,
        accumulate=2,
    )

    def result(**settings):
        model, data = bank(names)
        torch.manual_seed(99)
        history = fit(model, data, config, tune=tune, unlabeled=unlabeled, **settings)
        values = (
            states(model)
            if tune == "prompt"
            else [{k: v.clone() for k, v in model.lm.model.state_dict().items()}]
        )
        return values, {
            name: [vars(evaluation) for evaluation in training.history]
            for name, training in history.items()
        }

    whole, history = result()
    for stop in (1, 5):
        with killed_after(stop, monkeypatch):
            result(folder=tmp_path / str(stop))
        values, evaluations = result(folder=tmp_path / str(stop), resume=True)
        assert apart(values, whole) == 0 and evaluations == history


# The LM's vocabulary head.


def test_a_tuned_head_moves_alone():
    """The head parts from the input's embeddings, which stay, as do the prompt and all layers; it
    ends at its best state."""
    model, data = bank([0])
    network, prompt = {k: v.clone() for k, v in model.lm.model.state_dict().items()}, states(model)
    trained = fit(
        model,
        data,
        TrainConfig(batch_size=4, epochs=8, lm_learning_rate=3e-3, patience=0),
        tune="head",
    )["task 0"]
    assert trained.history[-1].loss < trained.history[0].loss and apart(states(model), prompt) == 0
    moved = {
        name
        for name, value in model.lm.model.state_dict().items()
        if not torch.equal(value, network[name])
    }
    assert "cls.predictions.decoder.weight" in moved and all(
        name.startswith("cls.predictions.") for name in moved
    )
    assert not any(p.requires_grad for p in model.lm.model.parameters())


class Entries:
    """A log of one's own: all that it is told."""

    def __init__(self):
        self.begun, self.written, self.flushed = [], [], 0

    def begin(self, training, step):
        self.begun.append((training, step))

    def write(self, entry):
        self.written.append(entry)

    def flush(self):
        self.flushed = len(self.written)


@pytest.mark.parametrize("clip", [0.01, 0.0])
def test_a_log_is_told_every_step_and_changes_nothing(clip):
    """Two tasks together, with the norm of the gradient before clipping, or without any; the
    weights are those of the training without a log, to the bit."""
    log = Entries()
    settings = TrainConfig(steps=4, batch_size=4, evaluate_every=2, clip=clip, patience=0)
    models = []
    for logs in ((), (log,)):
        model, data = bank([0, 1])
        histories = fit(model, data, settings, logs=logs, label="two")
        models.append(states(model))
    assert apart(*models) == 0
    assert log.begun == [("two", 0)] and log.flushed == len(log.written)
    one = [entry for entry in log.written if entry.task == "task 1"]
    steps = [entry for entry in one if "loss" in entry.figures]
    evaluations = [entry for entry in one if "dev_score" in entry.figures]
    assert [entry.step for entry in steps] == [1, 2, 3, 4]
    assert [entry.figures["dev_loss"] for entry in evaluations] == [
        evaluation.dev_loss for evaluation in histories["task 1"].history
    ]
    losses = [entry.figures["loss"] for entry in steps]
    assert sum(losses[:2]) / 2 == pytest.approx(evaluations[0].figures["train_loss"], abs=1e-6)
    assert min(entry.figures["gradient_norm"] for entry in steps) > 0.01
    assert steps[-1].figures["tokens_per_second"] > 0


def test_a_killed_training_goes_on_in_the_same_log(monkeypatch, tmp_path):
    """Killed behind a checkpoint: the log has each step once, with the figures of a training that
    was not killed."""
    settings = {"steps": 8, "batch_size": 4, "evaluate_every": 4, "patience": 0}
    figures = []
    for folder, kill in (("whole", None), ("killed", 6)):
        place = tmp_path / folder
        with opened_logs(("jsonl",), place, {}) as logs:
            if kill:
                model, data = bank([0])
                often = TrainConfig(**settings, save_seconds=0)
                with killed_after(kill, monkeypatch):
                    fit(model, data, often, folder=place, logs=logs)
                log = JsonLinesLog(place / "log.jsonl")
                log.begin("another", 0)
                log.stream.write('{"training": "training", "task": "task 0", "step": 7}\n')
                log.close()
            model, data = bank([0])
            fit(model, data, TrainConfig(**settings), folder=place, resume=bool(kill), logs=logs)
        entries = map(json.loads, (place / "log.jsonl").read_text().splitlines())
        figures.append(
            [{k: v for k, v in entry.items() if k != "tokens_per_second"} for entry in entries]
        )
    assert figures[0] == figures[1]
    assert [entry["step"] for entry in figures[1]] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]


def test_each_task_at_a_rate_of_its_own_is_the_task_alone_at_that_rate():
    settings = {"steps": 6, "batch_size": 4, "patience": 0, "decay": "linear"}
    together, data = bank([0, 1], torch.float64)
    rates = {"task 0": 1e-2, "task 1": 1e-3}
    with pytest.raises(ConfigError, match=r"rates is of \['task 0'\], and the tasks are"):
        fit(together, data, TrainConfig(**settings), rates={"task 0": 1e-2})
    fit(together, data, TrainConfig(**settings), rates=rates)
    for number, rate in enumerate(rates.values()):
        alone, data_alone = bank([number], torch.float64)
        fit(alone, data_alone, TrainConfig(**settings, learning_rate=rate))
        assert apart(states(together)[number : number + 1], states(alone)) < 1e-9
        swapped = states(bank([number], torch.float64)[0])
        assert apart(states(alone), swapped) > 1e-4
