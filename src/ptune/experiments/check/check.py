"""``ptune check``: files of rows, or a task's files, looked at before anything is trained."""

import json
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ptune.base import terminal
from ptune.errors import ConfigError, DataError, PtuneError, nearest
from ptune.experiments.check import check_files, check_page, check_task_text
from ptune.experiments.check.check_files import Checked, CheckedFile, Row, plain_text
from ptune.experiments.options import CheckConfig
from ptune.settings import FileConfig, part_of
from ptune.survey import columns as column_survey
from ptune.survey import proposals
from ptune.survey.columns import Roles
from ptune.tasks.options import NewConfig
from ptune.template.language import Field, Template, TemplateError, text_of

if TYPE_CHECKING:
    from ptune.experiments.check.check_lengths import TokenCounts
    from ptune.lm.source.reading import Reading
    from ptune.model.task import BoundTask
    from ptune.tasks.resolved.task_form import TaskForm
    from ptune.tasks.schema import DataConfig

YAML = (".yaml", ".yml")
NAMED = pathlib.Path(__file__).parents[2] / "tasks" / "named"
Counts = Mapping[str, "TokenCounts"]


def check(config: CheckConfig, report: Callable[[str], None] = terminal.print_line) -> int:
    """Show what files of rows hold, and the YAML that reads them.

    Returns:
        How many lines cannot be read, and how many rows training would refuse.

    Raises:
        PtuneError: a file cannot be read at all, or a column that is named is not there.
    """
    file = config.files[0]
    if file.suffix in YAML or not file.is_file() and (NAMED / f"{file}.yaml").exists():
        checked, counts = _check_task(config)
    else:
        checked, counts = _check_rows(config)
    for name, counted in counts.items():
        checked.findings += counted.findings(name)
    if config.as_json:
        text = json.dumps(check_page.as_json(checked, counts), indent=2, ensure_ascii=False)
        report(terminal.clean_json(text))
    else:
        check_page.show(checked, counts)
    return checked.faults + checked.refused + sum(counted.too_long for counted in counts.values())


def _check_rows(config: CheckConfig) -> tuple[Checked, Counts]:
    """Look at plain files of rows, and write the task that reads them.

    Raises:
        ConfigError: an option is of counting tokens, and no LM is named.
    """
    for name in ("sample", "max_length"):
        if config.lm is None and getattr(config, name) != CheckConfig.model_fields[name].default:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option} is of counting tokens: name an --lm too, or leave it out.")
    files = check_files.files_of(config.files, part_of(FileConfig, config), config.form)
    checked = check_files.survey(files, lambda first: _roles(config, files, first), plain_text)
    reading = _reading(config.lm)
    tokens = reading.tokens if reading else None
    method = NewConfig.model_fields["method"].default
    if files[0].rows:
        checked.yaml, checked.no_yaml = check_task_text.task_text(
            checked, config.lm, method, tokens
        )
    if reading is None or not checked.roles.texts:
        return checked, {}
    target = checked.roles.label or checked.roles.answer or "label"
    if checked.roles.of_words:
        words = Template.parse(Field(checked.roles.texts[0]).shown)
        template = words.joined(checked.roles.texts[0])
    else:
        template = Template.parse(proposals.soft_template(checked.roles.texts, target))
    return checked, _token_counts(
        config, checked, template, reading=reading, limit=config.max_length
    )


def _roles(config: CheckConfig, files: list[CheckedFile], first: CheckedFile) -> Roles:
    """Which columns of the first file are read; where its columns have no names, they get some."""
    for option, name in (("--text", config.text), ("--label", config.label)):
        if name is not None and name not in first.columns:
            raise DataError(
                f"{first.path} has no column {name!r}, which {option} names. "
                f"{nearest(name, first.columns)}"
            )
    roles = column_survey.roles_of(first.columns, config.text, config.label)
    if first.layout == "conll":
        words, *others = first.columns
        return Roles((words,), others[-1] if others else None, of_words=True)
    is_named = config.columns or config.text or config.label
    if not is_named and column_survey.first_line_is_a_row(first.columns, roles):
        for file in files:
            file.take_first_line()
        roles = column_survey.roles_of(first.columns)
    if first.form is None or not first.form.first_line:
        return roles
    names = {name: f"text{number}" for number, name in enumerate(roles.texts, 1)}
    if len(names) == 1:
        names = {roles.texts[0]: "text"}
    if roles.label is not None:
        names[roles.label] = "label"
    for file in files:
        file.rename_columns(names)
    return Roles(tuple(names[name] for name in roles.texts), names.get(roles.label or ""))


def _reading(lm: str | None) -> "Reading | None":
    if lm is None:
        return None
    from ptune.lm.source import reading

    return reading.load(lm)


def _token_counts(
    config: CheckConfig,
    checked: Checked,
    template: Template,
    *,
    reading: "Reading",
    limit: int | None,
    task: "BoundTask | None" = None,
) -> Counts:
    from ptune.experiments.check import check_lengths

    return {
        file.name: check_lengths.count(
            file.read(),
            template,
            reading,
            limit=limit,
            step=_step(file.rows, config.sample),
            task=task,
        )
        for file in checked.files
    }


def _step(rows: int, sample: int) -> int:
    return max(1, rows // sample) if sample else 1


def _check_task(config: CheckConfig) -> tuple[Checked, Counts]:
    """Look at the files of a task, as training would."""
    from ptune.model.task import bound_to
    from ptune.tasks import model_task, task_members, yaml_task
    from ptune.tasks.resolved import resolve
    from ptune.tasks.rows import data_sets, splits
    from ptune.tasks.schema import AUTO

    if len(config.files) > 1:
        raise DataError("A task is checked alone: give one YAML file, or files of rows.")
    task = yaml_task.read(config.files[0])
    data, form = data_sets.as_files(task.data), resolve.task_form(task)
    fields = task_members.fields(form)
    by_name = {field.name: field for field in fields}
    files = [
        CheckedFile(path=path, split=split, name=split, layout=data.form, options=data.layout)
        for split in splits.SPLITS
        if (path := getattr(data, split)) is not None
    ]
    if not files:
        raise DataError(f"{config.files[0]} names no files of rows under data.")

    def text(row: Row, name: str) -> str:
        try:
            return text_of(row, by_name.get(name, Field(name)))
        except TemplateError:
            return ""

    roles = Roles(
        tuple(by_name),
        form.target if form.answers.labels else None,
        None if form.answers.labels else form.target,
        form.answers.word_labels is not None,
    )
    checked = check_files.survey(files, lambda first: roles, text)
    _refused_by_training(form, data, checked)
    reading = _reading(config.lm or task.lm)
    assert reading is not None
    limits = [limit for limit in (config.max_length, form.max_length) if limit is not None]
    method = resolve.shown_method(task)
    member = task_members.members(form, method, reading)[0]
    bound_task = None
    if task.method != AUTO:
        try:
            learning = resolve.learning(task)
            asked = model_task.task_of(form, reading, member, method=method, learning=learning)
            bound_task = bound_to(
                replace(asked, max_length=min(limits, default=None)), reading.tokens, reading.kind
            )
        except PtuneError as error:
            checked.files[0].faults.append(str(error))
    return checked, _token_counts(
        config,
        checked,
        task_members.parsed(form, member.template),
        reading=reading,
        limit=min(limits, default=None),
        task=bound_task,
    )


def _refused_by_training(form: "TaskForm", data: "DataConfig", checked: Checked) -> None:
    """Put what training would refuse to what is wrong with the first file."""
    from ptune.tasks.rows import task_rows

    try:
        task_rows.read(form, data)
    except DataError as error:
        checked.files[0].faults.append(str(error))
