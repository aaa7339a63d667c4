"""Templates and label words for a task that nobody has described: a beginning, which a person may
better."""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

from ptune.errors import VerbalizerError
from ptune.template.parts import Field
from ptune.template.tokenizer import Place, Tokens


@dataclass(frozen=True)
class Words:
    """Words proposed for labels.

    Attributes:
        words: a word for each label, no two the same; each is one token of the LM.
        notes: for a label whose own name is no such word, why another stands for it.
    """

    words: dict[str, str]
    notes: dict[str, str]


def label_words(labels: Sequence[str], tokens: Tokens, place: Place = "spaced") -> Words:
    """A word for each label that the tokenizer has whole: the label itself, a word of its name, or
    else a letter.

    Args:
        place: where the word stands in the template.

    Raises:
        VerbalizerError: the tokenizer has no whole word for a label, and too few letters.
    """
    words: dict[str, str] = {}
    notes: dict[str, str] = {}
    taken: set[int] = set()
    for label in labels:
        own_words = _whole(_names(label), tokens, place)
        free = [word for word, number in own_words if number not in taken]
        word = free[0] if free else _letter(label, tokens, place, taken)
        if not free:
            notes[label] = (
                f"the LM has no whole word for {label!r}"
                if not own_words
                else f"{own_words[0][0]!r} stands for another label"
            )
        words[label] = word
        taken.add(tokens.words([word], place)[0][0])
    return Words(words, notes)


def _names(label: str) -> list[str]:
    """What a label may be called: its name as it stands, in lower case, and the words that it is
    made of, the last first."""
    parts = re.findall(r"[^\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", label))
    names = [
        label.strip(),
        label.strip().lower(),
        *(part for name in reversed(parts) for part in (name, name.lower())),
        *map(str.capitalize, parts),
    ]
    return [name for name in dict.fromkeys(names) if name]


def _whole(names: Sequence[str], tokens: Tokens, place: Place) -> list[tuple[str, int]]:
    """Those of some names that are one known token, with its number."""
    unknown = tokens.tokenizer.unk_token_id
    all_ids = tokens.words(names, place) if names else []
    return [
        (name, ids[0]) for name, ids in zip(names, all_ids) if len(ids) == 1 and ids[0] != unknown
    ]


def _letter(label: str, tokens: Tokens, place: Place, taken: set[int]) -> str:
    for word, number in _whole(
        list(string.ascii_uppercase + string.ascii_lowercase), tokens, place
    ):
        if number not in taken:
            return word
    raise VerbalizerError(
        f"No word could be found for the label {label!r}: the LM has it not as a whole word, and "
        "no letter is left. Name words for the "
        f"labels yourself."
    )


def pattern(fields: Sequence[str], question: str = "Label") -> str:
    """A hand-written template that asks for a label: ``{ticket|shorten} Team: {mask}``.

    Args:
        fields: of the rows, those that are read.
        question: what the answer is called.
    """
    return f"{' '.join(map(_field, fields))} {_name(question)}: {{mask}}"


def soft_template(fields: Sequence[str], question: str = "Label", count: int = 3) -> str:
    """The same with soft tokens before what the answer is called, as prompts for single sentences
    have them."""
    return f"{' '.join(map(_field, fields))} {{soft:{count}}} {_name(question)}: {{mask}}"


def written_template(fields: Sequence[str], question: str = "Answer") -> str:
    """A template for an answer that is written, behind a prefix at every layer."""
    return f"{{prefix:5}} {' '.join(map(_field, fields))} {_name(question)}: {{mask}}"


def _field(name: str) -> str:
    """A field in a template, cut where the row is too long."""
    return Field(name, (("shorten", ""),)).shown


def _name(question: str) -> str:
    """A column's name as it is written in a sentence, without what a template would read as its
    own."""
    words = re.sub(r"[{}\[\]()_\uff5b\uff5d]+", " ", question).split()
    return " ".join(words)[:1].upper() + " ".join(words)[1:] or "Label"
