"""What is to be gone goes: files that a crash left behind, expired files, uploads that nobody finished."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from sqlalchemy import Connection

from sharpen.server import filing
from sharpen.server.database import Database
from sharpen.server.errors import APIError
from sharpen.server.storage import Storage

EVERY = 600.0
"""Seconds between two looks."""

log = logging.getLogger(__name__)


class Housekeeping:
    """Cleans at the start, and then again and again."""

    def __init__(self, storage: Storage, db: Database) -> None:
        self._storage = storage
        self._db = db
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Remove what an earlier server left; begin to look."""
        for id in await self._storage.thread(self._storage.left):
            if await self._db.read(lambda connection, id=id: filing.known(connection, id)):  # type: ignore[misc]
                await self._storage.settle(id)
            else:
                await self._storage.delete(id)
        await self.clean()
        self._task = asyncio.create_task(self._again())

    async def stop(self) -> None:
        """No more looks."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._storage.close()

    async def clean(self) -> None:
        """Remove what has expired."""
        if gone := await self._db.read(filing.expired):
            await self._storage.mark(gone)
            deleted = await self._db.write(lambda connection: filing.forget(connection, gone))
            await self._storage.delete(*deleted)
        for upload in await self._db.read(lambda connection: filing.late(connection, self._storage.locked())):
            async with self._storage.lock(upload):
                with suppress(APIError):  # it ended while we waited
                    await end(self._storage, self._db, upload, "expired")

    async def _again(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.clean()
            except Exception:  # such as a database that is away: the next look finds the same
                log.exception("expired files could not be removed")


async def end(storage: Storage, db: Database, upload: str, status: str) -> None:
    """End an upload and remove its parts; its lock is held. Raises APIError where it has ended already."""

    def change(connection: Connection) -> Sequence[str]:
        gone = filing.parts_of(connection, upload)
        filing.close(connection, upload, status)
        return gone

    await storage.mark(await db.read(lambda connection: filing.parts_of(connection, upload)))
    await storage.delete(*await db.write(change))
