"""A job whose process runs: followed, asked to stop when it should, and taken to its next state when it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, update

from sharpen.server.core import Server
from sharpen.server.jobs.change import Level, add_event, move
from sharpen.server.states import Status
from sharpen.server.supervisor import checkpoints
from sharpen.server.supervisor.ending import Ending, clean, ending, error
from sharpen.server.supervisor.follow import AT_ONCE, Follow, News, Told, last_step
from sharpen.server.supervisor.place import Place
from sharpen.server.supervisor.process import Trainer, secrets
from sharpen.server.supervisor.success import NoModel, succeed
from sharpen.server.tables import jobs

ASK_AGAIN = 2.0
"""Seconds after which a process that is to stop is asked again: it may not have listened yet."""
FIRST_WAIT, LONGEST_WAIT = 5.0, 600.0
"""Seconds before a process that died is started anew, doubled each time, and their limit."""

Reason = Literal["", "budget", "stalled", "server"]


@dataclass(eq=False)
class Running:
    """One job's process."""

    place: Place
    trainer: Trainer
    began: float
    """When it was started, in seconds since 1970."""

    spent: float
    """Seconds of the job's earlier processes."""

    unwatched: bool = False
    """It ended while no server was there."""

    reason: Reason = ""
    """Why the supervisor itself ends it."""

    asked: float | None = None
    last_asked: float = 0.0
    secrets: tuple[str, ...] = field(default_factory=secrets)
    """What is taken out of all that it says."""

    follow: Follow = field(init=False)

    def __post_init__(self) -> None:
        self.follow = Follow(self.place)

    def seconds(self) -> float:
        """All that the job has spent in its processes."""
        until = max(self.place.last_write(), self.began) if self.unwatched else time.time()
        return self.spent + until - self.began

    def stop(self, kill_after: float | None = None) -> None:
        """Ask it to stop with a checkpoint, and kill it after so many seconds; to be called again and again."""
        now = time.monotonic()
        self.asked = now if self.asked is None else self.asked
        if kill_after is not None and now - self.asked >= kill_after:
            self.trainer.kill()
        elif now - self.last_asked >= ASK_AGAIN:
            self.last_asked = now
            self.trainer.ask_to_stop()


class Next(NamedTuple):
    """Where a job goes whose process has ended, and what is said of it."""

    status: Status
    message: str | None = None
    level: Level = "info"
    error: dict[str, Any] | None = None
    state: str | None = None
    """The supervisor's own word, such as `crash_loop`."""

    counts: bool = True
    """Whether the start counts as one that has not got on."""


async def look(server: Server, one: Running, row: Row[Any]) -> bool:
    """Tell what is new in the run; False: its process has ended, and all of it is told."""
    alive = await asyncio.to_thread(one.trainer.alive)  # first: what was written before the end is then read below
    news = await asyncio.to_thread(one.follow.poll)
    kept = await asyncio.to_thread(checkpoints.keep, one.place, one.follow, news.checkpoints)
    if news:
        told = [news.told[place : place + AT_ONCE] for place in range(0, len(news.told), AT_ONCE)] or [[]]
        for part in told[:-1]:
            await server.db.write(lambda connection, part=part: _tell(connection, row.id, one, part))  # type: ignore[misc]
        await server.db.write(lambda connection: _note(connection, server, one, row, told[-1], news, kept))
    await asyncio.to_thread(one.place.trim)
    return alive


def direct(server: Server, one: Running, row: Row[Any], patience: float) -> None:
    """Have a process stop that should: its client wants it, its budget is used up, or it writes nothing any more.

    One that is cancelled is killed after `patience` seconds.
    """
    if row.wanted == "cancel":
        one.stop(patience)
    elif row.wanted == "pause" or one.reason == "server":
        one.stop()
    elif over_budget(one, row):
        one.reason = "budget"
        one.stop()
    silent = time.time() - max(one.place.last_write(), one.began)
    if silent > server.settings.stalled_minutes * 60:
        one.reason = "stalled"
        one.trainer.kill()


def over_budget(one: Running, row: Row[Any]) -> bool:
    """Whether the minutes are used up that the job has since it was last resumed after they were."""
    if row.budget_minutes is None:
        return False
    return bool(one.seconds() - row.detail.get("budget_from", 0.0) >= row.budget_minutes * 60)


async def conclude(server: Server, one: Running, row: Row[Any], first_wait: float = FIRST_WAIT) -> None:
    """Take a job to its next state after its process has ended."""
    words = await asyncio.to_thread(one.place.last_words)
    life = one.follow.life
    late = not isinstance(life.get("time"), int | float) or life["time"] < one.began - 0.01
    end = ending({} if late else life, one.trainer.code, words)
    seconds = one.seconds()
    if end.kind == "finished":
        try:
            await succeed(server, row, one.place, seconds=seconds, pid=None)
            return
        except NoModel as fault:
            end = Ending("died", str(fault))
    names = {str(one.place.data): "", str(one.place.run): "the run"}
    for id in filter(None, (row.training_file, row.validation_file)):
        names[str(server.storage.path(id).absolute())] = id
    told = end.cause and clean(end.cause, one.secrets, names)
    following = after(end.kind, told, row, one, server.settings.max_attempts)
    if following.state in ("crash_loop", "no_progress") and following.error:
        said = clean("\n".join(words[-8:]), one.secrets, names)
        following.error["message"] += f" The last words of its log:\n{said}" if said else ""
    wait = min(LONGEST_WAIT, first_wait * 2 ** max(0, row.attempts - 1))
    await server.db.write(lambda connection: _move(connection, row, one, following, seconds, wait))


def after(kind: str, cause: str, row: Row[Any], one: Running, most: int) -> Next:
    """What follows on the end of a process that has not finished."""
    if row.wanted == "cancel":
        return Next("cancelled")
    if one.reason == "budget" and kind != "failed":
        return Next(
            "paused",
            f"The budget of {row.budget_minutes:g} minutes is used up, so the job has paused with a checkpoint. "
            "Resume it, and it has as many minutes again.",
            "warn",
            state="budget",
        )
    if kind == "failed":
        return Next("failed", cause, error=error(cause, row.training_file, row.validation_file))
    if kind == "paused":
        message = f"The job has paused with a checkpoint: {cause}. When that is mended, resume it."
        return Next("paused", message, "error", state="guard")
    if row.wanted == "pause":
        return Next("paused")
    if one.reason == "server" or kind == "stopped" or one.unwatched:
        return Next("queued", "The job goes on from its newest checkpoint as soon as there is room", counts=False)
    if one.reason == "stalled":
        cause = "the process has written nothing for too long"
    if row.attempts >= most:
        state = "no_progress" if one.reason == "stalled" else "crash_loop"
        message = f"Started {row.attempts} times without a step between: {cause}."
        return Next("failed", message, error={"code": state, "message": message, "param": None}, state=state)
    return Next("queued", f"It is started anew from its newest checkpoint: {cause}", "warn", state="restarting")


def _move(connection: Connection, row: Row[Any], one: Running, to: Next, seconds: float, wait: float) -> None:
    detail = {**row.detail, "state": to.state}
    if to.state == "budget":
        detail["budget_from"] = seconds
    fields: dict[str, Any] = {"seconds": seconds, "pid": None, "detail": detail}
    if to.status == "queued":
        fields["not_before"] = 0 if not to.counts else int(time.time() + wait)
        fields["attempts"] = row.attempts if to.counts else max(0, row.attempts - 1)
    if to.error:
        fields["error"] = to.error
    move(connection, row.id, to.status, message=to.message, level=to.level if to.message else None, **fields)


def _tell(connection: Connection, job: str, one: Running, told: Sequence[Told]) -> None:
    for event in told:
        message, level, data = event.said
        add_event(
            connection,
            job,
            clean(message, one.secrets, {str(one.place.run): "the run", str(one.place.data): ""}),
            level,
            event.type,
            data,
            event.id,
            event.at,
        )


def _note(
    connection: Connection,
    server: Server,
    one: Running,
    row: Row[Any],
    told: Sequence[Told],
    news: News,
    kept: Sequence[checkpoints.Kept] | None,
) -> None:
    """Events, checkpoints and progress, in one transaction."""
    _tell(connection, row.id, one, told)
    if kept is not None:
        checkpoints.note(connection, server.settings, row, kept)
    seconds = one.seconds()
    detail = dict(row.detail)
    values: dict[str, Any] = {"seconds": seconds}
    if news.isolation:
        detail["isolation"] = news.isolation
    if progress := last_step(news):
        values["progress"] = {**progress, "seconds": round(seconds, 1)}
        if len(one.follow.by_step) > detail.get("reached", 0):
            detail["reached"] = len(one.follow.by_step)
            detail["state"] = None
            values["attempts"] = 0
    connection.execute(update(jobs).where(jobs.c.id == row.id).values(**values, detail=detail))
