"""Several servers of one bank behind Ray Serve: ``serve run ptune.serving.ray_app:build bank=FOLDER
replicas=2``. Each replica is the application of ``ptune serve`` with an LM of its own; a request
goes to the replica that has answered for its prompt before, where there is one, since that holds
the prompt in memory."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any
from urllib.parse import unquote

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from pydantic import ValidationError

from ptune.errors import ConfigError, reason
from ptune.serving.http.app import create_app
from ptune.serving.http.guard import problem_response
from ptune.serving.options import ServeConfig
from ptune.serving.problems import Problem
from ptune.serving.server import PromptServer

log = logging.getLogger("ptune.serving")
TRIES = 3  # replicas that are asked, where one dies with the request
KNOWN = 100_000  # prompts whose replica is remembered, for each replica
NOT_HERE = ("host", "port", "new_token", "drain")
"""Options that are Ray's matter, or no server's."""
SENT = ("type", "http_version", "method", "path", "raw_path", "query_string", "headers", "scheme")
"""What of a request goes to a replica, beside its body."""


def build(args: Mapping[str, Any]) -> Any:
    """The application for Ray Serve.

    Args:
        args: the options of ``ptune serve`` by their names in Python, and ``replicas``, how many
            servers there are (2 by default).

    Raises:
        ConfigError: an option cannot be, or belongs to Ray; or Ray is not installed.
    """
    settings, replicas = _settings(args)
    try:
        from ray import serve
    except ImportError as error:
        raise ConfigError(
            "Ray Serve is not installed: pip install 'ptune[ray-serve]', in the environment of "
            "every machine of the cluster."
        ) from error

    class PtuneReplica(Replica):
        @serve.multiplexed(max_num_models_per_replica=KNOWN)
        async def known(self, name: str) -> str:
            return name

        async def answer(self, scope: dict[str, Any], body: bytes) -> AsyncIterator[Any]:
            if name := serve.get_multiplexed_model_id():
                await self.known(name)  # from now on its requests come here
            async for message in super().answer(scope, body):
                yield message

    options = {"max_ongoing_requests": ServeConfig(**settings).queue}
    replica = serve.deployment(PtuneReplica, num_replicas=replicas, **options)
    return serve.deployment(Gateway, name="PtuneGateway", **options).bind(replica.bind(settings))


def _settings(args: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The options of each server, and how many there are.

    Raises:
        ConfigError: an option cannot be, or belongs to Ray.
    """
    settings = dict(args)
    replicas = settings.pop("replicas", 2)
    if not str(replicas).isdigit() or int(replicas) < 1:
        raise ConfigError(f"replicas is a number of servers, 1 at least, and not {replicas!r}.")
    if refused := [name for name in NOT_HERE if name in settings]:
        raise ConfigError(
            f"{refused[0]} is not an option of a replica: addresses and ends of servers are Ray "
            "Serve's matter, and `ptune serve --new-token NAME` makes tokens."
        )
    try:
        ServeConfig(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{place}: {reason(first)}") from error
    return settings, int(replicas)


def prompt_of(path: str, body: bytes) -> str:
    """The id of the prompt that a request is about, by which it finds its replica; of rows of
    several prompts the first one's, and nothing where there is none."""
    for start in ("/v1/prompts/", "/v1/models/", "/v1/words/"):
        if path.startswith(start):
            return unquote(path.removeprefix(start))
    try:
        document = json.loads(body)
        if isinstance(rows := document.get("rows"), list):
            document = rows[0]
        name = document.get("model") or document.get("prompt")
    except (ValueError, AttributeError, LookupError, RecursionError):
        return ""  # the replica says what is wrong with it
    return name[:200] if isinstance(name, str) else ""


class Replica:
    """The application of ``ptune serve``, called with requests that have come already.

    Raises:
        PtuneError: as ``ptune serve``: a prompt, the LM or the file of tokens is at fault.
    """

    def __init__(self, settings: Mapping[str, Any]):
        logging.basicConfig(level=logging.WARNING)
        log.setLevel(logging.INFO)
        self.server = PromptServer(ServeConfig(**settings))
        self.server.start()
        self.app = create_app(self.server)
        self._open = contextlib.ExitStack()
        self._open.enter_context(self.server.watching())

    async def answer(self, scope: dict[str, Any], body: bytes) -> AsyncIterator[Any]:
        """The messages of the answer to a request, as ASGI has them."""
        messages: asyncio.Queue[Any] = asyncio.Queue()
        left, sent = asyncio.Event(), False

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        async def run() -> None:
            try:
                await self.app(dict(scope), receive, messages.put)
            finally:
                messages.put_nowait(None)

        running = asyncio.ensure_future(run())
        try:
            while (message := await messages.get()) is not None:
                yield message
            await running
        finally:
            left.set()
            await asyncio.gather(running, return_exceptions=True)

    def check_health(self) -> None:
        """Ray asks this now and then, and starts another replica where it fails.

        Raises:
            RuntimeError: the LM's thread has ended.
        """
        if not self.server.scheduler.is_alive:
            raise RuntimeError("The thread of the LM has ended.")


class Gateway:
    """Takes requests and hands them to the replica of their prompt.

    Args:
        replicas: Ray's handle of them.
    """

    def __init__(self, replicas: Any):
        self.replicas = replicas.options(stream=True)

    async def __call__(self, request: Request) -> Response:
        """Answer a request. One that nothing has been answered of when its replica dies goes to
        another one, unless it changes prompts."""
        body = await request.body()
        scope = {name: request.scope[name] for name in SENT if name in request.scope}
        scope["headers"] = [tuple(pair) for pair in scope["headers"]]
        handle = self.replicas.options(multiplexed_model_id=prompt_of(scope["path"], body))
        tries = TRIES if scope["method"] in ("GET", "HEAD", "POST") else 1
        for _ in range(tries):
            messages = handle.answer.remote(scope, body)
            try:
                start = await anext(aiter(messages))
            except Exception as error:
                if not _has_died(error):
                    raise
                log.warning("A replica died with a request: %s", type(error).__name__)
                continue
            headers = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
            response = StreamingResponse(_parts(messages), start["status"])
            response.raw_headers = headers
            return response
        detail = "The server that answers for this prompt has ended, and another one is started."
        return problem_response(Problem(503, "Not ready", detail, retry_after=2))


async def _parts(messages: Any) -> AsyncGenerator[bytes]:
    try:
        async for message in messages:
            if message["type"] == "http.response.body":
                yield message.get("body", b"")
    finally:
        messages.cancel()  # nobody reads on: the replica gives the work up


def _has_died(error: Exception) -> bool:
    from ray.exceptions import RayActorError

    return isinstance(error, RayActorError)
