"""How many requests a key may make: a bucket that fills at a constant rate. Without a known key the address counts."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sharpen.server.access import secret_of
from sharpen.server.core import Server
from sharpen.server.errors import APIError
from sharpen.server.guards.answer import refuse

MOST = 100_000
"""Buckets that are kept; full ones say nothing and go first."""


@dataclass(slots=True)
class Bucket:
    """What is left, and when that was so."""

    left: float
    at: float


class Rates:
    """Refuses with 429 and Retry-After what comes too often."""

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self.app = app
        self.server = server
        self.most = server.settings.limits.requests_per_minute
        self._buckets: dict[str, Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through that there is room for."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        bucket = self._bucket(self._who(scope))
        headers = {
            "x-ratelimit-limit-requests": str(self.most),
            "x-ratelimit-remaining-requests": str(max(0, math.floor(bucket.left) - 1)),
            "x-ratelimit-reset-requests": f"{(self.most - bucket.left) * 60 / self.most:.3f}s",
        }
        if bucket.left < 1:
            wait = math.ceil((1 - bucket.left) * 60 / self.most)
            said = f"More than {self.most} requests a minute. Try again in {wait} s."
            error = APIError(429, said, code="rate_limit_exceeded", headers={"retry-after": str(wait), **headers})
            await refuse(error, scope, receive, send)
            return
        bucket.left -= 1

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await self.app(scope, receive, told)

    def _who(self, scope: Scope) -> str:
        """The key, where it is one that was seen to be good; else the client's address."""
        secret = secret_of(Headers(scope=scope))
        known = self.server.keys.known(secret) if secret else None
        client = scope.get("client")
        return known or (client[0] if client else "")

    def _bucket(self, who: str) -> Bucket:
        now = time.monotonic()
        bucket = self._buckets.get(who)
        if bucket is None:
            if len(self._buckets) >= MOST:
                self._forget(now)
            bucket = self._buckets[who] = Bucket(self.most, now)
        bucket.left = min(self.most, bucket.left + (now - bucket.at) * self.most / 60)
        bucket.at = now
        return bucket

    def _forget(self, now: float) -> None:
        """Those that are full again; a minute fills any."""
        self._buckets = {who: bucket for who, bucket in self._buckets.items() if now - bucket.at < 60}
