"""PET for a task described by a YAML file: its patterns label the unlabelled rows, and one
classifier learns from those."""

from dataclasses import replace

from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.settings import TrainConfig
from ptune.tasks import model_task, task_members
from ptune.tasks.schema import TaskConfig
from ptune.tasks.task_members import Member
from ptune.training.methods import Method
from ptune.training.methods import method as method_of
from ptune.training.paper_settings import preset_pet
from ptune.training.pattern_exploiting.pet_plan import Plan

GENERATIONS = 3  # of iPET, as in its paper


def plan_of(
    config: TaskConfig,
    lm: LanguageModel,
    method: Method,
    members: list[Member],
    settings: TrainConfig,
    **distil: int,
) -> Plan:
    """What PET does with a task: each member is one of its patterns with one verbalizer.

    Args:
        method: pet or ipet.
        settings: how members are trained.
        distil: settings of the classifier's training, where the task does not say others itself.

    Raises:
        ConfigError: the task has no labels for all rows, or one template alone.
    """
    if not config.labels:
        raise ConfigError(
            f"{config.name} has no labels of its own for a classifier to tell apart, so "
            f"{method.name} cannot be trained on it."
        )
    pet = preset_pet(config.pet, config.preset)
    generations = 0 if method.name == "pet" else pet.generations or GENERATIONS
    pet = pet.model_copy(update={"generations": generations})
    tasks = [
        model_task.task_of(config, lm, member, str(number), method)
        for number, member in enumerate(members, 1)
    ]
    head = method_of("head")
    classifier = model_task.task_of(
        config, lm, Member(task_members.inputs(config, lm), config.labels), "classifier", head
    )
    is_said = "distil" in config.pet.model_fields_set
    said = config.pet.distil.model_dump(exclude_none=True) if is_said else {}
    usual = pet.distil.model_dump(exclude_none=True)
    learning = head.train.replaced({**usual, "seed": settings.seed, **distil, **said})
    return Plan(
        tasks,
        replace(classifier, temperature=pet.temperature),
        config.tune or "lm",
        settings,
        learning,
        pet,
        config.max_length,
    )
