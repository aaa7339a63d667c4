"""The training of what several prompts share, such as the table of ``encoders.Multitask``: its
gradient is the sum of those of all prompts that still train, and it has an optimiser of its own."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from ptune.base import files
from ptune.model.prompt_model import PromptModel
from ptune.settings import TrainConfig
from ptune.training.steps.optimisers import group, optimiser_of, rate_share, take_step


def shared_among(model: PromptModel, tasks: Iterable[int]) -> dict[int, list[nn.Parameter]]:
    """The parameters of each task's prompt that the prompts of other tasks have too."""
    prompts = {task: model.tasks[task].prompt for task in tasks}
    trained = {
        task: model.bank.parameters_of(prompt) if prompt >= 0 else []
        for task, prompt in prompts.items()
    }
    counts = Counter(id(parameter) for parameters in trained.values() for parameter in parameters)
    return {
        task: [parameter for parameter in parameters if counts[id(parameter)] > 1]
        for task, parameters in trained.items()
    }


class SharedTraining:
    """The optimiser of what some prompts share, which takes a step whenever one of them does, as
    the one does that trains the longest.

    Args:
        parameters: what is shared.
        steps, steps_an_epoch: for each of the prompts how many its training has.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        config: TrainConfig,
        *,
        steps: Sequence[int],
        steps_an_epoch: Sequence[int],
    ):
        self.parameters, self.config = list(parameters), config
        self.steps, self.steps_an_epoch = max(zip(steps, steps_an_epoch))
        self.optimiser = optimiser_of([group("learning_rate", self.parameters, config)], config)
        self.step = 0

    def update(self) -> None:
        """Take one step."""
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        share = rate_share(self.step, self.steps, self.steps_an_epoch, self.config)
        take_step(self.optimiser, share)
        self.step += 1

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """All that is needed to go on, beside the parameters, which the prompts' trainings keep:
        tensors, and the rest as JSON values."""
        return files.optimiser_tensors(self.optimiser), {"step": self.step}

    def load_state(self, tensors: dict[str, torch.Tensor], note: dict[str, Any]) -> None:
        """Go on from what ``state`` returned of the same training."""
        files.restore_optimiser(self.optimiser, tensors)
        self.step = note["step"]
