"""One training loop for one or many prompts, and for the LM itself.

Many prompts train as a bank: each joint step runs the LM once on a batch of every prompt that still
trains. The loss is the sum of theirs, so each gets the gradient that it would get alone; its order
of rows, step count, clipping, schedule, early stopping and best checkpoint are its own. A prompt
that has stopped leaves the optimiser.
"""

import contextlib
import functools
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from ptune.answers.extraction import Extraction
from ptune.answers.word_labels import WordLabels
from ptune.base import files
from ptune.base.interrupts import Interrupted, stoppable
from ptune.base.progress import Progress
from ptune.data.in_memory import rows_from
from ptune.errors import ConfigError, DivergedError
from ptune.model.confidence import keep_confidence
from ptune.model.prompt_model import Example, PromptModel, Row, Task
from ptune.model.rows.examples import ScoredExample
from ptune.model.running import label_sets, token_answers
from ptune.runs import identity
from ptune.runs.logs.step_log import StepLog
from ptune.runs.logs.training_log import TrainingLog
from ptune.settings import TrainConfig
from ptune.training.checkpoint import Checkpoint
from ptune.training.prompt_training import PromptTraining, TrainingHistory, Tune
from ptune.training.watching import log_evaluation, log_step

Metric = Callable[[Sequence[torch.Tensor], Sequence[Example]], float]
TextMetric = Callable[[PromptModel, int, Sequence[Row]], float]


def account(name: str, trained: TrainingHistory, config: TrainConfig) -> list[str]:
    """Sentences that explain why a training took fewer steps than were configured."""
    sentences = []
    if trained.stopped:
        falling = (
            ", the training loss still falling: a larger patience may get further"
            if trained.still_falling
            else ""
        )
        sentences.append(
            f"{name} was stopped by patience at step {trained.step} of {trained.planned}{falling}."
        )
    if 0 < trained.planned < config.steps:
        sentences.append(
            f"{name} had {trained.planned} steps at most, and not the {config.steps} that are "
            f"asked for, since epochs is {config.epochs}."
        )
    return sentences


def accuracy(scores: Sequence[torch.Tensor], examples: Sequence[Example]) -> float:
    """The share of examples whose correct label has the highest score."""
    return sum(
        int(label_scores.argmax()) == example.label
        for label_scores, example in zip(scores, examples)
    ) / len(examples)


def figure_on_dev(task: Task, scores: Sequence[torch.Tensor], examples: Sequence[Example]) -> float:
    """The dev score of a task with labels by default: the accuracy, or where rows have several
    labels their f1-micro, or where single tokens are read an F1 (``token_answers``)."""
    if isinstance(task.verbalizer, WordLabels | Extraction):
        return token_answers.figure_on_dev(task.verbalizer, scores, examples)
    if task.multi_label:
        return label_sets.f1_on_dev(scores, examples, task.threshold)
    return accuracy(scores, examples)


def mean_loss(scores: Sequence[torch.Tensor], examples: Sequence[Example]) -> float:
    """The mean loss of examples with labels, by the scores of their labels (``loss_of_scores``)."""
    losses = [
        example.loss_of_scores(label_scores)
        for label_scores, example in zip(scores, examples)
        if isinstance(example, ScoredExample)
    ]
    return sum(losses) / len(losses)


def fit(
    model: PromptModel,
    data: Mapping[Any, tuple[Sequence[Row], Sequence[Row]]],
    config: TrainConfig | None = None,
    *,
    tune: Tune = "prompt",
    metric: Metric | None = None,
    texts: TextMetric | None = None,
    unlabeled: Sequence[Row] = (),
    folder: files.Path | None = None,
    resume: bool = False,
    label: str = "training",
    logs: Sequence[TrainingLog] = (),
    rates: Mapping[Any, float] | None = None,
) -> dict[int | str, TrainingHistory]:
    """Train tasks on their training rows and restore the best state of each, judged on its dev
    rows. Where only prompts are trained, the tasks are trained together.

    Args:
        data: the training rows and dev rows of each task, by the task's number or name; rows are a
            list of dictionaries, a pandas or polars data frame, or a ``datasets.Dataset``.
        tune: what is trained: the prompt, the LM's vocabulary head, the LM, or prompt and LM. An LM
            serves one task at a time.
        metric: the dev score of tasks with labels; by default the accuracy, or where rows have
            several labels their f1-micro at the best threshold.
        texts: the dev score of tasks whose answer is text, by what the LM writes; without it, minus
            the dev loss.
        unlabeled: rows for the auxiliary masked-LM loss, which hides some of their words and has
            the weight ``config.auxiliary`` (PET, section 3.2).
        folder: where checkpoints are written; without a folder nothing is saved.
        resume: continue from the checkpoint in ``folder``, if there is one.
        label: the text beside the progress bar, and the training's name in logs.
        logs: what gets losses, rates and dev scores while it runs (``TrainingLog``); they change no
            result.
        rates: the peak learning rate of each task's prompt, in place of the one in ``config``.

    Raises:
        ConfigError, DataError: nothing to train, or no rows.
        ModelError: the frozen LM gives prompts no gradient.
        DivergedError: a task's loss was not finite at its first evaluation, so its parameters keep
            their initial values; the other tasks are trained, and the error carries the histories
            of all of them.
        Interrupted: Ctrl-C or a termination signal arrived; a checkpoint was written before.
    """
    config = config or TrainConfig()
    _check(data, config, tune, unlabeled, rates)
    data = {key: (rows_from(rows), rows_from(dev)) for key, (rows, dev) in data.items()}
    unlabeled = rows_from(unlabeled)
    numbers = {key: model.number(key) if isinstance(key, str) else key for key in data}
    keep_confidence(model, list(numbers.values()), None)  # of the prompts as they were
    with _trainable(model, config, tune):
        jobs = [
            PromptTraining(
                model, numbers[key], rows, dev, _at_rate(config, rates, key), tune, unlabeled
            )
            for key, (rows, dev) in data.items()
        ]
        for job in jobs:
            job.is_watched = bool(logs)
        if tune == "prompt":
            _check_gradients(model, jobs)
        checkpoint = None
        if folder is not None:
            whole = _identity(model, jobs, data, config, tune, unlabeled)
            whole |= {"rates": list(rates.values())} if rates else {}
            file = pathlib.Path(folder) / "checkpoint.safetensors"
            checkpoint = Checkpoint(file, whole, tune == "prompt")
            if resume and file.exists():
                checkpoint.restore(jobs)
        with _keeping_contexts(model, jobs, config, tune):
            evaluate = functools.partial(_evaluate, model, metric=metric, texts=texts)
            log = StepLog(logs, label, max(job.step for job in jobs))
            _run(model, jobs, config, evaluate, checkpoint, log)
            log.flush()
        if checkpoint and all(job.trained.best is None for job in jobs):
            checkpoint.file.unlink(missing_ok=True)  # so that the folder may be begun anew
        for job in jobs:
            job.restore_best()
            model.solve_reader(job.task, job.rows)
            label_sets.choose_threshold(model, job.task, job.dev)
            job.trained.planned, job.trained.step = job.steps, job.step
            job.trained.answer_tokens = job.answer_tokens
    return _histories(dict(zip(data, jobs)), config, tune)


def _at_rate(config: TrainConfig, rates: Mapping[Any, float] | None, key: Any) -> TrainConfig:
    """The settings of one task's training."""
    if rates is None:
        return config
    return config.model_copy(update={"learning_rate": rates[key]})


def _check(
    data: Mapping[Any, tuple[Sequence[Row], Sequence[Row]]],
    config: TrainConfig,
    tune: Tune,
    unlabeled: Sequence[Row],
    rates: Mapping[Any, float] | None,
) -> None:
    """Refuse what cannot be trained so."""
    if not isinstance(config, TrainConfig):
        raise ConfigError(
            f"The settings of a training are a TrainConfig, and this is a {type(config).__name__}: "
            "write TrainConfig(steps=100), for example."
        )
    if not isinstance(data, Mapping) or not all(
        isinstance(pair, tuple | list) and len(pair) == 2 for pair in data.values()
    ):
        raise ConfigError(
            "fit takes a dictionary with a pair for each task, the rows to learn from and those "
            'that choose the best state: fit(model, {"task": (train_rows, dev_rows)}).'
        )
    if tune != "prompt" and len(data) > 1:
        raise ConfigError(
            "The LM is tuned for one task at a time; only prompts can be trained together."
        )
    if config.auxiliary and not unlabeled:
        raise ConfigError(
            "The auxiliary loss hides words of unlabelled rows, and there are none: give some, or "
            "set its weight to 0."
        )
    if rates is not None and rates.keys() != data.keys():
        raise ConfigError(
            f"rates is of {list(rates)}, and the tasks are {list(data)}: give one rate for each."
        )


@contextlib.contextmanager
def _trainable(model: PromptModel, config: TrainConfig, tune: Tune) -> Iterator[None]:
    """While this is open, what is trained has gradients, and an LM that is tuned has its
    dropout."""
    if tune == "head":
        model.lm.tune_head()
    else:
        model.lm.tune(tune != "prompt")
    model.bank.readers.train(tune != "prompt")
    model.lm.recompute(config.recompute)
    try:
        yield
    finally:
        model.lm.recompute(False)
        model.lm.tune(False)
        model.bank.readers.eval()


def _check_gradients(model: PromptModel, jobs: Sequence[PromptTraining]) -> None:
    """Refuse a frozen LM that gives the prompts, as these tasks have them, no gradient."""
    prompts = [model.tasks[job.task].prompt for job in jobs]
    soft_tokens, prefixes = (
        any(list(modules[prompt].parameters()) for prompt in prompts)
        for modules in (model.bank.encoders, model.bank.prefixes)
    )
    model.lm.check_gradients(soft_tokens, prefixes)


def _keeping_contexts(
    model: PromptModel, jobs: Sequence[PromptTraining], config: TrainConfig, tune: Tune
) -> contextlib.AbstractContextManager[None]:
    """While this is open, a frozen LM computes the texts before rows' soft tokens once."""
    rows = [row for job in jobs for row in job.encoded]
    return model.lm.keeping_contexts(rows, config.context_mb if tune == "prompt" else 0)


def _histories(
    jobs: Mapping[Any, PromptTraining], config: TrainConfig, tune: Tune
) -> dict[int | str, TrainingHistory]:
    """How each training went.

    Raises:
        DivergedError: one left no finite state to keep.
    """
    trained = {key: job.trained for key, job in jobs.items()}
    if lost := [job.name for job in jobs.values() if job.trained.best is None]:
        raise DivergedError(
            f"{_diverged(lost)} before the first look at dev, so there is no state to keep: "
            f"{lower_rates(config, tune)}.",
            trained,
        )
    return trained


def _diverged(names: Sequence[str]) -> str:
    """The beginning of a message that names the trainings that diverged."""
    others = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"The training of {', '.join(names[:3])}{others} diverged (the loss was no finite number "
        "any more)"
    )


def lower_rates(config: TrainConfig, tune: str) -> str:
    """Advice for a training that diverged: which learning rates to lower, with their values."""
    names = {"prompt": ["learning_rate"], "both": ["lm_learning_rate", "learning_rate"]}.get(
        tune, ["lm_learning_rate"]
    )
    return "lower " + " and ".join(f"{name} (it is {getattr(config, name):g})" for name in names)


def _run(
    model: PromptModel,
    jobs: Sequence[PromptTraining],
    config: TrainConfig,
    evaluate: Callable[[Sequence[PromptTraining]], None],
    checkpoint: Checkpoint | None,
    log: StepLog,
) -> None:
    saved = time.monotonic()
    done = sum(job.steps if job.done else job.step for job in jobs)
    steps = sum(job.steps for job in jobs)
    with Progress(log.training, steps, done) as progress, stoppable() as stopped:
        while active := [job for job in jobs if not job.done]:
            take_step(model, active, config)
            progress.advance(len(active), loss=active[0].losses[-1])
            log_step(log, active)
            if due := [job for job in active if job.due]:
                log.write_steps()
                evaluate(due)
                log_evaluation(log, model, due)
                progress.advance(
                    sum(job.steps - job.step for job in due if job.done),
                    dev=max(_last(job) for job in due),
                )
            over = checkpoint is not None and checkpoint.at_end and all(job.done for job in jobs)
            if checkpoint and (over or stopped() or time.monotonic() - saved > config.save_seconds):
                log.flush()
                checkpoint.save(jobs)
                log.restart_clock()
                saved = time.monotonic()
            if stopped():
                raise Interrupted(
                    f"Stopped; {checkpoint.file} holds all that was trained."
                    if checkpoint
                    else "Stopped; nothing was saved."
                )


def take_step(model: PromptModel, jobs: Sequence[PromptTraining], config: TrainConfig) -> None:
    """One joint step: the LM runs once over a batch of every task's rows, and then each task's
    optimiser takes a step."""
    batches = [job.batch() for job in jobs]
    drawn: list[tuple[PromptTraining, Example, float]] = []
    sizes = []
    for part in range(config.accumulate):
        before = len(drawn)
        parts = [batch[part :: config.accumulate] for batch in batches]
        for job, batch, some in zip(jobs, batches, parts):
            share = (1 - config.auxiliary) / len(batch)
            drawn += [(job, example, share * job.weight(example)) for example in some]
        for job, batch, some in zip(jobs, batches, parts):
            drawn += [
                (job, example, config.auxiliary / len(batch))
                for example in job.hidden(model, len(some))
            ]
        sizes.append(len(drawn) - before)
    losses = model.backward(
        [example for _, example, _ in drawn], [weight for *_, weight in drawn], sizes
    )
    for job in jobs:
        numbers = [number for number, (other, *_) in enumerate(drawn) if other is job]
        job.losses.append(losses[numbers].sum())
        job.update()


def _evaluate(
    model: PromptModel,
    jobs: Sequence[PromptTraining],
    metric: Metric | None,
    texts: TextMetric | None,
) -> None:
    """Evaluate several tasks, with the dev rows of all of them in the same batches."""
    chosen, written = [job for job in jobs if not job.writes], [job for job in jobs if job.writes]
    for job in jobs:
        model.solve_reader(job.task, job.rows)
    scores = iter(model.scores([example for job in chosen for example in job.dev], finite=False))
    for job in chosen:
        dev_scores = [next(scores) for _ in job.dev]
        dev_loss = mean_loss(dev_scores, job.dev)
        figure = metric or functools.partial(figure_on_dev, model.tasks[job.task].task)
        job.evaluate(dev_loss, functools.partial(figure, dev_scores, job.dev))
    losses = iter(model.text_losses([example for job in written for example in job.dev]))
    for job in written:
        dev_loss = sum(next(losses) for _ in job.dev) / len(job.dev)
        job.evaluate(
            dev_loss,
            lambda dev_loss=dev_loss, job=job: (  # type: ignore[misc]
                texts(model, job.task, job.dev_rows) if texts else -dev_loss
            ),
        )


def _last(job: PromptTraining) -> float:
    return job.trained.history[-1].dev if job.trained.history else 0.0


def _identity(
    model: PromptModel,
    jobs: Sequence[PromptTraining],
    data: Mapping[Any, tuple[Sequence[Row], Sequence[Row]]],
    config: TrainConfig,
    tune: Tune,
    unlabeled: Sequence[Row],
) -> dict[str, Any]:
    """Everything that determines the result, as JSON values, before anything is trained."""
    tasks = {job.name: identity.of_task(model.tasks[job.task].task) for job in jobs}
    rows = {
        job.name: {
            "training rows": identity.of_rows(training_rows),
            "dev rows": identity.of_rows(dev),
        }
        for job, (training_rows, dev) in zip(jobs, data.values())
    }
    return json.loads(
        json.dumps(
            {
                "order of tasks": list(tasks),
                "task": tasks,
                "rows of": rows,
                "unlabelled rows": identity.of_rows(unlabeled),
                "train": identity.of_settings(config),
                "tune": tune,
                "max_length": model.max_length,
                "lm": identity.of_lm(model.lm),
                "versions": identity.versions(),
            }
        )
    )
