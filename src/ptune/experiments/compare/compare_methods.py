"""One method on one few-shot split: its pattern is chosen, it is trained, and its answers to the
test rows are scored."""

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ptune.answers.from_row import Choices
from ptune.base.ranks import ALONE, Ranks
from ptune.errors import DivergedError, TemplateError
from ptune.experiments.compare import demonstrations
from ptune.experiments.compare.compare_rows import FewShotSplit, readable_members
from ptune.experiments.train.train_results import parameter_counts
from ptune.lm.language_model import LanguageModel
from ptune.metrics.labels import BASELINES, MAJORITY, labelled, mean, most_frequent
from ptune.model.confidence import fit_confidence
from ptune.model.prompt_model import PromptModel, Row
from ptune.reports.trial_results import EnsembleMember, MethodOutcome, PatternResult
from ptune.runs.logs.training_log import TrainingLog
from ptune.settings import TrainConfig, TrainOverrides
from ptune.tasks import model_task, task_members
from ptune.tasks.judging import baselines
from ptune.tasks.judging.judge_labels import judge, question
from ptune.tasks.judging.label_details import LabelDetails
from ptune.tasks.pet_task import plan_of
from ptune.tasks.resolved.task_form import TaskForm
from ptune.tasks.rows import few_shot
from ptune.tasks.task_members import Member
from ptune.training.loop import account, fit
from ptune.training.methods import Method
from ptune.training.methods import method as method_of
from ptune.training.pattern_exploiting import pet
from ptune.training.pattern_exploiting.pet_plan import Plan


@dataclass(frozen=True)
class Procedure:
    """How a comparison runs every method, whatever the task.

    Attributes:
        steps: of each training at most.
        evaluations: looks at dev during a training.
        overrides: settings of training in the place of the methods' and the tasks' own.
        select: which pattern and words a method takes: "first", "zero-shot" or "splits".
        halves: how many random halves of the rows decide, with "splits".
        demonstrations: how many rows of each label stand before a row; None for none.
        grid: every pattern is trained with all words.
    """

    steps: int
    evaluations: int
    overrides: TrainOverrides
    select: Literal["first", "zero-shot", "splits"]
    halves: int
    demonstrations: int | None
    grid: bool

    def brief(self) -> "Procedure":
        """The same on two rows, of which there are no halves."""
        return replace(self, select="zero-shot") if self.select == "splits" else self

    def lengths(self) -> dict[str, int]:
        """How long a training is, and how often it is looked at."""
        every = max(1, self.steps // self.evaluations)
        return {"steps": self.steps, "evaluate_every": every, "patience": 0}


def run_baseline(lm: LanguageModel, split: FewShotSplit, name: str) -> MethodOutcome:
    """What a user would get without prompts on the same rows.

    Raises:
        TemplateError: rows that bring their own answers, or have one label only, teach a classifier
            nothing.
    """
    if name == MAJORITY:
        return MethodOutcome(figures=_majority(split))
    form = split.form
    if not form.answers.labels:
        raise TemplateError(f"{form.name} has no labels for {BASELINES[name]} to choose.")
    asked = question(
        form, lm, train=split.train, test=split.test, training_labels=split.training_labels
    )
    figures = baselines.figures(asked, lm, [name])
    if not figures:
        raise TemplateError(f"{form.name} has too little to learn from for {BASELINES[name]}.")
    return MethodOutcome(figures=figures[name])


def _majority(split: FewShotSplit) -> dict[str, float]:
    """The figures of the label that is the most frequent of all rows that the task has to learn
    from, not of the few, which are as many of each label; of equally frequent labels the mean of
    their figures."""
    figures = [_constant(split, label) for label in most_frequent(split.training_labels)]
    return {name: mean([values[name] for values in figures]) for name in figures[0]}


def _constant(split: FewShotSplit, label: str) -> dict[str, float]:
    """The figures of one label for all test rows; where rows bring their choices, of the choice of
    that number."""
    form = split.form
    labels = form.answers.shared
    shares = [[float(name == label) for name in labels]] * len(split.test)
    figures: dict[str, float] = {}
    for metric in form.judging.metrics or ("accuracy",):
        if metric.startswith("record"):
            answers = [_choice(form.answers.choices, row, label) for row in split.test]
        else:
            answers = [label] * len(split.test)
        figures |= labelled(
            [metric], split.test, answers, form.target, labels=labels, shares=shares
        )
    return figures


def _choice(choices: tuple[str, ...], row: Row, label: str) -> str:
    """The text of a row's choice; none where the row has fewer."""
    texts = Choices(choices).texts(row)
    return texts[int(label)] if int(label) < len(texts) else ""


def run_method(
    procedure: Procedure,
    lm: LanguageModel,
    split: FewShotSplit,
    *,
    method: Method,
    settings: TrainConfig,
    logs: Sequence[TrainingLog] = (),
    ranks: Ranks = ALONE,
) -> MethodOutcome:
    """Run a method on a split; the LM is afterwards as it was before.

    Args:
        settings: how the method trains (``settings_of``).
        logs: what gets the figures of the method's training; with ``grid`` of all of them.
        ranks: the processes that train together; the first one alone gets figures.

    Raises:
        PtuneError: the method cannot be run on this task or LM.
        DivergedError: its training left no finite state to keep.
    """
    members = readable_members(split.form, method, lm)
    chosen = choose_member(
        procedure, lm, split, method=method, members=members, settings=settings, ranks=ranks
    )
    asked = [_with_examples(procedure, split, method, member) for member in members]
    if method.tune == "nothing":
        grid = [_score_untrained(lm, rows, method, member) for rows, member in asked]
    elif procedure.grid:
        grid = [
            _grid_point(
                lm,
                rows,
                method,
                member=member,
                settings=settings,
                logs=logs,
                pattern=f", pattern {number}",
                ranks=ranks,
            )
            for number, (rows, member) in enumerate(asked, 1)
        ]
    else:
        rows, member = asked[chosen]
        trained = _train_member(
            lm, rows, method, member=member, settings=settings, logs=logs, ranks=ranks
        )
        return MethodOutcome(**dict(trained))
    return MethodOutcome(**dict(grid[chosen]), grid=[point for point in grid if point.figures])


def _with_examples(
    procedure: Procedure, split: FewShotSplit, method: Method, member: Member
) -> tuple[FewShotSplit, Member]:
    """The rows and the member, with labelled examples before each row where these are asked for."""
    if procedure.demonstrations is None or not demonstrations.takes(method):
        return split, member
    return demonstrations.with_demonstrations(split, member, procedure.demonstrations)


def _grid_point(
    lm: LanguageModel,
    split: FewShotSplit,
    method: Method,
    *,
    member: Member,
    settings: TrainConfig,
    logs: Sequence[TrainingLog] = (),
    pattern: str = "",
    ranks: Ranks = ALONE,
) -> PatternResult:
    """One member trained and scored; without figures where its training diverged and left nothing
    to keep."""
    try:
        return _train_member(
            lm,
            split,
            method,
            member=member,
            settings=settings,
            logs=logs,
            pattern=pattern,
            ranks=ranks,
        )
    except DivergedError as error:
        return PatternResult(
            template=member.template, words=member.words, diverged=True, reason=str(error)
        )


def settings_of(procedure: Procedure, split: FewShotSplit, method: Method) -> TrainConfig:
    """A method's training: as many steps and evaluations as the comparison sets, and the rates of
    the command, of the task, or else of the method."""
    task_settings = split.overrides.model_dump(exclude_none=True)
    command_settings = procedure.overrides.model_dump(exclude_none=True)
    return method.train.replaced(
        procedure.lengths() | task_settings | command_settings | {"seed": split.seed}
    )


def _untrained(
    lm: LanguageModel, split: FewShotSplit, method: Method, member: Member
) -> PromptModel:
    """A model whose only task is a member, of which nothing is trained."""
    model = PromptModel(lm, max_length=split.form.max_length)
    model_task.add(model, split.form, member, split.train, method=method, learning=split.learning)
    return model


def _is_scaled(form: TaskForm) -> bool:
    """Whether a temperature corrects the probabilities of a task's labels."""
    return form.reading.temperature == "dev"


def _score_untrained(
    lm: LanguageModel, split: FewShotSplit, method: Method, member: Member
) -> PatternResult:
    model = _untrained(lm, split, method, member)
    fit_confidence(model, [0], split.dev, _is_scaled(split.form))
    details = LabelDetails()
    figures = judge(model, split.test, split.form.judging.metrics, details=details)
    return PatternResult(
        template=member.template,
        words=member.words,
        figures=figures,
        intervals=details.intervals,
    )


def choose_member(
    procedure: Procedure,
    lm: LanguageModel,
    split: FewShotSplit,
    *,
    method: Method,
    members: Sequence[Member],
    settings: TrainConfig,
    ranks: Ranks = ALONE,
) -> int:
    """The number of the template and words that the method takes, by the few labelled rows alone:
    the first, that of the best untrained LM (``zero-shot``), or that of the best mean dev score
    over random halves of the rows (``splits``)."""
    if procedure.select == "first" or len(members) == 1:
        return 0
    if procedure.select == "zero-shot" or method.tune == "nothing":
        scores = [_zero_shot_score(lm, split, member) for member in members]
    else:
        halves = few_shot.splits(
            [*split.train, *split.dev],
            procedure.halves,
            split.seed,
            target=split.form.target,
            fields=task_members.fields(split.form),
        )
        scores = [
            _splits_score(
                lm, split, method, member=member, settings=settings, halves=halves, ranks=ranks
            )
            for member in members
        ]
    best = max(range(len(members)), key=lambda number: (scores[number], -number))
    return ranks.from_first(lambda: best)


def _zero_shot_score(lm: LanguageModel, split: FewShotSplit, member: Member) -> float:
    """The main figure of the member's hand-written pattern on the labelled rows when nothing is
    trained."""
    plain = Member(member.pattern or member.template, member.words)
    if str(plain) not in split.zero_shot:
        model = _untrained(lm, split, method_of("manual"), plain)
        figures = judge(model, [*split.train, *split.dev], split.form.judging.metrics)
        split.zero_shot[str(plain)] = figures[split.main_metric]
    return split.zero_shot[str(plain)]


def _splits_score(
    lm: LanguageModel,
    split: FewShotSplit,
    method: Method,
    *,
    member: Member,
    settings: TrainConfig,
    halves: Sequence[tuple[list[Row], list[Row]]],
    ranks: Ranks,
) -> float:
    """The mean main figure of a member that learns from one half of the rows and is scored on the
    other; a training that diverges counts as 0."""
    points = [
        _grid_point(
            lm,
            replace(split, train=train, dev=dev, test=dev),
            method,
            member=member,
            settings=settings,
            ranks=ranks,
        )
        for train, dev in halves
    ]
    return mean([point.figures.get(split.main_metric, 0.0) for point in points])


def _train_member(
    lm: LanguageModel,
    split: FewShotSplit,
    method: Method,
    *,
    member: Member,
    settings: TrainConfig,
    logs: Sequence[TrainingLog] = (),
    pattern: str = "",
    ranks: Ranks = ALONE,
) -> PatternResult:
    """Train one member, score it on test, and put the LM back as it was. Of several processes the
    first one scores."""
    weights = lm.weights() if method.tune != "prompt" else None
    model = PromptModel(lm, max_length=split.form.max_length)
    learning = replace(split.learning, seed=split.seed)
    number = model_task.add(
        model, split.form, member, split.train, method=method, learning=learning
    )
    try:
        history = fit(
            model,
            {number: (split.train, split.dev)},
            settings,
            tune=method.tune,  # type: ignore[arg-type]
            label=f"{method.title}, {split.name}{pattern}",
            logs=logs,
            ranks=ranks,
        )[number]
        if not ranks.is_first:
            return PatternResult(template=member.template, words=member.words)
        fit_confidence(model, [number], split.dev, _is_scaled(split.form))
        details = LabelDetails()
        figures = judge(model, split.test, split.form.judging.metrics, details=details)
        trained, kept = parameter_counts(model, [number], method)
    finally:
        if weights is not None:
            lm.restore(weights)
    return PatternResult(
        template=member.template,
        words=member.words,
        figures=figures,
        intervals=details.intervals,
        dev=history.best.dev if history.best else None,
        history=history.history,
        diverged=history.diverged,
        trained=trained,
        kept=kept,
        steps=history.step,
        train=settings.model_dump(mode="json"),
        account=account("The training", history, settings),
    )


def pet_plan(
    procedure: Procedure,
    lm: LanguageModel,
    split: FewShotSplit,
    *,
    method: Method,
    settings: TrainConfig,
) -> Plan:
    """What PET or iPET does with a split.

    Raises:
        TemplateError: the task has no unlabelled rows, no labels, or no pattern for this LM.
    """
    if not split.unlabeled:
        raise TemplateError(
            f"{split.form.name} has no unlabelled rows for {method.name} to learn from."
        )
    if not split.form.answers.labels:
        raise TemplateError(f"{split.form.name} has no labels for a classifier to choose between.")
    members = readable_members(split.form, method, lm)
    return plan_of(
        split.form,
        lm,
        method,
        members,
        learning=replace(split.learning, seed=split.seed),
        pet=split.pet,
        train=settings,
        **procedure.lengths(),
    )


def run_pet(
    lm: LanguageModel,
    split: FewShotSplit,
    plan: Plan,
    *,
    folder: pathlib.Path,
    label: str,
    report: Callable[[str], None],
    logs: Sequence[TrainingLog] = (),
) -> MethodOutcome:
    """PET or iPET: the ensemble and the classifier that learns from it; the classifier is
    scored.

    Args:
        plan: what PET does (``pet_plan``).
        folder: where it keeps what is finished.
        label: the text beside the progress bar.
        logs: what gets the figures of its trainings.

    Raises:
        PtuneError: a row does not fit.
        DivergedError: a training left no finite state to keep.
    """
    weights = lm.weights()
    try:
        outcome = pet.pet(
            lm,
            plan,
            split.train,
            dev=split.dev,
            unlabeled=split.unlabeled,
            folder=folder,
            resume=True,
            label=label,
            report=report,
            rehearsed=True,
            logs=logs,
        )
        fit_confidence(outcome.model, [0], split.dev, _is_scaled(split.form))
        details = LabelDetails()
        figures = judge(outcome.model, split.test, split.form.judging.metrics, details=details)
    finally:
        lm.restore(weights)
    size = sum(parameter.numel() for parameter in lm.model.parameters())
    diverged = [member.trained.diverged for member in outcome.members]
    fields = tuple(EnsembleMember.model_fields)
    return MethodOutcome(
        template=plan.classifier.template.source,
        figures=figures,
        intervals=details.intervals,
        trained=size,
        kept=size,
        diverged=outcome.trained.diverged or any(diverged),
        steps=outcome.trained.step,
        train=plan.distil.model_dump(mode="json"),
        ensembles=outcome.ensembles,
        members=[
            EnsembleMember(**{name: getattr(member, name) for name in fields})
            for member in outcome.members
        ],
    )
