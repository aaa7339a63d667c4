"""The methods that are tried on a task, each as it asks that task on this LM, cheap ones first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import Row
from ptune.settings import TrainConfig
from ptune.survey import proposals
from ptune.tasks import task_members
from ptune.tasks.pet_task import plan_of
from ptune.tasks.schema import TaskConfig
from ptune.tasks.task_members import Member
from ptune.training.methods import Method
from ptune.training.methods import method as method_of
from ptune.training.pattern_exploiting.pet_plan import Plan

EARLIER = 5 / 6  # how far up the layers stands the one that is read beside the last
MOST_PATTERNS = 12  # hand-written prompts, each with its words, that are tried
PET_PATTERNS = 3  # of those, the best, that teach a classifier together


@dataclass(frozen=True)
class Candidate:
    """A method as it asks a task.

    Attributes:
        name: the method's, with what tells it from others of the same method.
        task: the task, read as this candidate reads it.
        member: the template and the words.
    """

    name: str
    task: TaskConfig
    method: Method
    member: Member

    @property
    def tunes_lm(self) -> bool:
        """Whether it changes the LM, of which the result then keeps a copy."""
        return self.method.tune in ("head", "lm", "both")

    def settings(self, rows: int) -> TrainConfig:
        """The settings of a training on so many rows, which is looked at once, at its end: the rows
        are too few for some of them to be kept back."""
        settings = self.method.train
        return settings.model_copy(
            update={
                "seed": self.task.train.seed or 0,
                "patience": 0,
                "evaluate_every": settings.planned_steps(-(-rows // settings.batch_size)),
            }
        )

    def row_passes(self, rows: int) -> int:
        """How often a row runs through the LM in a training. A backward pass counts as one, or as
        two where the LM's weights get gradients."""
        if self.method.tune == "nothing":
            return rows
        settings = self.method.train
        steps = settings.planned_steps(-(-rows // settings.batch_size))
        return steps * min(rows, settings.batch_size) * (3 if self.tunes_lm else 2)


@dataclass(frozen=True)
class PetCandidate(Candidate):
    """PET, whose patterns teach one classifier by the rows that they label.

    Attributes:
        members: the patterns, each with its words.
        unlabeled: the rows without labels.
    """

    members: Sequence[Member] = ()
    unlabeled: Sequence[Row] = ()

    def plan(self, lm: LanguageModel, rows: int) -> Plan:
        """What is trained on so many labelled rows."""
        return plan_of(self.task, lm, self.method, list(self.members), self.settings(rows))

    def row_passes(self, rows: int) -> int:
        """As of any candidate, for each pattern and then for the classifier."""
        distil = self.method.train.replaced(self.task.pet.distil.model_dump())
        steps = distil.planned_steps(-(-len(self.unlabeled) // distil.batch_size))
        learned = 3 * steps * min(len(self.unlabeled), distil.batch_size)
        return len(self.members) * (super().row_passes(rows) + len(self.unlabeled)) + learned


def candidates(
    task: TaskConfig, lm: LanguageModel, tune_lm: bool, unlabeled: Sequence[Row] = ()
) -> list[Candidate]:
    """What is tried on a task, the cheapest first.

    Args:
        tune_lm: methods that change the LM are tried too.
        unlabeled: rows without labels, from which PET learns; without any it is not tried.

    Raises:
        ConfigError: nothing fits this task and LM.
    """
    task = _with_pattern(task)
    fitting = [
        candidate for candidate in _all(task, lm, unlabeled) if tune_lm or not candidate.tunes_lm
    ]
    if not fitting:
        raise ConfigError(
            f"No method fits {task.name} on this LM ({type(lm.model).__name__}): name one with "
            "--method."
        )
    return fitting


def with_best_patterns(
    candidate: Candidate, figures: Mapping[str, float], tried: Mapping[str, Candidate]
) -> Candidate:
    """The candidate with the hand-written prompts that were the best untrained; of equal ones those
    that stand first.

    Args:
        figures: the figures of candidates by their names.
        tried: all candidates by their names.
    """
    if candidate.method.frame != "<pattern>" or candidate.method.tune == "nothing":
        return candidate
    manual = [name for name in figures if tried[name].method.name == "manual"]
    best = [tried[name].member for name in sorted(manual, key=lambda name: -figures[name])]
    if not best:
        return candidate
    if isinstance(candidate, PetCandidate):
        return replace(candidate, members=best[:PET_PATTERNS], member=best[0])
    return replace(candidate, member=best[0])


def _all(task: TaskConfig, lm: LanguageModel, unlabeled: Sequence[Row]) -> Iterator[Candidate]:
    reads_means = lm.kind != "encoder-decoder"
    if reads_means:
        yield _of(task, lm, "regression", pooling="mean")
        layer = round(EARLIER * int(lm.model.config.get_text_config().num_hidden_layers))
        earlier = _of(task, lm, "regression", pooling="mean", layer=max(1, layer))
        yield replace(earlier, name=f"regression, layer {max(1, layer)}")
    if lm.has_head:
        yield from _manual(task, lm)
    if reads_means and lm.capabilities.prefix:
        yield _of(task, lm, "contrastive", pooling="mean")
    if lm.has_head:
        yield _of(task, lm, "p-tuning")
    if reads_means and lm.capabilities.prefix:
        yield _of(task, lm, "p-tuning-v2+head", pooling="mean")
    if reads_means:
        yield _of(task, lm, "head", pooling="mean")
    if lm.has_head:
        yield _of(task, lm, "manual+fine-tune")
    if lm.has_head and unlabeled:
        members = task_members.members(task, method_of("pet"), lm)[:PET_PATTERNS]
        yield PetCandidate("pet", task, method_of("pet"), members[0], members, unlabeled)


def _of(task: TaskConfig, lm: LanguageModel, name: str, **reading: Any) -> Candidate:
    method = method_of(name)
    asked = _read_by(task, **reading)
    return Candidate(name, asked, method, task_members.members(asked, method, lm)[0])


def _manual(task: TaskConfig, lm: LanguageModel) -> Iterator[Candidate]:
    """The hand-written prompts, calibrated: what the LM says to a row that says nothing is taken
    off."""
    method = method_of("manual")
    calibration = "contextual" if task.reading.calibration == "none" else task.reading.calibration
    asked = task if task.reading.domain else _read_by(task, calibration=calibration)
    members = task_members.members(asked, method, lm)[:MOST_PATTERNS]
    for number, member in enumerate(members, 1):
        name = "manual" if len(members) == 1 else f"manual, pattern {number}"
        yield Candidate(name, asked, replace(method, title="Calibrated manual prompt"), member)


def _read_by(task: TaskConfig, **reading: Any) -> TaskConfig:
    return task.model_copy(update={"reading": task.reading.model_copy(update=reading)})


def _with_pattern(task: TaskConfig) -> TaskConfig:
    """The task with a pattern and a template with soft tokens, from which every method makes its
    own, where it has none."""
    if task.patterns and task.template:
        return task
    names = [field.name for field in dict.fromkeys(task_members.fields(task))]
    patterns = task.patterns or (proposals.pattern(names, task.target),)
    template = task.template if "{soft" in task.template else ""
    soft = template or proposals.soft_template(names, task.target)
    return task.model_copy(update={"patterns": patterns, "template": soft})
