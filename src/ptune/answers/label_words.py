"""Label words: the words that stand for each label, or a whole vocabulary of answers.

A verbalizer proposes fills, the ways in which the answer's place must be filled so that every word
can be scored, and turns the LM's scores there into scores of the labels. It runs no LM.
"""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ptune.answers.bound_verbalizer import ORDERS, Aggregate, BoundVerbalizer, Length, Order
from ptune.errors import VerbalizerError
from ptune.template.language import Kind
from ptune.template.tokenizer import Place, Tokens

KEPT = 8  # verbalizers of each tokenizer, since many tasks have the same long list of words
_bound: weakref.WeakKeyDictionary[Tokens, dict[tuple, BoundVerbalizer]] = (
    weakref.WeakKeyDictionary()
)  # by verbalizer, place and kind of LM


@dataclass(frozen=True)
class Verbalizer:
    """The words that stand for each label.

    Attributes:
        labels: their names.
        words: ``words[c]`` are those of ``labels[c]``, at least one.
        aggregate: a label's score from those of its words: by the mean of their probabilities, so
            that a rare word beside a good one does no harm; by the mean of their logits, as PET
            does ("logit"); by its likeliest word ("max"); or by votes: each way to take one word of
            every label is a verbalizer, and votes for the label of its likeliest word ("vote").
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
        if not isinstance(words, Mapping):
            raise VerbalizerError(
                "Words are a dictionary with a word, or several, for each label, and this is a "
                f"{type(words).__name__}: write {{label: word, ...}}."
            )
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
        return cls(
            tuple(listed), tuple(listed.values()), aggregate=aggregate, order=order, length=length
        )

    def bind(self, tokens: Tokens, place: Place, kind: Kind) -> BoundVerbalizer:
        """The verbalizer for one LM and one place in a template.

        Raises:
            VerbalizerError: a word is unknown to the tokenizer, two labels have the same word, or
                the LM has no such order.
        """
        kept = _bound.setdefault(tokens, {})
        if (bound := kept.get(key := (self, place, kind))) is None:
            if len(kept) >= KEPT:
                kept.pop(next(iter(kept)), None)
            bound = kept[key] = self.bind_afresh(tokens, place, kind, distinct=True)
        return bound

    def bind_afresh(
        self, tokens: Tokens, place: Place, kind: Kind, distinct: bool
    ) -> BoundVerbalizer:
        """The same as ``bind``, computed anew.

        Args:
            distinct: refuse labels that have the same word for this LM.

        Raises:
            VerbalizerError: as for ``bind``.
        """
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
            labels=self.labels,
            ids=tuple(map(tuple, ids)),
            owners=tuple(owners),
            kind=kind,
            aggregate=self.aggregate,
            order=self.order or ORDERS[kind],
            length=self.length,
            characters=tuple(map(len, flat)),
        )
        return replace(bound, notes=tuple(self._notes(bound, flat))) if distinct else bound

    def _notes(self, bound: BoundVerbalizer, words: Sequence[str]) -> Iterator[str]:
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
