"""Tasks whose answer is text: what the LM writes for their rows, and how good that is."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ptune.answers.ensemble import most_said
from ptune.base.progress import Progress
from ptune.data.row import FileRow, place_of, spelled
from ptune.errors import ConfigError, DataError, nearest
from ptune.metrics import text_words, texts
from ptune.model.prompt_model import PromptModel, Row
from ptune.model.rows.examples import Shortening
from ptune.model.running.generate import write
from ptune.model.task import BoundTask
from ptune.reports.schemas import Output
from ptune.settings import DecodingConfig

REPORTED = ("bleu", "nist", "meteor", "rouge-l", "cider", "ter", "chrf")


@dataclass(frozen=True)
class Judged:
    """What was written for some rows, and its figures: over all, and for each value of a field
    apart. ``split`` is how texts were split into words."""

    figures: dict[str, float]
    parts: dict[str, dict[str, float]]
    left_out: dict[str, str]
    outputs: list[Output]
    seconds: float
    split: str


def judge(
    model: PromptModel,
    rows: Sequence[Row],
    decoding: DecodingConfig,
    *,
    metrics: Sequence[str],
    parts: str | None = None,
    label: str = "writing",
    shortening: Shortening | None = None,
) -> Judged:
    """Let the LM write for rows, each by the prompt of its user or by all of an ensemble, in mixed
    batches, and compare with what is right.

    Args:
        shortening: counts the rows that are shortened.

    Raises:
        ConfigError, DataError: a metric is unknown, or a row has no right text.
    """
    metrics = metrics or REPORTED
    texts.check(metrics)
    began = time.monotonic()
    target = model.tasks[0]
    references = [right_texts(target, row, number) for number, row in enumerate(rows, 1)]
    examples = [
        model.encode_for(row, number, labelled=False, room=decoding.max_new_tokens)
        for number, row in enumerate(rows, 1)
    ]
    if shortening is not None:
        for examples_of_row in examples:
            shortening.count(examples_of_row)
    with Progress(label, sum(map(len, examples))) as progress:
        all_texts = iter(
            write(
                model,
                [example for row_examples in examples for example in row_examples],
                decoding,
                progress.advance,
            )
        )
    written_texts = [
        most_said([next(all_texts) for _ in row_examples]) for row_examples in examples
    ]
    seconds = time.monotonic() - began
    split: str = target.task.metric_words
    if split == "auto":
        split = text_words.split_for(references)
    figures, left_out = texts.score_all(written_texts, references, metrics, split)
    groups = _by_part(rows, parts)
    apart = {
        name: texts.score_all(
            [written_texts[n] for n in numbers], [references[n] for n in numbers], metrics, split
        )[0]
        for name, numbers in groups.items()
    }
    outputs = []
    for row, text, right in zip(rows, written_texts, references):
        fields = {name: value for name, value in row.items() if name != target.task.target}
        outputs.append(Output(row=fields, text=text, references=right))
    return Judged(
        figures=figures,
        parts=apart if len(apart) > 1 else {},
        left_out=left_out,
        outputs=outputs,
        seconds=seconds,
        split=split,
    )


def check(
    target: BoundTask, rows: Sequence[Row], metrics: Sequence[str], parts: str | None
) -> None:
    """See that figures can be computed on rows, before anything is written.

    Raises:
        ConfigError, DataError: a metric is unknown, or a row has no right text or not the field of
            the parts.
    """
    texts.check(metrics or REPORTED)
    if lacking := text_words.unavailable(target.task.metric_words):
        raise ConfigError(lacking)
    for number, row in enumerate(rows, 1):
        right_texts(target, row, number)
    _by_part(rows, parts)


def right_texts(target: BoundTask, row: Row, number: int) -> list[str]:
    """The right texts of a row, one or several.

    Args:
        number: the row's, from 1, by which it is named where it comes from no file.

    Raises:
        DataError: it has none.
    """
    try:
        return target.texts(row)
    except DataError as error:
        place = row.place if isinstance(row, FileRow) else f"Row {number} of {target.task.name}"
        raise DataError(f"{place}: {error}") from error


def _by_part(rows: Sequence[Row], parts: str | None) -> dict[str, list[int]]:
    """The numbers of the rows by the value of a field; nothing without one.

    Raises:
        ConfigError: a row lacks the field.
    """
    groups: dict[str, list[int]] = {}
    if parts is None:
        return groups
    for number, row in enumerate(rows):
        if parts not in row:
            raise ConfigError(
                f"{place_of(row, number + 1)} has no field {parts!r} to give the figures by. "
                f"{nearest(parts, map(str, row))}"
            )
        groups.setdefault(spelled(row[parts]), []).append(number)
    return groups


def dev_score(
    name: str, decoding: DecodingConfig
) -> Callable[[PromptModel, int, Sequence[Row]], float] | None:
    """What training looks at on dev: a metric of what the LM writes, higher being better; None for
    the loss.

    Raises:
        ConfigError: there is no metric of that name, or it cannot be computed here.
    """
    if name == "loss":
        return None
    texts.check([name])
    if lacking := texts.unavailable([name]):
        raise ConfigError(lacking[name])

    def score(model: PromptModel, task: int, rows: Sequence[Row]) -> float:
        examples = model.encode(task, rows, labelled=False, room=decoding.max_new_tokens)
        asked = model.tasks[task]
        references = [asked.texts(row) for row in rows]
        written = write(model, examples, decoding)
        figure = texts.score(written, references, [name], asked.task.metric_words)[name]
        return -figure if name == "ter" else figure

    return score
