"""How a row becomes what the LM takes: token ids, soft slots and answer positions."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ptune.errors import TemplateError
from ptune.template.encoding.units import Units
from ptune.template.encoding.visibility import (
    MASK,
    PREFIX,
    WORDS,
    RowVisibility,
    Sight,
    check_sees_input,
    joined,
    names_of,
    sight,
    sights_of_text,
)
from ptune.template.fields import cut, filtered
from ptune.template.parts import (
    Control,
    Decoder,
    Field,
    Kind,
    Mask,
    PrefixPart,
    Role,
    Sep,
    Soft,
    Text,
)
from ptune.template.tokenizer import Tokens

if TYPE_CHECKING:
    from ptune.template.language import Template

Content = str | Units | Soft | PrefixPart | Mask | Sep | Decoder | Control
Sights = tuple[tuple[str, Sight], ...]
# a run of text, the units of one or a part; its slots; the texts of its parts, and what visibility
# makes of each
Item = tuple[Content, tuple[int, ...] | None, Sights]


@dataclass(frozen=True)
class EncodedRow:
    """A row as the LM gets it.

    Attributes:
        ids: token ids [T]; at soft slots any id, never looked at.
        soft_slots: [T], the number of the prompt vector that stands here, -1 for a real token.
        types: token type ids [T], or None.
        answer_positions: where the scores of the answer's tokens are read [K]: positions in
            ``ids``, or in ``decoder`` where there is one.
        decoder: token ids of the decoder's input [Td], or None.
        decoder_slots: [Td], as ``soft_slots``; empty where no prompt vector stands there.
        cut: how many tokens of its fields were left out, so that it fits.
        prefix: for each vector of a deep prefix, how many ids stand before it.
        deep: [T], the number of the prefix vector that stands here, -1 elsewhere; only where
            ``spelt_out``.
        pooled: read at its only answer position the mean of the hidden states of all its tokens.
        layer: the layer whose hidden states are read, counted from 1; None for the last.
        units: where the tokens of each unit of a text begin and end, where single ones are read.
        is_scored: the vocabulary head runs at its answer positions.
        field_tokens: the tokens of the texts in its fields, each text by itself, for gates that
            read each row; those of an encoder-decoder's encoder. Nothing where none do.
        visibility: which of its tokens do not attend to which, where the task has rules for that.
    """

    ids: tuple[int, ...]
    soft_slots: tuple[int, ...]
    types: tuple[int, ...] | None
    answer_positions: tuple[int, ...]
    decoder: tuple[int, ...] | None = None
    decoder_slots: tuple[int, ...] = ()
    cut: int = 0
    prefix: tuple[int, ...] = ()
    deep: tuple[int, ...] = ()
    pooled: bool = False
    layer: int | None = None
    units: tuple[tuple[int, int], ...] = ()
    is_scored: bool = True
    field_tokens: tuple[int, ...] = ()
    visibility: RowVisibility | None = None

    @property
    def has_prompt(self) -> bool:
        """Whether a prompt's vectors or its prefix stand in it."""
        return bool(self.prefix) or max((*self.soft_slots, *self.decoder_slots)) >= 0

    @property
    def size(self) -> int:
        """How many tokens and prefix vectors the row has."""
        return len(self.ids) + len(self.prefix)

    def spelt_out(self) -> "EncodedRow":
        """The row with its prefix vectors as slots among the ids, for an LM that takes them
        there."""
        if not self.prefix:
            return self
        order: list[tuple[int, int]] = []  # position in the ids, number of the prefix vector; or -1
        for position in range(len(self.ids) + 1):
            order += [(-1, n) for n, start in enumerate(self.prefix) if start == position]
            order += [(position, -1)] if position < len(self.ids) else []
        moved = {old: new for new, (old, _) in enumerate(order) if old >= 0}
        types, seen = self.types or (0,) * len(self.ids), self.visibility
        return replace(
            self,
            ids=tuple(self.ids[old] if old >= 0 else self.ids[0] for old, _ in order),
            soft_slots=tuple(self.soft_slots[old] if old >= 0 else -1 for old, _ in order),
            types=tuple(types[old] if old >= 0 else 0 for old, _ in order) if self.types else None,
            answer_positions=tuple(moved[old] for old in self.answer_positions),
            prefix=(),
            deep=tuple(number for _, number in order),
            visibility=seen
            and replace(
                seen,
                tokens=tuple(seen.tokens[old] if old >= 0 else seen.prefix for old, _ in order),
            ),
        )


@dataclass(frozen=True)
class RowEncoder:
    """Encodes rows of one template for one LM.

    Attributes:
        answer: the answer's tokens, None where they are not known.
        start: the token that starts a decoder.
        keeps_fields: rows get their ``field_tokens``.
    """

    template: "Template"
    tokens: Tokens
    kind: Kind
    answer: Sequence[int | None] = (None,)
    start: int = 0
    keeps_fields: bool = False

    def encode(self, row: Mapping[str, Any], max_length: int | None) -> EncodedRow:
        """The row, shortened to ``max_length`` tokens; see ``Template.encode``."""
        values = self.template.texts(row)
        if values and not any(value.strip() for value in values.values()):
            names = list(self.template.fields)
            verb = "hold" if len(names) > 1 else "holds"
            raise TemplateError(f"The row is empty: {', '.join(names)} {verb} no text.")
        encoded = self.assemble(values)
        if max_length is None or encoded.size <= max_length:
            return encoded
        shortened = self.assemble(self.shortened(values, max_length))
        return replace(shortened, cut=len(encoded.ids) - len(shortened.ids))

    def lead(self, row: Mapping[str, Any], field: Field) -> str:
        """The space before a field that its tokens hold, where it stands in the row's input."""
        values: dict[Field, str | Units] = {**self.template.texts(row), field: Units()}
        return next(item.lead for item, *_ in self._items(values) if isinstance(item, Units))

    def min_size(self, row: Mapping[str, Any]) -> int:
        """How many tokens and prefix vectors the row has when all that may be shortened is gone."""
        values = self.template.texts(row)
        return self.assemble(
            {part: "" if part.shorten else value for part, value in values.items()}
        ).size

    def shortened(
        self, values: Mapping[Field, str | Units], max_length: int
    ) -> dict[Field, str | Units]:
        """The values with the longest shortenable texts cut until the row fits: each of them keeps
        as many tokens as the row has room for."""
        texts = {
            part: value for part, value in values.items() if part.shorten and isinstance(value, str)
        }
        spans = {part: self.tokens.spans(text) for part, text in texts.items()}

        def cut_to(limit: int) -> dict[Field, str | Units]:
            cut_texts = {
                part: cut(text, spans[part], limit, part.shorten) for part, text in texts.items()
            }
            return {**values, **cut_texts}

        shortest = self.assemble(cut_to(0))
        if shortest.size > max_length:
            unshortened = [part for part in values if part not in spans]
            raise _does_not_fit(shortest, max_length, unshortened)
        low, high = 0, max(map(len, spans.values()), default=0)
        while low < high:
            middle = (low + high + 1) // 2
            if self.assemble(cut_to(middle)).size <= max_length:
                low = middle
            else:
                high = middle - 1
        return cut_to(low)

    def assemble(self, values: Mapping[Field, str | Units]) -> EncodedRow:
        """The row with these texts in its fields."""
        assembly = _Assembly(self)
        if not self.template.is_chat:
            assembly.put(self.tokens.before)
        items = self._items(values)
        for number, item in enumerate(items):
            following = items[number + 1][0] if number + 1 < len(items) else None
            assembly.add(item, following)
        row = assembly.row()
        if self.keeps_fields:
            return replace(row, field_tokens=tuple(self._field_tokens(values, row)))
        return row

    def _field_tokens(self, values: Mapping[Field, str | Units], row: EncodedRow) -> Iterator[int]:
        """The tokens of the texts in the fields that the input, or an encoder's, has."""
        for part in itertools.takewhile(
            lambda part: not isinstance(part, Decoder), self.template.parts
        ):
            if isinstance(part, Field) and isinstance(values[part], Units):
                yield from (row.ids[place] for span in row.units for place in range(*span))
            elif isinstance(part, Field) and (text := self._text(part, values)):
                yield from self.tokens.follow(f" {text}")

    def _items(self, values: Mapping[Field, str | Units]) -> list[Item]:
        """The parts with text and fields joined to runs of text, so that pieces are cut as in one
        text.

        A plain space goes where no token of its own carries it: before a slot, beside a separator,
        behind a prefix at the front. Everything else stays as it stands, line breaks and tabs too;
        but a mask that the tokenizer writes with the white space beside it takes that with it.
        """
        items: list[Item] = []
        for part, slots in zip(self.template.parts, self.template.slots(self.tokens)):
            if isinstance(part, Role):
                raise TemplateError(
                    f"The chat {self.template.source!r} is not written for an LM yet: take "
                    "template.for_lm(tokens, kind)."
                )
            seen = sight(self.template.visibility, names_of(part))
            if not isinstance(part, Text | Field):
                items.append((part, slots, (("", seen),)))
                continue
            if isinstance(part, Field) and isinstance(units := values[part], Units):
                units = units.in_chat(self.tokens) if self.template.is_chat else units
                items.append((units, None, (("", seen),)))
                continue
            text = self._text(part, values)
            sights: Sights = ((text, seen),)
            if items and isinstance(items[-1][0], str):
                before, _, earlier = items.pop()
                if self.template.is_chat and self.tokens.control.search(f"{before}{text}"):
                    text = f" {text}"  # together they would write a control token
                    sights = ((text, seen),)
                text, sights = f"{before}{text}", (*earlier, *sights)
            items.append((text, None, sights))
        return [item for item in self._without_bare_spaces(items) if item[0] != ""]

    def _text(self, part: Text | Field, values: Mapping[Field, str | Units]) -> str:
        """The text of a part; in a chat no token of it is a control token."""
        text = part.text if isinstance(part, Text) else filtered(str(values[part]), part.filters)
        return self.tokens.without_control(text) if self.template.is_chat else text

    def _without_bare_spaces(self, items: Sequence[Item]) -> Iterator[Item]:
        """The items without the spaces that no token of the text carries (``_items``)."""
        has_mask_token = self.kind != "causal" and not self.template.has_decoder
        mask_strips = self.tokens.mask_strips if has_mask_token else (False, False)
        for position, (item, slots, sights) in enumerate(items):
            if isinstance(item, str):
                before = items[position - 1][0] if position else None
                after = items[position + 1][0] if position + 1 < len(items) else None
                is_behind_prefix = isinstance(before, PrefixPart) and position == 1
                if isinstance(before, Sep | Decoder) or is_behind_prefix:
                    item = item.removeprefix(" ")
                if isinstance(before, Control) and before.strips[1]:
                    item = item.lstrip()
                if isinstance(after, Control):
                    item = item.rstrip() if after.strips[0] else item
                elif (
                    isinstance(after, Sep | Decoder)
                    or after is not None
                    and self.tokens.carries_space
                ):
                    item = item.removesuffix(" ")
                if isinstance(after, Mask) and mask_strips[0]:
                    item = item.rstrip()
                if isinstance(before, Mask) and mask_strips[1]:
                    item = item.lstrip()
            elif isinstance(item, Units) and self._is_behind_space(items, position):
                item = replace(item, lead=" ")
            yield item, slots, sights

    def _is_behind_space(self, items: Sequence[Item], position: int) -> bool:
        """Whether the tokens of the item there hold the space behind which it stands."""
        before = items[position - 1][0] if position else None
        if not isinstance(before, str) or not self.tokens.carries_space:
            return False
        further = items[position - 2][0] if position > 1 else None
        if isinstance(further, Sep) or isinstance(further, PrefixPart) and position == 2:
            before = before.removeprefix(" ")
        return before.endswith(" ")


@dataclass
class _Assembly:
    """A row that is being put together, item by item."""

    encoder: RowEncoder
    ids: list[int] = field(default_factory=list)
    soft_slots: list[int] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    prefix: list[int] = field(default_factory=list)
    answer_positions: list[int] = field(default_factory=list)
    units: list[tuple[int, int]] = field(default_factory=list)
    sights: list[Sight] = field(default_factory=list)
    decoder: list[int] | None = None
    encoder_side: tuple[list[int], list[int], list[int]] | None = None  # once the decoder's begins

    def __post_init__(self) -> None:
        self.template, self.tokens = self.encoder.template, self.encoder.tokens
        self.kind, self.answer = self.encoder.kind, self.encoder.answer
        self.prefix_runs = iter(self.template.prefixes(self.tokens))
        types: tuple[int, int, int] = self.tokens.types or (0, 0, 0)
        self.text_type, self.sep_type, self.pair_type = types
        self.begins = True  # no token of a text and no slot stands here yet
        self.rules = self.template.visibility
        self.sight = sight(self.rules, {WORDS})  # of what is put next

    def put(
        self,
        ids: Sequence[int],
        slots: Sequence[int] | None = None,
        token_type: int | None = None,
    ) -> None:
        """Append tokens; at their soft slots, if they have some."""
        self.ids.extend(ids)
        self.soft_slots.extend([-1] * len(ids) if slots is None else slots)
        self.sights.extend([self.sight] * len(ids))
        self.types.extend([0 if token_type is None else token_type] * len(ids))

    def add(self, added: Item, following: Content | None) -> None:
        """Append an item; of a text before the answer, what a word there makes of it."""
        item, slots, sights = added
        self.sight = sights[0][1]
        if isinstance(item, str):
            self._add_text(item, sights, before_answer=isinstance(following, Mask))
        elif isinstance(item, Units):
            for piece in item.pieces(self.tokens, self.begins):
                first = len(self.ids) + piece.skipped
                self.put(piece.ids, token_type=self.text_type)
                self.units.append((first, len(self.ids)))
        elif isinstance(item, PrefixPart):
            is_first = self.template.parts[0] is item
            length, _ = next(self.prefix_runs)
            self.prefix += [0 if is_first else len(self.ids)] * length
        elif isinstance(item, Soft):
            self.put([self.tokens.pad] * len(slots or ()), slots, self.text_type)
        elif isinstance(item, Sep):
            self._add_separator()
        elif isinstance(item, Control):
            self.put([item.id], token_type=self.text_type)
        elif isinstance(item, Decoder):
            self._begin_decoder()
        elif self.encoder_side is not None:
            pass  # the decoder goes on with the answer from here
        elif self.kind == "causal":
            self._add_causal_answer()
        else:
            self._add_mask()
        self.begins = (
            isinstance(item, Sep | Decoder)
            or isinstance(item, Control)
            and item.begins
            or self.begins
            and isinstance(item, PrefixPart)
        )

    def _add_text(self, text: str, sights: Sights, before_answer: bool) -> None:
        if self.kind == "causal" and before_answer and not self.template.opens:
            ids = self.tokens.before_word(text, self.template.place, self.begins)
        elif self.begins:
            ids = self.tokens.start(text)
        else:
            ids = self.tokens.follow(text)
        first = len(self.ids)
        self.put(ids, token_type=self.text_type)
        if self.rules:
            self.sights[first:] = sights_of_text(ids, text, pieces=sights, tokens=self.tokens)

    def _add_separator(self) -> None:
        if self.tokens.between is None:
            raise TemplateError(
                f"The template {self.template.source!r} has a {{sep}}, and this LM's tokenizer has "
                "no separator: write the text that should stand there."
            )
        self.put(self.tokens.between, token_type=self.sep_type)
        self.text_type = self.pair_type

    def _add_causal_answer(self) -> None:
        """All tokens of the answer but the last, each of which is read one position earlier."""
        if not self.ids:
            raise TemplateError(
                f"Nothing stands before {{mask}} in {self.template.source!r}, so a causal LM has "
                "nothing to read its answer from."
            )
        first = len(self.ids) - 1
        self.answer_positions = list(range(first, first + len(self.answer)))
        self.sights[first] = joined([self.sights[first], (0, self.sight[1])])
        self.put(list(map(_known, self.answer[:-1])), token_type=self.text_type)

    def _add_mask(self) -> None:
        """The masks of a masked LM, or the one that an encoder-decoder's decoder fills."""
        mask = self.tokens.mask
        if mask is None:
            raise TemplateError(
                "This LM's tokenizer has no mask token: leave {mask} out, so that the decoder "
                "writes the answer."
            )
        if self.kind == "masked":
            first = len(self.ids)
            self.answer_positions = list(range(first, first + len(self.answer)))
            answer = [mask if token is None else token for token in self.answer]
            self.put(answer, token_type=self.text_type)
            return
        if mask == self.tokens.sentinel:
            self.decoder = [mask]
        else:
            self.decoder = [token for token, slot in zip(self.ids, self.soft_slots) if slot < 0]
        self.put([mask], token_type=self.text_type)

    def _begin_decoder(self) -> None:
        """End the encoder's input; what follows is the decoder's."""
        self.put(self.tokens.after, token_type=self.text_type)
        self.encoder_side = self.ids, self.soft_slots, self.types
        self.ids, self.soft_slots, self.types = [], [], []

    def row(self) -> EncodedRow:
        """The row, its end and its decoder's input added."""
        answer_positions, decoder = self.answer_positions, self.decoder
        self.sight = sight(self.rules, {WORDS})
        decoder_slots: list[int] = []
        if self.encoder_side is not None:
            decoder, decoder_slots = self.ids, self.soft_slots
            self.ids, self.soft_slots, self.types = self.encoder_side
        elif self.kind != "causal" and not self.template.is_chat:
            self.put(self.tokens.after, token_type=self.text_type)
        if self.kind == "encoder-decoder":
            decoder = [self.encoder.start, *(decoder or []), *map(_known, self.answer[:-1])]
            answer_positions = list(range(len(decoder) - len(self.answer), len(decoder)))
        elif not self.template.has_mask:
            answer_positions = [0] if self.kind == "masked" else [len(self.ids) - 1]
        return EncodedRow(
            ids=tuple(self.ids),
            soft_slots=tuple(self.soft_slots),
            types=tuple(self.types) if self.tokens.types else None,
            answer_positions=tuple(answer_positions),
            decoder=None if decoder is None else tuple(decoder),
            decoder_slots=self._decoder_slots(decoder_slots),
            prefix=tuple(self.prefix),
            units=tuple(self.units),
            visibility=self._visibility(),
        )

    def _visibility(self) -> RowVisibility | None:
        """Which tokens of the row do not attend to which, by the template's rules.

        Raises:
            TemplateError: a decoder sees nothing of the row.
        """
        if not self.rules:
            return None
        prefix, written = (sight(self.rules, {name}) for name in (PREFIX, MASK))
        visibility = RowVisibility(tuple(self.sights), prefix, written)
        if self.kind == "encoder-decoder":
            check_sees_input(visibility)
        return visibility

    def _decoder_slots(self, slots: Sequence[int]) -> tuple[int, ...]:
        """Those of the decoder's input: behind its start, and before the answer's tokens."""
        if max(slots, default=-1) < 0:
            return ()
        return (-1, *slots, *[-1] * (len(self.answer) - 1))


def _does_not_fit(
    shortest: EncodedRow, max_length: int, unshortened: Sequence[Field]
) -> TemplateError:
    """The error of a row that is too long even at its shortest, with what would help.

    Args:
        unshortened: the fields of the template that may not be shortened.
    """
    learned = sum(slot >= 0 for slot in shortest.soft_slots) + len(shortest.prefix)
    needs = (
        f"The row needs {shortest.size} tokens even when all that may be shortened is gone, and "
        f"{max_length} fit"
    )
    if 2 * learned > max_length:
        return TemplateError(
            f"{needs}: {learned} of them are soft tokens and prefix vectors. Ask for fewer of "
            "those."
        )
    if not unshortened:
        return TemplateError(f"{needs}. Make the template's own text shorter.")
    part = unshortened[0]
    shortenable = replace(part, filters=(*part.filters, ("shorten", "")))
    return TemplateError(f"{needs}. Mark another field with |shorten, as in {shortenable.shown}.")


def _known(token: int | None) -> int:
    if token is None:
        raise TemplateError(
            "An answer of several tokens can only be scored where its tokens are given."
        )
    return token
