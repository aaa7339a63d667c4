"""The LM of a saved prompt: where it lies, loading it, and whether another LM is the same."""

import os
import pathlib

from ptune.base import files, terminal
from ptune.errors import StoreError
from ptune.lm.identity import older_records
from ptune.lm.language_model import LanguageModel
from ptune.lm.source.loading import choose_dtype, local_path
from ptune.settings import BUILTIN_LMS
from ptune.storage.saved_prompt import SavedLM, SavedPrompt, read_saved_prompt


def lm_places(source: str, folder: pathlib.Path) -> dict[str, str]:
    """Where an LM lies that is a folder or a file on this machine, or will be by an absolute path:
    from a prompt's folder, and from the root."""
    path = None if source in BUILTIN_LMS else local_path(source)
    if path is None:
        path = pathlib.Path(source)
        if not path.is_absolute():
            return {}
    return {
        "relative": pathlib.Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix(),
        "absolute": str(path),
    }


def dtype_name(lm: LanguageModel) -> str:
    """The number format that was asked for, as ``LanguageModel.load`` takes it."""
    used = lm.mixed or lm.dtype
    return "auto" if used == choose_dtype("auto", lm.device) else str(used).removeprefix("torch.")


def lm_of(
    folder: files.Path, device: str = "auto", dtype: str = "auto", tuned: bool = False
) -> LanguageModel:
    """The LM that a saved prompt names, from the first place where it is.

    Args:
        device, dtype, tuned: as for ``LanguageModel.load``; "auto" is the number format in which
            the prompt was trained.

    Raises:
        StoreError: the prompt is damaged, or a local LM is nowhere where it should be.
        ModelError: the LM cannot be loaded.
    """
    folder = pathlib.Path(folder)
    note = read_saved_prompt(folder)
    saved = note.lm
    places = _candidates(folder, saved)
    existing = [place for place in places if place.exists()]
    if places and not existing:
        shown = " and ".join(map(str, places))
        raise StoreError(
            f"The prompt in {folder} was trained for the LM {saved.source}, which was looked for "
            f"at {shown} and is not there: "
            f"put it back, or name it with --lm."
        )

    def load_from(source: str) -> LanguageModel:
        mixed = saved.mixed and dtype in ("auto", saved.dtype)
        return LanguageModel.load(
            source,
            device=device,
            dtype=saved.dtype if dtype == "auto" else dtype,
            tuned=tuned or mixed,
        )

    for place in existing[:-1]:
        lm = load_from(str(place))
        if not _other_lm(folder, note, lm):
            return lm
    return load_from(str(existing[-1]) if existing else saved.source)


def _candidates(folder: pathlib.Path, saved: SavedLM) -> list[pathlib.Path]:
    """Where a local LM may lie, without doubles; nothing for a name on the hub."""
    places = [folder / saved.relative] if saved.relative is not None else []
    places += [pathlib.Path(saved.absolute)] if saved.absolute is not None else []
    if not places and saved.source.startswith(
        "."
    ):  # as older versions wrote it: from the prompt's folder, or from the working folder
        places = [folder / saved.source, pathlib.Path(saved.source)]
    return list({place.resolve(): place for place in reversed(places)}.values())[::-1]


def check_lm(path: pathlib.Path, note: SavedPrompt, lm: LanguageModel) -> None:
    """Refuse an LM that the prompt was not trained for.

    Raises:
        StoreError: the LM differs from the saved one, with the difference.
    """
    if other := _other_lm(path, note, lm):
        raise StoreError(other)
    if commit := _other_commit(note.lm, lm):
        terminal.warn(
            f"The prompt in {path} was trained for {note.lm.source} at the {commit}; its weights "
            f"and its vocabulary are the same. {_pinned(note.lm)}"
        )


def _other_lm(path: pathlib.Path, note: SavedPrompt, lm: LanguageModel) -> str:
    """What tells an LM from the one that a prompt was trained for, as a sentence; nothing where it
    is the same."""
    if note.lm.width != lm.width or note.lm.kind != lm.kind:
        return (
            f"The prompt in {path} was trained for {note.lm.source} ({note.lm.kind}, embedding "
            f"width {note.lm.width}), and this "
            f"LM, {lm.source}, is {lm.kind} of width {lm.width}."
        )
    if what := _difference(note.lm, lm):
        commit = _other_commit(note.lm, lm)
        return (
            f"The prompt in {path} was trained for {note.lm.source}, and this LM, {lm.source}, "
            f"has {what}. The prompt "
            "would answer otherwise here than it was trained to: give the LM that it was trained "
            "for, or train it again."
            + (f" It was trained at the {commit}. {_pinned(note.lm)}" if commit else "")
        )
    return ""


def _other_commit(saved: SavedLM, lm: LanguageModel) -> str | None:
    """The commit for which a prompt was trained and that of this LM, in words, where they are two
    of one repository."""
    names = {repository_of(source) for source in (saved.source, lm.source)}
    if len(names) > 1 or None in (saved.commit, lm.commit) or saved.commit == lm.commit:
        return None
    return f"commit {saved.commit}, and this is {lm.commit}"


def _pinned(saved: SavedLM) -> str:
    return f"--lm {repository_of(saved.source)}@{saved.commit} takes that one."


def repository_of(source: str) -> str:
    """The name of an LM without its revision."""
    return source if local_path(source) else source.partition("@")[0]


def _difference(saved: SavedLM, lm: LanguageModel) -> str | None:
    """What this LM has that the LM of a saved prompt had not; None for the same one."""
    if saved.record is not None and (what := lm.difference(saved.record)):
        return what
    if saved.record is None and saved.fingerprint != older_records.shape(lm):
        return "another shape or vocabulary"
    return None if older_records.has_weights_of(lm, saved.sample) else "other weights"
