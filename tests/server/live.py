"""A server that listens, as `sharpen serve` makes it but in a thread, and keys for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from sharpen.server import app as application
from sharpen.server import listen
from sharpen.server.core import Server
from sharpen.server.keys import Scope, create_key
from sharpen.server.settings import Settings


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The address of a server, such as http://127.0.0.1:1234, until the block ends."""
    with listening(application.create(settings)) as url:
        yield url


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The same over an application; `app.state.server` is within reach."""
    settings = app.state.server.settings.model_copy(update={"port": 0})
    runner = uvicorn.Server(listen.config(app, settings))
    thread = threading.Thread(target=runner.run)
    thread.start()
    try:
        while not runner.started:
            assert thread.is_alive(), "the server ended at once"
            time.sleep(0.005)
        yield f"http://127.0.0.1:{runner.servers[0].sockets[0].getsockname()[1]}"
    finally:
        runner.should_exit = True
        thread.join()


def key(app: FastAPI, project: str = "default", scopes: Sequence[Scope] = ("read", "write", "chat")) -> str:
    """The secret of a new key."""
    server: Server = app.state.server
    return server.db.change(lambda connection: create_key(connection, project, "test", tuple(scopes), None))
