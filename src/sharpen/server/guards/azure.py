"""Azure's routes to the same things: `/openai/…?api-version=…`, and the model in the path of a chat."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, unquote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sharpen.server.errors import invalid
from sharpen.server.guards.answer import refuse

PREFIX = "/openai"
DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)(/.+)")


class Azure:
    """Leads Azure's paths to OpenAI's; any `api-version` will do, and one must be there."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, under OpenAI's path."""
        raw = scope.get("raw_path", b"").decode("latin-1").partition("?")[0]
        if scope["type"] != "http" or not raw.startswith(f"{PREFIX}/"):
            await self.app(scope, receive, send)
            return
        path, model = raw.removeprefix(PREFIX), None
        if found := DEPLOYMENT.fullmatch(raw):
            model, path = unquote(found[1]), found[2]
        if path.startswith("/v1/"):  # Azure's newer form, which needs no version
            path = path.removeprefix("/v1")
        elif "api-version" not in parse_qs(scope["query_string"].decode("latin-1")):
            error = invalid("Azure's routes need `?api-version=…`", "api-version", "missing_required_parameter")
            await refuse(error, scope, receive, send)
            return
        scope = {**scope, "path": unquote(f"/v1{path}"), "raw_path": f"/v1{path}".encode("latin-1")}
        await self.app(scope, _with_model(receive, model) if model else receive, send)


def _with_model(receive: Receive, model: str) -> Receive:
    """The body with the model of the path in it: clients of Azure's may leave it out."""
    body = bytearray()
    whole = False

    async def told() -> Message:
        nonlocal whole
        while not whole:
            message = await receive()
            if message["type"] != "http.request":
                return message
            body.extend(message.get("body", b""))
            if not message.get("more_body"):
                whole = True
                return {"type": "http.request", "body": _named(bytes(body), model), "more_body": False}
        return await receive()

    return told


def _named(body: bytes, model: str) -> bytes:
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        return body  # the route says what is wrong with it
    return json.dumps({**found, "model": model}).encode() if isinstance(found, dict) else body
