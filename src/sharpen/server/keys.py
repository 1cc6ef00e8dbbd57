"""API keys, projects and scopes. A key's secret is shown once and kept only as its hash."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, Row, insert, select

from sharpen.server import ids
from sharpen.server.database import Database
from sharpen.server.tables import keys

Scope = Literal["read", "write", "chat", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "write", "chat", "admin")

REMEMBERED = 2.0
"""Seconds for which a key that was looked up is known; a revoked one works no longer than that."""

SIGNED = "skj-"
"""Begins the tokens that the server signs for its own jobs (server/grading/tokens.py)."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who made a request; `models`: a judge's token opens these models only."""

    project: str
    key_id: str
    scopes: frozenset[str]
    models: frozenset[str] | None = None


LOCAL = Caller("default", "none", frozenset(SCOPES))
"""Everyone, where the operator asks for no keys."""


class Keys:
    """The keys of the database, the last used ones remembered for a moment."""

    def __init__(self, db: Database, signed: Callable[[str], Caller | None]) -> None:
        """`signed` reads the tokens that begin with SIGNED; nothing is kept of those."""
        self._db = db
        self._signed = signed
        self._known: dict[str, tuple[float, Caller | None]] = {}

    async def caller(self, secret: str) -> Caller | None:
        """Whose key this is; None: nobody's, or one that was revoked or has expired."""
        if secret.startswith(SIGNED):
            return self._signed(secret)
        digest = _digest(secret)
        at, found = self._known.get(digest, (0.0, None))
        if time.monotonic() - at > REMEMBERED or not at:
            found = await self._db.read(lambda connection: _look(connection, digest))
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[digest] = (time.monotonic(), found)
        return found

    def known(self, secret: str) -> str | None:
        """The id of a key that was found lately, without a look into the database."""
        _, found = self._known.get(_digest(secret), (0.0, None))
        return found.key_id if found else None


def create_key(connection: Connection, project: str, name: str, scopes: tuple[Scope, ...], days: float | None) -> str:
    """A new key's secret, which nothing shows again."""
    secret = f"sk-{secrets.token_urlsafe(32)}"
    now = int(time.time())
    row = {
        "id": ids.new("key"),
        "project": project,
        "name": name,
        "hash": _digest(secret),
        "hint": f"{secret[:6]}…{secret[-4:]}",
        "scopes": list(scopes),
        "created_at": now,
        "expires_at": None if days is None else now + round(days * 86_400),
    }
    connection.execute(insert(keys).values(row))
    return secret


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _look(connection: Connection, digest: str) -> Caller | None:
    row: Row[tuple[object, ...]] | None = connection.execute(select(keys).where(keys.c.hash == digest)).first()
    if row is None or not hmac.compare_digest(row.hash, digest) or row.revoked_at is not None:
        return None
    if row.expires_at is not None and row.expires_at <= time.time():
        return None
    return Caller(row.project, row.id, frozenset(row.scopes))
