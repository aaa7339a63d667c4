"""Training a task: its prompts, or the LM, saved with their figures on the test rows."""

import functools
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.base import terminal
from ptune.base.ranks import ALONE, Ranks, check_gpus
from ptune.errors import DivergedError, PtuneError
from ptune.experiments.beginning import learning_rate, transfer
from ptune.experiments.beginning.first_steps import Data
from ptune.experiments.estimate import estimate
from ptune.experiments.train import train_checks, train_model, train_results, train_setup
from ptune.experiments.train.train_results import Trained
from ptune.experiments.train.train_rows import TaskRows
from ptune.experiments.train.train_setup import CHECKPOINT, Setup, check_begun, entered
from ptune.lm.language_model import LanguageModel
from ptune.model.confidence import fit_confidence
from ptune.model.neighbours import keep_neighbours
from ptune.model.prompt_model import PromptModel, Row
from ptune.model.running import label_sets
from ptune.reports.schemas import Run
from ptune.runs.folder import RunFolder
from ptune.settings import DecodingConfig
from ptune.tasks import task_members
from ptune.tasks.judging import judge_texts
from ptune.tasks.pet_task import plan_of
from ptune.tasks.resolved import refusals, resolve
from ptune.tasks.resolved.parts import LMSource, Output, TrainingParts
from ptune.tasks.schema import TaskConfig
from ptune.template.encoding.visibility import idle_notes
from ptune.training.loop import Training, check_kept, fit_together
from ptune.training.methods import PET, Method
from ptune.training.pattern_exploiting import pet
from ptune.training.prompt_training import Pruner, TrainingHistory


@dataclass(frozen=True)
class Prepared:
    """A task whose rows are checked for its prompts, which are not trained yet.

    Attributes:
        tasks: the number of each prompt's task.
        data: the training and the dev rows by the number of their task.
        baselines: their figures.
        parameters: how many are trained, where prompts share some, which they do not keep.
    """

    model: PromptModel
    tasks: Mapping[str | None, int]
    data: Mapping[int, tuple[list[Row], list[Row]]]
    baselines: dict[str, dict[str, float]]
    parameters: int | None = None


def train(
    config: TaskConfig,
    report: Callable[[str], None] = terminal.print_line,
    ranks: Ranks = ALONE,
) -> Run:
    """Train the task's prompts (or the LM), save them in the out folder, and score the test rows,
    if there are any.

    Args:
        report: gets each line about the progress.
        ranks: the processes that train together, of which this is the first; the others call
            ``assist``.

    Raises:
        PtuneError: the task, its rows or the LM are at fault.
        DivergedError: the training, or that of one of the prompts, left no finite state to keep;
            that is not saved.
    """
    parts = _resolved(config, ranks)
    if ranks.calls_together and ranks.from_first(lambda: train_setup.is_finished(parts.output)):
        alone = replace(parts.source, device="cpu", sharding="none")
        return train_parts(replace(parts, source=alone), report)
    load = functools.partial(train_setup.load_lm, ranks=ranks)
    return train_parts(parts, report, load, ranks=ranks)


def assist(config: TaskConfig, ranks: Ranks) -> None:
    """Run a share of the rows of a training whose first process calls ``train``. Nothing is
    written, and the test rows are left to the first one; where the processes call the LM together,
    all that the first one does is done, in a folder that is thrown away.

    Raises:
        PtuneError: as ``train``.
    """
    parts = _resolved(config, ranks)
    if not ranks.calls_together:
        _assist(parts, ranks)
    elif not ranks.from_first(lambda: train_setup.is_finished(parts.output)):
        load = functools.partial(train_setup.load_lm, ranks=ranks)
        with tempfile.TemporaryDirectory() as folder:
            parts = replace(parts, output=Output(pathlib.Path(folder)))
            train_parts(parts, terminal.print_nothing, load, ranks=ranks)


def _assist(parts: TrainingParts, ranks: Ranks) -> None:
    """Run a share of the rows of a training, with the whole LM."""
    rows = TaskRows.read(parts.form, parts.data, terminal.print_nothing)
    lm = train_setup.load_lm(parts.source, parts.method)
    setup = Setup(
        parts=parts,
        rows=rows,
        lm=lm,
        start=train_setup.prompts_to_start_from(parts.source, lm),
        folder=RunFolder(parts.output.folder, "ptune train"),
        identity={},
        report=terminal.print_nothing,
        data_findings=(),
        sources=transfer.sources_in(parts.source.transfer, lm),
        ranks=ranks,
    )
    model, tasks = _build(setup)
    if ranks.begin():
        prepared = Prepared(model, tasks, _rows_of_tasks(rows, tasks), {})
        _begin_as_others(setup, prepared)
        _fit(with_rate(setup, prepared), prepared)


def _resolved(config: TaskConfig, ranks: Ranks) -> TrainingParts:
    """The parts of a training; what several processes cannot train together is refused."""
    if ranks.count == 1:
        parts = resolve.training(config)
        if parts.finds_batch_size:
            estimate.check(parts)
        return parts
    refusals.check_named(config)
    check_gpus(config.device, ranks)
    parts = resolve.training(config, ranks.count)
    refusals.check_ranks(parts.method, ranks.count)
    return parts


def train_parts(
    parts: TrainingParts,
    report: Callable[[str], None],
    load: Callable[[LMSource, Method], LanguageModel] = train_setup.load_lm,
    *,
    ranks: Ranks = ALONE,
    pruner: Pruner | None = None,
) -> Run:
    """A training whose configuration is resolved; see ``train``.

    Args:
        load: gives the LM, once all that can be told without it is.
        pruner: ends the training of a single prompt early, by how others did.
    """
    with entered(parts, report, load) as entered_setup:
        setup = replace(entered_setup, ranks=ranks, pruner=pruner)
        check_begun(setup)
        if train_setup.is_finished(parts.output):
            return train_results.finished_run(parts.output.folder, report)
        began = time.monotonic()
        is_pet = parts.method.name in PET
        trained = _train_pet(setup) if is_pet else _train_prompts(setup)
        return finish(setup, trained, time.monotonic() - began)


def finish(setup: Setup, trained: Trained, seconds: float) -> Run:
    """Save what was trained, score the test rows and write the report.

    Args:
        seconds: how long it took to train.

    Raises:
        DivergedError: that of ``trained``, once all else is saved.
    """
    output, form, report = setup.parts.output, setup.parts.form, setup.report
    model, tasks, rows = trained.model, trained.tasks, setup.rows
    if train_setup.is_weighted(form.combine, model.tasks[0].verbalizer is not None):
        train_checks.weigh(model, tasks, rows.of("dev", None), trained.histories)
    if train_setup.remembers_rows(form):
        keep_neighbours(model, list(tasks.values()), rows.of("train", None))
    _fit_confidence(trained, rows, scaled=form.reading.temperature == "dev")
    run = train_results.record(setup, trained, seconds)
    train_results.save(output.folder, model, tasks, method=trained.method, run=run)
    _score(setup, trained, run)
    train_results.save_figures(output.folder, run)
    train_results.report_figures(form, output.folder, run, report)
    if trained.lost:
        raise DivergedError(f"{trained.lost} All other prompts are saved.", trained.histories)
    return run


def _score(setup: Setup, trained: Trained, run: Run) -> None:
    """Score the test rows of the prompts that were trained, or of all in the folder.

    Raises:
        PtuneError: they cannot be scored; what was trained is saved.
    """
    form, output, rows = setup.parts.form, setup.parts.output, setup.rows
    try:
        if _is_beside_others(setup):
            scored = train_results.add_other_prompts(
                form, output.folder, setup.lm, rows=rows.by_prompt["test"], run=run
            )
            train_checks.report_left_out(rows, scored, setup.report)
        else:
            train_results.score_test_rows(form, trained.model, rows.scored(trained.tasks), run)
    except PtuneError as error:
        raise type(error)(
            f"{error} What was trained is saved in {output.folder}; ptune evaluate scores it."
        ) from error


def _is_beside_others(setup: Setup) -> bool:
    """Whether the folder holds prompts of an earlier run, beside which some are trained."""
    output = setup.parts.output
    return bool(output.only) and (output.folder / "run.json").exists()


def _train_pet(setup: Setup) -> Trained:
    """PET: its members label the unlabelled rows, and the classifier that learns from those is what
    the task keeps."""
    parts, lm, splits, report = setup.parts, setup.lm, setup.rows.splits, setup.report
    form, output, method = parts.form, parts.output, parts.method
    tasks: dict[str | None, int] = {None: 0}
    plan = plan_of(
        form,
        lm,
        method,
        task_members.members(form, method, lm),
        learning=parts.learning,
        pet=parts.pet,
        train=parts.train,
    )
    classifier = train_checks.untrained_classifier(lm, plan)
    train_checks.check_rows(
        classifier, tasks, setup.rows, splits=["test"], judging=form.judging, report=report
    )
    figures = train_results.baseline_figures(
        form, parts.data, lm, train=splits["train"], test=splits["test"]
    )
    if setup.folder.begun is None:
        pet.rehearse(lm, plan, splits["train"], dev=splits["dev"], unlabeled=splits["unlabeled"])
    setup.claim_folder()
    folder = output.folder / "pet"
    outcome = pet.pet(
        lm,
        plan,
        splits["train"],
        dev=splits["dev"],
        unlabeled=splits["unlabeled"],
        folder=folder,
        resume=output.resume,
        label=form.name,
        report=report,
        rehearsed=True,
        logs=setup.logs,
    )
    for member in outcome.members:
        report(
            f"{member.name}, generation {member.generation}: {member.rows} rows, weight "
            f"{member.weight:.3f}, dev {member.dev:.3f}"
        )
    report(f"Together on dev: {', '.join(f'{score:.3f}' for score in outcome.ensembles)}")
    _report_model(outcome.model, report)
    method = replace(method, tune="both")
    return Trained(
        model=outcome.model,
        tasks=tasks,
        method=method,
        baselines=figures,
        histories={0: outcome.trained},
    )


def prepare(
    setup: Setup, baseline_figures: train_results.Baselines = train_results.baseline_figures
) -> Prepared:
    """Make the prompts of the task, and check that all rows fit them.

    Args:
        baseline_figures: gives the figures of the baselines.

    Raises:
        PtuneError: something does not fit.
    """
    parts, rows = setup.parts, setup.rows
    form = parts.form
    model, tasks = _build(setup)
    splits = ["train", "dev", "test"]
    train_checks.check_rows(
        model,
        tasks,
        rows,
        splits=splits,
        judging=form.judging,
        report=setup.report,
        beside_others=_is_beside_others(setup),
    )
    scored = rows.splits["test"] if _is_beside_others(setup) else rows.scored(tasks)
    figures = baseline_figures(form, parts.data, setup.lm, train=rows.splits["train"], test=scored)
    _report_model(model, setup.report)
    parameters = None
    if parts.method.encoder == "multitask":
        numbers = list(tasks.values())
        parameters, _ = train_results.parameter_counts(model, numbers, parts.method)
    return Prepared(model, tasks, _rows_of_tasks(rows, tasks), figures, parameters)


def _build(setup: Setup) -> tuple[PromptModel, dict[str | None, int]]:
    """The model, and the number of each prompt's task."""
    parts = setup.parts
    model, tasks = train_model.build(
        setup.lm,
        setup.rows.by_prompt["train"],
        setup.start,
        form=parts.form,
        method=parts.method,
        learning=parts.learning,
        output=parts.output,
    )
    transfer.check(model, train_model.new_prompts(parts.output, tasks), setup.sources)
    return model, tasks


def _rows_of_tasks(rows: TaskRows, tasks: Mapping[str | None, int]) -> Data:
    """The training and the dev rows by the number of their task."""
    return {
        number: (rows.of("train", value), rows.of("dev", value)) for value, number in tasks.items()
    }


def _train_prompts(setup: Setup) -> Trained:
    """Train the prompts of the task, or the LM, or nothing."""
    parts, rows = setup.parts, setup.rows
    prepared = prepare(setup)
    model, tasks = prepared.model, prepared.tasks
    if parts.method.tune == "nothing":
        setup.claim_folder()
        _choose_thresholds(model, tasks, rows)
        return Trained(model, tasks, parts.method, prepared.baselines)
    if not is_begun(setup):
        tried = training_of(setup, prepared, train_checks.brief(parts.form))
        train_checks.rehearse(model, tasks, tried, rows, form=parts.form, method=parts.method)
    setup.claim_folder()
    _begin_as_others(setup, prepared)
    setup = with_rate(setup, prepared)
    histories = _fit(setup, prepared)
    return trained_of(setup, prepared, histories)


def is_begun(setup: Setup) -> bool:
    """Whether steps of the training were taken already."""
    begun, ranks = (setup.parts.output.folder / CHECKPOINT).exists(), setup.ranks
    return ranks.from_first(lambda: begun) if ranks.calls_together else begun


def _begin_as_others(setup: Setup, prepared: Prepared) -> None:
    """Let the new prompts begin as those of other tasks, where there are some to begin as."""
    parts = setup.parts
    new = train_model.new_prompts(parts.output, prepared.tasks)
    if setup.sources and new:
        transfer.begin(
            prepared.model,
            {task: prepared.data[task] for task in new},
            parts.train,
            sources=setup.sources,
            folder=parts.output.folder,
            report=setup.report,
            ranks=setup.ranks,
        )


def with_rate(setup: Setup, prepared: Prepared) -> Setup:
    """The same with the learning rate that is best on dev, where it is to be found."""
    parts, model, data = setup.parts, prepared.model, prepared.data
    if not parts.finds_rate:
        return setup
    rate = learning_rate.find(
        model, data, parts.train, folder=parts.output.folder, report=setup.report, ranks=setup.ranks
    )
    settings = parts.train.model_copy(update={"learning_rate": rate})
    return replace(setup, parts=replace(parts, train=settings))


def training_of(
    setup: Setup, prepared: Prepared, decoding: DecodingConfig | None = None
) -> Training:
    """What is trained, as the training loop takes it.

    Args:
        decoding: how texts are written for dev; by default as the task says.
    """
    parts = setup.parts
    return Training(
        prepared.data,
        parts.train,
        texts=judge_texts.dev_score(parts.form.judging.stop_by, decoding or parts.form.decoding),
        unlabeled=setup.rows.splits["unlabeled"],
        folder=parts.output.folder,
        resume=parts.output.resume,
        pruner=setup.pruner,
    )


def _fit(setup: Setup, prepared: Prepared) -> Mapping[int | str, TrainingHistory]:
    """Train, and return how it went for each task."""
    (histories,) = fit_together(
        prepared.model,
        [training_of(setup, prepared)],
        tune=setup.parts.method.tune,  # type: ignore[arg-type]
        label=setup.parts.form.name,
        logs=setup.logs,
        ranks=setup.ranks,
    )
    return histories


def trained_of(
    setup: Setup, prepared: Prepared, histories: Mapping[int | str, TrainingHistory]
) -> Trained:
    """What a training gave; of many prompts some may have diverged, which is raised when the others
    are saved.

    Args:
        histories: how it went for each task, by its number.

    Raises:
        DivergedError: no prompt is left.
    """
    parts, tasks, lost = setup.parts, prepared.tasks, None
    try:
        check_kept(
            prepared.model,
            histories,
            parts.train,
            parts.method.tune,  # type: ignore[arg-type]
        )
    except DivergedError as error:
        if not parts.form.prompt_by or all(history.best is None for history in histories.values()):
            raise
        lost = error
        tasks = {value: number for value, number in tasks.items() if histories[number].best}
    trained = Trained(
        model=prepared.model,
        tasks=tasks,
        method=parts.method,
        baselines=prepared.baselines,
        histories=histories,
        lost=lost,
        settings=parts.train,
        parameters=prepared.parameters,
    )
    train_results.report_training(setup, trained)
    return trained


def _choose_thresholds(model: PromptModel, tasks: Mapping[str | None, int], rows: TaskRows) -> None:
    """Choose, where a row may have several labels, from which probability it has one."""
    for value, number in tasks.items():
        if dev := rows.of("dev", value):
            label_sets.choose_threshold(model, number, model.encode(number, dev))


def _fit_confidence(trained: Trained, rows: TaskRows, scaled: bool) -> None:
    """Let the prompts keep what their dev rows say about their probabilities."""
    if not rows.prompt_by:
        tasks = list(trained.tasks.values())
        fit_confidence(trained.model, tasks, rows.of("dev", None), scaled)
        return
    for value, number in trained.tasks.items():
        fit_confidence(trained.model, [number], rows.of("dev", value), scaled)


def _report_model(model: PromptModel, report: Callable[[str], None]) -> None:
    """Report what the model does otherwise than its template and label words say."""
    dropped = dict.fromkeys(bound.dropped for bound in model.tasks if bound.dropped)
    if dropped:
        report(
            "Left out of the template, since a causal LM cannot see it: " + " and ".join(dropped)
        )
    templates = dict.fromkeys(bound.template for bound in model.tasks)
    for note in [n for t in templates for n in idle_notes(t, model.lm.tokens, model.lm.kind)]:
        report(note)
    verbalizers = [
        bound.verbalizer
        for bound in model.tasks
        if bound.task.reader.scores_words and isinstance(bound.verbalizer, BoundVerbalizer)
    ]
    notes = [note for verbalizer in verbalizers for note in verbalizer.notes]
    for note in dict.fromkeys(notes):
        report(note)
