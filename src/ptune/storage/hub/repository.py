"""What a repository of prompts holds, and the hub that it lies on."""

import hashlib
import os
import pathlib
import re
from typing import Any

from ptune.base import files
from ptune.errors import StoreError

OF_A_PROMPT = (
    "prompt.json",
    "prompt.safetensors",
    "adapter_config.json",
    "adapter_model.safetensors",
)
SUMS = "files.json"  # the SHA-256 of every file
NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")


def names_repository(text: str) -> bool:
    """Whether a text is the name of a repository, with or without a revision (owner/name@v1), and
    not the path of something on this machine."""
    return NAME.fullmatch(text) is not None and not os.path.lexists(text)


def split_name(text: str) -> tuple[str, str | None]:
    """The repository, and the revision behind the @.

    Raises:
        StoreError: it is no name of a repository.
    """
    matched = NAME.fullmatch(text)
    if matched is None:
        raise StoreError(
            f"{text!r} is no repository of the hub: it is named owner/name, or owner/name@revision."
        )
    return matched[1], matched[2]


def hub() -> Any:
    """The hub's interface, at HF_ENDPOINT where that is set."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


def failure(name: str, error: Exception) -> StoreError:
    """What to say where the hub refuses, or cannot be reached."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return StoreError(
            f"The hub does not let you at {name} ({status}): log in by `hf auth login`, or set "
            "HF_TOKEN to a token that may."
        )
    if status == 404:
        return StoreError(f"There is no {name} on the hub, or no such revision of it.")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return StoreError(f"{name} cannot be had from the hub: {reason}")


def files_of_prompts() -> list[str]:
    """Patterns of the files of prompts in a repository: of one, or of a bank."""
    return [*OF_A_PROMPT, *(f"prompts/*/{file}" for file in OF_A_PROMPT)]


def sums_of(folder: pathlib.Path) -> dict[str, str]:
    """The SHA-256 of every file of a folder, by its path from there."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != SUMS
    }


def check_sums(folder: pathlib.Path, name: str) -> None:
    """Refuse files that are not those that were pushed.

    Raises:
        StoreError: a file differs, or one is missing.
    """
    if not (folder / SUMS).exists():
        return
    noted = files.read_json(folder / SUMS)
    if not isinstance(noted, dict):
        raise StoreError(f"{SUMS} of {name} is damaged.")
    there_now = sums_of(folder)
    for path in noted:
        if pathlib.PurePosixPath(path).name in OF_A_PROMPT and path not in there_now:
            raise StoreError(
                f"{path} of {name} was pushed and is gone: push the prompts again, or pull an "
                f"earlier commit ({name}@COMMIT)."
            )
    for path, there in there_now.items():
        if pathlib.Path(path).name in OF_A_PROMPT and noted.get(path) != there:
            raise StoreError(
                f"{path} of {name} is not the file that was pushed: its SHA-256 differs from that "
                f"in {SUMS}."
            )
