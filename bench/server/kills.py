"""kill -9 of the server, again and again, while clients write: what was acknowledged must be there at the end.

Writers make jobs, upload files and cancel jobs; where the connection breaks they send the same request again, as the
SDK does. A file counts as there when its bytes are.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from bench.server.creates import JOBS, ROW, creation, upload, verdict
from bench.server.process import Process
from bench.server.wire import Answer, Client, form, head, percentile
from sharpen.server.storage import Storage
from sharpen.server.tables import files, jobs

LONGEST = 1.0
"""Seconds at most that a server lives after it has answered."""


@dataclass
class Kept:
    """What was acknowledged."""

    jobs: dict[str, str] = field(default_factory=dict)  # id by number
    files: dict[str, str] = field(default_factory=dict)  # SHA-256 by id
    cancelled: list[str] = field(default_factory=list)  # ids


def measure(server: Process, kills: int, writers: int) -> dict[str, Any]:
    """Starts and ends the server."""
    kept = Kept()
    with server:
        back = asyncio.run(_kill(server, kills, writers, kept))
    lost_jobs, duplicated = verdict(server, kept.jobs)
    lost_files, lost_cancels = _missing(server, kept)
    return {
        "kills": kills,
        "writers": writers,
        "acknowledged": {"jobs": len(kept.jobs), "files": len(kept.files), "cancels": len(kept.cancelled)},
        "lost": lost_jobs + lost_files + lost_cancels,
        "duplicated": duplicated,
        "serving_again_seconds": {"p50": percentile(back, 0.5), "max": max(back)},
    }


async def _kill(server: Process, kills: int, writers: int, kept: Kept) -> list[float]:
    """Seconds from each kill to the first answer after it."""
    file = await upload(Client(server.port), server.key)
    ends = asyncio.Event()
    tasks = [asyncio.create_task(_write(server, number, file, kept, ends)) for number in range(writers)]
    chance, back = random.Random(0), []
    for _ in range(kills):
        await asyncio.sleep(chance.random() * LONGEST)
        began = time.perf_counter()
        server.kill()
        server.start()
        await server.serving()
        back.append(time.perf_counter() - began)
    ends.set()
    await asyncio.gather(*tasks)
    return back


async def _write(server: Process, number: int, file: str, kept: Kept, ends: asyncio.Event) -> None:
    client, turn = Client(server.port), 0
    while not ends.is_set():
        turn += 1
        name = f"{number}-{turn}"
        id = (await _surely(client, server, file, name)).json()["id"]
        kept.jobs[name] = id
        if turn % 4 == 0:
            text = ROW * (1 + turn % 5) + b'{"messages": []}\n' * number
            answer = await client.patiently(form("/v1/files", server.key, text))
            assert answer.status == 200, answer
            kept.files[answer.json()["id"]] = hashlib.sha256(text).hexdigest()
        elif turn % 4 == 2:
            request = head("POST", f"{JOBS}/{id}/cancel", server.key, x_stainless_retry_count="1")
            answer = await client.patiently(request)
            assert answer.status == 200, answer
            if answer.json()["status"] == "cancelled":
                kept.cancelled.append(id)
    client.drop()


async def _surely(client: Client, server: Process, file: str, name: str) -> Answer:
    """The answer to a creation, which is sent until there is one."""
    attempt = 0
    while True:
        try:
            answer = await client.ask(creation(server.key, file, name, attempt))
        except (OSError, EOFError):
            attempt += 1
            await asyncio.sleep(0.02)
            continue
        assert answer.status == 200, answer
        return answer


def _missing(server: Process, kept: Kept) -> tuple[int, int]:
    """Acknowledged files whose row or bytes are not there, and cancelled jobs that are not cancelled."""
    storage = Storage(server.settings.data_dir / "files")
    database = server.database()
    try:
        there = set(database.look(lambda connection: connection.execute(select(files.c.id)).scalars().all()))
        rows = database.look(lambda connection: connection.execute(select(jobs.c.id, jobs.c.status)).all())
    finally:
        database.close()

    states = {row.id: row.status for row in rows}

    def whole(id: str, digest: str) -> bool:
        path = storage.path(id)
        return id in there and path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest

    lost = sum(not whole(id, digest) for id, digest in kept.files.items())
    return lost, sum(states.get(id) != "cancelled" for id in kept.cancelled)
