"""A row that waits for its answer."""

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

from ptune.model.rows.examples import Example
from ptune.model.task import Row
from ptune.serving.problems import Problem
from ptune.settings import DecodingConfig


@dataclass(frozen=True)
class BatchNote:
    """Which rows shared a batch: how many of each prompt, by its id."""

    rows: dict[str, int]
    tokens: int


@dataclass(frozen=True)
class LabelAnswer:
    """The best label of a row, or a list of its labels where it may have several; the probability
    of every label, the best first; and the share of the row's text that the LM cannot read. Where
    each word has a label, a list of those, and the probability of each; where the answer is a part
    of a text, that, and the probabilities of some. ``more`` holds the entities then, or where the
    part begins and ends."""

    label: str | list[str]
    scores: dict[str, float] | list[float]
    tokens: int
    unknown: float
    batch: BatchNote
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TextAnswer:
    """What was written for a row: one text or several, and for each whether it ended by itself
    ("stop") or at the most tokens ("length"); and the share of the row's text that the LM cannot
    read."""

    texts: list[str]
    ends: list[str]
    tokens: int
    written: int
    unknown: float
    batch: BatchNote


@dataclass(eq=False)
class Job:
    """One row of a request.

    Attributes:
        prompt: the id of the prompt that answers it.
        tenant: who asks; tenants take turns.
        deadline: the time (``time.monotonic``) after which nobody needs the answer.
        decoding: changes of the prompt's settings of writing; None where labels are scored.
        number: of the row in its request, from 1.
        place: where in the request its fields stand, and ``prompt_place`` its prompt.
        on_text: gets each piece of the text as it is written, in the worker's thread.
        answer: the answer, or the problem. Who no longer wants it cancels it.
        examples: the row, tokenised for each task of the prompt; their numbers are the prompt's.
        settings: how its text is written.
        unknown: the share of its text that the LM cannot read.
    """

    prompt: str
    row: Row
    tenant: str = ""
    deadline: float = float("inf")
    decoding: dict[str, Any] | None = None
    number: int = 1
    place: str = "fields"
    prompt_place: str = "prompt"
    on_text: Callable[[str], None] | None = None
    answer: "Future[Any]" = field(default_factory=Future)
    examples: list[Example] = field(default_factory=list)
    settings: DecodingConfig | None = None
    unknown: float = 0.0
    loaded: Any = None
    begun: float = field(default_factory=time.monotonic)

    @property
    def writes(self) -> bool:
        """Whether a text is asked for, rather than scores of labels."""
        return self.decoding is not None

    @property
    def is_wanted(self) -> bool:
        """Whether somebody still waits for the answer."""
        return not self.answer.done()

    @property
    def is_late(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() > self.deadline

    @property
    def tokens(self) -> int:
        """How many tokens go into the LM for this row."""
        return sum(len(fill.ids) for example in self.examples for fill in example.fills)

    @property
    def length(self) -> int:
        """How many tokens its longest input has."""
        return max((example.length for example in self.examples), default=0)

    @property
    def inputs(self) -> int:
        """How many rows it is for the LM."""
        return sum(len(example.fills) for example in self.examples)

    def succeed(self, answer: LabelAnswer | TextAnswer) -> None:
        """Give the answer, if it is still wanted."""
        with contextlib.suppress(InvalidStateError):
            self.answer.set_result(answer)

    def fail(self, problem: Problem) -> None:
        """Say what is wrong with the row, if anybody still wants to know."""
        with contextlib.suppress(InvalidStateError):
            self.answer.set_exception(problem)
