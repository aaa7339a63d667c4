"""Few labelled rows: SetFit, which tunes a copy of a sentence encoder for each task, beside ptune's
contrastive prompts, which leave it frozen, and the baselines. All learn from the same rows and
answer the same test rows with the same encoder.

    scripts/setfit_env.sh ENV
    python -m benchmarks.few_labels ENV --lm FOLDER --out results

Each result is a file of its own in the folder, and what is there is not run again. The seconds of
the CPU stand beside those of the clock, since the latter count what else the machine does.
"""

import argparse
import itertools
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ptune.lm.language_model import LanguageModel
from ptune.metrics.labels import BASELINES, TFIDF, deviation, mean
from ptune.model.prompt_model import PromptModel, Row
from ptune.tasks import model_task, task_members, yaml_task
from ptune.tasks.judging import baselines
from ptune.tasks.judging.judge_labels import question
from ptune.tasks.resolved import resolve
from ptune.tasks.resolved.task_form import USUAL, TaskForm
from ptune.tasks.rows import few_shot, splits
from ptune.template.language import Template
from ptune.training.loop import fit
from ptune.training.methods import METHODS, method

SETFIT = "setfit"
PAIRS = 20  # of one label, and as many of two, for each row: SetFit's paper, section 4
TASKS = "trec,mr,sst2,sst5,agnews"


@dataclass(frozen=True)
class Draw:
    """The rows of one task that are learned from, drawn by a seed, and those that are answered."""

    form: TaskForm
    shots: int
    seed: int
    train: Sequence[Row]
    test: Sequence[Row]

    def right(self, answers: Sequence[int]) -> float:
        """The share of the test rows whose answers, numbers of labels, are right."""
        labels = self.form.answers.names
        pairs = zip(self.test, answers, strict=True)
        return mean([str(row[self.form.target]) == labels[answer] for row, answer in pairs])


def main() -> None:
    chosen = _arguments()
    torch.set_num_threads(chosen.threads)
    chosen.out.mkdir(parents=True, exist_ok=True)
    shots = [int(count) for count in chosen.shots.split(",")]
    draws = list(draws_of(chosen.tasks.split(","), shots, chosen.seeds, chosen.test))
    names = chosen.methods.split(",")
    known = {SETFIT, TFIDF, *BASELINES, *METHODS}
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"There is no method {unknown[0]}: {', '.join(sorted(known))}")
    lm = LanguageModel.load(str(chosen.lm), device="cpu")
    with _SetFit(chosen) as side:
        for draw, name in itertools.product(draws, names):
            stem = f"{draw.form.name}-{draw.shots}-{draw.seed}-{_of_epochs(name, chosen)}"
            file = chosen.out / f"{stem}.json"
            if not file.exists():
                result = side.run(draw) if name == SETFIT else _run(lm, draw, name, chosen)
                result["accuracy"] = draw.right(result.pop("answers"))
                file.write_text(json.dumps(result) + "\n")
            kept = json.loads(file.read_text())
            print(f"{file.stem}: {kept['accuracy']:.3f}, {kept['cpu_seconds']:.0f} s", flush=True)
    for count in shots:
        tasks = dict.fromkeys(draw.form.name for draw in draws)
        _show(chosen.out, tasks, [_of_epochs(name, chosen) for name in names], count)


def _of_epochs(name: str, chosen: argparse.Namespace) -> str:
    """What a method's results are called: with other epochs they are results of their own."""
    return f"{name}-{chosen.epochs}-epochs" if chosen.epochs and name in METHODS else name


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("environment", type=pathlib.Path, help="what scripts/setfit_env.sh made")
    parser.add_argument(
        "--lm", type=pathlib.Path, required=True, help="a sentence encoder's folder"
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the folder of the results")
    parser.add_argument("--methods", default=f"{TFIDF},regression,contrastive,{SETFIT}")
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--shots", default="8,16,32", help="rows of each label")
    parser.add_argument("--seeds", type=int, default=3, help="draws of the rows")
    parser.add_argument("--test", type=int, default=500, help="test rows at most")
    parser.add_argument("--max-length", type=int, default=64, help="tokens of a text at most")
    parser.add_argument(
        "--pairs", type=int, default=PAIRS, help="SetFit's pairs of each kind a row"
    )
    parser.add_argument("--epochs", type=int, help="of ptune's trainings, in place of the method's")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args()


def draws_of(
    tasks: Sequence[str], shots: Sequence[int], seeds: int, most_test_rows: int
) -> Iterator[Draw]:
    """The rows of every task, number of rows of a label and seed; the test rows of a task are
    those of its first seed."""
    for name in tasks:
        task = yaml_task.read(pathlib.Path(name))
        form, labels = resolve.task_form(task), tuple(task.labels)
        data = task.data.model_copy(update={"shots": None, "take": {"test": most_test_rows}})
        rows = splits.read(data, task.target, labels, fields=task_members.fields(form))
        for count, seed in itertools.product(shots, range(seeds)):
            train = few_shot.sample(rows["train"], count, seed, target=task.target, labels=labels)
            yield Draw(form, count, seed, train, rows["test"])


def _run(lm: LanguageModel, draw: Draw, name: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """A method of ptune, or a baseline: its answers, and what they took."""
    if name in BASELINES:
        return _baseline(lm, draw, name)
    preset, model = method(name), PromptModel(lm, max_length=chosen.max_length)
    member = task_members.members(draw.form, preset, lm)[0]
    began = time.perf_counter(), time.process_time()
    number = model_task.add(model, draw.form, member, draw.train, method=preset, learning=USUAL)
    if preset.tune != "nothing":
        train = preset.train.replaced({"epochs": chosen.epochs} if chosen.epochs else {})
        steps = train.planned_steps(-(-len(draw.train) // train.batch_size))
        update = {"seed": draw.seed, "patience": 0, "evaluate_every": steps}
        settings = train.model_copy(update=update)
        fit(model, {number: (draw.train, draw.train)}, settings, tune=preset.tune)
    learned = time.perf_counter(), time.process_time()
    scores = model.scores(model.encode(number, draw.test))
    return {
        "answers": [int(values.argmax()) for values in scores],
        "seconds": learned[0] - began[0],
        "cpu_seconds": learned[1] - began[1],
        "answering_seconds": time.process_time() - learned[1],
        "bytes": 2 * model.bank.size(model.tasks[number].prompt),  # in float16
    }


def _baseline(lm: LanguageModel, draw: Draw, name: str) -> dict[str, Any]:
    began = time.perf_counter(), time.process_time()
    asked = question(
        draw.form, lm, train=list(draw.train), test=list(draw.test), training_labels=()
    )
    shares = baselines.shares(asked, lm, name)
    if shares is None:
        sys.exit(f"{name} cannot answer {draw.form.name}.")
    return {
        "answers": shares.argmax(1).tolist(),
        "seconds": time.perf_counter() - began[0],
        "cpu_seconds": time.process_time() - began[1],
        "answering_seconds": 0.0,
        "bytes": 0,
    }


class _SetFit:
    """The other environment's process, which begins with the first job and stays for all."""

    def __init__(self, chosen: argparse.Namespace):
        self.chosen = chosen
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "_SetFit":
        return self

    def __exit__(self, *error: object) -> None:
        if self.process:
            self.process.communicate()

    def run(self, draw: Draw) -> dict[str, Any]:
        """SetFit's answers to a draw's test rows, and what they took."""
        process = self.process = self.process or self._begun()
        assert process.stdin and process.stdout
        print(json.dumps(self._job(draw)), file=process.stdin, flush=True)
        if line := process.stdout.readline():
            result: dict[str, Any] = json.loads(line)
            return result
        sys.exit("SetFit's process ended by itself; what it said stands above.")

    def _begun(self) -> "subprocess.Popen[str]":
        python = self.chosen.environment / "bin" / "python"
        side = pathlib.Path(__file__).with_name("setfit_side.py")
        return subprocess.Popen(
            [python, "-W", "ignore", side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
        )

    def _job(self, draw: Draw) -> dict[str, Any]:
        labels, target = draw.form.answers.names, draw.form.target
        return {
            "lm": str(self.chosen.lm.expanduser().resolve()),
            "train": [(_text(draw.form, row), labels.index(row[target])) for row in draw.train],
            "test": [_text(draw.form, row) for row in draw.test],
            "pairs": self.chosen.pairs,
            "max_length": self.chosen.max_length,
            "seed": draw.seed,
            "threads": self.chosen.threads,
        }


def _text(form: TaskForm, row: Row) -> str:
    """A row's text as ptune's methods read it."""
    return " ".join(Template.parse(task_members.inputs(form)).texts(row).values())


def _show(out: pathlib.Path, tasks: Iterable[str], names: Sequence[str], shots: int) -> None:
    """A table of means and deviations over the draws, and the mean over the tasks."""
    table = Table(title=f"{shots} rows of each label", title_justify="left")
    for column in ("", *tasks, "mean", "CPU s to learn", "kB a task"):
        table.add_column(column, justify="left" if not column else "right")
    for name in names:
        results = {task: list(_results(out, task, shots, name)) for task in tasks}
        cells = [_cell([r["accuracy"] for r in results[task]]) for task in tasks]
        every = [result for of_task in results.values() for result in of_task]
        means = mean([mean([r["accuracy"] for r in of_task]) for of_task in results.values()])
        seconds = mean([result["cpu_seconds"] for result in every])
        size = max(result["bytes"] for result in every) / 1000
        table.add_row(name, *cells, f"{means:.3f}", f"{seconds:.0f}", f"{size:.0f}")
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _results(
    folder: pathlib.Path, task: str, shots: int, name: str
) -> Iterator[Mapping[str, float]]:
    for file in sorted(folder.glob(f"{task}-{shots}-*-{name}.json")):
        yield json.loads(file.read_text())


def _cell(figures: Sequence[float]) -> str:
    return f"{mean(figures):.3f} ± {deviation(figures):.3f}"


if __name__ == "__main__":
    main()
