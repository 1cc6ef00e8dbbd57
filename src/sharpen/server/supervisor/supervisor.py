"""Runs jobs: the queue is the database, each job a process, and a loop looks after all of them.

Of several servers on one data folder one supervises; another takes its place when it ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any

from sqlalchemy import Connection, Row, select, update

from sharpen.server.core import Server
from sharpen.server.errors import APIError
from sharpen.server.jobs.change import Illegal, add_event, move
from sharpen.server.jobs.validate import validate
from sharpen.server.supervisor import admission, running
from sharpen.server.supervisor.launch import Launch, launched, prepared
from sharpen.server.supervisor.place import Place, counted
from sharpen.server.supervisor.process import Command, Held, Trainer, command
from sharpen.server.supervisor.running import Running
from sharpen.server.supervisor.webhooks import Sender
from sharpen.server.tables import jobs

POLL, IDLE = 0.5, 5.0
"""Seconds between two looks: while a job runs, and otherwise."""
BREATH = 0.05
"""Seconds between two looks at least, however many jobs come."""
PATIENCE = 30.0
"""Seconds that jobs have for a checkpoint when the server stops; what is not done then is adopted by the next one."""
CANCELLED = 5.0
"""Seconds that a process has to end which is cancelled."""
CHECKS = 2
"""Jobs whose files are checked at a time."""
CHECK_AGAIN = 30.0
"""Seconds after which a check is tried again that failed through no fault of its job."""

log = logging.getLogger("sharpen.server.supervisor")


class Supervisor:
    """A part of the server."""

    def __init__(
        self,
        server: Server,
        command: Command = command,
        *,
        poll: float = POLL,
        patience: float = PATIENCE,
        first_wait: float = running.FIRST_WAIT,
    ) -> None:
        """`command`: what is started for a job; `first_wait`: seconds before a process that died is started anew."""
        self.sender = Sender(server.settings, server.db)
        self._server = server
        self._command = command
        self._poll = poll
        self._patience = patience
        self._first_wait = first_wait
        self._data = server.settings.data_dir.absolute()
        self._running: dict[str, Running] = {}
        self._checks: dict[str, asyncio.Task[None]] = {}
        self._turns: dict[str, int] = {}
        """When each project last had its turn."""
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._lead: IO[str] | None = None

    async def start(self) -> None:
        """Adopt what an earlier server left, and begin."""
        self._task = asyncio.create_task(self._again())
        await self.sender.start()

    async def stop(self) -> None:
        """Have the jobs checkpoint; those that are not done in time live on, for the next server to adopt."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for check in self._checks.values():
            check.cancel()
        await asyncio.gather(*self._checks.values(), return_exceptions=True)
        await self._wind_down()
        await self.sender.stop()
        if self._lead:
            self._lead.close()

    def wake(self) -> None:
        """Look now: a job has come, or something else is wanted of one."""
        self._woken.set()

    def running(self) -> list[str]:
        """The jobs whose processes are followed."""
        return list(self._running)

    async def tick(self) -> None:
        """Look after everything, once."""
        if not self._leads():
            return
        rows = await self._rows()
        for row in rows:
            if row.id not in self._running:
                await self._adopt(row)
        for row in rows:
            if row.id in self._running:
                await self._attend(row)
        await self._check()
        if len(self._running) < self._server.settings.job_slots:
            await self._admit([row for row in rows if row.id in self._running])

    async def _again(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self.tick()
            except Exception:  # such as a database that is away: the next look finds the same
                log.exception("the supervisor could not look after its jobs")
            await asyncio.sleep(min(BREATH, self._poll))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll if self._running else min(IDLE, 10 * self._poll)):
                    await self._woken.wait()

    def _leads(self) -> bool:
        """Whether this is the server that supervises this data folder."""
        if self._lead is None:
            file = (self._data / "supervisor.lock").open("a")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return False
            self._lead = file
        return True

    async def _rows(self) -> Sequence[Row[Any]]:
        """The jobs that are running; others are followed no more."""
        rows = await self._server.db.read(_in_process)
        for job in set(self._running) - {row.id for row in rows}:
            del self._running[job]
            await admission.release(self._server, job)
        return rows

    async def _attend(self, row: Row[Any]) -> None:
        one = self._running[row.id]
        try:
            if await running.look(self._server, one, row):
                running.direct(self._server, one, row, CANCELLED)
                return
            await self._conclude(one, row.id)
        except Exception:  # one job's trouble is not the others'
            log.exception("the job %s could not be looked after", row.id)
            if one.trainer.alive():
                return
            del self._running[row.id]  # its row still says `running`: the next look takes it up anew
            await admission.release(self._server, row.id)

    async def _conclude(self, one: Running, job: str) -> None:
        row = await self._server.db.read(lambda connection: _one(connection, job))
        if row is not None and row.status == "running":
            await running.conclude(self._server, one, row, self._first_wait)
        self._running.pop(job, None)
        await admission.release(self._server, job)
        self.sender.wake()
        self.wake()

    async def _adopt(self, row: Row[Any]) -> None:
        """Take up a job that runs by its row: its process lives, or has ended unwatched."""
        place = Place(self._data, row.id)
        found = await asyncio.to_thread(Trainer.adopted, place)
        began, spent = row.detail.get("began", time.time()), row.detail.get("spent", row.seconds)
        one = Running(place, found or Trainer(place, None), began, spent, unwatched=found is None)
        self._running[row.id] = one
        log.info("the job %s %s", row.id, "is adopted" if found else "has ended while no server was there")
        with suppress(APIError):
            served = admission.judges(self._server, row)
            if found and not await admission.admit(self._server, row, served):
                log.warning("there are no cores for the job %s any more: it is asked to stop", row.id)
                one.reason = "server"

    async def _check(self) -> None:
        """Have the files checked of jobs that wait for it."""
        self._checks = {job: task for job, task in self._checks.items() if not task.done()}
        if len(self._checks) >= CHECKS:
            return
        for job in await self._server.db.read(_unchecked):
            if job not in self._checks and len(self._checks) < CHECKS:
                self._checks[job] = asyncio.create_task(self._validate(job))

    async def _validate(self, job: str) -> None:
        try:
            await validate(self._server, job)
            self.wake()
        except Exception:  # no fault of the job's
            log.exception("the files of the job %s could not be checked", job)
            await asyncio.sleep(CHECK_AGAIN)

    async def _admit(self, rows: Sequence[Row[Any]]) -> None:
        """Start jobs while there are slots and cores; who is first and finds no cores waits for them, and all others
        with it, so that it gets them."""
        busy = admission.busy(rows)
        while len(self._running) < self._server.settings.job_slots:
            waiting = await self._server.db.read(
                lambda connection: admission.waiting(connection, time.time(), busy, self._turns)
            )
            if not waiting or not await self._start(waiting[0]):
                return
            busy[waiting[0].project] += 1
            self._turns[waiting[0].project] = max(self._turns.values(), default=0) + 1

    async def _start(self, row: Row[Any]) -> bool:
        """Start a job, or let it fail; False: it has to wait."""
        try:
            served = admission.judges(self._server, row)
            needed, total = admission.threads(self._server, served), self._server.settings.cores
            if needed > total:
                raise APIError(
                    400,
                    f"The job and its judges need {needed} threads together, and this server has {total}. The operator "
                    "sets `cores`, `job_threads` and `worker_threads`.",
                    code="not_enough_cores",
                )
            if not await admission.admit(self._server, row, served):
                await self._server.db.write(lambda connection: _waits(connection, row))
                return False
            launch = await prepared(self._server, row, Place(self._data, row.id))
        except APIError as error:
            await admission.release(self._server, row.id)
            await self._fail(row, error)
            return True
        except Exception:  # ours: it is tried again, and does not hold up the others meanwhile
            log.exception("the job %s could not be prepared", row.id)
            await admission.release(self._server, row.id)
            await self._put_off(row)
            return True
        await self._launch(row, launch)
        return True

    async def _launch(self, row: Row[Any], launch: Launch) -> None:
        place = Place(self._data, row.id)
        began = time.time()
        try:
            started = await self._server.db.write(lambda connection: launched(connection, row, began))
        except Illegal:  # it was cancelled or paused just now
            await admission.release(self._server, row.id)
            return
        told = self._command(place, launch.resumes)
        try:
            trainer = await asyncio.to_thread(Trainer.start, place, told, launch.environment)
        except Held:  # as where the database is older than the process
            trainer, began = Trainer(place, None), await asyncio.to_thread(place.begun)
        except OSError as error:
            log.error("no process could be made for the job %s: %s", row.id, error.strerror)
            trainer = Trainer(place, None)
        self._running[row.id] = Running(place, trainer, began, started.seconds)
        pid = trainer.pid
        await self._server.db.write(
            lambda connection: connection.execute(update(jobs).where(jobs.c.id == row.id).values(pid=pid))
        )

    async def _fail(self, row: Row[Any], error: APIError) -> None:
        told = {name: error.body[name] for name in ("code", "message", "param")}
        with suppress(Illegal):
            await self._server.db.write(
                lambda connection: move(connection, row.id, "failed", message=told["message"], error=told)
            )
        self.sender.wake()

    async def _put_off(self, row: Row[Any]) -> None:
        """Try a job again later; it fails where that was tried too often."""
        if row.attempts + 1 >= self._server.settings.max_attempts:
            await self._fail(
                row, APIError(500, "The job cannot be started; the server's log says why.", code="server_error")
            )
            return
        later = {"attempts": row.attempts + 1, "not_before": int(time.time() + self._first_wait * 2**row.attempts)}
        await self._server.db.write(
            lambda connection: connection.execute(update(jobs).where(jobs.c.id == row.id).values(later))
        )

    async def _wind_down(self) -> None:
        until = time.monotonic() + self._patience
        while self._running and time.monotonic() < until:
            for row in await self._rows():
                if one := self._running.get(row.id):
                    one.reason = one.reason or "server"
                    await self._attend(row)
            if self._running:
                await asyncio.sleep(min(0.1, self._poll))
        for job in self._running:
            log.warning("the job %s is not done with its checkpoint; its process goes on, for the next server", job)


def _in_process(connection: Connection) -> Sequence[Row[Any]]:
    return connection.execute(select(jobs).where(jobs.c.status == "running")).all()


def _one(connection: Connection, job: str) -> Row[Any] | None:
    return connection.execute(select(jobs).where(jobs.c.id == job)).first()


def _unchecked(connection: Connection) -> Sequence[str]:
    query = select(jobs.c.id).where(jobs.c.status == "validating_files").order_by(jobs.c.made_at).limit(2 * CHECKS)
    return connection.execute(query).scalars().all()


def _waits(connection: Connection, row: Row[Any]) -> None:
    id = counted("ftevent", row.id, "waits", row.attempts, row.detail.get("reached", 0))
    add_event(connection, row.id, "The job waits for cores or memory that others use now", id=id)
