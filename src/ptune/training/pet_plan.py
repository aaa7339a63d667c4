"""What a PET run is: its members, its classifier and their settings, what is refused of them, and
what its result depends on."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ptune.answers.label_words import Verbalizer
from ptune.errors import ConfigError, DataError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Row, Task
from ptune.model.rows.examples import Shortening
from ptune.runs import identity
from ptune.settings import PetConfig, TrainConfig
from ptune.training import rehearsal
from ptune.training.prompt_training import Tune


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

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the classifier tells apart."""
        return _labels(self.classifier)

    def tasks(self) -> list[Task]:
        """The tasks of all members: each pattern as often as the settings repeat it."""
        return [
            replace(task, name=f"{task.name} {time + 1}" if time else task.name)
            for task in self.members
            for time in range(self.settings.repetitions)
        ]

    def brief(self) -> "Plan":
        """The same with one step for each training, and one generation of later members at most."""
        settings = self.settings.model_copy(
            update={"repetitions": 1, "generations": min(1, self.settings.generations)}
        )
        train, distil = rehearsal.short(self.train), rehearsal.short(self.distil)
        return replace(self, train=train, distil=distil, settings=settings)


@dataclass(frozen=True)
class PetRows:
    """The rows of a PET run: those with labels, those for early stopping, and those to label."""

    train: Sequence[Row]
    dev: Sequence[Row]
    unlabeled: Sequence[Row]

    def named(self) -> dict[str, Sequence[Row]]:
        """The rows of each kind by their name in a sentence."""
        return {
            "training rows": self.train,
            "dev rows": self.dev,
            "unlabelled rows": self.unlabeled,
        }

    def brief(self) -> "PetRows":
        """Two rows of each kind."""
        return PetRows(*(rows[: rehearsal.ROWS] for rows in self.named().values()))


def _labels(task: Task) -> tuple[str, ...]:
    if not isinstance(task.verbalizer, Verbalizer):
        raise ConfigError(
            f"{task.name} has no labels of its own, the same for every row, and PET's classifier "
            "learns those from its members."
        )
    return task.verbalizer.labels


def check(plan: Plan, rows: PetRows) -> None:
    """Refuse members, rows or settings that do not fit together.

    Raises:
        ConfigError, DataError: they do not.
    """
    tasks, labels = plan.tasks(), plan.labels
    if not rows.unlabeled or not rows.dev or not tasks:
        raise DataError(
            f"PET has {len(tasks)} patterns that label, {len(rows.unlabeled)} unlabelled rows and "
            f"{len(rows.dev)} dev rows; it needs some of each."
        )
    if other := next((task for task in tasks if _labels(task) != labels), None):
        raise ConfigError(
            f"{other.name} has the labels {list(_labels(other))}, and the classifier "
            f"{list(labels)}: give all the same, in the same order."
        )
    counts = Counter(task.name for task in tasks)
    if twice := next((name for name, count in counts.items() if count > 1), None):
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


def try_rows(lm: LanguageModel, plan: Plan, rows: PetRows, report: Callable[[str], None]) -> None:
    """Tokenise every row for every task, so that a row that does not fit is refused before hours of
    training. Rows that the first pattern shortens are reported.

    Raises:
        PtuneError: a row does not fit.
    """
    model = PromptModel(lm, max_length=plan.max_length)
    for task in (*plan.members, plan.classifier):
        number = model.add(replace(task, init="random"))
        for name, of_kind in rows.named().items():
            shortening = Shortening()
            labelled = name != "unlabelled rows"
            rehearsal.try_rows(model, number, of_kind, shortening, labelled)
            if number == 0 and (sentence := shortening.sentence(name, model.limit(number))):
                report(sentence)


def identity_of(lm: LanguageModel, plan: Plan, rows: PetRows) -> dict[str, Any]:
    """Everything that determines the result."""
    return {
        "lm": identity.of_lm(lm),
        "members": [task.name for task in plan.members],
        "member": {task.name: identity.of_task(task) for task in plan.members},
        "classifier": identity.of_task(plan.classifier),
        "tune": plan.tune,
        "max_length": plan.max_length,
        "train": identity.of_settings(plan.train),
        "distil": identity.of_settings(plan.distil),
        "pet": identity.of_settings(plan.settings, ["distil"]),
        **{name: identity.of_rows(of_kind) for name, of_kind in rows.named().items()},
    }
