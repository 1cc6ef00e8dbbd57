"""A backup is put back: looked over whole before anything of it is in its place, and only where nothing else is."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy import JSON, Connection, Table, delete, func, insert, null, select, text

from sharpen.errors import RunError
from sharpen.server import lock
from sharpen.server.backup import ABOUT, FORMAT, LIST, Hashed
from sharpen.server.database import Database
from sharpen.server.settings import Settings
from sharpen.server.tables import files, metadata, upload_parts

ASIDE = ".restoring"
"""The folder in the data folder in which a backup is unpacked."""

TOGETHER = 500
"""Rows that are inserted at once."""


def restore(settings: Settings, path: Path) -> str:
    """Fill an empty data folder and an empty database, and say with what. Raises RunError."""
    data = settings.data_dir.absolute()
    aside = data / ASIDE
    shutil.rmtree(aside, ignore_errors=True)
    if others := sorted(found.name for found in data.iterdir() if found.name != lock.NAME):
        raise RunError(
            "a backup is restored into an empty data folder only",
            value=f"{data} has {', '.join(others[:5])}",
            remedy="Name another with --data-dir",
        )
    try:
        listed = _unpack(path, aside)
        about = json.loads((aside / ABOUT).read_text("utf-8"))
        told = _fill(settings, aside, about, listed)
        _settle(aside, data, listed)
    except (OSError, tarfile.TarError, ValueError, KeyError) as error:
        raise _broken(path, str(error)) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return f"{data}: {told}, as they were when the backup was made."


def _unpack(path: Path, aside: Path) -> dict[str, Any]:
    """Write all members, and return the last one, when all are what it says. Raises RunError."""
    hashes: dict[str, str] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            source = tar.extractfile(member) if member.isreg() else None
            if source is None or not _known(member.name):
                raise _broken(path, f"it has a member {member.name[:80]!r}")
            target = aside / member.name
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            hashed = Hashed(source)
            with open(target, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                shutil.copyfileobj(hashed, file, 2**20)
                file.flush()
                os.fsync(file.fileno())
            hashes[member.name] = hashed.digest()
    if hashes.pop(LIST, None) is None:
        raise _broken(path, "its end is missing")
    listed: dict[str, Any] = json.loads((aside / LIST).read_text("utf-8"))
    if wrong := sorted(set(hashes.items()) ^ set(listed["hashes"].items())):
        raise _broken(path, f"{wrong[0][0]} is not what it was")
    return listed


def _known(name: str) -> bool:
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/"):
        return False
    return name in (ABOUT, LIST) or parts[0] == "data" or name in {f"tables/{table}.jsonl" for table in metadata.tables}


def _fill(settings: Settings, aside: Path, about: dict[str, Any], listed: dict[str, Any]) -> str:
    """Write the rows, all in one transaction."""
    if about["format"] != FORMAT:
        raise RunError("this backup is of another version of sharpen", value=about["format"], remedy="Use that version")
    own = settings.database is None
    database = Database(f"sqlite:///{aside / 'server.db'}" if own else settings.database_url)
    try:
        count = database.change(lambda connection: _insert(connection, aside, about["revision"], listed["gone"]))
    finally:
        database.close()
    there = sum(name.startswith("data/") for name in (*listed["hashes"], *listed["links"]))
    return f"{count:,} rows and {there:,} files"


def _insert(connection: Connection, aside: Path, revision: str, gone: list[str]) -> int:
    ours = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    if revision != ours:
        raise RunError(
            f"this backup's tables are of revision {revision}, this version of sharpen has {ours}",
            remedy="Restore it with the version that made it; a newer one then brings the tables up to date",
        )
    for table in metadata.sorted_tables:
        if connection.execute(select(func.count()).select_from(table)).scalar_one():
            raise RunError(
                "a backup is restored into an empty database only",
                value=f"{table.name} has rows",
                remedy="Name another with --database",
            )
    count = sum(_rows(connection, table, aside / "tables" / f"{table.name}.jsonl") for table in metadata.sorted_tables)
    for table in (files, upload_parts):
        connection.execute(delete(table).where(table.c.id.in_(gone)))
    return count


def _rows(connection: Connection, table: Table, path: Path) -> int:
    count = 0
    with path.open(encoding="utf-8") as lines:
        rows = (_row(table, json.loads(line)) for line in lines)
        while some := list(islice(rows, TOGETHER)):
            connection.execute(insert(table), some)
            count += len(some)
    if "seq" in table.c and connection.dialect.name == "postgresql":  # it counts on from there
        last = select(func.max(table.c.seq)).scalar_subquery()
        connection.execute(select(func.setval(func.pg_get_serial_sequence(table.name, "seq"), last)))
    return count


def _row(table: Table, values: dict[str, Any]) -> dict[str, Any]:
    """None in a column of JSON means no value, which SQLAlchemy would make JSON's null."""
    return {
        name: null() if value is None and isinstance(table.c[name].type, JSON) else value
        for name, value in values.items()
    }


def _settle(aside: Path, data: Path, listed: dict[str, Any]) -> None:
    """Put what was unpacked in its place."""
    for name, target in listed["links"].items():
        if not _known(name) or not _known(target):
            raise ValueError(f"it has a member {name[:80]!r}")
        (aside / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.link(aside / target, aside / name)
    for folder in listed["gone_folders"]:
        if _known(f"data/{folder}"):
            shutil.rmtree(aside / "data" / folder, ignore_errors=True)
    for path in _moved(aside):
        path.rename(data / path.name)


def _moved(aside: Path) -> Iterator[Path]:
    yield from sorted((aside / "data").iterdir()) if (aside / "data").is_dir() else ()
    yield from (path for path in _database(aside) if path.exists())


def _database(aside: Path) -> Iterable[Path]:
    return (aside / "server.db-wal", aside / "server.db-shm", aside / "server.db")


def _broken(path: Path, why: str) -> RunError:
    return RunError(f"this is no backup that can be restored: {why}", value=str(path), remedy="Take another backup")
