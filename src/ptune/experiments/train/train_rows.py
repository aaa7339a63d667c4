"""The rows of a task that is trained, by the prompts that take them."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ptune.model.prompt_model import Row
from ptune.tasks import task_members
from ptune.tasks.resolved.task_form import TaskForm
from ptune.tasks.rows import task_rows
from ptune.tasks.rows.splits import by_prompt
from ptune.tasks.schema import DataConfig
from ptune.template.language import text_of

RowsByPrompt = Mapping[str | None, list[Row]]


@dataclass(frozen=True)
class TaskRows:
    """All rows of a task.

    Attributes:
        splits: the rows of each split as they were read: train, dev, test and unlabeled.
        by_prompt: the rows of train, dev and test by the value of the task's ``prompt_by`` field;
            without one, all stand under None.
        prompt_by: the field that chooses a row's prompt.
    """

    splits: Mapping[str, Sequence[Row]]
    by_prompt: Mapping[str, RowsByPrompt]
    prompt_by: str | None

    @classmethod
    def read(cls, form: TaskForm, data: DataConfig, report: Callable[[str], None]) -> "TaskRows":
        """Read the task's files.

        Raises:
            PtuneError: a file or a row is at fault.
        """
        splits = task_rows.read(form, data, report)
        grouped = {
            split: by_prompt(splits[split], form.prompt_by, split)
            for split in ("train", "dev", "test")
        }
        return cls(splits, grouped, form.prompt_by)

    def of(self, split: str, value: str | None) -> list[Row]:
        """The rows of one prompt; the members of an ensemble share theirs."""
        return rows_of_prompt(self.by_prompt[split], value, self.prompt_by)

    def scored(self, tasks: Mapping[str | None, int]) -> list[Row]:
        """The test rows of the prompts that are trained.

        Args:
            tasks: the number of each prompt's task.
        """
        by_prompt = self.by_prompt["test"]
        scored = [rows for value, rows in by_prompt.items() if value in tasks or not self.prompt_by]
        return list(itertools.chain.from_iterable(scored))

    def counts(self) -> dict[str, int]:
        """How many rows train, dev and test have."""
        return {split: sum(map(len, rows.values())) for split, rows in self.by_prompt.items()}


def rows_of_prompt(rows: RowsByPrompt, value: str | None, prompt_by: str | None) -> list[Row]:
    """The rows of one prompt; without ``prompt_by`` the members of an ensemble share all rows."""
    return rows.get(value if prompt_by else None, [])


def texts_that_are_read(
    form: TaskForm, splits: Mapping[str, Sequence[Row]]
) -> list[tuple[str, list[str]]]:
    """For each split that has rows its name in a sentence, and of each row the texts of the fields
    that the task reads, joined."""
    fields = task_members.fields(form)
    if not fields:
        return []
    return [
        (f"The {split} rows", [" ".join(text_of(row, field) for field in fields) for row in rows])
        for split, rows in splits.items()
        if rows
    ]
