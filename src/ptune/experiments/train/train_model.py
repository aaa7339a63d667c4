"""The model of a task that is trained: new prompts, and those that go on."""

import pathlib
from collections.abc import Mapping
from dataclasses import fields, replace

from ptune.base.file_names import file_name
from ptune.errors import ConfigError
from ptune.experiments.train.train_rows import RowsByPrompt, rows_of_prompt
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.storage import prompt_folder
from ptune.tasks import model_task, task_members
from ptune.tasks.schema import TaskConfig

MAY_CHANGE = ("seed", "layout", "metrics", "parts")  # fields of a task whose prompt goes on


def folder_of(config: TaskConfig, value: str | None) -> pathlib.Path:
    """Where a prompt is saved: in the out folder, or in a folder of its name in there."""
    return config.out if value is None else config.out / "prompts" / file_name(value)


def build(
    config: TaskConfig,
    lm: LanguageModel,
    rows: RowsByPrompt,
    start: PromptModel | None = None,
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
    if unknown := next((value for value in config.only if value not in rows), None):
        raise ConfigError(f"No training row has {config.prompt_by} {unknown!r}.")
    members = task_members.members(config, lm=lm)
    values = _values(config, rows, len(members))
    saved = [
        value
        for value in values
        if config.only and (folder_of(config, value) / "prompt.json").exists()
    ]
    model = _load_saved(config, lm, saved, members[0]) if saved else PromptModel(lm)
    tasks: dict[str | None, int] = {value: number for number, value in enumerate(saved)}
    if len(members) == 1:
        members = members * len(values)
    for number, (member, value) in enumerate(zip(members, values)):
        if value not in tasks:
            tasks[value] = model_task.add(
                model,
                config,
                member,
                rows_of_prompt(rows, value, config.prompt_by),
                value,
                begun=_start_of(start, value, number),
            )
    return model, tasks


def _values(config: TaskConfig, rows: RowsByPrompt, members: int) -> list[str | None]:
    """The names of the prompts: the values of ``prompt_by``, the numbers of an ensemble's members,
    or None alone."""
    if members > 1:
        return [str(number) for number in range(1, members + 1)]
    return [value for value in rows if value in config.only or not config.only] or [None]


def _load_saved(
    config: TaskConfig, lm: LanguageModel, values: list[str | None], member: task_members.Member
) -> PromptModel:
    """The saved prompts, which are checked to be those of this task."""
    folders = [folder_of(config, value) for value in values]
    model = prompt_folder.load(folders, lm, trainable=True)
    for bound, value, folder in zip(model.tasks, values, folders):
        _check_same(bound.task, model_task.task_of(config, lm, member, value), folder)
    return model


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
