"""A server whose jobs are run by `fake_run.py`, in the test's own event loop."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select

from sharpen.server.jobs.actions import Action, ask
from sharpen.server.keys import LOCAL
from sharpen.server.supervisor.place import Place
from sharpen.server.supervisor.supervisor import Supervisor
from sharpen.server.tables import events, jobs
from tests.server.jobs_lab import MODEL, ROWS, Lab

FAKE = str(Path(__file__).with_name("fake_run.py"))


def fake(steps: int = 4, seconds: float = 0.02, *manners: str) -> Callable[[Place, bool], Sequence[str]]:
    """What is started in place of `sharpen run`."""
    return lambda place, resume: [sys.executable, FAKE, str(place.run), str(steps), str(seconds), *manners]


class Shop(Lab):
    """A Lab that has jobs."""

    def job(self, project: str = "default", **more: Any) -> str:
        """The id of a new queued job."""
        key = self.key if project == "default" else self.new_key(project)
        body = {"model": MODEL, "training_file": self.file(ROWS, project), **more}
        answer = self.ask("POST", "/v1/fine_tuning/jobs", body, key=key)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def supervisor(self, command: Callable[[Place, bool], Sequence[str]], **options: Any) -> Supervisor:
        """One that looks often."""
        return Supervisor(self.server, command, **{"poll": 0.03, "first_wait": 0.01, "patience": 5.0, **options})

    def place(self, job: str) -> Place:
        """Where a job's files are."""
        return Place(self.server.settings.data_dir.absolute(), job)

    def row(self, job: str) -> Row[Any]:
        """A job as it stands."""
        return self.server.db.look(lambda connection: connection.execute(select(jobs).where(jobs.c.id == job)).one())

    def told(self, job: str) -> list[Row[Any]]:
        """Its events, in their order."""
        query = select(events).where(events.c.job_id == job).order_by(events.c.seq)
        return list(self.server.db.look(lambda connection: connection.execute(query).all()))

    def messages(self, job: str) -> list[str]:
        """What they say."""
        return [row.message for row in self.told(job)]

    def wants(self, job: str, action: Action) -> None:
        """What a client asks of a job."""
        self.server.db.change(lambda connection: ask(connection, LOCAL, job, action))

    def starts(self, job: str) -> int:
        """How often a process began."""
        path = self.place(job).run.parent / f"{job}.pids"
        return len(path.read_text().split()) if path.exists() else 0

    async def until(self, job: str, *statuses: str, seconds: float = 30.0) -> Row[Any]:
        """The job as soon as it has one of these states."""
        return await self.when(job, lambda row: row.status in statuses, seconds)

    async def when(self, job: str, holds: Callable[[Row[Any]], bool], seconds: float = 30.0) -> Row[Any]:
        """The job as soon as something holds of it."""
        end = time.monotonic() + seconds
        while not holds(row := self.row(job)):
            assert time.monotonic() < end, (row, self.messages(job), self.place(job).last_words())
            await asyncio.sleep(0.01)
        return row


@asynccontextmanager
async def at_work(supervisor: Supervisor) -> AsyncIterator[Supervisor]:
    """A supervisor between its start and its end."""
    await supervisor.start()
    try:
        yield supervisor
    finally:
        await supervisor.stop()
