"""From a request's rows to jobs, and from jobs to answers, for as long as the client is there."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Annotated, Any

from fastapi import Depends, Request

from ptune.serving.access import Tenant
from ptune.serving.bank.prompt_files import Description
from ptune.serving.engines.jobs import BatchNote, Job, LabelAnswer, TextAnswer
from ptune.serving.engines.scheduler import unknown_prompt
from ptune.serving.problems import Problem, refused
from ptune.serving.server import PromptServer

Answer = LabelAnswer | TextAnswer
log = logging.getLogger("ptune.serving")
LATE = 0.5  # seconds that the scheduler has to end a job that is late


def server_of(request: Request) -> PromptServer:
    """The server that a request came to."""
    server: PromptServer = request.app.state.server
    return server


async def tenant_of(request: Request) -> Tenant:
    """Who asks.

    Raises:
        Problem: no token, or none that is known.
    """
    tenant = server_of(request).access.tenant(request.headers.get("authorization"))
    request.state.tenant = tenant.name
    return tenant


User = Annotated[Tenant, Depends(tenant_of)]


async def administrator_of(tenant: User) -> Tenant:
    """Who asks for a change of the prompts.

    Raises:
        Problem: it is not an administrator's to ask.
    """
    if not tenant.admin:
        detail = "Prompts are changed with the token of an administrator (admin: true)."
        raise Problem(403, "Not allowed", detail)
    return tenant


Administrator = Annotated[Tenant, Depends(administrator_of)]


def description_of(server: PromptServer, tenant: Tenant, name: str, field: str) -> Description:
    """A prompt that a tenant may use.

    Raises:
        Problem: there is none; one that it may not use is answered as if it were not there.
    """
    if not tenant.may_use(name) or name not in server.prompts:
        raise unknown_prompt(name, field)
    try:
        return server.prompts.describe(name)
    except KeyError:
        raise unknown_prompt(name, field) from None


def check_fields(fields: dict[str, Any], field: str) -> None:
    """Refuse texts that are no Unicode, and numbers that JSON does not know.

    Raises:
        Problem: there is one.
    """
    try:
        json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise refused(
            "A text holds half of a surrogate pair, which is no character.", field
        ) from None
    except ValueError:
        raise refused("A number is infinite, or none at all (NaN).", field) from None
    except RecursionError:
        raise refused("The fields are nested too deeply.", field) from None


def submit(request: Request, tenant: Tenant, jobs: Sequence[Job]) -> None:
    """Let a request's jobs wait for their turn.

    Raises:
        Problem: they are too many, for now or altogether.
    """
    server = server_of(request)
    server.access.spend(tenant, len(jobs))
    now = time.monotonic()
    for job in jobs:
        job.tenant, job.deadline = tenant.name, now + server.limits.timeout
        if server.log_texts:
            log.info("%s asks %s: %s", tenant.name, job.prompt, json.dumps(job.row))
    server.scheduler.submit(jobs)


def cancel(jobs: Iterable[Job]) -> None:
    """Give up what nobody waits for any more."""
    for job in jobs:
        job.answer.cancel()


async def answers_of(request: Request, jobs: Sequence[Job]) -> list[Answer | Problem]:
    """The answers of jobs that were submitted, in their order.

    Raises:
        ClientLeft: the client has left before they were there.
    """
    server = server_of(request)
    answers = asyncio.gather(*(answer_of(server, job) for job in jobs))
    answers.add_done_callback(lambda done: done.cancelled() or done.exception())
    left = asyncio.ensure_future(_until_the_client_leaves(request))
    try:
        both: set[asyncio.Future[Any]] = {answers, left}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not answers.done():
            raise ClientLeft
        return list(answers.result())
    finally:
        left.cancel()
        answers.cancel()  # and with it the jobs


async def first_or_left(request: Request, events: AsyncIterator[str]) -> str:
    """The first of some events.

    Raises:
        ClientLeft: the client has left before it.
        Problem: there is none, for this reason.
    """
    first = asyncio.ensure_future(anext(events))
    left = asyncio.ensure_future(_until_the_client_leaves(request))
    try:
        await asyncio.wait({first, left}, return_when=asyncio.FIRST_COMPLETED)
        if not first.done():
            raise ClientLeft
        return first.result()
    finally:
        left.cancel()
        first.cancel()


class ClientLeft(Exception):
    """Nobody waits for the answer."""


async def answer_of(server: PromptServer, job: Job) -> Answer | Problem:
    """A job's answer, or what is wrong with it."""
    try:
        left = job.deadline - time.monotonic() + LATE
        answer: Answer = await asyncio.wait_for(asyncio.wrap_future(job.answer), left)
    except Problem as problem:
        return problem
    except TimeoutError:
        return Problem(504, "Out of time", "The answer was not ready in time.", retry_after=1)
    server.metrics.answered(job.prompt, time.monotonic() - job.begun)
    return answer


async def _until_the_client_leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def shown_batch(tenant: Tenant, note: BatchNote) -> dict[str, Any]:
    """How a batch was made up, without the names of prompts that are not the tenant's."""
    prompts = {name: rows for name, rows in note.rows.items() if tenant.may_use(name)}
    others = sum(note.rows.values()) - sum(prompts.values())
    rows = sum(note.rows.values())
    return {"rows": rows, "tokens": note.tokens, "prompts": prompts, "others": others}
