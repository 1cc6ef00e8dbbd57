"""The audit log: who changed what, written in the change's own transaction."""

from __future__ import annotations

import time
from contextvars import ContextVar

from sqlalchemy import Connection, insert

from sharpen.server.keys import Caller
from sharpen.server.tables import audit as table

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that is being answered."""


def audit(connection: Connection, caller: Caller, action: str, object: str, **detail: object) -> None:
    """Note an action, such as `job.create`, on an object; no secret goes into `detail`."""
    row = {"at": time.time(), "project": caller.project, "key_id": caller.key_id, "action": action}
    row |= {"object": object[:256], "request_id": request_id.get(), "detail": detail}
    connection.execute(insert(table).values(row))
