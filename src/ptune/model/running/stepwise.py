"""Answers that are read token by token: the likeliest open token of an answer is filled in next."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ptune.answers.readers.reader import Answer
from ptune.model.rows.encode_rows import encode_row
from ptune.model.rows.examples import Example, SpanExample
from ptune.model.running.forward import PromptVectors, run_rows
from ptune.template.language import EncodedRow

if TYPE_CHECKING:
    from ptune.model.prompt_model import PromptModel

Question = tuple[int, int, Answer]  # example, variant of its row, and the answer as far as it goes


@dataclass
class _Spelling:
    """A word that is being filled in: of which example and variant, and the tokens that stand
    already."""

    example: int
    variant: int
    word: int
    answer: Answer

    @property
    def question(self) -> Question:
        return self.example, self.variant, self.answer

    def fill_likeliest(self, ids: Sequence[int], log_probs: torch.Tensor) -> torch.Tensor:
        """Fill in the likeliest of the word's open tokens; return its log probability.

        Args:
            ids: the word's tokens [K].
            log_probs: of the vocabulary at each of them [K, V].
        """
        open_places = [place for place, token in enumerate(self.answer) if token is None]
        place = max(open_places, key=lambda place: float(log_probs[place, ids[place]]))
        self.answer = (*self.answer[:place], ids[place], *self.answer[place + 1 :])
        return log_probs[place, ids[place]]


def is_stepwise(model: "PromptModel", example: Example) -> bool:
    """Whether the example's label words are filled in one token after the other."""
    bound = example.labels
    return (
        bound.order == "most-probable-first"
        and model.tasks[example.task].task.reader.scores_words
        and any(len(ids) > 1 for ids in bound.ids)
    )


def stepwise_words(
    model: "PromptModel", examples: Sequence[Example], learned: PromptVectors, limit: int
) -> list[torch.Tensor]:
    """The words' log probabilities [variants, W] of each example, a word's likeliest token always
    filled in next.

    Args:
        limit: how many rows the LM runs at once.
    """
    totals, spellings = [], []
    for number, example in enumerate(examples):
        variants = len(model.tasks[example.task].variants(example.row))
        totals.append(torch.zeros(variants, len(example.labels.ids)))
        spellings += _spellings(number, example, variants)
    while spellings:
        questions = dict.fromkeys(spelling.question for spelling in spellings)
        log_probs = _answered(model, examples, list(questions), learned=learned, limit=limit)
        for spelling in spellings:
            ids = examples[spelling.example].labels.ids[spelling.word]
            gain = spelling.fill_likeliest(ids, log_probs[spelling.question])
            totals[spelling.example][spelling.variant, spelling.word] += gain
        spellings = [spelling for spelling in spellings if None in spelling.answer]
    return [example.labels.compared(words) for example, words in zip(examples, totals)]


def _spellings(number: int, example: Example, variants: int) -> list[_Spelling]:
    """All words of an example, in each variant of its row, with nothing filled in yet."""
    return [
        _Spelling(number, variant, word, (None,) * len(ids))
        for variant in range(variants)
        for word, ids in enumerate(example.labels.ids)
    ]


def _answered(
    model: "PromptModel",
    examples: Sequence[Example],
    questions: Sequence[Question],
    *,
    learned: PromptVectors,
    limit: int,
) -> dict[Question, torch.Tensor]:
    """The log probabilities of the vocabulary [K, V] at the tokens of each question's answer."""
    rows = []
    for number, variant, answer in questions:
        task = model.tasks[examples[number].task]
        template, row = task.variants(examples[number].row)[variant]
        encoded = encode_row(model, task, row, answer=answer, template=template)
        rows.append((examples[number].task, encoded))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][1].ids))
    log_probs: dict[Question, torch.Tensor] = {}
    for batch in _chunks(order, limit):
        outputs = run_rows(model, [rows[i] for i in batch], learned)
        log_probs |= {questions[i]: output.log_probs.cpu() for i, output in zip(batch, outputs)}
    return log_probs


def spelt_scores(
    model: "PromptModel", examples: Sequence[SpanExample], learned: PromptVectors, limit: int
) -> list[torch.Tensor]:
    """The label scores [2] of examples whose answer spells a text of the row (``Span``), the
    likeliest token always filled in next.

    Args:
        limit: how many rows the LM runs at once.
    """
    answers = [example.span.start(example.bound) for example in examples]
    order = sorted(range(len(examples)), key=lambda i: examples[i].length)
    while open_numbers := [i for i in order if None in answers[i]]:
        for batch in _chunks(open_numbers, limit):
            rows = [_question_row(model, examples[i], answers[i]) for i in batch]
            for i, output in zip(batch, run_rows(model, rows, learned)):
                answers[i] = examples[i].span.spell(examples[i].bound, answers[i], output.log_probs)
    return [
        example.span.scores(example.row, answer, model.lm.tokens)
        for example, answer in zip(examples, answers)
    ]


def _question_row(model: "PromptModel", example: Example, answer: Answer) -> tuple[int, EncodedRow]:
    """The number of the example's task, and its row with the answer as far as it is spelt."""
    return example.task, encode_row(model, model.tasks[example.task], example.row, answer=answer)


def _chunks(numbers: Sequence[int], limit: int) -> Iterable[Sequence[int]]:
    """The numbers in batches of ``limit`` at most."""
    return (numbers[start : start + limit] for start in range(0, len(numbers), limit))
