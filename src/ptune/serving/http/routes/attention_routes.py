"""``/v1/attention``: who attends to whom in a row, for the page that shows it."""

import asyncio
import time
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request

from ptune.errors import ModelError
from ptune.serving.attention import Attention, attention_of
from ptune.serving.engines.jobs import Job
from ptune.serving.engines.scheduler import problem_of, unknown_prompt
from ptune.serving.http.answering import User, check_fields, description_of, server_of
from ptune.serving.http.schemas import AttentionRequest
from ptune.serving.problems import Problem, refused
from ptune.serving.server import PromptServer

router = APIRouter(tags=["prompts"])


@router.post("/v1/attention")
async def attention(body: AttentionRequest, request: Request, tenant: User) -> dict[str, Any]:
    """How much the place of a row's answer attends to each token, soft token and prefix vector, in
    one layer, averaged over its heads. It changes no answer."""
    server = server_of(request)
    description = description_of(server, tenant, body.prompt, "prompt")
    check_fields(body.fields, "fields")
    server.access.spend(tenant, 1)
    if not server.attentions.acquire(blocking=False):
        detail = "Too many requests for attention are being answered."
        raise Problem(429, "Too many rows wait", detail, retry_after=1)
    deadline = time.monotonic() + server.limits.timeout
    decoding: dict[str, Any] | None = {} if description.task == "text" else None
    job = Job(body.prompt, body.fields, decoding=decoding, deadline=deadline)
    future = server.scheduler.call(lambda: _attention(server, job, body.layer))
    future.add_done_callback(lambda _: server.attentions.release())
    shown = await asyncio.wrap_future(future)
    return {"prompt": body.prompt, **asdict(shown)}


def _attention(server: PromptServer, job: Job, layer: int | None) -> Attention:
    """In the thread of the LM.

    Raises:
        Problem: what is wrong with the row, or why this LM cannot give its attention.
    """
    engine = server.scheduler.engine
    assert engine is not None
    if job.is_late:
        raise Problem(504, "Out of time", "The LM was not free in time.", retry_after=1)
    try:
        job.loaded = server.prompts.get(job.prompt)
    except KeyError:
        raise unknown_prompt(job.prompt, "prompt") from None
    try:
        engine.prepare(job)
        if len(job.examples) > 1:
            raise refused(
                f"{len(job.examples)} prompts answer together here, and attention is that of one.",
                "prompt",
            )
        return attention_of(job.loaded.model, job.examples[0], layer)
    except ModelError as error:
        raise refused(str(error), "prompt") from error
    except Exception as error:
        raise problem_of(error, job) from error
