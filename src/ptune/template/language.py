"""The template language: where learned tokens stand, where the row's fields go, and where the
answer is.

    {soft:3} {subject} {soft:3} {mask} {soft:3}

`{field}` takes a field of the row, `{translation.en}` one within another; a name that is no word,
or that of a part, stands in quotes: `{"Review Text"}`, `{"mask"}`. Filters follow a bar:
`{premise|shorten}` may be cut to fit (several may: the longest is cut first, at its end;
`{premise|shorten:start}` at its start), `{x|lower}`, `{x|capitalize}`, `{x|strip}` (white space,
and at the end punctuation; `{x|strip:.?!}` these signs), `{keywords|join:", "}` (a list's texts,
with this between). `{soft:3}` is three pseudo tokens,
`{soft:"the capital of"}` as many as these words have tokens, starting from their embeddings;
`{soft:3@name}` names them and `{soft@name}` uses the same vectors again. `{prefix:5}` is five
learned keys and values at every layer, `{prefix:"summarize the table"}` as many as the words have
tokens, starting from the LM's own; at the front a prefix, behind the input an infix. `{mask}` is
the answer, `{sep}` the tokenizer's own separator of a pair; behind `{decoder}` stands what an
encoder-decoder's decoder reads before it writes the answer. `{{` and `}}` are braces; anything else
is text, spaces included.

Two shorthands: `(3, 3, 3)` is the template above (P-tuning, section 3), and LAMA's `[X] was born in
[Y] .` takes the subject and asks for the object; braces stand in it as anywhere. Parsing never
evaluates anything.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ptune.errors import TemplateError, first_fault
from ptune.settings import VisibilityRule, VisibilityRules
from ptune.template import chat
from ptune.template.encoding.encode import EncodedRow, RowEncoder
from ptune.template.encoding.visibility import check_for_lm, check_names
from ptune.template.fields import field_of, text_of
from ptune.template.parser import parse
from ptune.template.parts import (
    RESERVED,
    Control,
    Decoder,
    Field,
    Kind,
    Mask,
    Part,
    PrefixPart,
    Role,
    Sep,
    Soft,
    Text,
    shown,
)
from ptune.template.tokenizer import Place, Tokens

__all__ = [
    "RESERVED",
    "EncodedRow",
    "Field",
    "Kind",
    "Mask",
    "Part",
    "PrefixPart",
    "Sep",
    "Soft",
    "Template",
    "Text",
    "field_of",
    "text_of",
]
Slots = tuple[int, ...]
RULES: TypeAdapter[VisibilityRules] = TypeAdapter(VisibilityRules)


@dataclass(frozen=True)
class Template:
    """A parsed template; make one with ``Template.parse``."""

    source: str
    parts: tuple[Part, ...] = field(repr=False)
    is_chat: bool = field(default=False, repr=False)  # all tokens around the texts are among parts
    opens: bool = field(default=False, repr=False)  # the answer begins a message of this chat
    end: int | None = field(default=None, repr=False)  # the token that ends a message of this chat
    visibility: tuple[VisibilityRule, ...] = field(default=(), repr=False)

    def with_visibility(self, rules: Sequence[VisibilityRule]) -> "Template":
        """The template with rules that say whose tokens do not attend to which others.

        Args:
            rules: also as a task's file has them, {"hide": ..., "from": ...}.

        Raises:
            TemplateError: a rule names nothing in the template, or is none.
        """
        try:
            checked = RULES.validate_python(rules)
        except ValidationError as error:
            raise TemplateError(
                "visibility is a list of rules, each VisibilityRule(hide=..., from_=...): "
                f"{first_fault(error)}."
            ) from error
        check_names(self, checked)
        return replace(self, visibility=checked)

    @classmethod
    def parse(cls, source: str) -> "Template":
        """Parse a template, or one of the two shorthands.

        Raises:
            TemplateError: with the template, a caret under the fault, and the nearest right name.
        """
        return cls(source, parse(source))

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The names of the row's fields that the template takes."""
        return tuple(dict.fromkeys(part.name for part in self.parts if isinstance(part, Field)))

    @cached_property
    def has_mask(self) -> bool:
        """Whether the template says where the answer stands."""
        return any(isinstance(part, Mask) for part in self.parts)

    @cached_property
    def has_decoder(self) -> bool:
        """Whether it says what a decoder reads before the answer."""
        return any(isinstance(part, Decoder) for part in self.parts)

    @cached_property
    def has_roles(self) -> bool:
        """Whether it is a chat of messages, which a chat template has still to write."""
        return any(isinstance(part, Role) for part in self.parts)

    @cached_property
    def place(self) -> Place:
        """How the answer stands: behind a space ("is {mask}"), behind a line break or other white
        space, joined to what is before it ("non-{mask}"), or at the start of a text ("{mask} is",
        or a decoder's own text)."""
        mask = self._mask_index if self.has_mask else 0
        before = self.parts[mask - 1] if mask else None
        if isinstance(before, Control):
            return "start" if before.begins else "joined"
        if before is None or isinstance(before, Sep | Decoder):
            return "start"
        if not isinstance(before, Text) or not before.text[-1].isspace():
            return "joined"
        return "spaced" if before.text[-1] == " " else "line"

    @cached_property
    def _mask_index(self) -> int:
        """The index of the ``{mask}`` among the parts."""
        return next(i for i, part in enumerate(self.parts) if isinstance(part, Mask))

    def joined(self, name: str) -> "Template":
        """The template in which a field holds a list of words, with a space between two of them
        where it does not say what stands there (``|join``).

        Raises:
            TemplateError: the template does not take the field once.
        """
        parts = [part for part in self.parts if isinstance(part, Field) and part.name == name]
        if len(parts) != 1:
            raise TemplateError(
                f"The template {self.source!r} should have {Field(name).shown} once, whose words "
                f"or tokens are read, and has it {len(parts) or 'not'}"
                f"{' times' if parts else ''}."
            )
        field = parts[0]
        if field.joint is not None:
            return self
        with_joint = replace(field, filters=(*field.filters, ("join", " ")))
        return replace(self, parts=tuple(with_joint if p == field else p for p in self.parts))

    def texts(self, row: Mapping[str, Any]) -> dict[Field, str]:
        """What the row's fields hold, lists joined, before they are shortened or filtered.

        Raises:
            TemplateError: the row lacks a field, or it holds no text.
        """
        return {part: text_of(row, part) for part in self.parts if isinstance(part, Field)}

    def for_lm(self, tokens: Tokens, kind: Kind, whole: bool = False) -> tuple["Template", str]:
        """The template as an LM of this kind can use it, and what was left out for it. A chat is
        written as the tokenizer's own chat template has it.

        A causal LM sees nothing behind the answer, so soft tokens and closing punctuation there are
        dropped.

        Args:
            whole: without a ``{mask}``, the input is read as a whole: at its first token, or at a
                causal LM's last.

        Raises:
            TemplateError: no ``{mask}`` where the LM needs one, or other text behind it for a
                causal LM; a chat that the tokenizer's chat template refuses.
        """
        usable, dropped = self._usable(tokens, kind, whole)
        if self.visibility:
            check_for_lm(usable, self.visibility, tokens=tokens, kind=kind)
        return usable, dropped

    def _usable(self, tokens: Tokens, kind: Kind, whole: bool) -> tuple["Template", str]:
        """As ``for_lm``, but for who sees whom."""
        if kind == "encoder-decoder":
            self._check_prefix_is_first()
        if self.has_decoder:
            self._check_decoder(kind)
        if not self.has_mask and whole:
            return self._written(tokens, kind), ""
        if not self.has_mask and kind != "encoder-decoder":
            raise TemplateError(
                f"The template {self.source!r} has no {{mask}}: a {kind} LM does not know where "
                "the answer stands. Put {mask} there."
            )
        if kind != "causal" and not self.has_decoder:
            return self._written(tokens, kind), ""
        self._check_behind_answer(kind)
        if kind == "causal":
            self._check_prefix_is_seen()
        written = self._written(tokens, kind)
        dropped = "".join(map(shown, written.parts[written._mask_index + 1 :])).strip()
        return replace(written, parts=written.parts[: written._mask_index + 1]), dropped

    def _written(self, tokens: Tokens, kind: Kind) -> "Template":
        """The template without roles: those of a chat are written by its chat template."""
        return chat.for_lm(self, tokens, kind) if self.has_roles else self

    def _check_prefix_is_first(self) -> None:
        """Refuse a prefix behind other parts, as no encoder-decoder knows it."""
        if any(isinstance(part, PrefixPart) for part in self.parts[1:]):
            raise TemplateError(
                f"The template {self.source!r} has a {{prefix}} behind other parts. In an "
                "encoder-decoder every token of either side sees it, wherever it stands: put it "
                "first. Keys and values between input and answer are those of prefix: "
                "{attentions: [decoder]}."
            )

    def _check_decoder(self, kind: Kind) -> None:
        """Refuse a decoder's input where there is no decoder beside an encoder, or where the answer
        does not stand in it."""
        what = f"The template {self.source!r} has a {{decoder}}"
        if kind != "encoder-decoder":
            raise TemplateError(
                f"{what}, and a {kind} LM has one input: put all of it there, without {{decoder}}."
            )
        start = next(i for i, part in enumerate(self.parts) if isinstance(part, Decoder))
        if self.has_roles:
            raise TemplateError(f"{what}, and messages of a chat: take one of them.")
        if not self.has_mask or self._mask_index < start:
            raise TemplateError(
                f"{what}, which the decoder goes on from with the answer: put {{mask}} behind it, "
                "as the last part."
            )
        for part in self.parts[start:]:
            if isinstance(part, Field) and part.shorten:
                raise TemplateError(
                    f"{what}, and behind it {part.shown}: what an encoder reads is shortened, so "
                    "leave |shorten out there."
                )

    def _check_behind_answer(self, kind: Kind) -> None:
        """Refuse text behind the answer, which nothing reads that writes from left to right."""
        for part in self.parts[self._mask_index + 1 :]:
            is_learned = isinstance(part, Soft | PrefixPart)
            is_punctuation = isinstance(part, Text) and not re.search(r"\w", part.text)
            if not is_learned and not is_punctuation:
                raise TemplateError(
                    f"The template {self.source!r} has {shown(part)!r} behind {{mask}}, which a "
                    f"{'causal LM' if kind == 'causal' else 'decoder'} cannot see: it reads from "
                    "left to right. Put {mask} last."
                )

    def _check_prefix_is_seen(self) -> None:
        """Refuse a prefix that the token which predicts the answer's first one cannot see."""
        before = [
            part
            for part in self.parts[: self._mask_index]
            if not (isinstance(part, Text) and part.is_blank)
        ]
        if len(before) > 1 and isinstance(before[-1], PrefixPart):
            raise TemplateError(
                f"In {self.source!r} the {{prefix}} stands directly before {{mask}}, so the token "
                "that predicts the answer's first does not see it. Put some text between, as in "
                "{prefix:5} = {mask}."
            )

    def groups(self, tokens: Tokens) -> list[tuple[int, list[int] | None]]:
        """The runs of different pseudo tokens, in order: (length, token ids to start from or
        None)."""
        return [
            _run_of(part, tokens)
            for part in self.parts
            if isinstance(part, Soft) and not _is_repeated(part)
        ]

    def prompt_length(self, tokens: Tokens) -> int:
        """How many different pseudo tokens the template has."""
        return sum(length for length, _ in self.groups(tokens))

    def prefixes(self, tokens: Tokens) -> list[tuple[int, list[int] | None]]:
        """The runs of deep prefix vectors, in order: (length, token ids to start from or None)."""
        return [_run_of(part, tokens) for part in self.parts if isinstance(part, PrefixPart)]

    def prefix_length(self, tokens: Tokens) -> int:
        """How many deep prefix vectors the template has."""
        return sum(length for length, _ in self.prefixes(tokens))

    def slots(self, tokens: Tokens) -> list[Slots | None]:
        """For each part the numbers of the prompt vectors that stand there, or None where none
        do."""
        slots: dict[int, Slots] = {}
        named: dict[str | None, Slots] = {}
        start = 0
        for index, part in enumerate(self.parts):
            if isinstance(part, Soft) and not _is_repeated(part):
                length, _ = _run_of(part, tokens)
                slots[index] = named[part.name] = tuple(range(start, start + length))
                start += length
        for index, part in enumerate(self.parts):
            if isinstance(part, Soft) and _is_repeated(part):
                slots[index] = named[part.name]
        return [slots.get(index) for index in range(len(self.parts))]

    def encode(
        self,
        row: Mapping[str, Any],
        tokens: Tokens,
        kind: Kind,
        *,
        max_length: int | None = None,
        answer: Sequence[int | None] = (None,),
        start: int = 0,
        keeps_fields: bool = False,
    ) -> EncodedRow:
        """Turn a row into token ids with slots, shortened to ``max_length`` tokens, special ones
        included.

        Args:
            answer: the answer's tokens, None where they are not known. A masked LM gets a mask for
                each that is not known; a causal LM and a decoder get all but the last, so that each
                is scored after those before it.
            start: the token that starts a decoder.
            keeps_fields: the row gets its ``field_tokens``.

        Raises:
            TemplateError: a field is missing or is no text, the row is empty, or it does not fit
                even when everything that may be shortened is gone.
        """
        return RowEncoder(
            template=self,
            tokens=tokens,
            kind=kind,
            answer=answer,
            start=start,
            keeps_fields=keeps_fields,
        ).encode(row, max_length)

    def least(self, row: Mapping[str, Any], tokens: Tokens, kind: Kind) -> int:
        """How many tokens a row needs when all that may be shortened is gone, a one-token answer
        and the prefix included."""
        return RowEncoder(self, tokens, kind).min_size(row)


def _is_repeated(part: Soft) -> bool:
    """Whether the run uses the vectors of another, which has its name."""
    return part.length is None and part.words is None


def _run_of(part: Soft | PrefixPart, tokens: Tokens) -> tuple[int, list[int] | None]:
    """A run's length, and the token ids that it starts from or None."""
    if part.words is not None:
        ids = tokens.follow(f" {part.words}")
        return len(ids), ids
    assert part.length is not None
    return part.length, None
