"""Prompts to the hub."""

import contextlib
import json
import pathlib
import tempfile
from collections.abc import Callable

from ptune.base import files, terminal
from ptune.errors import ConfigError
from ptune.lm.source.loading import local_path
from ptune.settings import BUILTIN_LMS
from ptune.storage.hub import repository
from ptune.storage.hub.card import card
from ptune.storage.options import PushConfig
from ptune.storage.prompt_folder import folders_in
from ptune.storage.saved_lm import repository_of
from ptune.storage.saved_prompt import SavedPrompt, read_saved_prompt


def push(config: PushConfig, report: Callable[[str], None] = terminal.print_line) -> None:
    """Put a prompt, or the prompts of a run, into a repository of the hub with a model card.

    Raises:
        StoreError: there is no prompt, it is damaged, or the hub refuses.
        ConfigError: the LM is a folder of this machine, and no name of the hub is given for it.
    """
    repo, _ = repository.split_name(config.repository)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        _stage(config, repo, folder)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            report(f"  {path.relative_to(folder).as_posix()}  {path.stat().st_size:,} bytes")
        if config.dry_run:
            report((folder / "README.md").read_text(encoding="utf-8"))
            report(f"Nothing was sent: {repo} would get these files, {size:,} bytes.")
            return
        report(f"{repo}: {_send(config, repo, folder)}")


def _stage(config: PushConfig, repo: str, folder: pathlib.Path) -> None:
    """Put all that is sent into a folder."""
    prompts = folders_in(config.prompt)
    notes = [_for_others(config, read_saved_prompt(prompt)) for prompt in prompts]
    is_alone = prompts == [config.prompt]
    for prompt, note in zip(prompts, notes):
        place = folder if is_alone else folder / "prompts" / prompt.name
        place.mkdir(parents=True, exist_ok=True)
        files.write_json(place / "prompt.json", note.model_dump(mode="json"))
        for name in repository.OF_A_PROMPT[1:]:
            if (prompt / name).exists():
                (place / name).write_bytes((prompt / name).read_bytes())
        _name_base(place / "adapter_config.json", note.lm.source)
    has_adapter = any(folder.rglob("adapter_config.json"))
    licence = _license_of(notes[0].lm.source)
    text = card(
        config.prompt,
        notes,
        repo,
        license_name=config.license,
        lm_license=licence,
        has_adapter=has_adapter,
    )
    files.write_text(folder / "README.md", text)
    files.write_json(folder / repository.SUMS, repository.sums_of(folder))


def _for_others(config: PushConfig, note: SavedPrompt) -> SavedPrompt:
    """What a prompt says of itself, without the places of this machine."""
    source = config.lm or note.lm.source
    if source not in BUILTIN_LMS and (
        local_path(source) is not None or note.lm.absolute and not config.lm
    ):
        raise ConfigError(
            f"The prompt in {config.prompt} was trained for the LM {source}, a folder of this "
            "machine: name it as others find it with --lm owner/name. Prompts whose LM was tuned "
            "along need that LM on the hub first."
        )
    changes: dict[str, str | None] = {"source": source, "relative": None, "absolute": None}
    if repository_of(source) != repository_of(note.lm.source):
        changes["commit"] = None
    lm = note.lm.model_copy(update=changes)
    return note.model_copy(update={"lm": lm})


def _name_base(path: pathlib.Path, source: str) -> None:
    """Let PEFT's file name the LM as others find it."""
    if path.exists():
        values = files.read_json(path)
        files.write_json(path, {**values, "base_model_name_or_path": source})


def _license_of(source: str) -> str | None:
    """The licence of an LM, where the hub tells it."""
    if source in BUILTIN_LMS:
        return None
    with contextlib.suppress(Exception):
        data = repository.hub().model_info(source, timeout=5).card_data
        return str(data["license"]) if data and data.get("license") else None
    return None


def _send(config: PushConfig, repo: str, folder: pathlib.Path) -> str:
    """Send a folder.

    Returns:
        The address of the commit.
    """
    hub = repository.hub()
    try:
        hub.create_repo(repo, private=config.private or None, exist_ok=True)
        message = f"Prompt {json.dumps(config.prompt.name)} by ptune"
        sent = hub.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message=message,
            delete_patterns=repository.files_of_prompts(),  # of an earlier push
        )
    except Exception as error:
        raise repository.failure(repo, error) from error
    return str(sent.commit_url)
