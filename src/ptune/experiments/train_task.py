"""Training a task: its prompts, or the LM, saved with their figures on the test rows."""

import contextlib
import importlib.metadata
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from ptune.answers.label_words import BoundVerbalizer
from ptune.base import files, terminal
from ptune.base.file_names import file_name
from ptune.errors import ConfigError, DivergedError, PtuneError
from ptune.experiments.distil import plan_of
from ptune.lm.language_model import LanguageModel
from ptune.metrics.labels import BASELINES
from ptune.model.prompt_model import PromptModel, Row, Task
from ptune.model.task import Shortening
from ptune.reports.schemas import Run
from ptune.runs import identity
from ptune.runs.folder import RunFolder, working_in
from ptune.settings import TrainConfig
from ptune.storage import peft_format, prompt_folder
from ptune.tasks import baselines, judge_labels, judge_texts, unknown_text, yaml_task
from ptune.tasks.schema import TaskConfig
from ptune.tasks.splits import by_prompt, training_labels
from ptune.tasks.splits import read as read_splits
from ptune.template.language import Field, text_of
from ptune.training import pet, rehearsal
from ptune.training.loop import TrainingHistory, account, accuracy, fit, lower_rates
from ptune.training.methods import Method, method

PET = ("pet", "ipet")
MOST_TOLD = 5  # prompts of whose training something is told
CHECKPOINT = "checkpoint.safetensors"
MAY_CHANGE = (
    "data",
    "train",
    "metrics",
    "parts",
    "version",
    "versions",
)  # where prompts of a bank are added or go on
TRAINED = ("soft", "prototypes", "head")  # readers that learn
FREE = ("seed", "layout", "metrics", "parts")  # of a task: what may change when its prompt goes on


def train(config: TaskConfig, say: Callable[[str], None] = terminal.print_line) -> Run:
    """Train the task's prompts (or the LM), save them in the out folder, and score the test rows,
    if there are any.

    Raises:
        PtuneError: the task, its rows or the LM are at fault.
        DivergedError: the training, or that of one of the prompts, left no finite state to keep;
            that is not saved.
    """
    if config.continue_from is not None:
        config = _continued(config)
    way, settings = _way(config), _settings(config)
    _check_out(config)
    with working_in(config.out, "ptune train", config.resume, adds=bool(config.only)) as folder:
        return _train(config, way, settings, folder, say)


def _texts(
    splits: Mapping[str, Sequence[Row]], fields: Sequence[Field]
) -> list[tuple[str, list[str]]]:
    """What the task reads of each split, all its fields together."""
    texts = {
        split: [" ".join(text_of(row, field) for field in fields) for row in rows]
        for split, rows in splits.items()
        if fields
    }
    return [(f"The {split} rows", own) for split, own in texts.items() if own]


def _train(
    config: TaskConfig,
    way: Method,
    settings: TrainConfig,
    folder: RunFolder,
    say: Callable[[str], None],
) -> Run:
    """The training, in a folder that is held."""
    splits = read_splits(
        config.data,
        config.target,
        tuple(config.labels),
        config.prompt_by,
        yaml_task.fields(config),
        say,
    )
    rows = {
        split: by_prompt(splits[split], config.prompt_by, split)
        for split in ("train", "dev", "test")
    }
    judge_labels.check_metrics(config, splits["test"] or splits["dev"])
    lm, begun = _lm(config, way), None
    for sentence in unknown_text.check(
        _texts(splits, yaml_task.fields(config)), lm.tokens, config.allow_unknown
    ):
        say(sentence)
    if config.continue_from is not None:
        begun = prompt_folder.load(
            prompt_folder.folders_in(config.continue_from), lm, trainable=True
        )
        config = config.model_copy(update={"lm": lm.source})
    whole = _identity(config, lm)
    if folder.begun is not None:
        folder.claim(whole, free=MAY_CHANGE if config.only else ())
    if (
        config.resume
        and not config.only
        and (config.out / "run.json").exists()
        and not (config.out / CHECKPOINT).exists()
    ):
        return _finished(config, say)
    began = time.monotonic()
    trained: dict[int | str, TrainingHistory] = {}
    lost: DivergedError | None = None
    tasks: dict[str | None, int] = {None: 0}
    if way.name in PET:
        _check_rows(config, _classifier_of(config, lm, way), {None: 0}, {"test": rows["test"]}, say)
        company = _company(config, lm, splits["train"], splits["test"])
        _begin(folder, whole)
        model, trained = _distil(config, lm, way, splits, say)
        way = replace(way, tune="both")
    else:
        model, tasks = _model_of(config, lm, rows["train"], begun)
        _check_rows(config, model, tasks, rows, say)
        company = _company(
            config,
            lm,
            splits["train"],
            splits["test"] if config.only else _test_rows(config, rows, tasks),
        )
    if model.tasks[0].dropped:
        say(f"Left out of the template, since a causal LM cannot see it: {model.tasks[0].dropped}")
    read = [
        fitted.verbalizer
        for fitted in model.tasks
        if fitted.task.reader == "words" and isinstance(fitted.verbalizer, BoundVerbalizer)
    ]
    for note in dict.fromkeys(note for bound in read for note in bound.notes):
        say(note)
    if way.name not in PET and way.tune != "nothing":
        data = {
            number: (_of(rows["train"], value, config), _of(rows["dev"], value, config))
            for value, number in tasks.items()
        }
        if not (config.out / CHECKPOINT).exists():
            _rehearse(config, model, tasks, data, settings, way, splits, rows)
        _begin(folder, whole)
        try:
            trained = fit(
                model,
                data,
                settings,
                tune=way.tune,
                folder=config.out,
                resume=config.resume,
                label=config.name,
                unlabeled=splits["unlabeled"],
                texts=judge_texts.dev_score(config.stop_by, config.decoding),
            )
        except DivergedError as error:
            trained, lost = error.trained, error
            if not config.prompt_by or all(own.best is None for own in trained.values()):
                raise
            tasks = {value: number for value, number in tasks.items() if trained[number].best}
        told = [
            sentence
            for number, own in trained.items()
            for sentence in account(model.tasks[int(number)].task.name, own, settings)
        ]
        for sentence in told[:MOST_TOLD]:
            say(sentence)
        if len(told) > MOST_TOLD:
            say(f"... and {len(told) - MOST_TOLD} more like that.")
        if any(own.diverged and own.best for own in trained.values()):
            say(
                "Training diverged (the loss was no finite number any more); the best state "
                "before that is kept. "
                f"To train on, {lower_rates(settings, way.tune)}."
            )
    if way.tune == "nothing":
        _begin(folder, whole)
    if _weighted(config, model):
        _weigh(model, tasks, rows["dev"][None], trained)
    trained_parameters, kept_parameters = sizes(model, list(tasks.values()), way)
    run = Run(
        name=config.name,
        method=config.method,
        title=config.title or way.title,
        template=config.template or " | ".join(config.patterns),
        lm=config.lm,
        lm_parameters=sum(p.numel() for p in lm.model.parameters()),
        rows={split: sum(map(len, own.values())) for split, own in rows.items()},
        history={
            model.tasks[int(number)].task.name: [vars(look) for look in own.history]
            for number, own in trained.items()
        },
        best={
            model.tasks[int(number)].task.name: vars(own.best)
            for number, own in trained.items()
            if own.best
        },
        dev_score=_dev_score(config),
        seconds={"train": round(time.monotonic() - began, 1)},
        settings=config.model_dump(mode="json"),
        versions={
            name: importlib.metadata.version(name) for name in ("ptune", "torch", "transformers")
        },
        trained_parameters=trained_parameters,
        kept_parameters=kept_parameters,
        baselines=company,
        train=settings.model_dump(mode="json") if trained else {},
        steps={model.tasks[int(number)].task.name: own.step for number, own in trained.items()},
        diverged=[
            model.tasks[int(number)].task.name
            for number, own in trained.items()
            if own.diverged and own.best
        ],
        lost=[
            model.tasks[int(number)].task.name for number, own in trained.items() if not own.best
        ],
    )
    _save(config, model, tasks, way, run)
    try:
        if config.only and (config.out / "run.json").exists():
            _add_others(config, lm, rows["test"], run)
        else:
            _test(config, model, _test_rows(config, rows, tasks), run)
    except PtuneError as error:
        raise type(error)(
            f"{error} What was trained is saved in {config.out}; ptune evaluate scores it."
        ) from error
    _save_figures(config, run)
    shown = ", ".join(f"{name} {value:.4g}" for name, value in run.figures.items())
    say(f"{config.name}: {shown + '; ' if shown else ''}saved in {config.out}")
    for name, reason in run.left_out.items():
        say(f"Without {name}: {reason}")
    _compared(config, run, say)
    if lost:
        raise DivergedError(f"{lost} All other prompts are saved.", trained)
    return run


def _continued(config: TaskConfig) -> TaskConfig:
    """A task that goes on from a prompt: with that one's template, where it has none of its own."""
    if method(config.method).name in PET:
        raise ConfigError(
            f"{config.method} trains its members anew: --from goes with a method that trains one "
            "prompt."
        )
    if config.template or config.patterns:
        return config
    return config.model_copy(
        update={
            "template": prompt_folder.template_of(
                prompt_folder.folders_in(str(config.continue_from))[0]
            )
        }
    )


def _lm(config: TaskConfig, way: Method) -> LanguageModel:
    """The task's LM; that of the prompt that it goes on from, where no other is named."""
    tuned = way.tune in ("head", "lm", "both") or way.name in PET
    if config.continue_from is not None and config.lm == "builtin":
        return prompt_folder.lm_of(
            prompt_folder.folders_in(config.continue_from)[0], config.device, config.dtype, tuned
        )
    return LanguageModel.load(config.lm, device=config.device, dtype=config.dtype, tuned=tuned)


def _begun(begun: PromptModel | None, value: str | None, member: int) -> yaml_task.Begun | None:
    """The prompt that one of this task goes on from: the only one there is, that of the same user,
    or the same member's.

    Raises:
        ConfigError: there is none.
    """
    if begun is None:
        return None
    owners = {
        fitted.task.by[1]: number for number, fitted in enumerate(begun.tasks) if fitted.task.by
    }
    number = 0 if len(begun.tasks) == 1 else owners.get(str(value)) if owners else member
    if number is None or number >= len(begun.tasks):
        raise ConfigError(f"Of the {len(begun.tasks)} prompts to go on from none is for {value!r}.")
    return yaml_task.Begun(begun, number)


def _classifier_of(config: TaskConfig, lm: LanguageModel, way: Method) -> PromptModel:
    """The untrained classifier of PET, whose rows are checked before its members are trained."""
    plan = plan_of(config, lm, way, yaml_task.members(config, lm=lm), _settings(config))
    model = PromptModel(lm)
    model.add(plan.classifier)
    return model


def _test_rows(
    config: TaskConfig,
    rows: Mapping[str, Mapping[str | None, list[Row]]],
    tasks: Mapping[str | None, int],
) -> list[Row]:
    """The rows that are scored: those of the prompts that are trained here."""
    return [
        row
        for value, of_value in rows["test"].items()
        if value in tasks or not config.prompt_by
        for row in of_value
    ]


def _check_rows(
    config: TaskConfig,
    model: PromptModel,
    tasks: Mapping[str | None, int],
    rows: Mapping[str, Mapping[str | None, list[Row]]],
    say: Callable[[str], None],
) -> None:
    """Tokenise every row for every task that takes it, and compute the figures as if all answers
    were right, so that what does not fit is found before the first step. Rows that are shortened
    are told.

    Raises:
        PtuneError: a row or a metric does not fit.
    """
    for split, by_value in rows.items():
        shortening = Shortening()
        for value, number in tasks.items():
            for place, row in enumerate(_of(by_value, value, config), 1):
                shortening.count(model.encode(number, [row], first=place))
        if shortened := shortening.sentence(f"{split} rows", model.limit(0)):
            say(shortened)
    target, scored = model.tasks[0], _test_rows(config, rows, tasks)
    if not scored:
        return
    if left_out := sum(map(len, rows["test"].values())) - len(scored):
        say(
            f"{left_out} test rows have a {config.prompt_by} without a prompt here, and are not "
            "scored."
        )
    if target.verbalizer is None:
        judge_texts.check(target, scored, config.metrics, config.parts)


def _rehearse(
    config: TaskConfig,
    model: PromptModel,
    tasks: Mapping[str | None, int],
    data: Mapping[int, tuple[list[Row], list[Row]]],
    settings: TrainConfig,
    way: Method,
    splits: Mapping[str, Sequence[Row]],
    rows: Mapping[str, Mapping[str | None, list[Row]]],
) -> None:
    """Run all that comes after the model is made on two rows, with a copy of it: a step, a look at
    dev, weights, figures.

    Raises:
        PtuneError: something does not fit together.
    """
    if way.tune == "nothing":
        return
    brief = config.decoding.model_copy(
        update={"max_new_tokens": max(1, config.decoding.min_new_tokens, 2)}
    )
    texts = judge_texts.dev_score(config.stop_by, brief)
    twin = rehearsal.one_step(
        model, data, settings, tune=way.tune, texts=texts, unlabeled=splits["unlabeled"]
    )
    scored = _test_rows(config, rows, tasks)[: rehearsal.ROWS]
    with contextlib.suppress(DivergedError):
        if _weighted(config, twin):
            _weigh(twin, tasks, rows["dev"][None][: rehearsal.ROWS], {})
        if scored and twin.tasks[0].verbalizer is not None:
            judge_labels.judge(twin, scored)
        elif scored:
            judge_texts.judge(twin, scored, brief, ("bleu",))


def _weighted(config: TaskConfig, model: PromptModel) -> bool:
    """Whether the members of an ensemble are weighed by their accuracy on dev; texts are always
    answered by vote."""
    return config.combine == "weighted" and model.tasks[0].verbalizer is not None


def _company(
    config: TaskConfig, lm: LanguageModel, train: Sequence[Row], test: Sequence[Row]
) -> dict[str, dict[str, float]]:
    """The figures of the baselines, by the LM as it is before any training."""
    if not (config.labels and train and test):
        return {}
    every = training_labels(config.data, config.target, tuple(config.labels))
    return baselines.figures(judge_labels.question(config, lm, train, test, every), lm)


def _compared(config: TaskConfig, run: Run, say: Callable[[str], None]) -> None:
    """Say what a user would get without prompts, and last of all whether that is more."""
    if not (run.baselines and run.figures):
        return
    metric = (config.metrics or ("accuracy",))[0]
    company = {name: own[metric] for name, own in run.baselines.items()}
    shown = "; ".join(f"{BASELINES[name]} {value:.4g}" for name, value in company.items())
    say(f"Baselines without prompts, on the same rows, {metric}: {shown}")
    if ahead := baselines.behind(run.figures[metric], company):
        name, value = ahead
        say(
            f"This run ({run.figures[metric]:.4g}) is behind a baseline, {BASELINES[name]} "
            f"({value:.4g}): "
            f"try --method {baselines.advice(name, config.method)}."
        )


def _distil(
    config: TaskConfig,
    lm: LanguageModel,
    way: Method,
    splits: Mapping[str, Sequence[Row]],
    say: Callable[[str], None],
) -> tuple[PromptModel, dict[int | str, TrainingHistory]]:
    """PET: the classifier, and how its training went."""
    plan = plan_of(config, lm, way, yaml_task.members(config, lm=lm), _settings(config))
    outcome = pet.pet(
        lm,
        plan,
        splits["train"],
        splits["dev"],
        splits["unlabeled"],
        config.out / "pet",
        config.resume,
        config.name,
        say,
    )
    for own in outcome.members:
        say(
            f"{own.name}, generation {own.generation}: {own.rows} rows, weight {own.weight:.3f}, "
            f"dev {own.dev:.3f}"
        )
    say(f"Together on dev: {', '.join(f'{own:.3f}' for own in outcome.ensembles)}")
    return outcome.model, {0: outcome.trained}


def _weigh(
    model: PromptModel,
    tasks: Mapping[str | None, int],
    rows: Sequence[Row],
    trained: Mapping[Any, TrainingHistory],
) -> None:
    """Give each member of an ensemble its accuracy on dev as its weight."""
    for number in tasks.values():
        best = trained[number].best if number in trained else None
        examples = model.encode(number, rows) if best is None else []
        model.tasks[number] = replace(
            model.tasks[number],
            weight=best.dev if best else accuracy(model.scores(examples), examples),
        )


def _way(config: TaskConfig) -> Method:
    way = method(config.method)
    way = replace(way, tune=config.tune or way.tune)
    if way.tune == "lm" and config.reading.by in TRAINED:
        way = replace(way, tune="both")
    if config.prompt_by and way.tune != "prompt":
        raise ConfigError(
            f"prompt_by gives each {config.prompt_by} a prompt of its own, and {config.method} "
            "trains none: take prefix-tuning or another."
        )
    if way.name in PET and config.prompt_by:
        raise ConfigError(
            f"prompt_by gives each {config.prompt_by} a prompt of its own, and {way.name} makes "
            "one classifier for all rows."
        )
    if (
        way.name not in PET
        and len(yaml_task.members(config)) > 1
        and (config.prompt_by or way.tune not in ("prompt", "nothing"))
    ):
        raise ConfigError(
            "An ensemble goes with a method that trains prompts or nothing, and without "
            "prompt_by; method pet tunes an LM for each member."
        )
    if config.prompts > 1 and way.tune == "nothing":
        raise ConfigError(
            f"{config.prompts} prompts of different seeds go with a method that trains prompts."
        )
    if config.prompt_by and config.combine != "mean":
        raise ConfigError(
            f"combine: {config.combine} says how the members of an ensemble answer together, and "
            "with prompt_by one prompt "
            f"answers each row: leave combine out."
        )
    if config.combine == "weighted" and not config.data.dev:
        raise ConfigError(
            "combine: weighted weighs the members of an ensemble by their accuracy on dev rows: "
            "give data.dev."
        )
    if config.parts and _dev_score(config) == "accuracy":
        raise ConfigError(
            "parts gives the figures of written answers apart, and this task has labels: leave "
            "parts out."
        )
    if config.only and not config.prompt_by:
        raise ConfigError("only names values of prompt_by, and the task has none.")
    return way


def _settings(config: TaskConfig) -> TrainConfig:
    return method(config.method).train.replaced(config.train.model_dump())


def _dev_score(config: TaskConfig) -> str:
    if config.labels or config.vocabulary or config.choices or config.span:
        return "accuracy"
    return (
        "minus the dev loss"
        if config.stop_by == "loss"
        else f"minus {config.stop_by}"
        if config.stop_by == "ter"
        else config.stop_by
    )


def _identity(config: TaskConfig, lm: LanguageModel) -> dict[str, Any]:
    """All that the outcome hangs on, beside the names of the prompts that are trained."""
    return {
        "lm": identity.of_lm(lm),
        **identity.of_settings(config, ("lm", "out", "resume", "device", "dtype", "only", "title")),
    }


def _begin(folder: RunFolder, whole: Mapping[str, Any]) -> None:
    """Claim the folder, once all that can be checked before the first step is checked."""
    if folder.begun is None:
        folder.claim(whole)


def _finished(config: TaskConfig, say: Callable[[str], None]) -> Run:
    """The run in the out folder, and its page where a kill left it without one."""
    from ptune.reports import runs_page  # plots that nobody needs to predict

    run = runs_page.read([config.out])[0]
    if not (config.out / "report.html").exists():
        runs_page.write([run], config.out)
    say(f"The run in {config.out} is finished; for another choose another --out.")
    return run


def _check_out(config: TaskConfig) -> None:
    if (
        config.prompt_by
        and (config.out / "prompts").exists()
        and not config.resume
        and not config.only
    ):
        raise ConfigError(
            f"{config.out} holds trained prompts already: name those to train with --only, go on "
            "with --resume, or choose another --out."
        )
    if config.only and (config.out / CHECKPOINT).exists() and not config.resume:
        raise ConfigError(
            f"{config.out} holds a training that was stopped before its end: go on with it by "
            "--resume, or choose another --out."
        )


def _model_of(
    config: TaskConfig,
    lm: LanguageModel,
    rows: Mapping[str | None, list[Row]],
    begun: PromptModel | None = None,
) -> tuple[PromptModel, dict[str | None, int]]:
    """The model, and the number of each prompt's task: new ones, and of ``only`` those that go on.

    Args:
        begun: prompts that new ones begin as.
    """
    if unknown := next((value for value in config.only if value not in rows), None):
        raise ConfigError(f"No training row has {config.prompt_by} {unknown!r}.")
    values: list[str | None] = [
        value for value in rows if value in config.only or not config.only
    ] or [None]
    ways = yaml_task.members(config, lm=lm)
    if len(ways) > 1:
        values = [str(number + 1) for number in range(len(ways))]
    there = [
        value
        for value in values
        if config.only and (_folder(config, value) / "prompt.json").exists()
    ]
    model = PromptModel(lm)
    if there:
        model = prompt_folder.load([_folder(config, value) for value in there], lm, trainable=True)
    tasks: dict[str | None, int] = {value: number for number, value in enumerate(there)}
    for value, number in tasks.items():
        _check_same(
            model.tasks[number].task,
            yaml_task.task_of(config, lm, ways[0], value),
            _folder(config, value),
        )
    for place, (member, value) in enumerate(
        zip(ways if len(ways) > 1 else ways * len(values), values)
    ):
        if value not in tasks:
            start = _begun(begun, value, place)
            tasks[value] = yaml_task.add(
                model, config, member, _of(rows, value, config), value, begun=start
            )
    return model, tasks


def _check_same(saved: Task, wanted: Task, folder: pathlib.Path) -> None:
    """A prompt goes on under the settings that it was trained with, the seed aside.

    Raises:
        ConfigError: others are asked for; which is told.
    """
    if not wanted.prefix.attentions:
        wanted = replace(wanted, prefix=replace(wanted.prefix, attentions=saved.prefix.attentions))
    if changed := [
        field.name
        for field in fields(Task)
        if field.name not in FREE and getattr(saved, field.name) != getattr(wanted, field.name)
    ]:
        raise ConfigError(
            f"The prompt in {folder} was trained with another {', '.join(changed)}: go on with "
            "the same, or delete the folder to begin anew."
        )


def _of(rows: Mapping[str | None, list[Row]], value: str | None, config: TaskConfig) -> list[Row]:
    """A prompt's own rows; the members of an ensemble share theirs."""
    return rows.get(value if config.prompt_by else None, [])


def _folder(config: TaskConfig, value: str | None) -> pathlib.Path:
    """Where a prompt goes: the out folder, or its own in there."""
    return config.out if value is None else config.out / "prompts" / file_name(value)


def sizes(model: PromptModel, tasks: list[int], way: Method) -> tuple[int, int]:
    """How many parameters were trained, and how many are kept."""
    prompts = [model.tasks[task].prompt for task in tasks if model.tasks[task].prompt >= 0]
    own = {
        "prompt": sum(p.numel() for prompt in prompts for p in model.bank.parameters_of(prompt)),
        "lm": sum(p.numel() for p in model.lm.model.parameters()),
    }
    kept = sum(model.bank.size(prompt) for prompt in prompts)
    own["head"] = sum(p.numel() for p in model.lm.head_parameters()) if way.tune == "head" else 0
    trained = {"nothing": 0, "both": own["prompt"] + own["lm"]}.get(way.tune, own.get(way.tune, 0))
    return trained, kept + (own["lm"] if way.tune in ("lm", "both") else own["head"])


def _test(config: TaskConfig, model: PromptModel, rows: list[Row], run: Run) -> None:
    """Score the test rows of all prompts as one set."""
    if not rows:
        return
    if model.tasks[0].verbalizer is not None:
        run.figures = judge_labels.judge(model, rows, config.metrics, confusion=run.confusion)
        return
    judged = judge_texts.judge(model, rows, config.decoding, config.metrics, config.parts)
    run.figures, run.parts, run.left_out, run.outputs = (
        judged.figures,
        judged.parts,
        judged.left_out,
        judged.outputs,
    )
    run.seconds["write"] = round(judged.seconds, 1)


def _save(
    config: TaskConfig, model: PromptModel, tasks: Mapping[str | None, int], way: Method, run: Run
) -> None:
    if way.tune in ("head", "lm", "both"):
        model.lm.save(config.out / "lm")
        model.lm.source = str(config.out / "lm")
    for value, number in tasks.items():
        best = run.best.get(model.tasks[number].task.name, {})
        figures = {
            f"dev {name}": best[key]
            for name, key in ((run.dev_score, "dev"), ("loss", "dev_loss"))
            if best
        }
        prompt_folder.save(model, _folder(config, value), number, figures, encoder=True)
        if way.tune == "prompt":
            with contextlib.suppress(
                ConfigError
            ):  # PEFT's own files too, where they can say the same
                peft_format.export(model, _folder(config, value), number)


def _save_figures(config: TaskConfig, run: Run) -> None:
    """Put the figures beside what is saved, and end the run."""
    if run.figures and (config.out / "prompt.json").exists():
        prompt_folder.note_metrics(
            config.out, {f"test {name}": figure for name, figure in run.figures.items()}
        )
    files.write_json(config.out / "run.json", run.model_dump(mode="json"))
    from ptune.reports.runs_page import write as write_report

    write_report([run], config.out)
    (config.out / CHECKPOINT).unlink(missing_ok=True)


def _add_others(
    config: TaskConfig, lm: LanguageModel, rows: Mapping[str | None, list[Row]], run: Run
) -> None:
    """Put beside the prompts that were trained what is known of the others of their bank, and score
    all as one set.

    Args:
        rows: the test rows by their prompts.
    """
    from ptune.reports.runs_page import read as read_runs

    before, now = read_runs([config.out])[0], {*run.history, *run.lost}
    bank = prompt_folder.load(prompt_folder.folders_in(config.out), lm)
    names = {fitted.task.name for fitted in bank.tasks}
    for field in ("history", "best", "steps"):
        kept = {
            name: value for name, value in getattr(before, field).items() if name in names - now
        }
        setattr(run, field, {**kept, **getattr(run, field)})
    for field in ("diverged", "lost"):
        setattr(
            run,
            field,
            [*(name for name in getattr(before, field) if name not in now), *getattr(run, field)],
        )
    run.trained_parameters = run.trained_parameters // max(1, len(now)) * len(run.history)
    run.kept_parameters = sum(bank.bank.size(fitted.prompt) for fitted in bank.tasks)
    run.seconds["train"] = round(run.seconds["train"] + before.seconds.get("train", 0.0), 1)
    owners = {fitted.task.by[1] for fitted in bank.tasks if fitted.task.by}
    _test(config, bank, [row for value, own in rows.items() if value in owners for row in own], run)
