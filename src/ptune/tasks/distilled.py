"""PET for a task described by a YAML file: its patterns label the unlabelled rows, and one classifier learns from those."""
from dataclasses import replace

from ptune.config import TaskConfig, TrainConfig
from ptune.errors import ConfigError
from ptune.lm import LanguageModel
from ptune.methods import Method, method
from ptune.pet import Plan
from ptune.tasks import described
from ptune.tasks.described import Member

GENERATIONS = 3  # of iPET, as in its paper


def plan_of(config: TaskConfig, lm: LanguageModel, way: Method, members: list[Member], settings: TrainConfig, **distil: int) -> Plan:
    """What PET does with a task: each member is one of its patterns with one verbalizer.

    Args:
        way: pet or ipet.
        settings: how members are trained.
        distil: settings of the classifier's training that replace the task's.

    Raises:
        ConfigError: the task has no labels for all rows, or one template alone.
    """
    if not config.labels:
        raise ConfigError(f"{config.name} has no labels of its own for a classifier to tell apart, so {way.name} cannot be trained on it.")
    pet = config.pet.model_copy(update={"generations": 0 if way.name == "pet" else config.pet.generations or GENERATIONS})
    tasks = [described.task_of(config, lm, member, str(number), way) for number, member in enumerate(members, 1)]
    head = method("head")
    classifier = described.task_of(config, lm, Member(described.inputs(config, lm), config.labels), "classifier", head)
    learning = head.train.replaced(pet.distil.model_dump() | {"seed": settings.seed} | distil)
    return Plan(tasks, replace(classifier, temperature=pet.temperature), config.tune or "lm", settings, learning, pet, config.max_length)
