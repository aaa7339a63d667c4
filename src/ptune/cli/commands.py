"""The commands: each reads its options, and calls what does the work. Nothing heavy is imported
before a command is chosen."""

import functools
import importlib.util
import logging
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Sequence

from ptune.base import terminal
from ptune.cli import threads, torchrun
from ptune.cli.options import DoctorConfig, InspectConfig, ReportConfig
from ptune.cli.parsing.parse import AnyConfig, parse
from ptune.cli.train import names_table, read_task
from ptune.documents.options import AskConfig, DistilConfig
from ptune.errors import ConfigError, PtuneError
from ptune.experiments.options import (
    CheckConfig,
    CompareConfig,
    EvaluateConfig,
    GenerateConfig,
    PredictConfig,
    ProbeConfig,
    SweepConfig,
)
from ptune.pretraining.options import PretrainConfig
from ptune.search.options import SearchConfig
from ptune.serving.options import ServeConfig
from ptune.settings import Config
from ptune.storage.options import ExportConfig, ImportConfig, PullConfig, PushConfig
from ptune.tasks.options import NewConfig
from ptune.tasks.schema import TaskConfig

ESTIMATE = "--estimate"


def _probe(arguments: Sequence[str]) -> None:
    config = _parse(ProbeConfig, "probe", arguments)
    from ptune.experiments.probe import probe

    run, assist = (functools.partial(do, config) for do in (probe.probe, probe.assist))
    _with_others("probe", arguments, config.out, run=run, assist=assist)


def _compare(arguments: Sequence[str]) -> None:
    config = _parse(CompareConfig, "compare", arguments)
    from ptune.experiments.compare import compare

    run, assist = (functools.partial(do, config) for do in (compare.compare, compare.assist))
    _with_others("compare", arguments, config.out, run=run, assist=assist)


def _sweep(arguments: Sequence[str]) -> None:
    config = _parse(SweepConfig, "sweep", arguments)
    from ptune.experiments.sweep.sweep import sweep

    _resumable(lambda: sweep(config), "ptune sweep", arguments, config.out)


def _search(arguments: Sequence[str]) -> None:
    config = _parse(SearchConfig, "search", arguments)
    from ptune.search.run_search import search

    _resumable(lambda: search(config), "ptune search", arguments, config.out)


def _distil(arguments: Sequence[str]) -> None:
    config = _parse(DistilConfig, "distil", arguments)
    terminal.announce(f"Loading LM {config.lm} ...")
    from ptune.documents.train_documents import distil

    _resumable(lambda: distil(config), "ptune distil", arguments, config.out)


def _ask(arguments: Sequence[str]) -> None:
    config = _parse(AskConfig, "ask", arguments)
    terminal.announce(f"Loading {config.folder} and its LM ...")
    from ptune.documents.ask import ask

    ask(config)


def _pretrain(arguments: Sequence[str]) -> None:
    config = _parse(PretrainConfig, "pretrain", arguments)
    from ptune.pretraining.loop import pretrain

    _resumable(lambda: pretrain(config), "ptune pretrain", arguments, config.out)


def _new(arguments: Sequence[str]) -> None:
    config = _parse(NewConfig, "new", arguments)
    from ptune.tasks.new_task import new

    file = new(config)
    print(f"Next: ptune train {shlex.quote(str(file))} --out {shlex.quote(file.stem + '-trained')}")


def _check(arguments: Sequence[str]) -> None:
    config = _parse(CheckConfig, "check", arguments)
    from ptune.experiments.check.check import check

    if check(config):
        sys.exit(2)


def _methods(arguments: Sequence[str]) -> None:
    if len(arguments) > 1 or arguments and arguments[0].startswith("-"):
        print(
            "usage: ptune methods [METHOD]\n\nList the methods and what each trains, or show one "
            "with its settings."
        )
        sys.exit(0 if arguments[0] in ("-h", "--help") else 2)
    from ptune.training.methods import described, table

    print(described(arguments[0]) if arguments else table())


def _check_rows_are_named(command: str, arguments: Sequence[str]) -> None:
    """Refuse a file of rows that stands behind the prompt's folder without its option.

    Raises:
        PtuneError: it does.
    """
    first_two = arguments[:2]
    if len(first_two) == 2 and not any(argument.startswith("-") for argument in first_two):
        raise PtuneError(
            "Rows are named with --data: "
            f"ptune {command} {shlex.quote(arguments[0])} --data {shlex.quote(arguments[1])}"
        )


def _evaluate(arguments: Sequence[str]) -> None:
    _check_rows_are_named("evaluate", arguments)
    config = _parse(EvaluateConfig, "evaluate", arguments)
    terminal.announce(f"Loading {config.prompt} and its LM ...")
    from ptune.experiments.answering import evaluate

    evaluate.evaluate(config)


def _predict(arguments: Sequence[str]) -> None:
    _check_rows_are_named("predict", arguments)
    config = _parse(PredictConfig, "predict", arguments)
    terminal.announce(f"Loading {config.prompt} and its LM ...")
    from ptune.experiments.answering import predict

    run = functools.partial(predict.predict, config, terminal.warn)
    _answer(run, "ptune predict", arguments, config.out)


def _generate(arguments: Sequence[str]) -> None:
    _check_rows_are_named("generate", arguments)
    config = _parse(GenerateConfig, "generate", arguments)
    terminal.announce(f"Loading {config.prompt} and its LM ...")
    from ptune.experiments.answering import generate

    run = functools.partial(generate.generate, config, terminal.warn)
    _answer(run, "ptune generate", arguments, config.out)


def _answer(
    run: Callable[[], object], command: str, arguments: Sequence[str], out: pathlib.Path | None
) -> None:
    """Answer rows; a run that writes into a folder says how to go on when Ctrl-C stops it."""
    from ptune.data.answer_files import is_folder

    if out is not None and is_folder(out):
        _resumable(run, command, arguments, out)
    else:
        run()


def _report(arguments: Sequence[str]) -> None:
    config = _parse(ReportConfig, "report", arguments)
    from ptune.experiments.report_runs import report

    report(config.runs, config.out, config.table)


def _export(arguments: Sequence[str]) -> None:
    config = _parse(ExportConfig, "export", arguments)
    from ptune.storage.convert import export

    export(config)


def _import(arguments: Sequence[str]) -> None:
    config = _parse(ImportConfig, "import", arguments)
    from ptune.storage.convert import import_prompt

    import_prompt(config)


def _push(arguments: Sequence[str]) -> None:
    config = _parse(PushConfig, "push", arguments)
    from ptune.storage.hub.push import push

    push(config)


def _pull(arguments: Sequence[str]) -> None:
    config = _parse(PullConfig, "pull", arguments)
    from ptune.storage.hub.pull import pull

    commit = pull(config.repository, config.out, config.revision)
    terminal.print_line(f"{config.out}: {config.repository} at commit {commit}")


def _doctor(arguments: Sequence[str]) -> None:
    config = _parse(DoctorConfig, "doctor", arguments)
    from ptune.cli.doctor import doctor

    doctor(config)


def _inspect(arguments: Sequence[str]) -> None:
    config = _parse(InspectConfig, "inspect", arguments)
    from ptune.cli.inspect import inspect

    inspect(config)


def _serve(arguments: Sequence[str]) -> None:
    config = _parse(ServeConfig, "serve", arguments)
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            raise PtuneError(f"Serving needs {package}: pip install 'ptune[serve]'.")
    from ptune.serving.run_server import serve

    serve(config)


def _bench(arguments: Sequence[str]) -> None:
    root = pathlib.Path(__file__).parents[3]
    if not (root / "benchmarks").is_dir():
        raise PtuneError(
            "The benchmarks are in ptune's repository and not in the installed package: clone it, "
            "and there "
            "`pip install -e '.[test]'` and `ptune bench`."
        )
    import subprocess

    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks", *arguments],
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    if finished.returncode:
        sys.exit(finished.returncode)


def _train(arguments: Sequence[str]) -> None:
    _set_up_libraries(arguments)
    options = [argument for argument in arguments if argument != ESTIMATE]
    if ESTIMATE in arguments and names_table(options):
        raise ConfigError(
            f"--estimate is of a task's file: make one of {options[0]} by ptune new, or leave it "
            "out."
        )
    if torchrun.is_one_of_several():
        _train_together(arguments)
        return
    task = read_task(options)
    if ESTIMATE in arguments:
        from ptune.experiments.estimate.estimate import estimate

        estimate(task)
        return
    terminal.announce(f"Loading LM {task.lm} ...")
    from ptune.experiments.train import train_auto, train_task
    from ptune.tasks.schema import AUTO

    train = train_auto.train if task.method == AUTO else train_task.train
    _resumable(lambda: train(task), "ptune train", arguments, task.out)


def _train_together(arguments: Sequence[str]) -> None:
    """Train with the other processes that torchrun started."""
    torchrun.check_arguments(arguments, names_table(arguments))
    from ptune.experiments.train import train_task

    with torchrun.joined() as ranks:
        task = read_task(arguments)
        ranks.sharding = task.lm_sharding
        train = train_task.train if ranks.is_first else train_task.assist
        _resumable(lambda: train(task, ranks=ranks), torchrun.command("train"), arguments, task.out)


def _with_others(
    name: str,
    arguments: Sequence[str],
    out: pathlib.Path,
    *,
    run: Callable[..., object],
    assist: Callable[..., object],
) -> None:
    """Run a command, with the other processes where torchrun started several.

    Args:
        run: the command, as one process or the first does it.
        assist: what the others do.
    """
    if not torchrun.is_one_of_several():
        _resumable(run, f"ptune {name}", arguments, out)
        return
    with torchrun.joined() as ranks:
        work = run if ranks.is_first else assist
        _resumable(lambda: work(ranks=ranks), torchrun.command(name), arguments, out)


def _parse(options: type[AnyConfig], command: str, arguments: Sequence[str]) -> AnyConfig:
    """The options of a command; exits with the parser's message where they are invalid."""
    config = parse(options, arguments, f"ptune {command}")
    _set_up_libraries(arguments)
    return config


def _set_up_libraries(arguments: Sequence[str]) -> None:
    """Let the libraries, which are not imported yet, print errors alone, and compute with as many
    threads as there are CPUs to use.

    Args:
        arguments: those of the command.
    """
    threads.keep_to_limit(arguments)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # transformers imports torchao wherever it is installed
    for library in ("torchao", "torch.utils._pytree"):
        logging.getLogger(library).setLevel(logging.ERROR)


def _resumable(
    run: Callable[[], object], command: str, arguments: Sequence[str], out: pathlib.Path
) -> None:
    """Run what Ctrl-C may stop, and then print the command that resumes it, or that starts it anew
    where the out folder holds no run yet."""
    from ptune.base.interrupts import Interrupted
    from ptune.runs.folder import NOTE

    try:
        run()
    except (Interrupted, KeyboardInterrupt) as stopped:
        again = [argument for argument in arguments if argument != "--no-resume"]
        if "--resume" not in arguments and (out / NOTE).exists():
            again.append("--resume")
        terminal.warn(f"\n{stopped or 'Stopped.'}\nGo on with: {command} {shlex.join(again)}")
        sys.exit(130)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "probe": _probe,
    "compare": _compare,
    "sweep": _sweep,
    "search": _search,
    "check": _check,
    "new": _new,
    "train": _train,
    "methods": _methods,
    "evaluate": _evaluate,
    "predict": _predict,
    "generate": _generate,
    "distil": _distil,
    "ask": _ask,
    "report": _report,
    "export": _export,
    "import": _import,
    "push": _push,
    "pull": _pull,
    "doctor": _doctor,
    "inspect": _inspect,
    "serve": _serve,
    "pretrain": _pretrain,
    "bench": _bench,
}
OPTIONS: dict[str, type[Config]] = {
    "probe": ProbeConfig,
    "compare": CompareConfig,
    "sweep": SweepConfig,
    "search": SearchConfig,
    "check": CheckConfig,
    "new": NewConfig,
    "train": TaskConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "generate": GenerateConfig,
    "distil": DistilConfig,
    "ask": AskConfig,
    "report": ReportConfig,
    "export": ExportConfig,
    "import": ImportConfig,
    "push": PushConfig,
    "pull": PullConfig,
    "doctor": DoctorConfig,
    "inspect": InspectConfig,
    "serve": ServeConfig,
    "pretrain": PretrainConfig,
}
"""The options of each command that has options."""
