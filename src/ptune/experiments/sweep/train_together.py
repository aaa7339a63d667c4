"""Runs whose prompts are trained in the same calls of the LM, each as if it were trained alone."""

import contextlib
import itertools
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ptune.base import terminal
from ptune.errors import PtuneError
from ptune.experiments.train import train_checks, train_results, train_setup, train_task
from ptune.experiments.train.train_setup import Setup
from ptune.experiments.train.train_task import Prepared
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel
from ptune.reports.schemas import Run
from ptune.tasks.resolved.parts import LMSource, TrainingParts
from ptune.training import rehearsal
from ptune.training.loop import OF_A_STEP, Training, fit_together
from ptune.training.methods import PET, Method
from ptune.training.prompt_training import Pruner, TrainingHistory

FAULTS = (PtuneError, RuntimeError, MemoryError)


def bank_of(parts: TrainingParts, lm: str) -> Hashable:
    """What runs that can be trained together have in common; None where a run is trained alone:
    one that changes the LM, takes it from the prompt that it goes on from, begins as another
    prompt, has prompts that share a table, or writes a log.

    Args:
        lm: what tells the LM from others.
    """
    method, source = parts.method, parts.source
    if method.tune != "prompt" or method.name in PET:
        return None
    if source.continue_from is not None or source.transfer or parts.output.log:
        return None
    if method.encoder == "multitask":
        return None
    of_a_step = tuple(getattr(parts.train, name) for name in OF_A_STEP)
    return (lm, source.device, source.dtype, *of_a_step)


@dataclass(frozen=True)
class _Member:
    """A run among those that are trained together.

    Attributes:
        number: its place among them.
        tasks: the numbers of its tasks among those of all members, by their numbers in its model.
        seconds: how long it took to prepare it.
    """

    number: int
    setup: Setup
    prepared: Prepared
    tasks: Mapping[int, int]
    seconds: float

    @property
    def training(self) -> Training:
        """Its training, with the numbers that its tasks have among those of all members."""
        return self._among_all(train_task.training_of(self.setup, self.prepared))

    @property
    def trial(self) -> Training:
        """The same where it is only tried: texts are written as short as can be."""
        brief = train_checks.brief(self.setup.parts.form)
        return self._among_all(train_task.training_of(self.setup, self.prepared, brief))

    def try_figures(self) -> None:
        """Compute the figures of two rows with a copy of what is not trained yet.

        Raises:
            PtuneError: something does not fit together.
        """
        prepared, rows = self.prepared, self.setup.rows
        twin = rehearsal.copy_of(prepared.model)
        train_checks.try_figures(twin, prepared.tasks, rows, self.setup.parts.form)

    def _among_all(self, training: Training) -> Training:
        return replace(training, data={self.tasks[key]: training.data[key] for key in self.tasks})

    def take_back(self, joint: PromptModel) -> None:
        """Take what was trained into the model of the run itself; the prompts are the same
        objects."""
        tasks = self.prepared.model.tasks
        for number, place in self.tasks.items():
            tasks[number] = replace(joint.tasks[place], prompt=tasks[number].prompt)


def train_together(
    runs: Sequence[TrainingParts],
    load: Callable[[LMSource, Method], LanguageModel],
    baseline_figures: train_results.Baselines = train_results.baseline_figures,
    pruners: Sequence[Pruner | None] = (),
) -> Iterator[tuple[int, Run | Exception]]:
    """Train runs of one bank (``bank_of``) in the same calls of the LM, and yield each when it is
    saved, with its number: what it gave, or why it failed. Each folder is as a run alone leaves it,
    at every moment.

    Args:
        load: gives the LM, the same one for all.
        baseline_figures: gives the figures of the baselines.
        pruners: end the training of each run early, by how others did.

    Raises:
        PtuneError, RuntimeError, MemoryError: a joint step failed. Those that were not yielded can
            be trained alone, and go on where they are.
    """
    with contextlib.ExitStack() as folders:
        members: list[_Member] = []
        joint: PromptModel | None = None
        for number, (parts, pruner) in enumerate(itertools.zip_longest(runs, pruners)):
            began = time.monotonic()
            try:
                entered = train_setup.entered(parts, terminal.print_nothing, load)
                setup = replace(folders.enter_context(entered), pruner=pruner)
                train_setup.check_begun(setup)
                if train_setup.is_finished(parts.output):
                    folder = parts.output.folder
                    yield number, train_results.finished_run(folder, terminal.print_nothing)
                    continue
                prepared = train_task.prepare(setup, baseline_figures)
            except FAULTS as error:
                yield number, error
                continue
            joint = joint or PromptModel(setup.lm)
            tasks = _join(joint, prepared.model)
            seconds = time.monotonic() - began
            members.append(
                _Member(number=number, setup=setup, prepared=prepared, tasks=tasks, seconds=seconds)
            )
        if joint is not None:
            yield from _train(joint, members)


def _join(joint: PromptModel, model: PromptModel) -> dict[int, int]:
    """Put the tasks of a model into another one, which shares their prompts; return their numbers
    there."""
    tasks, bank = {}, model.bank
    for number, bound in enumerate(model.tasks):
        prompt = bound.prompt
        if prompt >= 0:
            prefix = bank.prefixes[prompt] if bank.has_prefix(prompt) else None
            prompt = joint.bank.add(bank.encoders[prompt], prefix, bank.readers[prompt])
        joint.tasks.append(replace(bound, prompt=prompt))
        tasks[number] = len(joint.tasks) - 1
    return tasks


def _train(joint: PromptModel, members: Sequence[_Member]) -> Iterator[tuple[int, Run | Exception]]:
    """Train what is prepared, and finish each run."""
    began = time.monotonic()
    if new := [member for member in members if not train_task.is_begun(member.setup)]:
        rehearsal.one_step(joint, [member.trial for member in new])
    for member in new:
        member.try_figures()
    for member in members:
        member.setup.claim_folder()
    members = [
        replace(member, setup=train_task.with_rate(member.setup, member.prepared))
        for member in members
    ]
    label = f"{len(members)} runs together"
    all_histories = fit_together(joint, [member.training for member in members], label=label)
    seconds = (time.monotonic() - began) / len(members)
    for member, histories in zip(members, all_histories):
        member.take_back(joint)
        yield member.number, _finished(member, histories, member.seconds + seconds)


def _finished(
    member: _Member, histories: Mapping[int | str, TrainingHistory], seconds: float
) -> Run | Exception:
    """Save a run that is trained, and score it; or why that failed.

    Args:
        histories: by the numbers of its tasks among those of all members.
    """
    setup, prepared = member.setup, member.prepared
    by_number: dict[int | str, TrainingHistory] = {
        number: histories[place] for number, place in member.tasks.items()
    }
    try:
        trained = train_task.trained_of(setup, prepared, by_number)
        return train_task.finish(setup, trained, seconds)
    except FAULTS as error:
        return error
