"""What every request and every answer passes: the size of bodies, the name of the host, headers for
safety, a line in the log."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException
from fastapi.responses import JSONResponse

from ptune.serving.problems import Problem
from ptune.serving.server import MEGABYTE, PromptServer

log = logging.getLogger("ptune.serving")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
LOCAL = ("localhost", "127.0.0.1", "[::1]")


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: Any, server: PromptServer):
        self.app, self.server = app, server

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 0
        headers = {name.decode("latin-1"): value for name, value in scope["headers"]}

        async def guarded_send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *_SAFE]
            await send(message)

        scope.setdefault("state", {})
        try:
            if (problem := self._problem(headers, scope)) is not None:
                await problem_response(problem)(scope, receive, guarded_send)
            else:
                limited = _limited(receive, self._most(scope))
                await self.app(scope, limited, guarded_send)
        finally:
            self._note(scope, status, time.monotonic() - began)

    def _problem(self, headers: Mapping[str, bytes], scope: Any) -> Problem | None:
        if not self._is_for_us(headers.get("host", b"").decode("latin-1")):
            detail = "Without tokens the server answers requests to this machine's own name alone."
            return Problem(421, "Another host is meant", detail)
        length = headers.get("content-length", b"0")
        if not length.isdigit() or int(length[:20]) > self._most(scope):
            return _too_large(self._most(scope))
        return None

    def _is_for_us(self, host: str) -> bool:
        """Whether the request is to this machine by name. A page of a stranger's that has its own
        name lead here may not use what needs no token."""
        server = self.server
        if server.open or not server.access.is_open:
            return True
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        return name.lower() in (*LOCAL, server.host.lower(), f"[{server.host.lower()}]")

    def _most(self, scope: Any) -> int:
        """The bytes that a request's body may have."""
        if scope["method"] == "PUT":
            return self.server.limits.max_prompt_mb * MEGABYTE
        return self.server.limits.max_body_kb * 1024

    def _note(self, scope: Any, status: int, seconds: float) -> None:
        route = scope.get("route")
        pattern = getattr(route, "path", "other")
        self.server.metrics.requests.labels(pattern, str(status or 499)).inc()
        tenant = scope["state"].get("tenant", "-")
        path = scope["path"][:200]
        log.info(
            "%s %s %s %.0f ms %s", scope["method"], path, status or 499, 1000 * seconds, tenant
        )


_SAFE = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


def problem_response(problem: Problem) -> JSONResponse:
    """A problem as an answer."""
    headers = dict(problem.headers)
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(
        problem.document,
        status_code=problem.status,
        headers=headers,
        media_type="application/problem+json",
    )


def _too_large(most: int) -> Problem:
    return Problem(
        413, "Too large", f"The body of a request may have {most:,} bytes.", field="body"
    )


def _limited(receive: Any, most: int) -> Any:
    """``receive`` that refuses more bytes than a body may have."""
    count = 0

    async def limited() -> Any:
        nonlocal count
        message = await receive()
        count += len(message.get("body", b""))
        if count > most:
            raise HTTPException(413, _too_large(most).detail)
        return message

    return limited
