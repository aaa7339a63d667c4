"""One training loop for one or many prompts, and for the LM itself.

Many prompts train as a bank: each joint step runs the LM once on a batch of every prompt that still
trains. The loss is the sum of theirs, so each gets the gradient that it would get alone; its order
of rows, step count, clipping, schedule, early stopping and best checkpoint are its own. A prompt
that has stopped leaves the optimiser.
"""

import functools
import json
import math
import pathlib
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from transformers.optimization import Adafactor

from ptune.base import files
from ptune.base.interrupts import Interrupted, stoppable
from ptune.base.progress import Progress
from ptune.errors import ConfigError, DataError, DivergedError, StoreError
from ptune.model.prompt_model import Example, PromptModel, Row
from ptune.runs import identity
from ptune.settings import TrainConfig
from ptune.template.language import EncodedRow

Tune = Literal["prompt", "head", "lm", "both"]
Metric = Callable[[Sequence[torch.Tensor], Sequence[Example]], float]
TextMetric = Callable[[PromptModel, int, Sequence[Row]], float]
EXPONENTIAL = 0.98
FALLING = 0.98  # a loss below this share of another one is lower


@dataclass(frozen=True)
class Evaluation:
    """One evaluation on the dev rows during training.

    Attributes:
        step: how many steps had been taken.
        epoch: how many epochs these steps are.
        loss: the mean training loss since the previous evaluation.
        dev_loss: the mean loss of the dev rows.
        dev: the dev score; higher is better.
    """

    step: int
    epoch: float
    loss: float
    dev_loss: float
    dev: float


@dataclass
class TrainingHistory:
    """The evaluations of one task's training and how it ended."""

    history: list[Evaluation] = field(default_factory=list)
    best: Evaluation | None = None
    diverged: bool = False
    planned: int = 0
    """The number of steps that the training was configured for."""
    step: int = 0
    """The number of steps that were taken."""

    @property
    def stopped(self) -> bool:
        """Whether early stopping ended the training."""
        return self.step < self.planned and not self.diverged

    @property
    def still_falling(self) -> bool:
        """Whether the training loss decreased further after the best evaluation."""
        return self.best is not None and self.history[-1].loss < FALLING * self.best.loss


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


def fit(
    model: PromptModel,
    data: Mapping[Any, tuple[Sequence[Row], Sequence[Row]]],
    config: TrainConfig | None = None,
    *,
    tune: Tune = "prompt",
    metric: Metric = accuracy,
    texts: TextMetric | None = None,
    unlabeled: Sequence[Row] = (),
    folder: files.Path | None = None,
    resume: bool = False,
    label: str = "training",
) -> dict[int | str, TrainingHistory]:
    """Train tasks on their training rows and restore the best state of each, judged on its dev
    rows. Where only prompts are trained, the tasks are trained together.

    Args:
        data: the training rows and dev rows of each task, by the task's number or name.
        tune: what is trained: the prompt, the LM's vocabulary head, the LM, or prompt and LM. An LM
            serves one task at a time.
        metric: the dev score of tasks with labels.
        texts: the dev score of tasks whose answer is text, by what the LM writes; without it, minus
            the dev loss.
        unlabeled: rows for the auxiliary masked-LM loss, which hides some of their words and has
            the weight ``config.auxiliary`` (PET, section 3.2).
        folder: where checkpoints are written; without a folder nothing is saved.
        resume: continue from the checkpoint in ``folder``, if there is one.
        label: the text beside the progress bar.

    Raises:
        ConfigError, DataError: nothing to train, or no rows.
        ModelError: the frozen LM gives prompts no gradient.
        DivergedError: a task's loss was not finite at its first evaluation, so its parameters keep
            their initial values; the other tasks are trained, and the error carries the histories
            of all of them.
        Interrupted: Ctrl-C or a termination signal arrived; a checkpoint was written before.
    """
    config = config or TrainConfig()
    numbers = {key: model.number(key) if isinstance(key, str) else key for key in data}
    if tune != "prompt" and len(data) > 1:
        raise ConfigError(
            "The LM is tuned for one task at a time; only prompts can be trained together."
        )
    if config.auxiliary and not unlabeled:
        raise ConfigError(
            "The auxiliary loss hides words of unlabelled rows, and there are none: give some, or "
            "set its weight to 0."
        )
    if tune == "head":
        model.lm.tune_head()
    else:
        model.lm.tune(tune != "prompt")
    model.bank.readers.train(tune != "prompt")  # dropout belongs to an LM that is tuned
    model.lm.recompute(config.recompute)
    try:
        jobs = [
            PromptTraining(model, numbers[key], rows, dev, config, tune, unlabeled)
            for key, (rows, dev) in data.items()
        ]
        if tune == "prompt":
            prompts = [model.tasks[job.task].prompt for job in jobs]
            model.lm.check_gradients(
                *(
                    any(list(modules[prompt].parameters()) for prompt in prompts)
                    for modules in (model.bank.encoders, model.bank.prefixes)
                )
            )
        checkpoint = None
        if folder is not None:
            whole = _identity(model, jobs, data, config, tune, unlabeled)
            checkpoint = _Checkpoint(
                pathlib.Path(folder) / "checkpoint.safetensors", whole, tune == "prompt"
            )
            if resume and checkpoint.file.exists():
                checkpoint.restore(jobs)
        with model.lm.keeping_contexts(
            [row for job in jobs for row in job.encoded],
            config.context_mb if tune == "prompt" else 0,
        ):
            _run(
                model,
                jobs,
                config,
                lambda due: _evaluate(model, due, metric, texts),
                checkpoint,
                label,
            )
        for job in jobs:
            job.restore_best()
            job.trained.planned, job.trained.step = job.steps, job.step
    finally:
        model.lm.recompute(False)
        model.lm.tune(False)
        model.bank.readers.eval()
    trained = {key: job.trained for key, job in zip(data, jobs)}
    if lost := [job.name for job in jobs if job.trained.best is None]:
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


class PromptTraining:
    """The training of one task: its rows, parameters, optimiser and progress."""

    def __init__(
        self,
        model: PromptModel,
        task: int,
        rows: Sequence[Row],
        dev: Sequence[Row],
        config: TrainConfig,
        tune: Tune,
        unlabeled: Sequence[Row],
    ):
        bound = model.tasks[task]
        self.name, self.config, self.task, self.lm = bound.task.name, config, task, model.lm
        if not rows or not dev:
            raise DataError(
                f"{self.name} has {len(rows)} training rows and {len(dev)} dev rows; it needs "
                "some of both."
            )
        self.rows, self.dev = (
            [example for example in model.encode(task, rows) if example.learn],
            model.encode(task, dev),
        )
        if not self.rows:
            raise DataError(
                f"None of the {len(rows)} training rows of {self.name} is true, and a span is "
                "learned from true ones alone."
            )
        self.writes, self.dev_rows, self.unlabeled = bound.verbalizer is None, dev, unlabeled
        groups: list[dict[str, Any]] = []
        if tune in ("prompt", "both"):
            parameters = model.bank.parameters_of(bound.prompt) if bound.prompt >= 0 else []
            if not parameters and model.is_baked(task):
                raise ConfigError(
                    f"The prompt of {self.name} was loaded to answer, and not to be trained: load "
                    "it with trainable=True."
                )
            if not parameters:
                raise ConfigError(
                    f"The template of {self.name} has no soft tokens and no prefix, so there is "
                    "no prompt to train."
                )
            groups.append({"params": parameters, "peak": config.learning_rate})
        elif (
            reader := list(model.bank.readers[bound.prompt].parameters())
            if bound.prompt >= 0
            else []
        ):
            groups.append(
                {
                    "params": [parameter for parameter in reader if parameter.requires_grad],
                    "peak": config.learning_rate,
                }
            )
        if tune != "prompt":
            groups.append(
                {
                    "params": [p for p in model.lm.model.parameters() if p.requires_grad],
                    "peak": config.lm_learning_rate,
                }
            )
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.optimiser = _optimiser(groups, config)
        self.generator = torch.Generator().manual_seed(
            config.seed * 1_000_003 + zlib.crc32(self.name.encode())
        )
        self.steps_an_epoch = math.ceil(len(self.rows) / config.batch_size)
        self.steps = config.planned_steps(self.steps_an_epoch)
        self.order = torch.zeros(0, dtype=torch.long)
        self.step, self.stale, self.done = 0, 0, False
        self.losses: list[torch.Tensor] = []
        self.best_state = [
            parameter.detach().clone() for parameter in self.parameters
        ]  # what it begins as
        self.trained = TrainingHistory()
        if tune != "prompt":
            torch.manual_seed(config.seed * 1_000_003 + zlib.crc32(self.name.encode()))

    def batch(self) -> list[Example]:
        """The rows of the next step."""
        position = self.step % self.steps_an_epoch
        if position == 0:
            self.order = torch.randperm(len(self.rows), generator=self.generator)
        size = self.config.batch_size
        return [self.rows[i] for i in self.order[position * size : (position + 1) * size].tolist()]

    @property
    def encoded(self) -> list[EncodedRow]:
        """All rows as they enter the LM, training rows first."""
        return [row for example in self.rows for row in example.learn] + [
            row for example in self.dev for row in (*example.fills, *example.learn)
        ]

    def hidden(self, model: PromptModel, count: int) -> list[Example]:
        """Draw ``count`` unlabelled rows and hide some of their words for the auxiliary loss; an
        empty list where that loss has no weight."""
        if not self.config.auxiliary:
            return []
        drawn = torch.randint(len(self.unlabeled), (count,), generator=self.generator).tolist()
        return model.hidden_words(self.task, [self.unlabeled[i] for i in drawn], self.generator)

    def update(self) -> None:
        """Take one step of this task's optimiser."""
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        share = _rate(self.step, self.steps, self.steps_an_epoch, self.config)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * share
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1

    @property
    def due(self) -> bool:
        """Whether the dev rows are evaluated after this step."""
        return (
            self.step % (self.config.evaluate_every or self.steps_an_epoch) == 0
            or self.step == self.steps
        )

    def evaluate(self, dev_loss: float, score: Callable[[], float]) -> None:
        """Record an evaluation: keep the state if the dev score is the best so far (a tie is
        decided by the dev loss), and stop the training once it has not improved for ``patience``
        evaluations."""
        loss = float(torch.stack(self.losses).mean())
        self.losses = []
        if not (math.isfinite(loss) and math.isfinite(dev_loss) and math.isfinite(dev := score())):
            self.trained.diverged = self.done = True
            return
        evaluation = Evaluation(self.step, self.step / self.steps_an_epoch, loss, dev_loss, dev)
        self.trained.history.append(evaluation)
        best = self.trained.best
        if best is None or (evaluation.dev, -evaluation.dev_loss) > (best.dev, -best.dev_loss):
            self.trained.best, self.stale = evaluation, 0
            self._keep()
        else:
            self.stale += 1
        waited = self.step - (self.trained.best or evaluation).step >= self.config.patience_steps
        self.done = self.step >= self.steps or (0 < self.config.patience <= self.stale and waited)

    @torch.no_grad()
    def _keep(self) -> None:
        for kept, parameter in zip(self.best_state, self.parameters):
            kept.copy_(parameter)

    @torch.no_grad()
    def restore_best(self) -> None:
        """Restore the best state, or the initial one if no evaluation succeeded."""
        for parameter, value in zip(self.parameters, self.best_state):
            parameter.copy_(value)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """All that is needed to resume the training: the tensors, and the rest as JSON values."""
        tensors = {f"parameter.{i}": parameter for i, parameter in enumerate(self.parameters)}
        tensors |= {f"best.{i}": value for i, value in enumerate(self.best_state)}
        tensors |= {
            f"optimiser.{name}": value
            for name, value in files.optimiser_tensors(self.optimiser).items()
        }
        tensors |= {"order": self.order, "generator": self.generator.get_state()}
        tensors |= {"losses": torch.stack(self.losses)} if self.losses else {}
        note = {
            "name": self.name,
            "step": self.step,
            "stale": self.stale,
            "done": self.done,
            "diverged": self.trained.diverged,
            "history": [vars(evaluation) for evaluation in self.trained.history],
            "best": vars(self.trained.best) if self.trained.best else None,
        }
        return tensors, note

    @torch.no_grad()
    def load_state(self, tensors: dict[str, torch.Tensor], note: dict[str, Any]) -> None:
        self.step, self.stale, self.done = note["step"], note["stale"], note["done"]
        best = Evaluation(**note["best"]) if note["best"] else None
        self.trained = TrainingHistory(
            [Evaluation(**evaluation) for evaluation in note["history"]], best, note["diverged"]
        )
        device = self.lm.device
        for i, parameter in enumerate(self.parameters):
            parameter.copy_(tensors[f"parameter.{i}"])
        if "best.0" in tensors:
            self.best_state = [tensors[f"best.{i}"].to(device) for i in range(len(self.parameters))]
        prefix = "optimiser."
        files.restore_optimiser(
            self.optimiser,
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)},
        )
        self.order = tensors["order"]
        self.generator.set_state(tensors["generator"])
        self.losses = list(tensors["losses"].to(device)) if "losses" in tensors else []


@dataclass(frozen=True)
class _Checkpoint:
    """The file from which a training is resumed.

    Attributes:
        identity: everything that determines the result of the training.
        at_end: also write the file when the training has ended, so that it is not repeated if a
            later stage of the run is interrupted.
    """

    file: pathlib.Path
    identity: dict[str, Any]
    at_end: bool

    def save(self, jobs: Sequence[PromptTraining]) -> None:
        tensors, notes = {"torch": torch.get_rng_state()}, []
        if (device := jobs[0].lm.device).type == "cuda":
            tensors["cuda"] = torch.cuda.get_rng_state(device)
        for number, job in enumerate(jobs):
            values, note = job.state()
            tensors |= {f"{number}.{name}": value for name, value in values.items()}
            notes.append(note)
        files.write_tensors(self.file, tensors, {"jobs": notes, "identity": self.identity})

    def restore(self, jobs: Sequence[PromptTraining]) -> None:
        tensors, note = files.read_noted(self.file)
        if not isinstance(note, dict) or "identity" not in note:
            raise StoreError(
                f"{self.file} belongs to another run, of an older ptune: start without resuming."
            )
        if changed := identity.differing(note["identity"], self.identity):
            raise StoreError(
                f"{self.file} belongs to another run, with another {', '.join(changed)}: go on "
                "with the same, or start without "
                f"resuming."
            )
        for number, (job, state) in enumerate(zip(jobs, note["jobs"])):
            prefix = f"{number}."
            job.load_state(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)},
                state,
            )
        torch.set_rng_state(tensors["torch"])
        if "cuda" in tensors and (device := jobs[0].lm.device).type == "cuda":
            torch.cuda.set_rng_state(tensors["cuda"], device)


def _optimiser(groups: list[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    if config.optimiser == "adafactor":  # as Prompt Tuning's: no scaling by the parameters' size
        return Adafactor(
            groups,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            scale_parameter=False,
            relative_step=False,
        )
    kind = torch.optim.Adam if config.optimiser == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)


def _run(
    model: PromptModel,
    jobs: Sequence[PromptTraining],
    config: TrainConfig,
    evaluate: Callable[[Sequence[PromptTraining]], None],
    checkpoint: _Checkpoint | None,
    label: str,
) -> None:
    saved = time.monotonic()
    done = sum(job.steps if job.done else job.step for job in jobs)
    with Progress(label, sum(job.steps for job in jobs), done) as progress, stoppable() as stopped:
        while active := [job for job in jobs if not job.done]:
            _step(model, active, config)
            progress.advance(len(active), loss=active[0].losses[-1])
            if due := [job for job in active if job.due]:
                evaluate(due)
                progress.advance(
                    sum(job.steps - job.step for job in due if job.done),
                    dev=max(_last(job) for job in due),
                )
            over = checkpoint is not None and checkpoint.at_end and all(job.done for job in jobs)
            if checkpoint and (over or stopped() or time.monotonic() - saved > config.save_seconds):
                checkpoint.save(jobs)
                saved = time.monotonic()
            if stopped():
                raise Interrupted(
                    f"Stopped; {checkpoint.file} holds all that was trained."
                    if checkpoint
                    else "Stopped; nothing was saved."
                )


def _step(model: PromptModel, jobs: Sequence[PromptTraining], config: TrainConfig) -> None:
    """One joint step: the LM runs once over a batch of every task's rows, and then each task's
    optimiser takes a step."""
    batches = [job.batch() for job in jobs]
    drawn: list[tuple[PromptTraining, Example, float]] = []
    sizes = []
    for part in range(config.accumulate):
        before = len(drawn)
        parts = [batch[part :: config.accumulate] for batch in batches]
        for job, batch, some in zip(jobs, batches, parts):
            drawn += [(job, example, (1 - config.auxiliary) / len(batch)) for example in some]
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
    model: PromptModel, jobs: Sequence[PromptTraining], metric: Metric, texts: TextMetric | None
) -> None:
    """Evaluate several tasks, with the dev rows of all of them in the same batches."""
    chosen, written = [job for job in jobs if not job.writes], [job for job in jobs if job.writes]
    scores = iter(model.scores([example for job in chosen for example in job.dev], finite=False))
    for job in chosen:
        dev_scores = [next(scores) for _ in job.dev]
        dev_loss = sum(
            float(-label_scores.log_softmax(0)[example.label or 0])
            for label_scores, example in zip(dev_scores, job.dev)
        ) / len(job.dev)
        job.evaluate(dev_loss, functools.partial(metric, dev_scores, job.dev))
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


def _rate(step: int, steps: int, steps_an_epoch: int, config: TrainConfig) -> float:
    """The learning rate of a step as a fraction of its peak."""
    rising = round(steps * config.warmup)
    if step < rising:
        return (step + 1) / rising
    if config.decay == "linear":
        return max(0.0, (steps - step) / max(1, steps - rising))
    return EXPONENTIAL ** (step // steps_an_epoch) if config.decay == "exponential" else 1.0


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
