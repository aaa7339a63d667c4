"""``/v1/models`` lists the prompts, and ``/v1/prompts/{id}`` changes them."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from ptune.lm.language_model import nearest_words
from ptune.prompts import encoders
from ptune.serving.access import Tenant
from ptune.serving.bank import bank_folder
from ptune.serving.bank.prompt_files import Description
from ptune.serving.engines.scheduler import unknown_prompt
from ptune.serving.http.answering import Administrator, User, description_of, server_of
from ptune.serving.problems import Problem, refused
from ptune.serving.server import MEGABYTE, PromptServer
from ptune.template.language import Field, Mask, Part, PrefixPart, Sep, Soft, Template, Text
from ptune.template.parts import shown

router = APIRouter(tags=["prompts"])
SHOWN = 100  # soft tokens of a prompt whose nearest words are told


@router.get("/v1/models")
async def models(request: Request, tenant: User) -> dict[str, Any]:
    """The prompts that may be used, each with its task, its fields and its labels."""
    server = server_of(request)
    listed = await asyncio.to_thread(_listed, server, tenant)
    return {"object": "list", "data": listed}


@router.get("/v1/models/{name:path}")
async def model(name: str, request: Request, tenant: User) -> dict[str, Any]:
    """One prompt."""
    return _shown(description_of(server_of(request), tenant, name, "model"))


@router.get("/v1/words/{name:path}")
async def words(name: str, request: Request, tenant: User) -> dict[str, Any]:
    """The words of the LM's vocabulary that each soft token of a prompt is nearest to."""
    server = server_of(request)
    description_of(server, tenant, name, "model")

    def nearest() -> list[list[str]]:
        try:
            model = server.prompts.get(name).model
        except KeyError:
            raise unknown_prompt(name, "model") from None
        bound = model.tasks[0]
        if not bound.task.template.prompt_length(model.lm.tokens):
            return []
        vectors = encoders.bake(model.bank.encoders[bound.prompt])
        return nearest_words(model.lm, vectors[:SHOWN])

    near = await asyncio.wrap_future(server.scheduler.call(nearest))
    return {"id": name, "words": near}


@router.put("/v1/prompts/{name}")
async def put_prompt(name: str, request: Request, administrator: Administrator) -> Response:
    """Put a prompt into the server's folder, or replace one: a ZIP file of prompt.json and
    prompt.safetensors. The old one answers until the new one is there."""
    server = server_of(request)
    folder = _folder(server, name)
    archive = await request.body()
    most = server.limits.max_prompt_mb * MEGABYTE

    def put() -> tuple[bool, Description]:
        """With what was put, which the next request may remove."""
        is_new = bank_folder.put(server.prompts, folder, name, archive=archive, most=most)
        return is_new, server.prompts.describe(name)

    is_new, description = await asyncio.wrap_future(server.scheduler.call(put))
    return JSONResponse(_shown(description), status_code=201 if is_new else 200)


@router.delete("/v1/prompts/{name}", status_code=204)
async def delete_prompt(name: str, request: Request, administrator: Administrator) -> None:
    """Remove a prompt from the server and from its folder."""
    server = server_of(request)
    folder = _folder(server, name)
    if name not in server.prompts:
        raise unknown_prompt(name, "id")
    removing = server.scheduler.call(lambda: bank_folder.remove(server.prompts, folder, name))
    try:
        await asyncio.wrap_future(removing)
    except KeyError:  # another request has removed it meanwhile
        raise unknown_prompt(name, "id") from None
    server.metrics.forget(name)


def _folder(server: PromptServer, name: str) -> Any:
    """The folder of the server's prompts, where a prompt of that name may be changed."""
    known = server.prompts.files().get(name)
    folder = server.bank_folder
    if not bank_folder.NAME.fullmatch(name):
        rule = "A prompt's id has letters, digits, dots, - and _, begins with a letter or digit, "
        raise refused(f"{rule}and has 100 signs at most.", "id")
    if folder is None or (known and not known[0].folders[0].is_relative_to(folder)):
        detail = "Only prompts in a folder that the server was started with (--bank) are changed."
        raise Problem(409, "Not in a folder of the server", detail, field="id")
    return folder


def _listed(server: PromptServer, tenant: Tenant) -> list[dict[str, Any]]:
    shown = []
    for name in server.prompts.ids():
        if tenant.may_use(name):
            try:
                shown.append(_shown(server.prompts.describe(name)))
            except (KeyError, Problem):
                continue  # it was removed meanwhile, or is damaged
    return shown


def _shown(description: Description) -> dict[str, Any]:
    return {
        "id": description.id,
        "object": "model",
        "created": description.created,
        "owned_by": "ptune",
        "task": description.task,
        "fields": list(description.fields),
        "labels": list(description.labels),
        "chosen_by": description.chosen_by,
        "members": description.members,
        "template": description.template,
        "parts": [_part(part) for part in Template.parse(description.template).parts],
    }


def _part(part: Part) -> dict[str, Any]:
    """A part of a template, as the page draws it."""
    if isinstance(part, Text):
        return {"kind": "text", "text": part.text}
    if isinstance(part, Field):
        return {"kind": "field", "text": part.name}
    if isinstance(part, Soft):
        return {"kind": "soft", "count": part.length, "text": part.words or part.name or ""}
    if isinstance(part, PrefixPart):
        return {"kind": "prefix", "count": part.length, "text": part.words or ""}
    if isinstance(part, Mask | Sep):
        return {"kind": "mask" if isinstance(part, Mask) else "separator"}
    return {"kind": "text", "text": shown(part)}
