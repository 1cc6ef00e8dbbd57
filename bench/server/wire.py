"""HTTP/1.1 over a socket, as little of it as a load generator needs, so that the server has the cores to itself."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


def head(method: str, path: str, key: str, length: int = 0, **more: str) -> bytes:
    """The head of a request; `more` are headers, with `_` for `-`."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {key}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
    if length:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def posted(path: str, key: str, body: Any, **more: str) -> bytes:
    """A whole POST of JSON."""
    content = json.dumps(body).encode()
    return head("POST", path, key, len(content), Content_Type="application/json", **more) + content


def form(path: str, key: str, text: bytes, purpose: str = "fine-tune") -> bytes:
    """A whole upload of a file."""
    content = (
        f'--bench\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n'
        '--bench\r\nContent-Disposition: form-data; name="file"; filename="rows.jsonl"\r\n\r\n'
    ).encode() + text
    content += b"\r\n--bench--\r\n"
    return head("POST", path, key, len(content), Content_Type="multipart/form-data; boundary=bench") + content


class Client:
    """One connection, kept open and opened again where it is gone."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def send(self, request: bytes) -> None:
        """Send a request and do not wait. Raises OSError."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(request)
        await self.writer.drain()

    async def ask(self, request: bytes) -> Answer:
        """Send a request and read its whole answer. Raises OSError or EOFError; the connection is closed then."""
        try:
            await self.send(request)
            return await self._answer()
        except (OSError, EOFError):
            self.drop()
            raise

    async def patiently(self, request: bytes) -> Answer:
        """`ask`, again until there is an answer; of a request that may be made twice."""
        while True:
            try:
                return await self.ask(request)
            except (OSError, EOFError):
                await asyncio.sleep(0.02)

    async def headers(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the answer."""
        assert self.reader is not None
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        found = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        return int(lines[0].split()[1]), found

    def drop(self) -> None:
        """Close the connection, whatever is under way."""
        if self.writer is not None:
            self.writer.transport.abort()
        self.reader = self.writer = None

    async def _answer(self) -> Answer:
        status, headers = await self.headers()
        assert self.reader is not None
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection") == "close":
            self.drop()
        return Answer(status, headers, body)


def percentile(seconds: list[float], share: float) -> float:
    """The smallest of them that so large a share does not exceed."""
    return sorted(seconds)[max(0, math.ceil(len(seconds) * share) - 1)]
