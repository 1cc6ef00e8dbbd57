"""Are a job's files what its method needs? What a look finds is kept in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sqlalchemy import Connection, Row, select, update

from sharpen.errors import DataError
from sharpen.server import filing
from sharpen.server.core import Server
from sharpen.server.errors import APIError, invalid, of
from sharpen.server.rows import SHOWN, Checked, Fault, Method, check, shared
from sharpen.server.tables import files

__all__ = ["Checked", "Fault", "Method", "apart", "check", "checked", "shared"]


async def checked(server: Server, file_id: str, project: str, method: Method, param: str) -> Checked:
    """What a look at a project's file finds, or has found. Raises APIError: no such file, or faulty rows."""
    row = await _file(server, file_id, project, param)
    value = row.checks.get(method)
    if value is None:

        async def look() -> Any:
            found = await server.looks.look(method, server.storage.path(file_id))
            await server.db.write(lambda connection: _remember(connection, file_id, method, found))
            return found

        value = await _found(server, f"{file_id} {method}", look, row, param)
    found = Checked.from_json(value)
    if found.faults:
        raise _faulty(row, found, param)
    return found


async def apart(server: Server, project: str, method: Method, training: str, validation: str) -> None:
    """Raise APIError where validation rows have prompts of the training file, which the run would refuse."""
    first = await _file(server, training, project, "training_file")
    second = await _file(server, validation, project, "validation_file")
    key = f"{method}, held out from {first.sha256}"
    lines = second.checks.get(key)
    if lines is None:

        async def look() -> Any:
            storage = server.storage
            found = await server.looks.look(method, storage.path(validation), storage.path(training))
            kept = {"lines": found[:SHOWN], "count": len(found)}
            await server.db.write(lambda connection: _remember(connection, validation, key, kept))
            return kept

        lines = await _found(server, f"{validation} {key}", look, second, "validation_file")
    if lines["count"]:
        some = ", ".join(str(line) for line in lines["lines"])
        more = "" if lines["count"] <= SHOWN else f" and {lines['count'] - SHOWN} more"
        raise invalid(
            f"{lines['count']} rows of the validation file have prompts of the training file, so a score on them would "
            f"measure memory: line {some}{more}. Remove these rows from one of the files",
            "validation_file",
            "validation_file_overlaps_training_file",
            line=lines["lines"][0],
            lines=lines["lines"],
        )


async def _found(
    server: Server, name: str, look: Callable[[], Awaitable[Any]], row: Row[Any], param: str
) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = await server.looks.found(name, look)
    except DataError as error:
        there = await asyncio.to_thread(server.storage.path(row.id).is_file)
        raise (of(error, param) if there else filing.no_file(row.id, param)) from error  # it was deleted just now
    return found


async def _file(server: Server, id: str, project: str, param: str) -> Row[Any]:
    row = await server.db.read(lambda connection: filing.find(connection, project, id))
    if row is None:
        raise filing.no_file(id, param)
    return row


def _remember(connection: Connection, id: str, key: str, found: Any) -> None:
    known = connection.execute(select(files.c.checks).where(files.c.id == id)).scalar_one_or_none()
    if known is not None:
        connection.execute(update(files).where(files.c.id == id).values(checks={**known, key: found}))


def _faulty(row: Row[Any], found: Checked, param: str) -> APIError:
    count = found.faulty
    more = f"; and {count - len(found.faults)} more" if count > len(found.faults) else ""
    fact = f"{count} of the {found.rows} rows of {row.filename} cannot be used" if found.rows else row.filename
    told = "; ".join(str(fault) for fault in found.faults)
    shown = [{"line": fault.line, "field": fault.field, "message": fault.message} for fault in found.faults]
    return invalid(
        f"{fact}: {told}{more}",
        param,
        "invalid_file_format",
        line=found.faults[0].line,
        faults=shown,
        fault_count=count,
    )
