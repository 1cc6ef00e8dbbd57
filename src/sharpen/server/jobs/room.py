"""How many unfinished jobs a project may have."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from sharpen.server.errors import APIError
from sharpen.server.states import FINAL
from sharpen.server.tables import jobs

FULL_RETRY = 60
"""Seconds after which a client with too many jobs may ask again."""


class Room:
    """The limit, and what each project has left of it for sure: jobs are counted anew only when that is used up, for a
    count takes the longer the more there are. Used by the database's writer alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._left: dict[str, int] = {}

    def take(self, connection: Connection, project: str) -> None:
        """Make room for one more job. Raises APIError 429 where there is none.

        Half of what a count finds free may be taken before the next: another server on the database takes some too.
        """
        if self._left.get(project, 0) <= 0:
            unfinished = jobs.c.status.not_in(FINAL)
            query = select(func.count()).select_from(jobs).where(jobs.c.project == project, unfinished)
            waiting = connection.execute(query).scalar_one()
            if waiting >= self._most:
                raise APIError(
                    429,
                    f"{waiting} unfinished jobs are here, the limit is {self._most}; cancel some, or wait.",
                    code="too_many_jobs",
                    headers={"Retry-After": str(FULL_RETRY)},
                )
            self._left[project] = (self._most - waiting + 1) // 2
        self._left[project] -= 1
