"""Text files as token sequences on disk, and the batches that each pretraining objective makes of
them.

A document ends at a blank line. Tokens are written once to a flat file and read through a memory
map, so a corpus may be larger than memory, and the batch of any step follows from the seed alone: a
run can be resumed anywhere.
"""

import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptune.base import files, plain_files
from ptune.errors import DataError
from ptune.pretraining.segmentation import Segmenter, characters, unspaced_starts
from ptune.runs import identity

Batch = dict[str, np.ndarray]
FIRST_LINES = 200  # of a text that is only tried


@dataclass
class Corpus:
    """The tokens of one text file. ``ids`` [M] token ids, ``starts`` [M] whether a token begins a
    word, ``documents`` [D + 1] where documents begin in them."""

    ids: np.ndarray
    starts: np.ndarray
    documents: np.ndarray

    def sequences(self, length: int, joined: bool) -> np.ndarray:
        """Cut into pieces of at most ``length`` tokens: [S, 3], first token, end, and number of the
        document.

        A piece lies within one document, unless ``joined``: then the text is one stream and pieces
        are all full.
        """
        bounds = np.array([0, len(self.ids)]) if joined else self.documents
        pieces = [
            np.stack(
                [
                    starts := np.arange(start, end, length),
                    np.minimum(starts + length, end),
                    np.full(len(starts), number),
                ],
                1,
            )
            for number, (start, end) in enumerate(itertools.pairwise(bounds.tolist()))
            if end > start
        ]
        return np.concatenate(pieces) if pieces else np.zeros((0, 3), np.int64)


def tokenise(
    text: pathlib.Path,
    tokenizer: Any,
    folder: pathlib.Path,
    *,
    end: int | None,
    segment: Segmenter = characters,
) -> Corpus:
    """Tokenise a text file once into ``folder``, where other texts, tokenizers, ends and segmenters
    have other places; ``end`` is put after every document where it is given.

    Raises:
        DataError: the file is missing, is not UTF-8, or holds no text.
    """
    place = (
        folder
        / identity.of_value(
            [
                identity.of_file(text),
                identity.of_tokenizer(tokenizer),
                end,
                f"words of {segment.__name__}",
            ]
        )[:32]
    )
    if not place.exists():
        files.write_folder(
            place,
            lambda temporary: write_tokens(
                text, tokenizer, pathlib.Path(temporary), end=end, segment=segment
            ),
        )
    documents = np.fromfile(place / "documents", np.int64)
    return Corpus(
        np.memmap(place / "ids", np.int32, "r"),
        np.memmap(place / "starts", np.bool_, "r"),
        documents,
    )


def beginning(
    text: pathlib.Path, tokenizer: Any, end: int | None, segment: Segmenter = characters
) -> Corpus:
    """The first lines of a text file as tokens; nothing is written.

    Raises:
        DataError: the file is missing, or is not UTF-8.
    """
    ids: list[int] = []
    starts: list[bool] = []
    documents = [0]
    blocks = itertools.islice(_blocks(text, FIRST_LINES), 1)
    for tokens in _tokens(blocks, tokenizer, end, segment):
        if tokens is None:
            documents.append(len(ids))
        else:
            ids += tokens[0]
            starts += tokens[1]
    return Corpus(np.array(ids, np.int32), np.array(starts, np.bool_), np.array(documents))


def write_tokens(
    text: pathlib.Path,
    tokenizer: Any,
    folder: pathlib.Path,
    *,
    end: int | None,
    segment: Segmenter,
) -> None:
    """Write a text's tokens, which of them begin a word, and where its documents end, as the three
    files that ``tokenise`` reads.

    Args:
        folder: where the files ids (int32), starts (bool) and documents (int64) are put.
        end: the token behind every document; None puts none.

    Raises:
        DataError: the text cannot be read, is not UTF-8, or is empty.
    """
    total, documents = 0, [0]
    with open(folder / "ids", "wb") as ids, open(folder / "starts", "wb") as starts:
        for tokens in _tokens(_blocks(text), tokenizer, end, segment):
            if tokens is None:
                documents.append(total)
            else:
                np.asarray(tokens[0], np.int32).tofile(ids)
                np.asarray(tokens[1], np.bool_).tofile(starts)
                total += len(tokens[0])
    if not total:
        raise DataError(f"{text} holds no text.")
    np.asarray(documents, np.int64).tofile(folder / "documents")


def _tokens(
    blocks: Iterable[list[str]], tokenizer: Any, end: int | None, segment: Segmenter
) -> Iterator[tuple[list[int], list[bool]] | None]:
    """The tokens of each line, and whether each begins a word; None at the end of each document, at
    which the end token stands where one is given."""
    is_open = False
    for block in itertools.chain(blocks, [[""]]):
        filled = [line for line in block if line]
        encodings = iter(
            tokenizer(filled, add_special_tokens=False, verbose=False).encodings if filled else ()
        )
        for line in block:
            if line:
                encoding = next(encodings)
                is_open = is_open or bool(encoding.ids)
                starts = _word_starts(encoding.word_ids)
                yield encoding.ids, unspaced_starts(line, encoding.offsets, starts, segment)
            elif is_open:
                if end is not None:
                    yield [end], [True]
                yield None
                is_open = False


def _word_starts(words: Sequence[int | None]) -> list[bool]:
    """Whether each token begins a word, from the number of each token's word."""
    return [
        number == 0 or word is None or word != words[number - 1]
        for number, word in enumerate(words)
    ]


def _blocks(text: pathlib.Path, size: int = 2000) -> Iterator[list[str]]:
    try:
        plain_files.check(text)
        with open(text, encoding="utf-8") as stream:
            while block := [line.strip() for line in itertools.islice(stream, size)]:
                yield block
    except OSError as error:
        raise DataError(f"{text} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{text} is not UTF-8 text: byte {error.start} of a block; convert it first."
        ) from error


def epoch(
    sequences: Sequence[np.ndarray], weights: Sequence[float], budget: int, *, extra: int, seed: int
) -> list[list[tuple[int, int]]]:
    """One epoch in batches of at most ``budget`` tokens, padding included: lists of (corpus,
    sequence).

    Each sequence of corpus c comes ``weights[c]`` times, a fraction by chance; batches hold
    sequences of like length and come in random order. ``extra`` tokens (the special ones) count for
    every sequence.
    """
    random = np.random.default_rng(seed)
    picks = []
    for number, (pieces, weight) in enumerate(zip(sequences, weights)):
        copies = int(weight) + (random.random(len(pieces)) < weight % 1)
        chosen = np.repeat(np.arange(len(pieces)), copies)
        picks.append(
            np.stack(
                [np.full(len(chosen), number), chosen, (pieces[chosen, 1] - pieces[chosen, 0])], 1
            )
        )
    order = random.permutation(np.concatenate(picks))
    order = order[np.lexsort((random.random(len(order)), order[:, 2]))]
    batches: list[list[tuple[int, int]]] = []
    current: list[tuple[int, int]] = []
    longest = 0
    for number, piece, length in order.tolist():
        longest = max(longest, length + extra)
        if current and longest * (len(current) + 1) > budget:
            batches.append(current)
            current, longest = [], length + extra
        current.append((number, piece))
    batches += [current] if current else []
    random.shuffle(batches)
    return batches


def masked(
    rows: list[np.ndarray],
    starts: list[np.ndarray],
    *,
    share: float,
    mask: int,
    size: int,
    random: np.random.Generator,
    around: tuple[list[int], list[int]],
    pad: int,
    spared: set[int],
) -> Batch:
    """Whole-word masking (BERT): ``share`` of the words are hidden, 80 % of their tokens by the
    mask, 10 % by random ones; tokens of ``spared`` never are.

    Returns ``input_ids`` and ``attention_mask`` [B, T], ``labels`` [B, T], -100 where nothing is
    asked.
    """
    inputs, labels = [], []
    for ids, begin in zip(rows, starts):
        begin = begin.copy()
        begin[0] = True
        word = np.cumsum(begin) - 1
        hidden = random.random(word[-1] + 1) < share
        hidden[random.integers(len(hidden))] |= not hidden.any()
        hidden_tokens = hidden[word] & ~np.isin(ids, list(spared))
        kind = random.random(len(ids))
        shown = np.where(
            hidden_tokens & (kind < 0.8),
            mask,
            np.where(hidden_tokens & (kind >= 0.9), random.integers(size, size=len(ids)), ids),
        )
        inputs.append(np.concatenate([around[0], shown, around[1]]))
        labels.append(
            np.concatenate(
                [
                    np.full(len(around[0]), -100),
                    np.where(hidden_tokens, ids, -100),
                    np.full(len(around[1]), -100),
                ]
            )
        )
    return {**padded(inputs, pad), "labels": _fill(labels, -100)}


def causal(rows: list[np.ndarray], pad: int) -> Batch:
    """Next-token prediction: the label of a token stands where its score is read, one position
    before it."""
    return {**padded(rows, pad), "labels": _fill([np.append(row[1:], -100) for row in rows], -100)}


def corrupted(
    rows: list[np.ndarray],
    sentinels: list[int],
    *,
    end: int,
    start: int,
    random: np.random.Generator,
    pad: int,
    density: float = 0.15,
    mean: float = 3.0,
) -> Batch:
    """Span corruption (T5, section 3.1.4): ``density`` of the tokens go, in spans of ``mean``
    tokens on average, each replaced by a sentinel; the target repeats the sentinels, each followed
    by what it hides."""
    inputs, targets = [], []
    for row in rows:
        gone = max(1, round(len(row) * density))
        spans = max(1, min(round(gone / mean), len(sentinels) - 1, gone, max(1, len(row) - gone)))
        hidden, kept = _partition(gone, spans, random), _partition(len(row) - gone, spans, random)
        source, target, position = [], [], 0
        for sentinel, keep, hide in zip(sentinels, kept, hidden):
            source += [*row[position : position + keep], sentinel]
            target += [sentinel, *row[position + keep : position + keep + hide]]
            position += keep + hide
        inputs.append(np.array([*source, *row[position:], end]))
        targets.append(np.array([*target, sentinels[spans], end]))
    return _to_decoder(inputs, targets, start, pad)


def split(
    rows: list[np.ndarray], *, end: int, start: int, random: np.random.Generator, pad: int
) -> Batch:
    """Prefix LM, the "LM adaptation" of Prompt Tuning (section 3.2): the text up to a random point
    is the input, the rest the target."""
    points = [random.integers(1, max(2, len(row))) for row in rows]
    return _to_decoder(
        [np.append(row[:p], end) for row, p in zip(rows, points)],
        [np.append(row[p:], end) for row, p in zip(rows, points)],
        start,
        pad,
    )


def _partition(total: int, parts: int, random: np.random.Generator) -> list[int]:
    """``total`` as a sum of ``parts`` numbers, each at least one where it can be."""
    if total < parts:
        return [1] * total + [0] * (parts - total)
    cuts = (
        np.sort(random.choice(total - 1, parts - 1, replace=False)) + 1
        if parts > 1
        else np.array([], int)
    )
    return np.diff([0, *cuts.tolist(), total]).tolist()


def _to_decoder(inputs: list[np.ndarray], targets: list[np.ndarray], start: int, pad: int) -> Batch:
    shifted = [np.insert(target[:-1], 0, start) for target in targets]
    decoder = padded(shifted, pad)
    return {
        **padded(inputs, pad),
        "decoder_input_ids": decoder["input_ids"],
        "decoder_attention_mask": decoder["attention_mask"],
        "labels": _fill(targets, -100),
    }


def padded(rows: list[np.ndarray], pad: int) -> Batch:
    """Rows to [B, T] on the left, padding on the right."""
    return {
        "input_ids": _fill(rows, pad),
        "attention_mask": _fill([np.ones(len(row), np.int64) for row in rows], 0),
    }


def _fill(rows: list[np.ndarray], value: int) -> np.ndarray:
    out = np.full((len(rows), max(map(len, rows))), value, np.int64)
    for row, line in zip(rows, out):
        line[: len(row)] = row
    return out
