"""Clients that may go away before they have their answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")


class Gone(Exception):
    """The client has closed the connection."""


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What the work makes; it is cancelled when the client goes. Raises Gone.

    The request's body must have been read: the next message is then the end of the connection.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Gone
        return task.result()
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


class Events(Response):
    """A stream of server-sent events, whose source is closed as soon as the client goes."""

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncGenerator[bytes, None]) -> None:
        """`frames` are whole events."""
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them all, or as many as the client stays for."""
        try:
            await unless_gone(receive, self._send(send))
        except (Gone, OSError):  # OSError: the server's, for a connection that is closed
            pass

    async def _send(self, send: Send) -> None:
        async with aclosing(self._frames) as frames:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for frame in frames:
                await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def begun(source: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """The same, with its first piece there already. Raises what the source raises before it."""
    try:
        first = await anext(source)
    except BaseException:
        await source.aclose()
        raise

    async def whole() -> AsyncGenerator[T, None]:
        async with aclosing(source):
            yield first
            async for piece in source:
                yield piece

    return whole()
