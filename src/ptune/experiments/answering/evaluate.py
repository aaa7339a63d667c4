"""``ptune evaluate``: saved prompts are scored on rows with right answers."""

import contextlib
from collections.abc import Callable, Sequence

from ptune.base import terminal
from ptune.data.row import label_names
from ptune.errors import ConfigError, DataError, PtuneError, TemplateError
from ptune.experiments.answering.answer_checks import check_coverage
from ptune.experiments.answering.saved_model import decoding_of, load_model
from ptune.experiments.answering.streams.answer_batches import in_form, options_for
from ptune.experiments.options import EvaluateConfig
from ptune.metrics import intervals, text_words
from ptune.model.prompt_model import PromptModel, Row
from ptune.model.rows.examples import Shortening
from ptune.model.running.label_answers import check_one_label
from ptune.settings import FileConfig, part_of
from ptune.survey.text_checks import unknown_text
from ptune.tasks.judging import judge_labels, judge_texts
from ptune.tasks.judging.label_details import LabelDetails
from ptune.tasks.layouts.forms import rows_of
from ptune.tasks.resolved.refusals import not_written
from ptune.tasks.rows.row_labels import changed, with_labels_of


def evaluate(
    config: EvaluateConfig, report: Callable[[str], None] = terminal.print_line
) -> dict[str, float]:
    """Score a saved prompt (or the prompts of many users) on rows with right answers. The file is
    read, and the figures are computed, as those of the test rows were in training, where nothing
    else is asked for."""
    model = load_model(config.prompt, config.lm, config.device, config.dtype)
    task = model.tasks[0].task
    if model.tasks[0].verbalizer is not None:
        _check_written(config)
    skipped: list[str] | None = [] if config.skip_bad_lines else None
    rows = _rows_with_answers(config, model, skipped=skipped, report=report)
    for sentence in unknown_text.check(
        [("The rows", _texts(model, rows))], model.lm.tokens, config.allow_unknown
    ):
        report(sentence)
    metrics, shortening = config.metrics or task.metrics, Shortening()
    check_one_label(model, 0, config.coverage, config.at_least)
    if config.coverage is not None:
        check_coverage(model, config.coverage, report)
    details = LabelDetails()
    if model.tasks[0].verbalizer is None:
        parts = config.parts or task.parts
        judged = judge_texts.judge(
            model,
            rows,
            decoding_of(model, config.decoding),
            metrics=metrics,
            parts=parts,
            shortening=shortening,
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
        if sentence := text_words.sentence(judged.split):
            report(sentence)
    else:
        figures = judge_labels.judge(model, rows, metrics, shortening=shortening, details=details)
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


def _check_written(config: EvaluateConfig) -> None:
    """Refuse options of written answers, of which the prompt has none.

    Raises:
        ConfigError: there is one.
    """
    if config.decoding.model_dump(exclude_none=True):
        raise not_written("decoding")
    if config.parts is not None:
        raise not_written("parts")


def _texts(model: PromptModel, rows: Sequence[Row]) -> list[str]:
    """Of each row the texts that the first task reads, joined; a row that lacks one, or is empty,
    is told when it is tokenised."""
    texts = []
    for row in rows:
        with contextlib.suppress(TemplateError):
            texts.append(" ".join(model.tasks[0].template.texts(row).values()))
    return [text for text in texts if text.strip()]


def _fitting(model: PromptModel, rows: Sequence[Row], skipped: list[str]) -> list[Row]:
    """The rows that can be asked and that hold what is right.

    Args:
        skipped: gets what is wrong with the others.
    """
    fitting, first = [], model.tasks[0]
    for number, row in enumerate(rows, 1):
        try:
            model.encode_for(row, number, labelled=first.verbalizer is not None)
            if first.verbalizer is None:
                judge_texts.right_texts(first, row, number)
        except PtuneError as error:
            skipped.append(str(error))
        else:
            fitting.append(row)
    return fitting


def _with_label_set(row: Row, target: str, separator: str) -> Row:
    """A row whose labels, split by a separator, are a list; as it is where it holds no labels."""
    with contextlib.suppress(DataError, KeyError):
        return changed(row, {**row, target: label_names(row[target], separator)})
    return row


def _rows_with_answers(
    config: EvaluateConfig,
    model: PromptModel,
    *,
    skipped: list[str] | None,
    report: Callable[[str], None],
) -> Sequence[Row]:
    """The rows of the file that is to be scored, read as the prompt's own files were.

    Args:
        skipped: gets what is wrong with lines and rows that are left out; None where none may be.

    Raises:
        ConfigError: labels are to be split, and a row has one.
        DataError: a line is bad, or no row can be scored.
    """
    notes: list[str] = []
    task, separator = model.tasks[0].task, config.label_separator
    if separator is not None and not task.multi_label:
        raise ConfigError(
            f"--label-separator is for rows with several labels, and a row of {task.name} has one."
        )
    options = options_for(config.data, part_of(FileConfig, config), task.layout)
    read = in_form(
        task.layout,
        config.form,
        lambda form: rows_of(config.data, form, skipped=skipped, options=options, notes=notes),
    )
    for note in notes:
        report(note)
    names = task.layout.relabel.get(config.split) if config.split != "none" else None
    rows = with_labels_of(read, names, task.target, path=config.data, split=config.split)
    if separator is not None:
        rows = [_with_label_set(row, task.target, separator) for row in rows]
    if skipped is not None:
        rows = _fitting(model, rows, skipped)
    if not rows:
        raise DataError(f"{config.data} holds no row that can be scored. {' '.join(skipped or ())}")
    return rows
