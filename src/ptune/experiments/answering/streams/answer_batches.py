"""Rows answered batch by batch, whatever they come from and wherever the answers go."""

import pathlib
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ptune.data.formats.header import TABLES
from ptune.data.formats.table_rows import columns_of
from ptune.data.row import place_of
from ptune.data.row_files import form_of, is_utf8
from ptune.data.rows import JSON
from ptune.errors import DataError, PtuneError
from ptune.experiments.answering.streams.equal_rows import Asked, EqualRows, Question
from ptune.model.prompt_model import Example, PromptModel, Row
from ptune.model.rows.examples import Shortening
from ptune.settings import FileConfig, Form, LayoutConfig
from ptune.survey.text_checks.unknown_text import UnknownRows, of_row
from ptune.tasks.layouts.forms import iterate

REPEATS = 64  # so many times as many rows share a batch where they repeat others
SKIPPING = " --skip-bad-lines leaves such rows out, and says which."


@dataclass(frozen=True, kw_only=True)
class AnswerRun:
    """Which rows are answered, and where the answers go.

    Attributes:
        command: "ptune predict", or another that answers rows.
        prompt: the folder of the saved prompts.
        data: a file, a folder, a pattern or a URL; None for standard input.
        form: the layout of the rows, where one is asked for.
        options: how files are read, where that is asked for.
        out: a file or a folder; None for standard output.
        shard_rows: how many rows a file in such a folder has at most, where that is asked for.
        explain: rows are marked by what of them was not read.
        deciding: the options that decide the answers (``identity.deciding``).
    """

    command: str
    prompt: pathlib.Path
    data: str | None
    form: Form | None
    options: FileConfig
    out: pathlib.Path | None
    shard_rows: int | None
    resume: bool
    overwrite: bool
    explain: bool
    skip_bad_lines: bool
    deciding: Mapping[str, Any]


class Answered(Protocol):
    """Answers a batch: for each row, which is one example for each prompt that takes it, what is
    put out beside it."""

    def __call__(self, batch: list[list[Example]]) -> Iterator[dict[str, Any]]: ...


@dataclass
class Noted:
    """What is noted of rows while they are answered.

    Attributes:
        abstained: how many rows were answered by no label (``--at-least``).
        messages: what was wrong with rows that were left out.
        files: what was decided about files.
    """

    shortening: Shortening = field(default_factory=Shortening)
    unknown: UnknownRows = field(default_factory=UnknownRows)
    abstained: int = 0
    messages: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def merge(self, other: "Noted") -> None:
        """Take what was noted of rows behind these, but for the messages, which are of a piece."""
        self.shortening.merge(other.shortening)
        self.unknown.merge(other.unknown)
        self.abstained += other.abstained
        self.files += other.files


class Answering:
    """How rows are answered, and what is noted of them meanwhile.

    Args:
        repeats: rows that say the same have the same answer, as all do but drawn texts.
        parts: the columns of an answer in a table (``answer_files.cells``).

    Attributes:
        answered: answers a batch.
        room: the tokens of an answer, for which each row leaves room.
        most: the rows of a batch, those that repeat others aside.
        noted: what is noted of the rows.
    """

    def __init__(
        self,
        run: AnswerRun,
        model: PromptModel,
        answered: Answered,
        *,
        room: int,
        most: int,
        repeats: bool,
        parts: Sequence[str],
    ):
        marks = ("shortened", "unknown") if run.explain else ()
        self.parts = (*parts, *marks)
        self.run, self.model, self.answered = run, model, answered
        self.room, self.most, self.noted = room, most, Noted()
        self.equal_rows = EqualRows(model) if repeats else None
        self.layout = model.tasks[0].task.layout

    @property
    def skipped(self) -> list[str] | None:
        """What was wrong with the rows that were left out; None where none may be."""
        return self.noted.messages if self.run.skip_bad_lines else None

    def take_noted(self) -> Noted:
        """What was noted since this was called before."""
        noted, self.noted = self.noted, Noted()
        return noted

    def rows_of(self, path: pathlib.Path) -> Iterator[Any]:
        """The rows of a file, read as the prompt's own files were where nothing else is asked
        for."""
        options = options_for(path, self.run.options, self.layout)
        return in_form(
            self.layout,
            self.run.form,
            lambda form: iterate(
                path, form, skipped=self.skipped, options=options, notes=self.noted.files
            ),
        )

    def columns_of(self, path: pathlib.Path) -> list[str]:
        """The columns of a table; none of a file of another form.

        Raises:
            DataError: it cannot be read.
        """
        options = options_for(path, self.run.options, self.layout)
        is_table = form_of(path) in TABLES or options.separator
        if (self.run.form or self.layout.form) != "rows" or not is_table:
            return []
        return [(options.rename or {}).get(name, name) for name in columns_of(path, options)]

    def take_skipped(self) -> list[str]:
        """What was wrong with rows, which is forgotten here."""
        messages = list(self.noted.messages)
        self.noted.messages.clear()  # which what reads a file holds too
        return messages

    def encoded(self, row: Row, number: int) -> list[Example]:
        """A row, tokenised for the prompts that take it."""
        return self.model.encode_for(row, number, labelled=False, room=self.room)

    def batches(
        self, rows: Iterable[Row], check: Callable[[Row], None], once: bool = False
    ) -> Iterator[list[Asked]]:
        """Rows in batches, tokenised for the prompts that take them. A bad row is skipped, or ends
        it, but never before the rows ahead of it are given out.

        Args:
            check: refuses a row that cannot be put out with an answer.
            once: rows that say the same are one question (``EqualRows``), which is kept until the
                last row; for rows that are answered together or not at all.
        """
        batch: list[Asked] = []
        questions: dict[Hashable, Question] = {}
        new = 0
        fault: PtuneError | None = None
        numbered = enumerate(rows, 1)
        while fault is None:
            try:
                number, row = next(numbered)
            except StopIteration:
                break
            except PtuneError as error:
                of_a_line = isinstance(error, DataError) and re.search(r"\bline \d", str(error))
                fault = _with_advice(error) if of_a_line else error
                break
            try:
                check(row)
                key = self.equal_rows.key(row) if once and self.equal_rows else None
                question = questions.get(key)
                if question is None:
                    question = self._question(row, number)
                    new += 1
                if key is not None:
                    questions[key] = question
                batch.append(Asked(row, question))
            except PtuneError as error:
                if self.skipped is None:
                    fault = _with_advice(error)
                else:
                    self.skipped.append(str(error))
            if new == self.most or len(batch) == self.most * REPEATS:
                yield batch
                batch, new = [], 0
        if batch:
            yield batch
        if fault is not None:
            raise fault

    def _question(self, row: Row, number: int) -> Question:
        examples = self.encoded(row, number)
        first = examples[0]
        text = " ".join(self.model.tasks[first.task].template.texts(row).values())
        unread = of_row(text, first.fills[0].ids, self.model.lm.tokens)
        return Question(examples, text, max(example.cut for example in examples), unread)

    def count(self, batch: Sequence[Asked]) -> list[float]:
        """Count the tokens that were left out of a batch's rows, and those that the LM does not
        know; return for each row the share of its text that cannot be read."""
        return [self._count(asked.row, asked.question) for asked in batch]

    def _count(self, row: Row, question: Question) -> float:
        self.noted.shortening.add(question.cut)
        place = place_of(row, self.noted.unknown.all.texts + 1)
        return self.noted.unknown.count(question.text, question.unread, place)

    def answers(
        self, batch: Sequence[Asked], shares: Sequence[float]
    ) -> Iterator[tuple[Row, Mapping[str, Any]]]:
        """The rows of a batch, each with all that is put out beside it.

        Args:
            shares: as ``count`` returned them.
        """
        open_ones = {
            id(asked.question): asked.question for asked in batch if asked.question.is_open
        }
        examples = [question.examples for question in open_ones.values()]
        for question, given in zip(open_ones.values(), self.answered(examples) if examples else ()):
            question.close(given)
        for asked, share in zip(batch, shares):
            cut, answer = asked.question.cut, asked.question.answer
            self.noted.abstained += answer.get("prediction", "") is None
            marks = {"shortened": cut, "unknown": round(share, 4)} if self.run.explain else {}
            yield asked.row, {**answer, **marks}

    def report(self, report: Callable[[str], None]) -> None:
        """Say what was noted."""
        for note in dict.fromkeys(self.noted.files):
            report(note)
        if unread := self.noted.unknown.sentence():
            report(unread)
        if shortened := self.noted.shortening.sentence("rows", self.model.limit(0)):
            report(shortened)


def _with_advice(error: PtuneError) -> DataError:
    """What is wrong with a row as whole sentences, the last of which says how it is left out."""
    message = str(error)
    return DataError(f"{message}{'' if message.endswith(('.', '?')) else '.'}{SKIPPING}")


def options_for(path: pathlib.Path, given: FileConfig, kept: FileConfig) -> FileConfig:
    """How a file is read: as is asked for, and else as the prompt's own files were, as far as that
    is for a file of this kind."""
    options = {name: getattr(kept, name) for name in FileConfig.model_fields}
    if form_of(path) in JSON:
        options |= dict.fromkeys(("separator", "quoting", "columns", "skip_lines"))
    else:
        options |= {"record_path": None}
    if options["encoding"] and is_utf8(path):
        options["encoding"] = None
    asked = {
        name: value
        for name in FileConfig.model_fields
        if (value := getattr(given, name)) is not None
    }
    return FileConfig(**{**options, **asked})


def in_form(layout: LayoutConfig, form: str | None, read: Callable[[str], Any]) -> Any:
    """Read a file in the form that is asked for, or in that of the prompt's own files."""
    try:
        return read(form or layout.form)
    except DataError as error:
        if form or layout.form == "rows":
            raise
        raise DataError(
            f"{error} The prompt was trained on files of the form {layout.form!r}; give --form "
            "rows for a file of "
            f"plain rows."
        ) from error
