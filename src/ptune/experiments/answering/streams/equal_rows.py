"""Rows that say the same are one question: in a table of a million rows many may be."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.model.prompt_model import Example, PromptModel, Row
from ptune.model.task import BoundTask
from ptune.survey.text_checks.unknown_text import Unknown


@dataclass(eq=False)
class Question:
    """What one row or several ask.

    Attributes:
        examples: a row that asks it, tokenised for the prompts that take it; none once it is
            answered.
        text: what the first of these prompts reads.
        cut: how many tokens of the row were left out, so that it fits.
        unread: what of the text the LM cannot read.
        answer: what is put out beside each row; nothing while it is not answered.
    """

    examples: list[Example]
    text: str
    cut: int
    unread: Unknown
    answer: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether it is still to be answered."""
        return bool(self.examples)

    def close(self, answer: Mapping[str, Any]) -> None:
        """Keep its answer, and nothing else that takes room."""
        self.answer, self.examples = answer, []


@dataclass(frozen=True)
class Asked:
    """A row, and what it asks."""

    row: Row
    question: Question


class EqualRows:
    """Knows which rows say the same: those whose values in all fields that a prompt reads, or by
    which it is chosen, are equal. Rows that bring their own labels, or of whose words each has an
    answer, are taken to differ."""

    def __init__(self, model: PromptModel):
        self.names: tuple[str, ...] | None = None
        if all(map(_is_decided_by_its_fields, model.tasks)):
            names = [name for task in model.tasks for name in _fields_of(task)]
            self.names = tuple(dict.fromkeys(names))

    def key(self, row: Row) -> Hashable | None:
        """The values by which the row is known; None of one that is taken to differ from all
        others."""
        if self.names is None:
            return None
        values = [row.get(name) for name in self.names]
        return tuple(values) if all(type(value) is str for value in values) else None


def _is_decided_by_its_fields(task: BoundTask) -> bool:
    return task.verbalizer is None or isinstance(task.verbalizer, BoundVerbalizer)


def _fields_of(task: BoundTask) -> list[str]:
    by = [task.task.by[0]] if task.task.by else []
    domain = task.domain.fields if task.domain else ()
    return [*by, *task.template.fields, *domain, *(task.task.swap or ())]
