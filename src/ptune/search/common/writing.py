"""What a search chose as the YAML files of tasks, which ``ptune train`` and ``ptune compare``
take."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ptune.base import files
from ptune.reports.search_results import CandidateScore
from ptune.tasks.resolved.task_form import TaskForm
from ptune.tasks.schema import DataConfig

LEFT_OUT = {"out", "resume", "device", "code", "preset", "patterns", "labels", "verbalizers"}


def write(
    form: TaskForm,
    written: Mapping[str, Any],
    kept: Sequence[CandidateScore],
    folder: pathlib.Path,
) -> None:
    """Write best.yaml, the task with the best candidate alone, and kept.yaml, with all that were
    kept.

    Args:
        written: what else the task's file says: its LM, and its rows, test rows too.
        kept: the best first.
    """
    words = [one.words for one in kept if one.words] or [form.answers.labels]
    different = list({json.dumps(one): one for one in words}.values())
    templates = list(dict.fromkeys(one.template for one in kept))
    files.write_text(folder / "best.yaml", _yaml(form, written, templates[:1], words[:1]))
    files.write_text(folder / "kept.yaml", _yaml(form, written, templates, different))


def _yaml(
    form: TaskForm,
    written: Mapping[str, Any],
    templates: Sequence[str],
    words: Sequence[Mapping[str, Any]],
) -> str:
    """A task's file, every value written as JSON, which YAML holds."""
    template = {"template": templates[0]} if "{soft" not in form.template else {}
    content = {
        **written,
        **template,
        "patterns": list(templates),
        "lm": _absolute(written["lm"]),
    }
    if form.answers.labels:
        content |= {"labels": words[0], "verbalizers": list(words[1:])}
    if form.answers.vocabulary:
        content["vocabulary"] = str(form.answers.vocabulary.resolve())
    given = {name: value for name, value in content.items() if value not in (None, [], "")}
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in given.items()]
    return "\n".join(lines) + "\n"


def data_of(data: DataConfig) -> dict[str, Any]:
    """The rows of a task, their files by whole paths."""
    content = data.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    for split in ("train", "dev", "test", "unlabeled"):
        if (file := getattr(data, split)) is not None:
            content[split] = str(file) if "${" in str(file) else str(file.resolve())
    return content


def _absolute(lm: str) -> str:
    """An LM's folder by its whole path; another name as it stands."""
    return str(pathlib.Path(lm).resolve()) if pathlib.Path(lm).exists() else lm
