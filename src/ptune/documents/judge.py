"""How likely the right answers are with a document's prefix, in company: beside no document, the
whole document, its first tokens, a summary that the LM writes, and what retrieval finds for the
question."""

import pathlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ptune.base.progress import Progress
from ptune.documents import retrieval
from ptune.documents.teaching import study, teacher
from ptune.documents.teaching.lessons import FIELD, TARGET, Lessons
from ptune.documents.teaching.study import Study
from ptune.errors import DataError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel
from ptune.model.rows.examples import TextExample
from ptune.model.running import generate
from ptune.model.running.losses import losses
from ptune.reports.trial_results import JudgedContext
from ptune.settings import DecodingConfig
from ptune.template.language import EncodedRow

NONE, WHOLE, PREFIX = "no document", "whole document", "prefix"
FIRST, FOUND, SUMMARY = "first tokens", "retrieval", "summary"
SUMMARISE = "\n\nA summary of all this in a few words:"
TIMES = (2, 5, 10, 20, 50)  # how many times smaller the texts are that are tried
MORE = 4  # tokens that may be written beyond those of the right answer
PIECE = re.compile(r"[^.;\n]*(?:[.;\n]+\s*|$)")


@dataclass(frozen=True)
class Reading:
    """One question read beside one context.

    Attributes:
        nats: minus the log probability of the answer.
        tokens: how many tokens the answer has.
        vectors: how many tokens, or vectors of a prefix, stand before the question.
        seconds: to read question and answer, the keys and values before them being there.
        seconds_before: to compute those.
        written: what the LM writes as its answer; None where it was not asked to.
    """

    nats: float
    tokens: int
    vectors: int
    seconds: float
    seconds_before: float = 0.0
    written: "Answer | None" = None


@dataclass(frozen=True)
class Answer:
    """An answer that the LM wrote, word by word the likeliest one.

    Attributes:
        is_exact: whether it is the right one, up to capitals, spaces and a full stop.
        tokens, seconds: how many were written, and how long that took, the keys and values of what
            stands before the question being there.
    """

    is_exact: bool
    tokens: int
    seconds: float


def read_questions(path: pathlib.Path, names: Sequence[str]) -> list[Study]:
    """The questions of a file, each with the answer that it should get.

    Raises:
        DataError: a row names no document, or is no question with its answer.
    """
    questions = study.read(path, names)
    if bad := next((one for one in questions if not one.question), None):
        raise DataError(
            f"{path} has a text without a question ({bad.text[:40]!r}), and what is judged "
            "are answers to questions."
        )
    return questions


@torch.no_grad()
def judge(
    model: PromptModel, planned: Sequence[Lessons], questions: Sequence[Study]
) -> list[JudgedContext]:
    """The answers' likelihood beside every context, over all questions.

    Args:
        model: the LM with the prefixes of the documents, by their names.
        planned: the documents.
    """
    readings: dict[tuple[str, float], list[tuple[str, Reading]]] = {}
    lessons_of = {one.document.name: one for one in planned}
    numbers = {bound.task.name: number for number, bound in enumerate(model.tasks)}
    asked = [one for one in questions if one.document in numbers]
    asked.sort(key=lambda one: numbers[one.document])
    summaries: dict[str, tuple[int, ...]] = {}
    sizes = [len(model.lm.tokens.before) + len(lessons_of[one.document].ids) for one in asked]
    kept = Kept(model.lm)
    with Progress("judging questions", len(asked)) as progress, model.lm.evaluating():
        for one in asked:
            lessons = lessons_of[one.document]
            if one.document not in summaries:
                summaries[one.document] = summary(model.lm, lessons, lessons.length)
                kept.forget()
            number = numbers[one.document]
            read = _read(model, number, lessons, question=one, kept=kept)
            text = (*model.lm.tokens.before, *summaries[one.document])
            example = _example(model, number, one)
            read[SUMMARY, 0.0] = _beside(model.lm, example, text, right=one.answer, kept=kept)
            for key, reading in read.items():
                readings.setdefault(key, []).append((one.document, reading))
            progress.advance()
    return _summed_up(model.lm, readings, sum(sizes) / max(1, len(sizes)))


class Kept:
    """Keys and values of texts that stand before several questions, and how long they took."""

    def __init__(self, lm: LanguageModel):
        self.lm = lm
        self._values: dict[tuple[int, ...], tuple[torch.Tensor, float]] = {}

    def of(self, context: tuple[int, ...]) -> tuple[torch.Tensor, float]:
        """Those of a text, computed once."""
        if context not in self._values:
            before = time.perf_counter()
            values = self.lm.context_values(context)
            self._values[context] = values, time.perf_counter() - before
        return self._values[context]

    def forget(self) -> None:
        """Make room for those of another document."""
        self._values.clear()


def _read(
    model: PromptModel, number: int, lessons: Lessons, *, question: Study, kept: Kept
) -> dict[tuple[str, float], Reading]:
    """One question beside every context: by the kind of context, and how many times smaller than
    the document it is; 0 for as large as the prefix, where that is chosen."""
    lm, example = model.lm, _example(model, number, question)
    before = time.perf_counter()
    nats = float(losses(model, [example], None))
    seconds = time.perf_counter() - before
    written = _answer_with_prefix(model, example, question.answer)
    size = len(example.answer)
    read = {(PREFIX, 0.0): Reading(nats, size, lessons.length, seconds, written=written)}
    right = question.answer
    read[NONE, 0.0] = _beside(lm, example, (), right=right, kept=kept)
    ids = lessons.ids
    start = tuple(lm.tokens.before)
    # as the teacher reads it: the stretch of a long document where the question is answered
    whole = lessons.stretch_for(f"{question.question} {question.answer}").text
    text = (*start, *lm.tokens.start(whole))
    read[WHOLE, 0.0] = _beside(lm, example, text, right=right, kept=kept)
    for times in (0.0, *TIMES):
        if budget := int(len(ids) / times) if times else lessons.length:
            first, nearest = ids[:budget], nearest_sentences(lm, lessons, question.question, budget)
            wanted = None if times else right
            read[FIRST, times] = _beside(lm, example, (*start, *first), right=wanted, kept=kept)
            other = (*start, *nearest)  # another text for each question
            read[FOUND, times] = _beside(lm, example, other, right=wanted, kept=Kept(lm))
    return read


def _example(model: PromptModel, number: int, question: Study) -> TextExample:
    """A question as the prompt of its document asks it."""
    row = {FIELD: question.document, "question": question.question, TARGET: question.answer}
    example = model.encode(number, [row])[0]
    assert isinstance(example, TextExample)
    return example


def summary(lm: LanguageModel, lessons: Lessons, budget: int) -> tuple[int, ...]:
    """What the LM writes as the summary of a document that is before it, in so many tokens at most;
    of a long one an equal part of them for each stretch."""
    asked, parts = lm.tokens.follow(SUMMARISE), len(lessons.stretches)
    written: list[int] = []
    for number, stretch in enumerate(lessons.stretches):
        room = budget * (number + 1) // parts - budget * number // parts
        before = (*lm.tokens.before, *lm.tokens.start(stretch.text))
        if room:
            (ids,) = lm.write_behind(before, [asked], max_new_tokens=room)
            written += ids
    return tuple(written)


def _beside(
    lm: LanguageModel,
    example: TextExample,
    context: tuple[int, ...],
    *,
    right: str | None,
    kept: Kept,
) -> Reading:
    """A question read behind other tokens, or behind none.

    Args:
        right: the right answer, where the LM is to write one too.
    """
    encoded = replace(example.learn[0], prefix=())
    skipped = len(lm.tokens.before) if context else 0
    row = EncodedRow(
        encoded.ids[skipped:],
        encoded.soft_slots[skipped:],
        None,
        tuple(place - skipped for place in encoded.answer_positions),
    )
    values, seconds_before = kept.of(context) if context else (None, 0.0)
    shared = None if values is None else teacher.shared(values, 1)
    ready = time.perf_counter()
    log_probs = lm.read(lm.collate([row], [-1], context=shared)).scores.log_softmax(-1)
    answer = torch.tensor(example.answer, device=log_probs.device)
    nats = -float(log_probs.gather(1, answer[:, None]).sum())
    done = time.perf_counter()
    written = None
    if right is not None:
        asked = example.fills[0].ids[skipped:]
        ahead = context or asked[:1]  # something has to stand before what is asked
        behind = asked if context else asked[1:]
        written = _answer_behind(lm, ahead, behind, values=values, example=example, right=right)
    size = len(example.answer)
    return Reading(
        nats=nats,
        tokens=size,
        vectors=len(context),
        seconds=done - ready,
        seconds_before=seconds_before,
        written=written,
    )


def _answer_behind(
    lm: LanguageModel,
    ahead: Sequence[int],
    asked: Sequence[int],
    *,
    values: torch.Tensor | None,
    example: TextExample,
    right: str,
) -> Answer:
    """The answer that the LM writes to a question behind some tokens."""
    values = lm.context_values(tuple(ahead)) if values is None else values
    before = time.perf_counter()
    (ids,) = lm.write_behind(ahead, [asked], values, max_new_tokens=len(example.answer) + MORE)
    seconds = time.perf_counter() - before
    text = lm.tokens.tokenizer.decode(ids, skip_special_tokens=True).split("\n")[0]
    return Answer(_plain(text) == _plain(right), len(ids), seconds)


def _answer_with_prefix(model: PromptModel, example: TextExample, right: str) -> Answer:
    """The answer that the LM writes to a question beside a prefix."""
    most = len(example.answer) + MORE
    before = time.perf_counter()
    (text,) = generate.write(model, [example], DecodingConfig(max_new_tokens=most))
    seconds = time.perf_counter() - before
    tokens = max(1, len(model.lm.tokens.follow(text)))
    return Answer(_plain(text.split("\n")[0]) == _plain(right), tokens, seconds)


def _plain(text: str) -> str:
    """A text without capitals, and without what may stand around an answer."""
    return " ".join(text.casefold().split()).rstrip(". ")


def nearest_sentences(lm: LanguageModel, lessons: Lessons, question: str, budget: int) -> list[int]:
    """The sentences of a document that are nearest to a question, in the document's order, up to so
    many tokens."""
    pieces = [piece for piece in PIECE.findall(lessons.document.text) if piece.strip()]
    taken: dict[int, list[int]] = {}
    left = budget
    for number in retrieval.nearest(pieces, question):
        taken[number] = lm.tokens.follow(pieces[number])[:left]
        left -= len(taken[number])
        if left <= 0:
            break
    return [token for number in sorted(taken) for token in taken[number]]


def _summed_up(
    lm: LanguageModel,
    readings: Mapping[tuple[str, float], Sequence[tuple[str, Reading]]],
    size: float,
) -> list[JudgedContext]:
    """The figures of each kind of context, those with the whole document's first.

    Args:
        size: how many tokens the documents have, a mean over the questions. The LM reads a stretch
            alone of one that is longer than its window.
    """
    nats = {key: _nats([reading for _, reading in read]) for key, read in readings.items()}
    none, whole = nats[NONE, 0.0], nats[WHOLE, 0.0]
    documents = list(dict.fromkeys(name for name, _ in readings[NONE, 0.0]))
    vector = lm.route.width * lm.dtype.itemsize
    judged = []
    for (kind, times), read in readings.items():
        all_readings = [reading for _, reading in read]
        vectors = sum(reading.vectors for reading in all_readings) / len(all_readings)
        judged.append(
            JudgedContext(
                kind=kind,
                smaller=round(times or (size / vectors if vectors else 0.0), 2),
                vectors=round(vectors, 1),
                bytes=round(vectors * vector),
                nats=nats[kind, times],
                share=(none - nats[kind, times]) / (none - whole) if none > whole else None,
                nats_of={
                    name: _nats([reading for other, reading in read if other == name])
                    for name in documents
                },
                seconds=_mean([reading.seconds for reading in all_readings]),
                seconds_before=_mean([reading.seconds_before for reading in all_readings]),
                questions=len(all_readings),
                **_of_written([reading.written for reading in all_readings if reading.written]),
            )
        )
    order = (WHOLE, PREFIX, FOUND, SUMMARY, FIRST, NONE)
    return sorted(judged, key=lambda one: (order.index(one.kind), one.smaller))


def _of_written(answers: Sequence[Answer]) -> dict[str, float]:
    """How many written answers are right, and how fast they were written."""
    if not answers:
        return {}
    seconds = sum(answer.seconds for answer in answers)
    return {
        "exact": sum(answer.is_exact for answer in answers) / len(answers),
        "tokens_a_second": round(sum(answer.tokens for answer in answers) / seconds, 2),
    }


def _nats(readings: Sequence[Reading]) -> float:
    """Nats a token over all answers."""
    return sum(reading.nats for reading in readings) / sum(reading.tokens for reading in readings)


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)
