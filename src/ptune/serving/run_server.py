"""``ptune serve``: a server in a process of its own, until a signal ends it."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import uvicorn

from ptune.base import terminal
from ptune.errors import ConfigError
from ptune.lm.source.loading import choose_device
from ptune.serving.access import new_token
from ptune.serving.http.app import create_app
from ptune.serving.options import ServeConfig
from ptune.serving.server import PromptServer

log = logging.getLogger("ptune.serving")
BACKLOG = 1024  # connections that wait to be taken


def serve(config: ServeConfig) -> None:
    """Serve until SIGTERM or Ctrl-C; requests in progress are answered first.

    Raises:
        PtuneError: a prompt, the LM, the file of tokens or the address is at fault.
    """
    if config.new_token is not None:
        _print_token(config.new_token)
        return
    _check_address(config)
    choose_device(config.device)
    logging.basicConfig(level=logging.WARNING)
    _log_to_terminal()
    server = PromptServer(config)
    with contextlib.closing(_listen(config.host, config.port)) as listening:
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        terminal.print_line(f"ptune serves at http://{shown}:{port} (Ctrl-C ends it)")
        sys.stdout.flush()
        asyncio.run(_run(server, listening))
    if not server.is_ready:
        os._exit(0)  # the thread that loads the LM cannot be told to end


async def _run(server: PromptServer, listening: socket.socket) -> None:
    """Answer at once whether the server lives, and rows as soon as the LM is loaded."""
    began = time.monotonic()
    http = _Uvicorn(
        uvicorn.Config(
            create_app(server),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=max(1, round(server.drain)),
        )
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # on Windows, Ctrl-C ends Python itself
            loop.add_signal_handler(number, http.stop)
    serving = asyncio.ensure_future(http.serve(sockets=[listening]))
    try:
        loading = asyncio.wrap_future(server.scheduler.call(server.load))
        await asyncio.wait({loading, serving}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done() and not loading.done():
            return
        loading.result()
        names = server.prompts.ids()
        log.info("Ready after %.1f s: %s", time.monotonic() - began, _listed(names))
        with server.watching():
            await serving
    finally:
        http.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        server.scheduler.abandon()
        if server.is_ready:
            await asyncio.to_thread(server.close)


class _Uvicorn(uvicorn.Server):
    """uvicorn with signals that end it as a program that has done its work."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        """End after the requests in progress; the second time at once."""
        self.force_exit = self.should_exit
        self.should_exit = True


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def _print_token(name: str) -> None:
    token, lines = new_token(name)
    terminal.print_line(f"The token, which is shown this once:\n{token}\n")
    terminal.print_line(f"Its lines for the file of tokens (--tokens):\n{lines}")


def _check_address(config: ServeConfig) -> None:
    """Refuse to let strangers in by oversight.

    Raises:
        ConfigError: others than this machine could reach the server without a token.
    """
    if config.tokens is None and not config.open and not _is_own(config.host):
        raise ConfigError(
            f"At the address {config.host} others than this machine could use every prompt. Give "
            "--tokens FILE (ptune serve --new-token NAME makes one), or --open if they may."
        )


def _is_own(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    """A socket at an address.

    Raises:
        ConfigError: it is taken, or is no address of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return _bound(family, address)
    except OSError as error:
        raise ConfigError(
            f"The server cannot listen at {host}, port {port}: {error.strerror or error}. Give "
            "another --port, or 0 for a free one."
        ) from error


def _bound(family: int, address: Any) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


class _ToTerminal(logging.Handler):
    """Lines on standard error, in which nothing is obeyed by a terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        terminal.warn(f"{time.strftime('%H:%M:%S')} {self.format(record)}")


def _log_to_terminal() -> None:
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [_ToTerminal()]
    # what fails is in our log, without the messages of errors, which may hold texts
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
