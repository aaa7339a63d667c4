"""``/v1/completions`` and ``/v1/chat/completions``: what OpenAI's clients speak."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from ptune.serving.access import Tenant
from ptune.serving.engines.jobs import Job
from ptune.serving.http.answering import (
    Answer,
    User,
    answer_of,
    answers_of,
    cancel,
    description_of,
    first_or_left,
    server_of,
    shown_batch,
    submit,
)
from ptune.serving.http.routes.openai_forms import (
    ChatForm,
    CompletionForm,
    ends_of,
    texts_of,
    usage,
)
from ptune.serving.http.routes.openai_rows import jobs_of
from ptune.serving.http.schemas import ChatRequest, CompletionRequest
from ptune.serving.problems import Problem, refused
from ptune.serving.server import PromptServer

router = APIRouter(tags=["answers"])


@router.post("/v1/completions")
async def complete(body: CompletionRequest, request: Request, tenant: User) -> Response:
    """Let a prompt write, or choose a label: a text for each row."""
    return await _answer(body, CompletionForm(body.model), request, tenant)


@router.post("/v1/chat/completions")
async def chat(body: ChatRequest, request: Request, tenant: User) -> Response:
    """The same for one message of a user. The prompt's template says all else."""
    return await _answer(body, ChatForm(body.model), request, tenant)


async def _answer(
    body: CompletionRequest | ChatRequest, form: CompletionForm, request: Request, tenant: Tenant
) -> Response:
    server = server_of(request)
    description = description_of(server, tenant, body.model, "model")
    jobs = jobs_of(body, description, server.limits.max_new_tokens)
    if len(jobs) > server.limits.max_rows:
        raise refused(f"A request may have {server.limits.max_rows} rows.", "prompt")
    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        return await _stream(jobs, form, request, tenant=tenant, n=body.n, with_usage=with_usage)
    submit(request, tenant, jobs)
    answers = _good(await answers_of(request, jobs))
    return JSONResponse(_whole(form, answers, tenant))


def _whole(form: CompletionForm, answers: Sequence[Answer], tenant: Tenant) -> dict[str, Any]:
    texts = [
        (text, end, answer.unknown)
        for answer in answers
        for text, end in zip(texts_of(answer), ends_of(answer))
    ]
    choices = [
        {**form.choice(index, text, end), "unknown": unknown}
        for index, (text, end, unknown) in enumerate(texts)
    ]
    return {
        **form.document(form.whole, choices),
        "usage": usage(answers),
        "batch": shown_batch(tenant, answers[-1].batch),
    }


def _good(answers: Sequence[Answer | Problem]) -> list[Answer]:
    """The answers, where none is a problem.

    Raises:
        Problem: the first one that there is.
    """
    for answer in answers:
        if isinstance(answer, Problem):
            raise answer
    return [answer for answer in answers if not isinstance(answer, Problem)]


async def _stream(
    jobs: Sequence[Job],
    form: CompletionForm,
    request: Request,
    *,
    tenant: Tenant,
    n: int,
    with_usage: bool,
) -> Response:
    """Server-sent events. What is wrong before the first one is an answer with its own status."""
    events = _events(
        _Pieces(server_of(request), jobs), form, tenant=tenant, n=n, with_usage=with_usage
    )
    submit(request, tenant, jobs)
    try:
        first = await first_or_left(request, events)
    except BaseException:
        cancel(jobs)
        raise

    async def all_events() -> AsyncIterator[str]:
        try:
            yield first
            async for event in events:
                yield event
        finally:
            cancel(jobs)
            with contextlib.suppress(RuntimeError):
                await events.aclose()  # which ends its tasks

    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(all_events(), media_type="text/event-stream", headers=headers)


class _Pieces:
    """The pieces of some jobs' texts, in the order in which they come: the job's number, and a
    piece of text, its answer, or its problem."""

    def __init__(self, server: PromptServer, jobs: Sequence[Job]):
        self.server, self.jobs = server, jobs
        self._queue: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def listen(number: int, job: Job) -> None:
            def hand_on(piece: str) -> None:
                loop.call_soon_threadsafe(self._queue.put_nowait, (number, piece))

            job.on_text = hand_on

        for number, job in enumerate(jobs):
            listen(number, job)

    async def _end(self, number: int, job: Job) -> None:
        self._queue.put_nowait((number, await answer_of(self.server, job)))

    async def __aiter__(self) -> AsyncIterator[tuple[int, Any]]:
        left = len(self.jobs)
        tasks = [asyncio.ensure_future(self._end(*numbered)) for numbered in enumerate(self.jobs)]
        try:
            while left:
                number, item = await self._queue.get()
                left -= not isinstance(item, str)
                yield number, item
        finally:
            for task in tasks:
                task.cancel()


async def _events(
    pieces: _Pieces, form: CompletionForm, *, tenant: Tenant, n: int, with_usage: bool
) -> AsyncGenerator[str]:
    answers: list[Answer] = []
    sent: dict[int, str] = {}
    async for number, item in pieces:
        if isinstance(item, Problem):
            if not sent:
                raise item
            yield _event(item.document)
            return
        if number not in sent:
            sent[number] = ""
            for event in _openings(form, number, n):
                yield event
        if isinstance(item, str):
            sent[number] += item
            yield _event(form.document(form.chunk, [form.piece(number * n, item, None)]))
            continue
        answers.append(item)
        for index, (text, end) in enumerate(zip(texts_of(item), ends_of(item)), number * n):
            rest = text[len(sent[number]) :] if index == number * n else text
            if rest:
                yield _event(form.document(form.chunk, [form.piece(index, rest, None)]))
            last = {**form.piece(index, "", end), "unknown": item.unknown}
            yield _event(
                form.document(form.chunk, [last]) | {"batch": shown_batch(tenant, item.batch)}
            )
    if with_usage:
        yield _event(form.document(form.chunk, []) | {"usage": usage(answers)})
    yield "data: [DONE]\n\n"


def _openings(form: CompletionForm, number: int, n: int) -> list[str]:
    choices = [form.opening(index) for index in range(number * n, number * n + n)]
    return [_event(form.document(form.chunk, [choice])) for choice in choices if choice]


def _event(document: dict[str, Any]) -> str:
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n"
