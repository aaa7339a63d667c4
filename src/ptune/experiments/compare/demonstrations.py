"""Labelled examples before each row (LM-BFF, Gao et al. 2021, section 6): of every label one or
more train rows, written with the pattern and their right words, drawn among those that are most
like the row."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from ptune.data.row import label_of
from ptune.errors import ConfigError
from ptune.experiments.compare.compare_rows import FewShotSplit
from ptune.model.prompt_model import Row
from ptune.tasks.resolved.task_form import TaskForm
from ptune.tasks.rows.row_labels import changed
from ptune.tasks.task_members import Member
from ptune.template.fields import filtered
from ptune.template.language import Field, Mask, Sep, Template, Text
from ptune.training.methods import Method

FIELD = "demonstrations"
ALIKE = 0.5  # the share of a label's rows, the most alike ones, among which examples are drawn


def takes(method: Method) -> bool:
    """Whether rows get examples: of methods that ask by a pattern and its words as they stand."""
    return method.frame == "<pattern>" and method.reader is None


def check(forms: Sequence[TaskForm], number: int) -> None:
    """Refuse examples where a task has none of their kind.

    Raises:
        ConfigError: its labels are not the same for all rows, or its rows have such a field.
    """
    for form in forms:
        if not form.answers.labels:
            raise ConfigError(
                f"{form.name} has no labels of which examples could be drawn: leave "
                f"--demonstrations {number} out."
            )
        if any(FIELD in Template.parse(pattern).fields for pattern in form.patterns):
            raise ConfigError(
                f"The rows of {form.name} have a field {FIELD!r}, the name under which examples "
                "stand: call it otherwise."
            )


def with_demonstrations(
    split: FewShotSplit, member: Member, number: int
) -> tuple[FewShotSplit, Member]:
    """The rows of a split, each with so many examples of every label; and the pattern with them
    before it. What does not fit is cut from their start."""
    shelf = Shelf.of(split, member, number)
    train, dev, test = (
        [shelf.before(row) for row in rows] for rows in (split.train, split.dev, split.test)
    )
    template = f"{{{FIELD}|shorten:start}} {member.template}"
    rows = replace(split, train=train, dev=dev, test=test)
    return rows, replace(member, template=template)


@dataclass(frozen=True)
class Shelf:
    """The examples of a split, as texts of one pattern.

    Attributes:
        rows: the train rows by their labels.
        texts: each of them with its right word.
        inputs: each of them without, by which rows are compared.
        number: how many of each label stand before a row.
    """

    template: Template
    rows: Mapping[str, Sequence[int]]
    texts: Sequence[str]
    inputs: Sequence[str]
    vectoriser: TfidfVectorizer
    number: int
    seed: int
    ids: Sequence[int]

    @classmethod
    def of(cls, split: FewShotSplit, member: Member, number: int) -> "Shelf":
        """The train rows of a split as examples."""
        template = Template.parse(member.template)
        rows: dict[str, list[int]] = {label: [] for label in member.words}
        texts, inputs = [], []
        for place, row in enumerate(split.train):
            label = label_of(row[split.form.target], list(member.words))
            words = member.words[label]
            rows[label].append(place)
            texts.append(written(template, row, words if isinstance(words, str) else words[0]))
            inputs.append(written(template, row, ""))
        vectoriser = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b|[^\w\s]").fit(inputs)
        ids = [id(row) for row in split.train]
        return cls(
            template=template,
            rows=rows,
            texts=texts,
            inputs=inputs,
            vectoriser=vectoriser,
            number=number,
            seed=split.seed,
            ids=ids,
        )

    def before(self, row: Row) -> Row:
        """A row with its examples: none of them is the row itself."""
        text = written(self.template, row, "")
        likeness = self.likeness(text)
        chance = random.Random(f"{self.seed} {text}")
        drawn = []
        for places in self.rows.values():
            others = [place for place in places if self.ids[place] != id(row)]
            alike = sorted(others, key=lambda place: (-likeness[place], place))
            among = alike[: max(self.number, round(ALIKE * len(alike)))]
            drawn += chance.sample(among, min(self.number, len(among)))
        chance.shuffle(drawn)
        return changed(row, {**row, FIELD: " ".join(self.texts[place] for place in drawn)})

    def likeness(self, text: str) -> np.ndarray:
        """How like each example is to a text (TF-IDF, cosine)."""
        vectors = self.vectoriser.transform([*self.inputs, text])
        return (vectors[:-1] @ vectors[-1].T).toarray()[:, 0]


def written(template: Template, row: Row, word: str) -> str:
    """A row as a pattern asks it, as one text, with a word in the place of the answer."""
    values = template.texts(row)
    pieces = []
    for part in template.parts:
        if isinstance(part, Text):
            pieces.append(part.text)
        elif isinstance(part, Field):
            pieces.append(filtered(values[part], part.filters))
        elif isinstance(part, Mask):
            pieces.append(word)
        elif isinstance(part, Sep):
            pieces.append(" ")
    return " ".join("".join(pieces).split())
