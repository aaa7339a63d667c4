"""``ptune distil``: a prefix for each document, trained together as banks."""

import contextlib
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import ValidationError

from ptune.base import files, terminal
from ptune.base.file_names import file_name
from ptune.documents import earlier_run, read_documents
from ptune.documents.earlier_run import EarlierDocument
from ptune.documents.judge import PREFIX, judge, read_questions
from ptune.documents.options import TRAINING, DistilConfig
from ptune.documents.read_documents import SAVED, Document, SavedDocument
from ptune.documents.teaching import attended_start, lessons, starts, study
from ptune.documents.teaching.lessons import Lessons, Teaching
from ptune.documents.teaching.study import Study
from ptune.errors import ConfigError, DataError, DivergedError, StoreError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel
from ptune.reports.pages import documents_page
from ptune.reports.trial_results import DocumentResult, JudgedContext
from ptune.runs import identity
from ptune.runs.folder import RunFolder, working_in
from ptune.runs.logs.open_logs import check_logs, opened_logs
from ptune.runs.logs.training_log import TrainingLog
from ptune.runs.trials import JsonResults, Trial, run_trials
from ptune.runs.without_trace import without_trace
from ptune.settings import TrainConfig, part_of
from ptune.storage import peft_format, prompt_folder
from ptune.survey.text_checks import unknown_text
from ptune.training.loop import account, fit, lower_rates
from ptune.training.prompt_training import TrainingHistory
from ptune.training.rehearsal import short

SIDE = {
    *("documents", "text", "name", "lm", "out", "judge", "beside", "resume", "device", "dtype"),
    *("train", "previous"),
}
"""Options that decide no result, or stand in the identity under another name."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained, and how.

    Attributes:
        out: the folder of the run.
        together: how many documents are trained in one batch.
        identity: all that decides the results, the documents aside.
        previous: the folder of an earlier run.
        earlier: what an earlier run made of these documents, by their names.
        logs: what gets the figures of trainings while they run.
    """

    teaching: Teaching
    lm: LanguageModel
    lessons: Sequence[Lessons]
    settings: TrainConfig
    out: pathlib.Path
    together: int
    identity: Mapping[str, Any]
    previous: pathlib.Path | None
    earlier: Mapping[str, EarlierDocument]
    logs: Sequence[TrainingLog] = ()

    def of(self, name: str) -> Lessons:
        """The lessons of a document."""
        return next(one for one in self.lessons if one.document.name == name)


def distil(
    config: DistilConfig, report: Callable[[str], None] = terminal.print_line
) -> list[DocumentResult]:
    """Train a prefix for each document, and save them as prompts.

    Raises:
        PtuneError: documents, LM or settings are at fault; that is told before the first step.
    """
    lessons.check_template(config.template)
    documents = read_documents.read(config.documents, config.text, config.name)
    names = [document.name for document in documents]
    questions = read_questions(config.judge, names) if config.judge else []
    for other in config.beside:
        judged_in(other)
    check_logs(config.log)
    settings = config.model_dump(mode="json")
    with (
        working_in(config.out, "ptune distil", config.resume) as folder,
        opened_logs(config.log, config.out, settings) as logs,
    ):
        plan = replace(_plan(config, documents, report), logs=logs)
        if folder.begun is None:
            _rehearse(replace(plan, logs=()))
        _claim(folder, plan)
        plan = _with_written(plan)
        run = functools.partial(_run_bank, plan, report)
        on_result = functools.partial(_report_result, report)
        trials = _trials(plan)
        _keep_unchanged(plan, trials, report)
        results = run_trials(
            trials, config.out, run=run, results=JsonResults(DocumentResult), on_result=on_result
        )
        results.sort(key=lambda result: names.index(result.document))
        _check_learned(plan, results, report)
        _finish(config, documents, results, judged=_judge(plan, questions, results), report=report)
    return results


def _plan(
    config: DistilConfig, documents: Sequence[Document], report: Callable[[str], None]
) -> Plan:
    """Load the LM, and check that the documents fit it."""
    names = [document.name for document in documents]
    given = study.read(config.study, names) if config.study else []
    lm = LanguageModel.load(config.lm, device=config.device, dtype=config.dtype)
    check_lm(lm)
    if config.start == "attended":
        attended_start.check(lm)
    texts = [(document.place, [document.text]) for document in documents]
    for sentence in unknown_text.check(texts, lm.tokens, config.allow_unknown):
        report(sentence)
    teaching = part_of(Teaching, config)
    planned = [
        lessons.plan(
            teaching, lm, document, [text for text in given if text.document == document.name]
        )
        for document in documents
    ]
    settings = TRAINING.replaced(config.train.model_dump())
    whole = {
        "lm": identity.of_lm(lm),
        "settings": identity.of_settings(config, without=SIDE),
        "train": identity.of_settings(settings),
    }
    earlier = earlier_run.read(config.previous, names, lm) if config.previous else {}
    return Plan(
        teaching=teaching,
        lm=lm,
        lessons=planned,
        settings=settings,
        out=config.out,
        together=config.together,
        identity=whole,
        previous=config.previous,
        earlier=earlier,
    )


def check_lm(lm: LanguageModel) -> None:
    """Refuse an LM that cannot have a document in its context while it is asked.

    Raises:
        ConfigError: it is such an LM, with the reason.
        ModelError: it takes no prefix.
    """
    if lm.kind != "causal":
        raise ConfigError(
            f"{lm.source} is {'a masked LM' if lm.kind == 'masked' else f'an {lm.kind}'}, and "
            "documents are asked through a causal LM, which writes on behind them."
        )
    if not lm.takes_contexts:
        reason = lm.capabilities.kept_contexts.note
        raise ConfigError(f"{lm.source} cannot have a document before its rows: {reason}.")
    assert lm.route is not None


def _claim(folder: RunFolder, plan: Plan) -> None:
    """Mark the folder with what the run is, and keep the documents."""
    hashes = {one.document.name: one.document.identity for one in plan.lessons}
    folder.claim({**plan.identity, "documents": hashes})
    if not (folder.path / SAVED).exists():
        documents = [one.document for one in plan.lessons]
        saved = [SavedDocument(name=one.name, text=one.text) for one in documents]
        study.write(folder.path / SAVED, saved)


def _with_written(plan: Plan) -> Plan:
    """Let the LM write study text where that is asked for, and keep all that is learned from. What
    it has written of a document is read where the run was stopped after that."""
    file = plan.out / "study.jsonl"
    if plan.teaching.written:
        parts = plan.out / "written"
        lessons_of = [_written_once(plan, one, parts) for one in plan.lessons]
        plan = replace(plan, lessons=lessons_of)
    if not file.exists():
        study.write(file, [text for one in plan.lessons for text in one.texts])
    return plan


def _written_once(plan: Plan, one: Lessons, folder: pathlib.Path) -> Lessons:
    """The lessons of a document with what the LM writes of it, which is kept in a file."""
    file = folder / f"{file_name(one.document.name)}.jsonl"
    if file.exists():
        return replace(one, texts=(*one.texts, *study.read_written(file)))
    whole = lessons.with_written(plan.teaching, plan.lm, one)
    study.write(file, whole.texts[len(one.texts) :])
    return whole


def _trials(plan: Plan) -> list[Trial]:
    """A trial for each document, those whose prompts are kept first; those that are trained in one
    batch have the same bank."""
    kept: list[Trial] = []
    learned: list[Trial] = []
    for one in plan.lessons:
        trial, earlier = _trial(plan, one), plan.earlier.get(one.document.name)
        is_kept = earlier is not None and earlier.is_of(trial.record)
        (kept if is_kept else learned).append(trial)
    banks = [number // plan.together for number in range(len(learned))]
    return kept + [
        replace(trial, bank=bank, scratch=f"training-{bank}") for trial, bank in zip(learned, banks)
    ]


def _trial(plan: Plan, one: Lessons) -> Trial:
    """The trial of a document."""
    name = one.document.name
    decides = {
        "document": one.document.identity,
        "study": identity.of_rows(text.model_dump() for text in one.texts),
        "length": one.length,
    }
    if earlier := plan.earlier.get(name):
        decides["begins"] = earlier.identity
    return Trial(
        method="document",
        task=name,
        seed=plan.teaching.seed,
        shots=0,
        settings={**plan.identity, **decides},
        file=f"results/{file_name(name)}.json",
        scratch=f"training-{file_name(name)}",
    )


def _keep_unchanged(plan: Plan, trials: Sequence[Trial], report: Callable[[str], None]) -> None:
    """Take over what an earlier run made of documents that are as they were, and tell what the
    others begin as."""
    for trial in trials:
        if earlier := plan.earlier.get(trial.task):
            if trial.bank is None:
                earlier_run.keep(earlier, trial, plan.out)
                report(f"{trial.task} is as it was in {plan.previous}: its prompt is kept.")
            else:
                report(f"{trial.task} goes on from its prefix in {plan.previous}.")


def _rehearse(plan: Plan) -> None:
    """Train two documents on two of their texts for one step, and keep nothing, so that what
    cannot be trained shows at once."""
    some = [
        Lessons(
            document=one.document,
            ids=one.ids,
            length=one.length,
            texts=_few(one),
            stretches=one.stretches,
        )
        for one in plan.lessons[:2]
    ]
    trial = replace(plan, lessons=some, settings=short(plan.settings))
    with without_trace(plan.lm, False):
        _train(trial, some, None)


def _few(one: Lessons) -> tuple[Study, ...]:
    """Two texts to learn from and one that is held out."""
    learned = [text for text in one.texts if not text.held_out]
    return (*learned[-2:], *[text for text in one.texts if text.held_out][:1])


def _run_bank(
    plan: Plan,
    report: Callable[[str], None],
    trials: Sequence[Trial],
    scratch: pathlib.Path | None,
) -> Iterator[DocumentResult]:
    """Train the documents of one bank together, and save each."""
    some = [plan.of(trial.task) for trial in trials]
    model, histories = _train(plan, some, scratch)
    for number, one in enumerate(some):
        history = histories[number]
        for sentence in account(one.document.name, history, plan.settings):
            report(sentence)
        if history.best is not None:
            figures = {"held-out divergence": history.best.dev_loss}
            folder = lessons.prompt_of(plan.out, one.document.name)
            prompt_folder.save(model, folder, task=number, metrics=figures)
            with contextlib.suppress(ConfigError):  # where PEFT cannot say the same
                peft_format.export(model, folder, number, cartridge=True)
        yield _result(plan, one, history)


def _train(
    plan: Plan, some: Sequence[Lessons], scratch: pathlib.Path | None
) -> tuple[PromptModel, dict[Any, TrainingHistory]]:
    """Train the prefixes of some documents as one bank.

    Returns:
        The model, and how each training went, by the number of its task.
    """
    model = PromptModel(plan.lm)
    data = {}
    for one in some:
        earlier = plan.earlier.get(one.document.name)
        number = add(plan.teaching, model, one, earlier.vectors if earlier else None)
        kept = scratch and scratch / f"teacher-{file_name(one.document.name)}.safetensors"
        data[number] = lessons.rows(plan.teaching, model, number, lessons=one, kept=kept)
    names = [one.document.name for one in some]
    label = f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
    try:
        histories = fit(
            model,
            data,
            plan.settings,
            folder=scratch,
            resume=True,
            label=f"distil {label}",
            logs=plan.logs,
        )
    except DivergedError as error:
        return model, error.trained
    return model, histories


def add(
    teaching: Teaching,
    model: PromptModel,
    one: Lessons,
    earlier: torch.Tensor | None = None,
) -> int:
    """Put a document's prefix into a model, at its beginning; return the number of its task.

    Args:
        earlier: a prefix of it that was trained already.
    """
    task = lessons.task_of(teaching, one.document.name, one.length)
    prefix = starts.prefix(
        model.lm,
        one.ids,
        one.length,
        teaching.start,
        stretches=[model.lm.tokens.start(stretch.text) for stretch in one.stretches],
        slice_tokens=teaching.slice_tokens,
        anchored=teaching.anchored,
        seed=teaching.seed,
        earlier=earlier,
    )
    return model.add(task, prefix=prefix)


def _result(plan: Plan, one: Lessons, history: TrainingHistory) -> DocumentResult:
    vector = plan.lm.route.width * plan.lm.dtype.itemsize
    learned = [text for text in one.texts if not text.held_out]
    return DocumentResult(
        document=one.document.name,
        tokens=len(one.ids),
        length=one.length,
        document_bytes=len(one.ids) * vector,
        prefix_bytes=one.length * vector,
        slices=sum(text.start is not None for text in learned),
        given=sum(text.start is None and not text.written for text in learned),
        written=sum(bool(text.written) for text in learned),
        held_out=len(one.texts) - len(learned),
        history=history.history,
        best=history.best,
        steps=history.step,
        diverged=history.diverged,
    )


def _report_result(report: Callable[[str], None], result: DocumentResult) -> None:
    """A line as soon as a document is learned."""
    smaller = result.tokens / result.length
    end = (
        f"held-out divergence {result.best.dev_loss:.3f} after {result.best.step} steps"
        if result.best
        else "its training diverged, and nothing is kept"
    )
    report(
        f"{result.document}: {result.tokens} tokens, {result.length} vectors ({smaller:.1f} times "
        f"smaller), {end}"
    )


def _check_learned(
    plan: Plan, results: Sequence[DocumentResult], report: Callable[[str], None]
) -> None:
    """Say which trainings diverged.

    Raises:
        DivergedError: every one did.
    """
    rate = lower_rates(plan.settings, "prompt")
    if not any(result.best for result in results):
        raise DivergedError(f"Every training diverged, so no prompt is saved: {rate}.")
    if lost := [result.document for result in results if result.best is None]:
        report(f"The training of {', '.join(lost)} diverged, and no prompt is saved: {rate}.")


def _finish(
    config: DistilConfig,
    documents: Sequence[Document],
    results: Sequence[DocumentResult],
    *,
    judged: Sequence[JudgedContext],
    report: Callable[[str], None],
) -> None:
    """Write results.json and the page, and tell what has changed meanwhile."""
    judged_beside = itertools.chain.from_iterable(map(judged_in, config.beside))
    beside = [one for one in judged_beside if one.kind == PREFIX]
    files.write_json(
        config.out / "results.json",
        {
            "lm": config.lm,
            "documents": [result.model_dump(mode="json") for result in results],
            "judged": [one.model_dump(mode="json") for one in judged],
            "versions": identity.versions(),
        },
    )
    documents_page.write(config.lm, results, judged=judged, beside=beside, folder=config.out)
    for sentence in filter(None, [documents_page.answer(judged)]):
        report(sentence)
    report(f"Saved in {config.out}; ask them: ptune ask {config.out} QUESTION")
    for name in changed_since(config, documents):
        report(
            f"{name} is not as it was when this run began, which went on with the text that it "
            f"had read: for the new text, distil into another --out with --previous {config.out}."
        )


def _judge(
    plan: Plan, questions: Sequence[Study], results: Sequence[DocumentResult]
) -> list[JudgedContext]:
    """How likely the answers to questions are with what was saved; nothing without questions."""
    saved = [result.document for result in results if result.best]
    if not any(one.document in saved for one in questions):
        return []
    folders = [lessons.prompt_of(plan.out, name) for name in saved]
    return judge(prompt_folder.load(folders, plan.lm), plan.lessons, questions)


def judged_in(folder: pathlib.Path) -> list[JudgedContext]:
    """What a run's judging gave, from its out folder.

    Raises:
        StoreError: there is no run that was judged.
    """
    content = files.read_json(folder / "results.json")
    try:
        judged = [JudgedContext.model_validate(one) for one in content["judged"]]
    except (KeyError, TypeError, ValidationError) as error:
        raise StoreError(f"{folder} is no out folder of ptune distil.") from error
    if not judged:
        raise StoreError(f"{folder} was not judged: do so with --judge QUESTIONS --resume.")
    return judged


def changed_since(config: DistilConfig, documents: Sequence[Document]) -> list[str]:
    """The documents that are not as they were when they were read, or are no longer there."""
    try:
        now = read_documents.read(config.documents, config.text, config.name)
    except DataError:
        now = []
    texts = {document.name: document.text for document in now}
    return [one.name for one in documents if texts.get(one.name) != one.text]
