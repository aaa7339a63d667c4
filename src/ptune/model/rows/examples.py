"""Rows, tokenised. An example is a row as one task asks it; each kind of row has a class, with the
loss of that kind."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.answers.from_row import Span
from ptune.answers.readers.reader import FillOutput, Reader
from ptune.model.task import BoundTask, Row, Task
from ptune.template.language import EncodedRow

SCORED = 4  # a token that the vocabulary head scores is so much work as tokens that it does not
WARNED = 0.1  # the share of rows that are shortened from which it is a warning


@dataclass(frozen=True, kw_only=True)
class Example:
    """A row, tokenised.

    Attributes:
        task: the number of its task in the model.
        row: the row itself.
        fills: what is run to score it, or to write behind it: for each variant of the row
            (``BoundTask.variants``) the fills that its reader needs.
        learn: what is run to learn from it; nothing where a row teaches nothing.
        label: the number of the right label; None where the row has none.
        has_labels: whether its answer is one of some labels, which can be scored.
    """

    task: int
    row: Row
    fills: tuple[EncodedRow, ...]
    learn: tuple[EncodedRow, ...] = ()
    label: int | None = None
    has_labels: ClassVar[bool] = False

    @property
    def labels(self) -> BoundVerbalizer:
        """The labels of the row with their words."""
        raise TypeError(f"A {type(self).__name__} has no labels.")

    @property
    def length(self) -> int:
        """The number of tokens of its longest fill."""
        return max(len(fill.ids) for fill in self.fills)

    @property
    def read_ids(self) -> list[int]:
        """The tokens of all its fills."""
        return [token for fill in self.fills for token in fill.ids]

    @property
    def load(self) -> int:
        """How much work it is to learn from it, in tokens."""
        return sum(len(row.ids) for row in self.learn)

    @property
    def cut(self) -> int:
        """How many tokens of the row's fields were left out, at most, so that it fits."""
        return max((row.cut for row in (*self.fills, *self.learn)), default=0)

    def couples_rows(self, task: BoundTask) -> bool:
        """Whether its loss depends on the other rows of its task in the batch."""
        return False

    @classmethod
    def losses(
        cls,
        examples: Sequence[Self],
        outputs: Sequence[list[FillOutput]],
        task: BoundTask,
        reader: Reader,
    ) -> torch.Tensor:
        """The loss of each of some examples of this class, of one task and the same labels [B]: by
        default that of each by itself (``loss``).

        Args:
            outputs: for each example what the LM says of its ``learn``.
        """
        rows = zip(examples, outputs)
        return torch.stack(
            [example.loss(output[0].log_probs, task.task) for example, output in rows]
        )

    def loss(self, log_probs: torch.Tensor, task: Task) -> torch.Tensor:
        """The loss of this example by itself: one number.

        Args:
            log_probs: of the vocabulary at the K positions of its answer [K, V].
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ScoredExample(Example):
    """A row whose answer is one of some labels.

    Attributes:
        bound: the labels and their words, as this LM has them.
    """

    bound: BoundVerbalizer
    has_labels: ClassVar[bool] = True

    @property
    def labels(self) -> BoundVerbalizer:
        return self.bound

    @property
    def answer_to_start_from(self) -> int | tuple[bool, ...]:
        """What a reader that starts from rows takes of this one: the number of its label."""
        return self.label or 0

    @classmethod
    def scores(
        cls,
        examples: Sequence[Self],
        outputs: Sequence[list[FillOutput]],
        task: BoundTask,
        reader: Reader,
    ) -> Sequence[torch.Tensor]:
        """The label scores [C] of each of some examples of this class, of one task and the same
        labels, on the CPU.

        Args:
            outputs: for each example what the LM says of its ``fills``.
        """
        bound = examples[0].bound
        return list(task.label_scores(reader, task.read(reader, outputs, bound), bound).cpu())

    def loss_of_scores(self, scores: torch.Tensor) -> float:
        """Minus the log probability of its label, from the labels' scores [C]."""
        return float(-scores.log_softmax(0)[self.label or 0])


@dataclass(frozen=True, kw_only=True)
class LabelExample(ScoredExample):
    """A row with one label. Its loss is its reader's."""

    def couples_rows(self, task: BoundTask) -> bool:
        return task.task.reader.couples_rows

    @classmethod
    def losses(
        cls,
        examples: Sequence[Self],
        outputs: Sequence[list[FillOutput]],
        task: BoundTask,
        reader: Reader,
    ) -> torch.Tensor:
        inputs = task.read(reader, outputs, examples[0].bound)
        if task.task.windows == "none":
            return cls.losses_of_inputs(examples, inputs, reader)
        labels = torch.tensor([example.label for example in examples], device=inputs.device)
        scores = task.label_scores(reader, inputs, examples[0].bound)
        return nn.functional.cross_entropy(scores, labels, reduction="none")

    @classmethod
    def losses_of_inputs(
        cls, examples: Sequence[Self], inputs: torch.Tensor, reader: Reader
    ) -> torch.Tensor:
        """The loss of each example [B].

        Args:
            inputs: what the reader reads of them [variants, B, F].
        """
        labels = torch.tensor([example.label for example in examples], device=inputs.device)
        return reader.losses(inputs, examples[0].bound, labels)


@dataclass(frozen=True, kw_only=True)
class LabelSetExample(ScoredExample):
    """A row with none, one or several of the labels. Its loss is the mean over the labels of the
    binary cross entropy between the sigmoid of a label's score and whether the row has it.

    Attributes:
        present: for each label whether the row has it.
    """

    present: tuple[bool, ...]

    @property
    def answer_to_start_from(self) -> int | tuple[bool, ...]:
        """For each label whether the row has it."""
        return self.present

    @classmethod
    def losses(
        cls,
        examples: Sequence[Self],
        outputs: Sequence[list[FillOutput]],
        task: BoundTask,
        reader: Reader,
    ) -> torch.Tensor:
        bound = examples[0].bound
        scores = task.label_scores(reader, task.read(reader, outputs, bound), bound)
        present = scores.new_tensor([example.present for example in examples])
        return binary_cross_entropy_with_logits(scores, present, reduction="none").mean(1)

    def loss_of_scores(self, scores: torch.Tensor) -> float:
        """The mean binary cross entropy over the labels, from their scores [C]."""
        return float(binary_cross_entropy_with_logits(scores, scores.new_tensor(self.present)))


@dataclass(frozen=True, kw_only=True)
class SharesExample(ScoredExample):
    """A row that another model answered. Its loss is how far the scores of the labels are from the
    shares that the other model gave them (Kullback-Leibler divergence at a temperature; Hinton et
    al. 2015).

    Attributes:
        shares: how much of the row each label has; they add up to 1.
    """

    shares: tuple[float, ...]

    def loss_of_scores(self, scores: torch.Tensor) -> float:
        """The cross entropy of the labels' probabilities with the shares, from their scores [C]."""
        return float(-(scores.log_softmax(0) * scores.new_tensor(self.shares)).sum())

    @classmethod
    def losses(
        cls,
        examples: Sequence[Self],
        outputs: Sequence[list[FillOutput]],
        task: BoundTask,
        reader: Reader,
    ) -> torch.Tensor:
        bound, temperature = examples[0].bound, task.task.temperature
        scores = task.label_scores(reader, task.read(reader, outputs, bound), bound)
        shares = scores.new_tensor([example.shares for example in examples])
        return temperature**2 * nn.functional.kl_div(
            (scores / temperature).log_softmax(1), shares, reduction="none"
        ).sum(1)


@dataclass(frozen=True, kw_only=True)
class VocabularyExample(ScoredExample):
    """A row whose label's word is compared with every token of the LM. Its loss is minus the log
    probability of that word.

    Attributes:
        answer: the tokens of the word.
    """

    answer: tuple[int, ...]

    def loss(self, log_probs: torch.Tensor, task: Task) -> torch.Tensor:
        return _token_losses(self.answer, log_probs).sum()


@dataclass(frozen=True, kw_only=True)
class SpanExample(ScoredExample):
    """A row with a text that the LM should spell, where it is right. Its loss is the mean over the
    tokens of the text; a wrong row teaches nothing.

    Attributes:
        span: how the text is spelled and compared.
        answer: the tokens that a right row teaches.
    """

    span: Span
    answer: tuple[int, ...] = ()

    def loss(self, log_probs: torch.Tensor, task: Task) -> torch.Tensor:
        return _token_losses(self.answer, log_probs).mean()


@dataclass(frozen=True, kw_only=True)
class TextExample(Example):
    """A row whose answer is a text that the LM writes. Its loss is the sum over the tokens of the
    text (Prefix-Tuning, equation 2), smoothed where the task says so.

    Attributes:
        answer: the tokens of the right text, the end token included; none without one.
    """

    answer: tuple[int, ...] = ()

    def loss(self, log_probs: torch.Tensor, task: Task) -> torch.Tensor:
        loss = _token_losses(self.answer, log_probs).sum()
        if not task.smoothing:
            return loss
        return (1 - task.smoothing) * loss - task.smoothing * log_probs.mean(1).sum()


@dataclass(frozen=True, kw_only=True)
class HiddenWordsExample(Example):
    """A row without a label of which some words were hidden (PET, section 3.2). Its loss is the
    mean over the hidden tokens.

    Attributes:
        answer: the tokens that were hidden.
    """

    answer: tuple[int, ...]

    def loss(self, log_probs: torch.Tensor, task: Task) -> torch.Tensor:
        return _token_losses(self.answer, log_probs).mean()


def _token_losses(answer: Sequence[int], log_probs: torch.Tensor) -> torch.Tensor:
    """Minus the log probability of each token of an answer [K, 1], from those of the vocabulary
    [K, V]."""
    tokens = torch.tensor(answer, device=log_probs.device)
    return -log_probs.gather(1, tokens[:, None])


@dataclass(frozen=True, eq=False)
class TaughtText:
    """A text, and what another model (the teacher) says of each of its tokens, in the place of a
    row's right answer.

    Attributes:
        ids: the tokens that stand behind the task's prefix [T].
        places: the positions in ``ids`` behind which the teacher was read [K].
        likeliest: the numbers of the teacher's k likeliest tokens at each place [K, k].
        log_probs: the teacher's log probabilities of these, and last of all other tokens together
            [K, k + 1].
        source: what decides these values, by which a run knows the row again.
    """

    ids: tuple[int, ...]
    places: tuple[int, ...]
    likeliest: torch.Tensor
    log_probs: torch.Tensor
    source: str

    def __str__(self) -> str:
        return self.source


@dataclass(frozen=True, kw_only=True)
class TaughtExample(Example):
    """A text of which another model said how it goes on. Its loss is the mean over its places of
    the Kullback-Leibler divergence from the teacher, over the teacher's likeliest tokens and all
    others together, at the task's temperature (Hinton et al. 2015).

    Attributes:
        taught: the text and what the teacher said.
    """

    taught: TaughtText

    @property
    def load(self) -> int:
        """How much work the example is, in tokens: nearly every one of its tokens is scored."""
        return SCORED * super().load

    def loss(self, log_probs: torch.Tensor, task: Task) -> torch.Tensor:
        if task.temperature != 1:
            log_probs = (log_probs / task.temperature).log_softmax(-1)
        likeliest = self.taught.likeliest.to(log_probs.device)
        others = log_probs.scatter(1, likeliest, -torch.inf).logsumexp(1, keepdim=True)
        student = torch.cat([log_probs.gather(1, likeliest), others], 1)
        teacher = self.taught.log_probs.to(log_probs.device)
        divergence = nn.functional.kl_div(student, teacher, reduction="sum", log_target=True)
        return task.temperature**2 * divergence / len(teacher)


@dataclass
class Shortening:
    """How many of some rows were shortened to fit, and by how many tokens at most."""

    rows: int = 0
    shortened: int = 0
    most: int = 0

    def count(self, examples: Iterable[Example]) -> None:
        """Count one more row, which is these examples."""
        self.add(max((example.cut for example in examples), default=0))

    def add(self, cut: int) -> None:
        """Count one more row, of which so many tokens were left out."""
        self.rows += 1
        self.shortened += cut > 0
        self.most = max(self.most, cut)

    def merge(self, other: "Shortening") -> None:
        """Count the rows that another one counted."""
        self.rows += other.rows
        self.shortened += other.shortened
        self.most = max(self.most, other.most)

    def sentence(self, what: str, limit: int | None) -> str:
        """What was shortened, as a sentence; nothing where no row was. Where it is more than one
        row in ten, it is a warning.

        Args:
            what: the rows: "training rows".
            limit: the most tokens of an input.
        """
        if not self.shortened:
            return ""
        counts = (
            f"{self.shortened} of {self.rows} {what} were shortened to fit, by {self.most} "
            "tokens at most."
        )
        if self.shortened <= self.rows * WARNED:
            return counts
        return (
            f"Warning: {counts} The LM does not see what was cut off; an input may have {limit} "
            "tokens here (max_length)."
        )
