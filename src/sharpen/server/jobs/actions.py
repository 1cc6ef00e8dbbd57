"""What a client does to a job that exists: cancel, pause, resume."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from sqlalchemy import Connection, Row, select, update

from sharpen.server import ids
from sharpen.server.audit import audit
from sharpen.server.core import Server
from sharpen.server.errors import APIError, missing
from sharpen.server.jobs.change import add_event, move
from sharpen.server.keys import Caller
from sharpen.server.states import Status
from sharpen.server.tables import jobs

Action = Literal["cancel", "pause", "resume"]

TARGET: dict[Action, Status] = {"cancel": "cancelled", "pause": "paused", "resume": "queued"}

FROM: dict[Action, tuple[Status, ...]] = {
    "cancel": ("validating_files", "queued", "running", "paused"),
    "pause": ("queued", "running"),
    "resume": ("paused",),
}
"""The states in which a client may ask for it; a job whose files are being checked cannot pause yet."""

PATIENCE = 10.0
"""Seconds that an answer waits for a process to end, so that it can show the state that was asked for."""

GLANCE = 0.05
"""Seconds between looks."""


def of(connection: Connection, project: str, id: str) -> Row[Any]:
    """A project's job. Raises APIError 404."""
    known = ids.ID.fullmatch(id) is not None
    row = connection.execute(select(jobs).where(jobs.c.id == id, jobs.c.project == project)).first() if known else None
    if row is None:
        raise missing("fine-tuning job", id, "fine_tuning_job_id")
    return row


async def act(server: Server, caller: Caller, id: str, action: Action, *, again: bool) -> Row[Any]:
    """Do it, or have the supervisor do it where a process runs; returns the job as it stands then.

    `again`: the request is a retry, so that what it asked for may have been done. Raises APIError: 404, or 400 where
    the job's state does not allow it.
    """
    row = await server.db.write(lambda connection: ask(connection, caller, id, action, again=again))
    server.supervisor.wake()
    if row.status == "running":
        row = await _ended(server, id, row)
    return row


def ask(
    connection: Connection,
    caller: Caller,
    id: str,
    action: Action,
    *,
    again: bool = False,
) -> Row[Any]:
    """`act`, within a transaction and without the wait."""
    row = of(connection, caller.project, id)
    target = TARGET[action]
    if again and _done(row, action):
        return row
    if row.status not in FROM[action]:
        raise _refused(row, action)
    if row.status == "running" and row.wanted != "run":  # it is on its way
        if row.wanted == action:
            return row
        if row.wanted == "cancel":
            raise _refused(row, action)
    audit(connection, caller, f"job.{action}", id)
    if row.status != "running":
        fields: dict[str, Any] = {"attempts": 0, "not_before": 0} if action == "resume" else {}
        return move(connection, id, target, **fields)
    connection.execute(update(jobs).where(jobs.c.id == id).values(wanted=action))
    add_event(connection, id, f"{action.capitalize()} was asked for; the process ends with a checkpoint")
    return of(connection, caller.project, id)


def _done(row: Row[Any], action: Action) -> bool:
    """Whether a job stands where an action takes it; one that was resumed may run by now."""
    return row.status == TARGET[action] or (action == "resume" and row.status == "running" and row.wanted == "run")


def _refused(row: Row[Any], action: Action) -> APIError:
    ending = {"cancel": ", and is being cancelled", "pause": ", and is being paused"}.get(row.wanted, "")
    state = f"{row.status}{ending if row.status == 'running' else ''}"
    able = " or ".join(FROM[action])
    return APIError(
        400,
        f"The job {row.id} is {state}; {action} is for jobs that are {able}.",
        code={"cancel": "job_not_cancellable", "pause": "job_not_pausable", "resume": "job_not_resumable"}[action],
        param="fine_tuning_job_id",
    )


async def _ended(server: Server, id: str, row: Row[Any]) -> Row[Any]:
    """The job as soon as it runs no more, or after PATIENCE."""

    def look(connection: Connection) -> Row[Any]:
        return connection.execute(select(jobs).where(jobs.c.id == id)).one()

    for _ in range(round(PATIENCE / GLANCE)):
        if row.status != "running" or row.wanted == "run":
            return row
        await asyncio.sleep(GLANCE)
        row = await server.db.read(look)
    return row
