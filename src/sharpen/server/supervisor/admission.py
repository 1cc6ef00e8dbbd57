"""Which job is next, and what it needs besides its turn: cores for its threads, and for the judges that it asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, select

from sharpen.server import names
from sharpen.server.core import Server
from sharpen.server.names import Served
from sharpen.server.tables import jobs


def owner(job: str) -> str:
    """A job's name in the budget of cores."""
    return f"job:{job}"


def waiting(
    connection: Connection, now: float, busy: Mapping[str, int], turns: Mapping[str, int]
) -> Sequence[Row[Any]]:
    """The oldest queued job of each project: first of those that have the fewest running, then had their turn least
    lately."""
    ready = (jobs.c.status == "queued") & (jobs.c.not_before <= int(now))
    oldest = select(jobs.c.project, func.min(jobs.c.made_at).label("at")).where(ready).group_by(jobs.c.project)
    first = oldest.subquery()
    both = (jobs.c.project == first.c.project) & (jobs.c.made_at == first.c.at)
    rows = connection.execute(select(jobs).join(first, both).where(ready)).all()
    return sorted(rows, key=lambda row: (busy.get(row.project, 0), turns.get(row.project, -1), row.made_at, row.id))


def judges(server: Server, row: Row[Any]) -> list[Served]:
    """The models of this server that a job asks. Raises APIError where one is not mapped any more."""
    return [names.resolve_judge(server.settings, name) for name in row.judges]


def threads(server: Server, served: Sequence[Served]) -> int:
    """All threads of a job: its own, and those of its judges' workers."""
    workers = {one.path_or_alias for one in served if one.kind == "local"}
    return server.settings.threads_of_a_job + len(workers) * server.settings.worker_threads


async def admit(server: Server, row: Row[Any], served: Sequence[Served]) -> bool:
    """Take the cores of a job and of its judges, all or none."""
    own = server.settings.threads_of_a_job
    if not server.cores.take(owner(row.id), own):
        await server.workers.make_room(own)
        if not server.cores.take(owner(row.id), own):
            return False
    for one in served:
        if not await server.workers.pin(one, row.id):
            await release(server, row.id)
            return False
    return True


async def release(server: Server, job: str) -> None:
    """Back what a job has."""
    await server.workers.unpin(job)
    server.cores.give(owner(job))


def busy(rows: Sequence[Row[Any]]) -> Counter[str]:
    """How many jobs of each project run."""
    return Counter(row.project for row in rows)
