"""How a guard refuses: with the API's own error, before any route."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from sharpen.server.errors import APIError

Headers = Iterable[tuple[bytes, bytes]]


async def refuse(error: APIError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an error."""
    await JSONResponse({"error": error.body}, error.status, error.headers)(scope, receive, send)


def values(headers: Headers, name: bytes) -> list[str]:
    """All values of a header; names are lower case in ASGI."""
    return [value.decode("latin-1") for key, value in headers if key == name]
