"""Prompts from the hub."""

import pathlib

from ptune.base import files
from ptune.errors import StoreError
from ptune.storage.hub import repository
from ptune.storage.saved_prompt import read_saved_prompt


def pulled(name: str, revision: str | None = None) -> pathlib.Path:
    """The folder of a repository's prompts, fetched into the hub's cache; of a revision that is
    there already nothing is fetched again.

    Args:
        name: owner/name, or owner/name@revision.
        revision: a commit, branch or tag; the newest by default.

    Raises:
        StoreError: the hub cannot be reached, has no such repository, or that holds no prompt or a
            damaged one.
    """
    repo, named = repository.split_name(name)
    revision = revision or named
    hub = repository.hub()
    try:
        commit = hub.model_info(repo, revision=revision).sha
        folder = pathlib.Path(
            hub.snapshot_download(
                repo,
                revision=commit,
                allow_patterns=[repository.SUMS, *repository.files_of_prompts()],
            )
        )
    except Exception as error:
        raise repository.failure(name, error) from error
    prompts = sorted({path.parent for path in folder.rglob("prompt.json")})
    if not prompts:
        raise StoreError(f"The repository {repo} on the hub holds no prompt (prompt.json).")
    repository.check_sums(folder, repo)
    for prompt in prompts:
        read_saved_prompt(prompt)
    return folder


def pull(name: str, out: pathlib.Path, revision: str | None = None) -> str:
    """Put a repository's prompts into a folder, with the commit that they are of.

    Returns:
        The commit.

    Raises:
        StoreError: see ``pulled``; or the folder is there already.
    """
    if out.exists():
        raise StoreError(f"{out} is there already, and would be overwritten: choose another place.")
    source = pulled(name, revision)
    repo, _ = repository.split_name(name)
    note = {"repository": repo, "commit": source.name}

    def fill(temporary: str) -> None:
        folder = pathlib.Path(temporary)
        for path in sorted(source.rglob("*")):
            if path.is_file() and path.name in repository.OF_A_PROMPT:
                place = folder / path.relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(path.read_bytes())
        files.write_json(folder / "hub.json", note)

    files.write_folder(out, fill)
    return source.name
