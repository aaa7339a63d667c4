"""Where answers go: to standard output, or into a file that grows beside its name, and that a run
which was stopped goes on with.

Beside ``answers.jsonl.partial`` stands ``answers.jsonl.partial.json``, which says what decides the
answers: the prompts, the LM, the options. A run of others does not go on there, nor one whose first
rows are others.
"""

import contextlib
import io
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from filelock import FileLock, Timeout

from ptune.base import files
from ptune.base.file_names import partial_file, partial_note
from ptune.data import answer_files
from ptune.errors import ConfigError, DataError, StoreError
from ptune.experiments.answering.streams.answer_batches import AnswerRun, options_for
from ptune.model.prompt_model import PromptModel, Row
from ptune.model.running.token_answers import labels_of
from ptune.runs import identity
from ptune.storage import prompt_folder
from ptune.tasks.layouts import conll


class Finished:
    """The answers that an earlier run finished, in whole batches.

    Attributes:
        count: how many there are.
        size: the bytes that they take.
        used: how many of their rows were met.
    """

    def __init__(self, out: pathlib.Path | None = None, most: int = 1):
        self.out, self.count, self.size, self.used = out, 0, 0, 0
        self.records: Iterator[tuple[str, int]] = iter(())
        self.writer: answer_files.Writer | None = None
        self.header_is_next = out is not None and out.suffix in answer_files.DELIMITERS
        if out is None:
            return
        for number, (_, end) in enumerate(
            answer_files.records(out), 0 if self.header_is_next else 1
        ):
            if number and number % most == 0:
                self.count, self.size = number, end
        self.records = answer_files.records(out)

    def takes(self, rows: Sequence[Row]) -> bool:
        """Whether the next rows have their answers already.

        Raises:
            DataError: the answers that stand there are of other rows.
        """
        if self.used == self.count:
            return False
        for row in rows:
            if self.header_is_next:
                self._compare(row)
                self.header_is_next = False
            self._compare(row)
        self.used += len(rows)
        return True

    def _compare(self, row: Row) -> None:
        record = next(self.records, ("", 0))[0]
        if self.writer is None or not self.writer.has(row, record):
            raise self._other_rows()

    def check_used(self) -> None:
        """Refuse to end before all of them were met.

        Raises:
            DataError: there are fewer rows than answers.
        """
        if self.used < self.count:
            raise self._other_rows()

    def _other_rows(self) -> DataError:
        assert self.out is not None
        return DataError(
            f"The answers in {partial_file(self.out)} are of other rows: give the rows that they "
            "are of, or leave --resume out to begin anew."
        )


@contextlib.contextmanager
def opened(
    run: AnswerRun, model: PromptModel, most: int
) -> Iterator[tuple[TextIO, answer_files.Writer, Finished]]:
    """The stream that answers go to, what writes them there, and those that are finished.

    Args:
        most: how many rows a batch has.

    Raises:
        ConfigError: there is nothing to go on with, or it is of another prompt, LM or option;
            another process writes there.
        StoreError: the file cannot be written.
    """
    if run.out is not None and answer_files.is_conll(run.out):
        answers = _conll(run, model)
        yield io.StringIO(), answers, Finished()
        files.write_text(run.out, answers.text)
        return
    if run.out is None:
        if run.resume:
            raise ConfigError("--resume goes on with a file of answers: give --out too.")
        yield sys.stdout, answer_files.writer(None, sys.stdout), Finished()
        return
    separator = model.tasks[0].task.layout.label_separator
    partial, note = partial_file(run.out), partial_note(run.out)
    with _held(partial):
        whole = identity_of(run, model)
        finished = Finished()
        if run.resume:
            _check_same(run.out, note, whole)
            finished = Finished(run.out, most)
        files.write_json(note, whole)
        try:
            with files.streaming(run.out, finished.size) as stream:
                finished.writer = answer_files.writer(run.out, stream, separator)
                yield stream, finished.writer, finished
        finally:
            if not partial.exists():
                note.unlink(missing_ok=True)


def _conll(run: AnswerRun, model: PromptModel) -> conll.Answers:
    """What writes answers as a CoNLL file, whole when all rows are answered."""
    path = pathlib.Path(run.data or "")
    names = {name for task in range(len(model.tasks)) for name in labels_of(model, task).labels}
    return conll.Answers(
        path, options_for(path, run.options, model.tasks[0].task.layout), sorted(names)
    )


@contextlib.contextmanager
def _held(partial: pathlib.Path) -> Iterator[None]:
    """Keep other processes from writing the same answers."""
    lock = FileLock(partial.with_name(f".{partial.name}.lock"), blocking=False)
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise ConfigError(
            f"Another process is writing {partial}: wait until it has ended, or choose another "
            "--out."
        ) from error
    except OSError as error:
        raise StoreError(
            f"{partial.with_suffix('')} cannot be written: {error.strerror or error}."
        ) from error
    try:
        yield
    finally:
        pathlib.Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def identity_of(run: AnswerRun, model: PromptModel) -> dict[str, Any]:
    """All that decides the answers but the rows."""
    parts = [
        folder / name
        for folder in prompt_folder.folders_in(run.prompt)
        for name in ("prompt.json", "prompt.safetensors")
    ]
    whole = {
        "command": run.command,
        "prompts": [identity.of_file(part) for part in parts if part.exists()],
        "lm": identity.of_lm(model.lm),
        "device": model.lm.device.type,
        **identity.with_contents(run.deciding),
        "versions": identity.versions(),
    }
    return json.loads(json.dumps(whole))


def _check_same(out: pathlib.Path, note: pathlib.Path, whole: Mapping[str, Any]) -> None:
    """Refuse to go on with what is not there, or with answers that others would follow.

    Raises:
        ConfigError: it is so; what differs is named.
        StoreError: the note is damaged.
    """
    partial = partial_file(out)
    if not partial.exists() or not note.exists():
        is_whole = f" {out} is there, and whole." if out.exists() else ""
        raise ConfigError(
            f"There is no {partial} to go on with: leave --resume out to begin.{is_whole}"
        )
    before = files.read_json(note)
    if not isinstance(before, dict):
        raise ConfigError(f"{note} does not say what the answers are of: leave --resume out.")
    if changed := identity.differing(before, whole):
        raise ConfigError(
            f"The answers in {partial} were given with another {', '.join(changed)}: go on with "
            "the same, or leave --resume out to begin anew."
        )
