"""What a reader is: how the LM's output at a row's answer becomes scores of the labels.

A task names the class of its reader (``Task.reader``); the bank keeps an object of it for each
prompt, with the values that it trains, if it trains any. ``reader_table.py`` lists the classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import nn

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.answers.label_words import Verbalizer
from ptune.lm.language_model import LanguageModel
from ptune.settings import ReaderName

Answer = tuple[int | None, ...]


@dataclass(frozen=True)
class FillOutput:
    """What the LM says at the K positions of a row that are read.

    Attributes:
        log_probs: log probabilities of the vocabulary [K, V]; where they are not asked for
            (``EncodedRow.is_scored``) [0, V].
        hidden: the last hidden states [K, H].
        features: what the vocabulary head compares with the vectors of the words [K, F], or [0, F];
            None for an LM without such vectors.
    """

    log_probs: torch.Tensor
    hidden: torch.Tensor
    features: torch.Tensor | None


class Reader(nn.Module):
    """How the LM's output at a row's answer becomes scores of the labels.

    A new reader names itself, sets the attributes in which it differs from the values below, and
    writes ``forward``; ``start`` and ``features`` too where it begins otherwise or reads something
    else.

    A row may be run in several variants: as it is, and with the two texts of a pair exchanged. A
    reader reads one vector of each variant, [variants, B, F] for B rows of one task.

    Attributes:
        name: what it is called in a task's YAML file and in a saved prompt.
        mask: whether the template must have a ``{mask}``, may have one, or must have none. Without
            a ``{mask}`` an input is read at its first token, or at a causal LM's last.
        scores_words: its scores are those of the label words, which may then be calibrated, filled
            in step by step, and compared with those of a domain.
        binds_words: the label words must be in the LM's vocabulary.
        words_are_relations: the label words are names of relations between two texts.
        pools: it may read the mean of the hidden states of a row (``Task.pooling``).
        is_trained: it has values that are trained with the prompt, and saved with it.
        couples_rows: the loss of a row depends on the other rows of its task in the batch, so it is
            computed over all of them, however the batch is cut.
        starts_from_rows: it begins at the training rows (``start_from``).
        is_solved: it is computed from the training rows (``start_from``) whenever the prompt has
            changed, and not trained by steps.
        reads_tokens: it reads single tokens of a row, each by itself, where other readers read one
            vector of a row.
        decides_apart: each label's score says by itself whether a row has it, so that a row may
            have several labels (``Task.multi_label``).
    """

    name: ClassVar[ReaderName]
    mask: ClassVar[Literal["needed", "optional", "refused"]] = "needed"
    scores_words: ClassVar[bool] = False
    binds_words: ClassVar[bool] = False
    words_are_relations: ClassVar[bool] = False
    pools: ClassVar[bool] = False
    is_trained: ClassVar[bool] = True
    couples_rows: ClassVar[bool] = False
    starts_from_rows: ClassVar[bool] = False
    is_solved: ClassVar[bool] = False
    reads_tokens: ClassVar[bool] = False
    decides_apart: ClassVar[bool] = True

    @classmethod
    def start(
        cls, lm: LanguageModel, verbalizer: Verbalizer | None, bound: BoundVerbalizer | None
    ) -> Self:
        """A reader of a task's labels as it is before any training: by default made of the width of
        the LM's hidden states and the number of labels. Random values are drawn from torch's
        generator, which is seeded with the task's seed and name.

        Args:
            verbalizer: the labels and their words; None where the answer is a written text, or one
                that each row brings along.
            bound: the same for this LM; its words have token ids if ``binds_words`` is set.

        Raises:
            ModelError, VerbalizerError: this LM cannot be read so.
        """
        assert bound is not None
        return cls(lm.hidden_width, len(bound.labels))

    @staticmethod
    def answers(bound: BoundVerbalizer) -> list[Answer]:
        """How the place of the answer is filled in turn to score a row: None for a mask."""
        return [(None,)]

    def features(self, output: FillOutput) -> torch.Tensor:
        """The vector [F] that is read of one variant of a row: by default the hidden state [H]."""
        return output.hidden[0]

    def read(self, outputs: Sequence[list[FillOutput]], bound: BoundVerbalizer) -> torch.Tensor:
        """What is read of B rows [variants, B, F].

        Args:
            outputs: for each row the outputs of its variants.
        """
        variants = zip(*outputs)
        return torch.stack(
            [torch.stack([self.features(output) for output in variant]) for variant in variants]
        )

    def scores(self, inputs: torch.Tensor, bound: BoundVerbalizer) -> torch.Tensor:
        """The scores of the labels [B, C], whose softmax over the labels are their probabilities.
        The vectors of a row's variants are added (GPT, section 4.1).

        Args:
            inputs: what ``read`` returns [variants, B, F].
        """
        return self(inputs.sum(0))

    def losses(
        self, inputs: torch.Tensor, bound: BoundVerbalizer, labels: torch.Tensor
    ) -> torch.Tensor:
        """The loss of each row [B]: minus the log probability of its label.

        Args:
            inputs: what ``read`` returns [variants, B, F].
            labels: the numbers of the right labels [B].
        """
        return nn.functional.cross_entropy(self.scores(inputs, bound), labels, reduction="none")

    def start_from(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        """Begin at training rows, where ``starts_from_rows`` is set.

        Args:
            inputs: what ``read`` returns [variants, B, F].
            labels: the numbers of the right labels [B], or whether each row has each label [B, C].
        """
        raise NotImplementedError

    def saved(self) -> dict[str, torch.Tensor]:
        """The values that a saved prompt keeps, by name, as float32."""
        if not self.is_trained:
            return {}
        return {name: value.float() for name, value in self.state_dict().items()}
