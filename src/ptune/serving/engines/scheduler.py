"""The one thread that runs the LM, and what it does next.

Rows wait in two lines: those whose labels are scored, and those whose texts are written. The thread
scores a batch, then writes a batch, and between two tokens of a text it scores the rows that have
come meanwhile, so that no label waits for the end of a long text.
"""

import contextlib
import contextvars
import logging
import math
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeVar

from ptune.errors import DivergedError, PtuneError
from ptune.serving.bank.prompt_bank import LoadedPrompt
from ptune.serving.engines.batch_engine import BatchEngine, nobody
from ptune.serving.engines.fair_queue import FairQueue, QueueFull
from ptune.serving.engines.jobs import Job
from ptune.serving.metrics import Metrics
from ptune.serving.problems import Problem, internal, overlong, refused

log = logging.getLogger("ptune.serving")
Result = TypeVar("Result")
ROWS_BETWEEN = 16  # rows that are scored between two tokens of a text, at most
SHARE = 0.5  # of a batch's time, for which its rows may wait for others at most
LONGEST_WAIT = 60  # seconds that Retry-After says at most


class Prompts(Protocol):
    """Where a prompt's values come from."""

    def get(self, name: str) -> LoadedPrompt:
        """A prompt by its id, loaded where it is not in memory yet.

        Raises:
            KeyError: there is none of that name.
            Problem: it cannot be read now.
        """


class Scheduler:
    """Runs rows in the order of their tenants' turns.

    Args:
        rows: in a batch at most.
        queue: how many rows of one tenant may wait.
        wait: seconds within which another row must come for a batch to wait for it.
    """

    def __init__(self, rows: int, queue: int, wait: float, metrics: Metrics):
        self.rows, self.wait, self.metrics = rows, wait, metrics
        self.prompts: Prompts | None = None
        self.engine: BatchEngine | None = None
        self.label_queue, self.text_queue = FairQueue(queue), FairQueue(queue)
        self._calls: list[Callable[[], None]] = []
        self._changed = threading.Condition()
        self._closing = False
        self._rate = 0.0  # rows a second, lately
        self._answered, self._busy = 0, 0.0  # rows and seconds that are not in it yet
        self.batch_seconds = {"labels": 0.0, "texts": 0.0}  # of the last batch of each kind
        metrics.waiting.set_function(self._waiting)
        self._thread = threading.Thread(target=self._run, name="ptune-lm", daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Let the rows of a request wait for their turn, all of them or none.

        Raises:
            Problem: too many rows wait already, or the server is stopping.
        """
        queue = self.text_queue if jobs[0].writes else self.label_queue
        with self._changed:
            if self._closing:
                raise Problem(
                    503,
                    "The server is stopping",
                    "The server is being stopped.",
                    field=None,
                    retry_after=5,
                )
            try:
                queue.put(jobs)
            except QueueFull:
                raise self._full(len(queue)) from None
            self._changed.notify()

    def call(self, work: Callable[[], Result]) -> "Future[Result]":
        """Do some work in the thread of the LM, between two batches or two tokens."""
        future: Future[Result] = Future()

        def done() -> None:
            if not future.set_running_or_notify_cancel():
                return  # nobody waits for it
            try:
                result = work()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._changed:
            self._calls.append(done)
            self._changed.notify()
        return future

    @property
    def is_alive(self) -> bool:
        """Whether the thread of the LM runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Take no more rows, answer those that wait, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def abandon(self) -> None:
        """Answer no more rows that wait."""
        with self._changed:
            jobs = [*self.label_queue.clear(), *self.text_queue.clear()]
        for job in jobs:
            job.fail(overlong())

    def _run(self) -> None:
        while self._await_work():
            try:
                self._work()
            except Exception as error:  # the thread must live, whatever a batch did
                log.error("The thread of the LM met a fault: %s", _frames(error))

    def _work(self) -> None:
        """One round: what is asked of the thread, a batch of labels, and a batch of texts."""
        self._do_calls()
        if self.label_queue:
            self._score_some(self.rows)
        if self.text_queue:
            self._write_some()

    def _await_work(self) -> bool:
        """Wait until there is work; False when there will be none any more."""
        with self._changed:
            idle = False
            while not (self.label_queue or self.text_queue or self._calls):
                if self._closing:
                    return False
                idle = True
                self._changed.wait()
            if idle:
                self._await_others()
        return True

    def _await_others(self) -> None:
        """Let the rows of a batch come together: as long as each comes within ``wait`` seconds of
        the one before, they are worth a share of the time that they would wait for the next
        batch."""
        end = time.monotonic() + max(self.wait, self._worth_waiting())
        waiting = 0
        while (now := self._waiting()) > waiting and time.monotonic() < end:
            full = max(len(self.label_queue), len(self.text_queue)) >= self.rows
            if full or self._calls or self._closing:
                return
            waiting = now
            self._changed.wait(self.wait)

    def _waiting(self) -> int:
        return len(self.label_queue) + len(self.text_queue)

    def _worth_waiting(self) -> float:
        """Seconds; where both kinds wait, those of the kind whose batches are the shorter."""
        queues = {"labels": self.label_queue, "texts": self.text_queue}
        seconds = (self.batch_seconds[kind] for kind, queue in queues.items() if queue)
        return SHARE * min(seconds, default=0.0)

    def _do_calls(self) -> None:
        with self._changed:
            calls, self._calls = self._calls, []
        for call in calls:
            call()

    def _score_some(self, most: int) -> None:
        assert self.engine is not None
        with self._changed:
            jobs = self.label_queue.take(most)
        with _failing(jobs):
            for batch in self.engine.label_batches(self._prepared(jobs)):
                self._run_batch("labels", batch, self.engine.score)

    def _write_some(self) -> None:
        engine = self.engine
        assert engine is not None
        with self._changed:
            jobs = self.text_queue.take(self.rows)
        with _failing(jobs):
            jobs = self._prepared(jobs)
            batch = engine.text_batch(jobs) if jobs else []
            with self._changed:
                self.text_queue.put_back([job for job in jobs if job not in batch])
        if batch and engine.joins:
            self._write_with_joiners(engine, batch)
        elif batch:
            self._run_batch("texts", batch, lambda some: engine.write(some, self._between_tokens))

    def _write_with_joiners(self, engine: BatchEngine, jobs: list[Job]) -> None:
        """Write texts, and with them those that come meanwhile."""
        clock = _Clock()

        def between() -> None:
            took = clock.lap()
            self.metrics.ran("texts", len(jobs), took)
            present = [job for job in jobs if job.is_wanted]
            self._took(len(jobs) - len(present), took)
            jobs[:] = present
            self._between_tokens()
            clock.lap()

        def more(fits: Callable[[Job], bool]) -> Job | None:
            if (job := self._next_text(fits)) is not None:
                self.metrics.read("texts", [job])
                jobs.append(job)
            return job

        self.metrics.read("texts", jobs)
        # an engine keeps those that it was given, by their places, while they leave this list
        self._run_apart_if_it_fails(
            jobs, lambda some: engine.write(tuple(some), between, more if some is jobs else nobody)
        )

    def _next_text(self, fits: Callable[[Job], bool]) -> Job | None:
        """The text whose turn it is, if it fits; else it stays the next one, so that the time
        comes when it does."""
        while self.text_queue:
            with self._changed:
                jobs = self.text_queue.take(1)
            with _failing(jobs):
                for job in self._prepared(jobs):
                    if fits(job):
                        return job
                    with self._changed:
                        self.text_queue.put_back([job])
                    return None
        return None

    def _between_tokens(self) -> None:
        """Answer what has come while a text is written. It runs as if nothing else did: what the
        call of the LM around it has set is not set here."""
        if self._calls or (self.label_queue and not self._switches):
            contextvars.Context().run(self._do_between)

    def _do_between(self) -> None:
        self._do_calls()
        if self.label_queue and not self._switches:
            self._score_some(ROWS_BETWEEN)

    @property
    def _switches(self) -> bool:
        """Whether the LM keeps a state of its last call, so that no other may come between."""
        return self.engine is not None and bool(self.engine.lm.switches)

    def _prepared(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs that are ready for the LM; the others are answered by what is wrong with
        them."""
        ready = []
        for job in jobs:
            if job.is_late:
                job.fail(overlong())
            elif job.is_wanted and (job.examples or self._prepare(job)):
                ready.append(job)
        return ready

    def _prepare(self, job: Job) -> bool:
        assert self.prompts is not None and self.engine is not None
        try:
            job.loaded = self.prompts.get(job.prompt)
        except KeyError:
            job.fail(unknown_prompt(job.prompt, job.prompt_place))
            return False
        except Problem as problem:
            job.fail(problem)
            return False
        try:
            self.engine.prepare(job)
        except Exception as error:
            job.fail(problem_of(error, job))
            return False
        return True

    def _run_batch(
        self, kind: str, jobs: Sequence[Job], run: Callable[[Sequence[Job]], None]
    ) -> None:
        clock = _Clock()
        self._run_apart_if_it_fails(jobs, run)
        took = self.batch_seconds[kind] = clock.lap()
        self._took(len(jobs), took)
        self.metrics.read(kind, jobs)
        self.metrics.ran(kind, len(jobs), took)

    def _took(self, rows: int, seconds: float) -> None:
        """Take note of how fast rows are answered."""
        self._answered, self._busy = self._answered + rows, self._busy + seconds
        if rows:
            self._rate = 0.8 * self._rate + 0.2 * self._answered / self._busy
            self._answered, self._busy = 0, 0.0

    def _run_apart_if_it_fails(
        self, jobs: Sequence[Job], run: Callable[[Sequence[Job]], None]
    ) -> None:
        """Run jobs together; where that fails each alone, so that only the broken ones fail."""
        try:
            run(jobs)
        except Exception as error:
            failed = list(jobs)
            for job in failed:
                if not job.is_wanted:
                    continue
                if len(failed) == 1 or job.on_text is not None:
                    job.fail(problem_of(error, job))
                else:
                    self._run_apart_if_it_fails([job], run)

    def _full(self, waiting: int) -> Problem:
        seconds = waiting / self._rate if self._rate else 1.0
        return Problem(
            429,
            "Too many rows wait",
            f"{waiting} rows wait already, and this request's would be too many.",
            retry_after=min(LONGEST_WAIT, max(1, math.ceil(seconds))),
        )


class _Clock:
    """Seconds from one lap to the next."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def lap(self) -> float:
        now = time.monotonic()
        took, self.began = max(now - self.began, 1e-6), now
        return took


def problem_of(error: BaseException, job: Job) -> Problem:
    """What is told of a fault in a row."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, DivergedError):
        return Problem(500, "No finite scores", str(error), field=job.prompt_place)
    if isinstance(error, PtuneError):
        return refused(str(error), job.place)
    log.error("A row of %s failed: %s", job.prompt, _frames(error))
    return internal()


def _frames(error: BaseException) -> str:
    """The kind of an error and where it came from, without its message, which may hold texts."""
    return f"{type(error).__name__}\n" + "".join(traceback.format_tb(error.__traceback__))


@contextlib.contextmanager
def _failing(jobs: Sequence[Job]) -> Iterator[None]:
    """While this is open, a fault is told to all of these jobs."""
    try:
        yield
    except Exception:
        for job in jobs:
            job.fail(internal())
        raise


def unknown_prompt(name: str, field: str) -> Problem:
    """The answer to a prompt that is not there, or not for whoever asks."""
    return Problem(
        404, "No such prompt", f"There is no prompt {name[:100]!r} for you here.", field=field
    )
