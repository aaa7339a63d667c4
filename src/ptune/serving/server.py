"""What a server consists of, apart from HTTP."""

import contextlib
import logging
import pathlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.serving.access import Access
from ptune.serving.bank import bank_folder
from ptune.serving.bank.prompt_bank import PromptBank, lm_for
from ptune.serving.bank.prompt_files import PromptFiles, prompts_at, prompts_in
from ptune.serving.engines.choice import engine_for
from ptune.serving.engines.scheduler import Scheduler
from ptune.serving.metrics import Metrics
from ptune.serving.options import ServeConfig
from ptune.serving.problems import Problem
from ptune.settings import BUILTIN_LMS, part_of

log = logging.getLogger("ptune.serving")
BUILTIN = pathlib.Path(__file__).parents[1] / "builtin" / "prompts"
MEGABYTE = 2**20
ATTENTIONS = 4  # requests for attention at once


@dataclass(frozen=True)
class RequestLimits:
    """What a request may have, and how long it may take (``ServeConfig`` says more of each)."""

    timeout: float
    max_body_kb: int
    max_prompt_mb: int
    max_rows: int
    max_new_tokens: int


class PromptServer:
    """The LM's thread, the prompts, and who may use them.

    Attributes:
        limits: of requests.
        host: the address that it listens at.
        open: whoever reaches it may use every prompt.
        bank_folder: the folder of prompts that is watched.
        log_texts: texts that are read and written are logged.
        attentions: has a place for each request for attention that may be answered at once.
        bank: the prompts; None until the LM is loaded.

    Raises:
        PtuneError: there is no prompt where one is named, or the file of tokens is at fault.
    """

    def __init__(self, config: ServeConfig):
        self._config = config
        most = min(config.max_rows, config.queue)
        self.limits = replace(part_of(RequestLimits, config), max_rows=most)
        self.host, self.open, self.bank_folder = config.host, config.open, config.bank
        self.log_texts, self.drain = config.log_texts, config.drain
        self.access = Access(config.tokens)
        self.files = find_prompts(config.prompts, config.bank, config.lm)
        self.metrics = Metrics()
        self.scheduler = Scheduler(config.rows, config.queue, config.wait_ms / 1000, self.metrics)
        self.attentions = threading.BoundedSemaphore(ATTENTIONS)
        self.bank: PromptBank | None = None
        self._watcher: bank_folder.Watcher | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the LM is loaded."""
        return self.bank is not None

    @property
    def prompts(self) -> PromptBank:
        """The prompts.

        Raises:
            Problem: the LM is not loaded yet.
        """
        if self.bank is None:
            raise Problem(
                503, "Not ready", "The LM is being loaded. Ask again in a moment.", retry_after=2
            )
        return self.bank

    def load(self, lm: LanguageModel | None = None) -> None:
        """Load the LM and see that the prompts that were named are good; in the LM's thread.

        Raises:
            PtuneError: one of them cannot be loaded.
        """
        config = self._config
        lm = lm or lm_for(self.files.values(), config.lm, config.device, config.dtype)
        lm.hold_record()
        lm.keep_repeated_contexts(config.text_mb)
        bank = PromptBank(lm, self.files.values(), config.memory_mb * MEGABYTE)
        for files in self.files.values():
            if config.bank is None or not files.folders[0].is_relative_to(config.bank):
                bank.put(files)
        self.scheduler.engine = engine_for(
            lm,
            config.engine,
            rows=config.rows,
            batch_tokens=config.batch_tokens,
            vllm_url=config.vllm_url,
            vllm_prefixes=config.vllm_prefixes,
        )
        self.scheduler.prompts = bank
        self.metrics.prompts.set_function(lambda: len(bank.ids()))
        self.metrics.prompt_bytes.set_function(lambda: bank.bytes_used)
        self.bank = bank

    def start(self, lm: LanguageModel | None = None) -> None:
        """Load in the LM's thread, and wait until that is done.

        Raises:
            PtuneError: as ``load``.
        """
        self.scheduler.call(lambda: self.load(lm)).result()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """While this is open, changes on the disk are taken over."""
        self._watcher = watcher = bank_folder.Watcher(
            self.prompts, self.bank_folder, self.scheduler.call
        )
        thread = threading.Thread(target=watcher.run, args=(self._read_tokens,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            watcher.stop()
            thread.join()

    def close(self) -> None:
        """End the LM's thread, after the rows that wait."""
        self.scheduler.close()

    def _read_tokens(self) -> None:
        try:
            if self.access.reload_if_changed():
                log.info("The file of tokens was read again.")
        except ConfigError as error:
            log.warning("The file of tokens is left aside: %s", error)


def find_prompts(
    folders: Sequence[pathlib.Path], bank: pathlib.Path | None, lm: str | None
) -> Mapping[str, PromptFiles]:
    """The prompts that are served from the start.

    Args:
        folders: those that are named.
        bank: a folder of such folders.
        lm: the LM, whose prompts that come with ptune are served where nothing is named; of the
            built-in one by default.

    Raises:
        PtuneError: a folder holds none, or two have one name; or nothing is named, and no prompt
            comes with ptune for the LM.
    """
    named = list(folders)
    if not named and bank is None:
        if lm not in (None, *BUILTIN_LMS):
            raise ConfigError(
                f"No prompt comes with ptune for the LM {lm}: name the folder of one, or a folder "
                "of such folders (--bank)."
            )
        named = sorted((BUILTIN / (lm or "builtin")).iterdir())
    prompts = prompts_at(named)
    if bank is None:
        return prompts
    if not bank.is_dir():
        raise ConfigError(f"There is no folder {bank} for prompts: make it first.")
    bank_folder.recover(bank)
    for files in prompts_in(bank):
        if files.id in prompts:
            raise ConfigError(
                f"{files.folders[0]} and {prompts[files.id].folders[0]} would both be served as "
                f"{files.id!r}: give one of the folders another name."
            )
        prompts[files.id] = files
    return prompts
