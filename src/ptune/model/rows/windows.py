"""Windows over a text that is longer than the LM takes: a row for each part of the text, so that
nothing of it is left out."""

from typing import TYPE_CHECKING

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.errors import ConfigError
from ptune.model.task import BoundTask, Row, Task
from ptune.template.encoding.encode import RowEncoder
from ptune.template.fields import cut
from ptune.template.language import Field, text_of

if TYPE_CHECKING:
    from ptune.model.prompt_model import PromptModel


def long_field(task: Task) -> Field:
    """The field that windows are taken of: the one that may be shortened.

    Raises:
        ConfigError: there is none, or there are several.
    """
    fields = {part for part in task.template.parts if isinstance(part, Field) and part.shorten}
    if len(fields) != 1:
        raise ConfigError(
            f"{task.name} takes windows of one text, which its template marks by |shorten, and it "
            f"marks {len(fields)}: {{document|shorten}}."
        )
    return fields.pop()


def windows_of(
    model: "PromptModel", task: BoundTask, row: Row, *, bound: BoundVerbalizer, limit: int | None
) -> list[Row]:
    """The row itself where it fits, or a row for each part of its text, one behind the other; no
    word is cut, unless it does not fit by itself.

    Args:
        limit: the most tokens of an input.
    """
    lm, answer = model.lm, max(task.answers(bound), key=len)
    encoder = RowEncoder(
        template=task.template, tokens=lm.tokens, kind=lm.kind, answer=answer, start=lm.start
    )
    if limit is None or encoder.encode(row, None).size <= limit:
        return [row]
    field = long_field(task.task)
    text = text_of(row, field).rstrip()
    spans = lm.tokens.spans(text)
    room = limit - encoder.min_size(row)
    rows: list[Row] = []
    start = 0
    while room > 0 and start < len(spans):
        begin = spans[start][0]
        rest = [(first - begin, end - begin) for first, end in spans[start:]]
        for size in range(room, 0, -1):
            part = cut(text[begin:], rest, size, None)
            window = {**row, field.name: part}
            if encoder.encode(window, None).size <= limit:
                break
        rows.append(window)
        end = begin + len(part)
        following = (number for number in range(start + 1, len(spans)) if spans[number][0] >= end)
        start = next(following, len(spans))
    return rows or [row]
