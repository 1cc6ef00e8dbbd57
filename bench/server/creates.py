"""Many clients create jobs at once; every so often one hangs up before its answer, and asks again as the SDK does.

They ask as fast as they are answered, which is how many creations the server bears, or at a steady rate: then seconds
count from the moment at which a request was due, so that a server that falls behind is seen to.

A job is `lost` where its creation was acknowledged and the database does not have it, and `duplicated` where two came
of one request. Both are counted in the database, after the server has ended.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections import Counter
from typing import Any, NamedTuple

from sqlalchemy import select

from bench.server.process import MODEL, Process
from bench.server.wire import Client, form, percentile, posted
from sharpen.server.tables import jobs

ROW = b'{"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann."}]}\n'
JOBS = "/v1/fine_tuning/jobs"
HANGS_UP = 20
"""One request in so many is given up before its answer, and sent again."""


class Work(NamedTuple):
    """What the clients know: the ids that were acknowledged by the request's number, and seconds of each answer."""

    acknowledged: dict[str, str]
    seconds: list[float]
    elapsed: float


def measure(server: Process, clients: int, each: int, rate: float | None = None) -> dict[str, Any]:
    """`clients` make `each` jobs one after the other, all at once; together `rate` a second, or (None) as fast as they
    are answered. Starts and ends the server."""
    with server:
        work = asyncio.run(_create(server, clients, each, rate))
    lost, duplicated = verdict(server, work.acknowledged)
    return {
        "offered_per_second": rate,
        "database": server.settings.database_url.partition(":")[0].partition("+")[0],
        "clients": clients,
        "jobs": len(work.acknowledged),
        "retried": clients * each - len(work.seconds),
        "creates_per_second": len(work.acknowledged) / work.elapsed,
        "seconds": {"p50": percentile(work.seconds, 0.5), "p99": percentile(work.seconds, 0.99)},
        "lost": lost,
        "duplicated": duplicated,
    }


def verdict(server: Process, acknowledged: dict[str, str]) -> tuple[int, int]:
    """Jobs that are lost and that are there twice; `acknowledged` has ids by the `number` in their metadata."""
    database = server.database()
    try:
        rows = database.look(lambda connection: connection.execute(select(jobs.c.id, jobs.c.metadata)).all())
    finally:
        database.close()
    there = {row.id for row in rows}
    numbers = Counter((row.metadata or {}).get("number") for row in rows)
    lost = sum(id not in there for id in acknowledged.values())
    return lost, sum(count - 1 for number, count in numbers.items() if number is not None)


async def upload(client: Client, key: str, rows: int = 8) -> str:
    """The id of a training file that is there now."""
    answer = await client.ask(form("/v1/files", key, ROW * rows))
    assert answer.status == 200, answer
    id: str = answer.json()["id"]
    return id


def creation(key: str, file: str, number: str, attempt: int = 0) -> bytes:
    """A request that makes a job, or makes sure of it."""
    body = {"model": MODEL, "training_file": file, "metadata": {"number": number}}
    return posted(JOBS, key, body, x_stainless_retry_count=str(attempt))


async def _create(server: Process, clients: int, each: int, rate: float | None) -> Work:
    first = Client(server.port)
    file = await upload(first, server.key)
    acknowledged: dict[str, str] = {}
    seconds: list[float] = []
    chance, run = random.Random(0), os.urandom(4).hex()
    turns = itertools.count(1)

    async def one(name: int) -> None:
        client = Client(server.port)
        for turn in range(each):
            number, attempt = f"{run}-{name}-{turn}", 0
            due = began + (turn * clients + name) / rate if rate else 0.0
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if next(turns) % HANGS_UP == 0:
                await client.send(creation(server.key, file, number))
                await asyncio.sleep(chance.random() * 0.1)
                client.drop()
                attempt = 1
            asked = due or time.perf_counter()
            answer = await client.ask(creation(server.key, file, number, attempt))
            if not attempt:
                seconds.append(time.perf_counter() - asked)
            assert answer.status == 200, answer
            acknowledged[number] = answer.json()["id"]
        client.drop()

    began = time.perf_counter()
    await asyncio.gather(*(one(name) for name in range(clients)))
    elapsed = time.perf_counter() - began
    first.drop()
    return Work(acknowledged, seconds, elapsed)
