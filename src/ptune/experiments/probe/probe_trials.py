"""The trials of a probe: every method on every relation with every seed, and how those of a bank
are run."""

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ptune.answers.label_words import Verbalizer
from ptune.base.file_names import file_name
from ptune.base.ranks import ALONE, Ranks
from ptune.errors import DivergedError, TemplateError
from ptune.lm.language_model import LanguageModel, nearest_words
from ptune.model.prompt_model import Example, Loss, PrefixSettings, PromptModel, Row, Task
from ptune.reports.trial_results import AnsweredRow, FactsResult, Wording
from ptune.runs import identity
from ptune.runs.logs.training_log import TrainingLog
from ptune.runs.trials import Trial
from ptune.settings import TrainConfig
from ptune.storage import prompt_folder
from ptune.tasks.task_members import framed
from ptune.template.language import Template
from ptune.training.loop import account, fit
from ptune.training.methods import Method
from ptune.training.prompt_training import TrainingHistory

Score = Callable[[Sequence[torch.Tensor], Sequence[Example]], dict[str, float]]
SHOWN = 8  # rows whose answers are kept for the report


@dataclass(frozen=True)
class ProbeTask:
    """A relation as a task: its rows, how they are asked by hand, how answers are read and scored.

    Attributes:
        wordings: other ways to ask by hand; each is tried on dev and test.
        main: the figure that dev is judged by.
    """

    name: str
    label: str
    manual: str | None
    wordings: tuple[str, ...]
    verbalizer: Verbalizer
    target: str
    train: Sequence[Row]
    dev: Sequence[Row]
    test: Sequence[Row]
    score: Score
    main: str
    majority: float
    loss: Loss = "vocabulary"

    def template(self, method: Method) -> str | None:
        """The template by which a method asks; None where it needs a hand-written prompt and there
        is none."""
        if method.template != "manual":
            return method.template
        return framed(method, self.manual) if self.manual else None


@dataclass(frozen=True)
class Plan:
    """What a probe asks, and of which LM.

    Attributes:
        out: where prompts are saved; None where they are not kept.
        together: how many prompts train in one batch.
        wordings: whether the manual prompt is tried in other words too.
        searches: the prompts that a program looks for.
        identity: all that the results depend on.
        logs: what gets the figures of trainings while they run.
        ranks: the processes that train together; the first one alone gives results.
    """

    lm: LanguageModel
    problems: Sequence[ProbeTask]
    methods: Sequence[Method]
    seeds: int
    out: pathlib.Path | None
    together: int
    wordings: bool = True
    searches: "Searches | None" = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    logs: Sequence[TrainingLog] = ()
    ranks: Ranks = ALONE

    def method(self, trial: Trial) -> Method:
        """The method of a trial."""
        return next(method for method in self.methods if method.name == trial.method)

    def problem(self, trial: Trial) -> ProbeTask:
        """The relation of a trial."""
        return next(problem for problem in self.problems if problem.name == trial.task)


@dataclass(frozen=True)
class Searches:
    """The prompts that a program looks for, for each relation.

    Attributes:
        columns: for each kind of search its columns in the table.
        rows, steps, budget: of each search.
        corpus: the texts that are mined, where they are not those of the facts.
        sentences: those from which the templates of a relation are mined, by its name.
    """

    columns: Mapping[str, Sequence[Method]]
    rows: int
    steps: int
    budget: int | None
    corpus: Sequence[pathlib.Path]
    sentences: Callable[[str], Iterator[str]]

    @property
    def methods(self) -> list[Method]:
        """All columns, in order."""
        return [method for methods in self.columns.values() for method in methods]


def trials_of(plan: Plan) -> list[Trial]:
    """Every method on every relation that it can ask, with every seed. Those of one method and seed
    that train prompts alone share a bank, as many together as the plan says."""
    trials = []
    for method in plan.methods:
        problems = [problem for problem in plan.problems if problem.template(method)]
        size = plan.together if method.tune == "prompt" else 1
        for seed in range(plan.seeds if method.tune != "nothing" else 1):
            for number, problem in enumerate(problems):
                bank = (method.name, seed, number // size)
                trials.append(_trial(plan, method, problem, seed=seed, bank=bank))
    return trials


def _trial(
    plan: Plan, method: Method, problem: ProbeTask, *, seed: int, bank: tuple[str, int, int]
) -> Trial:
    whole = plan.identity
    settings = {
        "lm": identity.hashed(whole.get("lm", {})),
        "allowed answers": whole.get("allowed answers"),
        "method": whole.get("methods", {}).get(method.name),
        "facts": whole.get("facts of", {}).get(problem.name),
        "wordings": plan.wordings,
    }
    return Trial(
        method=method.name,
        task=problem.name,
        seed=seed,
        shots=0,
        settings=settings,
        file=f"results/{file_name(method.name)}/{file_name(problem.name, seed)}.json",
        scratch=f"checkpoints/{file_name(method.name, problem.name, seed)}",
        bank=bank,
    )


def original_weights(plan: Plan) -> dict[str, torch.Tensor] | None:
    """The LM's weights before any training; None where no method changes them."""
    tuned = any(method.tune in ("lm", "both") for method in plan.methods)
    return plan.lm.weights() if tuned else None


def run_bank(
    plan: Plan,
    original: dict[str, torch.Tensor] | None,
    trials: Sequence[Trial],
    scratch: pathlib.Path | None,
) -> Iterator[FactsResult]:
    """Train relations by one method, together where prompts are trained alone, and test each. The
    LM is afterwards as it was before.

    Args:
        original: the LM's weights, where the methods change them.
        scratch: where checkpoints are kept; a training goes on from one that is there.
    """
    method, problems = plan.method(trials[0]), [plan.problem(trial) for trial in trials]
    config = method.train.model_copy(update={"seed": method.train.seed + trials[0].seed})
    model = PromptModel(plan.lm)
    tasks = [add_problem(model, method, problem, config.seed) for problem in problems]
    try:
        label = f"{method.title}, {_names(problems)}"
        label += f", seed {config.seed}" if plan.seeds > 1 else ""
        by_task = dict(zip(tasks, problems))
        train = partial(fit, model, config=config, folder=scratch, label=label, logs=plan.logs)
        if method.tune == "prompt":
            train = partial(train, ranks=plan.ranks)
        histories = _train(train, method, by_task)
        if not plan.ranks.is_first:
            return
        for task, trial in zip(tasks, trials):
            result = _result(
                plan, model, trial, task=task, trained=histories.get(task), settings=config
            )
            if method.tune == "prompt" and result.figures and plan.out is not None:
                folder = plan.out / "prompts" / file_name(method.name, trial.task, trial.seed)
                prompt_folder.save(model, folder, task=task, metrics=result.figures)
            yield result
    finally:
        if original is not None and method.tune in ("lm", "both"):
            plan.lm.restore(original)


def _names(problems: Sequence[ProbeTask]) -> str:
    first, *others = [problem.name for problem in problems]
    return f"{first} and {len(others)} more" if others else first


def _train(
    train: Callable[..., Mapping[Any, TrainingHistory]],
    method: Method,
    problems: Mapping[int, ProbeTask],
) -> Mapping[Any, TrainingHistory]:
    """Train what the method trains; return how it went for each task, by its number.

    Args:
        train: ``fit`` with the model and its settings.
    """
    if method.tune == "nothing":
        return {}
    data = {task: (problem.train, problem.dev) for task, problem in problems.items()}
    try:
        return train(data, tune=method.tune, resume=True)
    except DivergedError as error:
        return error.trained


def add_problem(model: PromptModel, method: Method, problem: ProbeTask, seed: int) -> int:
    """Put a problem into a model as a method asks it; return its number there."""
    template = Template.parse(str(problem.template(method)))
    return model.add(
        Task(
            problem.name,
            template,
            verbalizer=problem.verbalizer,
            target=problem.target,
            encoder=method.encoder,
            init=method.init,
            loss=problem.loss,
            seed=seed,
            prefix=PrefixSettings(method.hidden),
        ),
        problem.train,
    )


def _result(
    plan: Plan,
    model: PromptModel,
    trial: Trial,
    *,
    task: int,
    trained: TrainingHistory | None,
    settings: TrainConfig,
) -> FactsResult:
    """What a trial gives: the figures on the test rows, some answers, and how training went."""
    method, problem = plan.method(trial), plan.problem(trial)
    details: dict[str, Any] = _sizes(model, method, task)
    if trained is not None:
        details |= {
            "history": trained.history,
            "steps": trained.step,
            "account": account("It", trained, settings),
            "best": trained.best,
            "diverged": trained.diverged,
        }
    if trained is None or trained.best is not None:
        details |= answers(model, problem, task)
    if method.tune == "nothing" and plan.wordings:
        details["wordings"] = _wordings(plan.lm, problem)
    return FactsResult(
        method=trial.method,
        problem=trial.task,
        seed=trial.seed,
        template=model.tasks[task].task.template.source,
        dropped=model.tasks[task].dropped,
        rows=len(problem.test),
        **details,
    )


def _sizes(model: PromptModel, method: Method, task: int) -> dict[str, int]:
    """How many parameters were trained, and how many of the prompt are kept."""
    prompt = model.tasks[task].prompt
    parameters = model.bank.parameters_of(prompt) if prompt >= 0 else []
    prompt_size = sum(parameter.numel() for parameter in parameters)
    lm_size = sum(parameter.numel() for parameter in model.lm.model.parameters())
    sizes = {"prompt": prompt_size, "lm": lm_size, "both": prompt_size + lm_size}
    return {
        "trained": sizes.get(method.tune, 0),
        "kept": model.bank.size(prompt) if prompt >= 0 else 0,
    }


def answers(model: PromptModel, problem: ProbeTask, task: int) -> dict[str, Any]:
    """The figures on the test rows, a few answers, and the words nearest to the soft tokens."""
    examples = model.encode(task, problem.test)
    nearest = _nearest(model, task)
    return {**judged(problem, model.scores(examples), examples), "nearest": nearest}


def judged(
    problem: ProbeTask, scores: Sequence[torch.Tensor], examples: Sequence[Example]
) -> dict[str, Any]:
    """The figures of scores of the test rows, and a few answers."""
    figures = problem.score(scores, examples)
    return {"figures": figures, "examples": _examples(problem, scores, examples)}


def _nearest(model: PromptModel, task: int) -> list[list[str]]:
    """For each soft token of a task the words that are nearest to it."""
    prompt = model.tasks[task].prompt
    vectors = model.bank.encoders[prompt]() if prompt >= 0 else torch.zeros(0, 0)
    return nearest_words(model.lm, vectors) if vectors.numel() else []


def _examples(
    problem: ProbeTask, scores: Sequence[torch.Tensor], examples: Sequence[Example]
) -> list[AnsweredRow]:
    """A few answers, to the same rows by every method."""
    labels, kept = problem.verbalizer.labels, []
    for number in sorted({i * len(examples) // SHOWN for i in range(SHOWN)}):
        row = examples[number].row
        asked = {name: value for name, value in row.items() if name != problem.target}
        best = scores[number].topk(min(3, len(labels))).indices.tolist()
        answers = [labels[label] for label in best]
        kept.append(AnsweredRow(row=asked, right=str(row[problem.target]), answers=answers))
    return kept


def _wordings(lm: LanguageModel, problem: ProbeTask) -> list[Wording]:
    """The manual prompt in other words: the main figure of each, on dev and on test."""
    results = []
    for text in problem.wordings:
        model = PromptModel(lm)
        try:
            template = Template.parse(text)
            number = model.add(
                Task(problem.name, template, problem.verbalizer, problem.target, loss=problem.loss)
            )
        except TemplateError:
            # a wording that this kind of LM cannot read, such as one that begins with the answer
            continue
        figures = {}
        for split, rows in (("dev", problem.dev), ("test", problem.test)):
            examples = model.encode(number, rows)
            figures[split] = problem.score(model.scores(examples), examples)[problem.main]
        results.append(Wording(template=text, **figures))
    return results
