"""Texts that are read unit by unit: the words of a list, or the tokens of a passage. Where they do
not all fit into an input, several inputs hold a window of them each, and windows overlap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Self

from ptune.errors import TemplateError
from ptune.template.parts import Field, Kind
from ptune.template.tokenizer import Tokens

if TYPE_CHECKING:
    from ptune.template.encoding.encode import EncodedRow, RowEncoder

SHARED = 0.5  # the share of a window that the next one holds again
FAR = 1 << 30  # units to the edge of a window where the text itself ends there


@dataclass(frozen=True)
class Piece:
    """The tokens of a unit; the first ``skipped`` of them are the space before it."""

    ids: tuple[int, ...]
    skipped: int = 0


@dataclass(frozen=True)
class Units:
    """The units of a text, as an input has them.

    Attributes:
        lead: the space before the first one, where its tokens hold it.
        most: tokens of each unit at most; the others are cut off.
    """

    lead: str = ""
    most: int | None = None

    def pieces(self, tokens: Tokens, begins: bool) -> list[Piece]:
        """The tokens of each unit.

        Args:
            begins: the first unit stands at the start of an input.
        """
        raise NotImplementedError

    def part(self, start: int, end: int) -> Self:
        """Those from ``start`` to ``end`` (not included)."""
        raise NotImplementedError

    def in_chat(self, tokens: Tokens) -> Self:
        """The same units where no token of them may be a control token."""
        return self


@dataclass(frozen=True)
class Words(Units):
    """Words, each tokenised as it stands behind the one before it, so that every token belongs to
    one word. A word that the tokenizer makes nothing of stands there as an unknown one."""

    texts: tuple[str, ...] = ()
    joint: str = " "

    def pieces(self, tokens: Tokens, begins: bool) -> list[Piece]:
        if not self.texts:
            return []
        first, *others = self.texts
        start = (tokens.start if begins else tokens.follow)(self.lead + first)
        following = tokens.follow_all([self.joint + text for text in others])
        skips = [0, *(self._skipped(tokens, ids) for ids in following)]
        return [
            self._piece(ids, skip, tokens.unknown) for ids, skip in zip([start, *following], skips)
        ]

    def _piece(self, ids: Sequence[int], skipped: int, unknown: int) -> Piece:
        """A word's tokens, as many as it may have."""
        if not ids[skipped:]:
            return Piece((unknown,))
        if self.most is not None and self.most <= skipped:
            ids, skipped = ids[skipped:], 0
        return Piece(tuple(ids[: self.most]), skipped)

    def _skipped(self, tokens: Tokens, ids: Sequence[int]) -> int:
        """How many of a word's tokens are the space before it alone."""
        if tokens.carries_space or not self.joint:
            return 0
        space = tokens.follow(self.joint)
        return len(space) if ids[: len(space)] == space and len(ids) > len(space) else 0

    def part(self, start: int, end: int) -> Self:
        return replace(self, texts=self.texts[start:end])

    def in_chat(self, tokens: Tokens) -> Self:
        return replace(self, texts=tuple(map(tokens.without_control, self.texts)))


@dataclass(frozen=True)
class Passage(Units):
    """The tokens of a text, each a unit of its own.

    Attributes:
        window: the numbers of its first token and of the one behind its last; None for its end.
        is_in_chat: no token of it may be a control token.
    """

    text: str = ""
    window: tuple[int, int | None] = (0, None)
    is_in_chat: bool = False

    def pieces(self, tokens: Tokens, begins: bool) -> list[Piece]:
        start, end = self.window
        return [Piece((token,)) for token, _, _ in self._all(tokens)[start:end]]

    def spans(self, tokens: Tokens) -> list[tuple[int, int]]:
        """The first character and the end of each token of the whole text."""
        shift = len(self.lead)
        return [(max(0, start - shift), max(0, end - shift)) for _, start, end in self._all(tokens)]

    def _all(self, tokens: Tokens) -> list[tuple[int, int, int]]:
        text = self.lead + self.text
        return tokens.pieces_in_chat(text) if self.is_in_chat else tokens.pieces(text)

    def part(self, start: int, end: int) -> Self:
        return replace(self, window=(start, end))

    def in_chat(self, tokens: Tokens) -> Self:
        return replace(self, is_in_chat=True)


@dataclass(frozen=True)
class Window:
    """An input with some of a row's units, the first of which has the number ``first``; where their
    tokens stand is ``row.units``."""

    first: int
    row: "EncodedRow"


def encode_units(
    encoder: "RowEncoder",
    row: Mapping[str, Any],
    field: Field,
    *,
    units: Units,
    max_length: int | None,
) -> list[Window]:
    """A row with units in one of its fields: one input, or several where it has more than
    ``max_length`` tokens. Each unit stands in one at least; one that does not fit by itself loses
    its end.

    Raises:
        TemplateError: what stands around the units leaves them no room.
    """
    values: dict[Field, str | Units] = {**encoder.template.texts(row), field: units}
    whole = encoder.assemble(values)
    if max_length is None or whole.size <= max_length:
        return [Window(0, whole)]
    values = _with_room(encoder, values, field, max_length)
    empty = encoder.assemble({**values, field: units.part(0, 0)})
    room = max_length - empty.size
    if room < 1:
        raise TemplateError(
            f"What stands around {field.shown} has {empty.size} tokens, and {max_length} fit in "
            "all, which leaves no room: shorten the template, or mark another field with |shorten."
        )
    bounded = replace(units, most=room)
    sizes = [
        max(len(piece.ids), len(first.ids))
        for piece, first in zip(
            bounded.pieces(encoder.tokens, False), bounded.pieces(encoder.tokens, True)
        )
    ]
    windows = [
        Window(start, encoder.assemble({**values, field: bounded.part(start, end)}))
        for start, end in spread(sizes, room)
    ]
    lost = sum(end - start for start, end in whole.units) - sum(sizes)
    cut = max(0, lost)
    return [Window(window.first, replace(window.row, cut=cut)) for window in windows]


def _with_room(
    encoder: "RowEncoder", values: dict[Field, str | Units], field: Field, max_length: int
) -> dict[Field, str | Units]:
    """The values with the other fields that may be shortened cut, where they take more than half of
    the input from the units."""
    others = {part: value for part, value in values.items() if part != field}
    empty = {**values, field: Words()}
    shortest = encoder.assemble(
        {part: "" if part in others and part.shorten else value for part, value in empty.items()}
    )
    limit = max(max_length // 2, shortest.size)
    if not any(part.shorten for part in others) or encoder.assemble(empty).size <= limit:
        return values
    return {**encoder.shortened(empty, limit), field: values[field]}


def spread(sizes: Sequence[int], room: int) -> list[tuple[int, int]]:
    """Windows over units of some sizes, none of which is larger than ``room``: each is as long as
    fits, and about half of it stands in the next one again."""
    ends = [0, *accumulate(sizes)]
    windows = []
    start = 0
    while True:
        end = start
        while end < len(sizes) and ends[end + 1] - ends[start] <= room:
            end += 1
        windows.append((start, end))
        if end == len(sizes):
            return windows
        following = end
        while following > start + 1 and ends[end] - ends[following - 1] <= room * SHARED:
            following -= 1
        start = following


def readers_of(windows: Sequence[tuple[int, int]], count: int, kind: Kind) -> list[int]:
    """For each unit the number of the window in which it is read: where it stands farthest from
    both edges, or, by a causal LM, farthest from the start.

    Args:
        windows: the first unit of each, and the one behind its last.
    """

    def distance(unit: int, window: tuple[int, int]) -> int:
        start, end = window
        if not start <= unit < end:
            return -1
        before = unit - start if start else FAR
        after = end - 1 - unit if end < count and kind != "causal" else FAR
        return min(before, after)

    return [
        max(range(len(windows)), key=lambda number: distance(unit, windows[number]))
        for unit in range(count)
    ]
