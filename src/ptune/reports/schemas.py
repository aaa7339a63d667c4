"""The form of results.json; its JSON schema is docs/results.schema.json."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from ptune.metrics.labels import deviation, mean
from ptune.reports.trial_results import FactsResult, Finite, Wording, lost_trainings


class Figures(Finite):
    """Named figures: "p@1", "p@10", "mrr", "filtered p@1", ... beside the fields that are declared;
    none where no training had a finite state to keep."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float]


class RelationResult(Figures):
    """One relation by one method: the mean of each figure over the seeds that have any."""

    rows: int
    template: str
    deviation: dict[str, float]
    """Standard deviation of each figure over seeds."""
    by_seed: dict[str, list[float]] = {}
    """Each figure of the single seeds, in their order, without those that have none."""
    diverged: int = 0
    """Seeds whose training diverged; their figures are those of the best state before that."""
    lost: int = 0
    """Of those, the seeds that had no finite state to keep, and so have no figures."""
    steps: list[int] = []
    """The optimizer steps that each seed's training had, where anything was trained."""


class MethodResult(Figures):
    """A method: each figure's mean over relations (macro), then over the seeds in which all
    relations have figures."""

    title: str
    seeds: int
    trained_parameters: int
    """Parameters that were trained for one relation, the prompt encoder's among them."""
    kept_parameters: int
    """Parameters that are kept for one relation: the prompt's vectors. All of the LM's where it was
    tuned."""
    micro: dict[str, float]
    """Each figure's mean over all rows."""
    deviation: dict[str, float]
    """Standard deviation of the macro figures over seeds."""
    by_seed: dict[str, list[float]] = {}
    """Each macro figure of the single seeds, in their order, without those that have none."""
    relations: dict[str, RelationResult]
    diverged: int = 0
    """Trainings that diverged, over relations and seeds."""
    lost: int = 0
    """Of those, the ones that had no finite state to keep, and so have no figures."""


class Results(Finite):
    """results.json."""

    methods: dict[str, MethodResult]
    majority: dict[str, float]
    """For each relation the share of rows whose answer is the most frequent of the training
    rows."""
    wordings: dict[str, list[Wording]]
    """For each relation the manual prompt in other words, with its main figure on dev and test."""
    dropped: dict[str, int]
    """For each relation how many rows were left out because their answer is not allowed."""
    settings: dict[str, Any]
    versions: dict[str, str]


def summarise(
    results: Sequence[FactsResult],
    *,
    titles: dict[str, str],
    tuned: set[str],
    majority: dict[str, float],
    dropped: dict[str, int],
    settings: dict[str, Any],
    versions: dict[str, str],
) -> Results:
    """Gather the results of single trials to those of methods.

    Args:
        titles: the methods in order, with their titles.
        tuned: the methods that change the LM.
    """
    methods = {}
    for name, title in titles.items():
        of_method = [result for result in results if result.method == name]
        if of_method:
            methods[name] = _method(of_method, title, name in tuned)
    return Results(
        methods=methods,
        majority=majority,
        wordings={result.problem: result.wordings for result in results if result.wordings},
        dropped=dropped,
        settings=settings,
        versions=versions,
    )


def _figures(values: dict[str, list[float]]) -> dict[str, Any]:
    """Figures for a Figures model: the mean of each, and their deviation."""
    return {name: mean(v) for name, v in values.items()} | {
        "deviation": {name: deviation(v) for name, v in values.items()},
        "by_seed": values,
    }


def _method(results: Sequence[FactsResult], title: str, tuned: bool) -> MethodResult:
    """One method's results: its relations, and its means over them."""
    seeds = sorted({result.seed for result in results})
    relations = {}
    for problem in dict.fromkeys(result.problem for result in results):
        relations[problem] = _relation([result for result in results if result.problem == problem])
    by_seed = [[result for result in results if result.seed == seed] for seed in seeds]
    whole = [of_seed for of_seed in by_seed if all(result.figures for result in of_seed)]
    macro = _columns([_means(of_seed, [1] * len(of_seed)) for of_seed in whole])
    micro = _columns([_means(of_seed, [result.rows for result in of_seed]) for of_seed in whole])
    return MethodResult(
        title=title,
        seeds=len(seeds),
        trained_parameters=max(result.trained for result in results),
        kept_parameters=max(result.trained if tuned else result.kept for result in results),
        micro={name: mean(values) for name, values in micro.items()},
        relations=relations,
        **{**_figures(macro), **lost_trainings(results)},
    )


def _relation(results: Sequence[FactsResult]) -> RelationResult:
    """One relation's results by one method, over seeds."""
    values = _columns([result.figures for result in results if result.figures])
    return RelationResult(
        rows=results[0].rows,
        template=results[0].template,
        **{**_figures(values), **lost_trainings(results)},
        steps=[result.steps for result in results if result.steps],
    )


def _columns(figures: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """The values of each figure."""
    return {
        name: [by_name[name] for by_name in figures] for name in (figures[0] if figures else ())
    }


def _means(results: Sequence[FactsResult], weights: Sequence[int]) -> dict[str, float]:
    """Each figure's weighted mean over relations."""
    columns = _columns([result.figures for result in results])
    whole = sum(weights)
    return {
        name: sum(value * weight for value, weight in zip(values, weights)) / whole
        for name, values in columns.items()
    }


class Output(BaseModel):
    """What was written for one test row, beside what would have been right."""

    row: dict[str, Any]
    text: str
    references: list[str]


class Reliability(Finite):
    """The test rows whose answers have a probability within one tenth."""

    rows: int
    probability: float
    """Of their answers, on average, from 0 to 1."""
    accuracy: float
    """The share of the answers that is right, from 0 to 1."""


class WrongAnswer(Finite):
    """A test row with a wrong answer."""

    row: dict[str, Any]
    right: str
    answer: str
    probability: float
    """Of the answer, from 0 to 1."""


class Run(Finite):
    """run.json: one task trained by one method."""

    name: str
    method: str
    title: str
    template: str
    lm: str
    lm_parameters: int
    trained_parameters: int
    """Parameters that were trained, a prompt encoder's among them; all of the LM's where it was
    tuned."""
    kept_parameters: int
    """Parameters that are kept: the prompt's vectors and prefix; all of the LM's where it was
    tuned."""
    rows: dict[str, int]
    """How many training, dev and test rows there were (train, dev, test)."""
    data_findings: list[str] = []
    """What is odd about the rows: texts that stand in two splits, twice, or under several labels,
    damaged or empty ones, rare labels."""
    history: dict[str, list[dict[str, float]]] = {}
    """For each prompt its looks at dev: step, epoch, loss, dev_loss, dev."""
    best: dict[str, dict[str, float]] = {}
    """For each prompt the look whose state is kept."""
    dev_score: str = "minus the dev loss"
    """What the looks' dev is."""
    diverged: list[str] = []
    """The prompts whose training diverged; what is kept of them is their best state before that."""
    pruned: list[str] = []
    """The prompts whose training a search ended early, since others did better on dev."""
    lost: list[str] = []
    """The prompts that had no finite state to keep: they are not saved, and have no part in the
    figures."""
    figures: dict[str, float] = {}
    """Figures on the test rows."""
    intervals: dict[str, tuple[float, float]] = {}
    """Of the figures of labels the ends between which they lie in 95 of 100 redraws of the test
    rows (bootstrap)."""
    baselines: dict[str, dict[str, float]] = {}
    """The same figures of what a user would get without prompts on the same rows: majority, tf-idf,
    linear-probe."""
    parts: dict[str, dict[str, float]] = {}
    """The same for parts of the test rows, such as WebNLG's seen and unseen categories."""
    train: dict[str, Any] = {}
    """The settings of training that were used, the method's own among them."""
    steps: dict[str, int] = {}
    """For each prompt the optimizer steps that its training had."""
    confusion: dict[str, dict[str, int]] = {}
    """For each right label how many test rows got each label as their answer; none where rows
    have no labels in common."""
    calibration: list[Reliability] = []
    """The probabilities of the answers on the test rows beside the share that is right, by tenths;
    none where rows have no labels in common."""
    wrong: list[WrongAnswer] = []
    """The wrong answers on the test rows that have the largest probability, largest first."""
    answer_tokens: dict[str, dict[str, float]] = {}
    """For each prompt whose answer is text, how many tokens an answer has on average (train, dev).
    The losses of such prompts are sums over these tokens."""
    selection: dict[str, Any] = {}
    """Of method auto: what was tried, on which figure, and what was chosen."""
    left_out: dict[str, str] = {}
    """Metrics that could not be computed, and why."""
    outputs: list[Output] = []
    seconds: dict[str, float] = {}
    """How long training and writing took (train, write)."""
    settings: dict[str, Any] = {}
    versions: dict[str, str] = {}


class Cell(Finite):
    """A method on a task with so many shots: figures over seeds."""

    task: str
    shots: int
    """Rows of each label; 0 for a task with its own few-shot files."""
    method: str
    metric: str
    """The figure that the task is judged by."""
    baseline: bool = False
    """Whether this is no method of prompts, but what a user would get without any on the same
    rows."""
    seeds: int
    rows: dict[str, int]
    """How many training, dev, test and unlabelled rows there were (train, dev, test, unlabeled)."""
    mean: dict[str, float]
    """Each figure's mean over the seeds that have any; none where the method cannot do the task, or
    every training was lost."""
    deviation: dict[str, float]
    """Its standard deviation over seeds (of a sample)."""
    by_seed: dict[str, list[float]] = {}
    """Each figure of the single seeds, in their order, without those that have none."""
    intervals: dict[str, tuple[float, float]] = {}
    """Of each figure the ends between which a seed's lies in 95 of 100 redraws of the test rows
    (bootstrap), as means over seeds."""
    grid: dict[str, float] = {}
    """Of every pattern with every verbalizer: the worst and the best main figure on test, and its
    deviation, as means over seeds."""
    trained_parameters: int
    kept_parameters: int
    seconds: float
    """What one seed took."""
    steps: list[int] = []
    """The optimizer steps that each seed's training had (PET: its classifier's), where anything was
    trained."""
    train: dict[str, Any] = {}
    """The settings of training that were used (PET: its classifier's), the method's own among them;
    the seed is the first's."""
    impossible: str = ""
    """Why the method cannot do the task."""
    diverged: int = 0
    """Seeds whose training diverged; their figures are those of the best state before that."""
    lost: int = 0
    """Of those, the seeds that had no finite state to keep, and so have no figures."""


class Comparison(Finite):
    """results.json of ptune compare."""

    cells: list[Cell]
    titles: dict[str, str]
    settings: dict[str, Any]
    versions: dict[str, str]


def versions() -> dict[str, str]:
    """What the figures were made with."""
    packages = {
        name: importlib.metadata.version(name)
        for name in ("ptune", "torch", "transformers", "tokenizers")
    }
    return {
        **packages,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
