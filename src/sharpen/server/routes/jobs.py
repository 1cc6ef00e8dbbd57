"""`/v1/fine_tuning/jobs`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from sqlalchemy import ColumnElement, Connection, null, select

from sharpen.server.access import allowed
from sharpen.server.core import server_of
from sharpen.server.errors import invalid
from sharpen.server.jobs import retries, show
from sharpen.server.jobs.actions import Action, act, of
from sharpen.server.jobs.body import JobBody
from sharpen.server.jobs.create import create
from sharpen.server.jobs.stream import place, stream
from sharpen.server.keys import Caller
from sharpen.server.pages import page
from sharpen.server.tables import checkpoints, events, jobs

router = APIRouter()

Reads = Annotated[Caller, Depends(allowed("read"))]
Writes = Annotated[Caller, Depends(allowed("write"))]
After = Annotated[str | None, Query(max_length=64)]
JOBS = "/v1/fine_tuning/jobs"

LIKE = "metadata["
"""Begins the names of a list's filters: `metadata[key]=value`."""


@router.post(JOBS)
async def make(request: Request, body: JobBody, caller: Writes) -> Response:
    """Create a job, or show the one that an earlier attempt of this request made."""
    server = server_of(request)
    made = await create(server, caller, body, await request.json(), request.headers)
    if not made.replayed:
        server.supervisor.wake()
    return JSONResponse(show.job(made.job, server.settings), headers=retries.REPLAYED if made.replayed else None)


@router.get(JOBS)
async def listed(
    request: Request, caller: Reads, after: After = None, limit: Annotated[int, Query(ge=1, le=1000)] = 20
) -> dict[str, Any]:
    """The project's jobs, the newest first, filtered by metadata."""
    server = server_of(request)
    query = select(jobs).where(jobs.c.project == caller.project, *_filters(request))
    return await server.db.read(
        lambda connection: page(
            connection,
            query,
            (jobs.c.made_at, jobs.c.id),
            lambda row: show.job(row, server.settings),
            id=jobs.c.id,
            after=after,
            limit=limit,
        )
    )


@router.get(JOBS + "/{fine_tuning_job_id}")
async def retrieve(request: Request, fine_tuning_job_id: str, caller: Reads) -> dict[str, Any]:
    """One job."""
    server = server_of(request)
    row = await server.db.read(lambda connection: of(connection, caller.project, fine_tuning_job_id))
    return show.job(row, server.settings)


@router.post(JOBS + "/{fine_tuning_job_id}/cancel")
async def cancel(request: Request, fine_tuning_job_id: str, caller: Writes) -> dict[str, Any]:
    """End a job for good."""
    return await _act(request, fine_tuning_job_id, caller, "cancel")


@router.post(JOBS + "/{fine_tuning_job_id}/pause")
async def pause(request: Request, fine_tuning_job_id: str, caller: Writes) -> dict[str, Any]:
    """End its process with a checkpoint."""
    return await _act(request, fine_tuning_job_id, caller, "pause")


@router.post(JOBS + "/{fine_tuning_job_id}/resume")
async def resume(request: Request, fine_tuning_job_id: str, caller: Writes) -> dict[str, Any]:
    """Queue a paused job again."""
    return await _act(request, fine_tuning_job_id, caller, "resume")


@router.get(JOBS + "/{fine_tuning_job_id}/events", response_model=None)
async def told(
    request: Request,
    fine_tuning_job_id: str,
    caller: Reads,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    live: Annotated[bool, Query(alias="stream")] = False,
    last_event_id: Annotated[str | None, Header()] = None,
) -> dict[str, Any] | Response:
    """A job's events, the newest first; with `stream=true` the oldest first and on until the job ends."""
    server = server_of(request)

    def look(connection: Connection) -> dict[str, Any]:
        of(connection, caller.project, fine_tuning_job_id)
        query = select(events).where(events.c.job_id == fine_tuning_job_id)
        return page(connection, query, (events.c.seq,), show.event, id=events.c.id, after=after, limit=limit)

    def start(connection: Connection) -> int:
        of(connection, caller.project, fine_tuning_job_id)
        return place(connection, fine_tuning_job_id, last_event_id or after)

    if not live:
        return await server.db.read(look)
    pieces = stream(server, fine_tuning_job_id, await server.db.read(start))
    return StreamingResponse(pieces, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


@router.get(JOBS + "/{fine_tuning_job_id}/checkpoints")
async def kept(
    request: Request,
    fine_tuning_job_id: str,
    caller: Reads,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 10,
) -> dict[str, Any]:
    """A job's checkpoints, the newest first."""
    server = server_of(request)

    def look(connection: Connection) -> dict[str, Any]:
        of(connection, caller.project, fine_tuning_job_id)
        query = select(checkpoints).where(checkpoints.c.job_id == fine_tuning_job_id)
        by = (checkpoints.c.seq,)
        return page(connection, query, by, show.checkpoint, id=checkpoints.c.id, after=after, limit=limit)

    return await server.db.read(look)


async def _act(request: Request, id: str, caller: Caller, action: Action) -> dict[str, Any]:
    server = server_of(request)
    again = request.headers.get("x-stainless-retry-count", "0") != "0"
    return show.job(await act(server, caller, id, action, again=again), server.settings)


def _filters(request: Request) -> list[ColumnElement[bool]]:
    """`metadata[key]=value` and `metadata=null`. Raises APIError for what is neither."""
    found: list[ColumnElement[bool]] = []
    for name, value in request.query_params.multi_items():
        if name.startswith(LIKE) and name.endswith("]"):
            key = name[len(LIKE) : -1]
            if '"' in key or "\0" in key + value:  # what neither SQLite's paths nor PostgreSQL's texts can say
                raise invalid(
                    f"no filter has a quotation mark in its key or a NUL in it (got {key[:64]!r})", "metadata"
                )
            found.append(jobs.c.metadata[key].as_string() == value)
        elif name == "metadata":
            if value not in ("null", ""):
                raise invalid(f"should be `metadata[key]=value` or `metadata=null` (got {value[:64]!r})", "metadata")
            found.append(jobs.c.metadata.is_(null()))
    return found
