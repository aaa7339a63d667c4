"""The methods that are tried on a task, each as it asks that task on this LM, cheap ones first."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.settings import TrainConfig
from ptune.survey import proposals
from ptune.tasks import yaml_task
from ptune.tasks.schema import TaskConfig
from ptune.tasks.yaml_task import Member
from ptune.training.methods import Method
from ptune.training.methods import method as method_of

EARLIER = 5 / 6  # how far up the layers stands the one that is read beside the last
MOST_PATTERNS = 5  # hand-written prompts that are tried


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


def candidates(task: TaskConfig, lm: LanguageModel, tune_lm: bool) -> list[Candidate]:
    """What is tried on a task, the cheapest first.

    Args:
        tune_lm: methods that change the LM are tried too.

    Raises:
        ConfigError: nothing fits this task and LM.
    """
    task = _with_pattern(task)
    fitting = [candidate for candidate in _all(task, lm) if tune_lm or not candidate.tunes_lm]
    if not fitting:
        raise ConfigError(
            f"No method fits {task.name} on this LM ({type(lm.model).__name__}): name one with "
            "--method."
        )
    return fitting


def _all(task: TaskConfig, lm: LanguageModel) -> Iterator[Candidate]:
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


def _of(task: TaskConfig, lm: LanguageModel, name: str, **reading: Any) -> Candidate:
    method = method_of(name)
    asked = _read_by(task, **reading)
    return Candidate(name, asked, method, yaml_task.members(asked, method, lm)[0])


def _manual(task: TaskConfig, lm: LanguageModel) -> Iterator[Candidate]:
    """The hand-written prompts, calibrated: what the LM says to a row that says nothing is taken
    off."""
    method = method_of("manual")
    calibration = "contextual" if task.reading.calibration == "none" else task.reading.calibration
    asked = task if task.reading.domain else _read_by(task, calibration=calibration)
    members = yaml_task.members(asked, method, lm)[:MOST_PATTERNS]
    for number, member in enumerate(members, 1):
        name = "manual" if len(members) == 1 else f"manual, pattern {number}"
        yield Candidate(name, asked, replace(method, title="Calibrated manual prompt"), member)


def _read_by(task: TaskConfig, **reading: Any) -> TaskConfig:
    return task.model_copy(update={"reading": task.reading.model_copy(update=reading)})


def _with_pattern(task: TaskConfig) -> TaskConfig:
    """The task with a pattern to make every method's template of, where it has none of its own."""
    if task.patterns:
        return task
    names = [field.name for field in dict.fromkeys(yaml_task.fields(task))]
    pattern = proposals.pattern(names, task.target)
    template = task.template if "{soft" in task.template else ""
    soft = template or proposals.soft_template(names, task.target)
    return task.model_copy(update={"patterns": (pattern,), "template": soft})
