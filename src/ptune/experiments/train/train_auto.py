"""``ptune train`` with ``method: auto``: methods are tried on the labelled rows, and the best one
is trained on all of them. The test rows are only scored in the end."""

import importlib.metadata
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ptune.base import files, terminal
from ptune.experiments.train import (
    train_checks,
    train_findings,
    train_results,
    train_setup,
)
from ptune.experiments.train.train_rows import TaskRows, texts_that_are_read
from ptune.lm.language_model import LanguageModel
from ptune.metrics.labels import TFIDF
from ptune.model.prompt_model import Row
from ptune.reports.schemas import Run
from ptune.runs import identity
from ptune.runs.folder import RunFolder, working_in
from ptune.selection import training
from ptune.selection.candidates import Candidate, candidates
from ptune.selection.choice import FOLDS, MINUTES, Selection, choose
from ptune.selection.training import Chosen
from ptune.survey.text_checks import unknown_text
from ptune.tasks.judging import judge_labels
from ptune.tasks.resolved import resolve
from ptune.tasks.resolved.parts import SelectionParts
from ptune.tasks.schema import AUTO, TaskConfig

SELECTION = "selection.json"
LEARNED = ("train", "dev")


def train(config: TaskConfig, report: Callable[[str], None] = terminal.print_line) -> Run:
    """Choose a method for the task, train it on all labelled rows, save the result in the out
    folder, and score the test rows, if there are any.

    Args:
        report: gets each line about the progress.

    Raises:
        PtuneError: the task, its rows or the LM are at fault, or no method fits.
    """
    parts = resolve.selection(config)
    output = parts.output
    with working_in(output.folder, "ptune train", output.resume) as folder:
        return _train_in(parts, folder, report)


def _train_in(parts: SelectionParts, folder: RunFolder, report: Callable[[str], None]) -> Run:
    form, output, source = parts.form, parts.output, parts.source
    rows = TaskRows.read(form, parts.data, report)
    judge_labels.check_metrics(form, rows.splits["test"] or rows.splits["train"])
    data_findings = train_findings.of_rows(form, rows.splits, LEARNED)
    labelled = [row for split in LEARNED for row in rows.splits[split]]
    lm = LanguageModel.load(
        source.name, device=source.device, dtype=source.dtype, tuned=parts.tunes_lm
    )
    texts = texts_that_are_read(form, rows.splits)
    for sentence in unknown_text.check(texts, lm.tokens, parts.allow_unknown):
        report(sentence)
    whole = {"lm": identity.of_lm(lm), **identity.with_contents(parts.deciding)}
    if folder.begun is not None:
        folder.claim(whole)
    if train_setup.is_finished(output):
        return train_results.finished_run(output.folder, report)
    _check_rows(parts, lm, rows, labelled=labelled, report=report)
    baselines = train_results.baseline_figures(
        form, parts.data, lm, train=labelled, test=rows.splits["test"]
    )
    if folder.begun is None:
        folder.claim(whole)
    began = time.monotonic()
    selection, chosen = _select(
        parts, lm, labelled, unlabeled=rows.splits["unlabeled"], whole=whole, report=report
    )
    trained = training.train(
        chosen,
        lm,
        labelled,
        folder=output.folder,
        resume=output.resume,
        confidence=selection.confidence,
    )
    seconds = time.monotonic() - began
    run = _record(parts, lm, rows, selection=selection, chosen=chosen, trained=trained)
    run.seconds["train"] = round(seconds, 1)
    run.baselines, run.data_findings = baselines, data_findings
    method = replace(chosen[0].method, tune=chosen[0].method.tune if len(chosen) == 1 else "prompt")
    train_results.save(output.folder, trained.model, trained.tasks, method=method, run=run)
    train_results.score_test_rows(form, trained.model, rows.splits["test"], run)
    train_results.save_figures(output.folder, run)
    train_results.report_figures(form, output.folder, run, report)
    return run


def _check_rows(
    parts: SelectionParts,
    lm: LanguageModel,
    rows: TaskRows,
    *,
    labelled: Sequence[Row],
    report: Callable[[str], None],
) -> None:
    """Refuse rows that do not fit the cheapest method, before anything is tried."""
    cheapest = candidates(parts.form, lm, parts.tunes_lm, learning=parts.learning)[:1]
    model, tasks = training.untrained(cheapest, lm, labelled)
    splits = ["train", "dev", "test"]
    judging = parts.form.judging
    train_checks.check_rows(model, tasks, rows, splits=splits, judging=judging, report=report)


def _select(
    parts: SelectionParts,
    lm: LanguageModel,
    rows: Sequence[Row],
    *,
    unlabeled: Sequence[Row],
    whole: Mapping[str, Any],
    report: Callable[[str], None],
) -> tuple[Selection, list[Candidate]]:
    """What is chosen; what was tried before the run was stopped is not tried again.

    Args:
        whole: all that the outcome of the run depends on.
    """
    folder = parts.output.folder
    selection, chosen = choose(
        parts.form,
        lm,
        rows,
        learning=parts.learning,
        pet=parts.pet,
        unlabeled=unlabeled,
        minutes=parts.minutes or MINUTES,
        tune_lm=parts.tunes_lm,
        report=report,
        folder=folder,
        identity=identity.of_value(whole),
    )
    files.write_json(folder / SELECTION, selection.model_dump(mode="json"))
    for sentence in account(selection):
        report(sentence)
    return selection, chosen


def account(selection: Selection) -> list[str]:
    """Sentences that say what was chosen, how sure that is, and whether another LM would be
    better."""
    titles = {attempt.name: attempt.title for attempt in selection.attempts}
    chosen = " and ".join(titles[name] for name in selection.chosen)
    together = ", which answer together" if len(selection.chosen) > 1 else ""
    sureness = "There was time for nothing else (--minutes)."
    if selection.sureness is not None:
        sureness = (
            f"In {selection.sureness:.0f} of 100 redraws of these rows nothing else that was tried "
            "is ahead."
        )
    held_out = f"each held out once in {FOLDS} folds"
    if selection.folds < FOLDS:
        held_out = f"held out in {selection.folds} of {FOLDS} folds for want of time"
    sentences = [
        f"Chosen: {chosen}{together}: {selection.metric} {selection.figure:.3f} on "
        f"{selection.rows} rows, {held_out}. {sureness}"
        f"{_untried(selection)} It is trained on all labelled rows."
    ]
    words = next((attempt for attempt in selection.attempts if attempt.name == TFIDF), None)
    same_rows = selection.folds == FOLDS
    if words is not None and same_rows and (words.figure or 0.0) > selection.figure:
        sentences.append(
            f"TF-IDF with logistic regression, which is no prompt and is not kept, had "
            f"{words.figure:.3f} on the same rows: this LM's vectors say less of these texts than "
            "their words do. A sentence encoder such as sentence-transformers/all-MiniLM-L6-v2 "
            "(--lm) says more."
        )
    return sentences


def _untried(selection: Selection) -> str:
    """A sentence that names what there was no time for, and how many minutes would do."""
    untried = [attempt for attempt in selection.attempts if attempt.estimate]
    if not untried:
        return ""
    seconds = sum(attempt.seconds + attempt.estimate for attempt in selection.attempts)
    return (
        f" Not tried for want of time: {', '.join(attempt.title for attempt in untried)}; "
        f"--minutes {math.ceil(seconds / 60)} would try {'them' if len(untried) > 1 else 'it'}."
    )


def _record(
    parts: SelectionParts,
    lm: LanguageModel,
    rows: TaskRows,
    *,
    selection: Selection,
    chosen: Sequence[Candidate],
    trained: Chosen,
) -> Run:
    """What run.json says before the test rows are scored."""
    names = {number: trained.model.tasks[number].task.name for number in trained.tasks.values()}
    histories = {names[number]: history for number, history in trained.histories.items()}
    counts = [
        train_results.parameter_counts(trained.model, [number], candidate.method)
        for candidate, number in zip(chosen, trained.tasks.values())
    ]
    best: dict[str, dict[str, Any]] = {
        name: {**vars(history.best), "dev": selection.figure}
        for name, history in histories.items()
        if history.best
    }
    return Run(
        name=parts.form.name,
        method=AUTO,
        title=parts.title or f"auto: {' and '.join(one.method.title for one in chosen)}",
        template=" | ".join(candidate.member.template for candidate in chosen),
        lm=parts.source.name,
        lm_parameters=sum(parameter.numel() for parameter in lm.model.parameters()),
        rows=rows.counts(),
        history={
            name: [vars(evaluation) for evaluation in history.history]
            for name, history in histories.items()
        },
        best=best,
        dev_score=f"{selection.metric} of rows held out",
        settings=dict(parts.settings),
        versions={
            name: importlib.metadata.version(name) for name in ("ptune", "torch", "transformers")
        },
        trained_parameters=sum(count for count, _ in counts),
        kept_parameters=sum(count for _, count in counts),
        train=chosen[0].settings(len(rows.splits["train"])).model_dump(mode="json")
        if histories
        else {},
        steps={name: history.step for name, history in histories.items()},
        selection=selection.model_dump(mode="json"),
    )
