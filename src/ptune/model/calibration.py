"""What an LM prefers before it has read a row, taken off the scores of its label words."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.answers.label_words import Verbalizer
from ptune.errors import ConfigError, VerbalizerError
from ptune.model.prompt_model import PromptModel, Row

Calibration = Literal["none", "contextual", "prior"]
CONTENT_FREE = ("N/A", "[MASK]", "nothing")


def calibrate(model: PromptModel, task: int, how: Calibration, rows: Sequence[Row] = ()) -> None:
    """Set what is taken off the log probability of each word of a task.

    Args:
        how: "contextual": the words' probability for rows that say nothing, every field of them
            "N/A", "[MASK]" or "nothing" (contextual calibration, Zhao et al. 2021, section 4; for
            its empty text we take a word, since an empty row may be no text for an LM); "prior":
            their mean probability over ``rows`` (KPT, section 3.3).

    Raises:
        ConfigError: the task has no words of its own, or a domain, or there are no rows for a
            prior.
    """
    fitted = model.tasks[task]
    if how == "none":
        return
    if not isinstance(fitted.verbalizer, BoundVerbalizer) or not fitted.task.reader.scores_words:
        raise ConfigError(
            f"{fitted.task.name} has no label words whose scores could be calibrated."
        )
    if fitted.domain:
        raise ConfigError(
            f"{fitted.task.name} takes off what its domain's question gets; calibrating too would "
            "take the LM's preference off twice."
        )
    if how == "prior" and not rows:
        raise ConfigError(f"{fitted.task.name} has no rows over which a prior could be taken.")
    empty = [
        dict.fromkeys((*fitted.template.fields, *(fitted.task.swap or ())), text)
        for text in CONTENT_FREE
    ]
    words = model.word_scores(rows if how == "prior" else empty, task)
    shares = words if how == "prior" else words.log_softmax(1)
    model.tasks[task] = replace(
        fitted, offset=tuple((shares.logsumexp(0) - math.log(len(shares))).tolist())
    )


def refine(model: PromptModel, task: int, rows: Sequence[Row], keep: float = 0.5) -> Verbalizer:
    """Thin out the words of a knowledgeable verbalizer (KPT, sections 3.2 and 3.3): those that the
    LM hardly ever says for ``rows``, and those that say more about another label than about their
    own.

    Args:
        keep: the share of all words, by their mean probability over the rows, that stay.

    Returns:
        The verbalizer of the words that stay.

    Raises:
        ConfigError: the task has no words that are read, or there are no rows.
        VerbalizerError: a label is left with no word.
    """
    fitted = model.tasks[task]
    verbalizer = fitted.task.verbalizer
    if (
        not isinstance(verbalizer, Verbalizer)
        or not isinstance(fitted.verbalizer, BoundVerbalizer)
        or not fitted.task.reader.scores_words
        or not rows
    ):
        raise ConfigError(
            f"{fitted.task.name} has no label words, or no rows, to thin them out by."
        )
    words = model.word_scores(rows, task)
    prior = words.logsumexp(0)
    frequent = prior >= prior.sort(descending=True).values[max(0, round(keep * len(prior)) - 1)]
    vectors = torch.nn.functional.normalize(
        (words - prior).exp(), dim=0
    )  # how a word's probability moves over the rows
    owners = torch.tensor(fitted.verbalizer.owners)
    centres = torch.stack(
        [
            vectors[:, (owners == label) & frequent].mean(1)
            if ((owners == label) & frequent).any()
            else torch.zeros(len(rows))
            for label in range(len(verbalizer.labels))
        ],
        1,
    )
    near = vectors.T @ torch.nn.functional.normalize(centres, dim=0)  # [W, C]
    nearness = near[torch.arange(len(owners)), owners]
    others = (near.sum(1) - nearness) / (len(verbalizer.labels) - 1)
    stays = (frequent & (nearness >= others)).tolist()
    flat = [word for words_of_label in verbalizer.words for word in words_of_label]
    kept = {
        label: [
            word
            for word, owner, stay in zip(flat, fitted.verbalizer.owners, stays)
            if owner == number and stay
        ]
        for number, label in enumerate(verbalizer.labels)
    }
    if empty := next((label for label, words_left in kept.items() if not words_left), None):
        raise VerbalizerError(
            f"The label {empty!r} is left with no word: keep more than {keep:.0%} of the words, "
            "or give it words that are its own."
        )
    return Verbalizer.from_words(kept, verbalizer.aggregate, verbalizer.order, verbalizer.length)
