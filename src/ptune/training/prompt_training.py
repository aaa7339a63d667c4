"""The training of one task's prompt: its rows, its parameters and optimiser, its evaluations, and
its best state."""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from ptune.base import files
from ptune.errors import ConfigError, DataError
from ptune.model.prompt_model import Example, PromptModel, Row
from ptune.model.rows.examples import TextExample
from ptune.reports.trial_results import Evaluation
from ptune.settings import TrainConfig
from ptune.template.language import EncodedRow
from ptune.training.steps import class_weights, optimisers
from ptune.training.steps.shared_training import SharedTraining

Tune = Literal["prompt", "head", "lm", "both"]
Metric = Callable[[Sequence[torch.Tensor], Sequence[Example]], float]
TextMetric = Callable[[PromptModel, int, Sequence[Row]], float]
Pruner = Callable[[int, float], bool]
"""Whether a training ends at a step, by the best dev score that it had so far."""
FALLING = 0.98  # a loss below this share of another one is lower


@dataclass
class TrainingHistory:
    """The evaluations of one task's training and how it ended."""

    history: list[Evaluation] = field(default_factory=list)
    best: Evaluation | None = None
    diverged: bool = False
    pruned: bool = False
    """Whether others did better at the step at which it was ended."""
    planned: int = 0
    """The number of steps that the training was configured for."""
    step: int = 0
    """The number of steps that were taken."""
    answer_tokens: dict[str, float] = field(default_factory=dict)
    """How many tokens a right text has on average (train, dev), where the answer is text: the
    losses are sums over these tokens."""

    @property
    def stopped(self) -> bool:
        """Whether early stopping ended the training."""
        return self.step < self.planned and not self.diverged

    @property
    def still_falling(self) -> bool:
        """Whether the training loss decreased further after the best evaluation."""
        return self.best is not None and self.history[-1].loss < FALLING * self.best.loss


def reached(best: Evaluation | None, config: TrainConfig) -> bool:
    """Whether the best dev score is at the threshold at which a training stops."""
    if best is None or config.stopping_threshold is None:
        return False
    return best.dev >= config.stopping_threshold


def check_splits(name: str, rows: Sequence[Row], dev: Sequence[Row]) -> None:
    """Refuse a training without rows to learn from, or without rows that choose its best state.

    Raises:
        DataError: there are none.
    """
    if not rows or not dev:
        raise DataError(
            f"{name} has {len(rows)} training rows and {len(dev)} dev rows; it needs some of both."
        )


class PromptTraining:
    """The training of one task: its rows, parameters, optimiser and progress.

    Attributes:
        parameters: what its own optimiser trains.
        shared: what of its prompt other prompts have too; it is trained for all of them at once.
        shared_training: trains that, where there is some.
        metric, texts: what gives its dev score, in place of what does by default (``fit``).
        pruner: what ends it early, by how others did.
    """

    def __init__(
        self,
        model: PromptModel,
        task: int,
        rows: Sequence[Row],
        *,
        dev: Sequence[Row],
        config: TrainConfig,
        tune: Tune,
        unlabeled: Sequence[Row],
        shared: Sequence[nn.Parameter] = (),
    ):
        self.name, self.config, self.task, self.lm = (
            model.tasks[task].task.name,
            config,
            task,
            model.lm,
        )
        self._take_rows(model, rows, dev)
        self.unlabeled = unlabeled
        self.label_weights = class_weights.of_task(
            model.tasks[task].task, self.rows, config.class_weights
        )
        self.shared = list(shared)
        self.shared_training: SharedTraining | None = None
        groups = _parameter_groups(model, task, config, tune, shared=self.shared)
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.optimiser = optimisers.optimiser_of(groups, config)
        seed = config.seed * 1_000_003 + zlib.crc32(self.name.encode())
        self.generator = torch.Generator().manual_seed(seed)
        self.steps_an_epoch = math.ceil(len(self.rows) / config.batch_size)
        self.steps = config.planned_steps(self.steps_an_epoch)
        self.order = torch.zeros(0, dtype=torch.long)
        self.step, self.stale, self.done = 0, 0, False
        self.losses: list[torch.Tensor] = []
        self.is_watched = False
        self.metric: Metric | None = None
        self.texts: TextMetric | None = None
        self.pruner: Pruner | None = None
        self.gradient_norm: torch.Tensor | None = None
        self.drawn: list[Example] = []
        self.best_state = [parameter.detach().clone() for parameter in self.all_parameters]
        self.trained = TrainingHistory()
        if tune != "prompt":  # dropout of an LM that is tuned
            torch.manual_seed(seed)

    @property
    def all_parameters(self) -> list[nn.Parameter]:
        """What makes its prompt: its own parameters, and those that others share."""
        return [*self.parameters, *self.shared]

    def _take_rows(self, model: PromptModel, rows: Sequence[Row], dev: Sequence[Row]) -> None:
        """Tokenise the rows."""
        check_splits(self.name, rows, dev)
        self.rows = [example for example in model.encode(self.task, rows) if example.learn]
        self.dev = model.encode(self.task, dev)
        self.writes, self.dev_rows = model.tasks[self.task].verbalizer is None, dev
        if not self.rows:
            raise DataError(
                f"None of the {len(rows)} training rows of {self.name} is true, and a span is "
                "learned from true ones alone."
            )

    def batch(self) -> list[Example]:
        """The rows of the next step."""
        position = self.step % self.steps_an_epoch
        if position == 0:
            self.order = torch.randperm(len(self.rows), generator=self.generator)
        size = self.config.batch_size
        numbers = self.order[position * size : (position + 1) * size].tolist()
        self.drawn = [self.rows[i] for i in numbers]
        return self.drawn

    def weight(self, example: Example) -> float:
        """How much a training row counts in the loss, by its label."""
        return self.label_weights[example.label or 0] if self.label_weights else 1.0

    @property
    def answer_tokens(self) -> dict[str, float]:
        """How many tokens a right text has on average (train, dev); nothing for labels."""
        lengths = {
            split: [len(example.answer) for example in examples if isinstance(example, TextExample)]
            for split, examples in (("train", self.rows), ("dev", self.dev))
        }
        return {split: sum(counts) / len(counts) for split, counts in lengths.items() if counts}

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
        """Take one step of this task's optimiser. Where a log is told of it, the norm of the
        gradient before clipping is noted."""
        if self.config.clip:
            self.gradient_norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        elif self.is_watched:
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            self.gradient_norm = nn.utils.get_total_norm(gradients)
        share = optimisers.rate_share(self.step, self.steps, self.steps_an_epoch, self.config)
        optimisers.take_step(self.optimiser, share)
        self.step += 1

    @property
    def step_tokens(self) -> int:
        """How many tokens the rows of the last step have."""
        return sum(len(row.ids) for example in self.drawn for row in example.learn)

    @property
    def step_figures(self) -> dict[str, Any]:
        """What a log says of the last step; tensors, where fetching them would wait."""
        rates = {group["rate_name"]: group["lr"] for group in self.optimiser.param_groups}
        return {"loss": self.losses[-1], **rates, "gradient_norm": self.gradient_norm}

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
        evaluations, has reached ``stopping_threshold``, or is pruned."""
        loss = float(torch.stack(self.losses).mean())
        self.losses = []
        if not (math.isfinite(loss) and math.isfinite(dev_loss) and math.isfinite(dev := score())):
            self.trained.diverged = self.done = True
            return
        evaluation = Evaluation(
            step=self.step,
            epoch=self.step / self.steps_an_epoch,
            loss=loss,
            dev_loss=dev_loss,
            dev=dev,
        )
        self.trained.history.append(evaluation)
        best = self.trained.best
        if best is None or (evaluation.dev, -evaluation.dev_loss) > (best.dev, -best.dev_loss):
            best = self.trained.best = evaluation
            self.stale = 0
            self._keep()
        else:
            self.stale += 1
        waited = self.step - best.step >= self.config.patience_steps
        out_of_patience = 0 < self.config.patience <= self.stale and waited
        self.done = self.step >= self.steps or out_of_patience or reached(best, self.config)
        if not self.done and self.pruner and self.pruner(self.step, best.dev):
            self.trained.pruned = self.done = True

    @torch.no_grad()
    def _keep(self) -> None:
        for kept, parameter in zip(self.best_state, self.all_parameters):
            kept.copy_(parameter)

    @torch.no_grad()
    def restore_best(self) -> None:
        """Restore the best state, or the initial one if no evaluation succeeded."""
        for parameter, value in zip(self.all_parameters, self.best_state):
            parameter.copy_(value)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """All that is needed to resume the training: the tensors, and the rest as JSON values."""
        tensors = {f"parameter.{i}": value for i, value in enumerate(self.all_parameters)}
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
            "pruned": self.trained.pruned,
            "history": [vars(evaluation) for evaluation in self.trained.history],
            "best": vars(self.trained.best) if self.trained.best else None,
        }
        return tensors, note

    @torch.no_grad()
    def load_state(self, tensors: dict[str, torch.Tensor], note: dict[str, Any]) -> None:
        """Go on from what ``state`` returned of the same training."""
        self.step, self.stale, self.done = note["step"], note["stale"], note["done"]
        best = Evaluation(**note["best"]) if note["best"] else None
        self.trained = TrainingHistory(
            history=[Evaluation(**evaluation) for evaluation in note["history"]],
            best=best,
            diverged=note["diverged"],
            pruned=note.get("pruned", False),
        )
        device = self.lm.device
        for i, parameter in enumerate(self.all_parameters):
            parameter.copy_(tensors[f"parameter.{i}"])
        if "best.0" in tensors:
            self.best_state = [tensors[f"best.{i}"].to(device) for i in range(len(self.best_state))]
        prefix = "optimiser."
        files.restore_optimiser(
            self.optimiser,
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)},
        )
        self.order = tensors["order"]
        self.generator.set_state(tensors["generator"])
        self.losses = list(tensors["losses"].to(device)) if "losses" in tensors else []


def _parameter_groups(
    model: PromptModel,
    task: int,
    config: TrainConfig,
    tune: Tune,
    *,
    shared: Sequence[nn.Parameter],
) -> list[dict[str, Any]]:
    """What is trained, with the peak of its learning rate: the prompt, or the reader where the
    prompt is not trained, and the LM.

    Args:
        shared: what of the prompt is trained for several at once.

    Raises:
        ConfigError: there is no prompt to train.
    """
    prompt = _prompt_parameters(model, task) if tune in ("prompt", "both") else []
    if not prompt:
        reader = model.reader(task).parameters()
        prompt = [parameter for parameter in reader if parameter.requires_grad]
    beside = {id(parameter) for parameter in shared}
    prompt = [parameter for parameter in prompt if id(parameter) not in beside]
    groups = [optimisers.group("learning_rate", prompt, config)] if prompt else []
    if tune != "prompt":
        of_lm = [parameter for parameter in model.lm.model.parameters() if parameter.requires_grad]
        groups.append(optimisers.group("lm_learning_rate", of_lm, config))
    return groups


def _prompt_parameters(model: PromptModel, task: int) -> list[nn.Parameter]:
    """The parameters of a task's prompt.

    Raises:
        ConfigError: there are none.
    """
    bound = model.tasks[task]
    if parameters := model.bank.parameters_of(bound.prompt) if bound.prompt >= 0 else []:
        return parameters
    if model.is_baked(task):
        raise ConfigError(
            f"The prompt of {bound.task.name} was loaded to answer, and not to be trained: load "
            "it with trainable=True."
        )
    raise ConfigError(
        f"The template of {bound.task.name} has no soft tokens and no prefix, so there is no "
        "prompt to train."
    )
