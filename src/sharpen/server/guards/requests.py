"""Every request has an id, its answer says which and how long it took, and one line of the log tells of it."""

from __future__ import annotations

import logging
import re
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sharpen.server import ids, logs
from sharpen.server.audit import request_id
from sharpen.server.core import Server
from sharpen.server.errors import APIError
from sharpen.server.guards.answer import refuse, values

GIVEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Ids that a client may give a request."""

FIXED = {"x-content-type-options": "nosniff", "cache-control": "no-store", "openai-version": "2020-10-01"}
"""Headers of every answer."""


UNANSWERED = 499
"""nginx's number for a client that went before its answer."""

FAILED = "The server has failed at this request. Its log tells why, under this answer's x-request-id."

log = logging.getLogger("sharpen.server.failures")


class Requests:
    """The outermost guard."""

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self.app = app
        self.server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, and tell of it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        given = values(scope["headers"], b"x-request-id")
        id = given[0] if given and GIVEN.fullmatch(given[0]) else ids.new("req")
        request_id.set(id)
        state = scope.setdefault("state", {})
        status, sent = UNANSWERED, 0

        async def told(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in FIXED.items():
                    headers.setdefault(name, value)
                headers["x-request-id"] = id
                headers["openai-processing-ms"] = str(round(1000 * (time.perf_counter() - began)))
            elif message["type"] == "http.response.body":
                sent += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, told)
        except Exception:  # the last place that knows the request: no cause goes to the client, all of it to the log
            log.exception("a request has failed")
            if status == UNANSWERED:
                await refuse(APIError(500, FAILED, code="internal_error"), scope, receive, told)
            else:
                raise  # half an answer is out: the connection must break
        finally:
            route = getattr(scope.get("route"), "path", "other")
            seconds = time.perf_counter() - began
            self.server.metrics.observe(route, scope["method"], status, seconds)
            caller = state.get("caller")
            logs.request(
                request_id=id,
                method=scope["method"],
                route=route,
                status=status,
                ms=round(1000 * seconds, 1),
                bytes=sent,
                project=caller.project if caller else None,
                key=caller.key_id if caller else None,
            )
