"""Answers that a row brings along: some to choose from, or a text of the row to spell."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ptune.answers.bound_verbalizer import ORDERS, BoundVerbalizer, Length, Order
from ptune.answers.label_words import Verbalizer
from ptune.errors import VerbalizerError, nearest
from ptune.template.language import Kind
from ptune.template.tokenizer import Place, Tokens

TRUTH = ("false", "true")
MOST_PADDING = 3
# the share of the label that a spelt answer speaks for: short of all, so that its loss is finite
SURE = 0.95


@dataclass(frozen=True)
class Choices:
    """Answers that each row brings along; the label is the number of the right one, from 0.

    Attributes:
        fields: the row's fields that hold one answer each, or a single field that holds a list of
            them.
        order, length: as a ``Verbalizer``'s.
    """

    fields: tuple[str, ...]
    order: Order | None = None
    length: Length = "closed"

    def bind(
        self, row: Mapping[str, Any], tokens: Tokens, place: Place, kind: Kind
    ) -> "BoundVerbalizer":
        """The row's own verbalizer; answers that are the same to the tokenizer have the same score.

        Raises:
            VerbalizerError: the row has fewer than two answers, or one that the tokenizer does not
                know.
        """
        words = tuple((text,) for text in self.texts(row))
        return Verbalizer(
            tuple(map(str, range(len(words)))), words, order=self.order, length=self.length
        ).bind_afresh(tokens, place, kind, distinct=False)

    def texts(self, row: Mapping[str, Any]) -> list[str]:
        """The row's answers.

        Raises:
            VerbalizerError: there are fewer than two, or one is no text.
        """
        if missing := next((name for name in self.fields if name not in row), None):
            raise VerbalizerError(
                f"The row has no field {missing!r}, which should hold an answer to choose. "
                f"{nearest(missing, map(str, row))}"
            )
        texts = (
            row[self.fields[0]] if len(self.fields) == 1 else [row[name] for name in self.fields]
        )
        if (
            not isinstance(texts, list)
            or len(texts) < 2
            or not all(isinstance(text, str) and text.strip() for text in texts)
        ):
            raise VerbalizerError(
                f"The answers to choose from, in {', '.join(self.fields)}, should be two texts or "
                f"more, and are {str(texts)[:60]!r}."
            )
        return [text.strip() for text in texts]


@dataclass(frozen=True)
class Span:
    """A text of the row that the answer should spell; the label says whether it is right, "true" or
    "false".

    So PET asks the Winograd schemas of SuperGLUE ("It's Not Just Size That Matters", Schick and
    Schütze 2021), which have no wrong answers to learn from. A right row teaches its text's tokens,
    each against the LM's whole vocabulary; a wrong one teaches nothing. Then whatever the LM spells
    is compared with the text.

    Attributes:
        field: the row's field with the text.
    """

    field: str

    def bind(
        self, row: Mapping[str, Any], tokens: Tokens, place: Place, kind: Kind
    ) -> "BoundVerbalizer":
        """The row's own verbalizer: the labels "false", of no word, and "true", whose word is the
        text.

        Raises:
            VerbalizerError: the row has no such text, or one that the tokenizer does not know.
        """
        if self.field not in row:
            raise VerbalizerError(
                f"The row has no field {self.field!r}, which should hold the text to spell. "
                f"{nearest(self.field, map(str, row))}"
            )
        if not isinstance(text := row[self.field], str) or not text.strip():
            raise VerbalizerError(
                f"The field {self.field!r} should hold the text to spell, and holds "
                f"{str(text)[:60]!r}."
            )
        ids = tokens.words([text.strip()], place)[0]
        if (
            not ids
            or tokens.tokenizer.unk_token_id is not None
            and tokens.tokenizer.unk_token_id in ids
        ):
            raise VerbalizerError(
                f"The text to spell, {text!r}, has letters that this LM's vocabulary has not."
            )
        return BoundVerbalizer(
            TRUTH, (tuple(ids),), (TRUTH.index("true"),), kind, order=ORDERS[kind]
        )

    def start(self, bound: "BoundVerbalizer") -> tuple[int | None, ...]:
        """The answer before anything is spelt: as many masks as the text has tokens and one more
        (PET), or, of an LM without masks, its first place."""
        return (None,) * (len(bound.ids[0]) + 1 if bound.kind == "masked" else 1)

    def spell(
        self, bound: "BoundVerbalizer", answer: Sequence[int | None], log_probs: torch.Tensor
    ) -> tuple[int | None, ...]:
        """The answer with one more token: the likeliest of all at its open places (PET, for answers
        of several masks); of an LM without masks, with the next place then, as long as it has no
        more tokens than the text.

        Args:
            log_probs: of the vocabulary at each place [K, V].
        """
        open_ = [place for place, token in enumerate(answer) if token is None]
        best, tokens = log_probs[open_].max(1)
        likeliest = int(best.argmax())
        place = open_[likeliest]
        filled = (*answer[:place], int(tokens[likeliest]), *answer[place + 1 :])
        return (
            filled if bound.kind == "masked" or len(filled) > len(bound.ids[0]) else (*filled, None)
        )

    def taught(self, bound: "BoundVerbalizer", tokens: Tokens, seed: str) -> tuple[int, ...]:
        """What a right row teaches: the tokens of its text, and the padding token at 0 to 3 more
        places, as the seed draws them, so that their number does not tell the answer."""
        return bound.ids[0] + (tokens.pad,) * random.Random(seed).randrange(MOST_PADDING + 1)

    def scores(
        self, row: Mapping[str, Any], spelt: Sequence[int | None], tokens: Tokens
    ) -> torch.Tensor:
        """The scores of "false" and "true" [2] after tokens that the LM spelt, special ones left
        out: "true" where the words of one text are all among those of the other, without regard to
        case and punctuation (the rule of T5, Raffel et al. 2020)."""
        special = set(tokens.tokenizer.all_special_ids)
        spelt_words, right_words = (
            set(re.findall(r"\w+", text.lower()))
            for text in (
                tokens.tokenizer.decode(
                    [token for token in spelt if token is not None and token not in special]
                ),
                row[self.field],
            )
        )
        matches = bool(spelt_words and right_words) and (
            spelt_words <= right_words or right_words <= spelt_words
        )
        return torch.tensor([1 - SURE, SURE] if matches else [SURE, 1 - SURE]).log()
