"""How an LM's answer is read: label words, a whole vocabulary of answers, or answers that each row
brings along.

A verbalizer proposes fills, the ways in which the answer's place must be filled so that every word
can be scored, and turns the LM's scores there into scores of the labels. It runs no LM.
"""

import random
import re
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch

from ptune.errors import VerbalizerError, nearest
from ptune.template.language import Kind
from ptune.template.tokenizer import Place, Tokens

Aggregate = Literal["probability", "logit"]
Order = Literal["parallel", "left-to-right", "most-probable-first"]
Length = Literal["closed", "sum", "token", "character"]


@dataclass(frozen=True)
class Fill:
    """One way to fill the answer's place: its tokens (None where a mask stands), the words that are
    read from it, and the positions of those tokens in the answer."""

    answer: tuple[int | None, ...]
    words: tuple[int, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Verbalizer:
    """The words that stand for each label.

    Attributes:
        labels: their names.
        words: ``words[c]`` are those of ``labels[c]``, at least one.
        aggregate: a label's score from those of its words: by the mean of their probabilities, so
            that a rare word beside a good one does no harm, or by the mean of their logits, as PET
            does.
        order: how a masked LM scores a word of several tokens: all masks at once ("parallel"), each
            token behind those before it ("left-to-right"), or always the token next that is
            likeliest by then ("most-probable-first", PET for several masks, section 3.1 of "It's
            Not Just Size That Matters"; its training is parallel, as there). An LM that reads from
            left to right has one order only. None is the LM's own: parallel, or left to right.
        length: how words of unlike length compare. "closed" takes a word's log probability, and
            where it begins a word of another label ("1" and "10"), that of not going on as that
            one, so that no answer is counted for two labels: an LM that reads from left to right
            can never find "10" likelier than "1" otherwise. "sum" is the log probability alone
            (PET), "token" its mean over the word's tokens, "character" over its characters (as
            "sum" favours short words, these favour long ones). To a masked LM, which is told the
            number of tokens, "closed" is "sum".
    """

    labels: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    aggregate: Aggregate = "probability"
    order: Order | None = None
    length: Length = "closed"

    @classmethod
    def from_words(
        cls,
        words: Mapping[str, str | Sequence[str]],
        aggregate: Aggregate = "probability",
        order: Order | None = None,
        length: Length = "closed",
    ) -> "Verbalizer":
        """From a mapping of labels to a word or several.

        Raises:
            VerbalizerError: there are no labels, or one has no word.
        """
        listed = {
            str(label): (w,) if isinstance(w, str) else tuple(map(str, w))
            for label, w in words.items()
        }
        if len(listed) < 2:
            raise VerbalizerError(
                f"A verbalizer needs at least two labels, and has {list(listed) or 'none'}."
            )
        for label, label_words in listed.items():
            if not label_words or not all(word.strip() for word in label_words):
                raise VerbalizerError(
                    f"The label {label!r} has no word: give it one, or leave the label out."
                )
        return cls(tuple(listed), tuple(listed.values()), aggregate, order, length)

    def bind(self, tokens: Tokens, place: Place, kind: Kind) -> "BoundVerbalizer":
        """The verbalizer for one LM and one place in a template.

        Raises:
            VerbalizerError: a word is unknown to the tokenizer, two labels have the same word, or
                the LM has no such order.
        """
        kept = _bound.setdefault(tokens, {})
        if (bound := kept.get(key := (self, place, kind))) is None:
            if len(kept) >= KEPT:
                kept.pop(next(iter(kept)), None)
            bound = kept[key] = self._bind(tokens, place, kind, distinct=True)
        return bound

    def _bind(self, tokens: Tokens, place: Place, kind: Kind, distinct: bool) -> "BoundVerbalizer":
        if kind != "masked" and self.order not in (None, "left-to-right"):
            raise VerbalizerError(
                f"The order {self.order!r} is for masked LMs; a {kind} LM scores a word's tokens "
                "from left to right."
            )
        flat = [word for label_words in self.words for word in label_words]
        owners = [number for number, label_words in enumerate(self.words) for _ in label_words]
        ids = tokens.words(flat, place)
        unknown = tokens.tokenizer.unk_token_id
        seen: dict[tuple[int, ...], int] = {}
        for word, pieces, owner in zip(flat, ids, owners):
            if not pieces or unknown in pieces and unknown is not None:
                raise VerbalizerError(
                    f"The label word {word!r} (label {self.labels[owner]!r}) is not in this LM's "
                    "vocabulary; "
                    f"choose another word."
                )
            if (other := seen.setdefault(tuple(pieces), owner)) != owner and distinct:
                raise VerbalizerError(
                    f"The labels {self.labels[other]!r} and {self.labels[owner]!r} have the same "
                    "word for this LM: "
                    f"{word!r} is {[tokens.show(p) for p in pieces]}."
                )
        bound = BoundVerbalizer(
            self.labels,
            tuple(map(tuple, ids)),
            tuple(owners),
            kind,
            self.aggregate,
            self.order or ORDERS[kind],
            self.length,
            tuple(map(len, flat)),
        )
        return replace(bound, notes=tuple(self._notes(bound, flat))) if distinct else bound

    def _notes(self, bound: "BoundVerbalizer", words: Sequence[str]) -> Iterator[str]:
        """What there is to tell of words that begin a word of another label."""
        consequence = {
            "closed": "it is read as said only where the LM does not go on so",
            "sum": "it is never less likely than that one, whatever the row says: reading.length "
            "closed, token or character compares "
            "them fairly",
        }
        for short, longer in bound.continued.items():
            others = [
                f"{words[word]!r} (label {self.labels[bound.owners[word]]!r})" for word in longer
            ]
            label = self.labels[bound.owners[short]]
            outcome = consequence.get(
                self.length, f"they are compared by their mean over each {self.length}"
            )
            yield (
                f"The word {words[short]!r} (label {label!r}) begins {', '.join(others)}: "
                f"{outcome}."
            )


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
        )._bind(tokens, place, kind, distinct=False)

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


KEPT = 8  # verbalizers of each tokenizer, since many tasks have the same long list of words
_bound: "weakref.WeakKeyDictionary[Tokens, dict[tuple, BoundVerbalizer]]" = (
    weakref.WeakKeyDictionary()
)  # by verbalizer, place and kind of LM
TRUTH = ("false", "true")
MOST_PADDING = 3
MOST_SURE = (
    1 - 1e-6
)  # of a word's going on: short of all, so that the log of its stopping is finite
# the share of the label that a spelt answer speaks for: short of all, so that its loss is finite
SURE = 0.95
ORDERS: dict[Kind, Order] = {
    "masked": "parallel",
    "causal": "left-to-right",
    "encoder-decoder": "left-to-right",
}


@dataclass(frozen=True)
class BoundVerbalizer:
    """A verbalizer whose words are token ids: ``ids[w]`` of each word, ``owners[w]`` the number of
    its label, ``characters[w]`` how many it has; ``notes`` is what a user should be told of
    them."""

    labels: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    owners: tuple[int, ...]
    kind: Kind
    aggregate: Aggregate = "probability"
    order: Order = "parallel"
    length: Length = "sum"
    characters: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each label."""
        return {label: number for number, label in enumerate(self.labels)}

    @cached_property
    def fills(self) -> tuple[Fill, ...]:
        """How the answer's place must be filled to score every word. A masked LM is given masks,
        which words of like length share, or from left to right a word's tokens one by one; another
        LM reads a word's tokens in one go, so only words of one token share a fill."""
        shared: dict[tuple[tuple[int | None, ...], tuple[int, ...]], list[int]] = {}
        for number, ids in enumerate(self.ids):
            places = tuple(range(len(ids)))
            if len(ids) == 1 or self.kind == "masked" and self.order != "left-to-right":
                answers: list[tuple[tuple[int | None, ...], tuple[int, ...]]] = [
                    ((None,) * len(ids), places)
                ]
            elif self.kind == "masked":
                answers = [
                    ((*ids[:place], *(None,) * (len(ids) - place)), (place,)) for place in places
                ]
            else:
                answers = [((*ids[:-1], None), places)]
            for answer in answers:
                shared.setdefault(answer, []).append(number)
        return tuple(
            Fill(answer, tuple(words), positions) for (answer, positions), words in shared.items()
        )

    def number(self, label: str) -> int:
        """The number of a label.

        Raises:
            VerbalizerError: there is none of that name.
        """
        if label not in self.numbers:
            raise VerbalizerError(f"There is no label {label!r}. {nearest(label, self.labels)}")
        return self.numbers[label]

    def first_word(self, label: int) -> tuple[int, ...]:
        """The token ids of the label's first word."""
        return self.ids[self.owners.index(label)]

    def scores(self, log_probs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Scores of the labels [B, C] (``of_labels``) from log probabilities of the vocabulary
        (``of_words``)."""
        return self.of_labels(self.of_words(log_probs))

    @cached_property
    def continued(self) -> dict[int, tuple[int, ...]]:
        """For each word that begins words of other labels, those; not those that begin with another
        of them. None of a masked LM, which fills as many places as a word has."""
        if self.kind == "masked":
            return {}
        numbers: dict[tuple[int, ...], list[int]] = {}
        for number, ids in enumerate(self.ids):
            numbers.setdefault(ids, []).append(number)
        longer: dict[int, dict[tuple[int, ...], int]] = {}
        for number, ids in enumerate(self.ids):
            for short in (
                short for end in range(1, len(ids)) for short in numbers.get(ids[:end], ())
            ):
                if self.owners[short] != self.owners[number]:
                    longer.setdefault(short, {}).setdefault(ids, number)
        return {short: tuple(_shortest(words)) for short, words in longer.items()}

    def of_words(self, log_probs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Log probabilities of the words [B, W], compared by their ``length``; a word of several
        tokens has the product of their probabilities.

        Args:
            log_probs: for each fill, log probabilities of the vocabulary [B, K, V] where its K
                tokens are read.
        """
        device = log_probs[0].device
        words = log_probs[0].new_zeros(len(log_probs[0]), len(self.ids))
        rest: dict[tuple[int, int], torch.Tensor] = {}  # of a word from a token on [B]
        for (numbers, positions, ids), values in zip(self._columns, log_probs):
            ids = ids.to(device)
            token_scores = torch.stack(
                [values[:, place, ids[:, k]] for k, place in enumerate(positions)]
            )
            words = words.index_add(1, numbers.to(device), token_scores.sum(0))
            for place, word in enumerate(numbers.tolist()):
                rest |= {
                    (word, start): token_scores[start:, :, place].sum(0)
                    for start in self._joints.get(word, ())
                }
        return self.compared(words if self.length != "closed" else self._closed(words, rest))

    def compared(self, words: torch.Tensor) -> torch.Tensor:
        """The words' log probabilities [.., W] as they are compared: as they are, or by token or by
        character."""
        if self.length == "token":
            return words / words.new_tensor([len(ids) for ids in self.ids])
        return words / words.new_tensor(self.characters) if self.length == "character" else words

    def _closed(
        self, words: torch.Tensor, rest: Mapping[tuple[int, int], torch.Tensor]
    ) -> torch.Tensor:
        """The words' log probabilities [B, W], of one that begins others that of not going on as
        one of them."""
        for short, longer in self.continued.items():
            goes_on = torch.stack([rest[word, len(self.ids[short])].exp() for word in longer]).sum(
                0
            )
            stops = torch.log1p(-goes_on.clamp(max=MOST_SURE))
            words = words.index_add(1, torch.tensor([short], device=words.device), stops[:, None])
        return words

    @cached_property
    def _joints(self) -> dict[int, set[int]]:
        """For each word that goes on behind others, after how many of its tokens."""
        joints: dict[int, set[int]] = {}
        for short, longer in self.continued.items():
            for word in longer:
                joints.setdefault(word, set()).add(len(self.ids[short]))
        return joints

    def of_labels(self, words: torch.Tensor) -> torch.Tensor:
        """Scores of the labels [B, C] from those of the words [B, W]: the log of the mean
        probability of each label's words, or the mean of their logits."""
        if len(self.ids) == len(self.labels):
            return words
        owners = torch.tensor(self.owners, device=words.device)
        counts = torch.bincount(owners, minlength=len(self.labels))
        zeros = words.new_zeros(len(words), len(self.labels))
        if self.aggregate == "logit":
            return zeros.index_add(1, owners, words) / counts
        best = zeros.fill_(-torch.inf).scatter_reduce(1, owners.expand_as(words), words, "amax")
        summed = torch.zeros_like(best).scatter_add(
            1, owners.expand_as(words), (words - best[:, owners]).exp()
        )
        return best + summed.log() - counts.log()

    @cached_property
    def _columns(self) -> list[tuple[torch.Tensor, tuple[int, ...], torch.Tensor]]:
        """For each fill, the numbers of its words [W], where in the answer they are read, and their
        token ids there [W, K]."""
        return [
            (
                torch.tensor(fill.words),
                fill.positions,
                torch.tensor(
                    [[self.ids[word][place] for place in fill.positions] for word in fill.words]
                ),
            )
            for fill in self.fills
        ]


def _shortest(words: Mapping[tuple[int, ...], int]) -> Iterator[int]:
    """Of words by their tokens, the numbers of those that begin with none of the others."""
    for ids, number in words.items():
        if not any(ids[:end] in words for end in range(1, len(ids))):
            yield number


def allowed(
    words: Sequence[str], tokens: Tokens, place: Place
) -> tuple[Verbalizer, dict[str, str], int]:
    """A vocabulary of answers: those words that are one token of the LM, as labels of their own.

    Returns:
        The verbalizer; for each word given, the label that stands for its token (an LM that ignores
        case has one for several); and how many words were left out because the tokenizer splits
        them or does not know them.

    Raises:
        VerbalizerError: fewer than two words are left.
    """
    unknown = tokens.tokenizer.unk_token_id
    special = set(tokens.tokenizer.all_special_ids)
    labels: dict[int, str] = {}
    names: dict[str, str] = {}
    left_out = 0
    for word, ids in zip(words, tokens.words(words, place)):
        if len(ids) == 1 and ids[0] != unknown and ids[0] not in special:
            names[word] = labels.setdefault(ids[0], word)
        else:
            left_out += 1
    if len(labels) < 2:
        raise VerbalizerError(
            f"Of {len(words)} allowed words only {len(labels)} are single tokens of this LM; "
            "nothing can be ranked."
        )
    return (
        Verbalizer(tuple(labels.values()), tuple((label,) for label in labels.values())),
        names,
        left_out,
    )
