"""`/v1/fine_tuning/checkpoints/{model}/permissions`: which other projects may use a tuned model or a checkpoint."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from sqlalchemy import Connection, Row, delete, insert, select

from sharpen.server import ids
from sharpen.server.access import allowed
from sharpen.server.audit import audit
from sharpen.server.core import server_of
from sharpen.server.errors import missing
from sharpen.server.jobs import show
from sharpen.server.jobs.body import Strict, Text64
from sharpen.server.keys import Caller
from sharpen.server.pages import page
from sharpen.server.tables import checkpoints, jobs, models, permissions

router = APIRouter()

PATH = "/v1/fine_tuning/checkpoints/{checkpoint:path}/permissions"
"""A model's name may have a slash in it."""

Reads = Annotated[Caller, Depends(allowed("read"))]
Writes = Annotated[Caller, Depends(allowed("write"))]
Project = Annotated[Text64, Field(min_length=1)]


class Grant(Strict):
    """Who may use it."""

    project_ids: Annotated[list[Project], Field(min_length=1, max_length=100)]


@router.post(PATH)
async def grant(request: Request, checkpoint: str, body: Grant, caller: Writes) -> dict[str, Any]:
    """Let projects use a model of one's own; a project that may already keeps its permission."""

    def change(connection: Connection) -> list[Row[Any]]:
        _own(connection, caller.project, checkpoint)
        return [_granted(connection, caller, checkpoint, project) for project in dict.fromkeys(body.project_ids)]

    rows = [show.permission(row) for row in await server_of(request).db.write(change)]
    return {"object": "list", "data": rows, "first_id": rows[0]["id"], "last_id": rows[-1]["id"], "has_more": False}


@router.get(PATH)
async def listed(
    request: Request,
    checkpoint: str,
    caller: Reads,
    after: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 10,
    order: Literal["ascending", "descending"] = "descending",
    project_id: Annotated[Text64 | None, Query()] = None,
) -> dict[str, Any]:
    """Who may use a model of one's own."""

    def look(connection: Connection) -> dict[str, Any]:
        _own(connection, caller.project, checkpoint)
        query = select(permissions).where(permissions.c.model == checkpoint)
        if project_id is not None:
            query = query.where(permissions.c.project == project_id)
        return page(
            connection,
            query,
            (permissions.c.created_at, permissions.c.id),
            show.permission,
            id=permissions.c.id,
            after=after,
            limit=limit,
            order="asc" if order == "ascending" else "desc",
        )

    return await server_of(request).db.read(look)


@router.delete(PATH + "/{permission_id}")
async def revoke(request: Request, checkpoint: str, permission_id: str, caller: Writes) -> dict[str, Any]:
    """Take a permission back; from then on the project's requests find no such model."""

    def change(connection: Connection) -> None:
        _own(connection, caller.project, checkpoint)
        one = delete(permissions).where(permissions.c.id == permission_id, permissions.c.model == checkpoint)
        if not ids.ID.fullmatch(permission_id) or not connection.execute(one).rowcount:
            raise missing("permission", permission_id, "permission_id")
        audit(connection, caller, "permission.delete", permission_id, model=checkpoint)

    await server_of(request).db.write(change)
    return {"id": permission_id, "object": "checkpoint.permission", "deleted": True}


def _own(connection: Connection, project: str, name: str) -> None:
    """Raise APIError 404 where the project has made no model or checkpoint of this name."""
    if "\0" in name:
        raise missing("checkpoint", name, "fine_tuned_model_checkpoint")
    model = select(models.c.id).where(models.c.id == name, models.c.project == project)
    checkpoint = (
        select(checkpoints.c.id)
        .join(jobs, jobs.c.id == checkpoints.c.job_id)
        .where(checkpoints.c.model == name, jobs.c.project == project)
    )
    if connection.execute(model).first() is None and connection.execute(checkpoint).first() is None:
        raise missing("checkpoint", name, "fine_tuned_model_checkpoint")


def _granted(connection: Connection, caller: Caller, model: str, project: str) -> Row[Any]:
    there = select(permissions).where(permissions.c.model == model, permissions.c.project == project)
    if found := connection.execute(there).first():
        return found
    id = ids.new("cp")
    values = {"id": id, "model": model, "project": project, "created_at": int(time.time())}
    connection.execute(insert(permissions).values(values))
    audit(connection, caller, "permission.create", id, model=model, to=project)
    return connection.execute(there).one()
