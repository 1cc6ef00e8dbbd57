"""`/v1/uploads`: a large file in parts, which may come side by side and again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import Connection, Row, func, insert, select

from sharpen.server import filing, ids
from sharpen.server.access import allowed
from sharpen.server.audit import audit
from sharpen.server.core import Server, server_of
from sharpen.server.errors import APIError, invalid
from sharpen.server.forms import form
from sharpen.server.housekeeping import end
from sharpen.server.keys import Caller
from sharpen.server.storage import Received
from sharpen.server.tables import files, upload_parts, uploads

router = APIRouter()

PART = 64 * 2**20
"""Bytes of a part at most."""

PARTS = 10_000
"""Parts of an upload at most."""

HOUR = 3_600
"""Seconds in which an upload must be finished."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00]+$")]


class ExpiresAfter(BaseModel):
    """When the file expires."""

    model_config = ConfigDict(extra="forbid")
    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(strict=True, ge=filing.SHORTEST, le=filing.LONGEST)]


class UploadBody(BaseModel):
    """An upload that begins."""

    model_config = ConfigDict(extra="forbid")
    bytes: Annotated[int, Field(strict=True, ge=1)]
    filename: Text
    mime_type: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00]+$")]
    purpose: Text
    expires_after: ExpiresAfter | None = None


class CompleteBody(BaseModel):
    """An upload that ends."""

    model_config = ConfigDict(extra="forbid")
    part_ids: Annotated[list[Text], Field(min_length=1, max_length=PARTS)]
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{32}$")] | None = None


@router.post("/v1/uploads")
async def create(
    request: Request, body: UploadBody, caller: Annotated[Caller, Depends(allowed("write"))]
) -> dict[str, Any]:
    """Begin an upload of `bytes` bytes."""
    server = server_of(request)
    purpose = filing.purposed(body.purpose)
    if body.bytes > (limit := server.settings.limits.file_bytes):
        raise invalid(f"`bytes` may be {limit} at most (got {body.bytes})", "bytes", "file_too_large")
    await server.storage.thread(lambda: server.storage.room(body.bytes))
    after = body.expires_after
    now = int(time.time())
    row = {
        "id": ids.new("upload"),
        "project": caller.project,
        "filename": filing.named(body.filename, "filename"),
        "purpose": purpose,
        "bytes": body.bytes,
        "mime_type": body.mime_type,
        "status": "pending",
        "created_at": now,
        "expires_at": now + HOUR,
        "file_seconds": filing.expiry(purpose, after.anchor if after else None, after.seconds if after else None),
    }

    def written(connection: Connection) -> dict[str, Any]:
        connection.execute(insert(uploads).values(row))
        audit(connection, caller, "upload.create", str(row["id"]), purpose=purpose, bytes=body.bytes)
        return _show(connection, caller.project, str(row["id"]))

    return await server.db.write(written)


@router.post("/v1/uploads/{upload_id}/parts")
async def add_part(
    request: Request, upload_id: str, caller: Annotated[Caller, Depends(allowed("write"))]
) -> dict[str, Any]:
    """Add a part: a form with `data`. Its place is said by the order of the ids at the end."""
    server = server_of(request)
    await server.db.read(lambda connection: _pending(connection, caller.project, upload_id))
    async with form(request, server.storage, "data", (), PART) as sent:
        id = ids.new("part")
        size = sent.received.bytes
        await server.storage.keep(sent.received, id)

        def written(connection: Connection) -> dict[str, Any]:
            upload = _pending(connection, caller.project, upload_id)
            _has_room(connection, upload, size)
            now = int(time.time())
            row = {"id": id, "upload_id": upload.id, "bytes": size, "created_at": now}
            connection.execute(insert(upload_parts).values(row))
            return {"id": id, "object": "upload.part", "created_at": now, "upload_id": upload.id}

        async with server.storage.lock(upload_id):  # else it could end with this part's row, and leave its bytes
            return await server.storage.acknowledged(id, server.db.write(written))


@router.post("/v1/uploads/{upload_id}/complete")
async def complete(
    request: Request, upload_id: str, body: CompleteBody, caller: Annotated[Caller, Depends(allowed("write"))]
) -> dict[str, Any]:
    """Make the file of the parts, in the order given. Once more, it answers the same."""
    server = server_of(request)
    async with server.storage.lock(upload_id):
        row = await server.db.read(lambda connection: _find(connection, caller.project, upload_id))
        if row.status != "completed":
            await _complete(server, caller, row, body)
        return await server.db.read(lambda connection: _show(connection, caller.project, upload_id))


@router.post("/v1/uploads/{upload_id}/cancel")
async def cancel(
    request: Request, upload_id: str, caller: Annotated[Caller, Depends(allowed("write"))]
) -> dict[str, Any]:
    """Give an upload up. Once more, it answers the same."""
    server = server_of(request)
    async with server.storage.lock(upload_id):
        row = await server.db.read(lambda connection: _find(connection, caller.project, upload_id))
        if row.status != "cancelled":
            await server.db.read(lambda connection: _pending(connection, caller.project, upload_id))
            await end(server.storage, server.db, upload_id, "cancelled")
        return await server.db.read(lambda connection: _show(connection, caller.project, upload_id))


async def _complete(server: Server, caller: Caller, upload: Row[Any], body: CompleteBody) -> None:
    parts = await server.db.read(lambda connection: _checked(connection, caller.project, upload.id, body.part_ids))
    await server.storage.thread(lambda: server.storage.room(upload.bytes))
    async with server.storage.joined(body.part_ids, upload.bytes) as (received, md5):
        if body.md5 is not None and body.md5.lower() != md5:
            raise invalid(
                f"The MD5 of the parts is {md5}, not {body.md5}: send the wrong part again", "md5", "checksum_mismatch"
            )
        id = ids.new("file")
        await server.storage.keep(received, id)
        await server.storage.mark(parts)
        write = server.db.write(lambda connection: _written(connection, caller, upload, received, id))
        await server.storage.acknowledged(id, write)
    await server.storage.delete(*parts)


def _written(connection: Connection, caller: Caller, upload: Row[Any], received: Received, id: str) -> None:
    filing.close(connection, upload.id, "completed", id)
    values = (upload.filename, upload.purpose, received.bytes, received.sha256, id, upload.file_seconds)
    filing.add(connection, caller.project, *values)
    audit(connection, caller, "file.create", id, purpose=upload.purpose, bytes=received.bytes, upload=upload.id)


def _checked(connection: Connection, project: str, id: str, wanted: Sequence[str]) -> list[str]:
    """All parts of a pending upload. Raises APIError unless the wanted ones are its own, and as long as it said."""
    upload = _pending(connection, project, id)
    query = select(upload_parts.c.id, upload_parts.c.bytes).where(upload_parts.c.upload_id == id)
    sizes = {row.id: row.bytes for row in connection.execute(query)}
    for place, part in enumerate(wanted):
        if part not in sizes:
            raise invalid(f"The upload has no part {part[:80]!r}", f"part_ids[{place}]", "part_not_found")
    if (total := sum(sizes[part] for part in wanted)) != upload.bytes:
        raise invalid(
            f"The parts have {total} bytes, where the upload said {upload.bytes}: give all parts, in their order",
            "part_ids",
            "upload_size_mismatch",
        )
    return list(sizes)


def _has_room(connection: Connection, upload: Row[Any], more: int) -> None:
    """Parts may be sent again, but not without end."""
    query = select(func.count(), func.coalesce(func.sum(upload_parts.c.bytes), 0))
    count, total = connection.execute(query.where(upload_parts.c.upload_id == upload.id)).one()
    most = 2 * upload.bytes + PART
    if more > upload.bytes or total + more > most or count >= PARTS:
        raise invalid(
            f"The parts would be {count + 1} of {total + more} bytes, where the upload said {upload.bytes} bytes",
            "data",
            "upload_too_large",
        )


def _find(connection: Connection, project: str, id: str) -> Row[Any]:
    own = uploads.c.id == id, uploads.c.project == project
    row = connection.execute(select(uploads).where(*own)).first() if ids.ID.fullmatch(id) else None
    if row is None:
        raise APIError(404, f"No upload with the id {id[:80]!r} is here.", code="upload_not_found", param="upload_id")
    return row


def _pending(connection: Connection, project: str, id: str) -> Row[Any]:
    """An upload that takes parts. Raises APIError."""
    row = _find(connection, project, id)
    if (status := _status(row)) != "pending":
        raise invalid(f"The upload is {status}; begin another", "upload_id", f"upload_{status}")
    return row


def _status(row: Row[Any]) -> str:
    late = row.status == "pending" and row.expires_at <= time.time()
    return "expired" if late else str(row.status)


def _show(connection: Connection, project: str, id: str) -> dict[str, Any]:
    row = _find(connection, project, id)
    names = ("id", "bytes", "created_at", "expires_at", "filename", "purpose")
    file = None
    if row.file_id is not None:
        found = connection.execute(select(files).where(files.c.id == row.file_id)).first()
        file = None if found is None else filing.show(found)
    shown = {name: getattr(row, name) for name in names}
    return {"object": "upload", **shown, "status": _status(row), "file": file}
