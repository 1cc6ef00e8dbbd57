"""Chats that another server answers: forwarded with the operator's key, streams as they come."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from sharpen.config.graders.remote import on_this_machine
from sharpen.server.errors import APIError
from sharpen.server.names import Served

CONNECT, BETWEEN = 10.0, 600.0
"""Seconds until a connection stands, and between two pieces of an answer."""
LARGEST = 64 << 20
"""Bytes of an answer."""
AGAIN = 5
"""Seconds after which a client may ask again, where the other server does not say."""

log = logging.getLogger("sharpen.server.external")


class External:
    """A part of the server: the connections to others."""

    def __init__(self) -> None:
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def start(self) -> None:
        """Nothing: connections are made when they are needed."""

    async def stop(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    async def whole(self, served: Served, body: dict[str, Any]) -> dict[str, Any]:
        """The answer under our name of the model. Raises APIError."""
        try:
            async with self._post(served, body) as response:
                found = _json(await _read(served, response))
        except httpx.HTTPError as error:
            raise _unavailable(served, type(error).__name__) from None
        if "choices" not in found:
            raise _unavailable(served, "its answer is no chat completion")
        return {**found, "model": served.name}

    async def frames(self, served: Served, body: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """The events of a stream, the last `[DONE]`. Raises APIError, before the first or in the middle."""
        try:
            async with self._post(served, body) as response:
                if not response.headers.get("content-type", "").startswith("text/event-stream"):
                    await _read(served, response)
                    raise _unavailable(served, "its answer is no stream")
                async for line in response.aiter_lines():
                    if line.startswith("data:"):
                        yield _renamed(served, line.removeprefix("data:").strip())
        except httpx.HTTPError as error:
            raise _unavailable(served, type(error).__name__) from None

    @asynccontextmanager
    async def _post(self, served: Served, body: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        """Its response, of a status below 400. Raises APIError and httpx.HTTPError."""
        url = f"{(served.base_url or '').rstrip('/')}/chat/completions"
        key = os.environ.get(served.api_key_env, "") if served.api_key_env else ""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        sent = {**body, "model": served.remote_model}
        async with self._client(url).stream("POST", url, json=sent, headers=headers) as response:
            if response.status_code >= 300:
                raise _refused(served, response, _said(await _read(served, response), key))
            yield response

    def _client(self, url: str) -> httpx.AsyncClient:
        remote = not on_this_machine(urlsplit(url).hostname or "")
        if remote not in self._clients:
            self._clients[remote] = httpx.AsyncClient(
                timeout=httpx.Timeout(BETWEEN, connect=CONNECT),
                limits=httpx.Limits(max_connections=256),
                follow_redirects=False,  # they might lead where the key may not go
                trust_env=remote,
            )
        return self._clients[remote]


async def _read(served: Served, response: httpx.Response) -> bytes:
    content = bytearray()
    async for part in response.aiter_bytes():
        content += part
        if len(content) > LARGEST:
            raise _unavailable(served, "its answer is too long")
    return bytes(content)


def _json(content: bytes) -> dict[str, Any]:
    """An object; an empty one for anything else."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _renamed(served: Served, data: str) -> bytes:
    """An event under our name of the model."""
    if data != "[DONE]" and "model" in (found := _json(data.encode())):
        data = json.dumps({**found, "model": served.name}, ensure_ascii=False, separators=(",", ":"))
    return f"data: {data}\n\n".encode(errors="replace")


def _said(content: bytes, key: str) -> dict[str, Any]:
    """What an error says, without the key."""
    text = content.decode(errors="replace")
    error = _json((text.replace(key, "…") if key else text).encode()).get("error")
    return error if isinstance(error, dict) else {}


def _refused(served: Served, response: httpx.Response, error: dict[str, Any]) -> APIError:
    """What the client is told: its own mistakes, and not what is the operator's business."""
    status = response.status_code
    if status == 429:
        wait = response.headers.get("retry-after", "")
        return APIError(
            429,
            f"The server behind {served.name!r} takes no more requests now.",
            code="rate_limit_exceeded",
            headers={"Retry-After": wait if wait.isdigit() else str(AGAIN)},
        )
    if status in (400, 413, 422):
        told = {name: str(error[name])[:1000] for name in ("message", "code", "param") if error.get(name)}
        message = told.get("message", "The other server refuses this request.")
        return APIError(400, message, code=told.get("code"), param=told.get("param"))
    return _unavailable(served, f"it answers with the status {status}")


def _unavailable(served: Served, why: str) -> APIError:
    log.error("the server behind %s: %s", served.name, why)
    return APIError(
        503,
        f"The server behind {served.name!r} cannot be asked now.",
        code="upstream_unavailable",
        headers={"Retry-After": str(AGAIN)},
    )
