"""What a tokenizer does, found by trying it: its special tokens, its separator, and how text
continues other text."""

import itertools
import re
import sys
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any, Literal

from ptune.errors import ModelError, TemplateError
from ptune.template.parts import Control

Place = Literal["start", "spaced", "line", "joined"]
ANCHORS = (".", "a", ")", "1")
LETTERS = "atsive"
# texts whose tokens are remembered: those of templates, and of rows that are asked in several ways
KEPT = 4096


class Tokens:
    """A transformers tokenizer, asked only through its calls, so that no family needs to be known
    by name.

    Attributes:
        before, between, after: the special tokens around one text, and between the two of a pair
            (``None`` where the tokenizer puts nothing there).
        types: token types of (the first text and its special tokens, the separator, the second
            text), ``None`` where the tokenizer gives none.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer, self.known = tokenizer, sys.maxsize
        self._plain = lru_cache(KEPT)(lambda text: tuple(self._plain_all([text])[0]))
        text = self.plain("a")
        single = self._special("a")
        start = _find(single, text)
        pair = self._special("a", "a")
        pair_start = _find(pair[start + len(text) :], text) + start + len(text)
        self.before, self.after = single[:start], single[start + len(text) :]
        self.between = pair[start + len(text) : pair_start] or None
        kinds = (
            tokenizer("a", "a").get("token_type_ids")
            if "token_type_ids" in tokenizer.model_input_names
            else None
        )
        self.types = (
            None if kinds is None else (kinds[start], kinds[pair_start - 1], kinds[pair_start])
        )

    def _special(self, *texts: str) -> list[int]:
        return list(self.tokenizer(*texts)["input_ids"])

    def plain(self, text: str) -> list[int]:
        """The token ids of a text by itself, no special tokens added, none recognised in it."""
        return list(self._plain(text))

    def start(self, text: str) -> list[int]:
        """The token ids of a text at the start of an input."""
        return self.plain(text)

    def follow(self, text: str) -> list[int]:
        """The token ids of a text where it continues other text: " Vienna" as in "of Vienna", "s"
        as in "cats".

        The text is tokenised behind an anchor, and the anchor's own tokens are taken off: so no
        piece for the start of a text creeps in, whatever the tokenizer's way of writing a space.
        """
        for anchor in ANCHORS:
            head = self.plain(anchor)
            whole = self.plain(anchor + text)
            if whole[: len(head)] == head and (len(whole) > len(head) or not text.strip()):
                return whole[len(head) :]
        return self.plain(text)

    def follow_all(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of texts each of which continues other text (``follow``), many at once."""
        head = self.plain(ANCHORS[0])
        return [
            ids[len(head) :]
            if ids[: len(head)] == head and len(ids) > len(head)
            else self.follow(text)
            for text, ids in zip(texts, self._plain_all([ANCHORS[0] + text for text in texts]))
        ]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where the tokens of a text begin and end, in characters."""
        _check_characters([text])
        if self.tokenizer.is_fast:
            encoding = self.tokenizer(
                text,
                add_special_tokens=False,
                split_special_tokens=True,
                return_offsets_mapping=True,
            )
            return [(a, b) for a, b in encoding["offset_mapping"]]
        ends = [position for position, sign in enumerate(text) if sign.isspace()] + [len(text)]
        return list(zip([0, *ends], ends))

    def pieces(self, text: str) -> list[tuple[int, int, int]]:
        """The tokens of a text by itself, each with its first character and its end in the text. A
        special token that is written in it stands there as an unknown one.

        Raises:
            ModelError: the tokenizer does not tell where its tokens stand.
        """
        if not self.tokenizer.is_fast:
            raise ModelError(
                f"{type(self.tokenizer).__name__} does not tell where its tokens stand in a text, "
                "which a part of a text needs: take an LM with a fast tokenizer (tokenizer.json)."
            )
        _check_characters([text])
        encoding = self.tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
        )
        ids = [self.unknown if id_ in self._special_ids else id_ for id_ in encoding["input_ids"]]
        self._check(ids)
        return [(id_, *span) for id_, span in zip(ids, encoding["offset_mapping"])]

    def pieces_in_chat(self, text: str) -> list[tuple[int, int, int]]:
        """As ``pieces``, where the control tokens that are written in the text are spelt out.

        Raises:
            ModelError: the tokenizer does not tell where its tokens stand.
        """
        origins: list[int] = []  # of each character of the text that is spelt out
        for matched in self.control.finditer(text):
            origins += range(len(origins) and origins[-1] + 1, matched.start())
            first, *others = range(*matched.span())
            origins += [first, *(place for place in others for _ in (" ", "character"))]
        origins += range(len(origins) and origins[-1] + 1, len(text))
        return [
            (id_, origins[start], origins[end - 1] + 1) if end > start else (id_, start, end)
            for id_, start, end in self.pieces(self.without_control(text))
        ]

    def places(self, ids: Sequence[int], text: str) -> list[tuple[int, int]]:
        """Where the tokens of a text begin and end in it, in characters.

        Args:
            ids: its tokens, as ``start``, ``follow`` or ``before_word`` gives them.

        Raises:
            ModelError: the tokenizer does not tell where its tokens stand.
            TemplateError: the text holds special tokens, which are spelt out.
        """
        for head, tail in itertools.product(("", *ANCHORS), ("", LETTERS[0], f" {LETTERS[0]}")):
            first = len(self.plain(head)) if head else 0
            pieces = self.pieces(head + text + tail)[first : first + len(ids)]
            if [id_ for id_, _, _ in pieces] == list(ids):
                shifted = ((begin - len(head), end - len(head)) for _, begin, end in pieces)
                return [(max(0, begin), min(len(text), end)) for begin, end in shifted]
        raise TemplateError(
            f"The text {text[:40]!r} is split in a way in which the tokenizer does not tell what "
            "is whose, as visibility needs: take special tokens out of the row."
        )

    def words(self, words: Sequence[str], place: Place) -> list[list[int]]:
        """The token ids of answer words where they stand at that place; many at once, as ``start``
        and ``follow`` would.

        Behind a line break or a tab ("line") a word is taken as it stands behind a line break, and
        where the tokenizer makes a space of that, as it stands behind a space. Behind a space that
        its words do not carry, a word is "joined" to it.
        """
        if place == "start":
            return self._plain_all(list(words))
        spaced = place == "spaced" or place == "line" and self._break_is_a_space
        texts = [f" {word}" if spaced and self.carries_space else word for word in words]
        anchor = f"{ANCHORS[0]}\n" if place == "line" and not spaced else ANCHORS[0]
        head = self.plain(anchor)
        return [
            ids[len(head) :]
            if ids[: len(head)] == head and len(ids) > len(head)
            else self.follow(text)
            for text, ids in zip(texts, self._plain_all([anchor + text for text in texts]))
        ]

    def before_word(self, text: str, place: Place, begins: bool = False) -> list[int]:
        """The token ids of a text behind which a word stands at that place: those of the text with
        the word, without the word's.

        Some tokenizers cut white space in another way where a word follows it: GPT-2's makes one
        token of two line breaks at the end of a text, and two before a word.

        Args:
            begins: the text stands at the start of the input.
        """
        read = self.start if begins else self.follow
        if text[-1:].isspace():
            word = self.words([LETTERS[0]], place)[0]
            space = " " if place == "spaced" and self.carries_space else ""
            whole = read(text + space + LETTERS[0])
            if word and whole[-len(word) :] == word:
                return whole[: -len(word)]
        return read(text)

    @cached_property
    def carries_space(self) -> bool:
        """Whether a word's own tokens hold the space before it; a tokenizer of bytes or letters
        gives the space a token."""
        return any(len(self.follow(f" {letter}")) == len(self.follow(letter)) for letter in LETTERS)

    @cached_property
    def _break_is_a_space(self) -> bool:
        return self.plain("a\na") == self.plain("a a")

    @cached_property
    def mask_strips(self) -> tuple[bool, bool]:
        """Whether the tokenizer takes the white space before its mask, and behind it, for a part of
        the mask (RoBERTa does)."""
        token = getattr(self.tokenizer, "added_tokens_decoder", {}).get(self.mask)
        return bool(getattr(token, "lstrip", False)), bool(getattr(token, "rstrip", False))

    def _plain_all(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        _check_characters(texts)

        def ids_of(batch: list[str]) -> list[list[int]]:
            return self.tokenizer(batch, add_special_tokens=False, split_special_tokens=True)[
                "input_ids"
            ]

        encoded = zip(texts, ids_of(list(texts)))
        split = [
            list(ids) if self._special_ids.isdisjoint(ids) else ids_of([self._spelt(text)])[0]
            for text, ids in encoded
        ]
        for ids in split:
            self._check(ids)
        return split

    @cached_property
    def _special_ids(self) -> set[int]:
        return set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}

    def _spelt(self, text: str) -> str:
        """The text with the special tokens that are written in it spelt out, where the tokenizer
        would take them for tokens."""
        for token in self.tokenizer.all_special_tokens:
            text = text.replace(token, " ".join(token))
        return text

    @cached_property
    def control(self) -> re.Pattern[str]:
        """Finds control tokens in a text: the special ones, and others that were added to the
        vocabulary and that the tokenizer's chat template writes."""
        template = str(getattr(self.tokenizer, "chat_template", None) or "")
        added = getattr(self.tokenizer, "added_tokens_decoder", {}).values()
        written = [
            token.content
            for token in added
            if token.special or token.content.strip() and token.content in template
        ]
        names = sorted({*written, *self.tokenizer.all_special_tokens}, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, names)) or "(?!)")

    def control_token(self, text: str) -> Control:
        """A control token, and how the text beside it is split into tokens."""
        id_ = int(self.tokenizer.convert_tokens_to_ids(text))
        added = self.tokenizer.added_tokens_decoder.get(id_)
        strips = bool(getattr(added, "lstrip", False)), bool(getattr(added, "rstrip", False))
        behind = self.tokenizer(text + LETTERS[0], add_special_tokens=False)["input_ids"][1:]
        return Control(text, id_, begins=list(behind) == self.start(LETTERS[0]), strips=strips)

    def without_control(self, text: str) -> str:
        """The text with the control tokens that are written in it spelt out."""
        return self.control.sub(lambda matched: " ".join(matched[0]), text)

    @cached_property
    def mask(self) -> int | None:
        """The token that stands for a missing word: the mask, or the first sentinel of a
        span-corruption tokenizer."""
        if self.tokenizer.mask_token_id is not None:
            return int(self.tokenizer.mask_token_id)
        return self.sentinel

    @cached_property
    def sentinel(self) -> int | None:
        """``<extra_id_0>`` where the tokenizer has it (T5 and its kin), else ``None``."""
        token = self.tokenizer.convert_tokens_to_ids("<extra_id_0>")
        return None if token is None or token == self.tokenizer.unk_token_id else int(token)

    @cached_property
    def pad(self) -> int:
        """The padding token, or another special one where there is none, or none that the LM knows:
        padding is always masked."""
        ids = [getattr(self.tokenizer, f"{name}_token_id") for name in ("pad", "eos", "unk", "bos")]
        return next((int(id_) for id_ in ids if id_ is not None and id_ < self.known), 0)

    @cached_property
    def unknown(self) -> int:
        """The token that stands for what the vocabulary does not have; that of padding where there
        is none, as in a vocabulary of bytes."""
        token = self.tokenizer.unk_token_id
        return self.pad if token is None or token >= self.known else int(token)

    def limit_to(self, known: int) -> None:
        """Refuse tokens from this number on, which an LM has no embeddings of.

        Raises:
            ModelError: one is a token that stands in every row.
        """
        self.known = known
        special = [
            *self.before,
            *self.after,
            *(self.between or ()),
            *([] if self.mask is None else [self.mask]),
        ]
        self._check(special)

    def _check(self, ids: Sequence[int]) -> None:
        if (unknown := next((id_ for id_ in ids if id_ >= self.known), None)) is not None:
            raise ModelError(
                f"The tokenizer has the token {self.show(unknown)!r} of number {unknown}, and the "
                f"LM has only {self.known} embeddings, from "
                "number 0 on: it was added after the LM was trained. Take the LM's own "
                "tokenizer, or leave that token out of the text."
            )

    def show(self, token: int) -> str:
        """A token as a person reads it: its text, with a visible mark where it continues a word."""
        piece = self.tokenizer.convert_ids_to_tokens(int(token))
        if piece is None:
            return f"<{token}>"
        if piece.startswith("##") or piece in self.tokenizer.all_special_tokens:
            return piece
        return self.tokenizer.convert_tokens_to_string([piece]) or piece


def _check_characters(texts: Sequence[str]) -> None:
    """Refuse halves of characters (lone surrogates), which no tokenizer takes."""
    for text in texts:
        if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
            raise TemplateError(
                f"The text {text[:40]!r} holds half of a character (a lone surrogate, as broken "
                "UTF-16 leaves "
                f"it): mend the file that it comes from."
            )


def _find(ids: Sequence[int], part: Sequence[int]) -> int:
    for start in range(len(ids) - len(part) + 1):
        if list(ids[start : start + len(part)]) == list(part):
            return start
    raise ModelError(
        "The tokenizer does not keep a text's own tokens when it adds its special ones; ptune "
        "cannot place "
        "soft tokens with it."
    )
