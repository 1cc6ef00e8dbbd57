"""The rows of files and uploads in the database: found by project, shown as OpenAI does, gone when they expire."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, or_, select, update

from sharpen.server import ids
from sharpen.server.errors import APIError, invalid
from sharpen.server.states import FINAL
from sharpen.server.tables import files, jobs, upload_parts, uploads

PURPOSES = ("fine-tune", "batch", "evals", "user_data", "assistants", "vision")
"""What clients may upload files for; our own are `fine-tune-results`."""

RESULTS = "fine-tune-results"
NAME = 255
"""Characters of a file's name; the rest is cut off."""

SHORTEST, LONGEST = 3_600, 2_592_000
"""Seconds after which a file may expire."""

DAY = 86_400


def add(
    connection: Connection,
    project: str,
    filename: str,
    purpose: str,
    bytes: int,
    sha256: str,
    id: str,
    seconds: int | None = None,
) -> dict[str, Any]:
    """Insert a file's row, and show it; it expires after `seconds`."""
    now = int(time.time())
    row = {
        "id": id,
        "project": project,
        "filename": filename,
        "purpose": purpose,
        "bytes": bytes,
        "sha256": sha256,
        "created_at": now,
        "expires_at": None if seconds is None else now + seconds,
        "checks": {},
    }
    connection.execute(insert(files).values(row))
    return shown(row)


def find(connection: Connection, project: str, id: str) -> Row[Any] | None:
    """A project's file that has not expired."""
    if not ids.ID.fullmatch(id):
        return None
    query = select(files).where(files.c.id == id, files.c.project == project, visible())
    return connection.execute(query).first()


def visible() -> ColumnElement[bool]:
    """The files that have not expired."""
    return or_(files.c.expires_at.is_(None), files.c.expires_at > int(time.time()))


def show(row: Row[Any]) -> dict[str, Any]:
    """A file as the API shows it."""
    return shown(row._asdict())


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """`show`, of a row's values."""
    names = ("id", "bytes", "created_at", "expires_at", "filename", "purpose")
    return {"object": "file", **{name: row[name] for name in names}, "status": "processed", "status_details": None}


def used(connection: Connection, id: str) -> str | None:
    """An unfinished job that uses a file."""
    of = or_(jobs.c.training_file == id, jobs.c.validation_file == id)
    query = select(jobs.c.id).where(of, jobs.c.status.not_in(FINAL)).limit(1)
    found: str | None = connection.execute(query).scalar_one_or_none()
    return found


def remove(connection: Connection, project: str, id: str) -> None:
    """Delete a file's row. Raises APIError: 409 while a job uses it, 404 where it is not there."""
    if find(connection, project, id) is None:
        raise no_file(id)
    if (job := used(connection, id)) is not None:
        raise APIError(
            409,
            f"The file {id} is used by the job {job}, which has not finished. Cancel the job, or wait for it.",
            code="file_in_use",
            param="file_id",
        )
    connection.execute(delete(files).where(files.c.id == id))


def no_file(id: str, param: str | None = None) -> APIError:
    """404: no such file, or another project's; 400 where the body names it in `param`."""
    said = f"No file with the id {id[:80]!r} is here."
    return APIError(404 if param is None else 400, said, code="file_not_found", param=param or "file_id")


def expired(connection: Connection) -> list[str]:
    """The files that have expired and that no unfinished job uses."""
    query = select(files.c.id).where(files.c.expires_at <= int(time.time()))
    return [id for id in connection.execute(query).scalars() if used(connection, id) is None]


def forget(connection: Connection, gone: Sequence[str]) -> list[str]:
    """Delete the rows of expired files; the ids of those that are gone."""
    still = set(expired(connection))
    found = [id for id in gone if id in still]
    for id in found:
        connection.execute(delete(files).where(files.c.id == id))
    return found


def late(connection: Connection, but: Sequence[str]) -> list[str]:
    """The uploads that have expired unfinished, without `but`."""
    query = select(uploads.c.id).where(uploads.c.status == "pending", uploads.c.expires_at <= int(time.time()))
    return [id for id in connection.execute(query).scalars() if id not in but]


def parts_of(connection: Connection, upload: str) -> list[str]:
    """The parts of an upload."""
    return list(connection.execute(select(upload_parts.c.id).where(upload_parts.c.upload_id == upload)).scalars())


def close(connection: Connection, upload: str, status: str, file: str | None = None) -> None:
    """End an upload that is pending; its parts lose their rows. Raises APIError where it has ended already."""
    open_one = uploads.c.id == upload, uploads.c.status == "pending"
    if connection.execute(update(uploads).where(*open_one).values(status=status, file_id=file)).rowcount != 1:
        raise invalid(f"The upload {upload} has ended meanwhile", "upload_id", "upload_not_pending")
    connection.execute(delete(upload_parts).where(upload_parts.c.upload_id == upload))


def known(connection: Connection, id: str) -> bool:
    """Whether a file or a part has a row."""
    return any(
        connection.execute(select(table.c.id).where(table.c.id == id)).first() is not None
        for table in (files, upload_parts)
    )


def named(filename: str, param: str) -> str:
    """A file's name without folders and control characters. Raises APIError where nothing is left."""
    last = filename.replace("\\", "/").rstrip("/").rpartition("/")[2]
    name = "".join(letter for letter in last if unicodedata.category(letter) not in ("Cc", "Cs"))[:NAME].strip()
    if not name:
        raise invalid(f"The file needs a name (got {filename[:80]!r})", param)
    return name


def purposed(purpose: str | None) -> str:
    """A purpose that clients may give. Raises APIError."""
    if purpose is None:
        raise invalid("`purpose` is missing, such as fine-tune", "purpose", "missing_required_parameter")
    if purpose not in PURPOSES:
        raise invalid(f"`purpose` should be one of {', '.join(PURPOSES)} (got {purpose[:80]!r})", "purpose")
    return purpose


def expiry(purpose: str, anchor: str | None, seconds: object) -> int | None:
    """After how many seconds a file expires, None: never. Raises APIError."""
    if anchor is None and seconds is None:
        return 30 * DAY if purpose == "batch" else None
    if anchor != "created_at":
        raise invalid(f"`expires_after.anchor` should be 'created_at' (got {anchor!r:.80})", "expires_after.anchor")
    number = int(seconds) if isinstance(seconds, str) and seconds.isdecimal() and len(seconds) < 10 else seconds
    if not isinstance(number, int) or isinstance(number, bool) or not SHORTEST <= number <= LONGEST:
        raise invalid(
            f"`expires_after.seconds` should be a whole number from {SHORTEST} to {LONGEST} (got {seconds!r:.80})",
            "expires_after.seconds",
        )
    return number
