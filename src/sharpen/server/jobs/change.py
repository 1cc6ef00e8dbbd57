"""Changes of a job's state, each told as an event in the same transaction. Nothing else writes `status`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from sharpen.server import ids
from sharpen.server.errors import APIError
from sharpen.server.states import FINAL, Status, may
from sharpen.server.supervisor import webhooks
from sharpen.server.tables import events, jobs

Level = Literal["info", "warn", "error"]

SAID: dict[Status, str] = {
    "validating_files": "Validating files",
    "queued": "Fine-tuning job is queued",
    "running": "Fine-tuning job started",
    "paused": "Fine-tuning job paused",
    "succeeded": "The job has successfully completed",
    "failed": "Fine-tuning job failed",
    "cancelled": "Fine-tuning job cancelled",
}
"""The event of each state."""

WANTED: dict[Status, str] = {"queued": "run", "paused": "pause", "cancelled": "cancel"}
"""What is wanted of a job that has come to a state."""


class Illegal(APIError):
    """A job cannot go from its state to another; 400 where a client asked for it."""

    def __init__(self, job: str, before: str, after: str) -> None:
        super().__init__(
            400, f"The job {job} is {before}, and cannot become {after}.", code="job_state_conflict", param="id"
        )


def move(
    connection: Connection,
    job_id: str,
    to: Status,
    *,
    message: str | None = None,
    level: Level | None = None,
    data: dict[str, Any] | None = None,
    **fields: Any,
) -> Row[Any]:
    """Take a job to a state, with other columns that change with it; returns its row as it is then.

    A running job whose client wants something else goes there: one that is to be cancelled is neither queued again nor
    paused, and one that is to pause is not queued again; look at the row. `finished_at` is set with a final state, and
    `wanted` follows. The event says `message`, else what is usual. Raises Illegal, also where the job has gone on
    meanwhile, and LookupError.
    """
    found = connection.execute(select(jobs.c.status, jobs.c.wanted).where(jobs.c.id == job_id)).first()
    if found is None:
        raise LookupError(job_id)
    before: Status = found.status
    if before == "running" and to in ("queued", "paused") and (other := _asked_for(found.wanted, to)) != to:
        to, message, level = other, None, None
    if not may(before, to):
        raise Illegal(job_id, before, to)
    values: dict[str, Any] = {"status": to, **fields}
    if to in WANTED:
        values.setdefault("wanted", WANTED[to])
    if to in FINAL:
        values.setdefault("finished_at", int(time.time()))
        values["estimated_finish"] = None
    changed = connection.execute(update(jobs).where(jobs.c.id == job_id, jobs.c.status == before).values(values))
    if changed.rowcount != 1:
        raise Illegal(job_id, before, to)
    add_event(connection, job_id, message or SAID[to], level or ("error" if to == "failed" else "info"), data=data)
    if to in FINAL:
        webhooks.note(connection, job_id, to)
    return connection.execute(select(jobs).where(jobs.c.id == job_id)).one()


def _asked_for(wanted: str, to: Status) -> Status:
    """Where a running job goes that would be queued or paused."""
    return "cancelled" if wanted == "cancel" else "paused" if wanted == "pause" else to


def add_event(
    connection: Connection,
    job_id: str,
    message: str,
    level: Level = "info",
    type: Literal["message", "metrics"] = "message",
    data: dict[str, Any] | None = None,
    id: str | None = None,
    at: int | None = None,
) -> None:
    """Tell something of a job, which was `at` that second (None: now). An event with an `id` that is there already is
    not told again."""
    row = _event(job_id, message, level) | {"type": type, "data": data}
    if at is not None:
        row["created_at"] = at
    if id is None:
        connection.execute(insert(events), row)
        return
    row["id"] = id
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(dialect.insert(events).values(row).on_conflict_do_nothing(index_elements=["id"]))


def add_events(connection: Connection, job_id: str, said: Sequence[tuple[Level, str]]) -> None:
    """Tell several things of a job, in their order."""
    connection.execute(insert(events), [_event(job_id, message, level) for level, message in said])


def _event(job_id: str, message: str, level: Level) -> dict[str, Any]:
    return {
        "id": ids.new("ftevent"),
        "job_id": job_id,
        "created_at": int(time.time()),
        "level": level,
        "type": "message",
        "message": message,
        "data": None,
    }
