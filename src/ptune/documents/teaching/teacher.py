"""The teacher: the LM with the whole document in its context. The document is run once, and its
keys and values are shared by all texts that are asked about.

A document that is longer than the LM's window is taught by stretches of it that overlap by half,
each with the heading under which it begins.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ptune.documents.read_documents import Document
from ptune.lm.language_model import LanguageModel
from ptune.lm.patches.text_cache import Context
from ptune.model.rows.examples import TaughtText
from ptune.template.language import EncodedRow

CONTEXT_TOKENS = 16384  # of the copies of a context that stand beside the rows of one call
ROWS = 16
HEADING = re.compile(r"^#+ .*$", re.M)
HEADING_CHARACTERS = 200


@dataclass(frozen=True)
class Stretch:
    """What the teacher has of a document in its context at once.

    Attributes:
        text: the heading and the stretch, or the whole document.
        start, end: where the stretch stands in the document, in characters.
    """

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Asked:
    """A text that the teacher is asked about.

    Attributes:
        ids: its tokens [T].
        places: the positions behind which the teacher is read [K].
        stretch: the number of the stretch that the teacher has in its context.
        source: what decides the teacher's answer.
    """

    ids: tuple[int, ...]
    places: tuple[int, ...]
    stretch: int
    source: str


def stretches(document: Document, lm: LanguageModel, room: int) -> list[Stretch]:
    """A document as the teacher reads it: whole where it has at most ``room`` tokens."""
    text, spans = document.text, lm.tokens.spans(document.text)
    if len(spans) <= room:
        return [Stretch(text, 0, len(text))]
    longest = max((len(lm.tokens.plain(heading)) for heading in _headings(text)), default=0)
    size = max(2, room - longest - max(4, room // 16))  # cut texts may have a few tokens more
    parts = []
    for first in range(0, len(spans), size // 2):
        last = min(first + size, len(spans)) - 1
        start, end = spans[first][0], spans[last][1]
        parts.append(Stretch(_heading_before(text, start) + text[start:end], start, end))
        if last == len(spans) - 1:
            break
    return parts


def _headings(text: str) -> list[str]:
    first_line = text.partition("\n")[0][:HEADING_CHARACTERS]
    return [first_line, *(match[0][:HEADING_CHARACTERS] for match in HEADING.finditer(text))]


def _heading_before(text: str, start: int) -> str:
    """The last heading before a place in a document, or its first line, as a line; nothing at its
    start."""
    return f"{_headings(text[:start])[-1]}\n" if start else ""


def stretch_of(parts: Sequence[Stretch], start: int, end: int) -> int:
    """The number of the stretch in whose middle a part of the document stands most nearly."""
    middle = (start + end) / 2
    return min(
        range(len(parts)),
        key=lambda number: abs((parts[number].start + parts[number].end) / 2 - middle),
    )


@torch.no_grad()
def context_of(lm: LanguageModel, text: str) -> torch.Tensor:
    """The keys and values of a text at the start of an input: [L, 2, Hkv, S, D]."""
    return lm.context_values((*lm.tokens.before, *lm.tokens.start(text)))


def shared(values: torch.Tensor, rows: int) -> Context:
    """One text as what stands before each of some rows."""
    whole = values[:, :, None].expand(-1, -1, rows, -1, -1, -1)
    return Context(whole, torch.full((rows,), values.shape[3], device=values.device))


@torch.no_grad()
def teach(
    lm: LanguageModel,
    values: torch.Tensor,
    asked: Sequence[Asked],
    *,
    top: int,
    temperature: float,
    advance: Callable[[int], None] = lambda texts: None,
) -> list[TaughtText]:
    """What the LM says of texts with a document in its context.

    Args:
        values: the document's keys and values (``context_of``).
        top: how many of its likeliest tokens are kept.
        temperature: of its probabilities.
        advance: is told how many texts are done, batch by batch.
    """
    taught: dict[int, TaughtText] = {}
    rows = min(ROWS, max(1, CONTEXT_TOKENS // values.shape[3]))
    order = sorted(range(len(asked)), key=lambda number: len(asked[number].ids))
    with lm.evaluating():
        for begin in range(0, len(order), rows):
            numbers = order[begin : begin + rows]
            batch = [_row(asked[number]) for number in numbers]
            output = lm.read(
                lm.collate(batch, [-1] * len(batch), context=shared(values, len(batch)))
            )
            sizes = [len(row.answer_positions) for row in batch]
            for number, scores in zip(numbers, output.scores.split(sizes)):
                taught[number] = _kept(asked[number], scores, top, temperature)
            advance(len(numbers))
    return [taught[number] for number in range(len(asked))]


def _row(asked: Asked) -> EncodedRow:
    return EncodedRow(asked.ids, (-1,) * len(asked.ids), None, asked.places)


def _kept(asked: Asked, scores: torch.Tensor, top: int, temperature: float) -> TaughtText:
    """The likeliest tokens at each place, and all others together."""
    log_probs = (scores / temperature).log_softmax(-1)
    best = log_probs.topk(min(top, log_probs.shape[1] - 1))
    others = log_probs.scatter(1, best.indices, -torch.inf).logsumexp(1, keepdim=True)
    values = torch.cat([best.values, others], 1).cpu()
    return TaughtText(
        ids=asked.ids,
        places=asked.places,
        likeliest=best.indices.cpu(),
        log_probs=values,
        source=asked.source,
    )
