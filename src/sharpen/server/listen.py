"""How the application is served: uvicorn with its fast loop and parser, and our patience with slow clients."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI
from sqlalchemy import func, select

from sharpen.errors import RunError
from sharpen.server import app as application
from sharpen.server.guards import slow
from sharpen.server.settings import Settings
from sharpen.server.tables import keys

GRACE = 10
"""Seconds that requests in work have to end when the server is told to stop."""

IDLE = 75
"""Seconds that a connection is kept open between requests."""

BACKLOG = 4096
"""Connections that may wait to be accepted."""


def config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """What uvicorn is told."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=slow.protocol(settings.limits),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=GRACE,
    )


def address(settings: Settings) -> str:
    """What clients take as `base_url`."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}/v1"


@contextmanager
def bound(settings: Settings) -> Iterator[socket.socket]:
    """A socket that has the address, but does not listen yet. Raises RunError where it cannot have it."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((settings.host, settings.port))
        except OSError as error:
            raise _unbound(settings, error) from error
        yield found


def run(settings: Settings, socket: socket.socket, ready: Callable[[int], None]) -> None:
    """Serve until a signal; `ready` is told how many keys there are, once requests are answered. Raises RunError."""
    app = application.create(settings)
    server = _Server(config(app, settings), ready)
    before = {number: signal.signal(number, _ignored) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run([socket])  # its signals come once more when it has ended, to those that it found here
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if not server.started:
        raise RunError("the server could not start", remedy="The lines above say why")


class _Server(uvicorn.Server):
    """Tells when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[int], None]) -> None:
        super().__init__(config)
        self._ready = ready
        self._app: FastAPI = config.app  # type: ignore[assignment]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started:
            query = select(func.count()).where(keys.c.revoked_at.is_(None))
            self._ready(await self._app.state.server.db.read(lambda connection: connection.execute(query).scalar_one()))


def _ignored(number: int, frame: FrameType | None) -> None:
    """The server has ended already because of it."""


def _unbound(settings: Settings, error: OSError) -> RunError:
    where = f"{settings.host}:{settings.port}"
    if error.errno == errno.EADDRINUSE:
        remedy = "Stop it, or choose another with --port (0: any free one)"
        return RunError("another program listens there already", value=where, remedy=remedy)
    if error.errno == errno.EACCES:
        return RunError(
            "this user may not listen there", value=where, remedy="Choose a port of 1024 or above with --port"
        )
    remedy = "Name an address of this machine with --host: 127.0.0.1, or 0.0.0.0 for all"
    return RunError(f"there is no listening there: {error.strerror or error}", value=where, remedy=remedy)
