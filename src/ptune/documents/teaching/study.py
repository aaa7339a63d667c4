"""What a document's prefix learns from: slices of it at random offsets, and texts and questions
that the user gives. It is kept as JSON lines that a person can read."""

import json
import math
import pathlib
import zlib
from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from ptune.base import files
from ptune.data.rows import read_rows
from ptune.documents.read_documents import Document, read_lines
from ptune.errors import DataError, StoreError, first_fault, nearest
from ptune.template.tokenizer import Tokens

LEAST = 5  # texts of which some are held out


class Study(BaseModel):
    """One text to learn from: a text that is read on, or a question with its answer.

    Attributes:
        document: the document's name.
        start: where a slice begins in the document, in characters.
        written: what kind of text the LM wrote; empty for slices and what the user gave.
        held_out: it is not learned from: it tells when learning turns into learning by heart.
    """

    model_config = ConfigDict(extra="forbid")

    document: str
    text: str = ""
    question: str = ""
    answer: str = ""
    start: int | None = None
    written: str = ""
    held_out: bool = False


def slices(
    document: Document, tokens: Tokens, *, size: int, cover: float, seed: int
) -> list[Study]:
    """Slices of a document at random offsets.

    Args:
        size: tokens of a slice.
        cover: how many slices each token stands in, on average.
    """
    spans = tokens.spans(document.text)
    size = min(size, len(spans))
    count = max(LEAST, math.ceil(cover * len(spans) / size))
    starts = torch.randint(len(spans) - size + 1, (count,), generator=_generator(document, seed))
    return [
        Study(
            document=document.name,
            text=document.text[spans[start][0] : spans[start + size - 1][1]],
            start=spans[start][0],
        )
        for start in starts.tolist()
    ]


def read(path: pathlib.Path, names: Sequence[str]) -> list[Study]:
    """The user's questions, or other texts, from a file of rows.

    Args:
        names: the documents; where it is one alone, the rows need not name it.

    Raises:
        DataError: a row names no document, or has neither a text nor a question with its answer.
    """
    texts = []
    for row in read_rows(path):
        values = {name: row.get(name) for name in ("document", "text", "question", "answer")}
        given = {name: value for name, value in values.items() if value not in (None, "")}
        if len(names) == 1:
            given.setdefault("document", names[0])
        if given.get("document") not in names:
            raise DataError(
                f"{row.place}: the field document should name the document, and is "
                f"{given.get('document')!r}. {nearest(str(given.get('document')), names)}"
            )
        if not (given.keys() == {"document", "text"} or given.keys() >= {"question", "answer"}):
            raise DataError(
                f"{row.place}: a row has a question and its answer, or a text alone; this one has "
                f"{', '.join(sorted(given.keys() - {'document'})) or 'neither'}."
            )
        try:
            texts.append(Study(**given))
        except ValidationError as error:
            raise DataError(f"{row.place}: {first_fault(error)}.") from error
    return texts


def read_written(file: pathlib.Path) -> list[Study]:
    """The texts that a run let the LM write of a document, from its out folder.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        return read_lines(file, Study)
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} is damaged: a text is missing or is no JSON.") from error


def hold_out(texts: Sequence[Study], share: float, seed: int) -> list[Study]:
    """The same texts of one document, of which a share is held out; none of fewer than five."""
    count = max(1, round(share * len(texts))) if len(texts) >= LEAST else 0
    generator = torch.Generator().manual_seed(seed)
    chosen = set(torch.randperm(len(texts), generator=generator)[:count].tolist())
    return [
        text.model_copy(update={"held_out": number in chosen}) for number, text in enumerate(texts)
    ]


def in_shares(
    texts: Sequence[Study], given_share: float, written_share: float = 0.0
) -> list[Study]:
    """Texts to learn from: slices, and what the user gave and the LM wrote, both as often as it
    takes for them to be these shares of all."""
    drawn = [text for text in texts if text.start is not None]
    given = [text for text in texts if text.start is None and not text.written]
    written = [text for text in texts if text.written]
    sources = [(some, share) for some, share in ((given, given_share), (written, written_share))]
    sources = [(some, share) for some, share in sources if some]
    rest = 1 - sum(share for _, share in sources)
    chosen = list(drawn)
    for some, share in sources:
        wanted = max(len(some), round(share / rest * len(drawn)))
        chosen += (some[number % len(some)] for number in range(wanted))
    return chosen


def write(path: pathlib.Path, texts: Sequence[BaseModel]) -> None:
    """Write JSON lines, without the fields that say nothing."""
    lines = [
        json.dumps(text.model_dump(exclude_defaults=True), ensure_ascii=False) for text in texts
    ]
    files.write_text(path, "".join(f"{line}\n" for line in lines))


def _generator(document: Document, seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + zlib.crc32(document.name.encode()))
