"""The tasks and the table of ``scripts/searched_prompts.sh``:

python scripts/searched_prompts.py first SET FOLDER      the set with its first pattern and words
python scripts/searched_prompts.py tasks SET FOLDER      what the searches in FOLDER chose as tasks
python scripts/searched_prompts.py table "SETS" FOLDER   the results of all draws as a table
"""

import json
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ptune.tasks import yaml_task
from ptune.template.language import Field, Template
from ptune.template.parts import shown

Words = Mapping[str, str | list[str]]
SEVERAL = 3  # words of a label, as many as ptune search proposes at most by default
GAPS = "{soft:2} {mask} {soft:1}"  # what a generated template has behind the text
SOURCES = {
    "petal": "likelihood ratio, 1 word a label",
    "petal-several": f"likelihood ratio, {SEVERAL} words",
    "lm-bff": "conditional probabilities",
}
TITLES = {
    "manual": "manual words, manual template",
    "petal": "PETAL's words, one a label",
    "petal-several": f"PETAL's words, {SEVERAL} a label",
    "lm-bff": "LM-BFF's words",
    "written": "manual words, generated template",
}


def write(path: pathlib.Path, task: Mapping[str, Any]) -> None:
    """A task's file, every value written as JSON, which YAML holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in task.items()]
    path.write_text("".join(lines), encoding="utf-8")


def first_alone(name: str) -> dict[str, Any]:
    """The task of a set with its first pattern and its first words alone, and a template whose gaps
    the LM fills."""
    task = yaml_task.read(pathlib.Path(name))
    field = shown(next(part for part in Template.parse(task.patterns[0]).parts if is_field(part)))
    data = task.data.model_dump(mode="json", exclude_unset=True, exclude={"unlabeled"})
    taken = {key: value for key, value in task.data.take.items() if key != "unlabeled"}
    files = {split: str(getattr(task.data, split).resolve()) for split in ("train", "test")}
    return {
        "name": task.name,
        "template": f"{field} {GAPS}",
        "patterns": [task.patterns[0]],
        "labels": dict(task.labels),
        "data": {**data, "take": taken, **files},
        "metrics": list(task.metrics),
    }


def is_field(part: object) -> bool:
    """Whether a part of a template is a field of the rows."""
    return isinstance(part, Field)


def of_source(folder: pathlib.Path, source: str) -> Mapping[str, Any]:
    """The candidate of a search that came about so: the best on dev of those that were kept, or
    where none was the best on train; an empty one where none was proposed."""
    searched = json.loads((folder / "results.json").read_text("utf-8"))
    ranked = [*searched["candidates"], *searched["tried"]]
    return next((one for one in ranked if one["source"].startswith(source)), {})


def words_of(folder: pathlib.Path) -> dict[str, Words]:
    """The words of a draw by where they come from."""
    words = {"manual": yaml_task.read(folder / "first.yaml").labels}
    for name, source in SOURCES.items():
        words[name] = of_source(folder / "label-words", source).get("words", {})
    return {name: dict(one) for name, one in words.items() if one}


def write_tasks(folder: pathlib.Path) -> None:
    """Write words.yaml, the manual template with all words, and written.yaml, the generated
    template with the manual words; both draw the rows by which these were chosen."""
    first, best = (
        yaml_task.read(folder / name) for name in ("first.yaml", "label-words/best.yaml")
    )
    manual, *others = words_of(folder).values()
    shared = {
        "labels": manual,
        "data": best.data.model_dump(mode="json", exclude_unset=True),
        "metrics": list(first.metrics),
    }
    generated = of_source(folder / "generate", "written by the LM")["template"]
    written = {"name": f"{folder.name}-written", "patterns": [generated]}
    words = {"name": f"{folder.name}-words", "patterns": list(first.patterns)}
    write(folder / "written.yaml", {**shared, **written})
    write(folder / "words.yaml", {**shared, **words, "verbalizers": others})


def figures(out: pathlib.Path, draw: str, method: str) -> dict[str, float]:
    """The accuracy on test rows of each prompt of a draw; none where it was not computed yet."""
    values: dict[str, float] = {}
    for kind in ("words", "written"):
        for file in (out / "results" / f"{draw}-{kind}").glob(f"{method}-*.json"):
            result = json.loads(file.read_text("utf-8"))
            for point in result["grid"] or [result]:
                accuracy = point["figures"]["accuracy"]
                if kind == "written":
                    values[kind] = accuracy
                else:
                    same = [
                        n for n, one in words_of(out.parent / draw).items() if one == point["words"]
                    ]
                    values |= dict.fromkeys(same, accuracy)
    return values


def table(sets: Sequence[str], out: pathlib.Path) -> str:
    """Mean and deviation over the draws, and how many draws a figure is of where it is not of
    all."""
    lines = [f"| | {' | '.join(sets)} |", "|---" * (len(sets) + 1) + "|"]
    for folder in ("plain", "demonstrations"):
        for method in ("manual", "manual+fine-tune"):
            of_draws = {
                name: [
                    figures(out / folder, draw.name, method)
                    for draw in sorted(out.glob(f"{name}-[0-9]*"))
                ]
                for name in sets
            }
            for name, title in TITLES.items():
                cells = [_cell([one.get(name) for one in of_draws[of_set]]) for of_set in sets]
                lines.append(f"| {title}, {method}, {folder} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float | None]) -> str:
    there = [value for value in values if value is not None]
    if not there:
        return ""
    spread = f" ± {statistics.stdev(there):.3f}" if len(there) > 1 else ""
    part = f" ({len(there)} of {len(values)})" if len(there) < len(values) else ""
    return f"{statistics.mean(there):.3f}{spread}{part}"


def main(what: str, name: str, folder: pathlib.Path) -> None:
    """Do one of the three."""
    if what == "first":
        write(folder / "first.yaml", first_alone(name))
    elif what == "tasks":
        write_tasks(folder)
    else:
        print(table(name.split(), folder))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]))
