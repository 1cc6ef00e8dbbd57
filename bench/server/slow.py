"""Thousands of connections that say nothing, or a byte at a time, and how others fare meanwhile.

A third of them connect and keep silent, a third send a request's head a byte at a time, a third its body. One that the
server closes is opened again.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from typing import Any

from bench.server.creates import JOBS, creation, upload
from bench.server.process import Process
from bench.server.wire import Client, head, percentile

EVERY = 2.0
"""Seconds between the bytes of a slow client."""

OPENING = 15.0
"""Seconds until they should all be open."""

HEALTHY = 16
PAUSE = 0.05
"""Seconds that a healthy client rests after each answer."""


def measure(server: Process, connections: int, seconds: float) -> dict[str, Any]:
    """Starts and ends the server."""
    _allow(2 * connections + 256)
    with server:
        return asyncio.run(_measure(server, connections, seconds))


async def _measure(server: Process, connections: int, seconds: float) -> dict[str, Any]:
    file = await upload(Client(server.port), server.key)
    alone = await _healthy(server, file, min(seconds, 5.0), "alone")
    opened: set[int] = set()
    closed = [0]
    slow = [asyncio.create_task(_slow(server, number, opened, closed)) for number in range(connections)]
    ends = time.monotonic() + OPENING
    while len(opened) < connections and time.monotonic() < ends:
        await asyncio.sleep(0.05)
    beside = await _healthy(server, file, seconds, "beside")
    held = len(opened)
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    return {
        "connections": connections,
        "held_at_the_end": held,
        "closed_by_the_server": closed[0],
        "requests": beside["requests"],
        "failed": beside["failed"],
        "seconds": beside["seconds"],
        "without_them": alone,
    }


async def _slow(server: Process, number: int, opened: set[int], closed: list[int]) -> None:
    """One connection, for ever."""
    whole = head("POST", JOBS, server.key, 4096, Content_Type="application/json")
    said = (b"", whole, whole + b" " * 4096)[number % 3]
    at_once = (0, 0, len(whole))[number % 3]
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        except OSError:
            await asyncio.sleep(0.2)
            continue
        opened.add(number)
        try:
            writer.write(said[:at_once])
            for place in range(at_once, len(said) or 1 << 30):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(EVERY):
                        await reader.read(1)
                        break  # it was closed, or answered
                writer.write(said[place : place + 1])
                await writer.drain()
        except OSError:
            pass
        finally:
            opened.discard(number)
            writer.transport.abort()
        closed[0] += 1


async def _healthy(server: Process, file: str, seconds: float, name: str) -> dict[str, Any]:
    """Clients that create and list jobs."""
    taken: list[float] = []
    failed = [0]

    async def one(number: int) -> None:
        client, turn = Client(server.port), 0
        while time.monotonic() < ends:
            turn += 1
            listing = head("GET", f"{JOBS}?limit=5", server.key)
            request = creation(server.key, file, f"{name}-{number}-{turn}") if turn % 2 else listing
            began = time.perf_counter()
            try:
                answer = await client.ask(request)
            except (OSError, EOFError):
                failed[0] += 1
                continue
            taken.append(time.perf_counter() - began)
            failed[0] += answer.status != 200
            await asyncio.sleep(PAUSE)
        client.drop()

    ends = time.monotonic() + seconds
    await asyncio.gather(*(one(number) for number in range(HEALTHY)))
    figures = {"p50": percentile(taken, 0.5), "p99": percentile(taken, 0.99)}
    return {"requests": len(taken), "failed": failed[0], "seconds": figures}


def _allow(files: int) -> None:
    """Open so many files, in this process and the server that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, hard) if hard > 0 else files, hard))
