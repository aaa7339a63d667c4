"""The model of a task that is trained: new prompts, and those that go on."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial

from ptune.base.file_names import file_name
from ptune.errors import ConfigError
from ptune.experiments.train.train_rows import RowsByPrompt, rows_of_prompt
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.storage import prompt_folder
from ptune.tasks import model_task, task_members
from ptune.tasks.resolved.parts import Output
from ptune.tasks.resolved.task_form import Learning, TaskForm
from ptune.training.methods import Method

MAY_CHANGE = ("seed", "layout", "metrics", "parts")  # fields of a task whose prompt goes on


def folder_of(folder: pathlib.Path, value: str | None) -> pathlib.Path:
    """Where a prompt is saved: in the run's folder, or in a folder of its name in there."""
    return folder if value is None else folder / "prompts" / file_name(value)


def new_prompts(output: Output, tasks: Mapping[str | None, int]) -> list[int]:
    """The numbers of the tasks whose prompts are not saved already, to go on from there.

    Args:
        tasks: the number of each prompt's task.
    """
    return [
        number
        for value, number in tasks.items()
        if not (output.only and (folder_of(output.folder, value) / "prompt.json").exists())
    ]


def build(
    lm: LanguageModel,
    rows: RowsByPrompt,
    start: PromptModel | None = None,
    *,
    form: TaskForm,
    method: Method,
    learning: Learning,
    output: Output,
) -> tuple[PromptModel, dict[str | None, int]]:
    """The model, and the number of each prompt's task: new prompts, and of those that ``only``
    names the ones that are saved already, which go on.

    Args:
        rows: the training rows.
        start: prompts as which new ones begin.

    Raises:
        ConfigError: ``only`` names a value that no row has, or a saved prompt was trained with
            other settings.
    """
    only = output.only
    if unknown := next((value for value in only if value not in rows), None):
        raise ConfigError(f"No training row has {form.prompt_by} {unknown!r}.")
    members = task_members.members(form, method, lm)
    values = _values(only, rows, len(members))
    asked = partial(model_task.task_of, form, lm, members[0], method=method, learning=learning)
    model, saved = _load_saved(lm, output, values, asked)
    tasks: dict[str | None, int] = {value: number for number, value in enumerate(saved)}
    if len(members) == 1:
        members = members * len(values)
    for number, (member, value) in enumerate(zip(members, values)):
        if value not in tasks:
            tasks[value] = model_task.add(
                model,
                form,
                member,
                rows_of_prompt(rows, value, form.prompt_by),
                method=method,
                learning=learning,
                name=value,
                begun=_start_of(start, value, number),
            )
    return model, tasks


def _values(only: Sequence[str], rows: RowsByPrompt, members: int) -> list[str | None]:
    """The names of the prompts: the values of ``prompt_by``, the numbers of an ensemble's members,
    or None alone."""
    if members > 1:
        return [str(number) for number in range(1, members + 1)]
    return [value for value in rows if value in only or not only] or [None]


def _load_saved(
    lm: LanguageModel, output: Output, values: list[str | None], asked: Callable[..., Task]
) -> tuple[PromptModel, list[str | None]]:
    """The prompts that are saved already and go on, which are checked to be those of this task,
    and their values of ``prompt_by``; where ``only`` names none, a model without prompts.

    Args:
        asked: the task by its name.
    """
    folders = {value: folder_of(output.folder, value) for value in values if output.only}
    saved = [value for value, folder in folders.items() if (folder / "prompt.json").exists()]
    if not saved:
        return PromptModel(lm), []
    model = prompt_folder.load([folders[value] for value in saved], lm, trainable=True)
    for bound, value in zip(model.tasks, saved):
        _check_same(bound.task, asked(name=value), folders[value])
    return model, saved


def _check_same(saved: Task, requested: Task, folder: pathlib.Path) -> None:
    """A prompt goes on under the settings that it was trained with, the seed aside.

    Raises:
        ConfigError: other settings are requested; they are named.
    """
    if not requested.prefix.attentions:
        prefix = replace(requested.prefix, attentions=saved.prefix.attentions)
        requested = replace(requested, prefix=prefix)
    names = [field.name for field in fields(Task) if field.name not in MAY_CHANGE]
    changed = [name for name in names if getattr(saved, name) != getattr(requested, name)]
    if changed:
        raise ConfigError(
            f"The prompt in {folder} was trained with another {', '.join(changed)}: go on with "
            "the same, or delete the folder to begin anew."
        )


def _start_of(start: PromptModel | None, value: str | None, member: int) -> model_task.Begun | None:
    """The prompt that one of this task begins as: the only one there is, that of the same user, or
    that of the same member.

    Raises:
        ConfigError: there is none.
    """
    if start is None:
        return None
    owners: Mapping[str, int] = {
        bound.task.by[1]: number for number, bound in enumerate(start.tasks) if bound.task.by
    }
    number: int | None = member
    if len(start.tasks) == 1:
        number = 0
    elif owners:
        number = owners.get(str(value))
    if number is None or number >= len(start.tasks):
        raise ConfigError(f"Of the {len(start.tasks)} prompts to go on from none is for {value!r}.")
    return model_task.Begun(start, number)
