"""Who sees whom: the parts of a template that rules name, and what the rules make of the tokens of
a row."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ptune.errors import TemplateError, nearest
from ptune.settings import VisibilityRule
from ptune.template.parts import (
    Decoder,
    Field,
    Kind,
    Mask,
    Part,
    PrefixPart,
    Soft,
    Text,
    quoted,
    unquoted,
)
from ptune.template.tokenizer import Tokens

if TYPE_CHECKING:
    from ptune.template.language import Template

FIELDS, WORDS, SOFT, PREFIX, MASK = "fields", "words", "soft", "prefix", "mask"
GROUPS = (FIELDS, WORDS, SOFT, PREFIX, MASK)
Rules = Sequence[VisibilityRule]
Sight = tuple[int, int]
"""Of a token a bit for each rule that hides it, and a bit for each rule by which it does not see
what the rule hides."""
PLAIN: Sight = (0, 0)


@dataclass(frozen=True)
class RowVisibility:
    """What the rules of a task make of a row. A token does not attend to another one where a rule
    hides that one from it; every token attends to itself.

    Attributes:
        tokens: of each token [T].
        prefix: of the vectors of its prefix, which attend to nothing themselves.
        written: of the tokens that are written behind it, or by a decoder.
    """

    tokens: tuple[Sight, ...]
    prefix: Sight = PLAIN
    written: Sight = PLAIN

    def sees(self, token: int, other: int) -> bool:
        """Whether the rules let a token attend to another one."""
        return token == other or not self.tokens[token][1] & self.tokens[other][0]

    def shows_answer(self, token: int) -> bool:
        """Whether they let what is written attend to a token."""
        return not self.written[1] & self.tokens[token][0]


def names_of(part: Part) -> frozenset[str]:
    """The names by which a rule may mean the tokens of a part; a field's stands in quotes."""
    if isinstance(part, Field):
        return frozenset({FIELDS, quoted(part.name)})
    if isinstance(part, Soft):
        return frozenset({SOFT, f"{SOFT}@{part.name}"} if part.name else {SOFT})
    if isinstance(part, PrefixPart):
        return frozenset({PREFIX})
    return frozenset({MASK if isinstance(part, Mask) else WORDS})


def sight(rules: Rules, names: Iterable[str], is_read: bool = False) -> Sight:
    """What rules make of tokens with these names.

    Args:
        is_read: the answer is read there, whatever stands there.
    """
    of_tokens = set(names)
    looking = of_tokens | ({MASK} if is_read else set())
    hidden = sum(1 << bit for bit, rule in enumerate(rules) if of_tokens & _meant(rule.hide))
    blind = sum(1 << bit for bit, rule in enumerate(rules) if looking & _meant(rule.from_))
    return hidden, blind


def joined(sights: Iterable[Sight]) -> Sight:
    """What a token is that holds text of several parts: hidden, and blind, as each of them is."""
    hidden = blind = 0
    for one in sights:
        hidden, blind = hidden | one[0], blind | one[1]
    return hidden, blind


def _meant(names: Iterable[str]) -> set[str]:
    """The names as ``names_of`` has them."""
    return {
        name if name in GROUPS or name.startswith(f"{SOFT}@") or unquoted(name) else quoted(name)
        for name in names
    }


def check_names(template: "Template", rules: Rules) -> None:
    """Refuse rules that name nothing in a template.

    Raises:
        TemplateError: there is one.
    """
    known = {name for part in template.parts for name in names_of(part)} | {MASK, WORDS}
    names = [name for rule in rules for name in (*rule.hide, *rule.from_)]
    for name in names:
        if name in (FIELDS, WORDS) and name in template.fields:
            raise TemplateError(
                f"visibility names {name!r}, which is a field of the template "
                f"{template.source!r}, and {_said(name)} too: for the field write {quoted(name)} "
                "with its quotes, or call the field otherwise."
            )
        if not _meant([name]) <= known:
            listed = [*template.fields, *sorted(known - set(map(quoted, template.fields)))]
            raise TemplateError(
                f"visibility names {name!r}, which is nothing in the template "
                f"{template.source!r}. {nearest(name, listed)}"
            )
    if any(PREFIX in rule.from_ for rule in rules):
        raise TemplateError(
            "visibility hides something from the prefix, whose vectors are keys and values that "
            "look at nothing: leave that rule out. What does not see the prefix is said by "
            "{hide: prefix, from: ...}."
        )


def check_for_lm(template: "Template", rules: Rules, *, tokens: Tokens, kind: Kind) -> None:
    """Refuse rules that a template for an LM of this kind leaves without effect, or that are not
    covered there.

    Raises:
        TemplateError: there is one.
    """
    parts = template.parts
    if kind == "encoder-decoder" and any(isinstance(part, Decoder) for part in parts):
        raise TemplateError(
            f"The template {template.source!r} has a {{decoder}}, and visibility is of what an "
            "encoder reads and of the answer: leave one of them out."
        )
    if kind == "encoder-decoder" and template.has_mask and tokens.mask != tokens.sentinel:
        raise TemplateError(
            f"The template {template.source!r} has a {{mask}}, for which this LM's decoder reads "
            "the row's text a second time, where visibility has no say: leave {mask} out, so that "
            "the decoder writes the answer, or leave visibility out."
        )
    places = _places(template, tokens, kind)
    known = {name for place in places for name in place.names}
    for name in [name for rule in rules for name in (*rule.hide, *rule.from_)]:
        if not _meant([name]) <= known:
            raise TemplateError(
                f"visibility names {name!r}, and in the template {template.source!r} this LM gets "
                f"no such token ({_said(name)}): leave that rule out."
            )
    for rule in rules:
        if not any(one != other or one.has_several for one, other in _meeting(rule, places)):
            raise TemplateError(
                f"{written(rule)} in visibility hides no token from another one in the template "
                f"{template.source!r}, and a token always sees itself: leave that rule out."
            )


def idle_rules(template: "Template", tokens: Tokens, kind: Kind) -> list[VisibilityRule]:
    """The rules of a template that change nothing in an LM of this kind, in which no token sees
    what they hide from it anyway.

    Args:
        template: as an LM of this kind can use it.
    """
    places = _places(template, tokens, kind)

    def is_seen(one: _Place, other: _Place) -> bool:
        if kind == "causal":
            return one.number < other.number or one is other and one.has_several
        return other.is_written or not one.is_written

    return [
        rule
        for rule in template.visibility
        if not any(is_seen(one, other) for one, other in _meeting(rule, places))
    ]


def idle_notes(template: "Template", tokens: Tokens, kind: Kind) -> list[str]:
    """What to say of each of these rules."""
    return [
        f"{written(rule)} in visibility changes nothing: in the template {template.source!r} this "
        "LM hides that by itself"
        for rule in idle_rules(template, tokens, kind)
    ]


def written(rule: VisibilityRule) -> str:
    """A rule as a task's file has it."""
    hidden, blind = (
        names[0] if len(names) == 1 else f"[{', '.join(names)}]"
        for names in (rule.hide, rule.from_)
    )
    return f"{{hide: {hidden}, from: {blind}}}"


@dataclass(frozen=True)
class _Place:
    """A part of the LM's input.

    Attributes:
        number: its number, in the order of the input.
        has_several: it may have more than one token.
        is_written: a decoder writes it.
    """

    number: int
    names: frozenset[str]
    has_several: bool
    is_written: bool = False


def _places(template: "Template", tokens: Tokens, kind: Kind) -> list[_Place]:
    """The parts of the input that an LM of this kind gets, special tokens and the answer among
    them."""
    around = (tokens.before, () if kind == "causal" else tokens.after)
    ahead, behind = (
        [(frozenset({WORDS}), len(ids) > 1)] if ids and not template.is_chat else []
        for ids in around
    )
    filled = [
        (names_of(part), _has_several(part, slots, tokens))
        for part, slots in zip(template.parts, template.slots(tokens))
        if not isinstance(part, Text) or part.text.strip(" ")
    ]
    places = [_Place(number, *one) for number, one in enumerate([*ahead, *filled, *behind])]
    if kind == "encoder-decoder":
        places.append(_Place(len(places), frozenset({MASK}), True, is_written=True))
    return places


def _has_several(part: Part, slots: Sequence[int] | None, tokens: Tokens) -> bool:
    """Whether a part of a template may have more than one token."""
    if isinstance(part, Text):
        return len(tokens.follow(part.text.rstrip(" "))) > 1
    return slots is None or len(slots) > 1


def _meeting(rule: VisibilityRule, places: Sequence[_Place]) -> Iterator[tuple[_Place, _Place]]:
    """Each part of the input that a rule hides, with each from which it hides that."""
    hidden, blind = _meant(rule.hide), _meant(rule.from_)
    for one, other in itertools.product(places, places):
        if one.names & hidden and other.names & blind:
            yield one, other


def _said(name: str) -> str:
    """What a group is, in words."""
    return {
        FIELDS: "the text of all fields",
        WORDS: "the template's own text with the special tokens",
        SOFT: "the soft tokens",
        PREFIX: "the prefix",
        MASK: "the answer",
    }.get(name, "what a part of the template is called")


def check_sees_input(row: RowVisibility) -> None:
    """Refuse a row of which a decoder sees nothing.

    Raises:
        TemplateError: it is such a row.
    """
    if not any(map(row.shows_answer, range(len(row.tokens)))):
        raise TemplateError(
            "visibility hides all that the encoder reads of this row from the answer, which its "
            "decoder would write from nothing: leave something visible."
        )


def sights_of_text(
    ids: Sequence[int], text: str, *, pieces: Sequence[tuple[str, Sight]], tokens: Tokens
) -> list[Sight]:
    """What the tokens of a text are that is put together of several parts' texts. A token that
    holds text of two parts is hidden, and blind, as each of them is; a plain space belongs to the
    word behind it.

    Args:
        text: what the tokens stand for, the pieces' texts in order, but for white space at its
            ends.
        pieces: the text of each part, with what its tokens are.

    Raises:
        ModelError, TemplateError: the tokenizer does not tell where its tokens stand in the text.
    """
    filled = {of_piece for piece, of_piece in pieces if piece.strip(" ")}
    if len(filled) <= 1:
        return [next(iter(filled), pieces[0][1])] * len(ids)
    whole = "".join(piece for piece, _ in pieces)
    start = whole.index(text)
    owners = [of_piece for piece, of_piece in pieces for _ in piece][start : start + len(text)]
    return [_of_span(span, text, owners) for span in tokens.places(ids, text)]


def _of_span(span: tuple[int, int], text: str, owners: Sequence[Sight]) -> Sight:
    """What the token with these characters of a text is, from what each character is."""
    first, end = span
    signs = [place for place in range(first, end) if text[place] != " "]
    behind = (place for place in range(first, len(text)) if text[place] != " ")
    return joined({owners[place] for place in signs or [next(behind, len(text) - 1)]})
