"""Texts that join and leave at any token: a row that comes while others are written waits for none
of them. Rows with labels run as in ``BatchEngine``, between two tokens."""

import logging
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.lm.patches.paged_writing import PagedWriter, VirtualPrompt, refusal
from ptune.model.prompt_model import PromptModel
from ptune.prompts.bank import Bank
from ptune.serving.engines.batch_engine import BatchEngine, More, nobody, note_of, take_token
from ptune.serving.engines.jobs import BatchNote, Job
from ptune.serving.engines.live_text import LiveText
from ptune.settings import DecodingConfig

log = logging.getLogger("ptune.serving")
Virtual = dict[int, VirtualPrompt | None]
"""The prompts of a bank by their numbers, with ids for their vectors."""


@dataclass
class _Writing:
    """A job whose text is being written."""

    job: Job
    text: LiveText
    note: BatchNote


class ContinuousEngine(BatchEngine):
    """The frozen LM, by transformers' continuous batching. What cannot join (drawn texts, beams, an
    ensemble, settings that hold for a whole batch, tokens that are hidden from others, a deep
    prefix in some LMs) is written as in
    ``BatchEngine``, after the texts that have begun.

    Args:
        tokens: of a batch of labels, and in the cache of the texts that are being written.
        rows: that are written for at once.

    Raises:
        ConfigError: this LM cannot be run so, with the reason.
    """

    joins = True

    def __init__(self, lm: LanguageModel, tokens: int, rows: int):
        super().__init__(lm, tokens)
        if reason := refusal(lm):
            raise ConfigError(f"--engine continuous: {reason}. Take --engine batch.")
        self.rows = rows
        self.writer = PagedWriter(lm, tokens, rows)
        if self.writer.lacks_prefixes:
            log.info("Deep prefixes are written in batches: %s.", self.writer.lacks_prefixes)
        self.virtual_prompts: weakref.WeakKeyDictionary[Bank, Virtual] = weakref.WeakKeyDictionary()
        self.written: dict[str, _Writing] = {}

    def text_batch(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs that begin together with the first one."""
        if not self.may_join(jobs[0]):
            return super().text_batch([job for job in jobs if not self.may_join(job)])
        chosen: list[Job] = []
        for job in jobs:
            if self.may_join(job) and self._fits([*chosen, job]):
                chosen.append(job)
        return chosen

    def may_join(self, job: Job) -> bool:
        """Whether a job's text may be written beside any others, at any time."""
        assert job.settings is not None
        if self.is_apart(job) or not _is_plain(job.settings):
            return False
        example = job.examples[0]
        row = example.fills[0]
        if row.visibility or self.writer.lacks_prefixes and row.prefix:
            return False
        if job.loaded.model.tasks[example.task].task.prefix.reads_rows:
            return False  # each row has a prefix of its own
        limit = min(self.lm.max_length or self.tokens, self.tokens)
        return _room_of(job) <= limit

    def write(
        self,
        jobs: Sequence[Job],
        between: Callable[[], None],
        more: More = nobody,
    ) -> None:
        """Write the texts of jobs and of those that come meanwhile, until there are none.

        Args:
            between: is called between two tokens.
            more: gives the next job, if it fits.
        """
        if not self.may_join(jobs[0]):
            super().write(jobs, between)
            return
        if not self.writer.has_ids:
            self._forget()
        try:
            for job in jobs:
                self._begin(job)
            while self.written:
                self._step()
                between()
                while (joining := more(self._joins_now)) is not None:
                    self._begin(joining)
        except BaseException:
            self._forget()
            raise

    @property
    def _jobs(self) -> list[Job]:
        return [one.job for one in self.written.values()]

    def _joins_now(self, job: Job) -> bool:
        return self.may_join(job) and self._fits([*self._jobs, job])

    def _fits(self, jobs: Sequence[Job]) -> bool:
        """Whether there is room for all of these jobs at once."""
        if not self.may_join(jobs[-1]):
            return super()._fits(jobs)
        return len(jobs) <= self.rows and sum(map(_room_of, jobs)) <= self.tokens

    def _begin(self, job: Job) -> None:
        assert job.settings is not None
        model, example = job.loaded.model, job.examples[0]
        prompt = self._virtual_prompt(model, model.tasks[example.task].prompt)
        name = self.writer.add(example.fills[0], prompt, job.settings.max_new_tokens)
        text = LiveText(model, job.settings.max_new_tokens, job.settings.stop)
        self.written[name] = _Writing(job, text, note_of([*self._jobs, job]))

    def _virtual_prompt(self, model: PromptModel, number: int) -> VirtualPrompt | None:
        """The prompt with its ids, which it keeps for as long as it is in memory."""
        prompts = self.virtual_prompts.setdefault(model.bank, {})
        if number not in prompts and number >= 0:
            vectors, prefixes = model.bank.vectors([number]), model.bank.deep([number])
            prompts[number] = self.writer.virtual(vectors, prefixes)
        return prompts.get(number)

    def _step(self) -> None:
        """Write one token of each text; those that nobody waits for any more end."""
        for name, token in self.writer.step().items():
            one = self.written[name]
            take_token(one.job, one.text, token, one.note)
        for name, one in list(self.written.items()):
            if one.text.end is not None or not one.job.is_wanted:
                self.writer.cancel(name)
                del self.written[name]

    def _forget(self) -> None:
        """Give up what is being written, and all virtual ids."""
        self.written.clear()
        self.virtual_prompts.clear()
        self.writer.renew()


def _is_plain(settings: DecodingConfig) -> bool:
    """Whether the best token is taken each time, whatever was written before."""
    if settings.sample:
        return False
    return not (settings.no_repeat_ngram or settings.banned or settings.min_new_tokens)


def _room_of(job: Job) -> int:
    """How many tokens a job takes in the cache, when it is done."""
    assert job.settings is not None
    return job.examples[0].fills[0].size + job.settings.max_new_tokens
