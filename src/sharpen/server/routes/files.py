"""`/v1/files`: upload, list, show, read and delete."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, JSONResponse
from sqlalchemy import Connection, select

from sharpen.server import filing, ids
from sharpen.server.access import allowed
from sharpen.server.audit import audit
from sharpen.server.core import server_of
from sharpen.server.forms import form
from sharpen.server.keys import Caller
from sharpen.server.pages import Order, page
from sharpen.server.tables import files

router = APIRouter()

ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"
TEXT = r"^[^\x00]*$"
"""Text that a database takes."""


@router.post("/v1/files")
async def create(request: Request, caller: Annotated[Caller, Depends(allowed("write"))]) -> dict[str, Any]:
    """Upload a file: a form with `file` and `purpose`, its fields in any order."""
    server = server_of(request)
    limit = server.settings.limits.file_bytes
    async with form(request, server.storage, "file", ("purpose", ANCHOR, SECONDS), limit) as sent:
        purpose = filing.purposed(sent.fields.get("purpose"))
        seconds = filing.expiry(purpose, sent.fields.get(ANCHOR), sent.fields.get(SECONDS))
        name = filing.named(sent.filename, "file")
        id = ids.new("file")
        await server.storage.keep(sent.received, id)

        def written(connection: Connection) -> dict[str, Any]:
            _, size, sha256 = sent.received
            audit(connection, caller, "file.create", id, purpose=purpose, bytes=size)
            return filing.add(connection, caller.project, name, purpose, size, sha256, id, seconds)

        return await server.storage.acknowledged(id, server.db.write(written))


@router.get("/v1/files")
async def listed(
    request: Request,
    caller: Annotated[Caller, Depends(allowed("read"))],
    purpose: Annotated[str | None, Query(max_length=64, pattern=TEXT)] = None,
    after: Annotated[str | None, Query(max_length=64, pattern=TEXT)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Order = "desc",
) -> JSONResponse:
    """A page of the project's files, the newest first."""
    query = select(files).where(files.c.project == caller.project, filing.visible())
    if purpose is not None:
        query = query.where(files.c.purpose == purpose)
    by = (files.c.created_at, files.c.id)

    def look(connection: Connection) -> JSONResponse:  # written as JSON in the reader's thread: it may be 10,000 files
        return JSONResponse(
            page(connection, query, by, filing.show, id=files.c.id, after=after, limit=limit, order=order)
        )

    return await server_of(request).db.read(look)


@router.get("/v1/files/{file_id}")
async def one(request: Request, file_id: str, caller: Annotated[Caller, Depends(allowed("read"))]) -> dict[str, Any]:
    """A file's name, size and purpose."""
    row = await server_of(request).db.read(lambda connection: filing.find(connection, caller.project, file_id))
    if row is None:
        raise filing.no_file(file_id)
    return filing.show(row)


@router.get("/v1/files/{file_id}/content")
async def content(request: Request, file_id: str, caller: Annotated[Caller, Depends(allowed("read"))]) -> FileResponse:
    """A file's bytes, streamed; ranges of them too."""
    server = server_of(request)
    row = await server.db.read(lambda connection: filing.find(connection, caller.project, file_id))
    if row is None or not await server.storage.thread(server.storage.path(row.id).is_file):
        raise filing.no_file(file_id)
    headers = {"X-Content-Type-Options": "nosniff"}  # what a stranger uploaded is no page of ours
    path = server.storage.path(row.id)
    return FileResponse(path, headers=headers, media_type="application/octet-stream", filename=row.filename)


@router.delete("/v1/files/{file_id}")
async def delete(
    request: Request, file_id: str, caller: Annotated[Caller, Depends(allowed("write"))]
) -> dict[str, Any]:
    """Delete a file, which no unfinished job may use."""
    server = server_of(request)
    row = await server.db.read(lambda connection: filing.find(connection, caller.project, file_id))
    if row is None:
        raise filing.no_file(file_id)

    def gone(connection: Connection) -> None:
        filing.remove(connection, caller.project, row.id)
        audit(connection, caller, "file.delete", row.id)

    await server.storage.mark([row.id])
    await server.db.write(gone)
    await server.storage.delete(row.id)
    return {"id": row.id, "object": "file", "deleted": True}
