"""The command line: it parses, calls, and prints. Nothing heavy is imported before a command is chosen."""
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Sequence

import tyro

from ptune import config as c
from ptune.errors import PtuneError, nearest

USAGE = """usage: ptune COMMAND [OPTIONS]

Prompt learning on frozen language models.

  probe      find out what a frozen LM knows: manual prompts and P-tuning (or --methods all) side by side
  compare    methods side by side on tasks with labels: few shots, several seeds, one table
  train      train the prompt of a task described by a YAML file
  evaluate   score a saved prompt on rows with right answers
  predict    answer rows with a saved prompt: JSON lines in, JSON lines out
  generate   let the LM write with a saved prompt: JSON lines in, JSON lines out
  report     put the runs of ptune train side by side, in a table and a page
  export     write a saved prompt in PEFT's or Google's form
  import     make a prompt of PEFT's adapter folder or Google's .npy file
  inspect    draw a template as the LM sees it, or show what a prompt has learned
  pretrain   train a small LM from text files
  bench      how fast training steps, scoring and writing are beside PEFT and the matrix products alone (in ptune's repository)

`ptune COMMAND --help` explains a command's options. The first thing to try: ptune probe"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; exits with 2 and a message where the user can mend the fault, with 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _command(*arguments)
        sys.stdout.flush()
    except PtuneError as error:
        print(f"ptune: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nptune: stopped.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what reads us has had enough, as `head` has


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
    config = tyro.cli(c.ProbeConfig, args=arguments, prog="ptune probe")
    _quiet()
    from ptune.probe import probe
    _resumable(lambda: probe(config), "ptune probe", arguments)


def _compare(arguments: Sequence[str]) -> None:
    config = tyro.cli(c.CompareConfig, args=arguments, prog="ptune compare")
    _quiet()
    from ptune.compare import compare
    _resumable(lambda: compare(config), "ptune compare", arguments)


def _pretrain(arguments: Sequence[str]) -> None:
    config = tyro.cli(c.PretrainConfig, args=arguments, prog="ptune pretrain")
    _quiet()
    from ptune.pretrain import pretrain
    _resumable(lambda: pretrain(config), "ptune pretrain", arguments)


def _train(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0].startswith("-"):
        print("usage: ptune train TASK.yaml [OPTIONS]\n\nAny key of the file can be set from the command line.\n")
        tyro.cli(c.TaskConfig, args=["--help"], prog="ptune train TASK.yaml")
    _quiet()
    from ptune.tasks import described, training
    default = described.read(pathlib.Path(arguments[0]))
    config = tyro.cli(c.TaskConfig, args=arguments[1:], default=default, prog=f"ptune train {arguments[0]}")
    _resumable(lambda: training.train(config), "ptune train", arguments)


def _evaluate(arguments: Sequence[str]) -> None:
    config = tyro.cli(c.EvaluateConfig, args=arguments, prog="ptune evaluate")
    _quiet()
    from ptune.tasks import answering
    answering.evaluate(config)


def _predict(arguments: Sequence[str]) -> None:
    config = tyro.cli(c.PredictConfig, args=arguments, prog="ptune predict")
    _quiet()
    from ptune.tasks import answering
    answering.predict(config, lambda message: print(message, file=sys.stderr))


def _generate(arguments: Sequence[str]) -> None:
    config = tyro.cli(c.GenerateConfig, args=arguments, prog="ptune generate")
    _quiet()
    from ptune.tasks import answering
    answering.generate(config, lambda message: print(message, file=sys.stderr))


def _report(arguments: Sequence[str]) -> None:
    config = tyro.cli(c.ReportConfig, args=arguments, prog="ptune report")
    _quiet()
    from ptune.run_report import report
    report(config.runs, config.out)


def _export(arguments: Sequence[str]) -> None:
    config = tyro.cli(c.ExportConfig, args=arguments, prog="ptune export")
    _quiet()
    from ptune.exchange import export
    export(config)


def _import(arguments: Sequence[str]) -> None:
    config = tyro.cli(c.ImportConfig, args=arguments, prog="ptune import")
    _quiet()
    from ptune.exchange import bring
    bring(config)


def _inspect(arguments: Sequence[str]) -> None:
    config = tyro.cli(c.InspectConfig, args=arguments, prog="ptune inspect")
    _quiet()
    from ptune.inspection import inspect
    inspect(config)


def _bench(arguments: Sequence[str]) -> None:
    root = pathlib.Path(__file__).parents[2]
    if not (root / "benchmarks").is_dir():
        raise PtuneError("The benchmarks are in ptune's repository and not in the installed package: clone it, and there "
                         "`pip install -e '.[test]'` and `ptune bench`.")
    import subprocess
    if done := subprocess.run([sys.executable, "-W", "ignore", "-m", "benchmarks", *arguments], env={**os.environ, "PYTHONPATH": str(root)}).returncode:
        sys.exit(done)


def _quiet() -> None:
    """Of the libraries, only errors are news to the user."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _resumable(run: Callable[[], object], command: str, arguments: Sequence[str]) -> None:
    """Run what Ctrl-C may stop, and then say how to go on."""
    from ptune.stopping import Interrupted
    try:
        run()
    except (Interrupted, KeyboardInterrupt) as stopped:
        again = [*arguments, *([] if "--resume" in arguments else ["--resume"])]
        print(f"\n{stopped or 'Stopped.'}\nGo on with: {command} {shlex.join(again)}", file=sys.stderr)
        sys.exit(130)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "probe": _probe, "compare": _compare, "train": _train, "evaluate": _evaluate, "predict": _predict, "generate": _generate, "report": _report,
    "export": _export, "import": _import, "inspect": _inspect, "pretrain": _pretrain, "bench": _bench}
