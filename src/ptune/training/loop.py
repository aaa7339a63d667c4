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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ptune.answers.extraction import Extraction
from ptune.answers.word_labels import WordLabels
from ptune.base import files
from ptune.base.interrupts import Interrupted, stoppable
from ptune.base.progress import Progress
from ptune.base.ranks import ALONE, Ranks
from ptune.data.in_memory import rows_from
from ptune.errors import ConfigError, DivergedError
from ptune.model.confidence import keep_confidence
from ptune.model.prompt_model import Example, PromptModel, Row, Task
from ptune.model.rows.examples import ScoredExample
from ptune.model.running import label_sets, token_answers
from ptune.prompts.encoders import Multitask, bake, table_of
from ptune.runs import identity
from ptune.runs.logs.step_log import StepLog
from ptune.runs.logs.training_log import TrainingLog
from ptune.settings import TrainConfig
from ptune.training.checkpoint import Checkpoint, agree
from ptune.training.prompt_training import (
    Metric,
    PromptTraining,
    Pruner,
    TextMetric,
    TrainingHistory,
    Tune,
    reached,
)
from ptune.training.steps.shared_training import SharedTraining, shared_among
from ptune.training.watching import log_evaluation, log_step

Drawn = tuple[PromptTraining, Example, float]
"""A row of a step, with its task's training and its weight in the loss."""
OF_A_STEP = ("accumulate", "recompute", "context_mb", "save_seconds")
"""Settings in which trainings that share their steps agree."""


@dataclass(frozen=True)
class Training:
    """What one call of ``fit`` trains, as a value; the attributes are arguments of ``fit``.

    Attributes:
        pruner: ends the training of its task, where others did better.
    """

    data: Mapping[Any, tuple[Sequence[Row], Sequence[Row]]]
    config: TrainConfig
    metric: Metric | None = None
    texts: TextMetric | None = None
    unlabeled: Sequence[Row] = ()
    folder: files.Path | None = None
    resume: bool = False
    rates: Mapping[Any, float] | None = None
    pruner: Pruner | None = None


@dataclass(frozen=True)
class _Part:
    """What one training has in the joint steps: its tasks' trainings by their keys."""

    jobs: Mapping[Any, PromptTraining]
    checkpoint: Checkpoint | None

    @property
    def is_done(self) -> bool:
        return all(job.done for job in self.jobs.values())

    def is_to_be_saved(self, is_time: bool) -> bool:
        """Whether its checkpoint is to be written after a step in which it took part.

        Args:
            is_time: whether those of all trainings are.
        """
        return self.checkpoint is not None and (
            is_time or (self.checkpoint.at_end and self.is_done)
        )

    def save(self) -> None:
        """Write the checkpoint, where one is kept."""
        if self.checkpoint:
            self.checkpoint.save(list(self.jobs.values()))


def account(name: str, trained: TrainingHistory, config: TrainConfig) -> list[str]:
    """Sentences that explain why a training took fewer steps than were configured."""
    sentences = []
    if trained.pruned:
        sentences.append(
            f"{name} was pruned at step {trained.step} of {trained.planned}, where most others "
            "were ahead on dev."
        )
    elif trained.stopped and reached(trained.best, config):
        sentences.append(
            f"{name} was stopped at step {trained.step} of {trained.planned}, where its dev score "
            f"reached {config.stopping_threshold:g}."
        )
    elif trained.stopped:
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
    ranks: Ranks = ALONE,
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
        ranks: the processes that train prompts together, each of which calls this with the same;
            the rows of each step are split over them. The folder and the logs are the first one's.

    Raises:
        ConfigError, DataError: nothing to train, or no rows.
        ModelError: the frozen LM gives prompts no gradient.
        DivergedError: a task's loss was not finite at its first evaluation, so its parameters keep
            their initial values; the other tasks are trained, and the error carries the histories
            of all of them.
        Interrupted: Ctrl-C or a termination signal arrived; a checkpoint was written before.
    """
    training = Training(
        data=data,
        config=TrainConfig() if config is None else config,
        metric=metric,
        texts=texts,
        unlabeled=unlabeled,
        folder=folder,
        resume=resume,
        rates=rates,
    )
    (histories,) = fit_together(model, [training], tune=tune, label=label, logs=logs, ranks=ranks)
    check_kept(model, histories, training.config, tune)
    return histories


def fit_together(
    model: PromptModel,
    trainings: Sequence[Training],
    *,
    tune: Tune = "prompt",
    label: str = "training",
    logs: Sequence[TrainingLog] = (),
    ranks: Ranks = ALONE,
) -> list[dict[int | str, TrainingHistory]]:
    """Several trainings of tasks of one model, each of which ends as by a ``fit`` of its own: they
    share the calls of the LM, and each has its settings, its checkpoint and its end.

    Args:
        tune, label, logs, ranks: as for ``fit``.

    Returns:
        For each training how it went for its tasks. Where a task's loss was not finite at its first
        evaluation there is no best state (``check_kept``).

    Raises:
        ConfigError, DataError, ModelError, Interrupted: as ``fit``; or two trainings differ in what
            a joint step has once (``OF_A_STEP``), or train the same task.
    """
    for training in trainings:
        _check(training, tune)
    _check_together(model, trainings, tune)
    _check_ranks(tune, ranks)
    logs = logs if ranks.is_first else ()
    trainings = [_with_rows(training) for training in trainings]
    shared = trainings[0].config
    with _trainable(model, shared, tune):
        all_jobs = [_jobs(model, training, tune) for training in trainings]
        jobs = [job for jobs in all_jobs for job in jobs.values()]
        for job in jobs:
            job.is_watched = bool(logs)
        if tune == "prompt":
            _check_gradients(model, jobs)
        parts = [
            _part(model, training, jobs_of, tune=tune, ranks=ranks)
            for training, jobs_of in zip(trainings, all_jobs)
        ]
        with _keeping_contexts(model, jobs, shared, tune=tune, ranks=ranks):
            log = StepLog(logs, label, max(job.step for job in jobs))
            _run(model, parts, shared=shared, log=log, ranks=ranks)
            log.flush()
        return [_finish(model, part) for part in parts]


def _with_rows(training: Training) -> Training:
    """The same with its rows as lists of dictionaries."""
    data = {key: (rows_from(rows), rows_from(dev)) for key, (rows, dev) in training.data.items()}
    return replace(training, data=data, unlabeled=rows_from(training.unlabeled))


def _jobs(model: PromptModel, training: Training, tune: Tune) -> dict[Any, PromptTraining]:
    """The trainings of the single tasks."""
    jobs = {}
    shared = shared_among(model, [_number(model, key) for key in training.data])
    for key, (rows, dev) in training.data.items():
        number = _number(model, key)
        keep_confidence(model, [number], None)  # of the prompt as it was
        config = _at_rate(training.config, training.rates, key)
        job = PromptTraining(
            model,
            number,
            rows,
            dev=dev,
            config=config,
            tune=tune,
            unlabeled=training.unlabeled,
            shared=shared[number],
        )
        job.metric, job.texts, job.pruner = training.metric, training.texts, training.pruner
        jobs[key] = job
    _share(list(jobs.values()))
    return jobs


def _share(jobs: Sequence[PromptTraining]) -> None:
    """Give the trainings whose prompts share something one optimiser for that."""
    for job in jobs:
        if job.shared and job.shared_training is None:
            first = id(job.shared[0])
            beside = [other for other in jobs if first in map(id, other.shared)]
            together = SharedTraining(
                job.shared,
                job.config,
                steps=[other.steps for other in beside],
                steps_an_epoch=[other.steps_an_epoch for other in beside],
            )
            for other in beside:
                other.shared_training = together


def _part(
    model: PromptModel,
    training: Training,
    jobs: Mapping[Any, PromptTraining],
    *,
    tune: Tune,
    ranks: Ranks,
) -> _Part:
    """A training's part of the joint steps, gone on from its checkpoint where it is resumed."""
    if training.folder is None and ranks.count == 1:
        return _Part(jobs, None)
    whole = _identity(model, list(jobs.values()), training, tune)
    whole |= {"rates": list(training.rates.values())} if training.rates else {}
    checkpoint = None
    if training.folder is not None and ranks.is_first:
        file = pathlib.Path(training.folder) / "checkpoint.safetensors"
        checkpoint = Checkpoint(file, whole, tune == "prompt")
        if training.resume and file.exists():
            checkpoint.restore(list(jobs.values()))
    if ranks.count > 1:
        agree(list(jobs.values()), whole, ranks)
    return _Part(jobs, checkpoint)


def _finish(model: PromptModel, part: _Part) -> dict[int | str, TrainingHistory]:
    """Restore the best states of a training, and return how it went."""
    jobs = part.jobs.values()
    if part.checkpoint and all(job.trained.best is None for job in jobs):
        part.checkpoint.file.unlink(missing_ok=True)  # so that the folder may be begun anew
    for job in jobs:
        job.restore_best()
        _set_apart(model, job)
        model.solve_reader(job.task, job.rows)
        label_sets.choose_threshold(model, job.task, job.dev)
        job.trained.planned, job.trained.step = job.steps, job.step
        job.trained.answer_tokens = job.answer_tokens
    return {key: job.trained for key, job in part.jobs.items()}


def _set_apart(model: PromptModel, job: PromptTraining) -> None:
    """Give a prompt that shared a table with others its vectors as a table of its own: each has its
    best state at another step."""
    bound = model.tasks[job.task]
    encoder = model.bank.encoders[bound.prompt] if job.shared else None
    if isinstance(encoder, Multitask):
        model.bank.encoders[bound.prompt] = table_of(bake(encoder))
        model.tasks[job.task] = replace(bound, task=replace(bound.task, encoder="table"))


def _number(model: PromptModel, key: Any) -> int:
    """The number of a task by its key in the rows."""
    return model.number(key) if isinstance(key, str) else key


def _at_rate(config: TrainConfig, rates: Mapping[Any, float] | None, key: Any) -> TrainConfig:
    """The settings of one task's training."""
    if rates is None:
        return config
    return config.model_copy(update={"learning_rate": rates[key]})


def _check(training: Training, tune: Tune) -> None:
    """Refuse what cannot be trained so."""
    data, config, rates = training.data, training.config, training.rates
    if not isinstance(config, TrainConfig):
        raise ConfigError(
            f"The settings of a training are a TrainConfig, and this is a {type(config).__name__}: "
            "write TrainConfig(steps=100), for example."
        )
    is_dictionary = isinstance(data, Mapping) and data
    if not is_dictionary or not all(
        isinstance(pair, tuple | list) and len(pair) == 2 for pair in data.values()
    ):
        raise ConfigError(
            "fit takes a dictionary with a pair for each task, the rows to learn from and those "
            'that choose the best state: fit(model, {"task": (train_rows, dev_rows)}).'
        )
    if config.auxiliary and not training.unlabeled:
        raise ConfigError(
            "The auxiliary loss hides words of unlabelled rows, and there are none: give some, or "
            "set its weight to 0."
        )
    if rates is not None and rates.keys() != data.keys():
        raise ConfigError(
            f"rates is of {list(rates)}, and the tasks are {list(data)}: give one rate for each."
        )


def _check_together(model: PromptModel, trainings: Sequence[Training], tune: Tune) -> None:
    """Refuse trainings that cannot share their steps."""
    keys = [key for training in trainings for key in training.data]
    if tune != "prompt" and len(keys) > 1:
        raise ConfigError(
            "The LM is tuned for one task at a time; only prompts can be trained together."
        )
    if len({_number(model, key) for key in keys}) < len(keys):
        raise ConfigError(f"A task is trained once, and of {keys} some are the same.")
    for name in OF_A_STEP:
        values = list(dict.fromkeys(getattr(training.config, name) for training in trainings))
        if len(values) > 1:
            raise ConfigError(
                f"Trainings that share their steps have one {name}, and these have "
                f"{values[0]} and {values[1]}: train them apart."
            )


def _check_ranks(tune: Tune, ranks: Ranks) -> None:
    """Refuse processes that train together where more than prompts is trained."""
    if ranks.count > 1 and tune != "prompt":
        raise ConfigError(
            f"{ranks.count} processes train prompts together, and not the LM or its head: take one."
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
    model: PromptModel,
    jobs: Sequence[PromptTraining],
    config: TrainConfig,
    *,
    tune: Tune,
    ranks: Ranks,
) -> contextlib.AbstractContextManager[None]:
    """While this is open, a frozen LM computes the texts before rows' soft tokens once; not where
    processes call it together for rows of their own, whose texts differ."""
    rows = [row for job in jobs for row in job.encoded]
    is_kept = tune == "prompt" and not (ranks.calls_together and ranks.splits_rows)
    return model.lm.keeping_contexts(rows, config.context_mb if is_kept else 0)


def check_kept(
    model: PromptModel,
    histories: Mapping[int | str, TrainingHistory],
    config: TrainConfig,
    tune: Tune = "prompt",
) -> None:
    """Refuse a training one of whose tasks has no finite state to keep.

    Args:
        histories: how it went for each task, by its number or name.

    Raises:
        DivergedError: there is such a task; the error carries all histories.
    """
    lost = [
        model.tasks[_number(model, key)].task.name
        for key, history in histories.items()
        if history.best is None
    ]
    if lost:
        raise DivergedError(
            f"{_diverged(lost)} before the first look at dev, so there is no state to keep: "
            f"{lower_rates(config, tune)}.",
            dict(histories),
        )


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
    parts: Sequence[_Part],
    *,
    shared: TrainConfig,
    log: StepLog,
    ranks: Ranks,
) -> None:
    """Take joint steps until all tasks are done.

    Args:
        shared: the settings that a joint step has once.
    """
    saved = time.monotonic()
    jobs = [job for part in parts for job in part.jobs.values()]
    done = sum(job.steps if job.done else job.step for job in jobs)
    steps = sum(job.steps for job in jobs)
    shown = Progress(log.training, steps, done, silent=not ranks.is_first)
    with shown as progress, stoppable() as asked:
        while active := [job for job in jobs if not job.done]:
            running = [part for part in parts if not part.is_done]
            take_step(model, active, shared, ranks)
            progress.advance(len(active), loss=active[0].losses[-1])
            log_step(log, active)
            if due := [job for job in active if job.due]:
                log.write_steps()
                _evaluate(model, due, ranks)
                log_evaluation(log, model, due)
                progress.advance(
                    sum(job.steps - job.step for job in due if job.done),
                    dev=max(_last(job) for job in due),
                )
            stopped = ranks.any(asked())
            is_time = stopped or time.monotonic() - saved > shared.save_seconds
            if unsaved := [part for part in running if part.is_to_be_saved(is_time)]:
                log.flush()
                for part in unsaved:
                    part.save()
                log.restart_clock()
                saved = time.monotonic() if is_time else saved
            if stopped:
                raise Interrupted(_stopped(parts))


def _stopped(parts: Sequence[_Part]) -> str:
    """What was saved of trainings that were stopped."""
    kept = [part.checkpoint.file for part in parts if part.checkpoint]
    if not kept:
        return "Stopped; nothing was saved."
    others = f" and {len(kept) - 1} more" if kept[1:] else ""
    return f"Stopped; {kept[0]}{others} {'hold' if others else 'holds'} all that was trained."


def take_step(
    model: PromptModel,
    jobs: Sequence[PromptTraining],
    config: TrainConfig,
    ranks: Ranks = ALONE,
) -> None:
    """One joint step: the LM runs once over a batch of every task's rows, and then each task's
    optimiser takes a step. Of several processes each runs its share of the rows."""
    batches = [job.batch() for job in jobs]
    drawn: list[Drawn] = []
    sizes = []
    for part in range(config.accumulate):
        before = len(drawn)
        parts = [batch[part :: config.accumulate] for batch in batches]
        for job, batch, some in zip(jobs, batches, parts):
            share = (1 - job.config.auxiliary) / len(batch)
            drawn += [(job, example, share * job.weight(example)) for example in some]
        for job, batch, some in zip(jobs, batches, parts):
            drawn += [
                (job, example, job.config.auxiliary / len(batch))
                for example in job.hidden(model, len(some))
            ]
        sizes.append(len(drawn) - before)
    losses = model.backward(
        [example for _, example, _ in drawn], [weight for *_, weight in drawn], sizes, ranks
    )
    for job in jobs:
        numbers = [number for number, (other, *_) in enumerate(drawn) if other is job]
        job.losses.append(losses[numbers].sum())
        job.update()
    for together in {id(job.shared_training): job.shared_training for job in jobs}.values():
        if together is not None:
            together.update()


def _evaluate(model: PromptModel, jobs: Sequence[PromptTraining], ranks: Ranks) -> None:
    """Evaluate several tasks, with the dev rows of all of them in the same batches. Of several
    processes each runs its share of the rows, and the first one's figures are those of all, as its
    parameters are, since kernels of several GPUs may round otherwise."""
    ranks.align([parameter for job in jobs for parameter in job.all_parameters])
    chosen, written = [job for job in jobs if not job.writes], [job for job in jobs if job.writes]
    for job in jobs:
        model.solve_reader(job.task, job.rows)
    examples = ranks.share([example for job in chosen for example in job.dev])
    scores = iter(ranks.gather_shares(model.scores(examples, finite=False)))
    for job in chosen:
        dev_scores = [next(scores) for _ in job.dev]
        dev_loss = mean_loss(dev_scores, job.dev)
        figure = job.metric or functools.partial(figure_on_dev, model.tasks[job.task].task)
        score = functools.partial(figure, dev_scores, job.dev)
        job.evaluate(dev_loss, functools.partial(ranks.from_first, score))
    examples = ranks.share([example for job in written for example in job.dev])
    losses = iter(ranks.gather_numbers(model.text_losses(examples)))
    for job in written:
        dev_loss = sum(next(losses) for _ in job.dev) / len(job.dev)
        job.evaluate(
            dev_loss,
            lambda dev_loss=dev_loss, job=job: (  # type: ignore[misc]
                ranks.from_first(lambda: job.texts(model, job.task, job.dev_rows))
                if job.texts
                else -dev_loss
            ),
        )


def _last(job: PromptTraining) -> float:
    return job.trained.history[-1].dev if job.trained.history else 0.0


def _identity(
    model: PromptModel, jobs: Sequence[PromptTraining], training: Training, tune: Tune
) -> dict[str, Any]:
    """Everything that determines the result, as JSON values, before anything is trained."""
    tasks = {job.name: identity.of_task(model.tasks[job.task].task) for job in jobs}
    rows = {
        job.name: {
            "training rows": identity.of_rows(training_rows),
            "dev rows": identity.of_rows(dev),
        }
        for job, (training_rows, dev) in zip(jobs, training.data.values())
    }
    return json.loads(
        json.dumps(
            {
                "order of tasks": list(tasks),
                "task": tasks,
                "rows of": rows,
                "unlabelled rows": identity.of_rows(training.unlabeled),
                "train": identity.of_settings(training.config),
                "tune": tune,
                "max_length": model.max_length,
                "lm": identity.of_lm(model.lm),
                "versions": identity.versions(),
            }
        )
    )
