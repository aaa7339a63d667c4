"""Trainings that several processes do together, and the processes that do them: ``python
tests/ranks_cases.py 4`` prints how far four are from one, for each case."""

import contextlib
import functools
import hashlib
import io
import json
import os
import pathlib
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from unittest import mock

import forked
import tiny
import torch
from torch import distributed
from torch.distributed.tensor import DTensor

from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader_table import READERS
from ptune.base.interrupts import Interrupted
from ptune.base.ranks import Ranks
from ptune.errors import ConfigError, DivergedError, ModelError
from ptune.experiments.compare import compare
from ptune.experiments.options import CompareConfig, ProbeConfig
from ptune.experiments.probe import probe
from ptune.experiments.train import train_task
from ptune.lm.language_model import LanguageModel
from ptune.lm.patches.checkpointing import outermost_layers
from ptune.lm.patches.prefixes.prefix_attention import HeadShare
from ptune.lm.patches.sharding import SummedGradient
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.settings import DecodingConfig, Sharding, TrainConfig
from ptune.tasks.schema import TaskConfig
from ptune.template.language import Template
from ptune.training import loop
from ptune.training.loop import fit
from ptune.training.prompt_training import PromptTraining

WORDS = Verbalizer.from_words({"a": "Yes", "b": "No"})
TOWNS = "Vienna Paris Rome Berlin Madrid London Austria France Italy Germany euro film city".split()
SOFT = "{soft:3} {x} {soft:2} {mask} {soft:1}"
SETTINGS = dict(batch_size=5, steps=6, evaluate_every=3, patience=0, learning_rate=3e-3)


def rows(count: int, start: int = 0) -> list[dict[str, str]]:
    return [
        {"x": f"{TOWNS[i % 13]} {TOWNS[(3 * i + 1) % 13]}", "label": "ab"[i % 2], "y": TOWNS[i % 7]}
        for i in range(start, start + count)
    ]


def labels(name: str, template: str = SOFT, **more: Any) -> Task:
    return Task(name, Template.parse(template), WORDS, **{"encoder": "lstm", **more})


def texts(name: str, template: str) -> Task:
    return Task(
        name,
        Template.parse(template),
        None,
        target="y",
        encoder="table",
        prefix=PrefixSettings(8),
        decoding=DecodingConfig(max_new_tokens=3),
    )


@dataclass(frozen=True)
class Case:
    family: str
    tasks: tuple[Task, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-10  # of what is trained in float64
    is_quick: bool = True  # part of the tests
    sharding: Sharding = "none"


def written_right(model: PromptModel, task: int, some_rows: list[dict[str, str]]) -> float:
    """How many letters the LM writes: a figure that differs with the prompt."""
    assert model.tasks[task].verbalizer is None
    return float(sum(len(text) for text in model.generate(some_rows[:2], task)))


CASES = {
    "masked, two tasks, accumulate 2": Case(
        "bert",
        (
            labels("one"),
            labels("two", "{x} {soft:4} is {mask}", encoder="table", loss="vocabulary"),
        ),
        {"accumulate": 2},
    ),
    "masked, prototypes beside words": Case(
        "bert",
        (
            labels("one", SOFT, reader=READERS["prototypes"]),
            labels("two", SOFT),
            labels("three", SOFT, reader=READERS["prototypes"]),
        ),
        {"accumulate": 2, "learning_rate": 1e-3},
        tolerance=1e-4,
    ),
    "masked, two that share a table": Case(
        "bert",
        (
            labels("one", encoder="multitask", by=("user", "one")),
            labels("two", encoder="multitask", by=("user", "two")),
        ),
    ),
    "masked, hidden words too": Case(
        "bert",
        (labels("one"),),
        {"auxiliary": 0.3},
        {"unlabeled": [{"x": f"{town} is a city"} for town in TOWNS]},
        is_quick=False,
    ),
    "causal, texts by a prefix beside labels": Case(
        "gpt2",
        (texts("one", "{prefix:3} {x} = {mask}"), labels("two", "{x} {soft:3} {mask}")),
        {"weight_decay": 0.01},
        {"texts": written_right},
    ),
    "encoder-decoder, a prefix, three rows a step": Case(
        "t5", (texts("one", "{prefix:3} {x} = {mask}"),), {"batch_size": 3, "accumulate": 3}
    ),
}


DEEP = labels("two", "{prefix:3} {x} {mask}", prefix=PrefixSettings(8), encoder="table")
GROUPED = "llama, groups of two heads"
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 4}
TEXT = texts("one", "{prefix:3} {x} = {mask}")
SHARDED = {
    "masked": Case("bert", (labels("one"), DEEP), {"accumulate": 2}, sharding="fsdp"),
    "causal": Case(
        GROUPED,
        (TEXT, labels("two", "{x} {soft:3} {mask}")),
        {"batch_size": 3, "recompute": True},
        {"texts": written_right},
        is_quick=False,
        sharding="fsdp",
    ),
    "prototypes beside words": replace(CASES["masked, prototypes beside words"], sharding="fsdp"),
    "encoder-decoder": Case("t5", (TEXT,), {"batch_size": 3}, sharding="fsdp"),  # 1 row at last
    "encoder-decoder, soft tokens": Case(
        "t5",
        (labels("one", "{x} {soft:3} {mask}"), replace(TEXT, name="two")),
        {"batch_size": 3},
        is_quick=False,
        sharding="fsdp",
    ),
    "heads split": Case(
        GROUPED,
        (
            TEXT,
            labels("two", "{x} {soft:3} {mask}"),
            replace(DEEP, name="three", prefix=PrefixSettings(0, "Vienna is")),
        ),
        {"evaluate_every": 6},
        {"texts": written_right},
        sharding="tensor",
    ),
    "heads split, each normed": Case(
        "qwen", (labels("one"), DEEP), is_quick=False, sharding="tensor"
    ),
}


def lm_of(family: str, dtype: torch.dtype) -> LanguageModel:
    if family == GROUPED:
        return LanguageModel(*tiny.tiny("llama", dtype, **HEADS))
    return LanguageModel(*tiny.tiny(family, dtype))


@functools.cache
def loaded(family: str, dtype: torch.dtype) -> LanguageModel:
    return lm_of(family, dtype)


@functools.cache
def sharded(family: str, dtype: torch.dtype, ranks: Ranks) -> LanguageModel:
    lm = lm_of(family, dtype)
    lm.shard(ranks.sharding, ranks, torch.device("cpu"))
    return lm


def built(case: Case, dtype: torch.dtype, ranks: Ranks) -> tuple[PromptModel, dict[str, Any]]:
    is_sharded = ranks.sharding != "none"
    lm = sharded(case.family, dtype, ranks) if is_sharded else loaded(case.family, dtype)
    model = PromptModel(lm)
    for task in case.tasks:
        model.add(task)
    model.bank.encoders.to(dtype)
    model.bank.prefixes.to(dtype)  # readers compute in float32
    return model, {
        task.name: (rows(13 + number), rows(7, 20 + number))
        for number, task in enumerate(case.tasks)
    }


def values(model: PromptModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.bank.named_parameters()}


def trained(case: Case, ranks: Ranks, **options: Any) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """What a case's prompts are after a training in float64, and its evaluations."""
    model, data = built(case, torch.float64, ranks)
    settings = {**SETTINGS, **case.settings, **options.pop("settings", {})}
    data |= options.pop("data", {})
    histories = fit(model, data, TrainConfig(**settings), ranks=ranks, **case.options, **options)
    return values(model), [
        [evaluation.loss, evaluation.dev_loss, evaluation.dev]
        for history in histories.values()
        for evaluation in history.history
    ]


def gradients(case: Case, ranks: Ranks) -> dict[str, torch.Tensor]:
    """Each task's gradient of the first step, in float32."""
    model, data = built(case, torch.float32, ranks)
    kept: dict[str, torch.Tensor] = {}

    def keep(job: PromptTraining) -> None:
        held_in_step[ranks.sharding] = held(job.lm)
        for number, parameter in enumerate(job.parameters):
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            kept[f"{job.name} {number}"] = gradient.detach().clone()
        job.step += 1

    settings = {**SETTINGS, **case.settings, "steps": 1}
    with mock.patch.object(PromptTraining, "update", keep):
        fit(model, data, TrainConfig(**settings), ranks=ranks, **case.options)
    return kept


def furthest(ours: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == others.keys()
    return max(float((ours[name] - others[name]).abs().max()) for name in ours)


def digest(tensors: dict[str, torch.Tensor]) -> bytes:
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(tensors[name].numpy().tobytes())
    return total.digest()


@contextlib.contextmanager
def at_step(number: int, do: Any) -> Iterator[None]:
    """Let something happen behind a step."""
    done, step = [], loop.take_step

    def stepping(*arguments: Any) -> None:
        step(*arguments)
        done.append(1)
        if len(done) == number:
            do()

    with mock.patch.object(loop, "take_step", stepping):
        yield


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def held(lm: LanguageModel) -> int:
    """How many of the values of its layers this process has."""
    weights = [w for layer in outermost_layers(lm.model) for w in layer.parameters()]
    return sum(w.to_local().numel() if isinstance(w, DTensor) else w.numel() for w in weights)


def task_file(folder: pathlib.Path, sharding: str, **more: Any) -> TaskConfig:
    """A task of a tiny LM in a folder, for the command's own function."""
    lm = folder / "lm"
    if not lm.exists():
        loaded("bert", torch.float32).save(lm)
    for name, count, start in (("train", 13, 0), ("dev", 7, 20), ("test", 5, 40)):
        lines = [json.dumps(row) for row in rows(count, start)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return TaskConfig.model_validate(
        {
            "name": "towns",
            "template": SOFT,
            "labels": {"a": "Yes", "b": "No"},
            "data": {name: folder / f"{name}.jsonl" for name in ("train", "dev", "test")},
            "lm": str(lm),
            "dtype": "float64",
            "train": SETTINGS,
            "lm_sharding": sharding,
            **more,
        }
    )


def commanded(ranks: Ranks, folder: pathlib.Path) -> list[str]:
    """What one process says of a training as the command does it, and of that of which nothing is
    left to do."""
    spoken: list[str] = []
    for resume in (False, True):
        task = task_file(folder, ranks.sharding, out=folder / "out", resume=resume)
        if ranks.is_first:
            train_task.train(task, spoken.append, ranks)
        else:
            train_task.assist(task, ranks)
    return spoken


def write_experiments(folder: pathlib.Path) -> None:
    """A task to compare methods on, and facts in LAMA's layout, beside the LM of ``task_file``."""
    (folder / "task.yaml").write_text(
        "name: towns\ntemplate: '{soft:2} {x} {mask}'\npatterns: ['{x} is {mask}', '{mask} {x}']\n"
        "labels: {a: Yes, b: No}\nencoder: table\nlm: ./lm\n"
        "data: {train: train.jsonl, test: test.jsonl, shots: 3}\n"
    )
    (relation := folder / "facts" / "original" / "R").mkdir(parents=True)
    for name, count, start in (("train", 9, 0), ("dev", 4, 20), ("test", 5, 40)):
        facts = [{"sub_label": row["x"], "obj_label": row["y"]} for row in rows(count, start)]
        (relation / f"{name}.jsonl").write_text("\n".join(map(json.dumps, facts)))
    relations = {"relation": "R", "template": "[X] is in [Y] .", "label": "is in"}
    (folder / "facts" / "relations.jsonl").write_text(json.dumps(relations))


def experiments(
    ranks: Ranks, folder: pathlib.Path, out: pathlib.Path
) -> tuple[dict[str, Any], list[int]]:
    """What a comparison and a probe of all processes find, by the numbers in their results; and
    how many steps of each were summed over the processes."""
    shared = {"device": "cpu", "dtype": "float64", "as_json": False}
    compared = CompareConfig(
        tasks=[str(folder / "task.yaml")],
        methods="majority,manual,p-tuning,p-tuning-v2",
        steps=4,
        looks=2,
        select="splits",
        splits=2,
        out=out / "compare",
        train={"batch_size": 3},
        **shared,
    )
    probed = ProbeConfig(
        lm=str(folder / "lm"),
        facts=str(folder / "facts"),
        methods="manual,p-tuning",
        seeds=2,
        out=out / "probe",
        train={"epochs": 2, "batch_size": 4},
        **shared,
    )
    summed: list[int] = []
    torch.set_default_dtype(torch.float64)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            for run, assist, config in (
                (compare.compare, compare.assist, compared),
                (probe.probe, probe.assist, probed),
            ):
                again = Ranks(ranks.rank, ranks.count)
                with mock.patch.object(again, "sum_gradients", wraps=again.sum_gradients) as sums:
                    (run if ranks.is_first else assist)(config, ranks=again)
                summed.append(sums.call_count)
    finally:
        torch.set_default_dtype(torch.float32)
    files = sorted(out.rglob("results/*/*.json")) if ranks.is_first else []
    numbers = {str(file.relative_to(out)): _numbers(json.loads(file.read_text())) for file in files}
    return numbers, summed


def _numbers(value: Any) -> list[float]:
    """All numbers of a result but how long it took, in order."""
    if isinstance(value, dict):
        kept = [part for name, part in value.items() if name not in ("seconds", "trial")]
        return [number for part in kept for number in _numbers(part)]
    if isinstance(value, list):
        return [number for part in value for number in _numbers(part)]
    return [float(value)] if isinstance(value, int | float) else []


held_in_step: dict[str, int] = {}
FIRST = next(iter(CASES.values()))
LONGEST_WAIT = timedelta(seconds=60)  # processes that do different things would wait for ever
QUICK = {name: case for name, case in CASES.items() if case.is_quick}
assert not CASES.keys() & SHARDED.keys(), "a test is named by its case"
QUICK_SHARDED = {name: case for name, case in SHARDED.items() if case.is_quick}
UNTIL_LATER = {"save_seconds": 1000.0}


def stopped(ranks: Ranks, folder: pathlib.Path) -> bool:
    """A training whose last process alone is asked to stop, behind the fourth step."""
    asked = at_step(4, terminate) if ranks.rank == ranks.count - 1 else contextlib.nullcontext()
    try:
        with asked:
            trained(FIRST, ranks, folder=folder, settings=UNTIL_LATER)
    except Interrupted:
        return True
    return False


def fault(run: Any, kind: type[Exception]) -> str:
    try:
        run()
    except kind as error:
        return str(error)
    return "no fault"


def sharded_together(
    ranks: Ranks, folder: pathlib.Path, cases: dict[str, Case]
) -> dict[str, dict[str, Any]]:
    """What the processes have to say of an LM that lies on all of them."""
    outcome: dict[str, dict[str, Any]] = {"gradients": {}, "trained": {}, "alike": {}, "held": {}}
    kinds = {kind: Ranks(ranks.rank, ranks.count, kind) for kind in ("fsdp", "tensor")}
    for name, case in cases.items():
        of_kind = kinds[case.sharding]
        outcome["gradients"][name] = gradients(case, of_kind)
        outcome["trained"][name] = kept, _ = trained(case, of_kind)
        outcome["alike"][name] = len(set(ranks.gather(digest(kept)))) == 1
        outcome["held"][name] = held_in_step[case.sharding]
    split = SHARDED["heads split"]
    with mock.patch.object(HeadShare, "of", lambda share, values: values.chunk(share.count, 1)[0]):
        outcome["gradients"]["heads of another"] = gradients(split, kinds["tensor"])
    with mock.patch.object(SummedGradient, "apply", lambda values: values):
        outcome["gradients"]["heads apart"] = gradients(split, kinds["tensor"])
    outcome["held after"] = {"fsdp": held(sharded("bert", torch.float32, kinds["fsdp"]))}
    resumed = trained(FIRST, kinds["fsdp"], folder=folder / "fsdp", resume=True)
    outcome["trained"]["resumed"] = resumed
    refused = functools.partial(sharded, "bert", torch.float32, kinds["tensor"])
    outcome["refused"] = {"no plan": fault(refused, ModelError)}
    spoken = commanded(kinds["fsdp"], folder / "command")
    outcome["command"] = {"spoken": spoken}
    return outcome


def together(
    ranks: Ranks, folder: pathlib.Path, cases: dict[str, Case], of_sharded: dict[str, Case]
) -> dict[str, Any]:
    """What the processes have to say of some cases; the last one is killed in the end."""
    outcome: dict[str, Any] = {"gradients": {}, "trained": {}, "alike": {}}
    outcome["begins"] = ranks.begin()
    for name, case in cases.items():
        outcome["gradients"][name] = gradients(case, ranks)
        outcome["trained"][name] = kept, _ = trained(case, ranks)
        outcome["alike"][name] = len(set(ranks.gather(digest(kept)))) == 1
    outcome["sharded"] = sharded_together(ranks, folder, of_sharded)
    outcome["experiments"] = experiments(ranks, folder / "command", folder / "together")
    with mock.patch.object(Ranks, "sum_gradients", lambda ranks, parameters, losses: losses):
        outcome["forgotten"] = gradients(FIRST, ranks)
    ranks.align([aligned := torch.nn.Parameter(torch.tensor(float(ranks.rank)))])
    outcome["aligned"] = [float(value) for value in ranks.gather(str(aligned.item()).encode())]
    outcome["resumed"] = trained(FIRST, ranks, folder=folder / "one", resume=True)
    outcome["stopped"] = stopped(ranks, folder / "many")
    outcome["diverged"] = fault(
        lambda: trained(FIRST, ranks, settings={"learning_rate": 1e300, "clip": 0.0}), DivergedError
    )
    others = {"one": (rows(13), rows(7, 20 + ranks.rank))}
    outcome["other rows"] = fault(lambda: trained(FIRST, ranks, data=others), ConfigError)
    last = ranks.rank == ranks.count - 1
    again = Ranks(ranks.rank, ranks.count)
    outcome["fault"] = fault(lambda: again.begin("There is no GPU." if last else None), ConfigError)
    again = Ranks(ranks.rank, ranks.count)
    outcome["over"] = again.begin(over=ranks.is_first)
    with at_step(2, lambda: os._exit(9)) if last else contextlib.nullcontext():
        outcome["killed"] = fault(
            lambda: trained(FIRST, ranks, folder=folder / "killed", settings={"save_seconds": 0.0}),
            Exception,
        )
    return outcome


@contextlib.contextmanager
def joined(rank: int, count: int, store: pathlib.Path) -> Iterator[Ranks]:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", f"file://{store}", rank=rank, world_size=count, timeout=LONGEST_WAIT
    )
    try:
        yield Ranks(rank, count)
    finally:
        distributed.destroy_process_group()


@contextlib.contextmanager
def others(
    count: int, folder: pathlib.Path, cases: dict[str, Case], of_sharded: dict[str, Case]
) -> Iterator[None]:
    """While this is open, the other processes do the same cases; their errors go to files. What is
    resumed later was begun by one process."""
    for name in ("one", "fsdp"):
        stopped(Ranks(), folder / name)
    (folder / "command").mkdir()
    task_file(folder / "command", "none")
    write_experiments(folder / "command")

    def work(rank: int) -> None:
        with joined(rank, count, folder / "store") as ranks:
            together(ranks, folder, cases, of_sharded)

    started = []
    for rank in range(1, count):
        (errors := folder / f"process-{rank}").mkdir()
        started.append(forked.Forked(functools.partial(work, rank), errors))
    try:
        yield
    finally:
        for process in started:
            process.end()


def main(count: int) -> None:
    one = Ranks()
    of_sharded = {
        name: case
        for name, case in SHARDED.items()
        if case.sharding == "fsdp" or case.family == GROUPED or count == 2
    }
    with tempfile.TemporaryDirectory() as name:
        path = pathlib.Path(name)
        with (
            others(count, path, CASES, of_sharded),
            joined(0, count, path / "store") as ranks,
        ):
            outcome = together(ranks, path, CASES, of_sharded)
        of_one, _ = experiments(one, path / "command", path / "alone")
    print(f"{count} processes beside one: gradients of a step in float32, values in float64")
    for name, case in CASES.items():
        of_step = furthest(outcome["gradients"][name], gradients(case, one))
        whole = furthest(outcome["trained"][name][0], trained(case, one)[0])
        print(f"{of_step:.1e}  {whole:.1e}  alike {outcome['alike'][name]}  {name}")
    of_all = outcome["sharded"]
    for name, case in of_sharded.items():
        of_step = furthest(of_all["gradients"][name], gradients(case, one))
        whole = furthest(of_all["trained"][name][0], trained(case, one)[0])
        alike = of_all["alike"][name]
        print(f"{of_step:.1e}  {whole:.1e}  alike {alike}  {case.sharding}: {name}")
    for name in ("heads of another", "heads apart"):
        wrong = furthest(of_all["gradients"][name], gradients(SHARDED["heads split"], one))
        print(f"{wrong:.1e}  tensor: {name}, which is wrong")
    print(f"{furthest(of_all['trained']['resumed'][0], trained(FIRST, one)[0]):.1e}  fsdp: resumed")
    for file, numbers in outcome["experiments"][0].items():
        apart = max(abs(ours - theirs) for ours, theirs in zip(numbers, of_one[file], strict=True))
        print(f"{apart:.1e}  {file}")
    print(f"values of layers held: {of_all['held']}; refused: {of_all['refused']}")
    forgotten = furthest(outcome["forgotten"], gradients(FIRST, one))
    print(f"{forgotten:.1e}  the first case where nothing is summed")
    print(
        f"{furthest(outcome['resumed'][0], trained(FIRST, one)[0]):.1e}  resumed from one process"
    )
    for name in ("stopped", "over", "diverged", "other rows", "fault", "killed"):
        print(f"{name}: {outcome[name]}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
