"""PET and iPET: patterns teach an LM a task one by one, together they label rows that have no
labels, and one classifier learns from those.

Schick and Schütze 2021, "Exploiting Cloze Questions for Few Shot Text Classification and Natural
Language Inference" (sections cited below), and "It's Not Just Size That Matters". What each member
said is a file of its own, so a run that was killed goes on where it was, and ends the same.
"""

import pathlib
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch

from ptune.answers.ensemble import combine
from ptune.answers.label_words import Verbalizer
from ptune.base import files as store
from ptune.data.rows import label_of
from ptune.errors import ConfigError, DataError
from ptune.lm.language_model import LanguageModel
from ptune.model.examples import Shortening
from ptune.model.prompt_model import PromptModel, Row, Task
from ptune.runs import identity
from ptune.runs.folder import NOTE, working_in
from ptune.settings import PetConfig, TrainConfig
from ptune.training.loop import accuracy, fit
from ptune.training.prompt_training import Evaluation, TrainingHistory, Tune

FIRST_ROWS, LIKELIEST = (
    10,
    100,
    # iPET without labelled rows (section 3.4): how many the first generation learns from; among
    # which
    # they are drawn
)
LEAST = 1e-9  # confidence by which a row is drawn


@dataclass(frozen=True)
class Plan:
    """The settings of a PET run.

    Attributes:
        members: the patterns, each with its label words; all of them have the same labels.
        classifier: the task that is trained, together with the LM, on the members' averaged label
            probabilities; its temperature is that of ``settings``.
        tune: what each member trains. With "lm", parameters of the member itself, such as a trained
            reader, are trained as well.
        train: the training settings of the members. The same seed draws the rows of later
            generations.
        distil: the training settings of the classifier.
        max_length: the largest number of tokens of an input; the LM's limit by default.
    """

    members: Sequence[Task]
    classifier: Task
    tune: Tune | Literal["nothing"] = "lm"
    train: TrainConfig = TrainConfig()
    distil: TrainConfig = TrainConfig()
    settings: PetConfig = PetConfig()
    max_length: int | None = None


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
    lm: LanguageModel
    plan: Plan
    rows: Sequence[Row]
    dev: Sequence[Row]
    unlabeled: Sequence[Row]
    folder: pathlib.Path
    label: str
    report: Callable[[str], None]
    tasks: list[Task]
    weights: dict[str, torch.Tensor]

    @property
    def labels(self) -> tuple[str, ...]:
        return _labels(self.plan.classifier)


@dataclass(frozen=True)
class _MemberScores:
    """A member with its label scores of the unlabelled rows [N, C] and of the dev rows [D, C]."""

    member: Member
    unlabeled: torch.Tensor
    dev: torch.Tensor


def pet(
    lm: LanguageModel,
    plan: Plan,
    rows: Sequence[Row],
    dev: Sequence[Row],
    unlabeled: Sequence[Row],
    folder: store.Path,
    resume: bool = False,
    label: str = "PET",
    report: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Train the members, label the unlabelled rows with them, and train the classifier on these
    labels. The LM stays tuned afterwards; after an error it has its original weights.

    Args:
        rows: the training rows. Without any, the members label untrained and with equal weights
            (zero-shot).
        dev: the rows for early stopping and the choice of the best state.
        unlabeled: rows to label; a label that they have is ignored.
        folder: where finished members and the classifier are kept.
        resume: continue the run in the folder, if there is one; a finished run is read.
        label: the text beside the progress bar.
        report: receives a sentence wherever the run deviates from its settings.

    Raises:
        ConfigError: the plan does not fit together, or the folder holds another run.
        DivergedError: a training has no finite state to keep.
        DataError, TemplateError, VerbalizerError: no rows, or a row or a task that does not fit;
            before anything is trained.
        Interrupted: Ctrl-C; what is finished is kept.
    """
    tasks = [
        replace(task, name=f"{task.name} {time + 1}" if time else task.name)
        for task in plan.members
        for time in range(plan.settings.repetitions)
    ]
    run = _Run(
        lm, plan, rows, dev, unlabeled, pathlib.Path(folder), label, report, tasks, lm.weights()
    )
    _check(run)
    with working_in(run.folder, "PET", resume and (run.folder / NOTE).exists()) as place:
        if place.begun is None:
            _try(run)
        place.claim(_identity(run))
        return _outcome(run)


def _outcome(run: _Run) -> Outcome:
    """Train the members and the classifier that are not finished yet, in a locked folder."""
    lm, plan, dev = run.lm, run.plan, run.dev
    members, ensembles = [], []
    try:
        member_scores: list[_MemberScores] = []
        for generation in range(plan.settings.generations + 1):
            member_scores = _generation(run, generation, member_scores)
            members += [scores.member for scores in member_scores]
            right = sum(
                run.labels[int(shares.argmax())]
                == label_of(row[plan.classifier.target], run.labels)
                for shares, row in zip(_together(member_scores, "dev"), dev)
            )
            ensembles.append(right / len(dev))
        model, trained = _distilled(
            run, _together(member_scores, "unlabeled", plan.settings.temperature)
        )
    except BaseException:
        lm.restore(run.weights)
        raise
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
    return Outcome(model, trained, members, ensembles, run.weights)


def _generation(run: _Run, number: int, before: Sequence[_MemberScores]) -> list[_MemberScores]:
    """Train a generation of members: the first on the training rows, each later one also on rows
    that members of the previous generation labelled."""
    size = len(run.tasks) if run.plan.tune == "prompt" else 1
    member_scores = []
    for start in range(0, len(run.tasks), size):
        files = {
            index: run.folder / "members" / f"{number}-{index}.safetensors"
            for index in range(start, start + size)
        }
        if not all(file.exists() for file in files.values()):
            _train(
                run,
                number,
                {
                    index: _labelled(run, number, index, before) if number else run.rows
                    for index in files
                },
                files,
            )
        member_scores += [_read(file) for file in files.values()]
    return member_scores


def _train(
    run: _Run, generation: int, rows: dict[int, Sequence[Row]], files: dict[int, pathlib.Path]
) -> None:
    """Train members from the LM's original weights, together where only prompts are trained, and
    save their scores.

    A member's weight is its accuracy on the training rows before it is trained (section 3.3).
    """
    model, plan = PromptModel(run.lm, max_length=run.plan.max_length), run.plan
    tasks = {
        index: model.add(run.tasks[index], learned_rows) for index, learned_rows in rows.items()
    }
    weights = {
        index: _accuracy(model, task, run.rows)[0] if run.rows else 1.0
        for index, task in tasks.items()
    }
    trained: dict[Any, TrainingHistory] = {}
    checkpoints = run.folder / "checkpoints" / f"{generation}-{min(files)}"
    if plan.tune != "nothing" and all(rows.values()):
        name = run.tasks[min(files)].name + (
            f" and {len(files) - 1} more" if len(files) > 1 else ""
        )
        trained = _fit(
            run,
            model,
            {task: (rows[index], run.dev) for index, task in tasks.items()},
            plan.train,
            plan.tune,
            checkpoints,
            f"{run.label}, generation {generation}, {name}",
        )
    for index, task in tasks.items():
        dev, scores = _accuracy(model, task, run.dev)
        tensors = {
            "unlabeled": torch.stack(
                model.scores(model.encode(task, run.unlabeled, labelled=False))
            ),
            "dev": scores,
        }
        member = Member(
            run.tasks[index].name,
            generation,
            len(rows[index]),
            weights[index],
            dev,
            trained.get(task, TrainingHistory()),
        )
        store.write_tensors(files[index], tensors, asdict(member))
    shutil.rmtree(checkpoints, ignore_errors=True)
    if plan.tune in ("lm", "head", "both"):
        run.lm.restore(run.weights)


def _fit(
    run: _Run,
    model: PromptModel,
    data: dict[int, tuple[Sequence[Row], Sequence[Row]]],
    config: TrainConfig,
    tune: Tune,
    folder: pathlib.Path,
    label: str,
) -> dict[Any, TrainingHistory]:
    prompts = [model.tasks[number].prompt for number in data]
    if tune == "lm" and any(prompt >= 0 and model.bank.parameters_of(prompt) for prompt in prompts):
        tune = "both"
    trained = fit(
        model,
        data,
        config,
        tune=tune,
        unlabeled=run.unlabeled,
        folder=folder,
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


def _read(file: pathlib.Path) -> _MemberScores:
    tensors, note = store.read_noted(file)
    return _MemberScores(
        Member(**{**note, "trained": _trained(note["trained"])}),
        tensors["unlabeled"],
        tensors["dev"],
    )


def _trained(note: dict[str, Any]) -> TrainingHistory:
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
    task, settings = run.tasks[number], run.plan.settings
    generator = torch.Generator().manual_seed(
        run.plan.train.seed * 1_000_003 + zlib.crc32(f"{task.name} {generation}".encode())
    )
    others = [member_scores for index, member_scores in enumerate(before) if index != number]
    chosen = torch.randperm(len(others), generator=generator)[
        : max(1, round(settings.share * len(others)))
    ].tolist()
    shares = _together([others[index] for index in chosen], "unlabeled")
    counts = new_rows(
        [label_of(row[task.target], run.labels) for row in run.rows],
        run.labels,
        settings.growth,
        generation,
    )
    drawn = draw(shares, counts, generator, LIKELIEST if not run.rows and generation == 1 else None)
    if few := ", ".join(
        f"{len(chosen_rows)} of {count} for {name!r}"
        for chosen_rows, count, name in zip(drawn, counts, run.labels)
        if len(chosen_rows) < count
    ):
        run.report(
            f"{run.label}, generation {generation}: fewer unlabelled rows than {task.name} should "
            f"learn from: {few}."
        )
    return [
        *run.rows,
        *(
            {**run.unlabeled[row_number], task.target: name}
            for name, row_numbers in zip(run.labels, drawn)
            for row_number in row_numbers
        ),
    ]


def new_rows(
    labels: Iterable[str], names: Sequence[str], growth: float, generation: int
) -> list[int]:
    """How many new rows of each label a generation (from 1) learns from beside the training rows,
    so that there are ``growth`` times as many in all as in the one before it, the ratio of the
    labels kept. Without training rows the first has ten, as many of each label.

    This follows the paper (section 3.4), which keeps the labels' ratio and says nothing about
    fractions; here a label's number is rounded. The paper's code (``generate_ipet_train_sets``)
    cuts a label's number down to a whole one instead, and without training rows it deals out the
    whole number, so that the first labels get a row more (ten rows of four
    labels: 3, 3, 2, 2; here 2 each). The two are equal where nothing is left over.

    Args:
        labels: of the training rows.
        names: of all labels.
    """
    if counts := Counter(labels):
        return [round(counts[name] * growth**generation) - counts[name] for name in names]
    return [max(1, round(FIRST_ROWS / len(names) * growth ** (generation - 1)))] * len(names)


def draw(
    shares: torch.Tensor,
    counts: Sequence[int],
    generator: torch.Generator,
    likeliest: int | None = None,
) -> list[list[int]]:
    """Draw rows for each label, each with a probability proportional to its label's, and return
    their numbers.

    Args:
        shares: [N, C], the label probabilities of each row.
        counts: how many rows to draw for each label; all candidates where there are fewer.
        likeliest: draw among this many rows with the highest probability of the label, even where
            another label is more probable; by default, among the rows whose most probable label
            it is.
    """
    drawn, best = [], shares.argmax(1)
    for label, count in enumerate(counts):
        label_shares = shares[:, label]
        among = (
            label_shares.topk(min(likeliest, len(label_shares))).indices
            if likeliest
            else (best == label).nonzero()[:, 0]
        )
        count = min(count, len(among))
        drawn.append(
            among[
                torch.multinomial(label_shares[among].clamp(min=LEAST), count, generator=generator)
            ].tolist()
            if count
            else []
        )
    return drawn


def _distilled(run: _Run, shares: torch.Tensor) -> tuple[PromptModel, TrainingHistory]:
    """The classifier, trained on the unlabelled rows with the members' label probabilities [N, C],
    or read from the folder if it was trained before."""
    task, file = (
        replace(run.plan.classifier, temperature=run.plan.settings.temperature),
        run.folder / "classifier.safetensors",
    )
    rows = [
        {**row, task.target: label_shares}
        for row, label_shares in zip(run.unlabeled, shares.tolist())
    ]
    model = PromptModel(run.lm, max_length=run.plan.max_length)
    number = model.add(task, rows)
    if file.exists():
        tensors, note = store.read_noted(file)
        run.lm.restore(_part(tensors, "lm."))
        model.bank.load_state_dict(_part(tensors, "bank."))
        return model, _trained(note)
    trained = _fit(
        run,
        model,
        {number: (rows, run.dev)},
        run.plan.distil,
        "lm",
        run.folder / "checkpoints" / "classifier",
        f"{run.label}, classifier",
    )[number]
    state = {f"lm.{name}": value for name, value in run.lm.model.state_dict().items()}
    store.write_tensors(
        file,
        state | {f"bank.{name}": value for name, value in model.bank.state_dict().items()},
        asdict(trained),
    )
    return model, trained


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _labels(task: Task) -> tuple[str, ...]:
    if not isinstance(task.verbalizer, Verbalizer):
        raise ConfigError(
            f"{task.name} has no labels of its own, the same for every row, and PET's classifier "
            "learns those from its members."
        )
    return task.verbalizer.labels


def _check(run: _Run) -> None:
    """Refuse members, rows or settings that do not fit together."""
    plan, tasks, labels = run.plan, run.tasks, run.labels
    if not run.unlabeled or not run.dev or not tasks:
        raise DataError(
            f"PET has {len(tasks)} patterns that label, {len(run.unlabeled)} unlabelled rows and "
            f"{len(run.dev)} dev rows; it needs some of each."
        )
    if other := next((task for task in tasks if _labels(task) != labels), None):
        raise ConfigError(
            f"{other.name} has the labels {list(_labels(other))}, and the classifier "
            f"{list(labels)}: give all the same, in the same order."
        )
    if twice := next(
        (name for name, count in Counter(task.name for task in tasks).items() if count > 1), None
    ):
        raise ConfigError(f"Two members of PET are called {twice!r}: give each a name of its own.")
    if plan.classifier.loss == "vocabulary":
        raise ConfigError(
            "PET's classifier learns shares of labels, which are not compared with the whole "
            'vocabulary: set its loss to "labels".'
        )
    if plan.settings.generations and (plan.tune == "nothing" or len(tasks) < 2):
        raise ConfigError(
            "The generations of iPET learn from each other, and there is "
            + ("one member." if len(tasks) < 2 else "nothing that they train.")
        )


def _try(run: _Run) -> None:
    """Encode every row for every task, so that a row that does not fit is reported before hours of
    training. Rows that the first pattern shortens are reported."""
    model = PromptModel(run.lm, max_length=run.plan.max_length)
    rows = {"training rows": run.rows, "dev rows": run.dev, "unlabelled rows": run.unlabeled}
    for task in (*run.plan.members, run.plan.classifier):
        number = model.add(replace(task, init="random"))
        for what, of_kind in rows.items():
            shortening = Shortening()
            for place, row in enumerate(of_kind, 1):
                shortening.count(
                    model.encode(number, [row], labelled=what != "unlabelled rows", first=place)
                )
            if number == 0 and (sentence := shortening.sentence(what, model.limit(number))):
                run.report(sentence)


def _identity(run: _Run) -> dict[str, Any]:
    """Everything that determines the result."""
    plan = run.plan
    rows = {"training rows": run.rows, "dev rows": run.dev, "unlabelled rows": run.unlabeled}
    return {
        "lm": identity.of_lm(run.lm),
        "members": [task.name for task in plan.members],
        "member": {task.name: identity.of_task(task) for task in plan.members},
        "classifier": identity.of_task(plan.classifier),
        "tune": plan.tune,
        "max_length": plan.max_length,
        "train": identity.of_settings(plan.train),
        "distil": identity.of_settings(plan.distil),
        "pet": identity.of_settings(plan.settings, ["distil"]),
        **{name: identity.of_rows(examples) for name, examples in rows.items()},
    }
