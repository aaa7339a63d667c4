"""PET for a task described by a YAML file: its patterns label the unlabelled rows, and one
classifier learns from those."""

from collections.abc import Sequence
from dataclasses import replace

from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.settings import PetConfig, TrainConfig
from ptune.tasks import model_task, task_members
from ptune.tasks.resolved.task_form import Learning, TaskForm
from ptune.tasks.task_members import Member
from ptune.training.methods import Method
from ptune.training.methods import method as method_of
from ptune.training.pattern_exploiting.pet_plan import Plan

GENERATIONS = 3  # of iPET, as in its paper


def plan_of(
    form: TaskForm,
    lm: LanguageModel,
    method: Method,
    members: Sequence[Member],
    *,
    learning: Learning,
    pet: PetConfig,
    train: TrainConfig,
    **distil: int,
) -> Plan:
    """What PET does with a task: each member is one of its patterns with one verbalizer.

    Args:
        method: pet or ipet.
        train: how members are trained.
        distil: settings of the classifier's training, where the task does not say others itself.

    Raises:
        ConfigError: the task has no labels for all rows, or one template alone.
    """
    labels = form.answers.labels
    if not labels:
        raise ConfigError(
            f"{form.name} has no labels of its own for a classifier to tell apart, so "
            f"{method.name} cannot be trained on it."
        )
    generations = 0 if method.name == "pet" else pet.generations or GENERATIONS
    tasks = [
        model_task.task_of(form, lm, member, method=method, learning=learning, name=str(number))
        for number, member in enumerate(members, 1)
    ]
    head = method_of("head")
    asked = Member(task_members.inputs(form, lm), labels)
    classifier = model_task.task_of(
        form, lm, asked, method=head, learning=learning, name="classifier"
    )
    usual = pet.distil.model_dump(exclude_none=True)
    given = usual if "distil" in pet.model_fields_set else {}
    return Plan(
        tasks,
        replace(classifier, temperature=pet.temperature),
        tune=learning.tune or "lm",
        train=train,
        distil=head.train.replaced({**usual, "seed": train.seed, **distil, **given}),
        settings=pet.model_copy(update={"generations": generations}),
        max_length=form.max_length,
    )
