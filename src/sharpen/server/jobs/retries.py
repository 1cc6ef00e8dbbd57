"""A request that is sent again makes no second job.

Two kinds are known. One has an `Idempotency-Key`: it names the same job for good. The other has none but says that it
is a retry (the SDK's `x-stainless-retry-count`): it is the request with the same API key and body of the last 15
minutes. A retry may overtake the request that it repeats, so a first request also looks for a retry of it that was
answered while it was on its way. All this is looked up in the transaction that writes the job, and a unique index
stands behind the first kind.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from sharpen.server.errors import APIError, invalid
from sharpen.server.keys import Caller
from sharpen.server.tables import jobs

WINDOW = 15 * 60.0
"""Seconds in which a retry is one."""

LONGEST_KEY = 255

REPLAYED = {"Idempotent-Replayed": "true"}
"""The header of an answer that was given before."""


@dataclass(frozen=True, slots=True)
class Request:
    """What tells requests apart."""

    project: str
    key: str | None
    """The Idempotency-Key, hashed."""
    body: str
    """Of API key and body, hashed."""
    attempt: int
    """0: it does not say that it is a retry."""
    came_at: float


def request(headers: Mapping[str, str], caller: Caller, body: Mapping[str, Any]) -> Request:
    """What is known of a request. Raises APIError for an Idempotency-Key that is too long, and for what is no JSON."""
    try:
        sent = json.dumps([caller.key_id, body], sort_keys=True, allow_nan=False, ensure_ascii=False).encode()
    except ValueError as error:  # UnicodeEncodeError is one
        raise invalid("The body has NaN, Infinity or half a surrogate pair in it, which no JSON has") from error
    key = headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= LONGEST_KEY:
        raise invalid(f"Idempotency-Key has 1 to {LONGEST_KEY} letters (got {len(key)})", "Idempotency-Key")
    said = headers.get("x-stainless-retry-count", "0")
    return Request(
        project=caller.project,
        key=None if key is None else hashlib.sha256(key.encode()).hexdigest(),
        body=hashlib.sha256(sent).hexdigest(),
        attempt=int(said) if said.isdecimal() and len(said) < 4 else 0,
        came_at=time.time(),
    )


def earlier(connection: Connection, request: Request) -> Row[Any] | None:
    """The job that this request has made already. Raises APIError where its key was another request's."""
    if request.key is not None:
        query = select(jobs).where(jobs.c.project == request.project, jobs.c.retry_key == request.key)
        found = connection.execute(query).first()
        if found is not None and found.body_hash != request.body:
            raise key_reused()
        return found
    same = select(jobs).where(jobs.c.body_hash == request.body, jobs.c.project == request.project)
    if request.attempt:
        same = same.where(jobs.c.made_at >= request.came_at - WINDOW)
    else:
        same = same.where(jobs.c.made_at >= request.came_at, jobs.c.attempt > 0)
    return connection.execute(same.order_by(jobs.c.made_at.desc()).limit(1)).first()


def key_reused() -> APIError:
    """400: the client's SDK would send the request again after a 409."""
    return invalid(
        "This Idempotency-Key was sent with another body before; a new request needs a new key",
        "Idempotency-Key",
        "idempotency_key_reused",
    )
