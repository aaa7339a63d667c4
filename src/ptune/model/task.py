"""What is asked, and how: a task, and the same bound to an LM."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch.nn.functional import logsigmoid

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.answers.confidence import Confidence
from ptune.answers.ensemble import Combine
from ptune.answers.extraction import Extraction
from ptune.answers.from_row import Choices, Span
from ptune.answers.label_words import Verbalizer
from ptune.answers.neighbours import Neighbours
from ptune.answers.readers.reader import Answer, FillOutput, Reader
from ptune.answers.readers.word_reader import WordReader
from ptune.answers.word_labels import WordLabels
from ptune.data.row import label_names, spelled
from ptune.errors import ConfigError, DataError, VerbalizerError, nearest
from ptune.metrics.label_sets import MIDDLE
from ptune.metrics.text_words import WordSplit
from ptune.settings import NEIGHBOURS, DecodingConfig, LayoutConfig
from ptune.survey.findings import likest_label
from ptune.template.language import Kind, Template
from ptune.template.tokenizer import Tokens

Row = Mapping[str, Any]
Loss = Literal["labels", "vocabulary", "hinge"]
Pooling = Literal["first", "mean"]
Windows = Literal["none", "mean", "max"]
Gates = bool | Literal["row"]
"""What gates of a prefix there are: none, one number for each attention, or those that read each
row."""


def prompt_value(row: Row, field: str) -> str:
    """The value of a row's field that chooses its prompt: a text, or what a text says as well (1 is
    "1").

    Raises:
        DataError: there is none: the field is missing or null, or holds a list.
    """
    if field not in row:
        raise DataError(
            f"The row has no field {field!r}, which chooses its prompt. "
            f"{nearest(field, map(str, row))}"
        )
    value = row[field]
    if not isinstance(value, str | int | float):
        raise DataError(
            f"The row's {field} is {'null' if value is None else type(value).__name__}, and a "
            "text should choose its prompt."
        )
    return spelled(value)


@dataclass(frozen=True)
class PrefixSettings:
    """How a deep prefix (``{prefix:5}`` in a template) is made and begins.

    Attributes:
        hidden: width of the MLP that makes it while it is trained (Prefix-Tuning, section 4.3); 0
            trains it directly.
        init: "random", "zeros", or words: the LM's own activations of them, repeated to the
            prefix's length. A prefix that the template gives words starts from those.
        attentions: the attentions that it enters, of "encoder", "decoder" and "cross" in an
            encoder-decoder; all by default.
        gates: True: a trained number for each attention, by which the keys and values there are
            multiplied while it is trained; "row": a trained function of the row's text for each.
    """

    hidden: int = 512
    init: str = "random"
    attentions: tuple[str, ...] = ()
    gates: Gates = False

    @property
    def reads_rows(self) -> bool:
        """Whether each row has a prefix of its own."""
        return self.gates == "row"


@dataclass(frozen=True)
class Task:
    """What is asked, and how.

    Attributes:
        name: told apart by it in a bank.
        template: where fields, soft tokens and the answer stand.
        verbalizer: how the answer is read; None where the answer is text that the LM writes. Where
            it is a label for each word (``WordLabels``), or a part of a text of the row
            (``Extraction``), the reader is "token-head".
        target: the row's field that holds the right label, or the text, or a list of texts that are
            all right. To learn from another model, a list of each label's share.
        encoder: how the soft tokens' vectors are made: "lstm", "mlp" or "table"; or
            "multitask", by a table that the prompts share which rows choose by the same field.
        init: what they start from: "random" (at the scale of the LM's embeddings), "vocabulary"
            (frequent tokens of the rows), "labels" (the label words), or other text, which is
            repeated to the prompt's length. Soft tokens that the template gives words start from
            those.
        loss: "vocabulary" compares the right answer with every token of the LM (as P-tuning's LAMA
            code), "labels" with the other labels only (as PET), "hinge" likewise, by a margin (as
            PET and P-tuning's code for choices).
        seed: of the initialisation.
        prefix: how a deep prefix is made, where the template has one.
        smoothing: of a written answer's loss: the share of each token's target that is spread over
            the vocabulary.
        target_length: the most tokens of a written answer that are learned from.
        decoding: how answers are written.
        combine: how the task answers with others of an ensemble.
        neighbours: with combine "neighbours" how many of the nearest labelled rows count.
        by: a field and the value of it that the task's rows have, where others of the same kind
            take the other rows.
        reader: the class that scores the labels, one of ``ptune.READERS``: by their words, or by
            what is trained beside the prompt: a soft verbalizer, prototypes, or a classification
            head, which without a ``{mask}`` reads the input's first token, or a causal LM's last.
            "pair" is the LM's own next-sentence head; the labels' words are then the relations that
            it tells.
        swap: two fields, for pairs that are symmetric: each row is run in both orders. Scores are
            averaged; of a trained reader, the vectors are added before it (GPT, section 4.1).
        domain: the question without the row's own text; its scores are taken off (PMI, Holtzman et
            al. 2021).
        temperature: at which labels' shares are compared (distillation).
        max_length: the most tokens of an input; the LM's own limit by default.
        layout: how files of the task's rows are read.
        metrics: the figures by which answers are scored; by default those of its kind of task.
        metric_words: how texts are split into words for the figures of written answers; "auto" goes
            by the script of the right texts.
        parts: a field of the rows by whose values the figures are given apart too.
        pooling: what a trained reader reads of an input without a ``{mask}``: its first token (of a
            causal LM the last), or the mean of all its tokens.
        layer: the layer whose hidden states a trained reader reads, counted from 1; None for the
            last.
        windows: what becomes of a text that does not fit: "none" shortens it, else it is read part
            by part, and each label's probability is the mean over the parts, or the largest.
        multi_label: a row has none, one or several labels, of which its target holds a list; each
            label's probability is the sigmoid of its score.
        threshold: with ``multi_label`` the probability from which a row has a label; None for the
            one with the best f1-micro on the dev rows.
    """

    name: str
    template: Template
    verbalizer: Verbalizer | Choices | Span | WordLabels | Extraction | None = None
    target: str = "label"
    encoder: str = "lstm"
    init: str = "random"
    loss: Loss = "labels"
    seed: int = 0
    prefix: PrefixSettings = PrefixSettings()
    smoothing: float = 0.0
    target_length: int | None = None
    decoding: DecodingConfig = DecodingConfig()
    combine: Combine = "mean"
    neighbours: int = NEIGHBOURS
    by: tuple[str, str] | None = None
    reader: type[Reader] = WordReader
    swap: tuple[str, str] | None = None
    domain: Template | None = None
    temperature: float = 1.0
    max_length: int | None = None
    layout: LayoutConfig = LayoutConfig()
    metrics: tuple[str, ...] = ()
    metric_words: WordSplit = "auto"
    parts: str | None = None
    pooling: Pooling = "first"
    layer: int | None = None
    windows: Windows = "none"
    multi_label: bool = False
    threshold: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.verbalizer, WordLabels) and isinstance(self.template, Template):
            object.__setattr__(self, "template", self.template.joined(self.verbalizer.field))


def _mean_log_odds(scores: torch.Tensor) -> torch.Tensor:
    """The score whose sigmoid is the mean of the sigmoids of some scores [S, ...]."""
    return logsigmoid(scores).logsumexp(0) - logsigmoid(-scores).logsumexp(0)


@dataclass(frozen=True)
class BoundTask:
    """A task bound to the LM.

    Attributes:
        template, domain: those of the task as this kind of LM takes them.
        verbalizer: bound, or the choices or the span that each row binds, the labels of words, or
            the text of which the answer is a part.
        prompt: the number of its prompt in the bank (-1: none).
        dropped: what was left out of the template.
        offset: what calibration takes off the log probability of each word.
        weight: of a member in an ensemble.
        neighbours: of a member in an ensemble, what it knows of labelled rows.
        threshold: the probability from which a row has a label (``Task.multi_label``).
        confidence: what rows that were not learned from say about its probabilities; of an
            ensemble all members keep the same.
    """

    task: Task
    template: Template
    verbalizer: BoundVerbalizer | Choices | Span | WordLabels | Extraction | None
    prompt: int
    dropped: str = ""
    domain: Template | None = None
    offset: tuple[float, ...] | None = None
    weight: float = 1.0
    neighbours: Neighbours | None = None
    threshold: float = MIDDLE
    confidence: Confidence | None = None

    def bound(self, row: Row, tokens: Tokens, kind: Kind) -> BoundVerbalizer:
        """The verbalizer for a row.

        Raises:
            ConfigError: the task's answer is text.
            VerbalizerError: the row's own answers are no choice.
        """
        if self.verbalizer is None:
            raise ConfigError(
                f"{self.task.name} has no labels to score: its answers are text, which "
                "ptune.generate writes."
            )
        return (
            self.verbalizer
            if isinstance(self.verbalizer, BoundVerbalizer)
            else self.verbalizer.bind(row, tokens, self.template.place, kind)
        )

    def read(
        self, reader: Reader, outputs: Sequence[list[FillOutput]], bound: BoundVerbalizer
    ) -> torch.Tensor:
        """What a reader reads of rows with the same labels, in each variant of them [variants, B,
        F]: corrected by the domain and the calibration, where the task has them."""
        return self.corrected(reader.read(outputs, bound))

    def corrected(self, inputs: torch.Tensor) -> torch.Tensor:
        """What is read of each variant of some rows [variants, B, F], less what is read of the
        domain, which is then the last variant, and less what calibration takes off."""
        if self.domain:
            inputs = inputs[:-1] - inputs[-1:]
        return inputs if self.offset is None else inputs - inputs.new_tensor(self.offset)

    def label_scores(
        self, reader: Reader, inputs: torch.Tensor, bound: BoundVerbalizer
    ) -> torch.Tensor:
        """The scores of the labels of rows [B, C]; where texts are read in windows, those of the
        labels' mean or largest probability over the windows.

        Args:
            inputs: what is read of them (``read``): the variants or windows of each.
        """
        if self.task.windows == "none":
            return reader.scores(inputs, bound)
        if self.task.multi_label:
            scores = torch.stack([reader.scores(window[None], bound) for window in inputs])
            return scores.amax(0) if self.task.windows == "max" else _mean_log_odds(scores)
        shares = torch.stack(
            [reader.scores(window[None], bound).log_softmax(-1) for window in inputs]
        )
        if self.task.windows == "max":
            return shares.amax(0)
        return shares.logsumexp(0) - math.log(len(shares))

    def answers(self, bound: BoundVerbalizer) -> list[Answer]:
        """How the answer's place is filled in turn to score a row."""
        if isinstance(self.verbalizer, Span):
            return [self.verbalizer.start(bound)]
        return self.task.reader.answers(bound)

    def variants(self, row: Row) -> list[tuple[Template, Row]]:
        """How a row is run: as it is, with two fields exchanged, and without its text
        (``Task.swap``, ``Task.domain``).

        Raises:
            DataError: it lacks a field that is exchanged.
        """
        variants = [(self.template, row)]
        if self.task.swap:
            if missing := next((name for name in self.task.swap if name not in row), None):
                raise DataError(
                    f"The row has no field {missing!r}, which is exchanged with another. "
                    f"{nearest(missing, map(str, row))}"
                )
            name, other = self.task.swap
            swapped = {**row, name: row[other], other: row[name]}
            variants.append((self.template, swapped))
        return variants if self.domain is None else [*variants, (self.domain, row)]

    def right(self, row: Row) -> Any:
        """What the row's target field holds.

        Raises:
            DataError: it has none.
        """
        if self.task.target not in row:
            raise DataError(
                f"The field {self.task.target!r}, which should hold the right answer, is missing. "
                f"{nearest(self.task.target, map(str, row))}"
            )
        return row[self.task.target]

    def label_set(self, row: Row, labels: Sequence[str]) -> tuple[bool, ...]:
        """For each label whether a row has it.

        Raises:
            DataError: its target holds no list of labels.
            VerbalizerError: it names a label that there is not.
        """
        right, separator = self.right(row), self.task.layout.label_separator
        names = label_names(right, separator)
        if unknown := next((name for name in names if name not in labels), None):
            several = (
                " If a cell holds several labels, --label-separator says what stands between them."
                if separator is None and isinstance(right, str)
                else ""
            )
            raise VerbalizerError(
                f"There is no label {unknown!r}. {likest_label(unknown, labels)}{several}"
            )
        return tuple(label in names for label in labels)

    def texts(self, row: Row) -> list[str]:
        """The right texts of a row, one or several.

        Raises:
            DataError: there is none, or it is no text.
        """
        target = self.right(row)
        texts = target if isinstance(target, list) else [target]
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise DataError(
                f"The field {self.task.target!r} should hold a text, or a list of texts, and "
                f"holds {str(target)[:60]!r}."
            )
        return texts

    def shares(self, row: Row, labels: int) -> tuple[float, ...] | None:
        """The labels' shares of a row that another model answered; None where it has a label.

        Raises:
            DataError: they are not as many as the labels, or no shares of one whole.
        """
        target = self.right(row)
        if not isinstance(target, list):
            return None
        if target and all(isinstance(x, int) for x in target):
            raise DataError(
                f"The field {self.task.target!r} holds the whole numbers {str(target)[:60]}. For "
                "one label, give its name; "
                f"for shares of labels, numbers such as {[1.0, 0.0]}."
            )
        if (
            len(target) != labels
            or not all(isinstance(x, float | int) and x >= 0 for x in target)
            or abs(sum(target) - 1) > 1e-3
        ):
            raise DataError(
                f"The field {self.task.target!r} should hold a label, or {labels} shares that add "
                f"up to 1, and holds {str(target)[:60]!r}."
            )
        return tuple(map(float, target))


def bound_to(task: Task, tokens: Tokens, kind: Kind) -> BoundTask:
    """A task as an LM takes it that has this tokenizer and is of this kind, without a prompt yet.

    Raises:
        TemplateError, VerbalizerError, ConfigError: the task does not fit such an LM.
    """
    template, dropped = task.template.for_lm(tokens, kind, whole=task.reader.mask != "needed")
    bound_task = BoundTask(
        task=task,
        template=template,
        verbalizer=_bound_verbalizer(task, template, tokens, kind),
        prompt=-1,
        dropped=dropped,
        domain=_bound_domain(task, template, tokens, kind),
    )
    return bound_task if task.threshold is None else replace(bound_task, threshold=task.threshold)


def _bound_verbalizer(
    task: Task, template: Template, tokens: Tokens, kind: Kind
) -> BoundVerbalizer | Choices | Span | WordLabels | Extraction | None:
    if not isinstance(task.verbalizer, Verbalizer):
        return task.verbalizer
    if task.reader.binds_words:
        return task.verbalizer.bind(tokens, template.place, kind)
    return BoundVerbalizer(task.verbalizer.labels, (), (), kind)


def _bound_domain(task: Task, template: Template, tokens: Tokens, kind: Kind) -> Template | None:
    """The task's question without its text, where the soft tokens and the prefix are those of its
    template."""
    if task.domain is None:
        return None
    domain, _ = task.domain.for_lm(tokens, kind)
    sizes = (domain.prompt_length(tokens), domain.prefix_length(tokens))
    of_template = (template.prompt_length(tokens), template.prefix_length(tokens))
    if sizes not in ((0, 0), of_template):
        raise ConfigError(
            f"The domain of {task.name} should have the template's soft tokens and prefix, or "
            f"none: {domain.source!r} has others."
        )
    return domain
