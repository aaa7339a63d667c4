"""``ptune predict``: saved prompts answer rows with labels."""

import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ptune.answers.extraction import Extraction
from ptune.answers.word_labels import WordLabels
from ptune.base import files, terminal
from ptune.base.file_names import partial_file, partial_note
from ptune.data import output_files
from ptune.data.answer_files import OVERWRITE, is_conll, is_folder
from ptune.errors import ConfigError
from ptune.experiments.answering.answer_checks import (
    check_coverage,
    check_out,
    check_ray,
    first_given,
    run_of,
)
from ptune.experiments.answering.saved_model import load_model
from ptune.experiments.answering.streams.answer_batches import Answering
from ptune.experiments.answering.streams.stream import STANDARD_INPUT, answer_all, workers_of
from ptune.experiments.cluster.ray_cluster import RayOptions
from ptune.experiments.options import PredictConfig
from ptune.metrics.labels import mean, parities
from ptune.model.prompt_model import Example, PromptModel, Row
from ptune.model.running.label_answers import check_one_label
from ptune.settings import part_of
from ptune.survey.findings import rows_in_words
from ptune.tasks.layouts import submission

ANSWERS_AT_ONCE = 64


def predict(config: PredictConfig, report: Callable[[str], None] = terminal.print_line) -> None:
    """Answer rows, as many at once as share a batch, and put them out in their order; see
    ``ptune.data.answer_files``."""
    run = run_of(config, "ptune predict")
    ray = part_of(RayOptions, config)
    check_out(run)
    check_ray(ray, config.out)
    submitted: list[tuple[Row, str]] = []
    answering = _predicting(config, submitted)
    model = answering.model
    check_one_label(model, 0, config.coverage, config.at_least)
    if config.coverage is not None:
        check_coverage(model, config.coverage, report)
    form = config.form or model.tasks[0].task.layout.form
    if config.submission is not None:
        _check_submission(config, config.submission, form)
    if is_conll(config.out):
        _check_conll(config, model, form)
    if config.top is not None and isinstance(model.tasks[0].verbalizer, WordLabels):
        raise ConfigError(
            f"--top leaves out scores of labels, and {config.prompt} gives each word the score of "
            "its own label alone: leave --top out."
        )
    answer_all(
        answering, report, workers_of(ray, config.model_dump(mode="json"), _predicting_apart)
    )
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
    model = load_model(config.prompt, config.lm, config.device, config.dtype)

    def answers(batch: list[list[Example]]) -> Iterator[dict[str, Any]]:
        scores = iter(model.scores([example for examples in batch for example in examples]))
        for examples in batch:
            scores_of_row = [next(scores) for _ in examples]
            answer = model.answer(examples, scores_of_row, config.coverage, config.at_least)
            if config.submission is not None:
                submitted.append((examples[0].row, answer["prediction"]))
            yield {**answer, "scores": _best(answer, config.top)}

    run = run_of(config, "ptune predict")
    return Answering(
        run,
        model,
        answers,
        room=0,
        most=ANSWERS_AT_ONCE,
        repeats=True,
        parts=_parts(model, config.coverage),
    )


def _predicting_apart(options: Mapping[str, Any]) -> Answering:
    return _predicting(PredictConfig(**options), [])


def _check_submission(config: PredictConfig, path: pathlib.Path, form: str) -> None:
    """Refuse a submission that would lack answers, is of other rows, or whose place is taken.

    Raises:
        ConfigError: the reason.
    """
    submission.check(form)
    lacking = {
        "--resume": config.resume,
        "--at-least": config.at_least,
        "--skip-bad-lines": config.skip_bad_lines,
    }
    if given := first_given(lacking):
        raise ConfigError(
            f"A submission has an answer to every row, some of which {given} leaves out: leave "
            f"{given} out."
        )
    if config.data is None:
        raise ConfigError("A submission answers an official test file: name it with --data.")
    if is_folder(config.out):
        raise ConfigError("A submission is one file: leave --out out, or give it a file's name.")
    if path.is_dir():
        name = submission.FILES[form]
        raise ConfigError(f"{path} is a folder: name the file, as {path / name}.jsonl.")
    out = config.out
    answers = (out, partial_file(out), partial_note(out)) if out is not None else ()
    if any(output_files.is_same(path, file) for file in answers):
        raise ConfigError(
            f"--submission {path} would overwrite the answers of --out {out}: choose another name."
        )
    output_files.check(
        path,
        "--submission",
        may_replace=config.overwrite,
        advice=OVERWRITE,
        read_from=pathlib.Path(config.data),
    )


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
    if given := first_given(lacking):
        raise ConfigError(
            f"{config.out}: a CoNLL file has every word with its label, is written whole, and has "
            f"no room for more: leave {given} out, or {advice}."
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
