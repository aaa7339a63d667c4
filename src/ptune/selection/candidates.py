"""The methods that are tried on a task, each as it asks that task on this LM, cheap ones first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Row
from ptune.settings import PetConfig, TrainConfig
from ptune.survey import proposals
from ptune.tasks import model_task, task_members
from ptune.tasks.pet_task import plan_of
from ptune.tasks.resolved.task_form import USUAL, Learning, TaskForm
from ptune.tasks.task_members import Member
from ptune.training.methods import Method
from ptune.training.methods import method as method_of
from ptune.training.pattern_exploiting.pet_plan import Plan

EARLIER = 5 / 6  # how far up the layers stands the one that is read beside the last
MOST_PATTERNS = 12  # hand-written prompts, each with its words, that are tried
USUAL_PET = PetConfig()
PET_PATTERNS = 3  # of those, the best, that teach a classifier together
PREFERRED = "contrastive"
"""What is taken where nothing else that leaves the LM as it is can be told to be better: on dev
rows of TREC and MR it was ahead of the LM's vectors as they are by 3 to 23 points."""


@dataclass(frozen=True)
class Candidate:
    """A method as it asks a task.

    Attributes:
        name: the method's, with what tells it from others of the same method.
        form: the task, read as this candidate reads it.
        member: the template and the words.
        learning: how its prompt begins.
    """

    name: str
    form: TaskForm
    method: Method
    member: Member
    learning: Learning

    @property
    def tunes_lm(self) -> bool:
        """Whether it changes the LM, of which the result then keeps a copy."""
        return self.method.tune in ("head", "lm", "both")

    def add(self, model: PromptModel, rows: Sequence[Row], name: str | None = None) -> int:
        """Put it into a model, as ``model_task.add`` does; return its number there."""
        return model_task.add(
            model,
            self.form,
            self.member,
            rows,
            method=self.method,
            learning=self.learning,
            name=name,
        )

    def settings(self, rows: int) -> TrainConfig:
        """The settings of a training on so many rows, which is looked at once, at its end: the rows
        are too few for some of them to be kept back."""
        settings = self.method.train
        return settings.model_copy(
            update={
                "seed": self.learning.seed,
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
        pet: how PET goes about it.
    """

    members: Sequence[Member] = ()
    unlabeled: Sequence[Row] = ()
    pet: PetConfig = PetConfig()

    def plan(self, lm: LanguageModel, rows: int) -> Plan:
        """What is trained on so many labelled rows."""
        return plan_of(
            self.form,
            lm,
            self.method,
            self.members,
            learning=self.learning,
            pet=self.pet,
            train=self.settings(rows),
        )

    def row_passes(self, rows: int) -> int:
        """As of any candidate, for each pattern and then for the classifier."""
        distil = self.method.train.replaced(self.pet.distil.model_dump())
        steps = distil.planned_steps(-(-len(self.unlabeled) // distil.batch_size))
        learned = 3 * steps * min(len(self.unlabeled), distil.batch_size)
        return len(self.members) * (super().row_passes(rows) + len(self.unlabeled)) + learned


def candidates(
    form: TaskForm,
    lm: LanguageModel,
    tune_lm: bool,
    unlabeled: Sequence[Row] = (),
    *,
    learning: Learning = USUAL,
    pet: PetConfig = USUAL_PET,
) -> list[Candidate]:
    """What is tried on a task, the cheapest first.

    Args:
        tune_lm: methods that change the LM are tried too.
        unlabeled: rows without labels, from which PET learns; without any it is not tried.
        learning: how prompts begin.
        pet: how PET goes about it.

    Raises:
        ConfigError: nothing fits this task and LM.
    """
    form = _with_pattern(form)
    tried = [*_without_pet(form, lm, learning)]
    if lm.has_head and unlabeled:
        tried.append(_pet(form, lm, learning, pet=pet, unlabeled=unlabeled))
    fitting = [candidate for candidate in tried if tune_lm or not candidate.tunes_lm]
    if not fitting:
        raise ConfigError(
            f"No method fits {form.name} on this LM ({type(lm.model).__name__}): name one with "
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


def _without_pet(form: TaskForm, lm: LanguageModel, learning: Learning) -> Iterator[Candidate]:
    """The methods that learn from labelled rows alone."""
    of = partial(_candidate, form, lm, learning)
    reads_means = lm.kind != "encoder-decoder"
    if reads_means:
        yield of("regression", pooling="mean")
        layer = round(EARLIER * int(lm.model.config.get_text_config().num_hidden_layers))
        earlier = of("regression", pooling="mean", layer=max(1, layer))
        yield replace(earlier, name=f"regression, layer {max(1, layer)}")
    if lm.has_head:
        yield from _manual(form, lm, learning)
    if reads_means and lm.capabilities.prefix:
        yield of(PREFERRED, pooling="mean")
    if lm.has_head:
        yield of("p-tuning")
    if reads_means and lm.capabilities.prefix:
        yield of("p-tuning-v2+head", pooling="mean")
    if reads_means:
        yield of("head", pooling="mean")
    if lm.has_head:
        yield of("manual+fine-tune")


def _pet(
    form: TaskForm,
    lm: LanguageModel,
    learning: Learning,
    *,
    pet: PetConfig,
    unlabeled: Sequence[Row],
) -> PetCandidate:
    method = method_of("pet")
    members = task_members.members(form, method, lm)[:PET_PATTERNS]
    return PetCandidate(
        name="pet",
        form=form,
        method=method,
        member=members[0],
        learning=learning,
        members=members,
        unlabeled=unlabeled,
        pet=pet,
    )


def _candidate(
    form: TaskForm, lm: LanguageModel, learning: Learning, name: str, **reading: Any
) -> Candidate:
    method = method_of(name)
    asked = _read_by(form, **reading)
    return Candidate(
        name=name,
        form=asked,
        method=method,
        member=task_members.members(asked, method, lm)[0],
        learning=learning,
    )


def _manual(form: TaskForm, lm: LanguageModel, learning: Learning) -> Iterator[Candidate]:
    """The hand-written prompts, calibrated: what the LM says to a row that says nothing is taken
    off."""
    method = method_of("manual")
    calibration = "contextual" if form.reading.calibration == "none" else form.reading.calibration
    asked = form if form.reading.domain else _read_by(form, calibration=calibration)
    members = task_members.members(asked, method, lm)[:MOST_PATTERNS]
    titled = replace(method, title="Calibrated manual prompt")
    for number, member in enumerate(members, 1):
        name = "manual" if len(members) == 1 else f"manual, pattern {number}"
        yield Candidate(name=name, form=asked, method=titled, member=member, learning=learning)


def _read_by(form: TaskForm, **reading: Any) -> TaskForm:
    return replace(form, reading=form.reading.model_copy(update=reading))


def _with_pattern(form: TaskForm) -> TaskForm:
    """The task with a pattern and a template with soft tokens, from which every method makes its
    own, where it has none."""
    if form.patterns and form.template:
        return form
    names = [field.name for field in dict.fromkeys(task_members.fields(form))]
    patterns = form.patterns or (proposals.pattern(names, form.target),)
    template = form.template if "{soft" in form.template else ""
    soft = template or proposals.soft_template(names, form.target)
    return replace(form, patterns=patterns, template=soft)
