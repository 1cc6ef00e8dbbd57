"""Who calls: the dependency of routes that asks for a key with a scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request
from starlette.datastructures import Headers

from sharpen.server.core import server_of
from sharpen.server.errors import APIError
from sharpen.server.keys import LOCAL, SIGNED, Caller, Scope


def allowed(scope: Scope) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency of routes: the caller, if its key has the scope. Raises APIError 401 or 403."""

    async def caller(request: Request) -> Caller:
        server = server_of(request)
        secret = secret_of(request.headers)
        if not server.settings.auth and not secret.startswith(SIGNED):
            request.state.caller = LOCAL
            return LOCAL
        found = await server.keys.caller(secret) if secret else None
        if found is None:
            said = "This is no valid API key." if secret else "No API key was sent."
            raise APIError(
                401,
                f"{said} Send `Authorization: Bearer sk-…`; `sharpen keys create` makes one.",
                code="invalid_api_key",
            )
        request.state.caller = found  # for the log
        if scope not in found.scopes:
            raise APIError(403, f"This key lacks the scope {scope!r}.", code="insufficient_permissions")
        return found

    return caller


def secret_of(headers: Headers) -> str:
    """The key of a request, in OpenAI's header or Azure's; empty where there is none."""
    kind, _, bearer = headers.get("authorization", "").partition(" ")
    return bearer.strip() if kind.lower() == "bearer" else headers.get("api-key", "")
