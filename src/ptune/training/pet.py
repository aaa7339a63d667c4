"""PET and iPET: patterns teach an LM a task one by one, together they label rows that have no
labels, and one classifier learns from those.

Schick and Schütze 2021, "Exploiting Cloze Questions for Few Shot Text Classification and Natural
Language Inference" (sections cited below), and "It's Not Just Size That Matters". Each member and
the classifier are trials whose results are files, so a run that was killed goes on where it was,
and ends the same.
"""

import pathlib
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch

from ptune.answers.ensemble import combine
from ptune.base import files as store
from ptune.data.rows import label_of
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Row, Task
from ptune.runs import identity
from ptune.runs.folder import NOTE, working_in
from ptune.runs.trials import TRIAL, Trial, run_trials
from ptune.runs.without_trace import without_trace
from ptune.settings import TrainConfig
from ptune.training import pet_plan
from ptune.training.loop import Metric, accuracy, fit, mean_loss
from ptune.training.pet_plan import PetRows, Plan
from ptune.training.pet_rows import LIKELIEST, draw, held_out, new_rows
from ptune.training.prompt_training import Evaluation, TrainingHistory, Tune

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Member:
    """A member of one generation.

    Attributes:
        rows: how many rows it was trained on.
        weight: its weight in the ensemble.
        dev: its accuracy on the dev rows.
        trained: the history of its training.
    """

    name: str
    generation: int
    rows: int
    weight: float
    dev: float
    trained: TrainingHistory


@dataclass(frozen=True)
class Outcome:
    """The result of a PET run.

    Attributes:
        model: a model whose only task is the classifier, over the LM that was tuned with it.
        trained: the history of the classifier's training.
        members: the members of all generations.
        ensembles: the accuracy of each generation's ensemble on the dev rows.
        weights: the LM's weights before the run; ``LanguageModel.restore`` puts them back.
    """

    model: PromptModel
    trained: TrainingHistory
    members: list[Member]
    ensembles: list[float]
    weights: dict[str, torch.Tensor]


@dataclass(frozen=True)
class _Run:
    """A PET run.

    Attributes:
        folder: where what is finished is kept; None where nothing is.
        tasks: those of all members.
        weights: the LM's before the run.
        whole: one hash of everything that determines the result.
    """

    lm: LanguageModel
    plan: Plan
    rows: PetRows
    folder: pathlib.Path | None
    label: str
    report: Callable[[str], None]
    tasks: list[Task]
    weights: Tensors
    whole: str = ""

    def trial(self, task: Task, settings: TrainConfig, file: str, **where: Any) -> Trial:
        """The trial of a member or of the classifier; all but its name and its place follows from
        the whole run."""
        return Trial(
            method="PET",
            task=task.name,
            seed=settings.seed,
            shots=0,
            settings={"run": self.whole, "part": pathlib.PurePath(file).stem},
            file=file,
            **where,
        )


@dataclass(frozen=True)
class _MemberScores:
    """A member with its label scores of the unlabelled rows [N, C] and of the dev rows [D, C]."""

    member: Member
    unlabeled: torch.Tensor
    dev: torch.Tensor


@dataclass(frozen=True)
class _Classifier:
    """The classifier as it was trained: the LM's weights and its parameters, and the history."""

    lm: Tensors
    bank: Tensors
    trained: TrainingHistory


class _MemberFiles:
    """The members' scores as safetensors."""

    def read(self, file: pathlib.Path) -> tuple[_MemberScores, Mapping[str, Any] | None]:
        tensors, note = store.read_noted(file)
        record = note.pop(TRIAL, None)
        member = Member(**{**note, "trained": _trained(note["trained"])})
        return _MemberScores(member, tensors["unlabeled"], tensors["dev"]), record

    def write(self, file: pathlib.Path, result: _MemberScores, record: Mapping[str, Any]) -> None:
        tensors = {"unlabeled": result.unlabeled, "dev": result.dev}
        store.write_tensors(file, tensors, {**asdict(result.member), TRIAL: record})


class _ClassifierFile:
    """The classifier as safetensors."""

    def read(self, file: pathlib.Path) -> tuple[_Classifier, Mapping[str, Any] | None]:
        tensors, note = store.read_noted(file)
        record = note.pop(TRIAL, None)
        return _Classifier(_part(tensors, "lm."), _part(tensors, "bank."), _trained(note)), record

    def write(self, file: pathlib.Path, result: _Classifier, record: Mapping[str, Any]) -> None:
        tensors = {f"lm.{name}": value for name, value in result.lm.items()}
        tensors |= {f"bank.{name}": value for name, value in result.bank.items()}
        store.write_tensors(file, tensors, {**asdict(result.trained), TRIAL: record})


def pet(
    lm: LanguageModel,
    plan: Plan,
    rows: Sequence[Row],
    dev: Sequence[Row],
    unlabeled: Sequence[Row],
    folder: store.Path | None,
    resume: bool = False,
    label: str = "PET",
    report: Callable[[str], None] = lambda text: None,
    rehearsed: bool = False,
) -> Outcome:
    """Train the members, label the unlabelled rows with them, and train the classifier on these
    labels. The LM stays tuned afterwards; after an error it has its original weights.

    Args:
        rows: the training rows. Without any, the members label untrained and with equal weights
            (zero-shot).
        dev: the rows for early stopping and the choice of the best state.
        unlabeled: rows to label; a label that they have is ignored.
        folder: where finished members and the classifier are kept; None keeps nothing.
        resume: continue the run in the folder, if there is one; a finished run is read.
        label: the text beside the progress bar.
        report: receives a sentence wherever the run deviates from its settings.
        rehearsed: ``rehearse`` was called already.

    Raises:
        ConfigError: the plan does not fit together, or the folder holds another run.
        DivergedError: a training has no finite state to keep.
        DataError, TemplateError, VerbalizerError: no rows, or a row or a task that does not fit;
            before anything is trained.
        Interrupted: Ctrl-C; what is finished is kept.
    """
    pet_rows = PetRows(rows, dev, unlabeled)
    pet_plan.check(plan, pet_rows)
    if folder is None:
        pet_plan.try_rows(lm, plan, pet_rows, report)
        return _outcome(_Run(lm, plan, pet_rows, None, label, report, plan.tasks(), lm.weights()))
    folder = pathlib.Path(folder)
    with working_in(folder, "PET", resume and (folder / NOTE).exists()) as place:
        if place.begun is None:
            pet_plan.try_rows(lm, plan, pet_rows, report)
            if not rehearsed:
                rehearse(lm, plan, rows, dev, unlabeled)
        whole = pet_plan.identity_of(lm, plan, pet_rows)
        place.claim(whole)
        run = _Run(
            lm,
            plan,
            pet_rows,
            folder,
            label,
            report,
            plan.tasks(),
            lm.weights(),
            identity.of_value(whole),
        )
        return _outcome(run)


def rehearse(
    lm: LanguageModel,
    plan: Plan,
    rows: Sequence[Row],
    dev: Sequence[Row],
    unlabeled: Sequence[Row],
) -> None:
    """Run PET on two rows of each kind and with one step for each training, and keep nothing. The
    LM and all random states stay unchanged. A step that diverges is not an error here.

    Raises:
        PtuneError: something does not fit together.
    """
    plan, brief = plan.brief(), PetRows(rows, dev, unlabeled).brief()
    pet_plan.check(plan, brief)
    label, silent = "one step, to try it", lambda text: None
    with without_trace(lm, tuned=True):
        _outcome(_Run(lm, plan, brief, None, label, silent, plan.tasks(), lm.weights()))


def _outcome(run: _Run) -> Outcome:
    """Train the members and the classifier that are not finished yet, in a locked folder."""
    plan, dev = run.plan, run.rows.dev
    members, ensembles = [], []
    try:
        member_scores: list[_MemberScores] = []
        for generation in range(plan.settings.generations + 1):
            member_scores = _generation(run, generation, member_scores)
            members += [scores.member for scores in member_scores]
            right = sum(
                plan.labels[int(shares.argmax())]
                == label_of(row[plan.classifier.target], plan.labels)
                for shares, row in zip(_together(member_scores, "dev"), dev)
            )
            ensembles.append(right / len(dev))
        shares = _together(member_scores, "unlabeled", plan.settings.temperature)
        model, trained = _distilled(run, shares)
    except BaseException:
        run.lm.restore(run.weights)
        raise
    if run.folder is not None:
        shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
    return Outcome(model, trained, members, ensembles, run.weights)


def _generation(run: _Run, number: int, before: Sequence[_MemberScores]) -> list[_MemberScores]:
    """The members of a generation: the first learn from the training rows, later ones also from
    rows that members of the previous generation labelled. Those that train prompts alone share a
    bank."""
    together = run.plan.tune == "prompt"
    trials = [
        run.trial(
            task,
            run.plan.train,
            f"members/{number}-{index}.safetensors",
            scratch=f"checkpoints/{number}-{index}",
            bank=number if together else (number, index),
        )
        for index, task in enumerate(run.tasks)
    ]

    def train(group: Sequence[Trial], scratch: pathlib.Path | None) -> Iterator[_MemberScores]:
        indices = [trials.index(trial) for trial in group]
        rows = {
            index: _labelled(run, number, index, before) if number else run.rows.train
            for index in indices
        }
        return _train(run, number, rows, scratch)

    return run_trials(trials, run.folder, train, _MemberFiles())


def _train(
    run: _Run, generation: int, rows: Mapping[int, Sequence[Row]], scratch: pathlib.Path | None
) -> Iterator[_MemberScores]:
    """Train members from the LM's original weights, together where only prompts are trained, and
    yield the scores of each.

    A member's weight is its accuracy on the training rows before it is trained (section 3.3).

    Args:
        rows: the rows that each member learns from, by its number.
    """
    model, labelled_rows = PromptModel(run.lm, max_length=run.plan.max_length), run.rows.train
    tasks = {
        index: model.add(run.tasks[index], learned_rows) for index, learned_rows in rows.items()
    }
    weights = {
        index: _accuracy(model, task, labelled_rows)[0] if labelled_rows else 1.0
        for index, task in tasks.items()
    }
    try:
        histories = _train_members(run, model, generation, rows, tasks, scratch)
        for index, task in tasks.items():
            dev, dev_scores = _accuracy(model, task, run.rows.dev)
            unlabeled = model.scores(model.encode(task, run.rows.unlabeled, labelled=False))
            member = Member(
                run.tasks[index].name,
                generation,
                len(rows[index]),
                weights[index],
                dev,
                histories.get(task, TrainingHistory()),
            )
            yield _MemberScores(member, torch.stack(unlabeled), dev_scores)
    finally:
        if run.plan.tune in ("lm", "head", "both"):
            run.lm.restore(run.weights)


def _train_members(
    run: _Run,
    model: PromptModel,
    generation: int,
    rows: Mapping[int, Sequence[Row]],
    tasks: Mapping[int, int],
    scratch: pathlib.Path | None,
) -> dict[Any, TrainingHistory]:
    """Train what the members train, where each has rows; return how it went by their tasks."""
    plan = run.plan
    if plan.tune == "nothing" or not all(rows.values()):
        return {}
    first, *others = [run.tasks[index].name for index in tasks]
    names = f"{first} and {len(others)} more" if others else first
    data = {task: (rows[index], run.rows.dev) for index, task in tasks.items()}
    label = f"{run.label}, generation {generation}, {names}"
    return _fit(run, model, data, plan.train, plan.tune, scratch, label)


def _fit(
    run: _Run,
    model: PromptModel,
    data: Mapping[int, tuple[Sequence[Row], Sequence[Row]]],
    config: TrainConfig,
    tune: Tune,
    scratch: pathlib.Path | None,
    label: str,
    metric: Metric = accuracy,
) -> dict[Any, TrainingHistory]:
    """Train tasks, and report those that diverged."""
    prompts = [model.tasks[number].prompt for number in data]
    if tune == "lm" and any(prompt >= 0 and model.bank.parameters_of(prompt) for prompt in prompts):
        tune = "both"
    trained = fit(
        model,
        data,
        config,
        tune=tune,
        metric=metric,
        unlabeled=run.rows.unlabeled,
        folder=scratch,
        resume=True,
        label=label,
    )
    for name, history in ((model.tasks[number].task.name, trained[number]) for number in data):
        if history.diverged:
            run.report(f"The training of {name} diverged; its best state before that is kept.")
    return trained


def _accuracy(model: PromptModel, task: int, rows: Sequence[Row]) -> tuple[float, torch.Tensor]:
    """A task's accuracy on rows, and its scores of them [B, C]."""
    examples = model.encode(task, rows)
    scores = model.scores(examples)
    return accuracy(scores, examples), torch.stack(scores)


def _trained(note: dict[str, Any]) -> TrainingHistory:
    """The history of a training from its form in JSON."""
    best = Evaluation(**note["best"]) if note["best"] else None
    return TrainingHistory(
        [Evaluation(**evaluation) for evaluation in note["history"]],
        best,
        note["diverged"],
        note.get("planned", 0),
        note.get("step", 0),
    )


def _together(
    member_scores: Sequence[_MemberScores],
    rows: Literal["unlabeled", "dev"],
    temperature: float = 1.0,
) -> torch.Tensor:
    """The label probabilities [B, C] of the weighted mean of the members' scores, which are divided
    by the temperature (section 3.3)."""
    scores = (
        torch.stack([getattr(scores_of_member, rows) for scores_of_member in member_scores], 1)
        / temperature
    )
    weights = [scores_of_member.member.weight for scores_of_member in member_scores]
    return torch.vmap(lambda row: combine(list(row), "weighted", weights))(scores)


def _labelled(
    run: _Run, generation: int, number: int, before: Sequence[_MemberScores]
) -> list[Row]:
    """The rows that a member of a later generation is trained on: the training rows, and rows that
    some of the other members labelled (section 3.4)."""
    task, plan, rows = run.tasks[number], run.plan, run.rows
    generator = torch.Generator().manual_seed(
        plan.train.seed * 1_000_003 + zlib.crc32(f"{task.name} {generation}".encode())
    )
    others = [member_scores for index, member_scores in enumerate(before) if index != number]
    size = max(1, round(plan.settings.share * len(others)))
    chosen = torch.randperm(len(others), generator=generator)[:size].tolist()
    shares = _together([others[index] for index in chosen], "unlabeled")
    right_labels = [label_of(row[task.target], plan.labels) for row in rows.train]
    counts = new_rows(
        right_labels, plan.labels, plan.settings.growth, generation, plan.settings.fractions
    )
    likeliest = LIKELIEST if not rows.train and generation == 1 else None
    drawn = draw(shares, counts, generator, likeliest)
    _report_few(run, generation, task, drawn, counts)
    new = [
        {**rows.unlabeled[row_number], task.target: name}
        for name, row_numbers in zip(plan.labels, drawn)
        for row_number in row_numbers
    ]
    return [*rows.train, *new]


def _report_few(
    run: _Run, generation: int, task: Task, drawn: Sequence[Sequence[int]], counts: Sequence[int]
) -> None:
    """Report the labels of which a member gets fewer rows than it should."""
    few = ", ".join(
        f"{len(rows)} of {count} for {name!r}"
        for rows, count, name in zip(drawn, counts, run.plan.labels)
        if len(rows) < count
    )
    if few:
        run.report(
            f"{run.label}, generation {generation}: fewer unlabelled rows than {task.name} should "
            f"learn from: {few}."
        )


def _distilled(run: _Run, shares: torch.Tensor) -> tuple[PromptModel, TrainingHistory]:
    """The classifier, trained on the unlabelled rows with the members' label probabilities [N, C],
    or read from the folder if it was trained before. Its best state is the one that is nearest to
    the members' answers to rows that it did not learn from, where some are held out."""
    plan = run.plan
    task = replace(plan.classifier, temperature=plan.settings.temperature)
    rows = [
        {**row, task.target: label_shares}
        for row, label_shares in zip(run.rows.unlabeled, shares.tolist())
    ]
    is_held = held_out(len(rows), plan.settings.held_out)
    learned = [row for row, held in zip(rows, is_held) if not held]
    dev = [row for row, held in zip(rows, is_held) if held] or run.rows.dev
    metric = _nearness(plan.settings.temperature) if any(is_held) else accuracy
    model = PromptModel(run.lm, max_length=plan.max_length)
    number = model.add(task, learned)
    trial = run.trial(task, plan.distil, "classifier.safetensors", scratch="checkpoints/classifier")

    def train(group: Sequence[Trial], scratch: pathlib.Path | None) -> Iterator[_Classifier]:
        data, label = {number: (learned, dev)}, f"{run.label}, classifier"
        trained = _fit(run, model, data, plan.distil, "lm", scratch, label, metric)[number]
        yield _Classifier(run.lm.model.state_dict(), model.bank.state_dict(), trained)

    (classifier,) = run_trials([trial], run.folder, train, _ClassifierFile())
    run.lm.restore(classifier.lm)
    model.bank.load_state_dict(classifier.bank)
    return model, classifier.trained


def _nearness(temperature: float) -> Metric:
    """Minus the mean cross entropy of a classifier's answers with those of the members, at a
    temperature."""
    return lambda scores, examples: -mean_loss([one / temperature for one in scores], examples)


def _part(tensors: Tensors, prefix: str) -> Tensors:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
