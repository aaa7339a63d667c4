"""The template language: where learned tokens stand, where the row's fields go, and where the
answer is.

    {soft:3} {subject} {soft:3} {mask} {soft:3}

`{field}` takes a field of the row, `{translation.en}` one within another; a name that is no word,
or that of a part, stands in
quotes: `{"Review Text"}`, `{"mask"}`. Filters follow a bar: `{premise|shorten}` may be cut to fit
    (several may: the longest is
cut first, at its end; `{premise|shorten:start}` at its start), `{x|lower}`, `{x|capitalize}`,
`{x|strip}` (white space, and at the end punctuation; `{x|strip:.?!}` these signs),
`{keywords|join:", "}` (a list's texts, with this between). `{soft:3}` is three pseudo tokens,
`{soft:"the capital of"}` as many as these words have tokens, starting from their embeddings;
`{soft:3@name}` names them and `{soft@name}` uses the same vectors again. `{prefix:5}` is five
learned keys and values at every layer, `{prefix:"summarize the table"}` as many as the words have
tokens, starting from the LM's own; at the front a prefix, behind the input an infix. `{mask}` is
the answer, `{sep}` the tokenizer's own separator of a pair. `{{` and `}}` are braces; anything else
is text, spaces included.

Two shorthands: `(3, 3, 3)` is the template above (P-tuning, section 3), and LAMA's `[X] was born in
[Y] .` takes the subject and asks for the object; braces stand in it as anywhere. Parsing never
evaluates anything.
"""

import math
import re
import string
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from ptune.errors import TemplateError, nearest
from ptune.template.tokenizer import Place, Tokens

Kind = Literal["masked", "causal", "encoder-decoder"]
FILTERS = ("shorten", "lower", "strip", "capitalize", "join")
RESERVED = ("soft", "prefix", "mask", "sep")
MOST_LEARNED = 10_000  # pseudo tokens of a run, or prefix vectors
SENTENCE_ENDS = frozenset(".?!…。？！")  # these are taken off at a text's end only: .22 is a number


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Field:
    name: str
    filters: tuple[tuple[str, str], ...] = ()

    @property
    def shorten(self) -> str | None:
        """The side at which the field may be cut, "end" or "start"; None where it may not."""
        return next(
            (argument or "end" for name, argument in self.filters if name == "shorten"), None
        )

    @property
    def joint(self) -> str | None:
        """What stands between the texts of a list; None where the field should be a text."""
        return next((argument for name, argument in self.filters if name == "join"), None)

    @property
    def shown(self) -> str:
        """The field as a template has it."""
        name = (
            self.name if _is_bare(self.name) and self.name not in RESERVED else _quoted(self.name)
        )
        return "{" + "|".join([name, *map(_shown_filter, self.filters)]) + "}"


@dataclass(frozen=True)
class Soft:
    """A run of pseudo tokens: ``length`` of them, or as many as ``words`` have tokens, or those of
    another by ``name``."""

    length: int | None = None
    words: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class PrefixPart:
    """A deep prefix: ``length`` vectors at every layer, or as many as ``words`` have tokens."""

    length: int | None = None
    words: str | None = None


@dataclass(frozen=True)
class Mask:
    pass


@dataclass(frozen=True)
class Sep:
    pass


Part = Text | Field | Soft | PrefixPart | Mask | Sep
Item = tuple[
    str | Soft | PrefixPart | Mask | Sep, tuple[int, ...] | None
]  # a run of text or a part, and its slots


@dataclass(frozen=True)
class EncodedRow:
    """A row as the LM gets it.

    Attributes:
        ids: token ids [T]; at soft slots any id, never looked at.
        soft_slots: [T], the number of the prompt vector that stands here, -1 for a real token.
        types: token type ids [T], or None.
        answer_positions: where the scores of the answer's tokens are read [K]: positions in
            ``ids``, or in ``decoder`` where there is one.
        decoder: token ids of the decoder's input, or None.
        cut: how many tokens of its fields were left out, so that it fits.
        prefix: for each vector of a deep prefix, how many ids stand before it.
        deep: [T], the number of the prefix vector that stands here, -1 elsewhere; only where
            ``spelt_out``.
    """

    ids: tuple[int, ...]
    soft_slots: tuple[int, ...]
    types: tuple[int, ...] | None
    answer_positions: tuple[int, ...]
    decoder: tuple[int, ...] | None = None
    cut: int = 0
    prefix: tuple[int, ...] = ()
    deep: tuple[int, ...] = ()

    def spelt_out(self) -> "EncodedRow":
        """The row with its prefix vectors as slots among the ids, for an LM that takes them
        there."""
        if not self.prefix:
            return self
        order: list[
            tuple[int, int]
        ] = []  # (place among the ids or -1, number of the prefix vector or -1)
        for at in range(len(self.ids) + 1):
            order += [(-1, number) for number, start in enumerate(self.prefix) if start == at]
            order += [(at, -1)] if at < len(self.ids) else []
        new = {at: place for place, (at, _) in enumerate(order) if at >= 0}
        types = self.types or (0,) * len(self.ids)
        return replace(
            self,
            ids=tuple(self.ids[at] if at >= 0 else self.ids[0] for at, _ in order),
            soft_slots=tuple(self.soft_slots[at] if at >= 0 else -1 for at, _ in order),
            types=tuple(types[at] if at >= 0 else 0 for at, _ in order) if self.types else None,
            answer_positions=tuple(new[at] for at in self.answer_positions),
            prefix=(),
            deep=tuple(number for _, number in order),
        )


@dataclass(frozen=True)
class Template:
    """A parsed template; make one with ``Template.parse``."""

    source: str
    parts: tuple[Part, ...] = field(repr=False)

    @classmethod
    def parse(cls, source: str) -> "Template":
        """Parse a template, or one of the two shorthands.

        Raises:
            TemplateError: with the template, a caret under the fault, and the nearest right name.
        """
        return cls(source, tuple(_parse(_longhand(source))))

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The names of the row's fields that the template takes."""
        return tuple(dict.fromkeys(part.name for part in self.parts if isinstance(part, Field)))

    @cached_property
    def has_mask(self) -> bool:
        return any(isinstance(part, Mask) for part in self.parts)

    @cached_property
    def place(self) -> Place:
        """How the answer stands: behind a space ("is {mask}"), behind a line break or other white
        space, joined to what is before it ("non-{mask}"), or at the start of a text ("{mask} is",
        or a decoder's own text)."""
        at = next((i for i, part in enumerate(self.parts) if isinstance(part, Mask)), 0)
        before = self.parts[at - 1] if at else None
        if before is None or isinstance(before, Sep):
            return "start"
        if not isinstance(before, Text) or not before.text[-1].isspace():
            return "joined"
        return "spaced" if before.text[-1] == " " else "line"

    def texts(self, row: Mapping[str, Any]) -> dict[Field, str]:
        """What the row's fields hold, lists joined, before they are shortened or filtered.

        Raises:
            TemplateError: the row lacks a field, or it holds no text.
        """
        return {part: text_of(row, part) for part in self.parts if isinstance(part, Field)}

    def for_kind(self, kind: Kind, whole: bool = False) -> tuple["Template", str]:
        """The template as an LM of this kind can use it, and what was left out for it.

        A causal LM sees nothing behind the answer, so soft tokens and closing punctuation there are
        dropped.

        Args:
            whole: without a ``{mask}``, the input is read as a whole: at its first token, or at a
                causal LM's last.

        Raises:
            TemplateError: no ``{mask}`` where the LM needs one, or other text behind it for a
                causal LM.
        """
        if kind == "encoder-decoder" and any(
            isinstance(part, PrefixPart) for part in self.parts[1:]
        ):
            raise TemplateError(
                f"The template {self.source!r} has a {{prefix}} behind other parts. In an "
                "encoder-decoder every token of either side sees "
                f"it, wherever it stands: put it first."
            )
        if not self.has_mask and whole:
            return self, ""
        if not self.has_mask and kind != "encoder-decoder":
            raise TemplateError(
                f"The template {self.source!r} has no {{mask}}: a {kind} LM does not know where "
                "the answer "
                f"stands. Put {{mask}} there."
            )
        if kind != "causal":
            return self, ""
        at = next(i for i, part in enumerate(self.parts) if isinstance(part, Mask))
        behind = self.parts[at + 1 :]
        for part in behind:
            if not (
                isinstance(part, Soft | PrefixPart)
                or isinstance(part, Text)
                and not re.search(r"\w", part.text)
            ):
                raise TemplateError(
                    f"The template {self.source!r} has {_shown(part)!r} behind {{mask}}, which a "
                    "causal LM cannot see: it "
                    f"reads from left to right. Put {{mask}} last."
                )
        before = [
            part
            for part in self.parts[:at]
            if not (isinstance(part, Text) and not part.text.strip())
        ]
        if len(before) > 1 and isinstance(before[-1], PrefixPart):
            raise TemplateError(
                f"In {self.source!r} the {{prefix}} stands directly before {{mask}}, so the token "
                "that predicts the answer's first does "
                f"not see it. Put some text between, as in {{prefix:5}} = {{mask}}."
            )
        dropped = "".join(map(_shown, behind)).strip()
        return replace(self, parts=self.parts[: at + 1]), dropped

    def groups(self, tokens: Tokens) -> list[tuple[int, list[int] | None]]:
        """The runs of different pseudo tokens, in order: (length, token ids to start from or
        None)."""
        return list(self._groups(tokens)[0])

    def prompt_length(self, tokens: Tokens) -> int:
        """How many different pseudo tokens the template has."""
        return sum(length for length, _ in self.groups(tokens))

    def prefixes(self, tokens: Tokens) -> list[tuple[int, list[int] | None]]:
        """The runs of deep prefix vectors, in order: (length, token ids to start from or None)."""
        words = [
            (part, None if part.words is None else tokens.follow(f" {part.words}"))
            for part in self.parts
            if isinstance(part, PrefixPart)
        ]
        return [(part.length or len(ids or ()), ids) for part, ids in words]

    def _groups(
        self, tokens: Tokens
    ) -> tuple[list[tuple[int, list[int] | None]], list[tuple[int, ...] | None]]:
        """The runs, and for each part the slots that stand there."""
        runs: list[tuple[int, list[int] | None]] = []
        named: dict[str, tuple[int, ...]] = {}
        first = 0
        soft_slots: list[tuple[int, ...] | None] = []
        for part in self.parts:
            if isinstance(part, Soft) and (part.length is not None or part.words is not None):
                words = None if part.words is None else tokens.follow(f" {part.words}")
                length = part.length if words is None else len(words)
                assert length is not None
                runs.append((length, words))
                soft_slots.append(tuple(range(first, first + length)))
                if part.name:
                    named[part.name] = soft_slots[-1] or ()
                first += length
            else:
                soft_slots.append(None)
        for at, part in enumerate(self.parts):
            if isinstance(part, Soft) and soft_slots[at] is None:
                soft_slots[at] = named[str(part.name)]
        return runs, soft_slots

    def encode(
        self,
        row: Mapping[str, Any],
        tokens: Tokens,
        kind: Kind,
        max_length: int | None = None,
        answer: Sequence[int | None] = (None,),
        start: int = 0,
    ) -> EncodedRow:
        """Turn a row into token ids with slots, shortened to ``max_length`` tokens, special ones
        included.

        Args:
            answer: the answer's tokens, None where they are not known. A masked LM gets a mask for
                each that is not known; a causal LM and a decoder get all but the last, so that each
                is scored after those before it.
            start: the token that starts a decoder.

        Raises:
            TemplateError: a field is missing or is no text, the row is empty, or it does not fit
                even when everything that may be shortened is gone.
        """
        values = self.texts(row)
        if values and not any(value.strip() for value in values.values()):
            raise TemplateError(f"The row is empty: {', '.join(self.fields)} hold no text.")
        encoded = self._assemble(values, tokens, kind, answer, start)
        if max_length is None or len(encoded.ids) + len(encoded.prefix) <= max_length:
            return encoded
        short = self._assemble(
            self._shortened(values, tokens, kind, max_length, answer), tokens, kind, answer, start
        )
        return replace(short, cut=len(encoded.ids) - len(short.ids))

    def least(self, row: Mapping[str, Any], tokens: Tokens, kind: Kind) -> int:
        """How many tokens a row needs when all that may be shortened is gone, a one-token answer
        and the prefix included."""
        values = {part: "" if part.shorten else value for part, value in self.texts(row).items()}
        encoded = self._assemble(values, tokens, kind, (None,), 0)
        return len(encoded.ids) + len(encoded.prefix)

    def _shortened(
        self,
        values: dict[Field, str],
        tokens: Tokens,
        kind: Kind,
        max_length: int,
        answer: Sequence[int | None],
    ) -> dict[Field, str]:
        """Cut the longest shortenable fields until the row fits: the most tokens that each of them
        may keep."""

        def length(candidate: dict[Field, str]) -> int:
            row = self._assemble(candidate, tokens, kind, answer, 0)
            return len(row.ids) + len(row.prefix)

        spans = {part: tokens.spans(value) for part, value in values.items() if part.shorten}

        def kept(most: int) -> dict[Field, str]:
            return {
                part: _cut(value, spans[part], most, part.shorten) if part in spans else value
                for part, value in values.items()
            }

        low, high = 0, max(map(len, spans.values()), default=0)
        if (least := length(kept(0))) > max_length:
            shortest = self._assemble(kept(0), tokens, kind, answer, 0)
            learned = sum(slot >= 0 for slot in shortest.soft_slots) + len(shortest.prefix)
            if 2 * learned > max_length:
                raise TemplateError(
                    f"The row needs {least} tokens even when all that may be shortened is gone, "
                    f"and {max_length} fit: "
                    f"{learned} of them are soft tokens and prefix vectors. Ask for fewer of those."
                )
            raise TemplateError(
                f"The row needs {least} tokens even when all that may be shortened is gone, and "
                f"{max_length} fit. "
                + (
                    "Mark another field with |shorten, as in "
                    f"{replace(whole[0], filters=(*whole[0].filters, ('shorten', ''))).shown}."
                    if (whole := [part for part in values if part not in spans])
                    else "Make the template's own text shorter."
                )
            )
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if length(kept(middle)) <= max_length else (low, middle - 1)
        return kept(low)

    def _assemble(
        self,
        values: dict[Field, str],
        tokens: Tokens,
        kind: Kind,
        answer: Sequence[int | None],
        start: int,
    ) -> EncodedRow:
        ids, soft_slots, types = (
            list(tokens.before),
            [-1] * len(tokens.before),
            [0] * len(tokens.before),
        )
        kinds, answer_positions, decoder, second = tokens.types or (0, 0, 0), [], None, 0
        begins = True
        prefix: list[int] = []
        runs = iter(self.prefixes(tokens))

        def put(new: Sequence[int], where: Sequence[int] | None = None, type_: int = 0) -> None:
            ids.extend(new)
            soft_slots.extend([-1] * len(new) if where is None else where)
            types.extend([type_] * len(new))

        items = self._items(values, tokens, kind)
        for (item, where), following in zip(items, [*(item for item, _ in items[1:]), None]):
            type_ = kinds[2] if second else kinds[0]
            if isinstance(item, str):
                if kind == "causal" and isinstance(following, Mask):
                    put(tokens.before_word(item, self.place, begins), type_=type_)
                else:
                    put((tokens.start if begins else tokens.follow)(item), type_=type_)
            elif isinstance(item, PrefixPart):
                prefix += [0 if self.parts[0] is item else len(ids)] * next(runs)[0]
            elif isinstance(item, Soft):
                put([tokens.pad] * len(where or ()), where, type_)
            elif isinstance(item, Sep):
                if tokens.between is None:
                    raise TemplateError(
                        f"The template {self.source!r} has a {{sep}}, and this LM's tokenizer has "
                        "no "
                        f"separator: write the text that should stand there."
                    )
                put(tokens.between, type_=kinds[1])
                second = 1
            elif kind == "causal":
                if not ids:
                    raise TemplateError(
                        f"Nothing stands before {{mask}} in {self.source!r}, so a causal LM has "
                        "nothing to "
                        f"read its answer from."
                    )
                answer_positions = list(range(len(ids) - 1, len(ids) - 1 + len(answer)))
                put([_known(token) for token in answer[:-1]], type_=type_)
            else:
                if tokens.mask is None:
                    raise TemplateError(
                        "This LM's tokenizer has no mask token: leave {mask} out, so that the "
                        "decoder "
                        "writes the answer."
                    )
                if kind == "masked":
                    answer_positions = list(range(len(ids), len(ids) + len(answer)))
                else:
                    decoder = (
                        [tokens.mask]
                        if tokens.mask == tokens.sentinel
                        else [i for i, s in zip(ids, soft_slots) if s < 0]
                    )
                put(
                    [tokens.mask if token is None else token for token in answer]
                    if kind == "masked"
                    else [tokens.mask],
                    type_=type_,
                )
            begins = isinstance(item, Sep) or begins and isinstance(item, PrefixPart)
        if kind != "causal":
            put(tokens.after, type_=kinds[2] if second else kinds[0])
        if not self.has_mask and kind != "encoder-decoder":
            answer_positions = [0] if kind == "masked" else [len(ids) - 1]
        if kind == "encoder-decoder":
            decoder = [start, *(decoder or []), *map(_known, answer[:-1])]
            answer_positions = list(range(len(decoder) - len(answer), len(decoder)))
        return EncodedRow(
            tuple(ids),
            tuple(soft_slots),
            tuple(types) if tokens.types else None,
            tuple(answer_positions),
            None if decoder is None else tuple(decoder),
            prefix=tuple(prefix),
        )

    def _items(self, values: dict[Field, str], tokens: Tokens, kind: Kind) -> list[Item]:
        """The parts with text and fields joined to runs of text, so that pieces are cut as in one
        text.

        A plain space goes where no token of its own carries it: before a slot, beside a separator,
        behind a prefix at the front. Everything else stays as it stands, line breaks and tabs too;
        but a mask that the tokenizer writes with the white space beside it takes that with it.
        """
        items: list[Item] = []
        for part, where in zip(self.parts, self._groups(tokens)[1]):
            if not isinstance(part, Text | Field):
                items.append((part, where))
                continue
            text = part.text if isinstance(part, Text) else _filtered(values[part], part.filters)
            if items and isinstance(items[-1][0], str):
                text = items.pop()[0] + text  # type: ignore[operator]
            items.append((text, None))
        return [item for item in _without_slots_spaces(items, tokens, kind) if item[0] != ""]


def _without_slots_spaces(items: Sequence[Item], tokens: Tokens, kind: Kind) -> Iterator[Item]:
    """Runs of text without the spaces that no token of the text carries (``Template._items``)."""
    for place, (text, where) in enumerate(items):
        if isinstance(text, str):
            before = items[place - 1][0] if place else None
            behind = items[place + 1][0] if place + 1 < len(items) else None
            if isinstance(before, Sep) or isinstance(before, PrefixPart) and place == 1:
                text = text.removeprefix(" ")
            if isinstance(behind, Sep) or behind is not None and tokens.carries_space:
                text = text.removesuffix(" ")
            if kind != "causal" and isinstance(behind, Mask) and tokens.mask_strips[0]:
                text = text.rstrip()
            if kind != "causal" and isinstance(before, Mask) and tokens.mask_strips[1]:
                text = text.lstrip()
        yield text, where


def field_of(row: Mapping[str, Any], name: str) -> Any:
    """What a row's field holds: that of the name, or by the name's dots one within another, or in a
    list that of a number.

    Raises:
        KeyError: there is none.
    """
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif (
            isinstance(value, list)
            and part.isdecimal()
            and len(part) < 10
            and int(part) < len(value)
        ):
            value = value[int(part)]
        else:
            raise KeyError(name)
    return value


def text_of(row: Mapping[str, Any], part: Field) -> str:
    """The text that a row has for a field of a template.

    Raises:
        TemplateError: it has none.
    """
    try:
        value = field_of(row, part.name)
    except KeyError:
        raise TemplateError(
            f"The row has no field {part.name!r}. {nearest(part.name, map(str, row))}"
        ) from None
    if value is None or isinstance(value, float) and math.isnan(value):
        raise TemplateError(
            f"The field {part.name!r} is missing (null or NaN): give it a text, or leave the row "
            "out."
        )
    if isinstance(value, list) and part.joint is not None and all(map(_is_text, value)):
        return part.joint.join(map(str, value))
    if not _is_text(value):
        hint = (
            f" Its texts are joined by {replace(part, filters=(('join', ', '),)).shown}."
            if isinstance(value, list)
            else ""
        )
        raise TemplateError(
            f"The field {part.name!r} should be text, and it is {type(value).__name__}: "
            f"{str(value)[:60]!r}.{hint}"
        )
    return str(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _filtered(value: str, filters: Sequence[tuple[str, str]]) -> str:
    for name, argument in filters:
        if name == "lower":
            value = value.lower()
        elif name == "capitalize":
            value = value[:1].upper() + value[1:]
        elif name == "strip":
            signs = argument or string.punctuation
            before = "".join(set(argument) - SENTENCE_ENDS)
            value = value.strip().lstrip(before).rstrip(signs)
    return value


def _cut(text: str, spans: list[tuple[int, int]], most: int, side: str | None) -> str:
    """At most ``most`` tokens of the text, from its start or, with side "start", from its end; no
    word is split where the rest holds a whole one."""
    if len(spans) <= most:
        return text
    if most == 0:
        return ""
    if side == "start":
        at = spans[len(spans) - most][0]
        space = text.find(" ", at)
        return text[at if at == 0 or text[at - 1].isspace() or space < 0 else space :].lstrip()
    at = spans[most - 1][1]
    space = text.rfind(" ", 0, at)
    return text[: at if text[at : at + 1].isspace() or space <= 0 else space].rstrip()


def _known(token: int | None) -> int:
    if token is None:
        raise TemplateError(
            "An answer of several tokens can only be scored where its tokens are given."
        )
    return token


def _shown(part: Part) -> str:
    if isinstance(part, Text):
        return part.text
    if isinstance(part, Field):
        return part.shown
    if isinstance(part, Soft):
        length = (
            f":{part.length}"
            if part.length is not None
            else f':"{part.words}"'
            if part.words is not None
            else ""
        )
        return "{soft" + length + (f"@{part.name}" if part.name else "") + "}"
    if isinstance(part, PrefixPart):
        return "{prefix:" + (str(part.length) if part.words is None else f'"{part.words}"') + "}"
    return "{mask}" if isinstance(part, Mask) else "{sep}"


def _longhand(source: str) -> str:
    """Write out ``(3, 3, 3)`` and ``[X] ... [Y]``."""
    if counts := re.fullmatch(r"\s*\(?\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\)?\s*", source):
        first, second, third = (f"{{soft:{n}}}" if int(n) else "" for n in counts.groups())
        return " ".join(part for part in (first, "{subject}", second, "{mask}", third) if part)
    return (
        source.replace("[X]", "{subject}").replace("[Y]", "{mask}")
        if "[X]" in source and "[Y]" in source
        else source
    )


def _parse(source: str) -> list[Part]:
    parts: list[Part] = []
    text, at = "", 0

    def fail(message: str, begin: int, end: int | None = None) -> TemplateError:
        line_start = source.rfind("\n", 0, begin) + 1
        line_end = source.find("\n", begin) if "\n" in source[begin:] else len(source)
        carets = "^" * max(1, min(end or begin + 1, line_end) - begin)
        return TemplateError(
            f"{message}\n  {source[line_start:line_end]}\n  {' ' * (begin - line_start)}{carets}"
        )

    def close() -> None:
        nonlocal text
        if text:
            parts.append(Text(text))
            text = ""

    while at < len(source):
        if source[at : at + 2] in ("{{", "}}"):
            text, at = text + source[at], at + 2
        elif source[at] == "}":
            raise fail("This brace closes nothing; a literal one is written }}.", at)
        elif source[at] == "{":
            end = _closing(source, at)
            if end < 0:
                raise fail("This brace is never closed; a literal one is written {{.", at)
            close()
            parts.append(_part(source[at + 1 : end], at + 1, fail))
            at = end + 1
        elif wide := re.match("\uff5b([^\uff5b\uff5d{}]*)\uff5d", source[at:]):
            if re.match(r"(soft|prefix|mask|sep)(?!\w)", wide[1]) or _is_bare(
                wide[1].split("|")[0]
            ):
                raise fail(
                    f"These are full-width braces, which are text: write {{{wide[1]}}}.",
                    at,
                    at + len(wide[0]),
                )
            text, at = text + wide[0], at + len(wide[0])
        else:
            text, at = text + source[at], at + 1
    close()
    _check(parts, source, fail)
    return parts


def _closing(source: str, at: int) -> int:
    """The brace that closes the one at ``at``; braces between double quotes are text."""
    quoted = False
    for i in range(at + 1, len(source)):
        if source[i] == '"':
            quoted = not quoted
        elif source[i] == "}" and not quoted:
            return i
    return -1


Fail = Callable[..., TemplateError]


def _part(body: str, at: int, fail: Fail) -> Part:
    """What stands between two braces; ``at`` is where it begins."""
    if not body.strip():
        raise fail(
            "Empty braces: write {field}, {soft:3}, {prefix:5}, {mask} or {sep}.",
            at - 1,
            at + len(body) + 1,
        )
    if re.match(r"soft(?!\w)", body):
        return _soft(body, at, fail)
    if re.match(r"prefix(?!\w)", body):
        return _deep(body, at, fail)
    if body in ("mask", "sep"):
        return Mask() if body == "mask" else Sep()
    if re.match(r"(mask|sep)(?!\w)", body):
        raise fail(
            f"{{{body.split(':')[0].split('|')[0]}}} takes nothing more.", at, at + len(body)
        )
    name, *filters = _split(body)
    if not (quoted := _unquoted(name)) and not _is_bare(name):
        hint = (
            f" {nearest(name.split(':')[0].strip(), RESERVED)}"
            if re.match(r"\s*\w+\s*:", name)
            else ""
        )
        raise fail(
            f"{name!r} is no field name: letters, digits, - and _ only, and dots between two. Any "
            "other stands in quotes, as in "
            f"{{{_quoted(name)}}}.{hint}",
            at,
            at + len(name),
        )
    found, position = [], at + len(name) + 1
    for text in filters:
        filter_, colon, argument = text.partition(":")
        if filter_ not in FILTERS:
            raise fail(
                f"There is no filter {filter_!r}. {nearest(filter_, FILTERS)}",
                position,
                position + len(filter_),
            )
        if filter_ == "shorten" and argument not in ("", "start", "end"):
            raise fail(
                "A field is shortened at its :start or its :end.", position, position + len(text)
            )
        if filter_ in ("lower", "capitalize") and argument:
            raise fail(f"The filter {filter_} takes no argument.", position, position + len(text))
        if filter_ == "join":
            argument = (
                _unquoted(argument) if argument.startswith('"') else argument if colon else ", "
            )
        found.append((filter_, argument))
        position += len(text) + 1
    return Field(quoted or name, tuple(found))


def _split(body: str) -> list[str]:
    """What stands between the bars of a field; bars between double quotes are text."""
    pieces, quoted = [""], False
    for sign in body:
        quoted ^= sign == '"'
        if sign == "|" and not quoted:
            pieces.append("")
        else:
            pieces[-1] += sign
    return pieces


def _is_bare(name: str) -> bool:
    """Whether a field's name needs no quotes: it begins with a letter of any script or _, its
    marks, digits, - and _ follow, and dots stand between such names, or numbers."""
    names = name.split(".")
    return all(map(_is_word, names)) and (
        names[0][0] == "_" or unicodedata.category(names[0][0])[0] == "L"
    )


def _is_word(name: str) -> bool:
    return name != "" and all(
        sign in "_-" or unicodedata.category(sign)[0] in "LMN" for sign in name
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _unquoted(text: str) -> str:
    """What stands in double quotes, of which two stand for one; empty where it does not stand in
    them."""
    matched = re.fullmatch(r'"((?:[^"]|"")*)"', text)
    return matched[1].replace('""', '"') if matched else ""


def _shown_filter(filter_: tuple[str, str]) -> str:
    name, argument = filter_
    return (
        f"{name}:{_quoted(argument)}"
        if name == "join"
        else f"{name}:{argument}"
        if argument
        else name
    )


def _soft(body: str, at: int, fail: Fail) -> Soft:
    matched = re.fullmatch(r'soft(?::(?:(\d+)|"([^"]*)"))?(?:@([\w-]+))?', body)
    if not matched:
        raise fail(
            'Soft tokens are written {soft:3}, {soft:"some words"}, {soft:3@name} or {soft@name}.',
            at,
            at + len(body),
        )
    length, words, name = matched.groups()
    _check_length(length, "There are no 0 soft tokens: leave it out.", fail, at, at + len(body))
    if words is not None and not words.strip():
        raise fail("There are no words to start from.", at, at + len(body))
    if length is None and words is None and name is None:
        length = "1"
    return Soft(None if length is None else int(length), words, name)


def _deep(body: str, at: int, fail: Fail) -> PrefixPart:
    matched = re.fullmatch(r'prefix:(?:(\d+)|"([^"]*)")', body)
    if not matched:
        raise fail(
            'A deep prefix is written {prefix:5} or {prefix:"some words"}.', at, at + len(body)
        )
    length, words = matched.groups()
    _check_length(
        length, "There is no prefix of 0 vectors: leave it out.", fail, at, at + len(body)
    )
    if words is not None and not words.strip():
        raise fail("There are no words to start from.", at, at + len(body))
    return PrefixPart(None if length is None else int(length), words)


def _check_length(length: str | None, none: str, fail: Fail, begin: int, end: int) -> None:
    """The number of a run's vectors, where it is given, is one at least and no more than any LM has
    room for."""
    if length is None:
        return
    digits = length.lstrip("0")
    if not digits:
        raise fail(none, begin, end)
    if len(digits) > 9 or int(digits) > MOST_LEARNED:
        raise fail(f"No LM has room for so many: {MOST_LEARNED:,} are the most.", begin, end)


def _check(parts: list[Part], source: str, fail: Fail) -> None:
    """Names that are used must be given once; there is one answer."""
    given = [
        part.name
        for part in parts
        if isinstance(part, Soft) and part.name and (part.length or part.words)
    ]
    for part in parts:
        if isinstance(part, Soft) and not part.length and not part.words and part.name not in given:
            raise fail(
                f"No soft tokens are named {part.name!r}: write {{soft:3@{part.name}}} once. "
                f"{nearest(str(part.name), given)}",
                source.index(f"@{part.name}"),
                source.index(f"@{part.name}") + len(str(part.name)) + 1,
            )
    if twice := next((name for name in given if given.count(name) > 1), None):
        raise fail(
            f"The name {twice!r} is given twice: the second time write {{soft@{twice}}}.",
            source.rindex(f"@{twice}"),
            source.rindex(f"@{twice}") + len(twice) + 1,
        )
    for form, kind, name in (("[X]", Field, "a field, such as {subject}"), ("[Y]", Mask, "{mask}")):
        if form in source and not any(isinstance(part, kind) for part in parts):
            raise fail(
                f"LAMA's form has both [X] and [Y]; here {form} would be text: write {name}.",
                source.index(form),
                source.index(form) + 3,
            )
    if sum(isinstance(part, Mask) for part in parts) > 1:
        second = [m.start() for m in re.finditer(r"\{mask\}", source)][1]
        raise fail(
            "There is one {mask} in a template; an answer of several tokens gets its masks by "
            "itself.",
            second,
            second + 6,
        )
