"""/v1/models: what a project may ask, and what it has tuned and no longer wants."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from sqlalchemy import Connection, Row, delete, or_, select

from sharpen.models import registry
from sharpen.models.bases import BASES
from sharpen.server import names
from sharpen.server.access import allowed
from sharpen.server.audit import audit
from sharpen.server.core import Server, server_of
from sharpen.server.errors import APIError
from sharpen.server.keys import Caller
from sharpen.server.names import Served
from sharpen.server.settings import Settings
from sharpen.server.states import FINAL
from sharpen.server.tables import jobs, models, permissions

router = APIRouter()

Shown = dict[str, Any]


@router.get("/v1/models")
async def index(request: Request, caller: Annotated[Caller, Depends(allowed("read"))]) -> Shown:
    """All that the project may ask, the newest tuned ones first."""
    server = server_of(request)
    data = await server.db.read(lambda connection: _all(connection, server.settings, caller.project))
    return {"object": "list", "data": data}


@router.get("/v1/models/{id:path}")
async def retrieve(request: Request, id: str, caller: Annotated[Caller, Depends(allowed("read"))]) -> Shown:
    """One of them, or a checkpoint. Raises APIError 404."""
    server = server_of(request)
    return await server.db.read(lambda connection: _one(connection, server.settings, id, caller.project))


@router.delete("/v1/models/{id:path}")
async def remove(request: Request, id: str, caller: Annotated[Caller, Depends(allowed("write"))]) -> Shown:
    """Forget a model that the project has tuned, and free its disk. Raises APIError 403, 404, 409."""
    server = server_of(request)
    path = await server.db.write(lambda connection: _delete(connection, server, id, caller))
    await server.workers.forget(str(path))
    await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
    return {"id": id, "object": "model", "deleted": True}


def _all(connection: Connection, settings: Settings, project: str) -> list[Shown]:
    given = select(permissions.c.model).where(permissions.c.project == project)
    query = select(models).where(or_(models.c.project == project, models.c.id.in_(given)))
    rows = connection.execute(query.order_by(models.c.created_at.desc(), models.c.id)).all()
    found = [_tuned(row, settings) for row in rows]
    for name in dict.fromkeys([*settings.models, *names.house()]):
        try:
            found.append(_base(settings, names.resolve(connection, settings, name, project)))
        except APIError:  # mapped to what is not on this machine: nobody can ask it
            continue
    return found


def _one(connection: Connection, settings: Settings, id: str, project: str) -> Shown:
    if id not in settings.models and (row := names.tuned(connection, id, project)):
        return _tuned(row, settings)
    return _base(settings, names.resolve(connection, settings, id, project))


def _tuned(row: Row[Any], settings: Settings) -> Shown:
    more = {"kind": "tuned", "base": row.base, "job_id": row.job_id, "parameters": row.parameters}
    return _shown(row.id, row.created_at, settings.organization, more)


def _base(settings: Settings, served: Served) -> Shown:
    folder = Path(served.path_or_alias)
    if served.path_or_alias in BASES:
        folder = registry.folder(served.path_or_alias) or folder
    since = folder if served.kind == "local" and folder.is_dir() else settings.data_dir
    by = f"another server, as {served.remote_model}" if served.kind == "external" else folder.name
    more = {"kind": served.kind, "served_by": by, "parameters": served.parameters}
    return _shown(served.name, int(since.stat().st_mtime), "sharpen", more)


def _shown(id: str, created: int, owner: str, more: Shown) -> Shown:
    return {"id": id, "object": "model", "created": created, "owned_by": owner, "sharpen": more}


def _delete(connection: Connection, server: Server, id: str, caller: Caller) -> Path:
    """The folder of what was forgotten."""
    row = None if id in server.settings.models else names.tuned(connection, id, caller.project)
    if row is None or row.project != caller.project:
        names.resolve(connection, server.settings, id, caller.project)
        raise APIError(
            403,
            f"The model {id[:80]!r} is not this project's own tuned model, and only such are deleted.",
            code="model_not_deletable",
            param="model",
        )
    path = server.settings.data_dir.absolute() / str(row.path)
    if used := _used(connection, server, id, str(path)):
        raise APIError(409, f"The model {id!r} is in use by {used}; wait or cancel it.", code="model_in_use")
    connection.execute(delete(models).where(models.c.id == id))
    connection.execute(delete(permissions).where(permissions.c.model == id))
    audit(connection, caller, "model.delete", id)
    return path


def _used(connection: Connection, server: Server, id: str, path: str) -> str:
    """What needs it: an unfinished job that starts from it, or one that has it as judge."""
    rows = connection.execute(select(jobs.c.id, jobs.c.model, jobs.c.serves).where(jobs.c.status.not_in(FINAL)))
    for row in rows:
        if row.model == id or row.serves.get("path_or_alias") == path:
            return f"the job {row.id}"
    return "a running job's judge" if server.workers.pinned(path) else ""
