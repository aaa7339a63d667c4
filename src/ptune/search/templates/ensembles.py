"""Several templates that answer together (LPAQA, Jiang et al. 2020, section 4): by the mean of
their probabilities, or log-linearly with weights that are learned on train rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ptune.model.prompt_model import Example, PromptModel, Row
from ptune.reports.search_results import CandidateScore
from ptune.search.common.searched_task import SearchedTask

STEPS = 100  # of L-BFGS at most
ROWS = 64  # that are answered by all templates at once


@dataclass(frozen=True)
class Answers:
    """What N templates answer to B rows.

    Attributes:
        log_probs: of the labels, which add up to one [N, B, C].
        examples: the rows as the first template asks them.
    """

    log_probs: torch.Tensor
    examples: Sequence[Example]

    @property
    def right(self) -> torch.Tensor:
        """The number of each row's right label [B]."""
        return torch.tensor([example.label for example in self.examples])


def answers_of(
    task: SearchedTask, candidates: Sequence[CandidateScore], rows: Sequence[Row]
) -> Answers:
    """Ask all templates for all rows, in the same batches."""
    model = PromptModel(task.lm, max_length=task.max_length)
    examples = [model.encode(task.add(model, one), rows) for one in candidates]
    scores = model.scores([example for of_one in examples for example in of_one])
    log_probs = torch.stack(scores).log_softmax(-1).view(len(candidates), len(rows), -1)
    return Answers(log_probs, examples[0])


def answered(
    task: SearchedTask,
    candidates: Sequence[CandidateScore],
    rows: Sequence[Row],
    weights: torch.Tensor | None,
) -> tuple[list[torch.Tensor], list[Example]]:
    """The scores of the labels [C] of each row by all templates together, and the rows as the first
    asks them.

    Args:
        weights: of the templates [N], for the log-linear mixture; None for the mean of their
            probabilities.
    """
    scores: list[torch.Tensor] = []
    examples: list[Example] = []
    for start in range(0, len(rows), ROWS):
        part = answers_of(task, candidates, rows[start : start + ROWS])
        mixed = mean(part.log_probs) if weights is None else weighted(part.log_probs, weights)
        scores += mixed
        examples += part.examples
    return scores, examples


def mean(log_probs: torch.Tensor) -> torch.Tensor:
    """The log of the templates' mean probabilities [B, C], from theirs [N, B, C]."""
    return log_probs.logsumexp(0) - torch.tensor(float(len(log_probs))).log()


def weighted(log_probs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The log probabilities of the log-linear mixture [B, C]: those of the templates [N, B, C],
    weighted [N], and normalised."""
    return torch.einsum("n,nbc->bc", weights.to(log_probs), log_probs).log_softmax(-1)


def learned_weights(log_probs: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The weights [N], which are positive and add up to one, with the largest likelihood of the
    right labels.

    Args:
        log_probs: of the labels by each template [N, B, C].
        right: the numbers of the right labels [B].
    """
    logits = torch.zeros(len(log_probs), dtype=torch.float64, requires_grad=True)
    values = log_probs.double()
    optimiser = torch.optim.LBFGS([logits], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        mixed = weighted(values, logits.softmax(0))
        value = -mixed[torch.arange(len(right)), right].mean()
        value.backward()
        return value

    optimiser.step(loss)
    return logits.detach().softmax(0).float()
