"""Answers where single tokens of a row are read: the likeliest labels of its words that their
scheme allows, with the entities in them, or the likeliest part of a text."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import torch

from ptune.answers.extraction import Extraction
from ptune.answers.word_labels import WordLabels
from ptune.errors import ConfigError
from ptune.metrics import answers as answer_metrics
from ptune.metrics import entities
from ptune.model.rows.examples import Example, Shortening
from ptune.model.rows.passages import PassageExample
from ptune.model.rows.words import WordsExample, hidden_states
from ptune.model.running.forward import batches_of, fill_counts, run_examples
from ptune.model.task import Row

if TYPE_CHECKING:
    from ptune.model.prompt_model import PromptModel

SHOWN = 5  # parts of a text whose probability is given


def labels_of(model: "PromptModel", task: int) -> WordLabels:
    """The labels that the words of a task's rows have.

    Raises:
        ConfigError: the task labels no words.
    """
    labels = model.tasks[task].verbalizer
    if not isinstance(labels, WordLabels):
        raise ConfigError(f"{model.tasks[task].task.name} labels no words.")
    return labels


def predictions(
    model: "PromptModel", rows: Sequence[Row], shortening: Shortening | None = None
) -> list[Any]:
    """The answer to each row, by the prompt that takes it, or by all of an ensemble.

    Args:
        shortening: counts the rows that are shortened.

    Raises:
        DataError, TemplateError, VerbalizerError: a row does not fit; the message gives its number.
    """
    encoded = [model.encode_for(row, number) for number, row in enumerate(rows, 1)]
    if shortening is not None:
        for examples in encoded:
            shortening.count(examples)
    scores = iter(model.scores([example for examples in encoded for example in examples]))
    return [
        model.answer(examples, [next(scores) for _ in examples])["prediction"]
        for examples in encoded
    ]


@torch.no_grad()
def word_vectors(model: "PromptModel", rows: Sequence[Row]) -> list[torch.Tensor]:
    """The hidden states by which the first task reads the words of each row [W, H], of a word that
    is read at several tokens their mean; on the CPU.

    Raises:
        DataError, TemplateError: a row does not fit; the message gives its number.
    """
    examples = [row for row in model.encode(0, rows, labelled=False) if is_words(row)]
    order = sorted(range(len(examples)), key=lambda number: examples[number].length)
    vectors: dict[int, torch.Tensor] = {}
    with model.evaluating():
        for batch in batches_of(order, fill_counts(examples), model.evaluation_rows):
            outputs = run_examples(model, [examples[number] for number in batch])
            for number, of_row in zip(batch, outputs):
                hidden = hidden_states([of_row]).float().cpu()
                vectors[number] = examples[number].of_words(hidden)
    return [vectors[number] for number in range(len(rows))]


def is_words(example: Example) -> TypeGuard[WordsExample]:
    """Whether each word of a row has a label."""
    return isinstance(example, WordsExample)


def words_answer(
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


def extraction_of(model: "PromptModel", task: int) -> Extraction:
    """In which text a task's answers stand.

    Raises:
        ConfigError: they are no parts of a text.
    """
    extraction = model.tasks[task].verbalizer
    if not isinstance(extraction, Extraction):
        raise ConfigError(f"The answers of {model.tasks[task].task.name} are no parts of a text.")
    return extraction


def passage_answer(
    model: "PromptModel", examples: Sequence[Example], scores: Sequence[torch.Tensor]
) -> dict[str, Any]:
    """The answer to a row that is a part of one of its texts, by all tasks that answer it.

    Args:
        examples: the row, as each of the tasks has it.
        scores: the log probabilities of beginning and ending at each token, of each.

    Returns:
        "prediction", the likeliest part, empty where there is no answer; "scores", the probability
        of some parts, the best first; "start" and "end", its first character and its end.

    Raises:
        ConfigError: the tasks read other tokens.
    """
    first = examples[0]
    assert isinstance(first, PassageExample)
    if any(len(values) != len(scores[0]) for values in scores):
        raise ConfigError(
            f"{model.tasks[first.task].task.name} and a task that answers with it read other "
            "tokens: they cannot answer together. Name the task of each row."
        )
    extraction = extraction_of(model, first.task)
    text = extraction.text(first.row)
    shares = torch.stack([values.exp() for values in scores]).mean(0)
    parts: dict[str, tuple[int, int, float]] = {}
    for start, end, log_prob in extraction.best(shares.log(), SHOWN):
        begin, stop = first.text_of(text, start, end)
        parts.setdefault(text[begin:stop], (begin, stop, math.exp(log_prob)))
    prediction, (begin, stop, _) = next(iter(parts.items()))
    return {
        "prediction": prediction,
        "scores": {part: share for part, (_, _, share) in parts.items()},
        "start": begin,
        "end": stop,
    }


def figure_on_dev(
    answers: WordLabels | Extraction, scores: Sequence[torch.Tensor], examples: Sequence[Example]
) -> float:
    """The F1 of all entities, of labels without kinds the share of words that are right, or of
    parts of texts the F1 of their words.

    Args:
        scores: of the labels of each row's words [W, C], or of the ends of its answer [T, 2].
    """
    if isinstance(answers, Extraction):
        return _f1_of_parts(answers, scores, examples)
    labels = answers
    right = [labels.names(row.right) for row in examples if isinstance(row, WordsExample)]
    predicted = [labels.names(labels.best(values)) for values in scores]
    if labels.rules == "plain":
        return entities.word_accuracy(right, predicted)
    return entities.entity_f1(right, predicted)


def _f1_of_parts(
    extraction: Extraction, scores: Sequence[torch.Tensor], examples: Sequence[Example]
) -> float:
    """The mean F1 of the words of answers and of the nearest right answer."""
    right, predicted = [], []
    for example, values in zip(examples, scores):
        assert isinstance(example, PassageExample)
        text = extraction.text(example.row)
        first, last, _ = extraction.best(values)[0]
        begin, end = example.text_of(text, first, last)
        predicted.append(text[begin:end])
        there = [ends for ends in example.right if ends[0] < len(example.spans)]
        spans = [example.text_of(text, *ends) for ends in there]
        right.append([text[begin:end] for begin, end in spans])
    values_of_rows = answer_metrics.of_rows("token-f1", right, predicted)
    return sum(values_of_rows) / len(values_of_rows)
