"""Pieces of a table answered by workers on a Ray cluster. Each loads the LM once and stays. Rows go
to it and answers come back through the process that started it, so the machines need no common
folder but the prompt's and the LM's."""

import collections
import contextlib
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ptune.base import files
from ptune.data.shards.pieces import Piece
from ptune.errors import PtuneError
from ptune.experiments.answering.streams.answer_batches import Answering, Noted
from ptune.experiments.answering.streams.answer_shards import AnsweredPiece, ReadPiece, answers_here
from ptune.experiments.cluster.ray_cluster import Cluster, joined

AHEAD = 2  # pieces for each worker that are under way at once
TRIES = 3  # of a piece whose workers end while they answer it


@dataclass(frozen=True)
class Reply:
    """What a worker gives back of a piece.

    Attributes:
        content: the file of its answers.
        noted: what was noted of its rows.
        fault: why it could not be answered.
    """

    content: bytes = b""
    count: int = 0
    left_out: Sequence[str] = ()
    noted: Noted | None = None
    fault: PtuneError | None = None


class Worker:
    """Answers pieces in a process of its own.

    Args:
        make: makes what answers them, with the LM.
        threads: how many a worker uses.
    """

    def __init__(self, make: Callable[[], Answering], threads: int):
        self.make, self.threads = make, threads
        self.answering: Answering | None = None

    def answer(self, piece: Piece, ending: str) -> Reply:
        """The answers to a piece.

        Args:
            ending: of the file of answers.
        """
        try:
            return self._answer(piece, ending)
        except PtuneError as error:
            return Reply(fault=error)

    def _answer(self, piece: Piece, ending: str) -> Reply:
        if self.answering is None:
            import torch

            torch.set_num_threads(self.threads)
            self.answering = self.make()
        self.answering.take_noted()  # of a piece that was not answered
        (answered,) = answers_here(self.answering, iter([(piece, ())]), ending)
        content = b""
        if answered.count:
            with tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder) / f"answers{ending}"
                answered.put(path)
                content = path.read_bytes()
        noted = self.answering.take_noted()
        return Reply(content, answered.count, answered.left_out, noted)


class RayAnswers:
    """Workers on a cluster that answer pieces.

    Args:
        make: makes what answers pieces, in a worker.
        count: how many workers there are.
    """

    def __init__(self, make: Callable[[], Answering], cluster: Cluster, count: int):
        self.make, self.cluster, self.count = make, cluster, count
        self.workers: list[Any] = []

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        """The workers run while this is open.

        Raises:
            ConfigError: there is no cluster at the address.
        """
        import ray

        with joined(self.cluster):
            kind = ray.remote(
                num_cpus=self.cluster.cpus,
                num_gpus=self.cluster.gpus,
                max_restarts=-1,
                max_task_retries=TRIES,
            )(Worker)
            self.workers = [kind.remote(self.make, self.cluster.cpus) for _ in range(self.count)]
            yield

    def answers(
        self, answering: Answering, pieces: Iterator[ReadPiece], ending: str
    ) -> Iterator[AnsweredPiece]:
        """The answers to pieces, in their order. A few are under way at once; a worker that is
        killed is started again, and answers its piece anew.

        Args:
            answering: gets what is noted of the rows.
            ending: of the files of answers.

        Raises:
            PtuneError: a piece cannot be read or answered; those before it were yielded.
        """
        under_way: collections.deque[tuple[Piece, Sequence[str], Any]] = collections.deque()
        fault: PtuneError | None = None
        number, is_over = 0, False
        while True:
            while not is_over and len(under_way) < AHEAD * self.count:
                try:
                    piece, left_out = next(pieces)
                except StopIteration:
                    is_over = True
                except PtuneError as error:  # what stands before it is still to be answered
                    fault, is_over = error, True
                else:
                    worker = self.workers[number % self.count]
                    under_way.append((piece, left_out, worker.answer.remote(piece, ending)))
                    number += 1
            if not under_way:
                break
            piece, left_out, reply = under_way.popleft()
            yield _answered(answering, piece, left_out, _reply(reply))
        if fault is not None:
            raise fault


def _reply(pending: Any) -> Reply:
    """What a worker replies.

    Raises:
        PtuneError: it could not answer, or ended several times before it did.
    """
    import ray

    try:
        reply = ray.get(pending)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()
        raise PtuneError(
            f"A worker on the cluster ended {TRIES} times before it had answered its rows: "
            f"{reason[-1] if reason else type(error).__name__}"
        ) from error
    if reply.fault is not None:
        raise reply.fault
    return reply


def _answered(
    answering: Answering, piece: Piece, left_out: Sequence[str], reply: Reply
) -> AnsweredPiece:
    """A piece with what a worker replied, of which what is noted is kept."""
    if reply.noted is not None:
        answering.noted.merge(reply.noted)
    return AnsweredPiece(
        piece, partial(_write, reply.content), reply.count, [*left_out, *reply.left_out]
    )


def _write(content: bytes, path: pathlib.Path) -> None:
    def put(temporary: str) -> None:
        pathlib.Path(temporary).write_bytes(content)

    files.write(path, put)
