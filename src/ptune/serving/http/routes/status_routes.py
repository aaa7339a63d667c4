"""Whether the server lives, whether it is ready, its figures, and its page."""

import pathlib

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from ptune.serving.http.answering import User, server_of
from ptune.serving.problems import Problem

router = APIRouter(tags=["status"])
PAGE = pathlib.Path(__file__).parents[1] / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


@router.get("/health")
async def health() -> dict[str, str]:
    """The server lives, whether or not the LM is loaded."""
    return {"status": "alive"}


@router.get("/ready")
async def ready(request: Request) -> JSONResponse:
    """Whether rows are answered: 200, or 503 while the LM is loaded."""
    is_ready = server_of(request).is_ready
    shown = {"status": "ready" if is_ready else "loading"}
    return JSONResponse(shown, status_code=200 if is_ready else 503)


@router.get("/metrics")
async def metrics(request: Request, tenant: User) -> Response:
    """The figures of the server, as Prometheus reads them; with tokens, for those that have
    metrics: true."""
    if not (tenant.metrics or tenant.admin):
        raise Problem(403, "Not allowed", "This token may not read the figures (metrics: true).")
    return Response(server_of(request).metrics.text(), media_type="text/plain; version=0.0.4")


@router.get("/", include_in_schema=False)
async def playground() -> FileResponse:
    """The page on which prompts are tried."""
    return _file("playground.html")


@router.get("/docs", include_in_schema=False)
async def docs() -> FileResponse:
    """The page that describes the interface."""
    return _file("docs.html")


@router.get("/page/{name}", include_in_schema=False)
async def part_of_the_page(name: str) -> FileResponse:
    """A file that the pages refer to: a script, a style or a picture."""
    if name not in {path.name for path in PAGE.iterdir()}:
        raise Problem(404, "No such page", "There is no such page.")
    return _file(name)


def _file(name: str) -> FileResponse:
    return FileResponse(PAGE / name, media_type=TYPES[pathlib.Path(name).suffix])
