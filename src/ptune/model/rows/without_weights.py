"""Rows encoded as a training encodes them, before the weights of its LM are loaded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

from ptune.lm.source.reading import Reading
from ptune.model.rows.encode_rows import encode_rows
from ptune.model.rows.examples import Example
from ptune.model.task import BoundTask, Row
from ptune.template.language import Kind
from ptune.template.tokenizer import Tokens

if TYPE_CHECKING:
    from ptune.model.prompt_model import PromptModel


@dataclass(frozen=True)
class _WithoutWeights:
    """What the encoding of rows asks of a model and of its LM. Which tokens start and end a text is
    nothing to how many there are."""

    reading: Reading
    tasks: list[BoundTask]
    start: int = 0
    end: int = 0

    @property
    def lm(self) -> Self:
        return self

    @property
    def tokens(self) -> Tokens:
        return self.reading.tokens

    @property
    def kind(self) -> Kind:
        return self.reading.kind

    @property
    def max_length(self) -> int | None:
        return self.reading.limit


def examples_without_weights(
    task: BoundTask, reading: Reading, rows: Sequence[Row], labelled: bool = True
) -> Iterator[Example]:
    """The examples of rows; see ``PromptModel.encode``. What they hold of an end of a text, and of
    the start of a decoder, is a place for it.

    Raises:
        PtuneError: a row does not fit the task.
    """
    model = cast("PromptModel", _WithoutWeights(reading, [task]))
    return encode_rows(model, 0, rows, labelled=labelled, room=0, first=1)
