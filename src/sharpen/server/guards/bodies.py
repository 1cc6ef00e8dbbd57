"""How large a body may be: by its head, or while it comes. Files and parts of uploads have limits of their own."""

from __future__ import annotations

import re

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sharpen.server.errors import APIError
from sharpen.server.guards.answer import refuse, values

STREAMED = re.compile(r"/v1/files|/v1/uploads/[^/]+/parts")
"""Paths whose bodies never stand in memory; their routes count the bytes."""


class Bodies:
    """Refuses what is larger than a limit, with 413."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self.most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, and its body as long as it is small enough."""
        if scope["type"] != "http" or STREAMED.fullmatch(scope["path"]):
            await self.app(scope, receive, send)
            return
        said = values(scope["headers"], b"content-length")
        if said and int(said[0]) > self.most:  # the parser has seen to it that it is a number
            await refuse(self._too_large(), scope, receive, send)
            return
        come = 0

        async def counted() -> Message:
            nonlocal come
            message = await receive()
            come += len(message.get("body", b""))
            if come > self.most:
                raise HTTPException(413, str(self._too_large()))
            return message

        await self.app(scope, counted, send)

    def _too_large(self) -> APIError:
        said = f"The body is larger than {self.most:,} bytes. Rows belong into a file: POST /v1/files."
        return APIError(413, said, code="request_too_large")
