"""Tables of any size: the files of a folder are answered piece by piece, each into a file of its
own.

``manifest.jsonl`` in the folder of the answers names each file that is whole: the rows that it is
of, how many it holds, those that were left out, and a hash of its content. A run that was killed
goes on behind the last of them.
"""

import contextlib
import itertools
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from ptune.base.progress import Progress
from ptune.data.formats.columnar import COLUMNAR
from ptune.data.formats.header import TABLES
from ptune.data.row import FileRow
from ptune.data.shards.answers import checker, write_answers
from ptune.data.shards.listing import ENDINGS, ShardFile, passed_over, shard_files
from ptune.data.shards.pieces import Piece, check_same_columns, columnar_pieces, pieces
from ptune.errors import ConfigError, DataError, PtuneError, StoreError
from ptune.experiments.answering.streams import unfinished_answers
from ptune.experiments.answering.streams.answer_batches import (
    SKIPPING,
    Answering,
    AnswerRun,
    options_for,
)
from ptune.model.prompt_model import Row
from ptune.runs import identity
from ptune.runs.folder import working_in
from ptune.survey.findings import rows_in_words

MANIFEST = "manifest.jsonl"
SHARD_ROWS = 16_384  # where nothing else is asked for
ReadPiece = tuple[Piece, Sequence[str]]
"""Rows, and what was wrong with lines that were met on the way to them."""
OF_A_LINE = re.compile(r"\bline \d")  # in a message about one row


def check(run: AnswerRun) -> None:
    """Refuse, before an LM is loaded, rows that are not a table of files, and folders that their
    answers cannot go to.

    Raises:
        ConfigError: the reason.
        DataError: the files cannot be read, or do not have the same columns.
    """
    if run.data is None:
        raise ConfigError(
            "A folder of answers is of rows in files: name them with --data, or give --out the "
            "name of a .jsonl file."
        )
    if run.overwrite:
        raise ConfigError(
            f"--overwrite replaces a file, and {run.out} is a folder's name: choose another "
            "--out, or remove the folder."
        )
    assert run.out is not None
    within = pathlib.Path(run.data)
    if within.is_dir() and run.out.resolve().is_relative_to(within.resolve()):
        raise ConfigError(
            f"The rows are all files in {run.data}, and --out {run.out} would add others: "
            "choose a folder beside it."
        )
    check_same_columns(shard_files(run.data))


@dataclass
class Manifest:
    """The files of answers that are whole, written down one by one.

    Attributes:
        records: what was written down.
    """

    folder: pathlib.Path
    records: list[dict[str, Any]] = field(default_factory=list)

    def read(self) -> None:
        """Take up what an earlier run wrote down; a line that a kill cut short is dropped.

        Raises:
            StoreError: a file is not as it was written down.
        """
        path = self.folder / MANIFEST
        if not path.exists():
            return
        whole = path.read_bytes()
        whole = whole[: whole.rfind(b"\n") + 1]
        self.records = [json.loads(line) for line in whole.splitlines()]
        os.truncate(path, len(whole))
        for record in self.records:
            if record["file"] is None:
                continue
            file = self.folder / record["file"]
            if not file.exists() or identity.of_file(file) != record["sha256"]:
                raise StoreError(
                    f"{file} is {'changed' if file.exists() else 'gone'} since it was written: put "
                    "it back, or begin anew with another --out."
                )

    def add(self, record: Mapping[str, Any]) -> None:
        """Write down a file that is whole."""
        with open(self.folder / MANIFEST, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.records.append(dict(record))

    def finished(self, name: str) -> list[dict[str, Any]]:
        """The records of the pieces of a file of rows."""
        return [record for record in self.records if record["from"] == name]

    @property
    def rows(self) -> int:
        """How many rows were read."""
        return sum(record["rows"] + len(record["left_out"]) for record in self.records)


@dataclass(frozen=True)
class AnsweredPiece:
    """A piece of rows with its answers.

    Attributes:
        put: writes the answers to a file, whole or not at all.
        count: how many there are.
        left_out: what was wrong with the other rows.
    """

    piece: Piece
    put: Callable[[pathlib.Path], None]
    count: int
    left_out: Sequence[str]


class Workers(Protocol):
    """Processes that answer pieces."""

    def started(self) -> contextlib.AbstractContextManager[None]:
        """They run while this is open."""

    def answers(
        self, answering: Answering, pieces: Iterator[ReadPiece], ending: str
    ) -> Iterator[AnsweredPiece]:
        """The answers to pieces, in their order, as ``answers_here`` gives them."""


def answer(
    answering: Answering, report: Callable[[str], None], workers: Workers | None = None
) -> None:
    """Answer all files of a table.

    Args:
        workers: what answers the pieces, in the place of this process.

    Raises:
        ConfigError: the folder holds another run, or the rows have changed since it was begun.
        DataError: a row, or a file, is at fault.
    """
    run = answering.run
    assert run.data is not None and run.out is not None
    table = shard_files(run.data)
    total = check_same_columns(table)
    _check_first_rows(answering, run.data, table)
    with working_in(run.out, run.command, run.resume) as folder:
        whole = unfinished_answers.identity_of(run, answering.model)
        folder.claim({**whole, "shard rows": rows_of_a_file(run), "rows": _hashes(table)})
        manifest = Manifest(run.out)
        manifest.read()
        progress = _progress(table, total, manifest)
        with _kept(run.out, manifest), _started(workers), progress:
            for file in table:
                for rows in _answer_file(answering, file, manifest, workers):
                    progress.advance(rows if total else 0)
                progress.advance(0 if total else 1)
    answering.report(report)
    if names := passed_over(run.data):
        report(f"Not read, since a name begins with a dot or a line: {', '.join(names)}")
    left_out = sum(len(record["left_out"]) for record in manifest.records)
    if left_out:
        report(f"{rows_in_words(left_out)} left out: {run.out / MANIFEST} says why.")
    answered_rows = sum(record["rows"] for record in manifest.records)
    parts = sum(record["file"] is not None for record in manifest.records)
    report(f"{rows_in_words(answered_rows)} answered, in {parts} files: {run.out}")


def _started(workers: Workers | None) -> contextlib.AbstractContextManager[None]:
    return workers.started() if workers else contextlib.nullcontext()


def rows_of_a_file(run: AnswerRun) -> int:
    """How many rows a file of answers has at most."""
    return run.shard_rows or SHARD_ROWS


def _progress(table: list[ShardFile], total: int | None, manifest: Manifest) -> Progress:
    """A bar over the rows, or over the files where these do not say how many rows they have."""
    return Progress("rows", total, manifest.rows) if total else Progress("files", len(table))


def _hashes(table: list[ShardFile]) -> dict[str, str]:
    """A hash of each file's content; of one that is elsewhere, of what its system says of it."""
    return {
        file.name: file.system.ukey(file.path)
        if file.system
        else identity.of_file(pathlib.Path(file.path))
        for file in table
    }


def _check_first_rows(answering: Answering, data: str, table: list[ShardFile]) -> None:
    """Refuse, before the first step, files that lack what the prompt reads, and tables with other
    columns than the first one has. Files that are elsewhere are looked into when their turn comes.

    Raises:
        PtuneError: a file is at fault; it and the line are told.
    """
    columns: list[str] | None = None
    for file in table:
        if file.system is not None:
            continue
        if not pathlib.Path(file.path).stat().st_size:
            raise DataError(f"{file.name} is empty: mend it, or take it out of {data}.")
        piece = next(_pieces(answering, file, pathlib.Path(file.path), 1), None)
        if piece is None:
            continue
        row = piece.rows[0]
        columns = list(row) if columns is None else columns
        if file.ending in TABLES and list(row) != columns:
            raise DataError(
                f"{file.name} has the columns {', '.join(row)}, and {table[0].name} has "
                f"{', '.join(columns)}: all files of a table have the same."
            )
        with contextlib.suppress(*(() if answering.skipped is None else (PtuneError,))):
            answering.encoded(row, 1)
    answering.take_skipped()


def _answer_file(
    answering: Answering, file: ShardFile, manifest: Manifest, workers: Workers | None
) -> Iterator[int]:
    """Answer the pieces of a file that have no answers yet; yield the number of rows of each."""
    finished, size = manifest.finished(file.name), rows_of_a_file(answering.run)
    if finished and finished[-1]["rows_read"] < size:
        return
    answers, ending = workers.answers if workers else answers_here, ENDINGS[file.ending]
    with file.on_disk() as path:
        read = _read_pieces(answering, file, path, size)
        for answered in answers(answering, itertools.islice(read, len(finished), None), ending):
            name = f"part-{len(manifest.records):06d}{ending}"
            part = manifest.folder / name if answered.count else None
            if part:
                answered.put(part)
            manifest.add(_record(file, answered, part))
            yield len(answered.piece.rows)
    if left_out := answering.take_skipped():  # lines behind the last row
        manifest.add(_record(file, AnsweredPiece(Piece(()), _nothing, 0, left_out), None))


def _nothing(path: pathlib.Path) -> None:
    """Write no answers."""


def _read_pieces(
    answering: Answering, file: ShardFile, path: pathlib.Path, size: int
) -> Iterator[ReadPiece]:
    """The pieces of a file, each with what was wrong with lines on the way to it."""
    for piece in _pieces(answering, file, path, size):
        yield piece, answering.take_skipped()


def _pieces(
    answering: Answering, file: ShardFile, path: pathlib.Path, size: int
) -> Iterator[Piece]:
    """The rows of a file in pieces of ``size``."""
    if file.ending in COLUMNAR:
        return columnar_pieces(
            path, options_for(path, answering.run.options, answering.layout), size
        )
    return pieces(answering.rows_of(path), size)


def answers_here(
    answering: Answering, pieces: Iterator[ReadPiece], ending: str
) -> Iterator[AnsweredPiece]:
    """The answers to pieces, in their order.

    Args:
        ending: of the files of answers.

    Raises:
        PtuneError: a piece cannot be read or answered; those before it were yielded.
    """
    separator = answering.layout.label_separator
    for piece, left_out in pieces:
        answers: list[tuple[Row, Mapping[str, Any]]] = []
        for batch in answering.batches(piece.rows, checker(ending), once=True):
            answers += answering.answers(batch, answering.count(batch))
        put = partial(write_answers, piece=piece, answers=answers, label_separator=separator)
        left_out = [*left_out, *answering.take_skipped()]
        yield AnsweredPiece(piece, put, len(answers), left_out)


def _record(file: ShardFile, answered: AnsweredPiece, path: pathlib.Path | None) -> dict[str, Any]:
    """What is written down of a piece that was answered.

    Args:
        path: the file of the answers; None where no row of the piece has one.
    """
    lines = [row.line for row in answered.piece.rows if isinstance(row, FileRow)]
    return {
        "file": path.name if path else None,
        "from": file.name,
        "lines": [lines[0], lines[-1]] if lines else [],
        "rows_read": len(answered.piece.rows),
        "rows": answered.count,
        "left_out": list(answered.left_out),
        "sha256": identity.of_file(path) if path else None,
    }


@contextlib.contextmanager
def _kept(folder: pathlib.Path, manifest: Manifest) -> Iterator[None]:
    """Say with a fault that ends the block what is finished.

    Raises:
        PtuneError: the fault.
    """
    try:
        yield
    except PtuneError as error:
        hint = SKIPPING if OF_A_LINE.search(str(error)) and SKIPPING not in str(error) else ""
        if not manifest.records:
            raise type(error)(f"{error}{hint}") from error
        raise type(error)(
            f"{error}{hint} The answers to {rows_in_words(manifest.rows)} before are in {folder}; "
            "--resume goes on behind them."
        ) from error
