"""Where LM, bank, templates and verbalizers meet: tasks of all kinds, trained and answered in one batch."""
import itertools
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from ptune import encoders
from ptune.batch import collate
from ptune.errors import ConfigError, DataError, PtuneError, nearest
from ptune.lm import LanguageModel
from ptune.prompts import Bank
from ptune.template import Encoded, Template
from ptune.verbalizer import Bound, Verbalizer

Row = Mapping[str, Any]
Loss = Literal["labels", "vocabulary"]
EVALUATION_ROWS = 64


@dataclass(frozen=True)
class Task:
    """What is asked, and how.

    Attributes:
        name: told apart by it in a bank.
        template: where fields, soft tokens and the answer stand.
        verbalizer: how the answer is read.
        target: the row's field that holds the right label.
        encoder: how the soft tokens' vectors are made: "lstm", "mlp" or "table".
        init: what they start from: "random" (at the scale of the LM's embeddings), "vocabulary" (frequent tokens of the
            rows), "labels" (the label words), or other text, which is repeated to the prompt's length. Soft tokens that
            the template gives words start from those.
        loss: "vocabulary" compares the right answer with every token of the LM (as P-tuning's LAMA code), "labels" with
            the other labels only (as PET).
        seed: of the initialisation.
    """

    name: str
    template: Template
    verbalizer: Verbalizer
    target: str = "label"
    encoder: str = "lstm"
    init: str = "random"
    loss: Loss = "labels"
    seed: int = 0


@dataclass(frozen=True)
class Example:
    """A row, tokenised: what is run to score it, what is run to learn from it, and the right answer."""

    task: int
    row: Row
    fills: tuple[Encoded, ...]
    label: int | None = None
    learn: tuple[Encoded, ...] = ()
    answer: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        return max(len(fill.ids) for fill in self.fills)


@dataclass(frozen=True)
class Fitted:
    """A task bound to the LM: its template and verbalizer there, the number of its prompt (-1: none), and what was dropped
    from the template."""

    task: Task
    template: Template
    verbalizer: Bound
    prompt: int
    dropped: str = ""


@dataclass
class PromptModel:
    """A frozen LM with any number of tasks; each has a prompt in the bank, if its template has soft tokens.

    Relations: ``LanguageModel`` runs, ``Bank`` holds the trained values, ``ptune.train.fit`` trains them.
    """

    lm: LanguageModel
    bank: Bank = field(default_factory=Bank)
    tasks: list[Fitted] = field(default_factory=list)
    max_length: int | None = None

    def __post_init__(self) -> None:
        limits = [limit for limit in (self.max_length, self.lm.max_length) if limit]
        self.max_length = min(limits) if limits else None

    def add(self, task: Task, rows: Sequence[Row] = (), encoder: nn.Module | None = None) -> int:
        """Add a task, its prompt initialised; return its number.

        Args:
            rows: the task's training rows, in which the frequent tokens of ``init="vocabulary"`` are counted.
            encoder: the prompt as it is, instead of a new one.

        Raises:
            TemplateError, VerbalizerError, ConfigError: the task does not fit this LM.
        """
        template, dropped = task.template.for_kind(self.lm.kind)
        bound = task.verbalizer.bind(self.lm.tokens, template.place, self.lm.kind)
        length = template.prompt_length(self.lm.tokens)
        prompt = self.bank.add(encoder or self._encoder(task, template, bound, length, rows)) if length else -1
        self.tasks.append(Fitted(task, template, bound, prompt, dropped))
        return len(self.tasks) - 1

    def number(self, name: str) -> int:
        """The number of the task of that name."""
        names = [fitted.task.name for fitted in self.tasks]
        if name not in names:
            raise ConfigError(f"There is no task {name!r} here. {nearest(name, names)}")
        return names.index(name)

    def _encoder(self, task: Task, template: Template, bound: Bound, length: int, rows: Sequence[Row]) -> nn.Module:
        """The prompt's encoder at its starting point, which follows from the task's name and seed alone."""
        seed = task.seed * 1_000_003 + zlib.crc32(task.name.encode())
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = encoders.make(task.encoder, length, self.lm.width)
        encoder.to(self.lm.device)
        starts = self._starting_ids(task, template, bound, length, rows, generator)
        with torch.no_grad():
            some = self.lm.embed(torch.randint(len(self.lm.tokens.tokenizer), (2000,), generator=generator)).float()
            encoders.start_at_random(encoder, some, generator)
            wanted = encoders.bake(encoder)
            for at, ids in enumerate(starts):
                if ids is not None:
                    wanted[at] = self.lm.embed(torch.tensor(ids)).float().mean(0)
        if any(ids is not None for ids in starts):
            encoders.start_from(encoder, wanted)
        return encoder

    def _starting_ids(self, task: Task, template: Template, bound: Bound, length: int, rows: Sequence[Row],
                      generator: torch.Generator) -> list[list[int] | None]:
        """For each vector the tokens whose mean embedding it starts from, None for a random start."""
        tokens = self.lm.tokens
        if task.init == "random":
            default: list[list[int] | None] = [None] * length
        elif task.init in ("vocabulary", "labels"):
            frequent = encoders.from_frequent(self._counts(template, rows), length, generator)
            default = [[id_] for id_ in frequent]
            if task.init == "labels":
                default = ([list(bound.first_word(number)) for number in range(min(length, len(bound.labels)))] + default)[:length]
        else:
            ids = tokens.follow(f" {task.init}")
            default = [[id_] for id_ in itertools.islice(itertools.cycle(ids), length)]
        own = [words[place] if words else None for size, words in template.groups(tokens) for place in range(size)]
        return [given if mine is None else [mine] for mine, given in zip(own, default)]

    def _counts(self, template: Template, rows: Sequence[Row]) -> list[int]:
        if not rows:
            raise ConfigError('init "vocabulary" or "labels" counts frequent tokens in the training rows: give them.')
        counted: Counter[int] = Counter()
        for row in rows:
            for name in template.fields:
                counted.update(self.lm.tokens.follow(f" {row.get(name, '')}"))
        special = set(self.lm.tokens.tokenizer.all_special_ids)
        return [0 if id_ in special else counted[id_] for id_ in range(len(self.lm.tokens.tokenizer))]

    # Rows to examples.

    def encode(self, task: int, rows: Sequence[Row], labelled: bool = True) -> list[Example]:
        """Tokenise rows once.

        Args:
            labelled: the rows hold the right label in the task's target field.

        Raises:
            TemplateError, DataError: a row does not fit; its number is told.
        """
        return list(self._examples(task, rows, labelled))

    def _examples(self, task: int, rows: Sequence[Row], labelled: bool) -> Iterator[Example]:
        fitted = self.tasks[task]
        for number, row in enumerate(rows, 1):
            try:
                yield self._example(task, fitted, row, labelled)
            except PtuneError as error:
                raise type(error)(f"Row {number} of {fitted.task.name}: {error}") from error

    def _example(self, task: int, fitted: Fitted, row: Row, labelled: bool) -> Example:
        fills = tuple(self._encode(fitted, row, fill.answer) for fill in fitted.verbalizer.fills)
        if not labelled:
            return Example(task, row, fills)
        if fitted.task.target not in row:
            raise DataError(f"The field {fitted.task.target!r}, which should hold the right answer, is missing. "
                            f"{nearest(fitted.task.target, map(str, row))}")
        label = fitted.verbalizer.number(str(row[fitted.task.target]))
        answer = fitted.verbalizer.first_word(label)
        if fitted.task.loss == "labels":
            return Example(task, row, fills, label, fills, answer)
        given = (None,) * len(answer) if self.lm.kind == "masked" or len(answer) == 1 else answer
        return Example(task, row, fills, label, (self._encode(fitted, row, given),), answer)

    def _encode(self, fitted: Fitted, row: Row, answer: Sequence[int | None]) -> Encoded:
        return fitted.template.encode(row, self.lm.tokens, self.lm.kind, self.max_length, answer, self.lm.start)

    # Examples to losses and scores.

    def losses(self, examples: Sequence[Example]) -> torch.Tensor:
        """The loss of each example [B]: minus the log probability of the right answer. One call of the LM for all, whatever
        their tasks."""
        rows = [(example.task, row) for example in examples for row in example.learn]
        log_probs = self._log_probs(rows)
        losses: list[torch.Tensor | None] = [None] * len(examples)
        firsts = list(itertools.accumulate((len(example.learn) for example in examples), initial=0))
        for number, members in _grouped(examples, lambda e: e.task):
            fitted = self.tasks[number]
            if fitted.task.loss == "labels":
                scores = self._labels(fitted, log_probs, [firsts[m] for m in members])
                labels = torch.tensor([examples[m].label for m in members], device=scores.device)
                own = nn.functional.cross_entropy(scores, labels, reduction="none")
                for member, loss in zip(members, own):
                    losses[member] = loss
            else:
                for member in members:
                    values = log_probs[firsts[member]]  # [K, V]
                    answer = torch.tensor(examples[member].answer, device=values.device)
                    losses[member] = -values.gather(1, answer[:, None]).sum()
        return torch.stack([loss for loss in losses if loss is not None])

    @torch.no_grad()
    def scores(self, examples: Sequence[Example], rows: int = EVALUATION_ROWS) -> list[torch.Tensor]:
        """The label scores of each example [C], on the CPU: log probabilities, not normalised over the labels. Examples of
        like length share a batch; the LM's dropout is off."""
        tuned = self.lm.model.training
        self.lm.model.eval()
        found: list[torch.Tensor | None] = [None] * len(examples)
        order = sorted(range(len(examples)), key=lambda i: examples[i].length)
        vectors = self._vectors([example.task for example in examples])
        for batch in _batched(order, examples, rows):
            log_probs = self._log_probs([(examples[i].task, fill) for i in batch for fill in examples[i].fills], vectors)
            firsts = list(itertools.accumulate((len(examples[i].fills) for i in batch), initial=0))
            for number, members in _grouped([examples[i] for i in batch], lambda e: e.task):
                scores = self._labels(self.tasks[number], log_probs, [firsts[m] for m in members]).cpu()
                for member, own in zip(members, scores):
                    found[batch[member]] = own
        self.lm.model.train(tuned)
        return [own for own in found if own is not None]

    def predict(self, rows: Sequence[Row], task: int | str = 0) -> list[dict[str, Any]]:
        """Answer rows: for each its best label, and the probability of every label among them."""
        number = self.number(task) if isinstance(task, str) else task
        return self.answers(self.encode(number, rows, labelled=False))

    def answers(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """The same for examples, of any tasks."""
        answers = []
        for example, scores in zip(examples, self.scores(examples)):
            labels, shares = self.tasks[example.task].verbalizer.labels, scores.softmax(0)
            answers.append({"label": labels[int(shares.argmax())], "scores": {label: float(share) for label, share in zip(labels, shares)}})
        return answers

    def _labels(self, fitted: Fitted, log_probs: Sequence[torch.Tensor], firsts: Sequence[int]) -> torch.Tensor:
        """Label scores [B, C] of the examples whose fills begin at ``firsts``."""
        fills = range(len(fitted.verbalizer.fills))
        return fitted.verbalizer.scores([torch.stack([log_probs[first + fill] for first in firsts]) for fill in fills])

    def _log_probs(self, rows: Sequence[tuple[int, Encoded]], vectors: tuple[torch.Tensor | None, dict[int, int]] | None = None) -> list[torch.Tensor]:
        """Run rows of any tasks as one batch: for each row, the log probabilities where its answer is read [K, V]."""
        values, places = vectors or self._vectors([task for task, _ in rows])
        prompts = [places.get(self.tasks[task].prompt, -1) for task, _ in rows]
        batch = collate([row for _, row in rows], prompts, self.lm.tokens.pad)
        scores = self.lm.scores(batch, values).log_softmax(-1)
        return list(scores.split([len(row.reads) for _, row in rows]))

    def _vectors(self, tasks: Sequence[int]) -> tuple[torch.Tensor | None, dict[int, int]]:
        """The vectors of the prompts of some tasks, and where each prompt's are among them."""
        numbers = sorted({self.tasks[task].prompt for task in tasks} - {-1})
        return self.bank.vectors(numbers), {number: at for at, number in enumerate(numbers)}


def _grouped(examples: Sequence[Example], key: Any) -> list[tuple[int, list[int]]]:
    groups: dict[int, list[int]] = {}
    for place, example in enumerate(examples):
        groups.setdefault(key(example), []).append(place)
    return list(groups.items())


def _batched(order: Sequence[int], examples: Sequence[Example], rows: int) -> Iterator[list[int]]:
    """Batches of examples with at most ``rows`` rows for the LM, at least one example."""
    batch: list[int] = []
    size = 0
    for number in order:
        fills = len(examples[number].fills)
        if batch and size + fills > rows:
            yield batch
            batch, size = [], 0
        batch.append(number)
        size += fills
    if batch:
        yield batch
