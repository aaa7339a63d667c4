"""How long an experiment will take: what one row takes is timed, and the rows are counted."""

import math
import time
from collections.abc import Callable, Sequence

import torch

from ptune.experiments.probe.probe_trials import Plan, ProbeTask, add_problem
from ptune.model.prompt_model import PromptModel
from ptune.runs.trials import Trial
from ptune.training.methods import Method

SAMPLE = 16  # rows that are timed: a batch of the methods that tune the LM
PROMPT_SAMPLE = 64  # of those that train prompts, which share batches


def seconds_at_most(plan: Plan, trials: Sequence[Trial]) -> float:
    """The seconds that trials take if no training stops early.

    A batch of rows of a method's first trial is trained on and scored by each kind of method, once
    to warm up and once with a clock; the LM and the rows are as they were afterwards.
    """
    seconds = 0.0
    rates: dict[str, tuple[float, float]] = {}
    for trial in trials:
        method, problem = plan.method(trial), plan.problem(trial)
        if method.tune not in rates:
            rates[method.tune] = _seconds_a_row(plan, method, problem)
        for_training, for_scoring = rates[method.tune]
        trained, scored = _rows(plan, method, problem)
        seconds += trained * for_training + scored * for_scoring
    return seconds


def _rows(plan: Plan, method: Method, problem: ProbeTask) -> tuple[int, int]:
    """How many rows a method trains on at most, and how many it scores, epochs and evaluations
    counted."""
    if method.tune == "nothing":
        wordings = len(problem.wordings) if plan.wordings else 0
        return 0, len(problem.test) + wordings * (len(problem.dev) + len(problem.test))
    settings = method.train
    steps_an_epoch = math.ceil(len(problem.train) / settings.batch_size)
    steps = settings.planned_steps(steps_an_epoch)
    evaluations = math.ceil(steps / (settings.evaluate_every or steps_an_epoch))
    return round(steps / steps_an_epoch * len(problem.train)), evaluations * len(problem.dev) + len(
        problem.test
    )


def _seconds_a_row(plan: Plan, method: Method, problem: ProbeTask) -> tuple[float, float]:
    """How long a row takes in training and in scoring."""
    device = plan.lm.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        return _timed_rows(plan, method, problem)


def _timed_rows(plan: Plan, method: Method, problem: ProbeTask) -> tuple[float, float]:
    model = PromptModel(plan.lm)
    task = add_problem(model, method, problem, method.train.seed)
    examples = model.encode(
        task,
        (problem.train or problem.test)[
            : PROMPT_SAMPLE if method.tune == "prompt" and plan.together > 1 else SAMPLE
        ],
    )
    for_scoring = _timed(lambda: model.scores(examples)) / len(examples)
    if method.tune == "nothing":
        return 0.0, for_scoring
    plan.lm.tune(method.tune != "prompt")
    parameters = [
        parameter
        for parameter in [*plan.lm.model.parameters(), *model.bank.parameters()]
        if parameter.requires_grad
    ]
    optimiser = torch.optim.AdamW(
        parameters, lr=0.0, weight_decay=0.0
    )  # a rate of nothing changes nothing

    def step() -> None:
        model.backward(examples, [1.0] * len(examples))
        optimiser.step()

    try:
        for_training = _timed(step) / len(examples)
    finally:
        plan.lm.model.zero_grad()
        plan.lm.tune(False)
    return for_training, for_scoring


def _timed(run: Callable[[], object]) -> float:
    """The seconds of the second of two runs."""
    run()
    _wait()
    began = time.monotonic()
    run()
    _wait()
    return time.monotonic() - began


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def sentence(seconds: float) -> str:
    """Seconds as a sentence about the time that is left."""
    if seconds < 1:
        return "This takes a moment."
    shown = (
        f"{seconds:.0f} seconds"
        if seconds < 100
        else f"{seconds / 60:.0f} minutes"
        if seconds < 5400
        else f"{seconds / 3600:.1f} hours"
    )
    return (
        f"This takes about {shown} at most (a few rows were timed; training that stops early "
        "is shorter)."
    )
