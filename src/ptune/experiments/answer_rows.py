"""Saved prompts at work: scored on rows, or answering them one batch after the other."""

import contextlib
import json
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from pydantic import ValidationError

from ptune.answers.confidence import rows_for
from ptune.answers.ensemble import most_said
from ptune.base import files, terminal
from ptune.base.progress import Progress
from ptune.data import answer_files
from ptune.data.row import FileRow, place_of
from ptune.data.row_files import form_of, is_utf8
from ptune.data.rows import JSON, row_of
from ptune.errors import ConfigError, DataError, PtuneError, TemplateError, reason
from ptune.experiments import unfinished_answers
from ptune.experiments.options import EvaluateConfig, GenerateConfig, PredictConfig
from ptune.lm.language_model import LanguageModel
from ptune.metrics import intervals, text_words
from ptune.model.prompt_model import Example, PromptModel, Row
from ptune.model.rows.examples import Shortening
from ptune.model.running.generate import write_all
from ptune.model.running.label_answers import check_one_label, confidence_of
from ptune.settings import DecodingConfig, FileConfig, LayoutConfig
from ptune.storage import prompt_folder
from ptune.survey.findings import rows_in_words
from ptune.survey.text_checks import unknown_text
from ptune.survey.text_checks.unknown_text import UnknownRows
from ptune.tasks.judging import judge_labels, judge_texts
from ptune.tasks.judging.label_details import LabelDetails
from ptune.tasks.layouts import submission
from ptune.tasks.layouts.forms import iterate, rows_of
from ptune.tasks.rows.row_labels import with_labels_of

ANSWERS_AT_ONCE = 64
STANDARD_INPUT = "standard input"
SKIPPING = " --skip-bad-lines leaves such rows out, and says which."


class Answered(Protocol):
    """Answers a batch: for each row, which is one example for each prompt that takes it, what is
    put out beside it."""

    def __call__(self, batch: list[list[Example]]) -> Iterator[dict[str, Any]]: ...


def evaluate(
    config: EvaluateConfig, report: Callable[[str], None] = terminal.print_line
) -> dict[str, float]:
    """Score a saved prompt (or the prompts of many users) on rows with right answers. The file is
    read, and the figures are computed, as those of the test rows were in training, where nothing
    else is asked for."""
    model = _model(config)
    task = model.tasks[0].task
    skipped: list[str] | None = [] if config.skip_bad_lines else None
    rows = _rows_with_answers(config, task.layout, task.target, skipped, report)
    for sentence in unknown_text.check(
        [("The rows", _texts(model, rows))], model.lm.tokens, config.allow_unknown
    ):
        report(sentence)
    metrics, shortening = config.metrics or task.metrics, Shortening()
    check_one_label(model, 0, config.coverage, config.at_least)
    if config.coverage is not None:
        _check_coverage(model, config.coverage, report)
    details = LabelDetails()
    if model.tasks[0].verbalizer is None:
        parts = config.parts or task.parts
        judged = judge_texts.judge(
            model, rows, _decoding(config, model), metrics, parts, shortening=shortening
        )
        figures = judged.figures
        for name, figures_of_part in judged.parts.items():
            report(
                f"{name}: "
                + ", ".join(f"{metric} {value:.4g}" for metric, value in figures_of_part.items())
            )
        skipped = [
            *(skipped or []),
            *(f"{name}: {reason}" for name, reason in judged.left_out.items()),
        ]
        if said := text_words.sentence(judged.split):
            report(said)
    else:
        figures = judge_labels.judge(model, rows, metrics, shortening, details)
        figures |= judge_labels.selective_figures(
            model, details.answers, config.coverage, config.at_least
        )
    for message in skipped or ():
        report(f"Skipped: {message}")
    if shortened := shortening.sentence("rows", model.limit(0)):
        report(shortened)
    report(
        ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        + f" on {len(rows)} rows"
    )
    if details.intervals:
        report(intervals.sentence(details.intervals))
    return {**figures, "rows": float(len(rows))}


def predict(config: PredictConfig, report: Callable[[str], None] = terminal.print_line) -> None:
    """Answer rows, as many at once as share a batch, and put them out in their order; see
    ``ptune.data.answer_files``."""
    answer_files.check(config.out, config.data, config.resume or config.overwrite)
    model = _model(config)
    check_one_label(model, 0, config.coverage, config.at_least)
    if config.coverage is not None:
        _check_coverage(model, config.coverage, report)
    form = config.form or model.tasks[0].task.layout.form
    if config.submission is not None:
        _check_submission(config, form)
    abstained = 0
    said: list[tuple[Row, str]] = []

    def answers(batch: list[list[Example]]) -> Iterator[dict[str, Any]]:
        nonlocal abstained
        scores = iter(model.scores([example for examples in batch for example in examples]))
        for examples in batch:
            scores_of_row = [next(scores) for _ in examples]
            answer = model.answer(examples, scores_of_row, config.coverage, config.at_least)
            abstained += answer["prediction"] is None
            if config.submission is not None:
                said.append((examples[0].row, answer["prediction"]))
            yield {**answer, "scores": _best(answer, config.top)}

    _stream(config, model, answers, 0, ANSWERS_AT_ONCE, report)
    if config.submission is not None:
        files.write_text(config.submission, submission.text(form, said))
        report(f"For SuperGLUE's leaderboard: {config.submission}")
    if abstained:
        report(
            f"{rows_in_words(abstained)} without an answer: the best label has a probability below "
            f"{config.at_least:g} (--at-least)."
        )


def _check_submission(config: PredictConfig, form: str) -> None:
    """Refuse a submission that would lack answers, or is of other rows.

    Raises:
        ConfigError: the reason.
    """
    submission.check(form)
    lacking = {
        "--resume": config.resume,
        "--at-least": config.at_least,
        "--skip-bad-lines": config.skip_bad_lines,
    }
    if given := next((name for name, value in lacking.items() if value), None):
        raise ConfigError(
            f"A submission has an answer to every row, some of which {given} leaves out: leave "
            f"{given} out."
        )
    if config.data is None:
        raise ConfigError("A submission answers an official test file: name it with --data.")
    if config.submission is not None and config.submission.is_dir():
        name = submission.FILES[form]
        raise ConfigError(
            f"{config.submission} is a folder: name the file, as {config.submission / name}.jsonl."
        )


def _check_coverage(model: PromptModel, coverage: float, report: Callable[[str], None]) -> None:
    """Refuse sets of labels of prompts that keep no scores of dev rows, and say where these are so
    few that every set holds all labels.

    Raises:
        ConfigError: a prompt keeps none.
    """
    known = min(len(confidence_of(model, task).nonconformity) for task in range(len(model.tasks)))
    if known < rows_for(coverage):
        report(
            f"Sets of labels that hold the right one in {coverage:.4g} of all cases need "
            f"{rows_for(coverage)} rows for dev, and the prompt was trained with {known}: every "
            "set holds all labels."
        )


def _best(answer: Mapping[str, Any], most: int | None) -> dict[str, float] | list[float]:
    """The probabilities of the best labels, and of all that were predicted; of a row whose words
    have labels those of these."""
    if isinstance(answer["scores"], list):
        return [round(share, 6) for share in answer["scores"]]
    had = answer["prediction"] if isinstance(answer["prediction"], list) else []
    shown = {*list(answer["scores"])[:most], *had}
    return {label: round(share, 6) for label, share in answer["scores"].items() if label in shown}


def generate(config: GenerateConfig, report: Callable[[str], None] = terminal.print_line) -> None:
    """Write text for rows of any users, mixed in batches, and put them out in their order. Where
    several texts are asked for, an ensemble gives those of all its members."""
    answer_files.check(config.out, config.data, config.resume or config.overwrite)
    model = _model(config)
    decoding = _decoding(config, model)

    def texts(batch: list[list[Example]]) -> Iterator[dict[str, Any]]:
        outputs = iter(
            write_all(model, [example for examples in batch for example in examples], decoding)
        )
        for examples in batch:
            by_member = [next(outputs) for _ in examples]
            if decoding.texts == 1:
                yield {"text": most_said([texts_of_member[0] for texts_of_member in by_member])}
            else:
                yield {"texts": [text for texts_of_member in by_member for text in texts_of_member]}

    _stream(config, model, texts, decoding.max_new_tokens, decoding.rows, report)


def _texts(model: PromptModel, rows: Sequence[Row]) -> list[str]:
    """Of each row the texts that the first task reads, joined; a row that lacks one is told when it
    is tokenised."""
    texts = []
    for row in rows:
        with contextlib.suppress(TemplateError):
            texts.append(" ".join(model.tasks[0].template.texts(row).values()))
    return texts


def _rows_with_answers(
    config: EvaluateConfig,
    layout: LayoutConfig,
    target: str,
    skipped: list[str] | None,
    report: Callable[[str], None],
) -> Sequence[Row]:
    """The rows of the file that is to be scored, read as the prompt's own files were."""
    notes: list[str] = []
    options = options_for(config.data, config, layout)
    rows = _read(
        layout, config.form, lambda form: rows_of(config.data, form, skipped, options, notes)
    )
    for note in notes:
        report(note)
    names = layout.relabel.get(config.split) if config.split != "none" else None
    return with_labels_of(rows, names, target, config.data, config.split)


def options_for(path: pathlib.Path, given: FileConfig, kept: FileConfig) -> FileConfig:
    """How a file is read: as is asked for, and else as the prompt's own files were, as far as that
    is for a file of this kind."""
    options = {name: getattr(kept, name) for name in FileConfig.model_fields}
    if form_of(path) in JSON:
        options |= dict.fromkeys(("separator", "quoting", "columns", "skip_lines"))
    else:
        options |= {"record_path": None}
    if options["encoding"] and is_utf8(path):
        options["encoding"] = None
    asked = {
        name: value
        for name in FileConfig.model_fields
        if (value := getattr(given, name)) is not None
    }
    return FileConfig(**{**options, **asked})


def _read(layout: LayoutConfig, form: str | None, read: Callable[[str], Any]) -> Any:
    """Read a file in the form that is asked for, or in that of the prompt's own files."""
    try:
        return read(form or layout.form)
    except DataError as error:
        if form or layout.form == "rows":
            raise
        raise DataError(
            f"{error} The prompt was trained on files of the form {layout.form!r}; give --form "
            "rows for a file of "
            f"plain rows."
        ) from error


def _stream(
    config: PredictConfig | GenerateConfig,
    model: PromptModel,
    answered: Answered,
    room: int,
    most: int,
    report: Callable[[str], None],
) -> None:
    """Read rows, answer them in batches, and put out each with its answer."""
    skipped: list[str] | None = [] if config.skip_bad_lines else None
    layout, shortening = model.tasks[0].task.layout, Shortening()
    unknown = UnknownRows(model.lm.tokens)
    notes: list[str] = []
    if config.data is None:
        rows: Iterable[Row] = _standard_input(skipped, _row_as_json(model))
    else:
        path = config.data
        options = options_for(path, config, layout)
        rows = _read(layout, config.form, lambda form: iterate(path, form, skipped, options, notes))

    answered_rows = 0
    with unfinished_answers.opened(config, model, most) as (out, writer, finished):
        progress = _progress(config, layout, finished.count)
        with progress or contextlib.nullcontext():
            for batch in _batches(model, rows, writer, room, most, skipped):
                shares = [_count(model, examples, shortening, unknown) for examples in batch]
                answered_rows += len(batch)
                if finished.takes([examples[0].row for examples in batch]):
                    continue
                for examples, answer, share in zip(batch, answered(batch), shares):
                    cut = max(example.cut for example in examples)
                    marks = {"shortened": cut, "unknown": round(share, 4)} if config.explain else {}
                    writer.put(examples[0].row, {**answer, **marks})
                out.flush()
                if progress:
                    progress.advance(len(batch))
        finished.check_used()
    for note in notes:
        report(note)
    for message in skipped or ():
        report(f"Skipped: {message}")
    if unread := unknown.sentence():
        report(unread)
    if shortened := shortening.sentence("rows", model.limit(0)):
        report(shortened)
    if config.out is not None:
        report(f"{rows_in_words(answered_rows)} answered: {config.out}")


def _count(
    model: PromptModel,
    examples: Sequence[Example],
    shortening: Shortening,
    unknown: UnknownRows,
) -> float:
    """Count a row's tokens that were left out, and those that the LM does not know; return the
    share of its text that cannot be read."""
    shortening.count(examples)
    first = examples[0]
    texts = model.tasks[first.task].template.texts(first.row).values()
    place = place_of(first.row, unknown.all.texts + 1)
    return unknown.count(" ".join(texts), first.fills[0].ids, place)


def _progress(
    config: PredictConfig | GenerateConfig, layout: LayoutConfig, done: int
) -> Progress | None:
    """A bar over the rows of a file, where the answers go to another; a file that cannot be counted
    has none."""
    if config.out is None or config.data is None:
        return None
    options = options_for(config.data, config, layout)
    try:
        total = sum(1 for _ in iterate(config.data, config.form or layout.form, [], options))
    except PtuneError:
        return None
    return Progress("rows", total, done)


def _decoding(config: EvaluateConfig | GenerateConfig, model: PromptModel) -> DecodingConfig:
    """The task's own settings, with those that are given in their place."""
    try:
        return DecodingConfig.model_validate(
            {
                **model.tasks[0].task.decoding.model_dump(),
                **config.decoding.model_dump(exclude_none=True),
            }
        )
    except ValidationError as error:
        raise ConfigError(f"--decoding: {reason(error.errors()[0])}.") from error


def _model(config: EvaluateConfig | PredictConfig | GenerateConfig) -> PromptModel:
    lm = (
        LanguageModel.load(config.lm, device=config.device, dtype=config.dtype)
        if config.lm is not None
        else None
    )
    return prompt_folder.load(
        prompt_folder.folders_in(config.prompt), lm, device=config.device, dtype=config.dtype
    )


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


def _batches(
    model: PromptModel,
    rows: Iterable[Row],
    writer: answer_files.Writer,
    room: int,
    most: int,
    skipped: list[str] | None,
) -> Iterator[list[list[Example]]]:
    """Rows in batches, tokenised for the prompts that take them. A bad row is skipped, or ends it,
    but never before the rows ahead of it are given out."""
    batch: list[list[Example]] = []
    fault: PtuneError | None = None
    numbered = enumerate(rows, 1)
    while fault is None:
        try:
            number, row = next(numbered)
        except StopIteration:
            break
        except PtuneError as error:
            of_a_line = isinstance(error, DataError) and re.search(r"\bline \d", str(error))
            fault = DataError(f"{error}{SKIPPING}") if of_a_line else error
            break
        try:
            writer.check(row)
            batch.append(model.encode_for(row, number, labelled=False, room=room))
        except PtuneError as error:
            if skipped is None:
                fault = DataError(f"{error}{SKIPPING}")
            else:
                skipped.append(str(error))
        if len(batch) == most:
            yield batch
            batch = []
    if batch:
        yield batch
    if fault is not None:
        raise fault
