"""The command line: it parses, calls, and prints. Nothing heavy is imported before a command is
chosen."""

import argparse
import contextlib
import errno
import io
import logging
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Sequence

import tyro
from pydantic import BaseModel

from ptune.base import terminal
from ptune.cli.options import DoctorConfig, InspectConfig, ReportConfig
from ptune.errors import PtuneError, nearest
from ptune.experiments.options import (
    CompareConfig,
    EvaluateConfig,
    GenerateConfig,
    PredictConfig,
    ProbeConfig,
)
from ptune.pretraining.options import PretrainConfig
from ptune.storage.options import ExportConfig, ImportConfig
from ptune.tasks.options import NewConfig
from ptune.tasks.schema import TaskConfig

USAGE = """usage: ptune COMMAND [OPTIONS]

Prompt learning on frozen language models.

  probe      find out what a frozen LM knows: manual prompts and P-tuning side by side
  compare    methods side by side on tasks with labels: few shots, several seeds, one table
  new        make a task's YAML file from a table of texts and labels
  train      train the prompt of a task described by a YAML file, or of a table of texts and labels
  methods    list the methods, and what each trains
  evaluate   score a saved prompt on rows with right answers
  predict    answer rows with a saved prompt: rows in, rows out
  generate   let the LM write with a saved prompt: rows in, rows out
  report     put the runs of ptune train side by side, in a table and a page
  export     write a saved prompt in PEFT's or Google's form
  import     make a prompt of PEFT's adapter folder or Google's .npy file
  doctor     what is installed here, and what an LM can do with prompts
  inspect    draw a template as the LM sees it, or show what a prompt has learned
  pretrain   train a small LM from text files
  bench      how fast training, scoring and writing are beside PEFT (in ptune's repository)

`ptune COMMAND --help` explains a command's options. The first thing to try: ptune probe"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; exits with 2 and a message where the user can mend the fault, with 130 after
    Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _open_streams()
    try:
        _command(*arguments)
        sys.stdout.flush()
    except PtuneError as error:
        terminal.warn(f"ptune: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nptune: stopped.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        _drop_output()  # what reads us has had enough, as `head` has
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _drop_output()
        named = f"{error.filename}: " if error.filename else ""
        terminal.warn(f"ptune: {named}{error.strerror or error}.")
        sys.exit(2)
    except ValueError as error:
        if "embedded null" not in str(error):
            raise
        terminal.warn(
            "ptune: The name of a file holds a NUL character, which no file's name can have."
        )
        sys.exit(2)


def _open_streams() -> None:
    """Standard streams that take whatever is written, closed ones and those of another encoding
    too."""
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """What is still to be written to standard output goes nowhere, so that the end of Python does
    not fail over it."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _command(name: str = "--help", *rest: str) -> None:
    if name in ("-h", "--help"):
        print(USAGE)
    elif name == "--version":
        from importlib.metadata import version

        print(f"ptune {version('ptune')}")
    elif name not in COMMANDS:
        raise PtuneError(f"There is no command {name!r}. {nearest(name, COMMANDS)}")
    else:
        COMMANDS[name](rest)


def _probe(arguments: Sequence[str]) -> None:
    config = tyro.cli(ProbeConfig, args=arguments, prog="ptune probe")
    _quiet()
    from ptune.experiments.probe import probe

    _resumable(lambda: probe(config), "ptune probe", arguments, config.out)


def _compare(arguments: Sequence[str]) -> None:
    config = tyro.cli(CompareConfig, args=arguments, prog="ptune compare")
    _quiet()
    from ptune.experiments.compare import compare

    _resumable(lambda: compare(config), "ptune compare", arguments, config.out)


def _pretrain(arguments: Sequence[str]) -> None:
    config = tyro.cli(PretrainConfig, args=arguments, prog="ptune pretrain")
    _quiet()
    from ptune.pretraining.loop import pretrain

    _resumable(lambda: pretrain(config), "ptune pretrain", arguments, config.out)


def _new(arguments: Sequence[str]) -> None:
    config = tyro.cli(NewConfig, args=arguments, prog="ptune new")
    _quiet()
    from ptune.tasks.new_task import new

    file = new(config)
    print(f"Next: ptune train {shlex.quote(str(file))} --out {shlex.quote(file.stem + '-trained')}")


def _methods(arguments: Sequence[str]) -> None:
    if arguments:
        print("usage: ptune methods\n\nList the methods, and what each trains.")
        sys.exit(0 if arguments[0] in ("-h", "--help") else 2)
    from ptune.training.methods import table

    print(table())


def _table_to_task(arguments: Sequence[str]) -> tuple[pathlib.Path, list[str]]:
    """The YAML file that is made of a table, beside where the run goes, and the options that are
    not of its making.

    A run that goes on takes the file that is there.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--text", "--label", "--out", "--lm", "--method"):
        parser.add_argument(option)
    given, _ = parser.parse_known_args(list(arguments[1:]))
    folder = pathlib.Path(given.out or f"{pathlib.Path(arguments[0]).stem}-trained")
    file = folder.with_name(f"{folder.name}.yaml")
    if not ("--resume" in arguments and file.exists()):
        from ptune.tasks.new_task import new

        options = {
            name: value
            for name in ("text", "label", "lm", "method")
            if (value := getattr(given, name)) is not None
        }
        new(NewConfig(data=pathlib.Path(arguments[0]), out=file, **options))
    rest = _without(arguments[1:], ("--text", "--label"))
    return file, rest if given.out else [*rest, "--out", str(folder)]


def _without(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """Arguments without some options and their values."""
    kept: list[str] = []
    following = iter(arguments)
    for argument in following:
        if argument in options:
            next(following, None)
        elif not argument.startswith(tuple(f"{option}=" for option in options)):
            kept.append(argument)
    return kept


def _train(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0].startswith("-"):
        print(
            "usage: ptune train TASK.yaml [OPTIONS]\n       ptune train TABLE.csv [--text COLUMN] "
            "[--label COLUMN] [OPTIONS]\n\n"
            "Any key of the file can be set from the command line. Of a table (.csv, .tsv, "
            ".jsonl) a file is made first, as by ptune new.\n"
        )
        tyro.cli(TaskConfig, args=["--help"], prog="ptune train TASK.yaml")
    _quiet()
    from ptune.data.rows import FORMATS

    file, options = pathlib.Path(arguments[0]), list(arguments[1:])
    if file.suffix in FORMATS:
        file, options = _table_to_task(arguments)
    from ptune.experiments import train_task
    from ptune.tasks import yaml_task

    default = yaml_task.read(file)
    config = tyro.cli(TaskConfig, args=options, default=default, prog=f"ptune train {arguments[0]}")
    _resumable(lambda: train_task.train(config), "ptune train", arguments, config.out)


def _evaluate(arguments: Sequence[str]) -> None:
    config = tyro.cli(EvaluateConfig, args=arguments, prog="ptune evaluate")
    _quiet()
    from ptune.experiments import answer_rows

    answer_rows.evaluate(config)


def _predict(arguments: Sequence[str]) -> None:
    config = tyro.cli(PredictConfig, args=arguments, prog="ptune predict")
    _quiet()
    from ptune.experiments import answer_rows

    answer_rows.predict(config, terminal.warn)


def _generate(arguments: Sequence[str]) -> None:
    config = tyro.cli(GenerateConfig, args=arguments, prog="ptune generate")
    _quiet()
    from ptune.experiments import answer_rows

    answer_rows.generate(config, terminal.warn)


def _report(arguments: Sequence[str]) -> None:
    config = tyro.cli(ReportConfig, args=arguments, prog="ptune report")
    _quiet()
    from ptune.experiments.report_runs import report

    report(config.runs, config.out, config.table)


def _export(arguments: Sequence[str]) -> None:
    config = tyro.cli(ExportConfig, args=arguments, prog="ptune export")
    _quiet()
    from ptune.storage.convert import export

    export(config)


def _import(arguments: Sequence[str]) -> None:
    config = tyro.cli(ImportConfig, args=arguments, prog="ptune import")
    _quiet()
    from ptune.storage.convert import import_prompt

    import_prompt(config)


def _doctor(arguments: Sequence[str]) -> None:
    config = tyro.cli(DoctorConfig, args=arguments, prog="ptune doctor")
    _quiet()
    from ptune.cli.doctor import doctor

    doctor(config)


def _inspect(arguments: Sequence[str]) -> None:
    config = tyro.cli(InspectConfig, args=arguments, prog="ptune inspect")
    _quiet()
    from ptune.cli.inspect import inspect

    inspect(config)


def _bench(arguments: Sequence[str]) -> None:
    root = pathlib.Path(__file__).parents[3]
    if not (root / "benchmarks").is_dir():
        raise PtuneError(
            "The benchmarks are in ptune's repository and not in the installed package: clone it, "
            "and there "
            "`pip install -e '.[test]'` and `ptune bench`."
        )
    import subprocess

    if done := subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks", *arguments],
        env={**os.environ, "PYTHONPATH": str(root)},
    ).returncode:
        sys.exit(done)


def _quiet() -> None:
    """Of the libraries, only errors are news to the user."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for library in (
        "torchao",
        "torch.utils._pytree",
    ):  # transformers imports torchao wherever it is installed
        logging.getLogger(library).setLevel(logging.ERROR)


def _resumable(
    run: Callable[[], object], command: str, arguments: Sequence[str], out: pathlib.Path
) -> None:
    """Run what Ctrl-C may stop, and then say how to go on, or begin anew where nothing was begun in
    the out folder."""
    from ptune.base.interrupts import Interrupted
    from ptune.runs.folder import NOTE

    try:
        run()
    except (Interrupted, KeyboardInterrupt) as stopped:
        again = [
            *arguments,
            *([] if "--resume" in arguments or not (out / NOTE).exists() else ["--resume"]),
        ]
        terminal.warn(f"\n{stopped or 'Stopped.'}\nGo on with: {command} {shlex.join(again)}")
        sys.exit(130)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "probe": _probe,
    "compare": _compare,
    "new": _new,
    "train": _train,
    "methods": _methods,
    "evaluate": _evaluate,
    "predict": _predict,
    "generate": _generate,
    "report": _report,
    "export": _export,
    "import": _import,
    "doctor": _doctor,
    "inspect": _inspect,
    "pretrain": _pretrain,
    "bench": _bench,
}
OPTIONS: dict[str, type[BaseModel]] = {
    "probe": ProbeConfig,
    "compare": CompareConfig,
    "new": NewConfig,
    "train": TaskConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "generate": GenerateConfig,
    "report": ReportConfig,
    "export": ExportConfig,
    "import": ImportConfig,
    "doctor": DoctorConfig,
    "inspect": InspectConfig,
    "pretrain": PretrainConfig,
}
"""The options of each command that has any of its own."""
