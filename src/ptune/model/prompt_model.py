"""Where LM, bank, templates and verbalizers meet: tasks of all kinds, trained and answered in one
batch."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from ptune.answers import trained_heads
from ptune.answers.ensemble import combine
from ptune.answers.label_words import BoundVerbalizer, Choices, Span, Verbalizer
from ptune.data.rows import FileRow, label_of, place_of
from ptune.errors import ConfigError, DataError, DivergedError, PtuneError, nearest
from ptune.lm.language_model import LanguageModel
from ptune.model import initialisation
from ptune.model.generate import generate as generate_texts
from ptune.model.task import (
    WHOLE,
    BoundTask,
    Example,
    Loss,
    PrefixSettings,
    Row,
    Task,
    prompt_value,
)
from ptune.prompts.bank import Bank, Prefix, PrefixBatch
from ptune.prompts.encoders import Baked
from ptune.settings import DecodingConfig
from ptune.template.language import EncodedRow, PrefixPart, Template, Text, field_of

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
Asked = (
    int | str | Sequence[int | str] | None
)  # the task of all rows, of each row, or the rows' own
TEXT_ROWS = 16
PROTOTYPE_ROWS = 512
CPU_TOKENS = 2048  # of a training batch that a CPU runs at once
HIDDEN = 0.15  # the share of a text's tokens that auxiliary rows hide, as BERT (section 3.1)


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
        encoder: nn.Module | None = None,
        prefix: nn.Module | None = None,
        reader: nn.Module | None = None,
    ) -> int:
        """Add a task, its prompt initialised; return its number.

        Args:
            rows: the task's training rows, in which the frequent tokens of ``init="vocabulary"``
                are counted, and which prototypes start from.
            encoder, prefix, reader: what makes the soft tokens [P, E] and the deep prefix [P, w],
                and what scores the labels, instead of new ones.

        Raises:
            TemplateError, VerbalizerError, ConfigError, ModelError: the task does not fit this LM.
        """
        _check(task, self.lm)
        if task.by is not None and task.by in self._owners:
            raise ConfigError(
                f"There is a prompt for the rows whose {task.by[0]} is {task.by[1]!r} already."
            )
        with self.as_before_if_it_fails():
            return self._add(task, rows, encoder, prefix, reader)

    def _add(
        self,
        task: Task,
        rows: Sequence[Row],
        encoder: nn.Module | None,
        prefix: nn.Module | None,
        reader: nn.Module | None,
    ) -> int:
        whole = task.reader in WHOLE
        template, dropped = task.template.for_kind(self.lm.kind, whole)
        verbalizer = self._verbalizer(task, template)
        length = template.prompt_length(self.lm.tokens)
        deep = sum(count for count, _ in template.prefixes(self.lm.tokens))
        domain = self._domain(task, length, deep)
        prompt = -1
        if length or deep or task.reader != "words":
            bound = verbalizer if isinstance(verbalizer, BoundVerbalizer) else None
            soft = (
                (encoder or initialisation.encoder(self.lm, task, template, bound, length, rows))
                if length
                else None
            )
            own = (
                (reader or initialisation.reader(self.lm, task, bound))
                if task.reader != "words" and bound
                else None
            )
            prompt = self.bank.add(
                soft,
                initialisation.prefix(self.lm, task, template, prefix) if deep else None,
                own.to(self.lm.device) if own else None,
            )
        self.tasks.append(BoundTask(task, template, verbalizer, prompt, dropped, domain))
        number = len(self.tasks) - 1
        if task.reader == "prototypes" and reader is None and rows:
            self._start_prototypes(number, rows)
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

    def _verbalizer(
        self, task: Task, template: Template
    ) -> BoundVerbalizer | Choices | Span | None:
        if task.verbalizer is None or isinstance(task.verbalizer, Choices | Span):
            return task.verbalizer
        if task.reader in ("words", "soft"):
            return task.verbalizer.bind(self.lm.tokens, template.place, self.lm.kind)
        return BoundVerbalizer(task.verbalizer.labels, (), (), self.lm.kind)

    def _domain(self, task: Task, length: int, deep: int) -> Template | None:
        """The task's question without its text, where the soft tokens and the prefix are those of
        its template."""
        if task.domain is None:
            return None
        domain, tokens = task.domain.for_kind(self.lm.kind)[0], self.lm.tokens
        if (
            domain.prompt_length(tokens),
            sum(count for count, _ in domain.prefixes(tokens)),
        ) not in ((0, 0), (length, deep)):
            raise ConfigError(
                f"The domain of {task.name} should have the template's soft tokens and prefix, or "
                f"none: {domain.source!r} has others."
            )
        return domain

    @property
    def evaluation_rows(self) -> int:
        """How many rows are scored at once: with more a CPU is slower, and takes more memory."""
        return 16 if self.lm.device.type == "cpu" else 64

    def _start_prototypes(self, number: int, rows: Sequence[Row]) -> None:
        examples = self.encode(number, rows[:: -(-len(rows) // PROTOTYPE_ROWS)])
        reader = self.bank.readers[self.tasks[number].prompt]
        assert isinstance(reader, trained_heads.Prototypes)
        with torch.no_grad(), self.evaluating():
            found = [
                self._vectors(
                    self.tasks[number], reader, self._run([examples[i] for i in batch])
                ).sum(0)
                for batch in _batched(range(len(examples)), _fills(examples), self.evaluation_rows)
            ]
        reader.start_at(
            torch.cat(found),
            torch.tensor([example.label for example in examples], device=self.lm.device),
        )

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
        names = [fitted.task.name for fitted in self.tasks]
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
        field_ = next(iter(self._owners))[0]
        value = prompt_value(row, field_)
        if (field_, value) not in self._owners:
            raise DataError(
                f"The row's {field_} is {value!r}, and there is no prompt for it."
            )  # whom else there is, is not for all to know
        return [self._owners[field_, value]]

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
            and isinstance(prefix.encoder, Baked)
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
        self, task: int, rows: Sequence[Row], labelled: bool = True, room: int = 0, first: int = 1
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
        return list(self._examples(task, rows, labelled, room, first))

    def encode_for(
        self, row: Row, number: int, labelled: bool = True, room: int = 0
    ) -> list[Example]:
        """A row for each task that takes it (``tasks_for``); see ``encode``.

        Raises:
            TemplateError, DataError: the row does not fit, or no task takes it; its number is told.
        """
        return [
            self.encode(task, [row], labelled, room, number)[0]
            for task in self._takers(row, number)
        ]

    def encode_mixed(
        self, rows: Sequence[Row], tasks: Asked = None, labelled: bool = False, room: int | None = 0
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
        for number, (row, numbers) in enumerate(zip(rows, self._asked(rows, tasks)), 1):
            rooms = [
                self.tasks[task].task.decoding.max_new_tokens if room is None else room
                for task in numbers
            ]
            examples.append(
                [
                    self.encode(task, [row], labelled, needed, number)[0]
                    for task, needed in zip(numbers, rooms)
                ]
            )
        return examples

    def _asked(self, rows: Sequence[Row], tasks: Asked) -> list[list[int]]:
        """The numbers of the tasks that take each row."""
        if tasks is None:
            return [self._takers(row, number) for number, row in enumerate(rows, 1)]
        if isinstance(tasks, int | str):
            return [[self.number(tasks)]] * max(1, len(rows))
        if len(tasks) != len(rows):
            raise ConfigError(
                f"A task for each row is expected, and there are {len(tasks)} tasks for "
                f"{len(rows)} rows."
            )
        return [[self.number(task)] for task in tasks]

    def _takers(self, row: Row, number: int) -> list[int]:
        try:
            return self.tasks_for(row)
        except DataError as error:
            raise _of_row(error, place_of(row, number)) from error

    def _examples(
        self, task: int, rows: Sequence[Row], labelled: bool, room: int, first: int
    ) -> Iterator[Example]:
        fitted = self.tasks[task]
        for number, row in enumerate(rows, first):
            try:
                yield from self._example(task, fitted, row, labelled, room)
            except PtuneError as error:
                place = (
                    row.place if isinstance(row, FileRow) else f"Row {number} of {fitted.task.name}"
                )
                raise _of_row(error, place) from error

    def _example(
        self, task: int, fitted: BoundTask, row: Row, labelled: bool, room: int
    ) -> Iterator[Example]:
        if fitted.verbalizer is None:
            question = (
                self._encode(fitted, row, (None,), room if self.lm.kind == "causal" else 0),
            )
            if not labelled:
                yield Example(task, row, question)
            for text in fitted.texts(row) if labelled else ():
                answer = self._answer(fitted, row, text)
                yield Example(
                    task, row, question, None, (self._encode(fitted, row, answer),), answer
                )
            return
        bound = fitted.bound(row, self.lm.tokens, self.lm.kind)
        fills = tuple(
            self._encode_as(fitted, template, variant, answer)
            for template, variant in fitted.variants(row)
            for answer in fitted.answers(bound)
        )
        if not labelled:
            yield Example(task, row, fills, bound=bound)
            return
        span = fitted.verbalizer if isinstance(fitted.verbalizer, Span) else None
        shares = None if span else fitted.shares(row, len(bound.labels))
        label = (
            shares.index(max(shares))
            if shares
            else bound.number(label_of(fitted.right(row), bound.labels))
        )
        if span and label not in bound.owners:  # a wrong text teaches nothing
            yield Example(task, row, fills, label, bound=bound)
            return
        if shares and fitted.task.loss == "vocabulary":
            raise ConfigError(
                'Shares of labels are not compared with the whole vocabulary: set loss to "labels".'
            )
        if fitted.task.loss == "labels" and not span:
            yield Example(task, row, fills, label, fills, (), bound, shares)
            return
        text = f"{fitted.task.seed} {[field_of(row, name) for name in fitted.template.fields]}"
        answer = span.taught(bound, self.lm.tokens, text) if span else bound.first_word(label)
        given = (None,) * len(answer) if self.lm.kind == "masked" or len(answer) == 1 else answer
        yield Example(task, row, fills, label, (self._encode(fitted, row, given),), answer, bound)

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
        fitted, tokens = self.tasks[task], self.lm.tokens
        if self.lm.kind != "masked" or tokens.mask is None:
            raise ConfigError(
                f"{fitted.task.name} hides words of unlabelled rows, which only a masked LM can "
                "tell: set the auxiliary weight to 0."
            )
        special, found = set(tokens.tokenizer.all_special_ids), []
        for row in rows:
            whole = self._encode(fitted, row, (None,))
            free = [
                at
                for at, (id_, slot) in enumerate(zip(whole.ids, whole.soft_slots))
                if slot < 0 and id_ not in special
            ]
            drawn = torch.rand(len(free), generator=generator).tolist()
            if not (places := [at for at, share in zip(free, drawn) if share < HIDDEN] or free[:1]):
                continue
            ids = list(whole.ids)
            for at in places:
                kind = float(torch.rand((), generator=generator))
                ids[at] = (
                    tokens.mask
                    if kind < 0.8
                    else int(torch.randint(self.lm.words, (), generator=generator))
                    if kind < 0.9
                    else ids[at]
                )
            learn = replace(whole, ids=tuple(ids), answer_positions=tuple(places))
            found.append(
                Example(
                    task,
                    row,
                    (),
                    None,
                    (learn,),
                    tuple(whole.ids[at] for at in places),
                    auxiliary=True,
                )
            )
        return found

    def _answer(self, fitted: BoundTask, row: Row, text: str) -> tuple[int, ...]:
        """The tokens of a written answer, its end with them; its tail goes where even the shortened
        row leaves too little room."""
        tokens = self.lm.tokens
        place = fitted.template.place if self.lm.kind == "causal" else "start"
        ids = [
            *(tokens.before if self.lm.kind == "encoder-decoder" else ()),
            *tokens.words([text.strip()], place)[0],
            self.lm.end,
        ]
        room = [fitted.task.target_length or len(ids)]
        if (limit := self._limit(fitted)) is not None:
            taken = (
                fitted.template.least(row, tokens, self.lm.kind) - 1
                if self.lm.kind == "causal"
                else 0
            )
            room.append(max(1, limit - taken))
        return tuple(ids[: min(room)])

    def _encode(
        self, fitted: BoundTask, row: Row, answer: Sequence[int | None], room: int = 0
    ) -> EncodedRow:
        return self._encode_as(fitted, fitted.template, row, answer, room)

    def limit(self, task: int) -> int | None:
        """The most tokens of a task's inputs; None for no limit."""
        return self._limit(self.tasks[task])

    def _limit(self, fitted: BoundTask) -> int | None:
        return min(
            (limit for limit in (self.max_length, fitted.task.max_length) if limit is not None),
            default=None,
        )

    def _encode_as(
        self,
        fitted: BoundTask,
        template: Template,
        row: Row,
        answer: Sequence[int | None],
        room: int = 0,
    ) -> EncodedRow:
        limit = self._limit(fitted)
        most = None if limit is None else limit - room
        if most is not None and most < 1:
            raise ConfigError(
                f"{room} new tokens leave no room for a row in an LM of {limit} tokens: set "
                "max_new_tokens lower."
            )
        return template.encode(row, self.lm.tokens, self.lm.kind, most, answer, self.lm.start)

    # Examples to losses and scores.

    def losses(
        self, examples: Sequence[Example], learned: "PromptVectors | None" = None
    ) -> torch.Tensor:
        """The loss of each example [B]: minus the log probability of the right answer, of a text
        the sum over its tokens (Prefix-Tuning, equation 2); of labels' shares, how far the scores
        are from them. One call of the LM for all, whatever their tasks."""
        runs = self._run(examples, learned, learning=True)
        losses: list[torch.Tensor | None] = [None] * len(examples)
        labelled = [i for i, example in enumerate(examples) if example.bound and not example.answer]
        for members in _alike(examples, labelled):
            own = self._label_losses([examples[m] for m in members], [runs[m] for m in members])
            for member, loss in zip(members, own):
                losses[member] = loss
        for member in set(range(len(examples))) - set(labelled):
            example, values = examples[member], runs[member][0].log_probs  # [K, V]
            told = -values.gather(1, torch.tensor(example.answer, device=values.device)[:, None])
            task = self.tasks[example.task].task
            if example.auxiliary or isinstance(task.verbalizer, Span):
                losses[member] = told.mean()
            else:
                smooth = task.smoothing if task.verbalizer is None else 0.0
                losses[member] = (
                    (1 - smooth) * told.sum() - smooth * values.mean(1).sum()
                    if smooth
                    else told.sum()
                )
        return torch.stack([loss for loss in losses if loss is not None])

    def backward(
        self, examples: Sequence[Example], weights: Sequence[float], sizes: Sequence[int] = ()
    ) -> torch.Tensor:
        """Weigh the losses of examples, and add the gradient of their sum to all that is trained:
        the weighted losses [B]. The prompts' encoders run once; on a CPU a large batch runs in
        parts, which is faster there and takes less memory.

        A loss that couples the rows of its task gets all of them, however the batch is cut; the
        LM's values for those rows are then kept until the last has run.

        Args:
            sizes: how many examples, in order, the LM runs at once at most; all by default.
        """
        learned, back = self.learned([example.task for example in examples]).apart()
        weighing = torch.tensor(list(weights), device=self.lm.device)
        found: dict[int, torch.Tensor] = {}
        coupled: dict[int, list[int]] = {}
        vectors: dict[int, torch.Tensor] = {}
        for couples, numbers in self._parts(examples, sizes):
            if not couples:
                own = self.losses([examples[i] for i in numbers], learned) * weighing[numbers]
                own.sum().backward()
                found |= dict(zip(numbers, own.detach()))
                continue
            runs = self._run([examples[i] for i in numbers], learned, learning=True)
            for number, run in zip(numbers, runs):
                fitted = self.tasks[examples[number].task]
                vectors[number] = self._vectors(
                    fitted, self.bank.readers[fitted.prompt], [run]
                ).sum(0)
                coupled.setdefault(examples[number].task, []).append(number)
        sums = []
        for task, numbers in coupled.items():
            reader = self.bank.readers[self.tasks[task].prompt]
            labels = torch.tensor([examples[i].label for i in numbers], device=self.lm.device)
            own = (
                reader.losses(torch.cat([vectors[i] for i in numbers]), labels) * weighing[numbers]
            )
            found |= dict(zip(numbers, own.detach()))
            sums.append(own.sum())
        if sums:
            torch.stack(sums).sum().backward()
        back()
        return torch.stack([found[number] for number in range(len(examples))])

    def _parts(
        self, examples: Sequence[Example], sizes: Sequence[int]
    ) -> Iterator[tuple[bool, list[int]]]:
        """The numbers of the examples that the LM runs at once, and whether their losses couple
        them to the others of their task."""
        first = 0
        for size in sizes or [len(examples)]:
            for couples in (False, True):
                numbers = [
                    i
                    for i in range(first, first + size)
                    if self._couples_rows(examples[i]) == couples
                ]
                tokens = [sum(len(row.ids) for row in examples[i].learn) for i in numbers]
                most = CPU_TOKENS if self.lm.device.type == "cpu" else sum(tokens)
                for part in _batched(range(len(numbers)), tokens, most):
                    yield couples, [numbers[i] for i in part]
            first += size

    def _couples_rows(self, example: Example) -> bool:
        """Whether the loss of an example hangs on the others of its task in the batch."""
        if example.auxiliary or example.shares is not None or self.tasks[example.task].prompt < 0:
            return False
        return getattr(self.bank.readers[self.tasks[example.task].prompt], "couples_rows", False)

    def _label_losses(
        self, examples: Sequence[Example], runs: Sequence[list["Run"]]
    ) -> torch.Tensor:
        """The losses [B] of examples of one task and verbalizer."""
        fitted = self.tasks[examples[0].task]
        labels = torch.tensor([example.label for example in examples], device=self.lm.device)
        reader = (
            self.bank.readers[fitted.prompt]
            if fitted.task.reader not in ("words", "pair")
            else None
        )
        if examples[0].shares is None and reader is not None:
            return reader.losses(self._vectors(fitted, reader, runs).sum(0), labels)
        scores = self._label_scores(examples, runs)
        if examples[0].shares is None:
            return nn.functional.cross_entropy(scores, labels, reduction="none")
        degrees = fitted.task.temperature
        shares = scores.new_tensor([example.shares for example in examples])
        return degrees**2 * nn.functional.kl_div(
            (scores / degrees).log_softmax(1), shares, reduction="none"
        ).sum(1)

    @torch.no_grad()
    def scores(
        self, examples: Sequence[Example], rows: int | None = None, finite: bool = True
    ) -> list[torch.Tensor]:
        """The label scores of each example [C], on the CPU: log probabilities, not normalised over
        the labels. Examples of like length share a batch; dropout is off.

        Args:
            rows: how many rows the LM runs at once.
            finite: refuse scores that are no finite numbers; training, which looks at its losses,
                takes them as they are.

        Raises:
            ConfigError: a task has no labels.
            DivergedError: a score is no finite number.
        """
        if text := next(
            (self.tasks[example.task].task.name for example in examples if example.bound is None),
            None,
        ):
            raise ConfigError(
                f"{text} has no labels to score: its answers are text, which ptune.generate writes."
            )
        rows = rows or self.evaluation_rows
        found: list[torch.Tensor | None] = [None] * len(examples)
        learned = self.learned([example.task for example in examples])
        stepwise = [i for i, example in enumerate(examples) if self._is_stepwise(example)]
        spelt = [
            i
            for i, example in enumerate(examples)
            if isinstance(self.tasks[example.task].verbalizer, Span)
        ]
        order = sorted(
            set(range(len(examples))) - {*stepwise, *spelt}, key=lambda i: (examples[i].length, i)
        )
        with self.evaluating():
            for batch in _batched(order, _fills(examples), rows):
                runs = dict(zip(batch, self._run([examples[i] for i in batch], learned)))
                for members in _alike(examples, batch):
                    own = self._label_scores(
                        [examples[m] for m in members], [runs[m] for m in members]
                    ).cpu()
                    for member, scores in zip(members, own):
                        found[member] = scores
            for number, words in zip(
                stepwise, self._stepwise([examples[i] for i in stepwise], learned, rows)
            ):
                found[number] = self._of_words(examples[number], words[:, None])[0].cpu()
            for number, own in zip(spelt, self._spelt([examples[i] for i in spelt], learned, rows)):
                found[number] = own
        scores = [own for own in found if own is not None]
        if finite:
            self._check_finite(examples, scores)
        return scores

    def _check_finite(self, examples: Sequence[Example], scores: Sequence[torch.Tensor]) -> None:
        lost = [example for example, own in zip(examples, scores) if not torch.isfinite(own).all()]
        if lost:
            task = self.tasks[lost[0].task].task.name
            raise DivergedError(
                f"The scores of {len(lost)} of {len(scores)} rows ({task}) are no finite numbers: "
                "the LM or the "
                f"prompt is damaged, or the number format {self.lm.dtype} is too narrow for them "
                "(try --dtype float32)."
            )

    @torch.no_grad()
    def word_scores(self, rows: Sequence[Row], task: int) -> torch.Tensor:
        """The log probability of every word of a task's verbalizer for some rows [B, W], before any
        calibration."""
        fitted = self.tasks[task]
        examples = self.encode(task, rows, labelled=False)
        learned = self.learned([task])
        with self.evaluating():
            if examples and self._is_stepwise(examples[0]):
                return torch.stack(
                    [words[0] for words in self._stepwise(examples, learned, self.evaluation_rows)]
                ).cpu()
            batches = _batched(range(len(examples)), _fills(examples), self.evaluation_rows)
            runs = [
                own for batch in batches for own in self._run([examples[i] for i in batch], learned)
            ]
            bound = fitted.bound(rows[0], self.lm.tokens, self.lm.kind)
            return bound.of_words(
                [
                    torch.stack([own[fill].log_probs for own in runs])
                    for fill in range(len(bound.fills))
                ]
            ).cpu()

    @torch.no_grad()
    def text_losses(self, examples: Sequence[Example], rows: int = TEXT_ROWS) -> list[float]:
        """The loss of each example as a number, in batches, the LM's dropout off."""
        found = [0.0] * len(examples)
        order = sorted(range(len(examples)), key=lambda i: len(examples[i].learn[0].ids))
        learned = self.learned([example.task for example in examples])
        with self.lm.evaluating():
            for first in range(0, len(order), rows):
                batch = order[first : first + rows]
                for number, loss in zip(
                    batch, self.losses([examples[i] for i in batch], learned).tolist()
                ):
                    found[number] = loss
        return found

    def predict(self, rows: Sequence[Row], tasks: Asked = None) -> list[dict[str, Any]]:
        """Answer rows of any tasks, mixed in batches.

        Args:
            tasks: the name or number of the task of all rows, or a sequence with one for each row.
                Without it a row goes to the prompt that its ``prompt_by`` field names, or to all
                tasks, which then answer as an ensemble.

        Returns:
            For each row, as ``ptune predict`` writes them: "prediction", its best label, and
            "scores", the probability of every label, the best first.

        Raises:
            ConfigError: there is no such task, its answers are text, or tasks with different labels
                should answer together.
            TemplateError, DataError: a row does not fit its task; its number is told.
        """
        examples = self.encode_mixed(rows, tasks)
        scores = iter(
            self.scores([example for examples_of_row in examples for example in examples_of_row])
        )
        answers = []
        for examples_of_row in examples:
            shares = self.together(
                examples_of_row, [next(scores) for _ in examples_of_row]
            ).tolist()
            ranked = sorted(
                zip(examples_of_row[0].labels.labels, shares), key=lambda pair: -pair[1]
            )
            answers.append({"prediction": ranked[0][0], "scores": dict(ranked)})
        return answers

    def generate(
        self, rows: Sequence[Row], tasks: Asked = None, config: DecodingConfig | None = None
    ) -> list[Any]:
        """The texts that the LM writes for rows of any tasks, mixed in batches; see
        ``ptune.model.generate.generate``."""
        return generate_texts(self, rows, tasks, config)

    def together(self, examples: Sequence[Example], scores: Sequence[torch.Tensor]) -> torch.Tensor:
        """The labels' probabilities [C] of one row by all tasks that answer it.

        Args:
            examples: the row, as each of the tasks has it.
            scores: the label scores [C] of each.

        Raises:
            ConfigError: their labels are not the same, or in another order.
        """
        first = self.tasks[examples[0].task]
        labels = examples[0].labels.labels
        for example in examples[1:]:
            if example.labels.labels != labels:
                raise ConfigError(
                    f"{self.tasks[example.task].task.name} has the labels "
                    f"{list(example.labels.labels)}, and {first.task.name} "
                    f"{list(labels)}: they cannot answer together. Name the task of each row."
                )
        return combine(
            scores, first.task.combine, [self.tasks[example.task].weight for example in examples]
        )

    def _label_scores(
        self, examples: Sequence[Example], runs: Sequence[list["Run"]]
    ) -> torch.Tensor:
        """Label scores [B, C] of examples of one task and verbalizer, from the runs of their
        fills."""
        fitted, bound = self.tasks[examples[0].task], examples[0].labels
        if fitted.task.reader != "words":
            reader = self.bank.readers[fitted.prompt]
            orders = self._vectors(fitted, reader, runs)
            return (
                torch.stack([reader(own) for own in orders]).mean(0)
                if fitted.task.reader == "pair"
                else reader(orders.sum(0))
            )
        size = len(bound.fills)
        words = [
            bound.of_words(
                [
                    torch.stack([own[variant + fill].log_probs for own in runs])
                    for fill in range(size)
                ]
            )
            for variant in range(0, len(runs[0]), size)
        ]
        return self._of_words(examples[0], torch.stack(words))

    def _of_words(self, example: Example, words: torch.Tensor) -> torch.Tensor:
        """Label scores [B, C] from the words of each variant of the rows [variants, B, W]:
        calibrated, the domain's taken off, both orders averaged."""
        fitted, bound = self.tasks[example.task], example.labels
        orders = words[:-1] - words[-1:] if fitted.domain else words
        if fitted.offset is not None:
            orders = orders - orders.new_tensor(fitted.offset)
        return torch.stack([bound.of_labels(own) for own in orders]).mean(0)

    def _vectors(
        self, fitted: BoundTask, reader: nn.Module, runs: Sequence[list["Run"]]
    ) -> torch.Tensor:
        """What a reader reads of each example, in one or both orders of its pair [orders, B, F]."""
        return torch.stack(
            [
                torch.stack([getattr(own[order], str(reader.answer_positions))[0] for own in runs])
                for order in range(2 if fitted.task.swap else 1)
            ]
        )

    def _is_stepwise(self, example: Example) -> bool:
        bound = example.labels
        return (
            bound.order == "most-probable-first"
            and self.tasks[example.task].task.reader == "words"
            and any(len(ids) > 1 for ids in bound.ids)
        )

    def _stepwise(
        self, examples: Sequence[Example], learned: "PromptVectors", most: int
    ) -> list[torch.Tensor]:
        """The words' log probabilities [variants, W] of each example, a word's likeliest token
        always filled in next."""
        totals = [
            torch.zeros(
                len(self.tasks[example.task].variants(example.row)), len(example.labels.ids)
            )
            for example in examples
        ]
        open_ = [
            _Spelling(at, variant, word, (None,) * len(ids))
            for at, example in enumerate(examples)
            for variant in range(len(totals[at]))
            for word, ids in enumerate(example.labels.ids)
        ]
        while open_:
            shared = list(dict.fromkeys((one.example, one.variant, one.answer) for one in open_))
            rows = []
            for at, variant, answer in shared:
                fitted = self.tasks[examples[at].task]
                template, row = fitted.variants(examples[at].row)[variant]
                rows.append((examples[at].task, self._encode_as(fitted, template, row, answer)))
            order = sorted(range(len(rows)), key=lambda i: len(rows[i][1].ids))
            seen: dict[Any, torch.Tensor] = {}
            for first in range(0, len(order), most):
                batch = order[first : first + most]
                for i, run in zip(batch, self._read([rows[i] for i in batch], learned)):
                    seen[shared[i]] = run.log_probs.cpu()
            for one in open_:
                ids, log_probs = (
                    examples[one.example].labels.ids[one.word],
                    seen[one.example, one.variant, one.answer],
                )
                place = max(
                    (at for at, token in enumerate(one.answer) if token is None),
                    key=lambda at: float(log_probs[at, ids[at]]),
                )
                totals[one.example][one.variant, one.word] += log_probs[place, ids[place]]
                one.answer = (*one.answer[:place], ids[place], *one.answer[place + 1 :])
            open_ = [one for one in open_ if None in one.answer]
        return [example.labels.compared(own) for example, own in zip(examples, totals)]

    def _spelt(
        self, examples: Sequence[Example], learned: "PromptVectors", most: int
    ) -> list[torch.Tensor]:
        """The label scores [2] of examples whose answer spells a text of the row (``Span``), the
        likeliest token always filled in next."""
        spans = [
            own
            for example in examples
            if isinstance(own := self.tasks[example.task].verbalizer, Span)
        ]
        answers = [span.start(example.labels) for span, example in zip(spans, examples)]
        order = sorted(range(len(examples)), key=lambda i: examples[i].length)
        while open_ := [i for i in order if None in answers[i]]:
            for first in range(0, len(open_), most):
                batch = open_[first : first + most]
                rows = [
                    (
                        examples[i].task,
                        self._encode(self.tasks[examples[i].task], examples[i].row, answers[i]),
                    )
                    for i in batch
                ]
                for i, run in zip(batch, self._read(rows, learned)):
                    answers[i] = spans[i].spell(examples[i].labels, answers[i], run.log_probs)
        return [
            span.scores(example.row, answer, self.lm.tokens)
            for span, example, answer in zip(spans, examples, answers)
        ]

    def _run(
        self,
        examples: Sequence[Example],
        learned: "PromptVectors | None" = None,
        learning: bool = False,
    ) -> list[list["Run"]]:
        """Run examples of any tasks as one batch: for each, what was read of each of its fills."""
        own = [example.learn if learning else example.fills for example in examples]
        found = iter(
            self._read(
                [(example.task, row) for example, rows in zip(examples, own) for row in rows],
                learned,
            )
        )
        return [[next(found) for _ in rows] for rows in own]

    def _read(
        self, rows: Sequence[tuple[int, EncodedRow]], learned: "PromptVectors | None" = None
    ) -> list["Run"]:
        """Run rows of any tasks as one batch."""
        learned = learned or self.learned([task for task, _ in rows])
        prompts = [
            learned.places.get(self.tasks[task].prompt, -1)
            if row.prefix or max(row.soft_slots) >= 0
            else -1
            for task, row in rows
        ]
        hidden, features, scores = self.lm.read_rows(
            [row for _, row in rows], prompts, learned.vectors, learned.prefixes
        )
        sizes = [len(row.answer_positions) for _, row in rows]
        parts = [None] * len(sizes) if features is None else features.split(sizes)
        return [
            Run(*own)
            for own in zip(scores.log_softmax(-1).split(sizes), hidden.split(sizes), parts)
        ]

    def learned(self, tasks: Sequence[int]) -> "PromptVectors":
        """What the prompts of some tasks have learned, each prompt made once."""
        numbers = sorted({self.tasks[task].prompt for task in tasks} - {-1})
        return PromptVectors(
            self.bank.vectors(numbers),
            self.bank.deep(numbers),
            {number: at for at, number in enumerate(numbers)},
        )


@dataclass(frozen=True)
class PromptVectors:
    """The soft tokens [N, P, E] and deep prefixes of N prompts, and where each prompt's are among
    them."""

    vectors: torch.Tensor | None
    prefixes: PrefixBatch | None
    places: dict[int, int]

    def apart(self) -> tuple["PromptVectors", Callable[[], None]]:
        """The same values apart from what made them, and what carries the gradients that they have
        got back to it."""
        vectors, prefixes, pairs = self.vectors, self.prefixes, []
        if vectors is not None and vectors.requires_grad:
            pairs.append((vectors, vectors := vectors.detach().requires_grad_()))
        if prefixes is not None and prefixes.values.requires_grad:
            pairs.append((prefixes.values, values := prefixes.values.detach().requires_grad_()))
            prefixes = replace(prefixes, values=values)

        def back() -> None:
            if felt := [(made, own.grad) for made, own in pairs if own.grad is not None]:
                torch.autograd.backward(*zip(*felt))

        return PromptVectors(vectors, prefixes, self.places), back


@dataclass(frozen=True)
class Run:
    """What was read where a fill's K tokens are: log probabilities of the vocabulary [K, V], last
    hidden states [K, H], and what the head compares with its words [K, F], if it does."""

    log_probs: torch.Tensor
    hidden: torch.Tensor
    features: torch.Tensor | None


@dataclass
class _Spelling:
    """A word on its way: of which example and variant, and the tokens that are filled in by now."""

    example: int
    variant: int
    word: int
    answer: tuple[int | None, ...]


def _of_row(error: PtuneError, place: str) -> PtuneError:
    """The same error with the place of the row that is at fault."""
    told = type(error)(f"{place}: {error}")
    told.of_row = True
    return told


def _check(task: Task, lm: LanguageModel) -> None:
    """Refuse what no LM, or not this one, can be asked."""
    if task.verbalizer is None and lm.kind == "masked":
        raise ConfigError(
            f"{task.name} asks for text, and a masked LM writes none: give it labels, or take a "
            "causal LM or an encoder-decoder."
        )
    if task.reader != "words" and (
        task.verbalizer is None or isinstance(task.verbalizer, Choices | Span)
    ):
        raise ConfigError(
            f"{task.name} has no labels of its own, so there is nothing for a reader "
            f"({task.reader}) to tell apart."
        )
    if task.loss == "vocabulary" and isinstance(task.verbalizer, Verbalizer):
        several = [
            label
            for label, words in zip(task.verbalizer.labels, task.verbalizer.words)
            if len(words) > 1
        ]
        if several:
            raise ConfigError(
                f"{task.name} compares the answer with the whole vocabulary, which teaches one "
                "word for each label, and "
                f'{several[0]!r} has several: give it one, or set loss to "labels".'
            )
    if task.loss == "vocabulary" and (task.reader != "words" or task.swap or task.domain):
        raise ConfigError(
            f"{task.name} compares the answer with the whole vocabulary, where neither a reader "
            "nor swap nor a domain has a say: set "
            f'loss to "labels".'
        )
    if isinstance(task.verbalizer, Span) and (task.swap or task.domain):
        raise ConfigError(
            f"{task.name} spells a span, which has no scores of words for swap or a domain to "
            "change."
        )
    if task.reader == "pair" and task.template.has_mask:
        raise ConfigError(
            f"{task.name} has a {{mask}}, and a pair head reads the input's first token: leave "
            f"the {{mask}} out."
        )
    parts = [
        part
        for part in task.template.parts
        if not (isinstance(part, Text) and not part.text.strip())
    ]
    if (
        lm.kind == "causal"
        and not task.template.has_mask
        and len(parts) > 1
        and isinstance(parts[-1], PrefixPart)
    ):
        raise ConfigError(
            f"{task.name} ends with its {{prefix}}, which the last token before it, that is read, "
            "does not see: put it before some text."
        )
    if task.domain and task.reader != "words":
        raise ConfigError(
            f"{task.name} takes the domain's scores off those of words, and it reads by "
            f"{task.reader}."
        )


def _alike(examples: Sequence[Example], numbers: Sequence[int]) -> list[list[int]]:
    """Examples, by number, of the same task and verbalizer together."""
    groups: dict[Any, list[int]] = {}
    for number in numbers:
        groups.setdefault(
            (examples[number].task, id(examples[number].bound), examples[number].shares is None), []
        ).append(number)
    return list(groups.values())


def _fills(examples: Sequence[Example]) -> list[int]:
    """How many rows each example is for the LM."""
    return [len(example.fills) for example in examples]


def _batched(order: Sequence[int], sizes: Sequence[int], most: int) -> Iterator[list[int]]:
    """Numbers in batches whose sizes sum up to ``most`` at most, with one number at least."""
    batch: list[int] = []
    size = 0
    for number in order:
        if batch and size + sizes[number] > most:
            yield batch
            batch, size = [], 0
        batch.append(number)
        size += sizes[number]
    if batch:
        yield batch
