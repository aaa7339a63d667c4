"""Templates from a list: paraphrases of the task's own."""

import json
import pathlib
from collections.abc import Sequence

from ptune.base import plain_files
from ptune.errors import ConfigError, DataError
from ptune.reports.search_results import CandidateScore
from ptune.search.common.running_search import RunningSearch

KEYS = ("pattern", "template")  # of a row in JSON lines; ParaRel's is pattern


def read(path: pathlib.Path) -> list[str]:
    """The templates of a list: a text file with one a line, or JSON lines with the key pattern or
    template, as ParaRel's.

    Raises:
        DataError: the file cannot be read, or a line holds no template.
    """
    try:
        lines = plain_files.read_text(path, "utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The list {path} cannot be read: {error}.") from error
    numbered = [(n, line.strip()) for n, line in enumerate(lines, 1) if line.strip()]
    if path.suffix.lower() != ".jsonl":
        return [line for _, line in numbered]
    return [_of_json(path, number, line) for number, line in numbered]


def _of_json(path: pathlib.Path, number: int, line: str) -> str:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number}: no JSON ({error}).") from error
    text = next((row[key] for key in KEYS if key in row), None) if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise DataError(f"{path}, line {number}: no key pattern or template with a text.")
    return text


def propose(search: RunningSearch, listed: Sequence[str]) -> list[CandidateScore]:
    """Listed templates, hand-written ones of the task before them; [X] is the task's field, [Y] the
    answer.

    Raises:
        ConfigError: the list is empty, or has [X] where the task's rows have several fields.
    """
    task = search.task
    if not listed:
        raise ConfigError("The list has no templates.")
    if task.field is None and any("[X]" in text for text in listed):
        raise ConfigError(
            f"{task.name} asks rows of several fields, so [X] says nothing: name the fields in the "
            "list, such as {premise}."
        )
    texts = [_named(text, task.field) for text in listed]
    return [
        *(CandidateScore(template=text, source="manual") for text in task.patterns),
        *(CandidateScore(template=text, source="paraphrase") for text in texts),
    ]


def _named(text: str, field: str | None) -> str:
    if field is None:
        return text
    return text.replace("[X]", "{" + field + "}").replace("[Y]", "{mask}")
