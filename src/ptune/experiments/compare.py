"""Methods side by side on tasks with labels: the same few rows for all, drawn again for every seed.

Every result is a file of its own, so a run that was killed goes on where it was, and gives the same
figures.
"""

import pathlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ptune.answers.label_words import Choices
from ptune.base import files, terminal
from ptune.base.file_names import file_name
from ptune.errors import (
    ConfigError,
    DivergedError,
    ModelError,
    TemplateError,
    VerbalizerError,
    nearest,
)
from ptune.experiments.distil import plan_of
from ptune.experiments.options import CompareConfig
from ptune.experiments.train_task import sizes
from ptune.lm.language_model import LanguageModel
from ptune.metrics.labels import BASELINES, MAJORITY, deviation, labelled, mean, most_frequent
from ptune.model.prompt_model import PromptModel, Row
from ptune.model.task import Shortening
from ptune.reports import compare_page
from ptune.reports.probe_page import divergences
from ptune.reports.schemas import Cell, Comparison, lost_trainings, versions
from ptune.runs import identity
from ptune.runs.folder import RunFolder, working_in
from ptune.settings import TrainConfig, TrainOverrides
from ptune.tasks import baselines, few_shot, yaml_task
from ptune.tasks.judge_labels import check_metrics, judge, labels_of, question
from ptune.tasks.schema import DataConfig, TaskConfig
from ptune.tasks.splits import read as read_rows
from ptune.tasks.splits import training_labels
from ptune.tasks.yaml_task import Member
from ptune.template.language import Template
from ptune.training import pet
from ptune.training.loop import account, fit
from ptune.training.methods import METHODS, Method, method

ASKED = BASELINES | {name: own.title for name, own in METHODS.items() if name != "fine-tune"}
BESIDE = (
    "methods",
    "seeds",
    "shots",
    "out",
    "resume",
    "as_json",
    "device",
)  # settings that change no single result
Result = dict[str, Any]


@dataclass(frozen=True)
class FewShotSplit:
    """What the methods learn from and are scored on, the same for all; the labels of all rows that
    the task has to learn from, of which the few are drawn; and how patterns with their words do on
    the labelled rows when nothing is trained, once that is known."""

    task: TaskConfig
    shots: int
    seed: int
    train: list[Row]
    dev: list[Row]
    test: list[Row]
    unlabeled: list[Row]
    training_labels: list[str]
    zero_shot: dict[str, float] = field(default_factory=dict)


def compare(config: CompareConfig, say: Callable[[str], None] | None = None) -> Comparison:
    """Run the comparison that the config describes, and write results.json and report.html.

    Raises:
        PtuneError: a task, its rows, the LM or a setting is at fault.
    """
    console = terminal.Console(stderr=config.as_json)
    say = say or partial(console.print, markup=False, highlight=False, soft_wrap=True)
    names = _listed(config.methods)
    if unknown := next((name for name in names if name not in ASKED), None):
        raise ConfigError(f"There is no method {unknown!r} to compare. {nearest(unknown, ASKED)}")
    names = [*BASELINES, *(name for name in names if name not in BASELINES)]
    tasks = [_task(config, source) for source in config.tasks]
    if len(sources := {task.lm for task in tasks}) > 1:
        raise ConfigError(
            f"The tasks name different LMs ({', '.join(sorted(sources))}): choose one with --lm."
        )
    if twice := next(
        (name for name, count in Counter(task.name for task in tasks).items() if count > 1), None
    ):
        raise ConfigError(f"Two of the tasks are called {twice!r}: give each a name of its own.")
    with working_in(config.out, "ptune compare", config.resume) as folder:
        return _compared(config, names, tasks, folder, console, say)


def _compared(
    config: CompareConfig,
    names: Sequence[str],
    tasks: Sequence[TaskConfig],
    folder: RunFolder,
    console: terminal.Console,
    say: Callable[[str], None],
) -> Comparison:
    """The comparison, in a folder that is held; methods, seeds, shots and tasks may be added to
    what stands there."""
    drawn = [own for task in tasks for own in _draws(config, task)]
    tuned = any(METHODS[name].tune in ("head", "lm", "both") for name in names if name in METHODS)
    lm = LanguageModel.load(tasks[0].lm, device=config.device, dtype=config.dtype, tuned=tuned)
    for few in {few.task.name: few for few in reversed(drawn)}.values():
        _try(config, lm, few, names, say)
    whole = _identity(config, lm, tasks)
    folder.claim(whole, grows="tasks")
    say(
        f"{lm.source}: {lm.kind} LM, {sum(p.numel() for p in lm.model.parameters()) / 1e6:.1f} M "
        f"parameters, on {lm.device}"
    )
    single = [_result(config, lm, few, name, say) for few in drawn for name in names]
    results = summarise(single, names, {**_shown(config, tasks), "identity": whole})
    files.write_json(config.out / "results.json", results.model_dump(mode="json"))
    compare_page.write(results, single, config.out)
    if config.as_json:
        print(results.model_dump_json(indent=2))
    else:
        for table in compare_page.tables(results):
            console.print(table)
        say(f"Results: {config.out / 'results.json'}   Report: {config.out / 'report.html'}")
    for sentence in [*divergences(single), *behind_baselines(results)]:
        say(sentence)
    trained = [one for one in single if one["method"] not in BASELINES]
    if trained and all(one.get("diverged") and not one["figures"] for one in trained):
        raise DivergedError(
            "Every training diverged, so there are no figures: lower the learning rates "
            "(--train.learning-rate, --train.lm-learning-rate)."
        )
    return results


def behind_baselines(results: Comparison) -> list[str]:
    """For each task and number of shots the methods that are behind a baseline, and the method to
    try."""
    told = []
    for task, shots in dict.fromkeys((cell.task, cell.shots) for cell in results.cells):
        cells = [
            cell for cell in results.cells if (cell.task, cell.shots) == (task, shots) and cell.mean
        ]
        company = {cell.method: cell.mean[cell.metric] for cell in cells if cell.baseline}
        others = {cell.method: cell.mean[cell.metric] for cell in cells if not cell.baseline}
        behind = [name for name, value in others.items() if baselines.behind(value, company)]
        if not behind:
            continue
        best, figure = baselines.behind(min(others.values()), company) or ("", 0.0)
        first = max(others, key=lambda name: others[name])
        tried = (
            first
            if others[first] >= figure
            else next(
                (
                    name
                    for name in ("head", "manual+fine-tune", "p-tuning+lm")
                    if name not in others
                ),
                "more steps or rows",
            )
        )
        told.append(
            f"{task}{f', {shots} shots' if shots else ''}: behind a baseline, {BASELINES[best]} "
            f"({figure:.3f}), are "
            f"{', '.join(f'{name} ({others[name]:.3f})' for name in behind)}; try {tried}."
        )
    return told


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _task(config: CompareConfig, source: str) -> TaskConfig:
    task = yaml_task.read(pathlib.Path(source))
    if not (task.labels or task.choices or task.span):
        raise ConfigError(
            f"{task.name} has no labels, choices or span: compare is for tasks with labels; ptune "
            "train and ptune report do texts."
        )
    take = dict(task.data.take) | ({"test": config.test} if config.test else {})
    return task.model_copy(
        update={
            "lm": task.lm if config.lm is None else config.lm,
            "data": task.data.model_copy(update={"take": take}),
            "max_length": config.max_length or task.max_length,
        }
    )


def _shots(config: CompareConfig, task: TaskConfig) -> list[int]:
    """How many rows of each label; 0 for a task that has its own few-shot files."""
    if task.data.shots is None:
        return [0]
    asked = _listed(config.shots)
    if not all(own.isdigit() and int(own) for own in asked):
        raise ConfigError(
            "--shots takes whole numbers with commas between, such as 16,32; it is "
            f"{config.shots!r}."
        )
    return [int(own) for own in asked] or [task.data.shots]


def _shown(config: CompareConfig, tasks: Sequence[TaskConfig]) -> dict[str, Any]:
    """The settings in the words of the command and of the tasks' files, for the page."""
    kept = config.model_dump(mode="json", exclude={*BESIDE, "tasks"})
    return {
        **kept,
        "tasks": [task.name for task in tasks],
        **{
            f"task {task.name}": task.model_dump(mode="json", exclude={"out", "resume", "device"})
            for task in tasks
        },
    }


def _identity(
    config: CompareConfig, lm: LanguageModel, tasks: Sequence[TaskConfig]
) -> dict[str, Any]:
    """All that the results hang on, beside a result's own task, method, shots and seed."""
    beside = [*BESIDE, "lm", "dtype", "title", "only"]
    return {
        **identity.of_settings(config, [*beside, "tasks"]),
        "lm": identity.of_lm(lm),
        "tasks": {task.name: identity.of_settings(task, beside) for task in tasks},
    }


def _draws(config: CompareConfig, task: TaskConfig) -> list[FewShotSplit]:
    """What every number of shots and every seed learns from, once the metrics are checked on the
    test rows.

    Raises:
        PtuneError: the rows or the metrics are at fault.
    """
    every = training_labels(task.data, task.target, tuple(task.labels))
    drawn = [
        _draw(task, shots, seed, every)
        for shots in _shots(config, task)
        for seed in range(config.seeds)
    ]
    check_metrics(task, drawn[0].test)
    return drawn


def _draw(task: TaskConfig, shots: int, seed: int, every: list[str]) -> FewShotSplit:
    """A seed's rows to learn from; the test rows are the same for all seeds.

    Args:
        every: the labels of all rows that the task has to learn from.
    """
    data: DataConfig = task.data.model_copy(
        update={"seed": seed, **({"shots": shots} if shots else {})}
    )
    labels = tuple(task.labels)
    rows = read_rows(data, task.target, labels, fields=yaml_task.fields(task))
    test = (
        rows["test"]
        if not seed
        else read_rows(data.model_copy(update={"seed": 0}), task.target, labels)["test"]
    )
    return FewShotSplit(
        task, shots, seed, rows["train"], rows["dev"], test, rows["unlabeled"], every
    )


def _try(
    config: CompareConfig,
    lm: LanguageModel,
    few: FewShotSplit,
    names: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """Tokenise a task's rows for every template by which a method may ask it, so that one that does
    not fit is found before the first training. Rows that are shortened are told.

    Raises:
        PtuneError: a row does not fit.
    """
    rows = {"training": few.train, "dev": few.dev, "test": few.test}
    told: set[str] = set()
    tried: set[str] = set()
    for name in names:
        if name in BASELINES or _file(config, few, name).exists():
            continue
        for member, model in _askable(few.task, method(name), lm):
            if member.template in tried:
                continue
            tried.add(member.template)
            for split, of_split in rows.items():
                shortening = Shortening()
                for number, row in enumerate(of_split, 1):
                    shortening.count(model.encode(0, [row], first=number))
                if split not in told and (
                    sentence := shortening.sentence(
                        f"{split} rows of {few.task.name}", model.limit(0)
                    )
                ):
                    told.add(split)
                    say(sentence)


def _askable(
    task: TaskConfig, way: Method, lm: LanguageModel
) -> Iterator[tuple[Member, PromptModel]]:
    """The ways to ask the task by a method, each as a model; nothing where the method cannot be run
    here, which its result says."""
    try:
        for member in _members(task, way, lm):
            model = PromptModel(lm)
            model.add(replace(yaml_task.task_of(task, lm, member, way=way), init="random"))
            yield member, model
    except (TemplateError, VerbalizerError, ModelError) as error:
        if "Row " in str(error):
            raise


def _file(config: CompareConfig, few: FewShotSplit, name: str) -> pathlib.Path:
    """Where the result of a method is kept."""
    return config.out / "results" / file_name(few.task.name) / f"{name}-{few.shots}-{few.seed}.json"


def _result(
    config: CompareConfig,
    lm: LanguageModel,
    few: FewShotSplit,
    name: str,
    say: Callable[[str], None],
) -> Result:
    """What a method makes of a task's rows: from its file, or run now."""
    file = _file(config, few, name)
    if not file.exists():
        began = time.monotonic()
        result = {
            "task": few.task.name,
            "method": name,
            "shots": few.shots,
            "seed": few.seed,
            "metric": _main(few.task),
            "rows": {
                split: len(getattr(few, split)) for split in ("train", "dev", "test", "unlabeled")
            },
        }
        try:
            result |= (
                _baseline(lm, few, name)
                if name in BASELINES
                else _run(config, lm, few, method(name), say)
            )
        except (TemplateError, VerbalizerError, ModelError) as error:
            if error.of_row or not (isinstance(error, TemplateError) or name == "next-sentence"):
                raise
            result["impossible"] = str(
                error
            )  # the task has no template that this kind of LM can read, or the LM no such head
        except DivergedError as error:
            if not error.trained:  # scores of an LM that is not trained here
                raise
            result |= {"figures": {}, "diverged": True, "told": str(error)}
        result["seconds"] = round(time.monotonic() - began, 1)
        files.write_json(file, result)
    shutil.rmtree(_pet_folder(config, few, name), ignore_errors=True)
    result = files.read_json(file)
    told = (
        result.get("impossible")
        or result.get("told")
        or f"{result['metric']} {result['figures'][result['metric']]:.3f}, "
        f"{result['seconds']:.0f} s"
    )
    say(
        f"{few.task.name:9} {f'{few.shots} shots' if few.shots else '':8} seed {few.seed}  "
        f"{name:20} {told}"
    )
    for sentence in result.get("account", ()):
        say(f"  {sentence}")
    return result


def _pet_folder(config: CompareConfig, few: FewShotSplit, name: str) -> pathlib.Path:
    """Where PET keeps what is finished; it holds an LM, and goes when the result is written."""
    return config.out / "pet" / file_name(few.task.name, name, few.shots, few.seed)


def _main(task: TaskConfig) -> str:
    return (task.metrics or ("accuracy",))[0]


def _baseline(lm: LanguageModel, few: FewShotSplit, name: str) -> Result:
    """What a user would get without prompts on the same rows.

    Raises:
        TemplateError: rows that bring their own answers, or have one label only, teach a classifier
            nothing.
    """
    if name == MAJORITY:
        return _majority(few)
    if not few.task.labels:
        raise TemplateError(
            f"{few.task.name} has no labels of its own for {BASELINES[name]} to tell apart."
        )
    figures = baselines.figures(
        question(few.task, lm, few.train, few.test, few.training_labels), lm, [name]
    )
    if not figures:
        raise TemplateError(f"{few.task.name} has too little to learn from for {BASELINES[name]}.")
    return {"figures": figures[name], "template": "", "trained": 0, "kept": 0, "grid": []}


def _majority(few: FewShotSplit) -> Result:
    """Always the label that is the most frequent of all rows that the task has to learn from, not
    of the few, which are as many of each; of equally frequent labels the mean of their figures."""
    figures = [_constant(few, label) for label in most_frequent(few.training_labels)]
    means = {name: mean([own[name] for own in figures]) for name in figures[0]}
    return {"figures": means, "template": "", "trained": 0, "kept": 0, "grid": []}


def _constant(few: FewShotSplit, label: str) -> dict[str, float]:
    """The figures of one label for all test rows; where rows bring their choices, of the choice of
    that number."""
    labels = labels_of(few.task)
    figures: dict[str, float] = {}
    shares = [[float(own == label) for own in labels]] * len(few.test)
    for name in few.task.metrics or ("accuracy",):
        told = [
            _choice(few.task, row, label) if name.startswith("record") else label
            for row in few.test
        ]
        figures |= labelled([name], few.test, told, few.task.target, labels, shares)
    return figures


def _choice(task: TaskConfig, row: Row, label: str) -> str:
    """The text of a row's choice; none where the row has fewer."""
    texts = Choices(task.choices).texts(row)
    return texts[int(label)] if int(label) < len(texts) else ""


def _run(
    config: CompareConfig,
    lm: LanguageModel,
    few: FewShotSplit,
    way: Method,
    say: Callable[[str], None],
) -> Result:
    members = _members(few.task, way, lm)
    if way.name in ("pet", "ipet"):
        return _pet(config, lm, few, way, members, say)
    settings = _settings(config, few, way)
    if way.tune == "nothing":
        grid = [
            {
                "template": member.template,
                "words": member.words,
                "figures": _untrained(lm, few, way, member, few.test),
            }
            for member in members
        ]
        return {
            **grid[_choose(config, lm, few, way, members, settings)],
            "trained": 0,
            "kept": 0,
            "grid": grid,
        }
    chosen = members[_choose(config, lm, few, way, members, settings)]
    if not config.grid:
        return {**_trained(lm, few, way, chosen, settings), "grid": []}
    grid = [_point(lm, few, way, member, settings) for member in members]
    return {**grid[members.index(chosen)], "grid": [point for point in grid if point["figures"]]}


def _point(
    lm: LanguageModel, few: FewShotSplit, way: Method, member: Member, settings: TrainConfig
) -> Result:
    """One member trained and scored; without figures where its training diverged and left nothing
    to keep."""
    try:
        return _trained(lm, few, way, member, settings)
    except DivergedError as error:
        return {
            "template": member.template,
            "words": member.words,
            "figures": {},
            "diverged": True,
            "told": str(error),
            "trained": 0,
            "kept": 0,
        }


def _members(task: TaskConfig, way: Method, lm: LanguageModel) -> list[Member]:
    """The ways to ask the task by this method that an LM of this kind can read.

    Raises:
        TemplateError: there is none.
        ConfigError: the task has no pattern or template for it.
    """
    if not task.patterns:
        raise ConfigError(
            f"{task.name} has no patterns, by which methods are compared: hand-written templates, "
            "beside the template with soft tokens."
        )
    if way.reader != "words" and not task.labels:
        raise TemplateError(f"{task.name} has no labels of its own for {way.name} to tell apart.")
    found, reason = [], None
    for member in yaml_task.members(task, way, lm):
        try:
            Template.parse(member.template).for_kind(lm.kind, way.reader != "words")
            found.append(member)
        except TemplateError as error:
            reason = error
    if not found:
        raise reason or TemplateError(f"{task.name} has no template.")
    return found


def _settings(config: CompareConfig, few: FewShotSplit, way: Method) -> TrainConfig:
    """A method's training: so many steps, dev looked at so often, its own rates."""
    given = few.task.train.model_dump(exclude_none=True) | config.train.model_dump(
        exclude_none=True
    )
    return way.train.replaced(_pace(config) | given | {"seed": few.seed})


def _pace(config: CompareConfig) -> dict[str, int]:
    return {
        "steps": config.steps,
        "evaluate_every": max(1, config.steps // config.looks),
        "patience": 0,
    }


def _untrained(
    lm: LanguageModel, few: FewShotSplit, way: Method, member: Member, rows: Sequence[Row]
) -> dict[str, float]:
    """The figures of a member as it is."""
    model = PromptModel(lm, max_length=few.task.max_length)
    yaml_task.add(model, few.task, member, few.train, way=way)
    return judge(model, rows, few.task.metrics)


def _choose(
    config: CompareConfig,
    lm: LanguageModel,
    few: FewShotSplit,
    way: Method,
    members: Sequence[Member],
    settings: TrainConfig,
) -> int:
    """The number of the member that the method takes, by the few labelled rows alone."""
    if config.select == "first" or len(members) == 1:
        return 0
    if config.select == "zero-shot" or way.tune == "nothing":
        plain = [
            Member(member.template.replace(_front(way), "", 1), member.words) for member in members
        ]
        for member in plain:
            if str(member) not in few.zero_shot:
                few.zero_shot[str(member)] = _untrained(
                    lm, few, method("manual"), member, [*few.train, *few.dev]
                )[_main(few.task)]
        asked = [few.zero_shot[str(member)] for member in plain]
        return max(range(len(members)), key=lambda i: (asked[i], -i))
    halves = few_shot.splits([*few.train, *few.dev], config.splits, few.seed, few.task.target)
    scores = []
    for member in members:
        own = [
            _point(lm, replace(few, train=train, dev=dev, test=dev), way, member, settings)[
                "figures"
            ]
            for train, dev in halves
        ]
        scores.append(
            mean([figures.get(_main(few.task), 0.0) for figures in own])
        )  # what diverges is worth nothing
    return max(range(len(members)), key=lambda i: (scores[i], -i))


def _front(way: Method) -> str:
    """What a method puts before a pattern."""
    return way.frame.removesuffix("<pattern>")


def _trained(
    lm: LanguageModel, few: FewShotSplit, way: Method, member: Member, settings: TrainConfig
) -> Result:
    """Train one member, score it on test, and put the LM back as it was."""
    weights = lm.weights() if way.tune != "prompt" else None
    model = PromptModel(lm, max_length=few.task.max_length)
    task = few.task.model_copy(update={"train": TrainOverrides(seed=few.seed)})
    number = yaml_task.add(model, task, member, few.train, way=way)
    try:
        trained = fit(
            model,
            {number: (few.train, few.dev)},
            settings,
            tune=way.tune,  # type: ignore[arg-type]
            label=f"{way.title}, {few.task.name}",
        )[number]
        figures = judge(model, few.test, few.task.metrics)
        counted, kept = sizes(model, [number], way)
    finally:
        if weights is not None:
            lm.restore(weights)
    return {
        "template": member.template,
        "words": member.words,
        "figures": figures,
        "dev": trained.best.dev if trained.best else None,
        "history": [vars(look) for look in trained.history],
        "diverged": trained.diverged,
        "trained": counted,
        "kept": kept,
        "steps": trained.step,
        "train": settings.model_dump(mode="json"),
        "account": account("The training", trained, settings),
    }


def _pet(
    config: CompareConfig,
    lm: LanguageModel,
    few: FewShotSplit,
    way: Method,
    members: list[Member],
    say: Callable[[str], None],
) -> Result:
    """PET or iPET: the ensemble and the classifier that learns from it; the classifier is
    scored."""
    if not few.unlabeled:
        raise TemplateError(f"{few.task.name} has no unlabelled rows for {way.name} to learn from.")
    if not few.task.labels:
        raise TemplateError(
            f"{few.task.name} has no labels of its own for a classifier to tell apart."
        )
    task = few.task.model_copy(update={"train": TrainOverrides(seed=few.seed)})
    plan = plan_of(task, lm, way, members, _settings(config, few, way), **_pace(config))
    folder = _pet_folder(config, few, way.name)
    weights = lm.weights()
    try:
        outcome = pet.pet(
            lm,
            plan,
            few.train,
            few.dev,
            few.unlabeled,
            folder,
            resume=True,
            label=f"{way.title}, {few.task.name}",
            report=say,
        )
        figures = judge(outcome.model, few.test, few.task.metrics)
    finally:
        lm.restore(weights)
    size = sum(p.numel() for p in lm.model.parameters())
    diverged = outcome.trained.diverged or any(own.trained.diverged for own in outcome.members)
    return {
        "figures": figures,
        "template": plan.classifier.template.source,
        "words": {},
        "trained": size,
        "kept": size,
        "grid": [],
        "diverged": diverged,
        "steps": outcome.trained.step,
        "train": plan.distil.model_dump(mode="json"),
        "ensembles": outcome.ensembles,
        "members": [
            {name: getattr(own, name) for name in ("name", "generation", "weight", "dev", "rows")}
            for own in outcome.members
        ],
    }


def summarise(
    single: Sequence[Result], names: Sequence[str], settings: Mapping[str, Any]
) -> Comparison:
    """The mean and the deviation of every figure over seeds, for each task, number of shots and
    method."""
    cells = []
    for task, shots, name in dict.fromkeys(
        (own["task"], own["shots"], own["method"]) for own in single
    ):
        own = [
            one
            for one in single
            if (one["task"], one["shots"], one["method"]) == (task, shots, name)
        ]
        there = [one for one in own if one.get("figures")]
        values = {
            figure: [one["figures"][figure] for one in there]
            for figure in (there[0]["figures"] if there else ())
        }
        spread = [
            [point["figures"][own[0]["metric"]] for point in one["grid"]]
            for one in there
            if len(one["grid"]) > 1
        ]
        cells.append(
            Cell(
                task=task,
                shots=shots,
                method=name,
                baseline=name in BASELINES,
                metric=own[0]["metric"],
                seeds=len(own),
                rows=own[0]["rows"],
                mean={figure: mean(its) for figure, its in values.items()},
                deviation={figure: deviation(its) for figure, its in values.items()},
                grid={
                    "worst": mean([min(points) for points in spread]),
                    "best": mean([max(points) for points in spread]),
                    "deviation": mean([deviation(points) for points in spread]),
                }
                if spread
                else {},
                trained_parameters=max((one["trained"] for one in there), default=0),
                kept_parameters=max((one["kept"] for one in there), default=0),
                steps=[one["steps"] for one in there if "steps" in one],
                train=next((one["train"] for one in there if "train" in one), {}),
                seconds=mean([one["seconds"] for one in own]),
                impossible=own[0].get("impossible", ""),
                **lost_trainings(own),
            )
        )
    return Comparison(
        cells=cells,
        titles={name: ASKED[name] for name in names},
        settings=dict(settings),
        versions=versions(),
    )
