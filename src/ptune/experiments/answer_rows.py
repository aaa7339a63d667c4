"""Saved prompts at work: scored on rows, or answering them one batch after the other."""

import contextlib
import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import ValidationError

from ptune.answers.confidence import rows_for
from ptune.answers.ensemble import most_said
from ptune.answers.extraction import Extraction
from ptune.answers.word_labels import WordLabels
from ptune.base import files, terminal
from ptune.base.progress import Progress
from ptune.data import answer_files
from ptune.data.answer_files import is_conll, is_folder
from ptune.data.row import FileRow
from ptune.data.rows import row_of
from ptune.data.shards.listing import check_matches, is_table_of_files
from ptune.errors import ConfigError, DataError, PtuneError, TemplateError, reason
from ptune.experiments import answer_shards, unfinished_answers
from ptune.experiments.answer_batches import Answering, AnswerRun, in_form, options_for
from ptune.experiments.cluster import ray_cluster
from ptune.experiments.cluster.ray_answers import RayAnswers
from ptune.experiments.cluster.ray_cluster import Cluster
from ptune.experiments.options import EvaluateConfig, GenerateConfig, PredictConfig
from ptune.lm.language_model import LanguageModel
from ptune.metrics import intervals, text_words
from ptune.metrics.labels import mean, parities
from ptune.model.prompt_model import Example, PromptModel, Row
from ptune.model.rows.examples import Shortening
from ptune.model.running.generate import write_all
from ptune.model.running.label_answers import check_one_label, confidence_of
from ptune.runs import identity
from ptune.settings import (
    DecodingConfig,
    DecodingOverrides,
    Device,
    Dtype,
    FileConfig,
    LayoutConfig,
    part_of,
)
from ptune.storage import prompt_folder
from ptune.survey.findings import rows_in_words
from ptune.survey.text_checks import unknown_text
from ptune.tasks.judging import judge_labels, judge_texts
from ptune.tasks.judging.label_details import LabelDetails
from ptune.tasks.layouts import submission
from ptune.tasks.layouts.forms import iterate, rows_of
from ptune.tasks.rows.row_labels import with_labels_of

ANSWERS_AT_ONCE = 64
NO_ANSWERS = (
    "prompt",
    "data",
    "out",
    "resume",
    "overwrite",
    "lm",
    "device",
    "skip_bad_lines",
    "submission",
    "shard_rows",
    "ray",
    "workers",
    "ray_cpus",
    "ray_gpus",
)
"""Options of the commands that do not decide what the answers are."""
STANDARD_INPUT = "standard input"


def evaluate(
    config: EvaluateConfig, report: Callable[[str], None] = terminal.print_line
) -> dict[str, float]:
    """Score a saved prompt (or the prompts of many users) on rows with right answers. The file is
    read, and the figures are computed, as those of the test rows were in training, where nothing
    else is asked for."""
    model = _model(config.prompt, config.lm, config.device, config.dtype)
    task = model.tasks[0].task
    skipped: list[str] | None = [] if config.skip_bad_lines else None
    rows = _rows_with_answers(config, task.layout, task.target, skipped=skipped, report=report)
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
            model,
            rows,
            _decoding(model, config.decoding),
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


def predict(config: PredictConfig, report: Callable[[str], None] = terminal.print_line) -> None:
    """Answer rows, as many at once as share a batch, and put them out in their order; see
    ``ptune.data.answer_files``."""
    run = _run_of(config, "ptune predict")
    _check_out(run)
    _check_ray(config)
    submitted: list[tuple[Row, str]] = []
    answering = _predicting(config, submitted)
    model = answering.model
    check_one_label(model, 0, config.coverage, config.at_least)
    if config.coverage is not None:
        _check_coverage(model, config.coverage, report)
    form = config.form or model.tasks[0].task.layout.form
    if config.submission is not None:
        _check_submission(config, form)
    if is_conll(config.out):
        _check_conll(config, model, form)
    _stream(answering, report, _workers(config))
    if config.submission is not None:
        files.write_text(config.submission, submission.text(form, submitted))
        report(f"For SuperGLUE's leaderboard: {config.submission}")
        if form == "ax-g":
            agree = parities([row["pair"] for row, _ in submitted], [one for _, one in submitted])
            if agree:
                report(f"gender-parity {mean(agree):.4f} on {len(agree)} pairs")
    if abstained := answering.noted.abstained:
        report(
            f"{rows_in_words(abstained)} without an answer: the best label has a probability below "
            f"{config.at_least:g} (--at-least)."
        )


def _predicting(config: PredictConfig, submitted: list[tuple[Row, str]]) -> Answering:
    """What answers rows by labels.

    Args:
        submitted: gets the rows of a submission with their answers.
    """
    model = _model(config.prompt, config.lm, config.device, config.dtype)

    def answers(batch: list[list[Example]]) -> Iterator[dict[str, Any]]:
        scores = iter(model.scores([example for examples in batch for example in examples]))
        for examples in batch:
            scores_of_row = [next(scores) for _ in examples]
            answer = model.answer(examples, scores_of_row, config.coverage, config.at_least)
            if config.submission is not None:
                submitted.append((examples[0].row, answer["prediction"]))
            yield {**answer, "scores": _best(answer, config.top)}

    run = _run_of(config, "ptune predict")
    return Answering(
        run,
        model,
        answers,
        room=0,
        most=ANSWERS_AT_ONCE,
        repeats=True,
        parts=_parts(model, config.coverage),
    )


def answering_apart(command: str, options: Mapping[str, Any]) -> Answering:
    """What answers rows in another process.

    Args:
        command: "predict" or "generate".
        options: those of the command.
    """
    if command == "predict":
        return _predicting(PredictConfig(**options), [])
    return _generating(GenerateConfig(**options))


def _workers(config: PredictConfig | GenerateConfig) -> RayAnswers | None:
    """The workers on a cluster that are to answer, if there are to be any."""
    if config.ray is None:
        return None
    options = config.model_dump(mode="json")
    options["prompt"] = str(config.prompt.resolve())  # workers are in other folders
    if config.lm is not None and pathlib.Path(config.lm).exists():
        options["lm"] = str(pathlib.Path(config.lm).resolve())
    command = "predict" if isinstance(config, PredictConfig) else "generate"
    make = partial(answering_apart, command, options)
    return RayAnswers(make, _cluster(config), config.workers)


def _cluster(config: PredictConfig | GenerateConfig) -> Cluster:
    return Cluster(config.ray, config.ray_cpus, config.ray_gpus)


def _check_ray(config: PredictConfig | GenerateConfig) -> None:
    """Refuse workers without a cluster, and a cluster for what is answered into one file.

    Raises:
        ConfigError: it is so.
    """
    ray_cluster.check(_cluster(config), "One process needs none.")
    if config.ray is None and config.workers != 1:
        raise ConfigError(
            "--workers are those on a Ray cluster: name it by --ray, or leave it out."
        )
    if config.ray is not None and not is_folder(config.out):
        raise ConfigError(
            "--ray is of answers that go into a folder, piece by piece: give --out a name without "
            "an ending, or leave it out."
        )


def _run_of(config: PredictConfig | GenerateConfig, command: str) -> AnswerRun:
    """What both commands that answer rows are told alike."""
    names = AnswerRun.__dataclass_fields__.keys() - {"command", "options", "deciding"}
    return AnswerRun(
        command=command,
        options=part_of(FileConfig, config),
        deciding=identity.deciding(config, NO_ANSWERS),
        **{name: getattr(config, name) for name in names},
    )


def _check_out(run: AnswerRun) -> None:
    """Refuse what answers cannot be written to, and rows that need a folder for their answers.

    Raises:
        ConfigError: the reason.
    """
    if is_folder(run.out):
        answer_shards.check(run)
        return
    if run.data is not None and is_table_of_files(run.data):
        check_matches(run.data)
        raise ConfigError(
            f"{run.data} may be many files, and their answers go into as many: give --out a "
            "folder, a name without an ending."
        )
    if run.shard_rows is not None:
        raise ConfigError(
            "--shard-rows is of answers that go into a folder: give --out a name without an "
            "ending, or leave it out."
        )
    if is_conll(run.out) and run.command != "ptune predict":
        raise ConfigError(
            f"{run.out}: a CoNLL file has a label for each word, and {run.command} writes texts: "
            "give --out a name that ends in .jsonl, .csv or .tsv."
        )
    path = pathlib.Path(run.data) if run.data is not None else None
    answer_files.check(run.out, path, run.resume or run.overwrite)


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
    if given := _first_given(lacking):
        raise ConfigError(
            f"A submission has an answer to every row, some of which {given} leaves out: leave "
            f"{given} out."
        )
    if config.data is None:
        raise ConfigError("A submission answers an official test file: name it with --data.")
    if is_folder(config.out):
        raise ConfigError("A submission is one file: leave --out out, or give it a file's name.")
    if config.submission is not None and config.submission.is_dir():
        name = submission.FILES[form]
        raise ConfigError(
            f"{config.submission} is a folder: name the file, as {config.submission / name}.jsonl."
        )


def _first_given(options: Mapping[str, object]) -> str | None:
    """The first of some options that has a value."""
    return next((name for name, value in options.items() if value), None)


def _check_conll(config: PredictConfig, model: PromptModel, form: str) -> None:
    """Refuse answers that are no CoNLL file.

    Raises:
        ConfigError: the reason.
    """
    advice = "give --out a name that ends in .jsonl, which takes all answers"
    if not all(isinstance(bound.verbalizer, WordLabels) for bound in model.tasks):
        raise ConfigError(
            f"{config.out}: a CoNLL file has a label for each word, and {config.prompt} gives one "
            f"answer to a row: {advice}."
        )
    if config.data is None or form != "conll":
        rows = config.data or STANDARD_INPUT.capitalize()
        raise ConfigError(
            f"{config.out}: answers as CoNLL are the lines of a CoNLL file with one more column, "
            f"and {rows} is read as {form if config.data else 'JSON lines'}: {advice}."
        )
    lacking = {
        "--resume": config.resume,
        "--skip-bad-lines": config.skip_bad_lines,
        "--explain": config.explain,
        "--top": config.top,
    }
    if given := _first_given(lacking):
        raise ConfigError(
            f"{config.out}: a CoNLL file has every word with its label, is written whole, and has "
            f"no room for more: leave {given} out, or {advice}."
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


def _parts(model: PromptModel, coverage: float | None) -> tuple[str, ...]:
    """The columns of an answer in a table."""
    verbalizer, parts = model.tasks[0].verbalizer, ("prediction", "probability")
    if isinstance(verbalizer, Extraction):
        return (*parts, "start", "end")
    if isinstance(verbalizer, WordLabels):
        return parts if verbalizer.rules == "plain" else (*parts, "entities")
    return parts if coverage is None else (*parts, "set")


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
    _check_out(_run_of(config, "ptune generate"))
    _check_ray(config)
    _stream(_generating(config), report, _workers(config))


def _generating(config: GenerateConfig) -> Answering:
    """What answers rows by written texts."""
    model = _model(config.prompt, config.lm, config.device, config.dtype)
    decoding = _decoding(model, config.decoding)

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

    room, most = decoding.max_new_tokens, decoding.rows
    run, repeats = _run_of(config, "ptune generate"), not decoding.sample
    parts = ("text",) if decoding.texts == 1 else ("texts",)
    return Answering(run, model, texts, room=room, most=most, repeats=repeats, parts=parts)


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


def _stream(
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


def _decoding(model: PromptModel, given: DecodingOverrides) -> DecodingConfig:
    """The task's own settings, with those that are given in their place."""
    try:
        return DecodingConfig.model_validate(
            {
                **model.tasks[0].task.decoding.model_dump(),
                **given.model_dump(exclude_none=True),
            }
        )
    except ValidationError as error:
        raise ConfigError(f"--decoding: {reason(error.errors()[0])}.") from error


def _model(prompt: pathlib.Path, lm_name: str | None, device: Device, dtype: Dtype) -> PromptModel:
    """The prompts of a folder, on the LM that is named, or on theirs."""
    lm = LanguageModel.load(lm_name, device=device, dtype=dtype) if lm_name is not None else None
    return prompt_folder.load(prompt_folder.folders_in(prompt), lm, device=device, dtype=dtype)


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
