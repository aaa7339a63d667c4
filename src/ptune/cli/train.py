"""``ptune train``: a task from a YAML file or from a table, with the command line's options."""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Self

from pydantic import model_validator

from ptune.cli.parsing import flags
from ptune.cli.parsing.parse import parse
from ptune.tasks.options import NewConfig
from ptune.tasks.schema import TaskConfig

OF_THE_FILE = "as the file says"  # in the help without a file, what a task's name is


def read_task(arguments: Sequence[str]) -> TaskConfig:
    """The task that the first argument names, with the options that follow it in their places.

    Exits after printing the help where no file is named.

    Raises:
        PtuneError: the file cannot be read, or does not describe a task.
    """
    if not arguments or arguments[0].startswith("-"):
        flags.check(TableTaskConfig, arguments, "ptune train")
        print(
            "usage: ptune train TASK.yaml [OPTIONS]\n       ptune train TABLE.csv [--text COLUMN] "
            "[--label COLUMN] [--skip-bad-lines] [OPTIONS]\n\n"
            "Any key of the file can be set from the command line. Of a table (.csv, .tsv, "
            ".jsonl) a file is made first, as by ptune new.\n--estimate prints how much memory the "
            "training takes, by part, and loads no LM.\n"
        )
        parse(TaskConfig, ["--help"], "ptune train TASK.yaml", TaskConfig(name=OF_THE_FILE))
    from ptune.tasks import yaml_task
    from ptune.tasks.resolved.unread import check_asked

    file, options = pathlib.Path(arguments[0]), list(arguments[1:])
    if names_table(arguments):
        file, options = _table_to_task(file, options)
    default = yaml_task.read(file, _preset(options))
    config = parse(TaskConfig, options, f"ptune train {arguments[0]}", default)
    check_asked(default, config)
    return config


def names_table(arguments: Sequence[str]) -> bool:
    """Whether the first argument names a table, of which a task's file is made first."""
    from ptune.data.formats.header import TABLES
    from ptune.data.row_files import form_of
    from ptune.data.rows import JSON

    if not arguments or arguments[0].startswith("-"):
        return False
    file = pathlib.Path(arguments[0])
    return form_of(file) in (*TABLES, *JSON) or _is_other_file(file)


def _preset(options: Sequence[str]) -> str | None:
    """The preset that the options name: it decides what the other options find in their places."""
    from ptune.tasks import yaml_task

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", nargs="?")
    preset = parser.parse_known_args(list(options))[0].preset
    return preset if preset in ("code", "paper", yaml_task.NO_PRESET) else None


def _is_other_file(file: pathlib.Path) -> bool:
    """Whether a file's name does not say that it is a task, so that it may be a table."""
    return file.suffix not in (".yaml", ".yml") and file.is_file()


class TableTaskConfig(TaskConfig):
    """A task of a table, of which a file is made first."""

    text: str | None = NewConfig.model_fields["text"].default
    """Of a table: the column with the text; found by its name or its length by default."""
    label: str | None = NewConfig.model_fields["label"].default
    """Of a table: the column with the label; found by its name or its few values by default."""
    skip_bad_lines: bool = NewConfig.model_fields["skip_bad_lines"].default
    """Of a table: leave out rows without a text or a label and lines that cannot be read."""

    @model_validator(mode="after")
    def _check_tokens(self) -> Self:
        """Which settings go together is known when the task's file is there."""
        return self

    @model_validator(mode="after")
    def _check_label_sets(self) -> Self:
        return self


def _table_to_task(table: pathlib.Path, options: Sequence[str]) -> tuple[pathlib.Path, list[str]]:
    """Write the YAML file of a task from a table, beside the folder of the run, once the options
    are known to be ones.

    A run that is resumed takes the file that it wrote at its start, and so does one whose file
    would be the same.

    Returns:
        The file, and the options that remain for the training.

    Raises:
        PtuneError: an option is refused, or no task can be made of the table.
    """
    default = TableTaskConfig(
        name=OF_THE_FILE,
        out=pathlib.Path(f"{table.stem}-trained"),
        lm=NewConfig.model_fields["lm"].default,
        method=NewConfig.model_fields["method"].default,
    )
    parsed = parse(TableTaskConfig, options, f"ptune train {table}", default)
    file = parsed.out.with_name(f"{parsed.out.name}.yaml")
    _check_place(parsed)
    if not (parsed.resume and file.exists()):
        from ptune.tasks.new_task import new

        names = ("text", "label", "lm", "method", "skip_bad_lines")
        new(
            NewConfig(data=table, out=file, **{name: getattr(parsed, name) for name in names}),
            may_exist=True,
        )
    rest = _without_table_options(options)
    is_given = any(option.partition("=")[0] == "--out" for option in rest)
    return file, rest if is_given else ["--out", str(parsed.out), *rest]


def _check_place(config: TaskConfig) -> None:
    """Refuse a device, a log and a folder with which the training could not begin.

    Raises:
        PtuneError: one of them is.
    """
    from ptune.lm.source.loading import choose_device
    from ptune.runs.folder import working_in
    from ptune.runs.logs.open_logs import check_logs

    choose_device(config.device)
    check_logs(config.log)
    with working_in(config.out, "ptune train", config.resume, adds=bool(config.only)):
        pass


def _without_table_options(options: Sequence[str]) -> list[str]:
    """The options without those of a table and their values."""
    kept: list[str] = []
    following = iter(options)
    for option in following:
        name, is_joined, _ = option.replace("_", "-").partition("=")
        if name in ("--text", "--label"):
            if not is_joined:
                next(following, None)
        elif name not in ("--skip-bad-lines", "--no-skip-bad-lines"):
            kept.append(option)
    return kept
