"""The rows of a task, read and checked as its form asks."""

from collections.abc import Callable

from ptune.tasks import task_members
from ptune.tasks.resolved.task_form import TaskForm
from ptune.tasks.rows import splits
from ptune.tasks.rows.few_shot import Row
from ptune.tasks.rows.row_labels import with_truths
from ptune.tasks.schema import DataConfig


def read(
    form: TaskForm, data: DataConfig, report: Callable[[str], None] | None = None
) -> dict[str, list[Row]]:
    """The rows of every split, as ``splits.read`` gives them; their labels are texts.

    Args:
        report: gets what was decided about a file and could have been otherwise.

    Raises:
        PtuneError: a file or a row is at fault.
    """
    rows = splits.read(
        data,
        form.target,
        form.answers.names,
        by=form.prompt_by,
        fields=task_members.fields(form),
        report=report,
        multi_label=form.answers.multi_label,
        words=form.answers.word_labels,
    )
    labels = form.answers.shared
    return {
        split: with_truths(rows_of_split, form.target, labels)
        for split, rows_of_split in rows.items()
    }
