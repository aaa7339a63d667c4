"""The rows from which a document's prefix learns: study text as the LM is asked it, with what the
teacher says of it."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ptune.base import files
from ptune.base.file_names import file_name
from ptune.base.progress import Progress
from ptune.documents import retrieval
from ptune.documents.options import Start
from ptune.documents.read_documents import Document
from ptune.documents.teaching import self_study, study, teacher
from ptune.documents.teaching.study import Study
from ptune.documents.teaching.teacher import Asked, Stretch
from ptune.errors import ConfigError, DataError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Row, Task
from ptune.model.rows.examples import TaughtText, TextExample
from ptune.runs import identity
from ptune.settings import DecodingConfig
from ptune.template.language import Template

FIELD, TARGET = "document", "answer"
DECODING = DecodingConfig(max_new_tokens=60, stop=("\n",))


@dataclass(frozen=True)
class Teaching:
    """How documents are taught; ``DistilConfig`` says what each is."""

    template: str
    length: int | None
    ratio: float
    study_share: float
    written: int
    written_share: float
    cover: float
    slice_tokens: int
    held_out: float
    start: Start
    anchored: bool
    top: int
    temperature: float
    window: int
    seed: int


@dataclass(frozen=True)
class Lessons:
    """A document with what is learned of it.

    Attributes:
        ids: its tokens.
        length: how many vectors its prefix has.
        texts: its study text.
        stretches: the document as the teacher reads it.
    """

    document: Document
    ids: tuple[int, ...]
    length: int
    texts: tuple[Study, ...]
    stretches: tuple[Stretch, ...]

    def stretch_for(self, words: str) -> Stretch:
        """The stretch of the document that speaks most nearly of some words."""
        if len(self.stretches) == 1:
            return self.stretches[0]
        return self.stretches[retrieval.nearest([part.text for part in self.stretches], words)[0]]


def plan(
    teaching: Teaching, lm: LanguageModel, document: Document, given: Sequence[Study]
) -> Lessons:
    """What is learned of a document, before the teacher has said anything.

    Args:
        given: the user's study text of this document.

    Raises:
        DataError: the document is shorter than its prefix.
        ConfigError: the LM has too little room.
    """
    ids = tuple(lm.tokens.start(document.text))
    length = teaching.length or max(1, round(teaching.ratio * len(ids)))
    if length >= len(ids):
        raise DataError(
            f"{document.place} has {len(ids)} tokens, and its prefix would have {length} vectors: "
            "a prefix is shorter than its document. Set a smaller --length, or leave the document "
            "out and give its text as it is."
        )
    drawn = study.slices(
        document, lm.tokens, size=teaching.slice_tokens, cover=teaching.cover, seed=teaching.seed
    )
    texts = [
        *study.hold_out(drawn, teaching.held_out, teaching.seed),
        *study.hold_out(given, teaching.held_out, teaching.seed),
    ]
    room = teaching.window
    if lm.max_length is not None:
        longest = max(_longest(lm, text) for text in texts)
        if teaching.written:
            longest = max(longest, teaching.slice_tokens + self_study.ROOM)
        room = min(room, lm.max_length - longest)
        if min(room, lm.max_length - longest - length) < teaching.slice_tokens:
            raise ConfigError(
                f"{lm.source} takes {lm.max_length} tokens, which is too little for the longest "
                f"study text of {document.name} ({longest} tokens) behind a prefix of {length} "
                "vectors and the document: take an LM that reads more, or shorter study text."
            )
    stretches = teacher.stretches(document, lm, room)
    return Lessons(
        document=document, ids=ids, length=length, texts=tuple(texts), stretches=tuple(stretches)
    )


def with_written(teaching: Teaching, lm: LanguageModel, one: Lessons) -> Lessons:
    """The same with texts that the LM writes of the document, some of them held out."""
    slices = [text for text in one.texts if text.start is not None]
    texts = self_study.write(
        lm,
        one.document.name,
        slices=slices,
        stretches=one.stretches,
        count=teaching.written,
        seed=teaching.seed,
    )
    return replace(
        one, texts=(*one.texts, *study.hold_out(texts, teaching.held_out, teaching.seed))
    )


def _longest(lm: LanguageModel, text: Study) -> int:
    """About how many tokens a study text has, the words around a question among them."""
    return len(lm.tokens.plain(f"{text.text}{text.question}{text.answer}")) + 32


def check_template(written: str) -> None:
    """Refuse a template by which no document can be asked.

    Raises:
        ConfigError: it has learned tokens of its own, or no place for a question or an answer.
        TemplateError: it cannot be read.
    """
    template = Template.parse(written)
    has_both = template.has_mask and "question" in template.fields
    if not has_both or "{prefix" in written or "{soft" in written:
        raise ConfigError(
            f"The template {written!r} should be what stands behind a document: with "
            "{question}, and {mask} where the answer is written, and without learned tokens."
        )


def task_of(teaching: Teaching, document: str, length: int) -> Task:
    """How a document is asked."""
    return Task(
        document,
        Template.parse(f"{{prefix:{length}}}{teaching.template}"),
        target=TARGET,
        encoder="table",
        by=(FIELD, document),
        prefix=PrefixSettings(hidden=0),
        temperature=teaching.temperature,
        decoding=DECODING,
    )


def prompt_of(out: pathlib.Path, document: str) -> pathlib.Path:
    """Where the prompt of a document is saved."""
    return out / "prompts" / file_name(document)


def rows(
    teaching: Teaching,
    model: PromptModel,
    number: int,
    *,
    lessons: Lessons,
    kept: pathlib.Path | None,
) -> tuple[list[Row], list[Row]]:
    """The rows that the task of a document learns from, and those that are held out.

    Args:
        number: of the task in the model.
        kept: a file that keeps what the teacher says, for a run that is resumed.
    """
    asked = [_asked(model, number, lessons, text) for text in lessons.texts]
    taught = _taught(teaching, model.lm, lessons, asked=asked, kept=kept)
    by_text = {id(text): lesson for text, lesson in zip(lessons.texts, taught)}

    def row(text: Study) -> Row:
        return {FIELD: text.document, "question": text.question, TARGET: by_text[id(text)]}

    learned = [text for text in lessons.texts if not text.held_out]
    held_out = [text for text in lessons.texts if text.held_out]
    chosen = study.in_shares(learned, teaching.study_share, teaching.written_share)
    return [row(text) for text in chosen], [row(text) for text in held_out]


def _asked(model: PromptModel, number: int, lessons: Lessons, text: Study) -> Asked:
    """A study text as tokens, without the prefix: a slice is read from a new line on, and a
    question as the task asks it."""
    tokens, document = model.lm.tokens, lessons.document
    if text.question:
        row = {FIELD: text.document, "question": text.question, TARGET: text.answer}
        example = model.encode(number, [row])[0]
        assert isinstance(example, TextExample)
        encoded, before = example.learn[0], len(tokens.before)
        ids = encoded.ids[before:]
        places = tuple(place - before for place in encoded.answer_positions)
        part = lessons.stretch_for(f"{text.question} {text.answer}")
        start, end = part.start, part.end
    else:
        ids = tuple(tokens.follow(f"\n{text.text}"))
        places = tuple(range(len(ids)))
        start, end = text.start or 0, (text.start or 0) + len(text.text)
        if text.start is None:
            part = lessons.stretch_for(text.text)
            start, end = part.start, part.end
    source = identity.of_value([document.identity, ids, places])
    return Asked(ids, places, teacher.stretch_of(lessons.stretches, start, end), source)


def _taught(
    teaching: Teaching,
    lm: LanguageModel,
    lessons: Lessons,
    *,
    asked: Sequence[Asked],
    kept: pathlib.Path | None,
) -> list[TaughtText]:
    """What the teacher says of each text: read where a run that was stopped has kept it."""
    if kept is not None and kept.exists():
        values = files.read_tensors(kept)
        sizes = [len(text.places) for text in asked]
        parts = zip(asked, values["likeliest"].split(sizes), values["log_probs"].split(sizes))
        return [
            TaughtText(
                ids=a.ids, places=a.places, likeliest=best, log_probs=log_probs, source=a.source
            )
            for a, best, log_probs in parts
        ]
    taught: dict[int, TaughtText] = {}
    with Progress(f"what the LM says of {lessons.document.name}", len(asked)) as progress:
        for stretch, part in enumerate(lessons.stretches):
            numbers = [number for number, text in enumerate(asked) if text.stretch == stretch]
            if numbers:
                context = teacher.context_of(lm, part.text)
                texts = [asked[number] for number in numbers]
                taught_texts = teacher.teach(
                    lm,
                    context,
                    texts,
                    top=teaching.top,
                    temperature=teaching.temperature,
                    advance=progress.advance,
                )
                taught |= dict(zip(numbers, taught_texts))
    in_order = [taught[number] for number in range(len(asked))]
    if kept is not None:
        files.write_tensors(
            kept,
            {
                "likeliest": torch.cat([text.likeliest for text in in_order]),
                "log_probs": torch.cat([text.log_probs for text in in_order]),
            },
        )
    return in_order
