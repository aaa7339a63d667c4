"""The prompts of a server: all of them known by name, the used ones in memory."""

import pathlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ptune.errors import ConfigError, StoreError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel
from ptune.serving.bank.prompt_files import Description, PromptFiles, Stamp, stamp_of
from ptune.serving.problems import Problem
from ptune.storage import prompt_folder

DAMAGED = "The prompt is damaged on the server"


@dataclass(frozen=True)
class LoadedPrompt:
    """A prompt in memory. It never changes: a new version is another one.

    Attributes:
        model: the LM with this prompt alone; several tasks where the prompt is those of many users
            or of an ensemble.
        size: how many bytes its values take.
    """

    description: Description
    model: PromptModel
    size: int


@dataclass
class _Entry:
    """A prompt that is known.

    Attributes:
        stamp: of the files that it was known by.
        loaded: its values, where they are in memory.
        kept: whether it stays in memory, because what is on the disk now is not what it was.
    """

    files: PromptFiles
    stamp: Stamp
    loaded: LoadedPrompt | None = None
    kept: bool = False


def load(files: PromptFiles, lm: LanguageModel) -> LoadedPrompt:
    """Read a prompt from the disk.

    Raises:
        PtuneError: it is damaged, or belongs to another LM.
    """
    model = prompt_folder.load(list(files.folders), lm)
    values = [*model.bank.parameters(), *model.bank.buffers()]
    size = sum(value.numel() * value.element_size() for value in values)
    return LoadedPrompt(files.describe(), model, size)


class PromptBank:
    """Prompts by their ids. Any thread may ask for names and descriptions; values are read and
    given out in the worker's thread alone.

    Args:
        budget: how many bytes of values stay in memory; the least recently used go first.
    """

    def __init__(self, lm: LanguageModel, prompts: Iterable[PromptFiles], budget: int):
        self.lm, self.budget = lm, budget
        self._lock = threading.RLock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        for files in prompts:
            self._entries[files.id] = _Entry(files, files.stamp())

    def ids(self) -> list[str]:
        """The names of all prompts, in order."""
        with self._lock:
            return sorted(self._entries)

    def files(self) -> Mapping[str, tuple[PromptFiles, Stamp]]:
        """Where each prompt lies, and the state of its files that is served."""
        with self._lock:
            return {name: (entry.files, entry.stamp) for name, entry in self._entries.items()}

    def __contains__(self, name: str) -> bool:
        with self._lock:
            return name in self._entries

    @property
    def bytes_used(self) -> int:
        """How many bytes the values in memory take."""
        with self._lock:
            return sum(entry.loaded.size for entry in self._entries.values() if entry.loaded)

    def describe(self, name: str) -> Description:
        """What a prompt is.

        Raises:
            KeyError: there is none of that name.
            Problem: it is damaged.
        """
        with self._lock:
            entry = self._entries[name]
            if entry.loaded is not None:
                return entry.loaded.description
        try:
            return entry.files.describe()
        except StoreError as error:
            raise Problem(500, DAMAGED, f"The prompt {name!r} cannot be read.") from error

    def get(self, name: str) -> LoadedPrompt:
        """A prompt's values, read from the disk where they are not in memory.

        Raises:
            KeyError: there is none of that name.
            Problem: it cannot be read now.
        """
        with self._lock:
            entry = self._entries[name]
            self._entries.move_to_end(name)
        if entry.loaded is None:
            entry.loaded = self._read(entry)
            self._make_room(entry)
        return entry.loaded

    def put(self, files: PromptFiles) -> None:
        """Take a new prompt, or a new version of one, which answers from here on.

        Raises:
            PtuneError, OSError: it cannot be used; what was there before goes on answering, if it
                is in memory.
        """
        stamp = files.stamp()
        try:
            loaded = load(files, self.lm)
        except Exception:
            with self._lock:
                if entry := self._entries.get(files.id):
                    entry.kept, entry.stamp = entry.loaded is not None, stamp
            raise
        entry = _Entry(files, stamp, loaded)
        with self._lock:
            self._entries[files.id] = entry
            self._entries.move_to_end(files.id)
        self._make_room(entry)

    def remove(self, name: str) -> None:
        """Forget a prompt; rows that it has begun to answer are answered.

        Raises:
            KeyError: there is none of that name.
        """
        with self._lock:
            del self._entries[name]

    def _read(self, entry: _Entry) -> LoadedPrompt:
        name, fault, loaded = entry.files.id, None, None
        try:
            loaded = load(entry.files, self.lm)
        except Exception as error:
            fault = error
        if stamp_of(entry.files) != entry.stamp:
            detail = f"The prompt {name!r} is being replaced on the server."
            raise Problem(503, "The prompt is being replaced", detail, retry_after=2)
        if loaded is None:
            raise Problem(500, DAMAGED, f"The prompt {name!r} cannot be read.") from fault
        return loaded

    def _make_room(self, newest: _Entry) -> None:
        """Forget the values of the least recently used prompts until the rest fits."""
        with self._lock:
            used = self.bytes_used
            for entry in self._entries.values():
                if used <= self.budget:
                    break
                if entry.loaded is not None and not entry.kept and entry is not newest:
                    used -= entry.loaded.size
                    entry.loaded = None


def lm_for(
    prompts: Iterable[PromptFiles], name: str | None, device: str, dtype: str
) -> LanguageModel:
    """The LM that is named, or that of the first prompt.

    Raises:
        ConfigError: there is neither.
        StoreError, ModelError: it cannot be loaded.
    """
    from ptune.storage.saved_lm import lm_of

    if name is not None:
        return LanguageModel.load(name, device=device, dtype=dtype)
    first: pathlib.Path | None = next((files.folders[0] for files in prompts), None)
    if first is None:
        raise ConfigError("There is no prompt yet that names an LM: name it with --lm.")
    return lm_of(first, device, dtype)
