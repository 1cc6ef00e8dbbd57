"""What all routes share: settings, database, keys and the parts that do the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fastapi import Request

from sharpen.server.database import Database
from sharpen.server.jobs.room import Room
from sharpen.server.settings import Settings

if TYPE_CHECKING:
    from sharpen.server.grading.clerk import Clerk
    from sharpen.server.keys import Keys
    from sharpen.server.looks import Looks
    from sharpen.server.metrics import Metrics
    from sharpen.server.serving.external import External
    from sharpen.server.serving.workers import Workers
    from sharpen.server.storage import Storage
    from sharpen.server.supervisor.cores import Cores


class Part(Protocol):
    """Something that works beside the routes, from the server's start to its end."""

    async def start(self) -> None:
        """Begin."""
        ...

    async def stop(self) -> None:
        """End, within seconds."""
        ...


class Wakeable(Part, Protocol):
    """A part that looks at the database when it is told that something has changed there."""

    def wake(self) -> None:
        """Look now."""
        ...


class Server:
    """The state of a running server; `app.create` puts it together."""

    keys: Keys
    storage: Storage
    looks: Looks
    metrics: Metrics
    clerk: Clerk
    cores: Cores
    supervisor: Wakeable
    workers: Workers
    external: External
    secret: bytes
    """What signed tokens are made with."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self.settings = settings
        self.db = db
        self.room = Room(settings.limits.queued_jobs)
        self.parts: list[Part] = []
        """In the order in which they start; they stop the other way round."""


def server_of(request: Request) -> Server:
    """The server that a request came to."""
    found = request.app.state.server
    assert isinstance(found, Server)
    return found
