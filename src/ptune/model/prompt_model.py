"""Where LM, bank, templates and verbalizers meet: tasks of all kinds, trained and answered in one
batch."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.answers.extraction import Extraction
from ptune.answers.readers.reader import Reader
from ptune.answers.readers.word_reader import WordReader
from ptune.answers.word_labels import WordLabels
from ptune.base.ranks import ALONE, Ranks
from ptune.data.in_memory import rows_from
from ptune.errors import ConfigError, DataError, nearest
from ptune.lm.language_model import LanguageModel
from ptune.model import initialisation
from ptune.model.check_task import check_task
from ptune.model.rows import encode_rows
from ptune.model.rows.encode_rows import TaskChoice
from ptune.model.rows.examples import Example, ScoredExample
from ptune.model.rows.passages import PassageExample
from ptune.model.rows.words import WordsExample
from ptune.model.running import losses, scoring, token_answers
from ptune.model.running.forward import (
    PromptVectors,
    batches_of,
    fill_counts,
    prompt_vectors,
    run_examples,
)
from ptune.model.running.generate import generate as generate_texts
from ptune.model.running.label_answers import check_one_label, label_answer
from ptune.model.task import (
    BoundTask,
    Loss,
    PrefixSettings,
    Row,
    Task,
    bound_to,
    prompt_value,
)
from ptune.prompts.bank import Bank, Prefix
from ptune.prompts.encoders import Baked, Multitask, Table, is_baked
from ptune.settings import DecodingConfig, TrustConfig

__all__ = [
    "Example",
    "BoundTask",
    "PromptVectors",
    "Loss",
    "PrefixSettings",
    "PromptModel",
    "Row",
    "Task",
]
TEXT_ROWS = 16
STARTING_ROWS = 512  # the most rows that a reader starts from
SOLVED_ROWS = 2000  # the most rows that a reader is computed from


@dataclass
class PromptModel:
    """A frozen LM with any number of tasks; each has a prompt in the bank, if its template has soft
    tokens.

    Attributes:
        max_length: the most tokens of any task's inputs: the smaller one of what is given and the
            LM's own limit; None for no limit. A task may have a smaller one (``Task.max_length``).

    Relations: ``LanguageModel`` runs, ``Bank`` holds the trained values,
        ``ptune.training.loop.fit`` trains them.
    """

    lm: LanguageModel
    bank: Bank = field(default_factory=Bank)
    tasks: list[BoundTask] = field(default_factory=list)
    max_length: int | None = None
    _owners: dict[tuple[str, str], int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        limits = [limit for limit in (self.max_length, self.lm.max_length) if limit]
        self.max_length = min(limits) if limits else None

    def add(
        self,
        task: Task,
        rows: Sequence[Row] = (),
        *,
        encoder: nn.Module | None = None,
        prefix: nn.Module | None = None,
        reader: Reader | None = None,
    ) -> int:
        """Add a task, its prompt initialised; return its number.

        Args:
            rows: the task's training rows, in which the frequent tokens of ``init="vocabulary"``
                are counted, and which a reader may start from.
            encoder, prefix, reader: what makes the soft tokens [P, E] and the deep prefix [P, w],
                and what scores the labels, instead of new ones.

        Raises:
            TemplateError, VerbalizerError, ConfigError, ModelError: the task does not fit this LM.
        """
        check_task(task, self.lm)
        if task.by is not None and task.by in self._owners:
            raise ConfigError(
                f"There is a prompt for the rows whose {task.by[0]} is {task.by[1]!r} already."
            )
        with self.as_before_if_it_fails():
            return self._add(task, rows, encoder=encoder, prefix=prefix, reader=reader)

    def _add(
        self,
        task: Task,
        rows: Sequence[Row],
        *,
        encoder: nn.Module | None,
        prefix: nn.Module | None,
        reader: Reader | None,
    ) -> int:
        bound_task = bound_to(task, self.lm.tokens, self.lm.kind)
        template, verbalizer = bound_task.template, bound_task.verbalizer
        length = template.prompt_length(self.lm.tokens)
        deep = template.prefix_length(self.lm.tokens)
        _check_made(task, length, deep)
        bound = verbalizer if isinstance(verbalizer, BoundVerbalizer) else None
        if isinstance(verbalizer, WordLabels | Extraction):
            bound = verbalizer.bind({}, self.lm.tokens, template.place, self.lm.kind)
        new_reader = (reader or initialisation.reader(self.lm, task, bound)).to(self.lm.device)
        prompt = -1
        if length or deep or task.reader.is_trained or not task.reader.scores_words:
            if length and encoder is None:
                encoder = initialisation.encoder(
                    self.lm,
                    task,
                    template,
                    bound=bound,
                    length=length,
                    rows=rows,
                    shared=self._shared_table(task, length),
                )
            prompt = self.bank.add(
                encoder if length else None,
                initialisation.prefix(self.lm, task, template, prefix) if deep else None,
                new_reader,
            )
        self.tasks.append(replace(bound_task, prompt=prompt))
        number = len(self.tasks) - 1
        if task.reader.starts_from_rows and reader is None and rows:
            most = SOLVED_ROWS if task.reader.is_solved else STARTING_ROWS
            self._start_reader(number, self.encode(number, rows[:: -(-len(rows) // most)]))
        if task.by:
            self._owners[task.by] = number
        return number

    @contextlib.contextmanager
    def as_before_if_it_fails(self) -> Iterator[None]:
        """While this is open, a fault takes back the tasks that were added."""
        tasks, prompts, owners = len(self.tasks), len(self.bank), dict(self._owners)
        try:
            yield
        except BaseException:
            del self.tasks[tasks:]
            self.bank.cut(prompts)
            self._owners = owners
            raise

    def _shared_table(self, task: Task, length: int) -> Table | None:
        """The table of the task's prompt, where prompts that share it are there already: those that
        rows choose by the same field, of the same length."""
        if task.encoder != "multitask" or task.by is None:
            return None
        for other in self.tasks:
            encoder = self.bank.encoders[other.prompt] if other.prompt >= 0 else None
            is_beside = other.task.by is not None and other.task.by[0] == task.by[0]
            if is_beside and isinstance(encoder, Multitask) and len(encoder.rows) == length:
                return encoder.shared
        return None

    @property
    def evaluation_rows(self) -> int:
        """How many rows are scored at once: with more a CPU is slower, and takes more memory."""
        return 16 if self.lm.device.type == "cpu" else 64

    def reader(self, task: int) -> Reader:
        """What scores the labels of a task, with the values that it trains, if it trains any."""
        prompt = self.tasks[task].prompt
        return self.bank.readers[prompt] if prompt >= 0 else WordReader()

    def solve_reader(self, task: int, examples: Sequence[Example]) -> None:
        """Compute a task's reader from its training rows, where it is one that is computed
        (``Reader.is_solved``); its prompt has changed since."""
        if self.tasks[task].task.reader.is_solved:
            self._start_reader(task, examples[:: -(-len(examples) // SOLVED_ROWS)])

    def _start_reader(self, number: int, examples: Sequence[Example]) -> None:
        """Let the reader of a task begin at some of its training rows."""
        sizes, reader = fill_counts(examples), self.reader(number)
        inputs = []
        with torch.no_grad(), self.evaluating():
            for batch in batches_of(range(len(examples)), sizes, self.evaluation_rows):
                outputs = run_examples(self, [examples[i] for i in batch])
                inputs.append(self.tasks[number].read(reader, outputs, examples[0].labels))
        answers = [row.answer_to_start_from for row in examples if isinstance(row, ScoredExample)]
        labels = torch.tensor(answers, device=self.lm.device)
        reader.start_from(torch.cat(inputs, 1), labels)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """While this is open, all dropout is off."""
        trained = self.bank.readers.training
        self.bank.readers.eval()
        try:
            with self.lm.evaluating():
                yield
        finally:
            self.bank.readers.train(trained)

    def number(self, task: int | str) -> int:
        """The number of a task, by its name or by its number.

        Raises:
            ConfigError: there is none.
        """
        if isinstance(task, int):
            if not 0 <= task < len(self.tasks):
                raise ConfigError(
                    f"There is no task number {task} here: {len(self.tasks)} tasks are numbered "
                    "from 0."
                )
            return task
        names = [bound_task.task.name for bound_task in self.tasks]
        if task not in names:
            raise ConfigError(f"There is no task {task!r} here. {nearest(task, names)}")
        return names.index(task)

    def tasks_for(self, row: Row) -> list[int]:
        """The tasks that take the row: that of the row's user, or all, which are one or an
        ensemble.

        Raises:
            DataError: there is none.
        """
        if not self._owners:
            return list(range(len(self.tasks)))
        field_name = next(iter(self._owners))[0]
        value = prompt_value(row, field_name)
        if (field_name, value) not in self._owners:
            # Names of other users are not listed: they are not for all to know.
            raise DataError(f"The row's {field_name} is {value!r}, and there is no prompt for it.")
        return [self._owners[field_name, value]]

    def is_baked(self, task: int) -> bool:
        """Whether a task's prompt has vectors that are no longer trained, as a loaded one has."""
        prompt = self.tasks[task].prompt
        if prompt < 0:
            return False
        vectors, prefix = self.bank.encoders[prompt], self.bank.prefixes[prompt]
        return (
            isinstance(vectors, Baked)
            and bool(len(vectors()))
            or isinstance(prefix, Prefix)
            and is_baked(prefix.encoder)
        )

    def take_owners(self, other: "PromptModel") -> None:
        """Let the tasks, which are those of another model, take the rows that they take there
        (``tasks_for``)."""
        self._owners = dict(other._owners)

    @property
    def is_ensemble(self) -> bool:
        """Whether all tasks answer every row together."""
        return len(self.tasks) > 1 and not self._owners

    # Rows to examples.

    def encode(
        self,
        task: int,
        rows: Sequence[Row],
        *,
        labelled: bool = True,
        room: int = 0,
        first: int = 1,
    ) -> list[Example]:
        """Tokenise rows once. A row with several right texts is as many examples.

        Args:
            labelled: the rows hold the right label, or texts, in the task's target field.
            room: how many tokens a causal LM must be able to write behind a row, which is shortened
                for it.
            first: the number of the first row, by which a fault is told.

        Raises:
            TemplateError, DataError: a row does not fit; its number is told.
        """
        return list(
            encode_rows.encode_rows(self, task, rows, labelled=labelled, room=room, first=first)
        )

    def encode_for(
        self, row: Row, number: int, labelled: bool = True, room: int = 0
    ) -> list[Example]:
        """A row for each task that takes it (``tasks_for``); see ``encode``.

        Raises:
            TemplateError, DataError: the row does not fit, or no task takes it; its number is told.
        """
        return [
            self.encode(task, [row], labelled=labelled, room=room, first=number)[0]
            for task in encode_rows.tasks_taking(self, row, number)
        ]

    def encode_mixed(
        self,
        rows: Sequence[Row],
        tasks: TaskChoice = None,
        labelled: bool = False,
        room: int | None = 0,
    ) -> list[list[Example]]:
        """Tokenise rows of any tasks: for each row its examples, one of every task that takes it.

        Args:
            tasks: as in ``predict``.
            labelled: as in ``encode``.
            room: as in ``encode``; None for as many tokens as the row's task writes.

        Raises:
            ConfigError: there is no such task, or there are not as many tasks as rows.
            TemplateError, DataError: a row does not fit, or no task takes it; its number is told.
        """
        examples = []
        rows = rows_from(rows)
        chosen = encode_rows.chosen_tasks(self, rows, tasks)
        for number, (row, tasks_of_row) in enumerate(zip(rows, chosen), 1):
            examples_of_row = []
            for task in tasks_of_row:
                written = self.tasks[task].task.decoding.max_new_tokens if room is None else room
                examples_of_row += self.encode(
                    task, [row], labelled=labelled, room=written, first=number
                )[:1]
            examples.append(examples_of_row)
        return examples

    def hidden_words(
        self, task: int, rows: Sequence[Row], generator: torch.Generator
    ) -> list[Example]:
        """Rows without labels as auxiliary examples of a masked LM: some of the tokens of their
        texts are hidden, to be told (PET, section 3.2). Of those, eight in ten are masks, one is
        another token, one stays (BERT, section 3.1). A row with no token that could be hidden is
        left out.

        Raises:
            ConfigError: the LM is no masked one.
            TemplateError: a row does not fit.
        """
        return encode_rows.hidden_words(self, task, rows, generator)

    def limit(self, task: int) -> int | None:
        """The most tokens of a task's inputs; None for no limit."""
        return encode_rows.input_limit(self, self.tasks[task])

    # Examples to losses and scores.

    def losses(
        self, examples: Sequence[Example], learned: PromptVectors | None = None
    ) -> torch.Tensor:
        """The loss of each example [B]: minus the log probability of the right answer, of a text
        the sum over its tokens (Prefix-Tuning, equation 2); of labels' shares, how far the scores
        are from them. One call of the LM for all, whatever their tasks."""
        return losses.losses(self, examples, learned)

    def backward(
        self,
        examples: Sequence[Example],
        weights: Sequence[float],
        sizes: Sequence[int] = (),
        ranks: Ranks = ALONE,
    ) -> torch.Tensor:
        """Weigh the losses of examples, and add the gradient of their sum to all that is trained:
        the weighted losses [B]. The prompts' encoders run once; on a CPU a large batch runs in
        parts, which is faster there and takes less memory.

        A loss that couples the rows of its task gets all of them, however the batch is cut; the
        LM's values for those rows are then kept until the last has run.

        Args:
            sizes: how many examples, in order, the LM runs at once at most; all by default.
            ranks: the processes that call this together with the same; each runs its share of the
                examples, and all get the gradient of the whole. What is summed is the gradient of
                the soft tokens and prefixes, before it goes to the larger encoders.
        """
        return losses.backward(self, examples, weights, sizes=sizes, ranks=ranks)

    @torch.no_grad()
    def scores(
        self, examples: Sequence[Example], rows: int | None = None, finite: bool = True
    ) -> list[torch.Tensor]:
        """The label scores of each example [C], on the CPU: log probabilities, not normalised over
        the labels. Examples of like length share a batch; dropout is off.

        Args:
            rows: how many rows the LM runs at once; by default as many as it does well.
            finite: refuse scores that are no finite numbers; training, which looks at its losses,
                takes them as they are.

        Raises:
            ConfigError: a task has no labels.
            DivergedError: a score is no finite number.
        """
        scoring.check_labels(self, examples)
        with self.evaluating():
            scores = scoring.score_examples(self, examples, rows)
        if finite:
            scoring.check_finite(self, examples, scores)
        return scores

    @torch.no_grad()
    def word_scores(self, rows: Sequence[Row], task: int) -> torch.Tensor:
        """The log probability of every word of a task's verbalizer for some rows [B, W], before any
        calibration."""
        with self.evaluating():
            return scoring.word_scores(self, rows, task)

    @torch.no_grad()
    def text_losses(self, examples: Sequence[Example], rows: int = TEXT_ROWS) -> list[float]:
        """The loss of each example as a number, in batches, the LM's dropout off."""
        with self.lm.evaluating():
            return losses.text_losses(self, examples, rows)

    def predict(
        self,
        rows: Sequence[Row],
        tasks: TaskChoice = None,
        coverage: float | None = None,
        at_least: float | None = None,
    ) -> list[dict[str, Any]]:
        """Answer rows of any tasks, mixed in batches.

        Args:
            tasks: the name or number of the task of all rows, or a sequence with one for each row.
                Without it a row goes to the prompt that its ``prompt_by`` field names, or to all
                tasks, which then answer as an ensemble.
            coverage: also give a set of labels that holds the right one with this probability.
            at_least: give no answer where the best label has a smaller probability.

        Returns:
            For each row, as ``ptune predict`` writes them: "prediction", its best label, or with
            ``Task.multi_label`` a list of its labels, or None (``at_least``); "scores", the
            probability of every label, the best first; and "set", where a coverage is asked for.

        Raises:
            ConfigError: there is no such task, its answers are text, tasks with different labels
                should answer together, a task keeps no scores of dev rows for a set, or a coverage
                or ``at_least`` is no probability.
            TemplateError, DataError: a row does not fit its task; its number is told.
        """
        TrustConfig(coverage=coverage, at_least=at_least)
        examples = self.encode_mixed(rows, tasks)
        scores = iter(
            self.scores([example for examples_of_row in examples for example in examples_of_row])
        )
        answers = []
        for examples_of_row in examples:
            scores_of_row = [next(scores) for _ in examples_of_row]
            answers.append(self.answer(examples_of_row, scores_of_row, coverage, at_least))
        return answers

    def generate(
        self, rows: Sequence[Row], tasks: TaskChoice = None, config: DecodingConfig | None = None
    ) -> list[Any]:
        """The texts that the LM writes for rows of any tasks, mixed in batches; see
        ``ptune.model.running.generate.generate``."""
        return generate_texts(self, rows, tasks, config)

    def together(self, examples: Sequence[Example], scores: Sequence[torch.Tensor]) -> torch.Tensor:
        """The labels' probabilities [C] of one row by all tasks that answer it.

        Args:
            examples: the row, as each of the tasks has it.
            scores: the label scores [C] of each.

        Raises:
            ConfigError: their labels are not the same, or in another order.
        """
        return scoring.combined_shares(self, examples, scores)

    def answer(
        self,
        examples: Sequence[Example],
        scores: Sequence[torch.Tensor],
        coverage: float | None = None,
        at_least: float | None = None,
    ) -> dict[str, Any]:
        """The answer to one row (``predict``) by all tasks that answer it.

        Args:
            examples, scores: as in ``together``.
            coverage, at_least: as in ``predict``.

        Raises:
            ConfigError: their labels are not the same, or in another order, or each row may have
                several of them; or a task keeps no scores of dev rows for a set.
        """
        first = examples[0]
        check_one_label(self, first.task, coverage, at_least)
        if isinstance(first, WordsExample):
            return token_answers.words_answer(self, examples, scores)
        if isinstance(first, PassageExample):
            return token_answers.passage_answer(self, examples, scores)
        shares = self.together(examples, scores).tolist()
        return label_answer(self, first, shares, coverage=coverage, at_least=at_least)

    def learned(self, tasks: Sequence[int]) -> PromptVectors:
        """What the prompts of some tasks have learned, each prompt made once."""
        return prompt_vectors(self, tasks)


def _check_made(task: Task, length: int, deep: int) -> None:
    """Refuse gates without a prefix, and a prompt that would share its table with none.

    Args:
        length, deep: how many soft tokens and prefix vectors it has.

    Raises:
        ConfigError: it is so.
    """
    if task.prefix.gates and not deep:
        raise ConfigError(
            f"prefix.gates are of a deep prefix, and the template {task.template.source!r} has "
            "none: put {prefix:5} in front, or leave gates out."
        )
    if task.encoder != "multitask":
        return
    if task.by is None:
        raise ConfigError(
            f"encoder: multitask is one table for the prompts that rows choose by a field, and "
            f"{task.name} has one prompt: name the field (prompt_by), or take encoder: table."
        )
    if not length:
        raise ConfigError(
            f"encoder: multitask makes soft tokens, and the template {task.template.source!r} has "
            "none: put some in it ({soft:20}), or leave encoder out."
        )
