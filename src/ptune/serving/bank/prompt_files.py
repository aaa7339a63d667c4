"""Saved prompts on disk, as a server sees them: where each lies, what it is, and whether it has
changed."""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ptune.base import files
from ptune.errors import ConfigError, StoreError
from ptune.storage.prompt_folder import folders_in
from ptune.storage.saved_prompt import SavedPrompt, read_saved_prompt
from ptune.template.language import Template

NAMES = ("prompt.json", "prompt.safetensors")
Stamp = tuple[tuple[int, int, int, int], ...]
"""Of each file when its contents and when its rights were changed, its size, and its number on the
disk."""


@dataclass(frozen=True)
class Description:
    """What a user of a prompt has to know.

    Attributes:
        task: "labels" where it chooses among labels, "text" where it writes.
        fields: the fields that a row has.
        labels: of a prompt whose labels are the same for all rows.
        template: its template.
        chosen_by: the field whose value chooses the prompt, where they are many users' prompts.
        members: how many prompts it is: one, one for each user, or those of an ensemble.
        created: when it was saved, in seconds since 1970.
    """

    id: str
    task: str
    fields: tuple[str, ...]
    labels: tuple[str, ...]
    template: str
    chosen_by: str | None
    members: int
    created: int


@dataclass(frozen=True)
class PromptFiles:
    """A prompt on disk: one folder, or several that answer together or share out the rows."""

    id: str
    folders: tuple[pathlib.Path, ...]

    def stamp(self) -> Stamp:
        """What changes with the files.

        Raises:
            OSError: a file is missing.
        """
        stats = [(folder / name).stat() for folder in self.folders for name in NAMES]
        return tuple(
            (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino) for stat in stats
        )

    def describe(self) -> Description:
        """What stands in the prompt's own files.

        Raises:
            StoreError: it is damaged.
        """
        note = read_saved_prompt(self.folders[0])  # those of all members say the same
        reading = note.reading
        chooses = reading.choices or reading.span or reading.extract
        writes = note.labels is None and not chooses
        return Description(
            id=self.id,
            task="text" if writes else "labels",
            fields=_fields(note),
            labels=tuple(note.labels or ()),
            template=note.template,
            chosen_by=note.by[0] if note.by else None,
            members=len(self.folders),
            created=int((self.folders[0] / NAMES[0]).stat().st_mtime),
        )


def stamp_of(prompt_files: PromptFiles | None) -> Stamp | None:
    """The stamp of a prompt's files; None where one is missing."""
    try:
        return prompt_files.stamp() if prompt_files is not None else None
    except OSError:
        return None


def _fields(note: SavedPrompt) -> tuple[str, ...]:
    reading = note.reading
    domain = Template.parse(reading.domain).fields if reading.domain else ()
    names: list[str] = [*Template.parse(note.template).fields, *domain, *(reading.swap or ())]
    names += [*(reading.choices or ()), *([reading.span] if reading.span else [])]
    names += [note.by[0]] if note.by else []
    return tuple(dict.fromkeys(names))


def prompts_at(paths: Sequence[pathlib.Path]) -> dict[str, PromptFiles]:
    """The prompts in some folders, by the names of the folders.

    Raises:
        StoreError: a folder holds no prompt.
        ConfigError: two have the same name.
    """
    prompts: dict[str, PromptFiles] = {}
    for path in paths:
        name = path.resolve().name
        if name in prompts:
            raise ConfigError(
                f"{path} and {prompts[name].folders[0]} would both be served as {name!r}: give "
                "one of the folders another name."
            )
        prompts[name] = PromptFiles(name, tuple(folders_in(path)))
    return prompts


def prompts_in(folder: pathlib.Path) -> Iterator[PromptFiles]:
    """The prompts in the subfolders of a folder; what is no prompt, not whole yet, or may not be
    read, is left out."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not _is_text(path.name):
            continue
        with contextlib.suppress(StoreError, OSError):
            if path.is_dir():
                yield PromptFiles(path.name, tuple(folders_in(path)))


def _is_text(name: str) -> bool:
    """Whether a file's name can be told in JSON."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return not name.startswith(files.TEMPORARY)
