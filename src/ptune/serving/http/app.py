"""The server as a FastAPI application."""

import logging
import traceback
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError, StarletteHTTPException
from fastapi.responses import Response

from ptune.serving.http.answering import ClientLeft
from ptune.serving.http.guard import Guard, problem_response
from ptune.serving.http.routes import (
    attention_routes,
    classify_routes,
    openai_routes,
    prompt_routes,
    status_routes,
)
from ptune.serving.problems import Problem, internal
from ptune.serving.server import PromptServer

log = logging.getLogger("ptune.serving")
ABOUT = "Prompts on one frozen language model. Fields, labels and texts of each: GET /v1/models."


def create_app(server: PromptServer) -> Any:
    """The application of a server."""
    app = FastAPI(
        title="ptune",
        version=version("ptune"),
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
    )
    app.state.server = server
    for routes in (status_routes, prompt_routes, classify_routes, openai_routes, attention_routes):
        app.include_router(routes.router)
    app.add_exception_handler(Problem, _tell_problem)
    app.add_exception_handler(RequestValidationError, _tell_invalid)
    app.add_exception_handler(StarletteHTTPException, _tell_http)
    app.add_exception_handler(ClientLeft, _tell_nobody)
    app.add_exception_handler(Exception, _tell_fault)
    guard = Guard(app, server)
    guard.state = app.state  # type: ignore[attr-defined]
    return guard


async def _tell_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_response(error)


async def _tell_invalid(request: Request, error: Exception) -> Response:
    """The first thing that is wrong with a body, and the field where it is."""
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    field = _path(first["loc"], error.body)
    if first["type"] == "json_invalid":
        return problem_response(
            Problem(400, "Not JSON", "The body is not valid JSON.", field="body")
        )
    if first["loc"] == ("body",) and "json" not in request.headers.get("content-type", ""):
        detail = "Send the body as JSON, with Content-Type: application/json."
        return problem_response(Problem(415, "Not JSON", detail, field="body"))
    detail = f"{first['msg']}."
    if first["type"] == "extra_forbidden":
        detail = "There is no such field, and nothing is ignored."
        if missing := [
            str(one["loc"][-1])
            for one in errors
            if one["type"] == "missing" and one["loc"][:-1] == first["loc"][:-1]
        ]:
            detail += f" What should stand there and is missing: {', '.join(missing)}."
    return problem_response(Problem(400, "A field is at fault", f"{field}: {detail}", field=field))


def _path(location: Any, body: Any) -> str:
    """Where in a body something is: rows[2].fields. Names of alternatives, which pydantic puts
    between, are left out."""
    path, value = "", body
    for part in location[1:]:
        if isinstance(part, int) and isinstance(value, list):
            path += f"[{part}]"
            value = value[part] if part < len(value) else None
        elif isinstance(value, dict) and (part in value or part == location[-1]):
            path += f".{part}" if path else str(part)
            value = value.get(part)
    return path or "body"


async def _tell_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    titles = {404: "No such page", 405: "Another method is meant", 413: "Too large"}
    title = titles.get(error.status_code, "The request cannot be answered as it stands")
    return problem_response(Problem(error.status_code, title, f"{error.detail}".rstrip(".") + "."))


async def _tell_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


async def _tell_fault(request: Request, error: Exception) -> Response:
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("A request failed: %s\n%s", type(error).__name__, frames)
    return problem_response(internal())
