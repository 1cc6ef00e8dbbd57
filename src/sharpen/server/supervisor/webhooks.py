"""Who wants to know how jobs end is told, signed as standard-webhooks are.

The word is written down in the transaction that ends the job, and sent until it has arrived, for up to a day.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx
from sqlalchemy import Connection, Row, delete, insert, or_, select, update
from standardwebhooks import Webhook as Signer

from sharpen.config.graders.remote import gives_out_keys, on_this_machine
from sharpen.server import ids
from sharpen.server.database import Database
from sharpen.server.settings import Settings, Webhook
from sharpen.server.tables import deliveries

EVERY = 5.0
"""Seconds between two looks, where nobody wakes it."""
TIMEOUT = 15.0
"""Seconds that a receiver has."""
DAY = 86_400
"""Seconds after which it is given up."""
FIRST, FACTOR, LONGEST = 5, 4, 4 * 3600
"""Seconds until the second attempt, what they are multiplied with at each further one, and their limit."""
AT_ONCE = 16
"""Deliveries of a look."""
GONE = 410
"""The status with which a receiver wants no more."""

log = logging.getLogger("sharpen.server.webhooks")


class Refused(Exception):
    """An address that is not asked; says why."""


def note(connection: Connection, job_id: str, status: str) -> None:
    """Write down that a job has ended, in the transaction that ends it; to whom it is told is seen later."""
    id = ids.new("evt").replace("-", "_")
    payload = {
        "id": id,
        "object": "event",
        "created_at": int(time.time()),
        "type": f"fine_tuning.job.{status}",
        "data": {"id": job_id},
    }
    connection.execute(insert(deliveries).values(_row(id, "", json.dumps(payload))))


class Sender:
    """A part of the supervisor: sends what is written down."""

    def __init__(self, settings: Settings, db: Database, first: float = FIRST) -> None:
        """`first`: seconds until the second attempt."""
        self._hooks = settings.webhooks
        self._db = db
        self._first = first
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._again())

    async def stop(self) -> None:
        """End; what has not arrived is sent by the next server."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def wake(self) -> None:
        """A job has ended."""
        self._woken.set()

    async def send(self) -> None:
        """Send what is due, once."""
        await self._db.write(self._address)
        due = await self._db.read(_due)
        await asyncio.gather(*(self._deliver(row) for row in due))

    async def _again(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self.send()
            except Exception:  # such as a database that is away
                log.exception("webhooks could not be sent")
            with suppress(TimeoutError):
                async with asyncio.timeout(min(EVERY, self._first)):
                    await self._woken.wait()

    def _address(self, connection: Connection) -> None:
        """A row for each who wants to know, in place of the one that no address has yet."""
        for row in connection.execute(select(deliveries).where(deliveries.c.url == "")).all():
            kind = json.loads(row.payload)["type"]
            wanted = [hook for hook in self._hooks if kind in hook.events]
            for place, hook in enumerate(wanted):
                connection.execute(insert(deliveries).values(_row(f"{row.id}_{place}", hook.url, row.payload)))
            connection.execute(delete(deliveries).where(deliveries.c.id == row.id))

    async def _deliver(self, row: Row[Any]) -> None:
        hook = next((hook for hook in self._hooks if hook.url == row.url), None)
        arrived, said = (False, "no webhook of this address is configured any more")
        over = hook is None or time.time() > json.loads(row.payload)["created_at"] + DAY
        if hook is not None:
            try:
                status = await post(hook, row.id, row.payload)
                arrived, said = 200 <= status < 300, f"status {status}"
                over = over or status == GONE
            except (Refused, httpx.HTTPError, OSError, TimeoutError, ValueError) as error:
                said = f"{type(error).__name__}: {error}".rstrip(": ")
        if not arrived:
            log.warning("the webhook %s has not arrived%s: %s", row.id, ", and is given up" if over else "", said)
        wait = min(LONGEST, self._first * FACTOR ** min(row.attempts, 10))
        values = {
            "attempts": row.attempts + 1,
            "delivered": arrived or over,
            "not_before": int(time.time() + wait),
            "last": said[:500],
        }
        await self._db.write(
            lambda connection: connection.execute(update(deliveries).where(deliveries.c.id == row.id).values(values))
        )


async def post(hook: Webhook, id: str, payload: str) -> int:
    """Send one word; returns the status. Raises Refused, httpx.HTTPError, OSError, TimeoutError, ValueError."""
    secret = os.environ.get(hook.secret_env)
    if not secret:
        raise Refused(f"the variable {hook.secret_env} is not set")
    url = urlsplit(hook.url)
    host = url.hostname or ""
    address = await resolved(hook.url)
    shown = f"[{address}]" if ":" in address else address
    target = url._replace(netloc=shown if url.port is None else f"{shown}:{url.port}").geturl()
    at = datetime.now(UTC)
    headers = {
        "host": url.netloc,
        "content-type": "application/json",
        "webhook-id": id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Signer(secret).sign(id, at, payload),
    }
    async with (
        asyncio.timeout(TIMEOUT),
        httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False, trust_env=False) as client,
        client.stream(
            "POST", target, content=payload.encode(), headers=headers, extensions={"sni_hostname": host}
        ) as response,  # what it says beyond its status is not read
    ):
        return response.status_code


async def resolved(url: str) -> str:
    """The address that a webhook is sent to, and no other than this one. Raises Refused and OSError.

    A name is looked up once: what it means later, when the connection is made, has no effect.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    here = on_this_machine(host)
    if parts.scheme != "https" and not (parts.scheme == "http" and here):
        raise Refused("webhooks go by https, by http only to this machine")
    if gives_out_keys(host) or "@" in parts.netloc:
        raise Refused(f"{host} is no place for a webhook")
    found = await asyncio.get_running_loop().getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
    addresses: Sequence[str] = [str(info[4][0]) for info in found]
    for address in addresses:
        known = ip_address(address.partition("%")[0])
        if known.is_loopback != here or (not here and not known.is_global):
            raise Refused(f"{host} is {address}, an address of a private network or of this machine")
    return addresses[0]


def _row(id: str, url: str, payload: str) -> dict[str, Any]:
    return {
        "id": id,
        "url": url,
        "payload": payload,
        "attempts": 0,
        "not_before": 0,
        "delivered": False,
        "last": "",
    }


def _due(connection: Connection) -> Sequence[Row[Any]]:
    waits = or_(deliveries.c.not_before <= int(time.time()), deliveries.c.attempts == 0)
    query = select(deliveries).where(deliveries.c.delivered.is_(False), deliveries.c.url != "", waits)
    return connection.execute(query.order_by(deliveries.c.not_before).limit(AT_ONCE)).all()
