"""Rows are read, answered in batches, and put out in their order."""

import contextlib
import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from ptune.base.progress import Progress
from ptune.data.answer_files import is_folder
from ptune.data.row import FileRow
from ptune.data.rows import row_of
from ptune.errors import DataError, PtuneError
from ptune.experiments.answering.streams import answer_shards, unfinished_answers
from ptune.experiments.answering.streams.answer_batches import Answering, options_for
from ptune.experiments.cluster.ray_answers import RayAnswers
from ptune.experiments.cluster.ray_cluster import RayOptions
from ptune.model.prompt_model import PromptModel, Row
from ptune.survey.findings import rows_in_words
from ptune.tasks.layouts.forms import iterate

STANDARD_INPUT = "standard input"


def workers_of(
    ray: RayOptions, options: Mapping[str, Any], make: Callable[[Mapping[str, Any]], Answering]
) -> RayAnswers | None:
    """The workers on a cluster that are to answer, if there are to be any.

    Args:
        options: those of the command, as JSON values.
        make: makes of them what answers rows in another process.
    """
    if ray.ray is None:
        return None
    options = {**options, "prompt": str(pathlib.Path(options["prompt"]).resolve())}
    if options["lm"] is not None and pathlib.Path(options["lm"]).exists():
        options["lm"] = str(pathlib.Path(options["lm"]).resolve())  # workers are in other folders
    return RayAnswers(partial(make, options), ray.cluster, ray.workers)


def answer_all(
    answering: Answering, report: Callable[[str], None], workers: RayAnswers | None
) -> None:
    """Read rows, answer them in batches, and put out each with its answer.

    Args:
        workers: what answers the pieces of a table, in the place of this process.
    """
    run = answering.run
    if is_folder(run.out):
        answer_shards.answer(answering, report, workers)
        return
    if run.data is None:
        rows: Iterable[Row] = _standard_input(answering.skipped, _row_as_json(answering.model))
    else:
        rows = answering.rows_of(pathlib.Path(run.data))

    answered_rows = 0
    with unfinished_answers.opened(run, answering.model, answering.most) as sink:
        out, writer, finished = sink
        progress = _progress(answering, finished.count)
        with progress or contextlib.nullcontext():
            for batch in answering.batches(rows, writer.check):
                shares = answering.count(batch)
                answered_rows += len(batch)
                if finished.takes([asked.row for asked in batch]):
                    continue
                for row, answer in answering.answers(batch, shares):
                    writer.put(row, answer)
                out.flush()
                if progress:
                    progress.advance(len(batch))
        finished.check_used()
        if not answered_rows and run.out is not None:
            columns = answering.columns_of(pathlib.Path(run.data)) if run.data else []
            writer.begin(columns, answering.parts)
    for message in answering.skipped or ():
        report(f"Skipped: {message}")
    answering.report(report)
    if run.out is not None:
        report(f"{rows_in_words(answered_rows)} answered: {run.out}")
    elif not answered_rows and not answering.skipped:
        report(f"{run.data or STANDARD_INPUT.capitalize()} holds no rows.")


def _progress(answering: Answering, done: int) -> Progress | None:
    """A bar over the rows of a file, where the answers go to another; a file that cannot be counted
    has none."""
    run, layout = answering.run, answering.layout
    if run.out is None or run.data is None:
        return None
    path = pathlib.Path(run.data)
    options = options_for(path, run.options, layout)
    try:
        total = sum(1 for _ in iterate(path, run.form or layout.form, skipped=[], options=options))
    except PtuneError:
        return None
    return Progress("rows", total, done)


def _row_as_json(model: PromptModel) -> str:
    """A row as the first task takes it, as a line of JSON."""
    return json.dumps(dict.fromkeys(model.tasks[0].template.fields, "..."), ensure_ascii=False)


def _standard_input(skipped: list[str] | None, example: str) -> Iterator[FileRow]:
    """The rows of standard input, JSON lines in UTF-8.

    Args:
        example: a row as such a line, for messages.
    """
    for number, line in enumerate(getattr(sys.stdin, "buffer", sys.stdin), 1):
        try:
            text = (
                line
                if isinstance(line, str)
                else line.decode("utf-8-sig" if number == 1 else "utf-8")
            )
            if text.strip():
                yield FileRow(row_of(text), STANDARD_INPUT, number)
        except ValueError as error:
            fault = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
            message = (
                f"{STANDARD_INPUT}, line {number}: {fault.rstrip('.')}. Each line should be an "
                f"object such as {example}."
            )
            if skipped is None:
                raise DataError(message) from error
            skipped.append(message)
