"""A job's events as they come: server-sent events, which go on after `Last-Event-ID` when a connection was lost."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, select

from sharpen.server.core import Server
from sharpen.server.errors import invalid
from sharpen.server.jobs import show
from sharpen.server.states import FINAL
from sharpen.server.tables import events, jobs

GLANCE = 0.5
"""Seconds between looks for new events."""

QUIET = 15.0
"""Seconds of silence after which a comment keeps the connection open."""

MOST = 500
"""Events read at once."""


def place(connection: Connection, job_id: str, last: str | None) -> int:
    """Where a stream goes on after the event `last`; 0: from the first. Raises APIError: no event of the job."""
    if not last:
        return 0
    query = select(events.c.seq).where(events.c.job_id == job_id, events.c.id == last)
    found: int | None = connection.execute(query).scalar_one_or_none()
    if found is None:
        raise invalid(f"Last-Event-ID names no event of this job (got {last[:80]!r})", "Last-Event-ID")
    return found


async def stream(server: Server, job_id: str, after: int) -> AsyncIterator[str]:
    """All events past a place, the oldest first, until the job has ended and all are told; then `[DONE]`."""
    spoke = time.monotonic()
    while True:
        ended, rows = await server.db.read(partial(_news, job_id=job_id, after=after))
        for row in rows:
            after = row.seq
            yield f"id: {row.id}\ndata: {json.dumps(show.event(row))}\n\n"
        if ended and not rows:
            yield "data: [DONE]\n\n"
            return
        if rows:
            spoke = time.monotonic()
        elif time.monotonic() - spoke > QUIET:
            spoke = time.monotonic()
            yield ": the job goes on\n\n"
        if len(rows) < MOST:
            await asyncio.sleep(0 if ended else GLANCE)


def _news(connection: Connection, job_id: str, after: int) -> tuple[bool, list[Row[Any]]]:
    """Whether the job has ended, and its events past a place; both of one moment."""
    status = connection.execute(select(jobs.c.status).where(jobs.c.id == job_id)).scalar_one_or_none()
    query = select(events).where(events.c.job_id == job_id, events.c.seq > after).order_by(events.c.seq).limit(MOST)
    return status is None or status in FINAL, list(connection.execute(query).all())
