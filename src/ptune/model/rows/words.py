"""Rows in which each word has a label: tokenised word by word, in as many inputs as they need."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
from torch.nn.functional import cross_entropy

from ptune.answers.readers.reader import FillOutput, Reader
from ptune.answers.word_labels import WordLabels
from ptune.model.rows.examples import ScoredExample
from ptune.model.task import BoundTask, Row
from ptune.settings import PiecesOfWord
from ptune.template.encoding.encode import EncodedRow, RowEncoder
from ptune.template.encoding.units import Window, Words, encode_units, readers_of
from ptune.template.fields import filtered
from ptune.template.language import Field

if TYPE_CHECKING:
    from ptune.model.prompt_model import PromptModel


@dataclass(frozen=True, kw_only=True)
class WordsExample(ScoredExample):
    """A row with a label for each of its W words. Its loss is the mean over the tokens at which
    its words are read.

    Attributes:
        words: for each token that is read, in the order of ``fills``, the number of its word [A].
        count: how many words the row has, W.
        right: the numbers of the words' right labels [W]; none of a row without labels.
    """

    words: tuple[int, ...]
    count: int
    right: tuple[int, ...] = ()

    @classmethod
    def losses(
        cls,
        examples: Sequence[Self],
        outputs: Sequence[list[FillOutput]],
        task: BoundTask,
        reader: Reader,
    ) -> torch.Tensor:
        scores = reader(hidden_states(outputs))
        right = [example.right[word] for example in examples for word in example.words]
        labels = torch.tensor(right, device=scores.device)
        losses = cross_entropy(scores, labels, reduction="none")
        parts = losses.split([len(example.words) for example in examples])
        return torch.stack([part.mean() for part in parts])

    @classmethod
    def scores(
        cls,
        examples: Sequence[Self],
        outputs: Sequence[list[FillOutput]],
        task: BoundTask,
        reader: Reader,
    ) -> Sequence[torch.Tensor]:
        """The log probabilities of the labels of each word [W, C]: the mean over its tokens."""
        log_probs = reader(hidden_states(outputs)).log_softmax(-1).cpu()
        parts = log_probs.split([len(example.words) for example in examples])
        return [example.of_words(part) for example, part in zip(examples, parts)]

    def of_words(self, values: torch.Tensor) -> torch.Tensor:
        """The means over the tokens of each word [W, C], from the values at all tokens [A, C]."""
        words = torch.tensor(self.words)
        sums = values.new_zeros(self.count, values.shape[1]).index_add(0, words, values)
        return sums / words.bincount(minlength=self.count)[:, None]

    def loss_of_scores(self, scores: torch.Tensor) -> float:
        """Minus the mean log probability of the words' right labels, from the words' scores
        [W, C]."""
        return float(cross_entropy(scores, torch.tensor(self.right)))


def read_at(window: Window, positions: Sequence[int], layer: int | None) -> EncodedRow:
    """The input, whose hidden states are read at some positions and not its vocabulary scores."""
    return replace(
        window.row,
        answer_positions=tuple(positions),
        units=(),
        layer=layer,
        is_scored=False,
    )


def hidden_states(outputs: Sequence[list[FillOutput]]) -> torch.Tensor:
    """The hidden states at all tokens that are read [A, H]."""
    return torch.cat([fill.hidden for fills in outputs for fill in fills])


def words_example(
    model: "PromptModel", number: int, row: Row, *, labelled: bool, limit: int | None
) -> WordsExample:
    """A row of task ``number``, whose words have a label each.

    Args:
        labelled: the row holds the right labels.
        limit: the most tokens of an input.

    Raises:
        DataError, VerbalizerError, TemplateError: the row does not fit the task.
    """
    task, lm = model.tasks[number], model.lm
    labels = task.verbalizer
    assert isinstance(labels, WordLabels)
    field = next(
        part
        for part in task.template.parts
        if isinstance(part, Field) and part.name == labels.field
    )
    words = labels.words(row)
    right = labels.right(row, task.task.target) if labelled else ()
    texts = tuple(filtered(word, field.filters) for word in words)
    units = Words(texts=texts, joint=field.joint or "")
    keeps_fields = task.task.prefix.reads_rows
    encoder = RowEncoder(
        task.template, lm.tokens, lm.kind, start=lm.start, keeps_fields=keeps_fields
    )
    windows = encode_units(encoder, row, field, units=units, max_length=limit)
    readers = readers_of(
        [(window.first, window.first + len(window.row.units)) for window in windows],
        len(words),
        lm.kind,
    )
    fills, read_words = [], []
    for place, window in enumerate(windows):
        mine = [word for word, reader in enumerate(readers) if reader == place]
        fill, of_fill = _read_words(window, mine, labels.read_pieces(lm.kind), task.task.layer)
        if of_fill:
            fills.append(fill)
            read_words += of_fill
    return WordsExample(
        task=number,
        row=row,
        fills=tuple(fills),
        learn=tuple(fills) if labelled else (),
        bound=task.bound(row, lm.tokens, lm.kind),
        words=tuple(read_words),
        count=len(words),
        right=right,
    )


def _read_words(
    window: Window, words: Sequence[int], pieces: PiecesOfWord, layer: int | None
) -> tuple[EncodedRow, list[int]]:
    """The input, read at the tokens of some of its words, and the word of each token that is
    read."""
    positions: list[int] = []
    owners: list[int] = []
    for word in words:
        start, end = window.row.units[word - window.first]
        of_word = {"first": [start], "last": [end - 1], "all": list(range(start, end))}[pieces]
        positions += of_word
        owners += [word] * len(of_word)
    return read_at(window, positions, layer), owners
