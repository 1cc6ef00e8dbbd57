"""Clients that do not get on are let go, and hold nobody else up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from sharpen.server.guards import slow
from sharpen.server.settings import Limits

LARGE = 8 << 20


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body; `/large` answers more than the system's buffers hold, `/quick` does not wait for the body."""
    assert scope["type"] == "http"
    if scope["path"] != "/quick":
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.disconnect":
            return
    answer = b"x" * LARGE if scope["path"] == "/large" else b"ok"
    length = (b"content-length", str(len(answer)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": answer})


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(slow, "LOOKS", 0.05)
    yield


@asynccontextmanager
async def server(**limits: float) -> AsyncIterator[int]:
    """A server with these limits; its port."""
    config = uvicorn.Config(
        app, port=0, http=slow.protocol(Limits.model_validate(limits)), lifespan="off", log_config=None, ws="none"
    )
    running = uvicorn.Server(config)
    running.capture_signals = nullcontext  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(running.serve())
    while not running.started:
        await asyncio.sleep(0.01)
    try:
        yield running.servers[0].sockets[0].getsockname()[1]
    finally:
        running.force_exit = running.should_exit = True
        await task


async def opened(port: int, said: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    return reader, writer


async def answer(port: int, path: str = "/") -> bytes:
    reader, writer = await opened(port, f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    found = await reader.read()
    writer.close()
    return found


@pytest.mark.parametrize(
    "said",
    [b"", b"GET / HTTP/1.1\r\nhost: x\r\n", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc"],
    ids=["nothing", "half a head", "half a body"],
)
def test_who_sends_no_more_is_told_408_and_let_go(said: bytes) -> None:
    async def run() -> bytes:
        async with server(header_seconds=0.2, stall_seconds=0.2) as port:
            reader, _ = await opened(port, said)
            return await asyncio.wait_for(reader.read(), 10)

    assert asyncio.run(run()).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "begins", [b"GET / HTTP/1.1\r\nx: ", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999\r\n\r\n"]
)
def test_a_byte_now_and_then_does_not_help(begins: bytes) -> None:
    async def run() -> bytes:
        async with server(header_seconds=0.3, stall_seconds=0.3) as port:
            reader, writer = await opened(port, begins)
            told = asyncio.create_task(reader.read())
            for _ in range(400):
                if told.done():
                    break
                writer.write(b"a")
                await asyncio.sleep(0.02)
            return await asyncio.wait_for(told, 5)

    assert asyncio.run(run()).startswith(b"HTTP/1.1 408 ")


def test_who_does_not_read_the_answer_is_let_go() -> None:
    async def run() -> int:
        async with server(stall_seconds=0.3) as port:
            reader, writer = await opened(port)
            writer.write(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
            await asyncio.sleep(1.5)  # the stream's own buffer and the system's are full long before
            try:
                return len(await asyncio.wait_for(reader.read(), 10))
            except ConnectionResetError:
                return 0

    assert asyncio.run(run()) < LARGE


def test_who_reads_the_answer_has_all_of_it() -> None:
    async def run() -> int:
        async with server(stall_seconds=0.3) as port:
            return len((await answer(port, "/large")).partition(b"\r\n\r\n")[2])

    assert asyncio.run(run()) == LARGE


def test_a_second_request_on_a_connection_has_its_time_anew() -> None:
    async def run() -> list[bytes]:
        async with server(header_seconds=0.4) as port:
            reader, writer = await opened(port)
            found = []
            for _ in range(3):
                await asyncio.sleep(0.3)
                writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
                found.append(head.split(b"\r\n")[0] + await reader.readexactly(2))
            return found

    assert asyncio.run(run()) == [b"HTTP/1.1 200 OKok"] * 3


def test_a_head_without_end_is_refused() -> None:
    async def run() -> bytes:
        async with server() as port:
            reader, _ = await opened(port, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000)
            return await asyncio.wait_for(reader.read(), 10)

    assert asyncio.run(run()).startswith(b"HTTP/1.1 431 ")


def test_beyond_the_number_of_connections_the_longest_idle_one_goes() -> None:
    async def run() -> tuple[bytes, list[bool]]:
        async with server(connections=5, header_seconds=60) as port:
            idle = []
            for _ in range(5):
                idle.append(await opened(port, b"GET"))
                await asyncio.sleep(0.02)
            said = await answer(port)
            await asyncio.sleep(0.1)
            gone = []
            for reader, _ in idle:
                try:
                    gone.append(await asyncio.wait_for(reader.read(), 0.2) == b"")
                except TimeoutError:
                    gone.append(False)
                except ConnectionResetError:
                    gone.append(True)
            return said, gone

    said, gone = asyncio.run(run())
    assert said.endswith(b"ok")
    assert gone == [True, False, False, False, False]


def test_an_answer_before_the_bodys_end_is_not_followed_by_another() -> None:
    async def run() -> bytes:
        async with server(header_seconds=0.2, stall_seconds=0.2) as port:
            reader, _ = await opened(port, b"POST /quick HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc")
            return await asyncio.wait_for(reader.read(), 10)

    said = asyncio.run(run())
    assert said.startswith(b"HTTP/1.1 200 ") and said.count(b"HTTP/1.1") == 1
