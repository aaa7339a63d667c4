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
from ptune.model.prompt_model import PromptModel, Row, Task
from ptune.model.rows.examples import Shortening
from ptune.model.running.label_answers import check_one_label
from ptune.settings import (
    FileConfig,
    LayoutConfig,
    part_of,
)
from ptune.survey.text_checks import unknown_text
from ptune.tasks.judging import judge_labels, judge_texts
from ptune.tasks.judging.label_details import LabelDetails
from ptune.tasks.layouts.forms import rows_of
from ptune.tasks.rows.row_labels import changed, with_labels_of


def evaluate(
    config: EvaluateConfig, report: Callable[[str], None] = terminal.print_line
) -> dict[str, float]:
    """Score a saved prompt (or the prompts of many users) on rows with right answers. The file is
    read, and the figures are computed, as those of the test rows were in training, where nothing
    else is asked for."""
    model = load_model(config.prompt, config.lm, config.device, config.dtype)
    task = model.tasks[0].task
    skipped: list[str] | None = [] if config.skip_bad_lines else None
    rows = _rows_with_answers(config, task.layout, task.target, skipped=skipped, report=report)
    if config.label_separator is not None:
        rows = _with_label_sets(rows, task, config.label_separator)
    if skipped is not None:
        rows = _fitting(model, rows, skipped)
    if not rows:
        raise DataError(f"{config.data} holds no row that can be scored. {' '.join(skipped or ())}")
    for sentence in unknown_text.check(
        [(f"{config.data}", _texts(model, rows))], model.lm.tokens, config.allow_unknown
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


def _texts(model: PromptModel, rows: Sequence[Row]) -> list[str]:
    """Of each row the texts that the first task reads, joined; a row that lacks one, or is empty,
    is told when it is tokenised."""
    texts = []
    for row in rows:
        with contextlib.suppress(TemplateError):
            texts.append(" ".join(model.tasks[0].template.texts(row).values()))
    return [text for text in texts if text.strip()]


def _with_label_sets(rows: Sequence[Row], task: Task, separator: str) -> list[Row]:
    """Rows whose labels, split by a separator, are lists.

    Raises:
        ConfigError: a row has one label.
        DataError: what a row holds is no labels.
    """
    if not task.multi_label:
        raise ConfigError(
            f"--label-separator is for rows with several labels, and a row of {task.name} has one."
        )
    return [
        changed(row, {**row, task.target: label_names(row[task.target], separator)})
        if task.target in row
        else row
        for row in rows
    ]


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


def _rows_with_answers(
    config: EvaluateConfig,
    layout: LayoutConfig,
    target: str,
    *,
    skipped: list[str] | None,
    report: Callable[[str], None],
) -> Sequence[Row]:
    """The rows of the file that is to be scored, read as the prompt's own files were."""
    notes: list[str] = []
    options = options_for(config.data, part_of(FileConfig, config), layout)
    rows = in_form(
        layout,
        config.form,
        lambda form: rows_of(config.data, form, skipped=skipped, options=options, notes=notes),
    )
    for note in notes:
        report(note)
    names = layout.relabel.get(config.split) if config.split != "none" else None
    return with_labels_of(rows, names, target, path=config.data, split=config.split)
