"""Rows of tasks become examples: the tasks that take a row, what is run to score it, and what is
run to learn from it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.answers.extraction import Extraction
from ptune.answers.from_row import Span
from ptune.answers.readers.reader import Answer
from ptune.answers.word_labels import WordLabels
from ptune.data.in_memory import rows_from
from ptune.data.row import FileRow, label_of, place_of
from ptune.errors import ConfigError, DataError, PtuneError
from ptune.model.rows.examples import (
    Example,
    HiddenWordsExample,
    LabelExample,
    LabelSetExample,
    ScoredExample,
    SharesExample,
    SpanExample,
    TaughtExample,
    TaughtText,
    TextExample,
    VocabularyExample,
)
from ptune.model.rows.margins import MarginExample
from ptune.model.rows.passages import passage_example
from ptune.model.rows.windows import windows_of
from ptune.model.rows.words import words_example
from ptune.model.task import BoundTask, Row
from ptune.template.language import EncodedRow, Template, field_of

if TYPE_CHECKING:
    from ptune.model.prompt_model import PromptModel

TaskChoice = int | str | Sequence[int | str] | None
"""The task of all rows, one for each row, or None: the tasks that take the row."""
HIDDEN = 0.15  # the share of a text's tokens that auxiliary rows hide, as BERT (section 3.1)


def chosen_tasks(model: "PromptModel", rows: Sequence[Row], tasks: TaskChoice) -> list[list[int]]:
    """The numbers of the tasks that take each row.

    Raises:
        ConfigError: there is no such task or none at all, or there are not as many tasks as rows.
        DataError: no task takes a row; the message gives its number.
    """
    if not model.tasks:
        raise ConfigError("The model has no task yet: add one by model.add(Task(...)).")
    if tasks is None:
        return [tasks_taking(model, row, number) for number, row in enumerate(rows, 1)]
    if isinstance(tasks, int | str):
        return [[model.number(tasks)]] * max(1, len(rows))
    if len(tasks) != len(rows):
        raise ConfigError(
            f"A task for each row is expected, and there are {len(tasks)} tasks for "
            f"{len(rows)} rows."
        )
    return [[model.number(task)] for task in tasks]


def tasks_taking(model: "PromptModel", row: Row, number: int) -> list[int]:
    """The tasks that take a row, which is row ``number`` in an error."""
    try:
        return model.tasks_for(row)
    except DataError as error:
        raise _of_row(error, place_of(row, number)) from error


def _of_row(error: PtuneError, place: str) -> PtuneError:
    """The same error with the place of the row that is at fault."""
    located = type(error)(f"{place}: {error}")
    located.of_row = True
    return located


def encode_rows(
    model: "PromptModel", number: int, rows: Sequence[Row], *, labelled: bool, room: int, first: int
) -> Iterator[Example]:
    """The examples of rows of task ``number``; see ``PromptModel.encode``."""
    rows = rows_from(rows)
    name = model.tasks[number].task.name
    for row_number, row in enumerate(rows, first):
        try:
            yield from _examples_of_row(model, number, row, labelled=labelled, room=room)
        except PtuneError as error:
            place = row.place if isinstance(row, FileRow) else f"Row {row_number} of {name}"
            raise _of_row(error, place) from error


def _examples_of_row(
    model: "PromptModel", number: int, row: Row, *, labelled: bool, room: int
) -> Sequence[Example]:
    task = model.tasks[number]
    if labelled and isinstance(taught := row.get(task.task.target), TaughtText):
        return [_taught_example(model, number, row, taught)]
    if task.verbalizer is None:
        return _text_examples(model, number, row, labelled=labelled, room=room)
    if isinstance(task.verbalizer, WordLabels):
        return [
            words_example(model, number, row, labelled=labelled, limit=input_limit(model, task))
        ]
    if isinstance(task.verbalizer, Extraction):
        return [
            passage_example(model, number, row, labelled=labelled, limit=input_limit(model, task))
        ]
    bound = task.bound(row, model.lm.tokens, model.lm.kind)
    variants = task.variants(row)
    if task.task.windows != "none":
        windows = windows_of(model, task, row, bound=bound, limit=input_limit(model, task))
        variants = [(task.template, window) for window in windows]
    fills = tuple(
        encode_row(model, task, variant, answer=answer, template=template)
        for template, variant in variants
        for answer in task.answers(bound)
    )
    if isinstance(task.verbalizer, Span):
        example = SpanExample(task=number, row=row, fills=fills, bound=bound, span=task.verbalizer)
        return [_with_span(model, example) if labelled else example]
    if labelled:
        return [_label_example(model, number, row, fills=fills, bound=bound)]
    return [LabelExample(task=number, row=row, fills=fills, bound=bound)]


def _text_examples(
    model: "PromptModel", number: int, row: Row, *, labelled: bool, room: int
) -> list[TextExample]:
    """A row whose answer is text: an example for each right text."""
    task = model.tasks[number]
    room = room if model.lm.kind == "causal" else 0
    example = TextExample(task=number, row=row, fills=(encode_row(model, task, row, room=room),))
    if not labelled:
        return [example]
    answers = [_written_answer(model, task, row, text) for text in task.texts(row)]
    return [
        replace(example, learn=(encode_row(model, task, row, answer=answer),), answer=answer)
        for answer in answers
    ]


def _taught_example(
    model: "PromptModel", number: int, row: Row, taught: TaughtText
) -> TaughtExample:
    """A text that another model was asked about, behind the prefix of its task."""
    tokens, before = model.lm.tokens, tuple(model.lm.tokens.before)
    length = model.tasks[number].template.prefix_length(tokens)
    encoded = EncodedRow(
        before + taught.ids,
        (-1,) * (len(before) + len(taught.ids)),
        None,
        tuple(len(before) + place for place in taught.places),
        prefix=(0,) * length,
    )
    return TaughtExample(task=number, row=row, fills=(encoded,), learn=(encoded,), taught=taught)


def _with_span(model: "PromptModel", example: SpanExample) -> SpanExample:
    """The example with its label, and with the tokens of its text to learn if it is right."""
    task, bound = model.tasks[example.task], example.bound
    label = bound.number(label_of(task.right(example.row), bound.labels))
    if label not in bound.owners:
        return replace(example, label=label)
    values = [field_of(example.row, name) for name in task.template.fields]
    answer = example.span.taught(bound, model.lm.tokens, seed=f"{task.task.seed} {values}")
    learn = _row_to_learn(model, example.task, example.row, answer)
    return replace(example, label=label, learn=(learn,), answer=answer)


def _label_example(
    model: "PromptModel",
    number: int,
    row: Row,
    *,
    fills: tuple[EncodedRow, ...],
    bound: BoundVerbalizer,
) -> ScoredExample:
    """A row with its label, its set of labels or its labels' shares, and what is run to learn
    it."""
    task = model.tasks[number]
    if task.task.multi_label:
        present = task.label_set(row, bound.labels)
        return LabelSetExample(
            task=number, row=row, fills=fills, learn=fills, bound=bound, present=present
        )
    shares = task.shares(row, len(bound.labels))
    if shares:
        if task.task.loss == "vocabulary":
            raise ConfigError(
                'Shares of labels are not compared with the whole vocabulary: set loss to "labels".'
            )
        return SharesExample(
            task=number,
            row=row,
            fills=fills,
            learn=fills,
            label=shares.index(max(shares)),
            bound=bound,
            shares=shares,
        )
    label = bound.number(label_of(task.right(row), bound.labels))
    if task.task.loss != "vocabulary":
        kind = MarginExample if task.task.loss == "hinge" else LabelExample
        return kind(task=number, row=row, fills=fills, learn=fills, label=label, bound=bound)
    answer = bound.first_word(label)
    is_whole = task.task.windows == "none"
    encoded = dict(zip(task.answers(bound), fills)) if is_whole else {}
    return VocabularyExample(
        task=number,
        row=row,
        fills=fills,
        learn=(_row_to_learn(model, number, row, answer, encoded=encoded),),
        label=label,
        bound=bound,
        answer=answer,
    )


def _row_to_learn(
    model: "PromptModel",
    number: int,
    row: Row,
    answer: tuple[int, ...],
    *,
    encoded: Mapping[Answer, EncodedRow] = MappingProxyType({}),
) -> EncodedRow:
    """The row with an answer that is compared with the whole vocabulary.

    Args:
        encoded: what was encoded of the row already, by how the answer's place is filled.
    """
    is_open = model.lm.kind == "masked" or len(answer) == 1
    filled = (None,) * len(answer) if is_open else answer
    return encoded.get(filled) or encode_row(model, model.tasks[number], row, answer=filled)


def _written_answer(model: "PromptModel", task: BoundTask, row: Row, text: str) -> tuple[int, ...]:
    """The tokens of a written answer, the end token included; cut at the end where even the
    shortened row leaves too little room."""
    tokens, kind = model.lm.tokens, model.lm.kind
    place = task.template.place if kind == "causal" else "start"
    ids = [
        *(tokens.before if kind == "encoder-decoder" else ()),
        *tokens.words([text.strip()], place)[0],
        model.lm.end if task.template.end is None else task.template.end,
    ]
    limits = [task.task.target_length or len(ids)]
    if (limit := input_limit(model, task)) is not None:
        taken = task.template.least(row, tokens, kind) - 1 if kind == "causal" else 0
        limits.append(max(1, limit - taken))
    return tuple(ids[: min(limits)])


def input_limit(model: "PromptModel", task: BoundTask) -> int | None:
    """The most tokens of a task's inputs; None for no limit."""
    limits = (model.max_length, task.task.max_length)
    return min((limit for limit in limits if limit is not None), default=None)


def encode_row(
    model: "PromptModel",
    task: BoundTask,
    row: Row,
    *,
    answer: Sequence[int | None] = (None,),
    room: int = 0,
    template: Template | None = None,
) -> EncodedRow:
    """A row as the LM gets it, shortened to fit.

    Args:
        answer: as in ``Template.encode``.
        room: how many tokens must be left free behind the row.
        template: by default the task's.

    Raises:
        TemplateError: the row does not fit the template.
        ConfigError: ``room`` leaves no room for a row.
    """
    limit = input_limit(model, task)
    max_length = None if limit is None else limit - room
    if max_length is not None and max_length < 1:
        raise ConfigError(
            f"{room} new tokens leave no room for a row in an LM of {limit} tokens: set "
            "max_new_tokens lower."
        )
    lm, template = model.lm, template or task.template
    encoded = template.encode(
        row,
        lm.tokens,
        lm.kind,
        max_length=max_length,
        answer=answer,
        start=lm.start,
        keeps_fields=task.task.prefix.reads_rows,
    )
    pooled, layer = task.task.pooling == "mean", task.task.layer
    return replace(encoded, pooled=pooled, layer=layer) if pooled or layer else encoded


def hidden_words(
    model: "PromptModel", number: int, rows: Sequence[Row], generator: torch.Generator
) -> list[Example]:
    """Rows of task ``number`` as auxiliary examples; see ``PromptModel.hidden_words``."""
    task, tokens = model.tasks[number], model.lm.tokens
    if model.lm.kind != "masked" or tokens.mask is None or not model.lm.has_head:
        raise ConfigError(
            f"{task.task.name} hides words of unlabelled rows, which only a masked LM can "
            "tell: set the auxiliary weight to 0."
        )
    special = set(tokens.tokenizer.all_special_ids)
    examples: list[Example] = []
    for row in rows:
        encoded = encode_row(model, task, row)
        if positions := _positions_to_hide(encoded, special, generator):
            ids = _with_hidden(
                encoded, positions, mask=tokens.mask, words=model.lm.words, generator=generator
            )
            answer = tuple(encoded.ids[position] for position in positions)
            learn = replace(
                encoded,
                ids=ids,
                answer_positions=tuple(positions),
                pooled=False,
                layer=None,
                field_tokens=tuple(id_ for id_ in encoded.field_tokens if id_ not in answer),
            )
            examples.append(
                HiddenWordsExample(task=number, row=row, fills=(), learn=(learn,), answer=answer)
            )
    return examples


def _positions_to_hide(row: EncodedRow, special: set[int], generator: torch.Generator) -> list[int]:
    """The positions of a row whose tokens are hidden, drawn at random; the first one that could be
    hidden where none is drawn."""
    free = [
        position
        for position, (token, slot) in enumerate(zip(row.ids, row.soft_slots))
        if slot < 0 and token not in special
    ]
    drawn = torch.rand(len(free), generator=generator).tolist()
    return [position for position, share in zip(free, drawn) if share < HIDDEN] or free[:1]


def _with_hidden(
    row: EncodedRow, positions: Sequence[int], *, mask: int, words: int, generator: torch.Generator
) -> tuple[int, ...]:
    """The row's tokens, of which those at the positions are hidden: eight in ten by a mask, one by
    another token, one not at all."""
    ids = list(row.ids)
    for position in positions:
        share = float(torch.rand((), generator=generator))
        if share < 0.8:
            ids[position] = mask
        elif share < 0.9:
            ids[position] = int(torch.randint(words, (), generator=generator))
    return tuple(ids)
