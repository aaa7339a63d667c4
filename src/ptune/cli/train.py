"""``ptune train``: a task from a YAML file or from a table, with the command line's options."""

import argparse
import pathlib
from collections.abc import Sequence

from ptune.cli.parse import parse
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
        print(
            "usage: ptune train TASK.yaml [OPTIONS]\n       ptune train TABLE.csv [--text COLUMN] "
            "[--label COLUMN] [--skip-bad-lines] [OPTIONS]\n\n"
            "Any key of the file can be set from the command line. Of a table (.csv, .tsv, "
            ".jsonl) a file is made first, as by ptune new.\n--estimate prints how much memory the "
            "training takes, by part, and loads no LM.\n"
        )
        parse(TaskConfig, ["--help"], "ptune train TASK.yaml", TaskConfig(name=OF_THE_FILE))
    from ptune.tasks import yaml_task

    file, options = pathlib.Path(arguments[0]), list(arguments[1:])
    if names_table(arguments):
        file, options = _table_to_task(arguments)
    default = yaml_task.read(file, _preset(options))
    return parse(TaskConfig, options, f"ptune train {arguments[0]}", default)


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


def _table_to_task(arguments: Sequence[str]) -> tuple[pathlib.Path, list[str]]:
    """Write the YAML file of a task from a table, beside the folder of the run.

    A run that is resumed takes the file that it wrote at its start.

    Returns:
        The file, and the arguments that remain for the training.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--text", "--label", "--out", "--lm", "--method"):
        parser.add_argument(option)
    parser.add_argument("--skip-bad-lines", action="store_true")
    parsed, _ = parser.parse_known_args(list(arguments[1:]))
    folder = pathlib.Path(parsed.out or f"{pathlib.Path(arguments[0]).stem}-trained")
    file = folder.with_name(f"{folder.name}.yaml")
    if not ("--resume" in arguments and file.exists()):
        from ptune.tasks.new_task import new

        options = {
            name: value
            for name in ("text", "label", "lm", "method")
            if (value := getattr(parsed, name)) is not None
        }
        options["skip_bad_lines"] = parsed.skip_bad_lines
        new(NewConfig(data=pathlib.Path(arguments[0]), out=file, **options))
    kept = [argument for argument in arguments[1:] if argument != "--skip-bad-lines"]
    rest = _without_options(kept, ("--text", "--label"))
    return file, rest if parsed.out else [*rest, "--out", str(folder)]


def _without_options(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """The arguments without the named options and their values."""
    kept: list[str] = []
    following = iter(arguments)
    for argument in following:
        if argument in options:
            next(following, None)
        elif not argument.startswith(tuple(f"{option}=" for option in options)):
            kept.append(argument)
    return kept
