"""The last training: what was chosen learns from all labelled rows."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

from ptune.answers.confidence import Confidence
from ptune.base import files
from ptune.lm.language_model import LanguageModel
from ptune.model.confidence import keep_confidence
from ptune.model.prompt_model import PromptModel, Row
from ptune.selection.candidates import Candidate, PetCandidate
from ptune.training.loop import fit
from ptune.training.pattern_exploiting import pet
from ptune.training.prompt_training import TrainingHistory


@dataclass(frozen=True)
class Chosen:
    """What was chosen, trained.

    Attributes:
        tasks: the number of each task in the model, by the name of its prompt: None for one alone,
            "1" and "2" for those that answer together.
        histories: how the trainings went, by the numbers of their tasks; none where nothing was
            trained.
    """

    model: PromptModel
    tasks: dict[str | None, int]
    histories: dict[int, TrainingHistory]


def untrained(
    chosen: Sequence[Candidate], lm: LanguageModel, rows: Sequence[Row]
) -> tuple[PromptModel, dict[str | None, int]]:
    """The model of the chosen candidates before their training, and the number of each task by the
    name of its prompt.

    Raises:
        PtuneError: one does not fit.
    """
    model, tasks = PromptModel(lm), {}
    for number, candidate in enumerate(chosen, 1):
        name = str(number) if len(chosen) > 1 else None
        tasks[name] = candidate.add(model, rows, name)
    return model, tasks


def train(
    chosen: Sequence[Candidate],
    lm: LanguageModel,
    rows: Sequence[Row],
    *,
    folder: files.Path | None = None,
    resume: bool = False,
    confidence: Confidence | None = None,
) -> Chosen:
    """Train the chosen candidates on all labelled rows, each by its own settings.

    Args:
        folder: where a checkpoint is kept, where one candidate was chosen; without it nothing is.
        resume: go on from that checkpoint.
        confidence: what the choice says about their probabilities.

    Raises:
        PtuneError: the training diverged, or was stopped.
    """
    if isinstance(chosen[0], PetCandidate):
        return _train_pet(chosen[0], lm, rows, folder=folder, resume=resume, confidence=confidence)
    model, tasks = untrained(chosen, lm, rows)
    histories: dict[int, TrainingHistory] = {}
    for candidate, number in zip(chosen, tasks.values()):
        if candidate.method.tune == "nothing":
            continue
        histories[number] = fit(
            model,
            {number: (rows, rows)},
            candidate.settings(len(rows)),
            tune=candidate.method.tune,
            folder=folder if len(chosen) == 1 else None,
            resume=resume,
            label=candidate.method.title,
        )[number]
    keep_confidence(model, list(tasks.values()), confidence)
    return Chosen(model, tasks, histories)


def _train_pet(
    candidate: PetCandidate,
    lm: LanguageModel,
    rows: Sequence[Row],
    *,
    folder: files.Path | None,
    resume: bool,
    confidence: Confidence | None,
) -> Chosen:
    """Train PET's patterns and their classifier, which is what is kept."""
    plan = candidate.plan(lm, len(rows))
    place = None if folder is None else pathlib.Path(folder) / "pet"
    outcome = pet.pet(
        lm,
        plan,
        rows,
        dev=rows,
        unlabeled=candidate.unlabeled,
        folder=place,
        resume=resume,
        label=candidate.method.title,
    )
    keep_confidence(outcome.model, [0], confidence)
    return Chosen(outcome.model, {None: 0}, {0: outcome.trained})
