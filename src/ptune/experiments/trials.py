"""Methods x problems x seeds, and what came out. Every result is a file of its own, so a run that
was killed goes on where it was, and gives the same figures. Who runs a plan holds its folder
(``run_folder``)."""

import pathlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from ptune.answers.label_words import Verbalizer
from ptune.base import files
from ptune.base.file_names import file_name
from ptune.errors import DivergedError, TemplateError
from ptune.lm.language_model import LanguageModel, nearest_words
from ptune.model.prompt_model import Example, Loss, PrefixSettings, PromptModel, Row, Task
from ptune.settings import TrainConfig
from ptune.storage import prompt_folder
from ptune.template.language import Template
from ptune.training.loop import account, fit
from ptune.training.methods import Method

Score = Callable[[Sequence[torch.Tensor], Sequence[Example]], dict[str, float]]
SHOWN = 8  # rows whose answers are kept for the report
MOST_TOGETHER = 64


@dataclass(frozen=True)
class ProbeTask:
    """A task of an experiment: rows, how they are asked by hand, how answers are read and scored.

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


@dataclass(frozen=True)
class Plan:
    """What is run, over which LM, and where it is kept."""

    lm: LanguageModel
    problems: Sequence[ProbeTask]
    methods: Sequence[Method]
    seeds: int
    out: pathlib.Path
    together: int
    wordings: bool = True


Result = dict[str, Any]


def run(plan: Plan, report: Callable[[Result], None]) -> list[Result]:
    """Run what is not there yet, and return all results; ``tell`` gets each when it is known."""
    original = plan.lm.weights() if any(m.tune in ("lm", "both") for m in plan.methods) else None
    for method in plan.methods:
        for seed in range(plan.seeds if method.tune != "nothing" else 1):
            problems = [p for p in plan.problems if method.template != "manual" or p.manual]
            size = plan.together if method.tune == "prompt" else 1
            for first in range(0, len(problems), size):
                _group(plan, method, seed, problems[first : first + size], original, report)
    return [
        files.read_json(file)
        for method in plan.methods
        for seed in range(plan.seeds)
        for problem in plan.problems
        if (file := result_file(plan, method, seed, problem)).exists()
    ]


def _group(
    plan: Plan,
    method: Method,
    seed: int,
    problems: Sequence[ProbeTask],
    original: dict[str, torch.Tensor] | None,
    report: Callable[[Result], None],
) -> None:
    """Train and test some problems by one method, unless all their results are there."""
    result_files = [result_file(plan, method, seed, problem) for problem in problems]
    checkpoints = plan.out / "checkpoints" / file_name(method.name, problems[0].name, seed)
    if all(file.exists() for file in result_files):
        for file in result_files:
            report(files.read_json(file))
        shutil.rmtree(checkpoints, ignore_errors=True)
        return
    config = method.train.model_copy(update={"seed": method.train.seed + seed})
    model = PromptModel(plan.lm)
    tasks = [add_problem(model, method, problem, config.seed) for problem in problems]
    trained: dict[Any, Any] = {}
    if method.tune != "nothing":
        data = {task: (problem.train, problem.dev) for task, problem in zip(tasks, problems)}
        names = problems[0].name + (f" and {len(problems) - 1} more" if len(problems) > 1 else "")
        try:
            trained = fit(
                model,
                data,
                config,
                tune=method.tune,
                folder=checkpoints,
                resume=True,
                label=f"{method.title}, {names}",
            )
        except DivergedError as error:
            trained = error.trained
    for task, problem, file in zip(tasks, problems, result_files):
        result = _result(model, method, seed, task, problem, trained.get(task), config)
        if method.tune == "nothing" and plan.wordings and problem.wordings:
            result["wordings"] = _wordings(plan.lm, problem)
        if method.tune == "prompt" and result["figures"]:
            prompt_folder.save(
                model,
                plan.out / "prompts" / file_name(method.name, problem.name, seed),
                task,
                result["figures"],
            )
        files.write_json(file, result)
        report(result)
    shutil.rmtree(checkpoints, ignore_errors=True)
    if original is not None and method.tune in ("lm", "both"):
        plan.lm.restore(original)


def result_file(plan: Plan, method: Method, seed: int, problem: ProbeTask) -> pathlib.Path:
    """Where a result is kept."""
    return plan.out / "results" / file_name(method.name) / f"{file_name(problem.name, seed)}.json"


def add_problem(model: PromptModel, method: Method, problem: ProbeTask, seed: int) -> int:
    """Put a problem into a model as a method asks it; return its number there."""
    text = problem.manual if method.template == "manual" else method.template
    template = Template.parse(str(text))
    return model.add(
        Task(
            problem.name,
            template,
            problem.verbalizer,
            problem.target,
            method.encoder,
            method.init,
            problem.loss,
            seed,
            PrefixSettings(method.hidden),
        ),
        problem.train,
    )


def _result(
    model: PromptModel,
    method: Method,
    seed: int,
    task: int,
    problem: ProbeTask,
    trained: Any,
    settings: TrainConfig,
) -> Result:
    examples = model.encode(task, problem.test)
    lost = trained is not None and trained.best is None
    scores = [] if lost else model.scores(examples)
    fitted = model.tasks[task]
    soft = model.bank.encoders[fitted.prompt]() if fitted.prompt >= 0 else torch.zeros(0, 0)
    sizes = {
        "prompt": sum(p.numel() for p in model.bank.parameters_of(fitted.prompt))
        if fitted.prompt >= 0
        else 0,
        "lm": sum(p.numel() for p in model.lm.model.parameters()),
    }
    return {
        "method": method.name,
        "problem": problem.name,
        "seed": seed,
        "template": fitted.task.template.source,
        "dropped": fitted.dropped,
        "rows": len(examples),
        "figures": {} if lost else problem.score(scores, examples),
        "trained": {"nothing": 0, "both": sizes["prompt"] + sizes["lm"]}.get(
            method.tune, sizes.get(method.tune, 0)
        ),
        "kept": model.bank.size(fitted.prompt) if fitted.prompt >= 0 else 0,
        "history": [vars(look) for look in trained.history] if trained else [],
        "steps": trained.step if trained else 0,
        "account": account("It", trained, settings) if trained else [],
        "best": vars(trained.best) if trained and trained.best else None,
        "diverged": bool(trained and trained.diverged),
        "examples": [] if lost else _examples(problem, scores, examples),
        "nearest": nearest_words(model.lm, soft) if soft.numel() and not lost else [],
    }


def _examples(
    problem: ProbeTask, scores: Sequence[torch.Tensor], examples: Sequence[Example]
) -> list[dict[str, Any]]:
    """A few answers, to the same rows by every method."""
    labels, kept = problem.verbalizer.labels, []
    for number in sorted({i * len(examples) // SHOWN for i in range(SHOWN)}):
        row = {
            name: value for name, value in examples[number].row.items() if name != problem.target
        }
        answers = [labels[i] for i in scores[number].topk(min(3, len(labels))).indices.tolist()]
        kept.append(
            {"row": row, "right": str(examples[number].row[problem.target]), "answers": answers}
        )
    return kept


def _wordings(lm: LanguageModel, problem: ProbeTask) -> list[dict[str, Any]]:
    """The manual prompt in other words: the main figure of each, on dev and on test."""
    results = []
    for wording in problem.wordings:
        model = PromptModel(lm)
        try:
            task = model.add(
                Task(
                    problem.name,
                    Template.parse(wording),
                    problem.verbalizer,
                    problem.target,
                    loss=problem.loss,
                )
            )
        except TemplateError:
            # a wording that this kind of LM cannot read, such as one that begins with the answer
            continue
        figures = {}
        for split, rows in (("dev", problem.dev), ("test", problem.test)):
            examples = model.encode(task, rows)
            figures[split] = problem.score(model.scores(examples), examples)[problem.main]
        results.append({"template": wording, **figures})
    return results


def how_many_together(
    lm: LanguageModel, encoder: str, length: int, batch_size: int, problems: int
) -> int:
    """How many prompts train together in half of the free memory: an encoder's parameters,
    gradients and two moments, and the LM's activations for a batch of each."""
    parameters = {
        "table": length,
        "mlp": length + 2 * lm.width,
        "lstm": length + 10 * lm.width,
    }.get(encoder, length) * lm.width
    config = lm.model.config.get_text_config()
    hidden, layers = int(config.hidden_size), int(getattr(config, "num_hidden_layers", 12))
    tokens = 48 * batch_size
    each = (
        16 * parameters
        + 4 * tokens * (40 * hidden * layers)
        + 12 * batch_size * len(lm.tokens.tokenizer)
    )
    if lm.device.type == "cuda":
        free = torch.cuda.mem_get_info(lm.device)[0]
    else:
        free = psutil.virtual_memory().available
    return max(1, min(problems, MOST_TOGETHER, int(free / 2 / each)))
