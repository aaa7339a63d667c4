"""The labels of a row's words: the likeliest that their scheme allows, and the entities in them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ptune.answers.word_labels import WordLabels
from ptune.errors import ConfigError
from ptune.metrics import entities
from ptune.model.rows.examples import Example
from ptune.model.rows.words import WordsExample

if TYPE_CHECKING:
    from ptune.model.prompt_model import PromptModel


def labels_of(model: "PromptModel", task: int) -> WordLabels:
    """The labels that the words of a task's rows have.

    Raises:
        ConfigError: the task labels no words.
    """
    labels = model.tasks[task].verbalizer
    if not isinstance(labels, WordLabels):
        raise ConfigError(f"{model.tasks[task].task.name} labels no words.")
    return labels


def answer(
    model: "PromptModel", examples: Sequence[Example], scores: Sequence[torch.Tensor]
) -> dict[str, Any]:
    """The answer to a row whose words have a label each, by all tasks that answer it.

    Args:
        examples: the row, as each of the tasks has it.
        scores: the log probabilities of its words' labels [W, C], of each.

    Returns:
        "prediction", a label for each word; "scores", the probability of each of those labels; and
        "entities", where the labels have kinds: the kind, the first word, the one behind the last
        (from 0), and the words.

    Raises:
        ConfigError: the tasks have other labels.
    """
    labels = labels_of(model, examples[0].task)
    if any(labels_of(model, example.task).labels != labels.labels for example in examples):
        raise ConfigError(
            f"{model.tasks[examples[0].task].task.name} and a task that answers with it have other "
            "labels: they cannot answer together. Name the task of each row."
        )
    shares = torch.stack([values.softmax(-1) for values in scores]).mean(0)
    numbers = labels.best(shares.log())
    names = labels.names(numbers)
    answered: dict[str, Any] = {
        "prediction": names,
        "scores": shares[torch.arange(len(numbers)), numbers].tolist(),
    }
    if labels.rules != "plain":
        words = labels.words(examples[0].row)
        answered["entities"] = [
            {
                "kind": entity.kind,
                "start": entity.start,
                "end": entity.end,
                "words": list(words[entity.start : entity.end]),
            }
            for entity in entities.entities(names)
        ]
    return answered


def figure_on_dev(
    labels: WordLabels, scores: Sequence[torch.Tensor], examples: Sequence[Example]
) -> float:
    """The F1 of all entities, or of labels without kinds the share of words that are right.

    Args:
        scores: of the labels of each row's words [W, C].
    """
    right = [labels.names(row.right) for row in examples if isinstance(row, WordsExample)]
    said = [labels.names(labels.best(values)) for values in scores]
    if labels.rules == "plain":
        return entities.word_accuracy(right, said)
    return entities.entity_f1(right, said)
