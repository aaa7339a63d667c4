"""Rows whose answer is a part of one of their texts: all tokens of that text are read, in as many
inputs as they need."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch

from ptune.answers.extraction import Extraction, tokens_of
from ptune.answers.readers.reader import FillOutput, Reader
from ptune.model.rows.examples import ScoredExample
from ptune.model.rows.words import hidden_states, read_at
from ptune.model.task import BoundTask, Row
from ptune.template.encoding.encode import RowEncoder
from ptune.template.encoding.units import Passage, encode_units, readers_of
from ptune.template.language import Field

if TYPE_CHECKING:
    from ptune.model.prompt_model import PromptModel


@dataclass(frozen=True, kw_only=True)
class PassageExample(ScoredExample):
    """A row whose answer is a part of a text of T tokens. Where the answer begins is compared over
    all tokens of the text, whatever input they stand in, and where it ends likewise; its loss is
    the mean of both.

    Attributes:
        tokens: for each place that is read, in the order of ``fills``, the number of its token; T
            for the place that says whether there is no answer.
        spans: the first character and the end of each token [T].
        right: the first and the last token of each right answer; (T, T) for none.
    """

    tokens: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    right: tuple[tuple[int, int], ...] = ()

    @classmethod
    def log_probs(
        cls, examples: Sequence[Self], outputs: Sequence[list[FillOutput]], reader: Reader
    ) -> list[torch.Tensor]:
        """The log probabilities that the answer begins, and ends, at each token [T, 2], or
        [T + 1, 2], in the order of the tokens."""
        scores = reader(hidden_states(outputs))
        parts = scores.split([len(example.tokens) for example in examples])
        order = [torch.tensor(example.tokens).argsort().to(scores.device) for example in examples]
        return [part[places].log_softmax(0) for part, places in zip(parts, order)]

    @classmethod
    def losses(
        cls,
        examples: Sequence[Self],
        outputs: Sequence[list[FillOutput]],
        task: BoundTask,
        reader: Reader,
    ) -> torch.Tensor:
        by_row = cls.log_probs(examples, outputs, reader)
        return torch.stack([row.loss_of(values) for row, values in zip(examples, by_row)])

    def loss_of(self, log_probs: torch.Tensor) -> torch.Tensor:
        """Minus the mean log probability of the first right answer's ends."""
        first, last = self.right[0]
        return -(log_probs[first, 0] + log_probs[last, 1]) / 2

    @classmethod
    def scores(
        cls,
        examples: Sequence[Self],
        outputs: Sequence[list[FillOutput]],
        task: BoundTask,
        reader: Reader,
    ) -> Sequence[torch.Tensor]:
        """The log probabilities of beginning and ending at each token (``log_probs``)."""
        return [values.cpu() for values in cls.log_probs(examples, outputs, reader)]

    def loss_of_scores(self, scores: torch.Tensor) -> float:
        """Minus the mean log probability of the right ends, from those at all tokens."""
        return float(self.loss_of(scores))

    def text_of(self, text: str, first: int, last: int) -> tuple[int, int]:
        """The first character and the end of some tokens of the text, without white space around;
        (0, 0) for no answer."""
        if first < 0:
            return 0, 0
        begin, end = self.spans[first][0], self.spans[last][1]
        part = text[begin:end]
        begin += len(part) - len(part.lstrip())
        return begin, max(begin, end - (len(part) - len(part.rstrip())))


def passage_example(
    model: "PromptModel", number: int, row: Row, *, labelled: bool, limit: int | None
) -> PassageExample:
    """A row of task ``number``, whose answer is a part of one of its texts.

    Args:
        labelled: the row holds the right answers.
        limit: the most tokens of an input.

    Raises:
        DataError, TemplateError: the row does not fit the task.
    """
    task, lm = model.tasks[number], model.lm
    extraction = task.verbalizer
    assert isinstance(extraction, Extraction)
    text = extraction.text(row)
    keeps_fields = task.task.prefix.reads_rows
    encoder = RowEncoder(
        task.template, lm.tokens, lm.kind, start=lm.start, keeps_fields=keeps_fields
    )
    field = next(
        part
        for part in task.template.parts
        if isinstance(part, Field) and part.name == extraction.field
    )
    is_in_chat = task.template.is_chat
    passage = Passage(text=text, lead=encoder.lead(row, field), is_in_chat=is_in_chat)
    spans = tuple(passage.spans(lm.tokens))
    windows = encode_units(encoder, row, field, units=passage, max_length=limit)
    bounds = [(window.first, window.first + len(window.row.units)) for window in windows]
    readers = readers_of(bounds, len(spans), lm.kind)
    without = (0 if lm.kind == "masked" else len(windows) - 1) if extraction.no_answer else -1
    fills, tokens = [], []
    for place, window in enumerate(windows):
        mine = [token for token, reader in enumerate(readers) if reader == place]
        positions = [window.row.units[token - window.first][0] for token in mine]
        if place == without:
            mine.append(len(spans))
            positions.append(0 if lm.kind == "masked" else len(window.row.ids) - 1)
        if mine:
            fills.append(read_at(window, positions, task.task.layer))
            tokens += mine
    right = _right(extraction, row, task.task.target, spans) if labelled else ()
    return PassageExample(
        task=number,
        row=row,
        fills=tuple(fills),
        learn=tuple(fills) if labelled else (),
        bound=task.bound(row, lm.tokens, lm.kind),
        tokens=tuple(tokens),
        spans=spans,
        right=right,
    )


def _right(
    extraction: Extraction, row: Row, target: str, spans: Sequence[tuple[int, int]]
) -> tuple[tuple[int, int], ...]:
    """The first and the last token of each right answer; of none the place that says so."""
    ends = extraction.right(row, target)
    return tuple(tokens_of(spans, begin, end) for begin, end in ends) or ((len(spans), len(spans)),)
