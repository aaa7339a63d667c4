"""What decides a run's result, as JSON says it: the LM, the tasks, the settings, the rows, and the
versions of the libraries.

Two runs whose identities are equal give the same result, so one may go on with what the other has
left; ``differing`` names what is not equal.
"""

import functools
import hashlib
import importlib.metadata
import json
import pathlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ptune.base import plain_files
from ptune.errors import DataError
from ptune.settings import SIDE

if TYPE_CHECKING:
    from ptune.lm.language_model import LanguageModel
    from ptune.model.task import Task

LIBRARIES = ("ptune", "torch", "transformers", "tokenizers")
LONGEST = 200  # characters of a value that is written down as it is
SHOWN = 40  # characters of a value that a message shows


def of_lm(lm: "LanguageModel") -> dict[str, Any]:
    """An LM's config, its tokens, every one of its weights, and the number format that it runs
    in."""
    record = lm.record()
    return {
        "config": record.config,
        "tokens": record.words,
        "weights": record.exact,
        "number format": str(lm.dtype),
        "mixed": str(lm.mixed),
    }


def of_tokenizer(tokenizer: Any) -> str:
    """A hash of a tokenizer's pieces and their numbers."""
    return of_value(sorted(tokenizer.get_vocab().items()))


def of_task(task: "Task") -> dict[str, Any]:
    """All fields of a task: its template, its labels and their words, its encoder, ..."""
    values = {field.name: getattr(task, field.name) for field in fields(task)}
    values["reader"] = task.reader.name
    values["visibility"] = task.template.visibility or None
    return {name: _short(repr(value)) for name, value in values.items() if value is not None}


def of_settings(settings: BaseModel, without: Collection[str] = ()) -> dict[str, Any]:
    """The settings that are given, without those that change no result; a file that they name
    stands there by its content.

    Args:
        without: names of other settings that are left out, those of settings within them too.

    Raises:
        DataError: a file cannot be read.
    """
    return with_contents(deciding(settings, without))


def deciding(settings: BaseModel, without: Collection[str] = ()) -> dict[str, Any]:
    """The settings that are given, without those that change no result; files by their paths, as
    ``with_contents`` takes them.

    Args:
        without: names of other settings that are left out, those of settings within them too.
    """
    content: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if name in without or name in SIDE or value is None:
            continue
        if isinstance(value, BaseModel):
            content[name] = deciding(value, without)
        elif isinstance(value, pathlib.Path) or _names_files(value):
            content[name] = value
        else:
            content[name] = settings.model_dump(mode="json", include={name})[name]
    return content


def with_contents(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which each file stands by its content.

    Raises:
        DataError: a file cannot be read.
    """
    content: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, pathlib.Path):
            content[name] = of_file(value)
        elif _names_files(value):
            content[name] = [of_file(file) for file in value]
        else:
            content[name] = with_contents(value) if isinstance(value, Mapping) else value
    return content


def _names_files(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(file, pathlib.Path) for file in value)


def of_file(path: pathlib.Path) -> str:
    """A hash of a file's content, or of all files in a folder, with their names.

    Raises:
        DataError: it cannot be read.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return of_value([(str(file.relative_to(path)), of_file(file)) for file in files])
    try:
        plain_files.check(path)
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def of_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    """A hash of rows in their order."""
    return of_value([dict(row) for row in rows])


def of_value(value: Any) -> str:
    """A hash of a value, written as JSON, or by ``str`` where JSON has no form for it."""
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()


def hashed(values: Mapping[str, Any]) -> dict[str, str]:
    """A hash of each value, by its name: an identity that is short, and still names what differs
    from another one."""
    return {name: of_value(value) for name, value in values.items()}


def versions() -> dict[str, str]:
    """The versions of ptune and of the libraries that determine its results."""
    return {name: _version(name) for name in LIBRARIES}


@functools.cache
def _version(library: str) -> str:
    """Read from the library's files once, since the code that runs is that of the first time."""
    return importlib.metadata.version(library)


def differing(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    """The names of the entries that differ between two identities, with both values where short,
    "train.seed (0, now 1)", and for a file of another content "data.train (what it holds has
    changed)"."""
    changes = []
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            changes += differing(old, new, f"{where}{name}.")
        elif old != new:
            changes.append(f"{where}{name}{_both(old, new)}")
    return changes


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else of_value(text)


def _both(old: Any, new: Any) -> str:
    shown = [json.dumps(value, ensure_ascii=False) for value in (old, new)]
    hashes = [bool(re.fullmatch("[0-9a-f]{32,}", str(value))) for value in (old, new)]
    if all(hashes):
        return " (what it holds has changed)"
    if any(hashes) or None in (old, new) or max(map(len, shown)) > SHOWN:
        return ""
    return f" ({shown[0]}, now {shown[1]})"
