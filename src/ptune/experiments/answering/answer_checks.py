"""Options of ``predict`` and ``generate`` that cannot go together: told before an LM is loaded."""

import pathlib
from collections.abc import Callable, Mapping

from ptune.answers.confidence import rows_for
from ptune.data import answer_files
from ptune.data.answer_files import is_conll, is_folder
from ptune.data.shards.listing import check_matches, is_table_of_files
from ptune.errors import ConfigError
from ptune.experiments.answering.streams import answer_shards
from ptune.experiments.answering.streams.answer_batches import AnswerRun
from ptune.experiments.cluster import ray_cluster
from ptune.experiments.cluster.ray_cluster import RayOptions
from ptune.model.prompt_model import PromptModel
from ptune.model.running.label_answers import confidence_of
from ptune.runs import identity
from ptune.settings import FileConfig, part_of

NO_ANSWERS = (
    "prompt",
    "data",
    "out",
    "resume",
    "overwrite",
    "lm",
    "device",
    "skip_bad_lines",
    "submission",
    "shard_rows",
    "ray",
    "workers",
    "ray_cpus",
    "ray_gpus",
)
"""Options of the commands that do not decide what the answers are."""


def run_of(config: FileConfig, command: str) -> AnswerRun:
    """What the options of commands that answer rows say alike."""
    names = AnswerRun.__dataclass_fields__.keys() - {"command", "options", "deciding"}
    return AnswerRun(
        command=command,
        options=part_of(FileConfig, config),
        deciding=identity.deciding(config, NO_ANSWERS),
        **{name: getattr(config, name) for name in names},
    )


def check_out(run: AnswerRun) -> None:
    """Refuse what answers cannot be written to, and rows that need a folder for their answers.

    Raises:
        ConfigError: the reason.
    """
    if run.data == "":
        raise ConfigError("--data is empty: name a file, or leave it out for standard input.")
    if is_folder(run.out):
        answer_shards.check(run)
        return
    if run.data is not None and is_table_of_files(run.data):
        check_matches(run.data)
        raise ConfigError(
            f"{run.data} may be many files, and their answers go into as many: give --out a "
            "folder, a name without an ending."
        )
    if run.shard_rows is not None:
        raise ConfigError(
            "--shard-rows is of answers that go into a folder: give --out a name without an "
            "ending, or leave it out."
        )
    if is_conll(run.out) and run.command != "ptune predict":
        raise ConfigError(
            f"{run.out}: a CoNLL file has a label for each word, and {run.command} writes texts: "
            "give --out a name that ends in .jsonl, .csv or .tsv."
        )
    path = pathlib.Path(run.data) if run.data is not None else None
    answer_files.check(run.out, path, run.resume or run.overwrite)


def check_ray(options: RayOptions, out: pathlib.Path | None) -> None:
    """Refuse workers without a cluster, and a cluster for what is answered into one file.

    Raises:
        ConfigError: it is so.
    """
    ray_cluster.check(options.cluster, "One process needs none.")
    if options.ray is None and options.workers != 1:
        raise ConfigError(
            "--workers are those on a Ray cluster: name it by --ray, or leave it out."
        )
    if options.ray is not None and not is_folder(out):
        raise ConfigError(
            "--ray is of answers that go into a folder, piece by piece: give --out a name without "
            "an ending, or leave it out."
        )


def first_given(options: Mapping[str, object]) -> str | None:
    """The first of some options that has a value."""
    return next((name for name, value in options.items() if value), None)


def check_coverage(model: PromptModel, coverage: float, report: Callable[[str], None]) -> None:
    """Refuse sets of labels of prompts that keep no scores of dev rows, and say where these are so
    few that every set holds all labels.

    Raises:
        ConfigError: a prompt keeps none.
    """
    known = min(len(confidence_of(model, task).nonconformity) for task in range(len(model.tasks)))
    if known < rows_for(coverage):
        report(
            f"Sets of labels that hold the right one in {coverage:.4g} of all cases need "
            f"{rows_for(coverage)} rows for dev, and the prompt was trained with {known}: every "
            "set holds all labels."
        )
