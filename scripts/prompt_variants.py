"""Variants of frozen prompts beside the manual prompt, with 16 rows of each label.

python scripts/prompt_variants.py LM OUT trains P-tuning with other lengths, places, starts and rates, with
the words of the template as soft tokens, and with soft tokens in the pattern and the words that the manual
prompt of the draw has, in three draws of the rows (--sets, --variants and --draws take others or fewer). The table holds the accuracy on test rows of each, and of the variant that the draw's dev
rows choose. PTUNE_DATA holds classification/; the same command goes on where an earlier one ended.
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

SETS = {  # the text and the words before the mask, those of each task's template
    "trec": ('{sentence|strip:""}', "Type:"),
    "mr": ('{sentence|strip:""}', "It was"),
    "sst2": ('{sentence|strip:""}', "It was"),
    "sst5": ('{sentence|strip:""}', "It was"),
    "agnews": ("{sentence|shorten}", "Category:"),
}
PATTERN = "PATTERN"  # stands for the manual prompt's, with soft tokens
SHARED = ("lm", "data.shots", "train.steps", "train.evaluate_every", "data.seed", "train.seed")
VARIANTS: dict[str, dict[str, Any]] = {
    **{
        f"{length} before the words, LSTM, {rate:g}": {
            "template": f"TEXT {{soft:{length}}} WORDS {{mask}}.",
            "train.learning_rate": rate,
        }
        for length in (1, 3, 10)
        for rate in (1e-4, 1e-3)
    },
    "3 before the text, LSTM, 0.001": {"template": "{soft:3} TEXT WORDS {mask}."},
    **{
        f"3 before the words, frequent words, {rate:g}": {
            "encoder": "table",
            "init": "vocabulary",
            "train.learning_rate": rate,
        }
        for rate in (1e-3, 1e-2)
    },
    **{
        f"the words trained, {rate:g}": {
            "encoder": "table",
            "template": 'TEXT {soft:"WORDS"} {mask}.',
            "train.learning_rate": rate,
        }
        for rate in (1e-4, 1e-3, 1e-2)
    },
    **{
        f"3 in the manual prompt, frequent words, {rate:g}": {
            "encoder": "table",
            "init": "vocabulary",
            "template": PATTERN,
            "train.learning_rate": rate,
        }
        for rate in (1e-3, 3e-3, 1e-2)
    },
}


def settings_of(variant: str, name: str, manual: Mapping[str, Any]) -> dict[str, Any]:
    """A variant's settings in a set's task.

    Args:
        manual: the manual prompt of the draw: its template, and its words by label.
    """
    text, words = SETS[name]
    settings = {"method": "p-tuning", **VARIANTS[variant]}
    template = settings.get("template", "TEXT {soft:3} WORDS {mask}.")
    if template == PATTERN:
        return settings | {"template": softened(manual["template"]), "labels": manual["words"]}
    return settings | {"template": template.replace("TEXT", text).replace("WORDS", words)}


def softened(pattern: str) -> str:
    """A pattern with three soft tokens before the words around its mask."""
    parts = re.split(r"(\{(?!mask)[^}]*\})", pattern)
    softened = [f" {{soft:3}} {part} " if "{mask}" in part else part for part in parts]
    return " ".join("".join(softened).split())


def write_sweep(
    file: pathlib.Path,
    name: str,
    options: argparse.Namespace,
    manual: Sequence[Mapping[str, Any]],
) -> None:
    """Write a sweep's file: every variant in every draw of the rows.

    Args:
        manual: the manual prompt of each draw.
    """
    shared = {
        "lm": options.lm,
        "data.shots": 16,
        "train.steps": options.steps,
        "train.evaluate_every": max(1, options.steps // 5),
    }
    entries = [
        {**shared, **settings_of(variant, name, prompt), "data.seed": draw, "train.seed": draw}
        for variant in options.variants
        for draw, prompt in enumerate(manual)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"tasks": [name], "list": entries}, indent=1), encoding="utf-8")


def manual_results(out: pathlib.Path, draws: int) -> list[dict[str, Any]]:
    """What ``ptune compare`` says of the manual prompt in each draw."""
    (folder,) = (out / "results").iterdir()
    files = [folder / f"manual-16-{draw}.json" for draw in range(draws)]
    return [json.loads(file.read_text("utf-8")) for file in files]


def written(settings: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a run in which variants differ, as text."""
    return {key: str(value) for key, value in settings.items() if key not in SHARED}


def by_variant(
    results: Mapping[str, Any],
    name: str,
    manual: Sequence[Mapping[str, Any]],
    variants: Sequence[str] = tuple(VARIANTS),
) -> dict[str, list[tuple[float, float]]]:
    """The dev score and the accuracy on test rows of every variant, a pair for each draw."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for variant in variants:
        runs = [
            run
            for draw, prompt in enumerate(manual)
            for run in results["runs"]
            if run["settings"]["data.seed"] == str(draw)
            and written(settings_of(variant, name, prompt)) == written(run["settings"])
        ]
        pairs[variant] = [(run["dev"], run["figures"]["accuracy"]) for run in runs]
    return pairs


def shown(values: Sequence[float]) -> str:
    """Mean and deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {deviation:.3f}"


def chosen_on_dev(pairs: Sequence[tuple[float, float]]) -> float:
    """The accuracy of the variant with the best dev score; of several with the same one their
    mean."""
    best = max(dev for dev, _ in pairs)
    return statistics.mean(accuracy for dev, accuracy in pairs if dev == best)


def main() -> None:
    """Train the variants of every set and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lm")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--sets", nargs="+", default=["mr", "sst2"], choices=list(SETS))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    columns: dict[str, list[str]] = {}
    for name in options.sets:
        manual, sweep = options.out / f"{name}-manual", options.out / f"{name}-variants"
        resume = ["--resume"] if (manual / "settings.json").exists() else []
        drawn = ["--shots", "16", "--seeds", str(options.draws), "--test", "500"]
        lm = ["--methods", "manual", "--lm", options.lm]
        run("compare", name, *lm, *drawn, "--out", str(manual), *resume)
        prompts = manual_results(manual, options.draws)
        file = options.out / f"{name}.yaml"
        write_sweep(file, name, options, prompts)
        run("sweep", str(file), "--out", str(sweep))
        results = json.loads((sweep / "results.json").read_text("utf-8"))
        pairs = by_variant(results, name, prompts, options.variants)
        chosen = [chosen_on_dev(draw) for draw in zip(*pairs.values(), strict=True)]
        columns[name] = [
            shown([prompt["figures"]["accuracy"] for prompt in prompts]),
            shown(chosen),
            *(shown([accuracy for _, accuracy in pairs[one]]) for one in options.variants),
        ]
    print("| accuracy |", " | ".join(options.sets), "|")
    print("|---" * (1 + len(options.sets)) + "|")
    lines = ["manual prompt", "chosen on the draw's dev rows", *options.variants]
    for title, *values in zip(lines, *columns.values(), strict=True):
        print(f"| {title} |", " | ".join(values), "|")


def run(*arguments: str) -> None:
    """Run a command of ptune; what it prints goes to standard error."""
    subprocess.run(["ptune", *arguments], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
