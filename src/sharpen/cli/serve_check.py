"""`sharpen serve --check`: what a server with these settings needs, looked over, with the remedy of what is amiss."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sharpen.cli import machine
from sharpen.cli.doctor import MARKS, Finding, isolation
from sharpen.errors import RunError
from sharpen.reports.numbers import memory

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from sharpen.server.database import Database
    from sharpen.server.settings import Mapped, Settings

LEAST_DISK = 5e9
"""Bytes: a run's checkpoints and models, and some clients' files."""

LEAST_MEMORY = 4e9
"""Bytes: a job on the smallest of the well-known models, with a model worker beside it."""

AHEAD = 60.0
"""Seconds by which clocks may differ."""

OWN_FILES = 256
"""Open files of the server itself, beside its connections."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def check(settings: Settings) -> int:
    """Print every finding; 1 when something essential is missing."""
    wrong = 0
    for finding in findings(settings):
        print(f"{MARKS[finding.state]} {finding.name:<13} {finding.seen}", flush=True)
        if finding.remedy:
            print(f"  {'':<13} → {finding.remedy}")
        wrong += finding.state == "error"
    print(f"\n{wrong} of these must be mended first; → says how." if wrong else "\nOK: sharpen serve can start.")
    return 1 if wrong else 0


def findings(settings: Settings) -> Iterator[Finding]:
    """Look at one thing after the other."""
    yield from _folder(settings.data_dir)
    yield from _with_database(settings)
    yield _address(settings)
    yield isolation()
    yield from _webhooks(settings)
    yield from _limits(settings)


def _folder(folder: Path) -> Iterator[Finding]:
    from sharpen.cli import server_options

    try:
        server_options.made(folder)
    except RunError as error:
        yield Finding("error", "data folder", f"{error.fact} ({folder.absolute()})", error.remedy)
        return
    if folder.stat().st_mode & 0o077:
        seen = f"{folder.absolute()}, which other users may look into"
        yield Finding("warn", "data folder", seen, f"chmod 700 {folder}")
    else:
        yield Finding("ok", "data folder", str(folder.absolute()))
    free = machine.disk_free(folder)
    few = free < LEAST_DISK
    advice = f"free some space: a job may take {memory(LEAST_DISK)}" if few else ""
    yield Finding("warn" if few else "ok", "disk", f"{memory(free)} free", advice)


def _with_database(settings: Settings) -> Iterator[Finding]:
    from sharpen.server.database import Database, shown

    try:
        database = Database(settings.database_url)
    except RunError as error:
        yield Finding("error", "database", f"{error.fact} ({shown(settings.database_url)})", error.remedy)
        return
    try:
        began = time.perf_counter()
        database.change(lambda connection: None)
        seen = f"{shown(settings.database_url)}; a transaction takes {1000 * (time.perf_counter() - began):.0f} ms"
        yield Finding("ok", "database", seen)
        yield _clock(database)
        yield _keys(settings, database)
        yield from _models(settings, database)
    finally:
        database.close()


def _clock(database: Database) -> Finding:
    """Against the database's own clock, and against what was written before."""
    from sqlalchemy import func, select, text

    from sharpen.server.tables import audit, jobs

    def look(connection: Connection) -> tuple[float, float]:
        newest = [connection.execute(select(func.max(column))).scalar() for column in (audit.c.at, jobs.c.made_at)]
        if connection.dialect.name != "postgresql":
            return 0.0, max((float(at) for at in newest if at), default=0.0)
        theirs = float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
        return theirs - time.time(), max((float(at) for at in newest if at), default=0.0)

    off, newest = database.look(look)
    now = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    if newest > time.time() + AHEAD:
        return Finding("error", "clock", f"{now}, which is before what was written already", "set it: timedatectl")
    if abs(off) > AHEAD:
        return Finding("warn", "clock", f"{now}, {abs(off):.0f} s from the database's", "set both: timedatectl")
    return Finding("ok", "clock", now)


def _keys(settings: Settings, database: Database) -> Finding:
    from sqlalchemy import func, select

    from sharpen.server.tables import keys

    if not settings.auth:
        return Finding("warn", "keys", "nobody is asked for one (--no-auth)")
    query = select(func.count()).where(keys.c.revoked_at.is_(None))
    count = database.look(lambda connection: connection.execute(query).scalar_one())
    return Finding("ok", "keys", str(count)) if count else Finding("warn", "keys", "none yet", "sharpen keys create")


def _models(settings: Settings, database: Database) -> Iterator[Finding]:
    from sharpen.server import names

    yield from (_model("model", name, to, settings, database) for name, to in settings.models.items())
    yield from (_model("judge", name, to, settings, database) for name, to in settings.judges.items())
    if house := names.house():
        yield Finding("ok", "models", f"by their own names: {', '.join(house)}")
    elif not settings.models:
        yield Finding("warn", "models", "none are here", "sharpen models pull smollm2-135m-instruct")


def _model(kind: str, name: str, to: Mapped, settings: Settings, database: Database) -> Finding:
    from sharpen.server import names
    from sharpen.server.errors import APIError
    from sharpen.server.settings import External

    if isinstance(to, External):
        seen = f"{name}: {to.model} at {to.base_url}"
        if to.api_key_env and not os.environ.get(to.api_key_env):
            return Finding("error", kind, f"{seen}; its key is not there", f"export {to.api_key_env}=…")
        return Finding("ok", kind, seen)
    try:
        if kind == "judge":
            found = names.resolve_judge(settings, name)
        else:
            found = database.look(lambda connection: names.resolve(connection, settings, name, "default"))
    except APIError:
        return Finding("error", kind, f"{name}: {to.local} is not on this machine", f"sharpen models pull {to.local}")
    size = f" ({found.parameters / 1e9:.3g} B)" if found.parameters else ""
    return Finding("ok", kind, f"{name}: {to.local}{size}")


def _address(settings: Settings) -> Finding:
    from sharpen.server import listen

    where = listen.address(settings)
    try:
        with listen.bound(settings):
            pass
    except RunError as error:
        return Finding("error", "address", f"{where}: {error.fact}", error.remedy)
    if settings.host not in LOOPBACK:
        return Finding("warn", "address", f"{where}, without TLS", "put a reverse proxy with TLS before it")
    return Finding("ok", "address", where)


def _webhooks(settings: Settings) -> Iterator[Finding]:
    for hook in settings.webhooks:
        if not os.environ.get(hook.secret_env):
            seen = f"{hook.url}: its secret is not there"
            yield Finding("error", "webhook", seen, f"export {hook.secret_env}=whsec_…")
        else:
            yield Finding("ok", "webhook", hook.url)


def _limits(settings: Settings) -> Iterator[Finding]:
    cores = machine.cores()
    many = settings.cores > cores
    advice = f"set `cores: {cores}`, or all get slower" if many else ""
    yield Finding("warn" if many else "ok", "cores", f"{settings.cores} of {cores}", advice)
    if found := machine.memory():
        few = found.free < LEAST_MEMORY
        advice = f"close other programs: a job takes about {memory(LEAST_MEMORY)}" if few else ""
        yield Finding("warn" if few else "ok", "memory", f"{memory(found.free)} of {memory(found.total)} free", advice)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.limits.connections + OWN_FILES
    few = soft != resource.RLIM_INFINITY and soft < wanted
    advice = f"ulimit -n {wanted}, or fewer `limits.connections`" if few else ""
    yield Finding("warn" if few else "ok", "open files", str(soft), advice)
