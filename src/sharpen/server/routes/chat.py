"""POST /v1/chat/completions: from the worker of the model, or from the server that the operator has mapped."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from sharpen.server import names
from sharpen.server.access import allowed
from sharpen.server.core import Server, server_of
from sharpen.server.errors import APIError
from sharpen.server.grading.translate import JUDGE
from sharpen.server.keys import Caller
from sharpen.server.names import Served
from sharpen.server.serving.body import ChatBody
from sharpen.server.serving.clients import Events, Gone, begun, unless_gone
from sharpen.server.serving.reply import Reply, event

router = APIRouter()

CLOSED = 499
"""The status that a client which has gone is not told."""


@router.post("/v1/chat/completions")
async def complete(request: Request, body: ChatBody, caller: Annotated[Caller, Depends(allowed("chat"))]) -> Response:
    """An answer, whole or as a stream; a client that goes away ends it."""
    server = server_of(request)
    ask = body.ask()
    served = await _served(server, caller, body.model)
    try:
        if served.kind == "external":
            return await _forwarded(request, server, served, body)
        reply = Reply(served, body.model, ask.n, body.usage_wanted)
        pieces = server.workers.generate(served, ask)
        if not body.stream:
            return JSONResponse(await unless_gone(request.receive, reply.whole(pieces)))
        # The first piece says that the model takes the request: until then errors have a status of their own.
        return Events(reply.frames(await unless_gone(request.receive, begun(pieces))))
    except Gone:
        return Response(status_code=CLOSED)


async def _served(server: Server, caller: Caller, name: str) -> Served:
    """Raises APIError 404 for what this caller may not ask, as for what there is not."""
    if caller.models is not None:
        if name not in caller.models:
            raise names.unknown(name)
        return names.resolve_judge(server.settings, name.removeprefix(JUDGE))
    return await server.db.read(lambda connection: names.resolve(connection, server.settings, name, caller.project))


async def _forwarded(request: Request, server: Server, served: Served, body: ChatBody) -> Response:
    sent: dict[str, Any] = body.model_dump(exclude_none=True)
    if not body.stream:
        return JSONResponse(await unless_gone(request.receive, server.external.whole(served, sent)))
    frames = await unless_gone(request.receive, begun(server.external.frames(served, sent)))
    return Events(_mended(frames))


async def _mended(frames: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """A failure in the middle of a stream is its last event."""
    try:
        async for frame in frames:
            yield frame
    except APIError as error:
        yield event({"error": error.body})
    finally:
        await frames.aclose()
