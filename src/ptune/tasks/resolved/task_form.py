"""What a task asks, what its answers are, how they are judged, and how its prompts learn: plain
values, which no file and no option is read into."""

import pathlib
from dataclasses import dataclass, field, replace

from ptune.answers.ensemble import Combine
from ptune.answers.extraction import Extraction
from ptune.answers.from_row import TRUTH
from ptune.answers.word_labels import WordLabels
from ptune.metrics.text_words import WordSplit
from ptune.model.task import Loss, PrefixSettings
from ptune.settings import (
    NEIGHBOURS,
    DecodingConfig,
    EncoderName,
    LayoutConfig,
    PrefixConfig,
    VisibilityRule,
)
from ptune.tasks.schema import ReadingConfig, Words
from ptune.training.methods import Method, What


@dataclass(frozen=True)
class Answers:
    """What the answers of a task are; without any of these, texts that the LM writes.

    Attributes:
        labels: for each label its word, or several.
        verbalizers: other words for the same labels.
        relations: for each label the relations of a next-sentence head that stand for it.
        choices: the fields of the row that hold an answer each, or one that holds a list of them.
        span: the field of the row with the text that the answer should spell.
        vocabulary: the file of allowed answers.
        word_labels: how each word of a row has one of the labels.
        extraction: the text of which an answer is a part.
        multi_label: a row has none, one or several of the labels.
    """

    labels: Words = field(default_factory=dict)
    verbalizers: tuple[Words, ...] = ()
    relations: Words = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    span: str | None = None
    vocabulary: pathlib.Path | None = None
    word_labels: WordLabels | None = None
    extraction: Extraction | None = None
    multi_label: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The task's own labels."""
        return tuple(self.labels)

    @property
    def shared(self) -> tuple[str, ...]:
        """The labels that all rows have; none where rows bring their own answers."""
        return TRUTH if self.span else self.names

    @property
    def are_chosen(self) -> bool:
        """Whether an answer is a label, a choice, or right or wrong, of each row as a whole."""
        return bool(self.labels or self.choices or self.span or self.vocabulary)

    @property
    def are_written(self) -> bool:
        """Whether answers are texts that the LM writes."""
        return not (self.are_chosen or self.extraction)

    @property
    def are_read_at_tokens(self) -> bool:
        """Whether single tokens of a row are read, instead of one place for the whole row."""
        return self.word_labels is not None or self.extraction is not None


@dataclass(frozen=True)
class Judging:
    """How answers are judged.

    Attributes:
        metrics: the figures that are asked for, the main one first; none for those of its kind.
        metric_words: how written answers are split into words.
        parts: the field of the rows by which the figures are given apart too.
        stop_by: of written answers, what decides on dev.
    """

    metrics: tuple[str, ...] = ()
    metric_words: WordSplit = "auto"
    parts: str | None = None
    stop_by: str = "loss"


@dataclass(frozen=True, kw_only=True)
class TaskForm:
    """What a task asks, and how its answers are read.

    Attributes:
        template: with soft tokens; empty where methods make theirs of the patterns.
        visibility: whose tokens do not attend to which others.
        patterns: hand-written templates.
        target: the field of a row that holds the right answer.
        prompt_by: the field of a row whose values have a prompt each.
        prompts: how many prompts of different seeds answer together.
        combine: how those that answer together do it.
        neighbours: with combine "neighbours" how many of the nearest train rows count.
        max_length: the most tokens of an input; the LM's limit by default.
        layout: how files of the task's rows are read, which is kept with its prompts.
    """

    name: str
    template: str = ""
    visibility: tuple[VisibilityRule, ...] = ()
    patterns: tuple[str, ...] = ()
    target: str = "label"
    answers: Answers = Answers()
    reading: ReadingConfig = ReadingConfig()
    decoding: DecodingConfig = DecodingConfig()
    judging: Judging = Judging()
    prompt_by: str | None = None
    prompts: int = 1
    combine: Combine = "mean"
    neighbours: int = NEIGHBOURS
    max_length: int | None = None
    layout: LayoutConfig = LayoutConfig()


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How a task's prompts are made and learn, whatever the method.

    Attributes:
        tune, encoder, init, prefix: what stands in the place of the method's own, where given.
        loss: what the right answer is compared with.
        smoothing: of written answers, the share of each token's target that is spread.
        target_length: of written answers, the most tokens that are learned from.
        seed: of the initialisation.
    """

    tune: What | None = None
    encoder: EncoderName | None = None
    init: str | None = None
    prefix: PrefixConfig = PrefixConfig()
    loss: Loss = "labels"
    smoothing: float = 0.0
    target_length: int | None = None
    seed: int = 0

    def applied_to(self, method: Method) -> Method:
        """A method that makes its vectors as this says, and as itself where this says nothing."""
        hidden = self.prefix.hidden
        return replace(
            method,
            encoder=self.encoder or method.encoder,
            init=self.init or method.init,
            hidden=method.hidden if hidden is None else hidden,
            prefix_init=self.prefix.init or method.prefix_init,
        )

    def prefix_of(self, method: Method) -> PrefixSettings:
        """How a method's deep prefix is made."""
        prefix = self.prefix
        return PrefixSettings(method.hidden, method.prefix_init, prefix.attentions, prefix.gates)


USUAL = Learning()
"""How prompts learn where a task says nothing."""
