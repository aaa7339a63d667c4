"""Odd templates, YAML, rows, prompt folders and command lines, drawn by a seed and given to the
program, which has three ends: success, exit 2 with one message and no traceback, and exit 130.

    python -m tests.fuzz --seconds 60 --seed 0 [--kinds templates,yaml,rows,folders,commands]

Everything runs in this process, on tiny random LMs, in a temporary folder. What ends otherwise is
printed with its number, which ``--only NUMBER`` runs again.
"""

import argparse
import contextlib
import faulthandler
import functools
import io
import itertools
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from unittest import mock

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "COLUMNS": "200",
}
sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[1] / "src")]

import tiny  # noqa: E402
import torch  # noqa: E402

from ptune import LanguageModel, PromptModel, Task, Template, Verbalizer, save  # noqa: E402
from ptune.cli import main as cli  # noqa: E402

SECONDS_OF_A_CASE = 60
ODD_TEXTS = [
    "",
    " ",
    "\n",
    "\0",
    "\ud800",
    "\ufeff",
    "\u202e",
    "\u200b",
    "a" * 5000,
    "\x1b[31m",
    "é",
    "e\u0301",
    "文本",
    "🙂",
    "null",
    "true",
    "NaN",
    "-1",
    "0",
    "1e9",
    "9" * 30,
    "1" * 5000,
    "inf",
    "nan",
    "1.5",
    "../../x",
    "/dev/null",
    "/",
    ".",
    "..",
    "~",
    "$HOME",
    "${X}",
    "${X:-y}",
    "{",
    "}",
    "{{",
    '"',
    "'",
    "[",
    "]",
    "!!int x",
    "&a *a",
    "2020-13-45",
    "%s",
    "--",
    "-",
    "--help",
    "a,b",
    "a\tb",
    "[X]",
    "[Y]",
    "｛mask｝",
    "</s>",
    "[MASK]",
]
ODD_NUMBERS = [-1, 0, 1, 2, 3, 1.5, -0.5, 1e-9, 1e9, 2**31, 2**63, 10**30, True, None]
PARTS = [
    "{mask}",
    "{text}",
    "{text|shorten}",
    "{soft:2}",
    "{soft:2@a}",
    "{soft@a}",
    '{soft:"the film"}',
    "{prefix:2}",
    '{prefix:"the film"}',
    "{sep}",
    "{x}",
    '{"text"}',
    "{text|lower|strip|capitalize}",
    '{n.a|join:", "}',
    "{text|strip:.?!}",
    " ",
    "\n",
    "\t",
    ".",
    "It was",
    "{{",
    "}}",
    "(3,3,3)",
    "[X]",
    "[Y]",
    "{soft}",
    "{soft:0}",
    "{mask:2}",
    "{text|",
    "{",
    "}",
    '"',
    "|",
    ":",
    "@",
    "｛mask｝",
    "{soft:1000000000}",
    "{prefix:999}",
]
SENSIBLE = [
    "1",
    "2",
    "3",
    "true",
    "0.5",
    "text",
    "label",
    "n",
    "n.a",
    "soft",
    "prototypes",
    "head",
    "pair",
    "contextual",
    "prior",
    "left-to-right",
    "parallel",
    "most-probable-first",
    "logit",
    "probability",
    "vocabulary",
    "labels",
    "table",
    "mlp",
    "lstm",
    "manual",
    "fine-tune",
    "manual+fine-tune",
    "prefix-tuning",
    "prompt-tuning",
    "p-tuning-v2",
    "pet",
    "ipet",
    "vote",
    "weighted",
    "mean",
    "closed",
    "sum",
    "token",
    "character",
    "f1-macro",
    "accuracy",
    "bleu",
    "great",
    "bad",
    "random",
    "zeros",
    "lm",
    "both",
    "prompt",
    "nothing",
    "loss",
    "rows.jsonl",
    "{x: y}",
    "[text, label]",
    "{soft:2} {text} {mask}",
    "{text} is {mask}",
    "{prefix:2} {text} = {mask}",
    "{text}",
    "words.txt",
    "documents",
]
YAML = """name: opinions
template: "{soft:2} {text|shorten} {soft:2} {mask}"
labels: {good: [great, best], bad: terrible film}
data: {train: rows.jsonl, dev: rows.jsonl, test: rows.jsonl}
target: label
encoder: table
method: p-tuning
init: random
loss: labels
reading: {by: words, aggregate: probability, order: parallel, calibration: none, length: closed}
metrics: [accuracy]
max_length: 40
combine: mean
prompts: 1
train: {epochs: 1, steps: 1, batch_size: 2, learning_rate: 0.1, warmup: 0, clip: 1, seed: 0}
prefix: {hidden: 8, init: random}
pet: {repetitions: 1, generations: 0}
"""
WRITTEN = """name: endings
template: "{prefix:2} {text|shorten} = {mask}"
data: {train: rows.jsonl, dev: rows.jsonl, test: rows.jsonl}
target: label
method: prefix-tuning
decoding: {max_new_tokens: 3, beams: 1, stop: [x], banned: [y]}
metrics: [bleu]
metric_words: auto
stop_by: loss
target_length: 5
smoothing: 0.1
train: {epochs: 1, steps: 1, batch_size: 2, learning_rate: 0.1, warmup: 0, clip: 1, seed: 0}
prefix: {hidden: 8, init: random}
"""
ROWS = [
    {"text": "great film", "label": "good", "n": {"a": ["x", "y"]}},
    {"text": "the worst film", "label": "bad", "n": {"a": ["z"]}},
    {"text": "Vienna is great", "label": "good", "n": {"a": []}},
]
COMMANDS = {
    "inspect": ["{text} {mask}"],
    "predict": ["prompt", "--data", "rows.jsonl"],
    "evaluate": ["prompt", "--data", "rows.jsonl"],
    "generate": ["writer", "--data", "rows.jsonl", "--decoding.max-new-tokens", "2"],
    "report": ["run", "--out", "OUT"],
    "distil": [
        "page.txt",
        "--lm",
        "causal",
        "--out",
        "OUT",
        "--length",
        "2",
        "--cover",
        "1",
        "--slice-tokens",
        "6",
        "--train.steps",
        "1",
        "--train.batch-size",
        "2",
        "--device",
        "cpu",
    ],
    "ask": ["documents", "Vienna ?", "--lm", "causal", "--decoding.max-new-tokens", "2"],
    "export": ["writer", "OUT"],
    "import": ["adapter", "OUT", "--lm", "causal", "--template", " {text} = {mask}"],
    "train": [
        "task.yaml",
        "--lm",
        "masked",
        "--out",
        "OUT",
        "--train.steps",
        "1",
        "--device",
        "cpu",
    ],
    "compare": [
        "patterns.yaml",
        "--lm",
        "masked",
        "--methods",
        "manual",
        "--out",
        "OUT",
        "--device",
        "cpu",
        "--test",
        "2",
    ],
    "probe": [
        "--facts",
        "facts.csv",
        "--manual",
        "[X] is [Y] .",
        "--methods",
        "manual",
        "--lm",
        "masked",
        "--out",
        "OUT",
        "--device",
        "cpu",
    ],
    "search": [
        "patterns.yaml",
        "--by",
        "label-words",
        "--lm",
        "masked",
        "--rows",
        "3",
        "--keep",
        "2",
        "--steps",
        "1",
        "--candidates",
        "2",
        "--beams",
        "2",
        "--out",
        "OUT",
        "--device",
        "cpu",
    ],
    "pretrain": [
        "--texts",
        "text.txt",
        "--out",
        "OUT",
        "--steps",
        "1",
        "--hidden-size",
        "8",
        "--layers",
        "1",
        "--heads",
        "1",
        "--length",
        "8",
        "--vocabulary-size",
        "60",
        "--batch-tokens",
        "16",
        "--device",
        "cpu",
    ],
}
OPTIONS = {
    "inspect": ["--row", "--lm", "--words", "--device"],
    "predict": ["--data", "--out", "--lm", "--top", "--skip-bad-lines", "--device", "--dtype"],
    "evaluate": [
        "--data",
        "--form",
        "--metrics",
        "--parts",
        "--lm",
        "--skip-bad-lines",
        "--device",
        "--dtype",
    ],
    "generate": [
        "--decoding.beams",
        "--decoding.temperature",
        "--decoding.stop",
        "--decoding.banned",
        "--decoding.seed",
        "--decoding.texts",
        "--decoding.sample",
        "--decoding.top-k",
        "--decoding.top-p",
        "--decoding.length-penalty",
        "--decoding.rows",
        "--data",
        "--out",
    ],
    "report": ["--out"],
    "distil": [
        "--length",
        "--ratio",
        "--study",
        "--study-share",
        "--cover",
        "--slice-tokens",
        "--held-out",
        "--start",
        "--anchored",
        "--previous",
        "--top",
        "--temperature",
        "--window",
        "--together",
        "--judge",
        "--beside",
        "--seed",
        "--template",
        "--text",
        "--name",
        "--resume",
    ],
    "ask": [
        "--document",
        "--json",
        "--decoding.beams",
        "--decoding.sample",
        "--decoding.temperature",
        "--decoding.stop",
        "--decoding.texts",
        "--dtype",
    ],
    "export": ["--to", "--lm"],
    "import": ["--name", "--target", "--template", "--lm"],
    "train": [
        "--template",
        "--method",
        "--encoder",
        "--init",
        "--max-length",
        "--train.batch-size",
        "--train.accumulate",
        "--train.seed",
        "--train.warmup",
        "--train.learning-rate",
        "--train.clip",
        "--prompts",
        "--metrics",
        "--parts",
        "--target",
        "--tune",
        "--data.shots",
        "--data.seed",
        "--only",
        "--prompt-by",
        "--combine",
        "--reading.by",
        "--reading.order",
        "--reading.calibration",
        "--reading.length",
        "--reading.domain",
        "--loss",
        "--device",
        "--dtype",
        "--resume",
        "--prefix.init",
        "--prefix.hidden",
        "--smoothing",
        "--name",
        "--title",
    ],
    "compare": [
        "--methods",
        "--shots",
        "--seeds",
        "--select",
        "--splits",
        "--test",
        "--max-length",
        "--train.seed",
        "--grid",
        "--steps",
    ],
    "probe": [
        "--relations",
        "--template",
        "--encoder",
        "--init",
        "--vocab",
        "--together",
        "--train.seed",
        "--manual",
        "--facts",
        "--wordings",
    ],
    "search": [
        "--by",
        "--template",
        "--words",
        "--words-per-label",
        "--corpus",
        "--paraphrases",
        "--shots",
        "--seed",
        "--budget",
        "--rows",
        "--keep",
        "--steps",
        "--candidates",
        "--beams",
        "--rate",
        "--rerank",
        "--rerank-steps",
        "--lm",
        "--dtype",
    ],
    "pretrain": [
        "--seed",
        "--weights",
        "--heads",
        "--hidden-size",
        "--layers",
        "--learning-rate",
        "--clip",
        "--weight-decay",
        "--mask-share",
        "--held-out",
        "--length",
        "--batch-tokens",
        "--warmup",
        "--objective",
        "--next-sentence",
        "--tokenizer",
        "--from",
        "--vocabulary-size",
        "--save-minutes",
        "--save-dtype",
        "--keep-words",
        "--texts",
        "--dtype",
    ],
}
BOUNDED = {
    "--seeds": ["0", "-1", "1", "x"],
    "--layers": ["0", "-1", "1", "x"],
    "--hidden-size": ["0", "-1", "7", "8"],
    "--steps": ["0", "-1", "1", "x"],
    "--length": ["0", "8", "-3", "x"],
    "--splits": ["0", "2", "x"],
    "--batch-tokens": ["0", "8", "x"],
    "--cover": ["0", "-1", "1", "x"],
    "--by": ["mine", "paraphrase", "generate", "label-words", "gradient", "pez", "project", "x"],
    "--rerank": ["zero-shot", "fine-tune", "x"],
    "--rerank-steps": ["0", "-1", "1", "x"],
    "--rows": ["0", "-1", "2", "x"],
    "--keep": ["0", "-1", "1", "x"],
    "--candidates": ["0", "-1", "1", "x"],
    "--beams": ["0", "-1", "1", "x"],
}  # costly beyond these, and rightly so


@dataclass
class Case:
    """What one drawing gave to the program."""

    arguments: list[str]
    stdin: str = ""
    files: dict[str, bytes] = field(default_factory=dict)


class Fuzzer:
    """The folder in which the cases run, and what they are drawn from."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        for name, family in (("masked", "bert"), ("causal", "gpt2")):
            network, tokenizer = tiny.tiny(family)
            network.save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)
        self._load = functools.cache(LanguageModel.load)
        self._outs = itertools.count()
        words = Verbalizer.from_words({"good": ["great", "best"], "bad": "terrible film"})
        for name, lm, template, answer_positions in (
            ("prompt", "masked", "{soft:2} {text|shorten} is {mask}", words),
            ("writer", "causal", "{prefix:2} {text} = {mask}", None),
        ):
            model = PromptModel(self._load(str(folder / lm), device="cpu"))
            model.add(Task(name, Template.parse(template), answer_positions, encoder="table"))
            save(model, folder / name, encoder=True)
        self.files = {
            "task.yaml": YAML.encode(),
            "patterns.yaml": (YAML + 'patterns: ["{text} is {mask}", "{mask}: {text}"]\n').encode(),
            "rows.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
            "text.txt": ("the film was great\n" * 40).encode(),
            "words.txt": b"great, best\nbad, worst\n",
            "page.txt": " ".join(tiny.TEXT[:2])[:80].encode(),
            "facts.csv": b"subject,object,split\n"
            + b"".join(
                f"Vienna{n},{w},{s}\n".encode()
                for n in range(3)
                for w, s in (("great", "train"), ("bad", "dev"), ("best", "test"))
            ),
        }
        self.run(Case(["export", "writer", "adapter"]))
        distil = ["documents" if word == "OUT" else word for word in COMMANDS["distil"]]
        self.run(Case(["distil", *distil]))
        self.run(
            Case(
                [
                    "train",
                    "task.yaml",
                    "--lm",
                    "masked",
                    "--out",
                    "run",
                    "--train.steps",
                    "1",
                    "--device",
                    "cpu",
                ]
            )
        )
        self.files |= {
            f"{name}/{path.name}": path.read_bytes()
            for name in ("prompt", "writer", "adapter", "run", "documents")
            for path in (folder / name).iterdir()
            if path.is_file()
        }

    def run(self, case: Case) -> str:
        """What is wrong with how the program ended; nothing where it ended in one of its three
        ways."""
        out = self.folder / f"out{next(self._outs)}"
        for name, content in {**self.files, **case.files}.items():
            (self.folder / name).write_bytes(content)
        output, errors = io.StringIO(), io.StringIO()
        arguments = [argument.replace("OUT", str(out)) for argument in case.arguments]
        where = pathlib.Path.cwd()
        os.chdir(self.folder)
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(SECONDS_OF_A_CASE)
        try:
            with (
                contextlib.redirect_stdout(output),
                contextlib.redirect_stderr(errors),
                mock.patch("sys.stdin", io.StringIO(case.stdin)),
                mock.patch.object(LanguageModel, "load", self._loaded),
            ):
                cli.main(arguments)
            return ""
        except SystemExit as end:
            if end.code == 2:
                return (
                    ""
                    if errors.getvalue().strip() or output.getvalue().strip()
                    else "exit 2 without a message"
                )
            return (
                "" if end.code in (None, 0, 130) else f"exit {end.code}: {errors.getvalue()[-300:]}"
            )
        except BaseException:
            return traceback.format_exc()
        finally:
            signal.alarm(0)
            os.chdir(where)

    def _loaded(self, source: str = "builtin", *rest: object, **options: object) -> LanguageModel:
        """The tiny LMs are loaded once; any other name is loaded as ever, from what is here."""
        known = (
            {str(source), pathlib.Path(str(source)).name} & {"masked", "causal"}
            if "\0" not in str(source)
            else set()
        )
        if (
            known
            and not rest
            and options.get("device", "cpu") in ("cpu", "auto")
            and options.get("dtype", "auto") == "auto"
            and not options.get("tuned")
        ):
            return self._load(str(self.folder / known.pop()), device="cpu")
        return LOAD(source, *rest, **options)  # type: ignore[arg-type]

    # The kinds of cases.

    def templates(self, chance: random.Random) -> Case:
        text = "".join(
            chance.choice(PARTS if chance.random() < 0.9 else ODD_TEXTS) + chance.choice(["", " "])
            for _ in range(chance.randint(1, 7))
        )
        row = {name: _value(chance) for name in ("text", "x", "n") if chance.random() < 0.7}
        return Case(
            [
                "inspect",
                _mutated(chance, text, 0.2),
                "--lm",
                chance.choice(["masked", "causal"]),
                "--row",
                json.dumps(row),
            ]
        )

    def yaml(self, chance: random.Random) -> Case:
        lines = chance.choice([YAML, WRITTEN]).splitlines()
        for _ in range(chance.randint(1, 3)):
            index = chance.randrange(len(lines))
            key, _, value = lines[index].partition(":")
            word = chance.choice(value.split() or [" "])
            lines[index] = chance.choice(
                [
                    f"{key}: {_scalar(chance)}",
                    f"{key}: [{_scalar(chance)}, {_scalar(chance)}]",
                    "",
                    f"{key}: {{{_scalar(chance)}: {_scalar(chance)}}}",
                    lines[index] + "\n" + lines[index],
                    f"{key}:{value.replace(word, _scalar(chance))}",
                    f"{_scalar(chance)}: 1",
                    _mutated(chance, lines[index], 1),
                ]
            )
        text = "\n".join(line for line in lines)
        return Case(
            [
                "train",
                "task.yaml",
                "--lm",
                chance.choice(["masked", "causal"]),
                "--out",
                "OUT",
                "--train.steps",
                "1",
                "--device",
                "cpu",
            ],
            files={"task.yaml": text.encode("utf-8", "surrogatepass")},
        )

    def rows(self, chance: random.Random) -> Case:
        rows = [
            {
                name: _value(chance) if chance.random() < 0.3 else value
                for name, value in row.items()
                if chance.random() < 0.9
            }
            for row in ROWS
        ]
        if (form := chance.choice(["jsonl", "json", "csv", "tsv"])) in ("csv", "tsv"):
            sign = "," if form == "csv" else "\t"
            text = "\n".join(
                sign.join(str(value) for value in row)
                for row in (("text", "label", "n"), *(row.values() for row in rows))
            )
        else:
            text = (
                "\n".join(json.dumps(row, ensure_ascii=chance.random() < 0.5) for row in rows)
                if form == "jsonl"
                else json.dumps(rows)
            )
        content = text.encode(
            chance.choice(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
            chance.choice(["replace", "ignore"]),
        )
        content = _mutated_bytes(chance, content) if chance.random() < 0.6 else content
        command = chance.choice(["predict", "evaluate", "generate"])
        arguments = [
            command,
            "writer" if command == "generate" else "prompt",
            *(["--decoding.max-new-tokens", "2"] if command == "generate" else []),
        ]
        arguments += ["--skip-bad-lines"] * (chance.random() < 0.3)
        if command != "evaluate" and chance.random() < 0.3:
            return Case(arguments, content.decode("utf-8", "surrogateescape"))
        return Case([*arguments, "--data", f"odd.{form}"], files={f"odd.{form}": content})

    def folders(self, chance: random.Random) -> Case:
        name = chance.choice(
            [
                name
                for name in self.files
                if "/" in name and not name.endswith(("encoder.safetensors", ".html"))
            ]
        )
        content = self.files[name]
        if name.endswith("prompt.json") and chance.random() < 0.8:
            note = json.loads(content)
            owner = chance.choice(
                [note, note["lm"], note["reading"], note["decoding"], note.get("prefix") or note]
            )
            owner[chance.choice([*owner, "odd"])] = _value(chance)
            content = json.dumps(note).encode("utf-8", "surrogatepass")
        else:
            content = _mutated_bytes(chance, content)
        arguments = {
            "prompt": ["predict", "prompt", "--data", "rows.jsonl"],
            "writer": ["generate", *COMMANDS["generate"]],
            "adapter": ["import", *COMMANDS["import"]],
            "run": ["report", "run", "--out", "OUT"],
            "documents": ["ask", *COMMANDS["ask"]],
        }[name.split("/")[0]]
        return Case(arguments, files={name: content})

    def commands(self, chance: random.Random) -> Case:
        if chance.random() < 0.05:
            return Case(
                [chance.choice([*COMMANDS, *ODD_TEXTS]) for _ in range(chance.randint(0, 3))]
            )
        command = chance.choice(list(COMMANDS))
        arguments = [command, *COMMANDS[command]]
        for _ in range(chance.randint(1, 2)):
            option = chance.choice(OPTIONS[command])
            values = SENSIBLE if chance.random() < 0.6 else ["-1", "0", "1", "2", *ODD_TEXTS]
            arguments += [option, chance.choice(BOUNDED.get(option, values))]
        if chance.random() < 0.2:
            index = chance.randrange(1, len(arguments))
            arguments[index] = chance.choice(ODD_TEXTS)
        return Case(arguments)


LOAD = LanguageModel.load
KINDS: dict[str, Callable[[Fuzzer, random.Random], Case]] = {
    "templates": Fuzzer.templates,
    "yaml": Fuzzer.yaml,
    "rows": Fuzzer.rows,
    "folders": Fuzzer.folders,
    "commands": Fuzzer.commands,
}


def _too_long(*_: object) -> None:
    faulthandler.dump_traceback()
    raise TimeoutError(f"more than {SECONDS_OF_A_CASE} seconds")


def _value(chance: random.Random) -> object:
    kind = chance.random()
    if kind < 0.4:
        return chance.choice(ODD_TEXTS)
    if kind < 0.7:
        return chance.choice(ODD_NUMBERS)
    return chance.choice(
        [
            [],
            {},
            [chance.choice(ODD_TEXTS)],
            {"a": chance.choice(ODD_NUMBERS)},
            float("nan"),
            float("inf"),
            ["a", None],
            [[["a"]]],
        ]
    )


def _scalar(chance: random.Random) -> str:
    if chance.random() < 0.6:
        return chance.choice(SENSIBLE)
    return str(chance.choice([*ODD_TEXTS, *ODD_NUMBERS[:9], "rows.jsonl", *PARTS])).replace(
        "1e9", "7"
    )


def _mutated(chance: random.Random, text: str, share: float) -> str:
    if chance.random() >= share or not text:
        return text
    start = chance.randrange(len(text))
    return (
        text[:start]
        + chance.choice([*ODD_TEXTS, "", text[start:] * 2])
        + text[start + chance.randint(0, 3) :]
    )


def _mutated_bytes(chance: random.Random, content: bytes) -> bytes:
    for _ in range(chance.randint(1, 3)):
        start = chance.randrange(len(content) + 1)
        odd = chance.choice(
            [
                b"",
                bytes([chance.randrange(256)]),
                b"\xff\xfe",
                b'"',
                b"\0",
                b"\n",
                b"{",
                b"[" * 20_000,
                content[:start][-9:] * 3,
            ]
        )
        content = content[:start] + odd + content[start + chance.choice([0, 1, 5, len(content)]) :]
    return content


def cases(seed: int, kinds: list[str]) -> Iterator[tuple[int, str, random.Random]]:
    """The numbers of the cases, their kinds, and the chance that draws each."""
    for number in itertools.count():
        yield number, kinds[number % len(kinds)], random.Random(f"{seed} {number}")


def fuzz(
    seconds: float,
    seed: int,
    kinds: list[str],
    only: int | None = None,
    report: Callable[[str], None] = print,
) -> list[str]:
    """Run cases for some seconds; what is wrong with those that ended otherwise than they may."""
    faults, count, began = [], 0, time.monotonic()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        fuzzer = Fuzzer(pathlib.Path(name))
        began = time.monotonic()
        for number, kind, chance in cases(seed, kinds):
            if time.monotonic() - began > seconds or only is not None and number > only:
                break
            case = KINDS[kind](fuzzer, chance)
            if only not in (None, number):
                continue
            count += 1
            if fault := fuzzer.run(case):
                files = {file: content[:300] for file, content in case.files.items()}
                faults.append(
                    f"case {number} of seed {seed} ({kind}): "
                    f"{[argument[:200] for argument in case.arguments]} {files} "
                    f"{case.stdin[:200]!r}\n{fault}"
                )
                report(faults[-1])
    report(f"{count} cases, {len(faults)} of them ended otherwise than they may.")
    return faults


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--only", type=int)
    options = parser.parse_args()
    if fuzz(options.seconds, options.seed, options.kinds.split(","), options.only):
        sys.exit(1)


if __name__ == "__main__":
    main()
