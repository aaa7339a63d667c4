"""Trains the prompts that come with ptune, which `ptune serve` serves where none is named.

    python scripts/make_builtin_prompts.py [FOLDER]

Continents, currencies and countries are those of examples/; languages is the relation P37 of the
built-in facts. Of each folder the prompt alone is kept, in a folder of its LM's name (FOLDER is
src/ptune/builtin/prompts by default).
"""

import csv
import json
import pathlib
import shutil
import sys
import tempfile

from ptune.cli.main import main as ptune
from ptune.serving.bank.prompt_files import NAMES

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "src" / "ptune" / "builtin" / "prompts"
FACTS = ROOT / "src" / "ptune" / "builtin" / "facts" / "original" / "P37"
EXAMPLES = ("continents", "currencies", "countries")
LANGUAGES = """\
name: languages
template: 'The language of {soft:3} {country} {soft:3} is {mask} .'
vocabulary: words.txt
target: language
data: {train: train.csv, dev: dev.csv, test: test.csv}
method: p-tuning
encoder: lstm
"""


def main(folder: pathlib.Path = FOLDER) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(temporary)
        tasks = [ROOT / "examples" / f"{name}.yaml" for name in EXAMPLES]
        for task in [*tasks, write_languages(work / "data")]:
            out = work / task.stem
            ptune(["train", str(task), "--out", str(out)])
            note = json.loads((out / "prompt.json").read_text(encoding="utf-8"))
            kept = folder / note["lm"]["source"] / task.stem
            kept.mkdir(parents=True, exist_ok=True)
            for name in NAMES:
                shutil.copyfile(out / name, kept / name)


def write_languages(folder: pathlib.Path) -> pathlib.Path:
    """The task of the relation's facts; its file."""
    folder.mkdir()
    languages = set()
    for split in ("train", "dev", "test"):
        lines = (FACTS / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        facts = [json.loads(line) for line in lines]
        languages |= {fact["obj_label"].lower() for fact in facts}
        with open(folder / f"{split}.csv", "w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["country", "language"])
            rows.writerows([fact["sub_label"], fact["obj_label"].lower()] for fact in facts)
    (folder / "words.txt").write_text("\n".join(sorted(languages)) + "\n", encoding="utf-8")
    task = folder / "languages.yaml"
    task.write_text(LANGUAGES, encoding="utf-8")
    return task


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
