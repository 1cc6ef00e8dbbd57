"""A backup: all rows and the files that they name, in one tar with the SHA-256 of each member.

It is made beside a server at work. Rows come first, in one snapshot; a file of a client never changes, so it is what
its row says, or was deleted meanwhile. Runs are copied as they stand, and go on from their newest checkpoint. The last
member lists all others, so a backup that was cut short is known as one. It is the same for both databases.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from sqlalchemy import Connection, select, text

from sharpen.errors import RunError
from sharpen.server.database import Database
from sharpen.server.settings import Settings
from sharpen.server.storage import place, sync_folder
from sharpen.server.tables import files, jobs, metadata, models, upload_parts

ABOUT, LIST = "about.json", "list.json"
"""The first member and the last one."""

FORMAT = 1

SKIPPED = frozenset({"lock", "pid", ".lock"})
"""Of processes, which a backup has none of."""

SMALL = 2**24
"""Bytes of a file that is read at once, for it may be written meanwhile; larger ones are weights, which never are."""


class Writer:
    """A tar that notes what it is given."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._seen: dict[tuple[int, int], str] = {}
        self.hashes: dict[str, str] = {}
        self.links: dict[str, str] = {}
        """Names of files that are there already under another name."""

    def stream(self, name: str, file: IO[bytes], size: int) -> None:
        """A member of so many bytes. Raises OSError where the file has fewer."""
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = size, 0o600, int(time.time())
        hashed = Hashed(file)
        self._tar.addfile(entry, hashed)
        self.hashes[name] = hashed.digest()

    def json(self, name: str, value: Any) -> None:
        """A member with a value."""
        said = json.dumps(value, ensure_ascii=False).encode()
        self.stream(name, io.BytesIO(said), len(said))

    def file(self, name: str, path: Path) -> None:
        """A file as it now is. Raises FileNotFoundError where it has gone."""
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            first = self._seen.setdefault((facts.st_dev, facts.st_ino), name)
            if facts.st_nlink > 1 and first != name:
                self.links[name] = first
            elif facts.st_size <= SMALL:
                content = file.read()
                self.stream(name, io.BytesIO(content), len(content))
            else:
                self.stream(name, file, facts.st_size)


class Hashed(io.RawIOBase):
    """A file whose digest is known when it has been read."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._hash = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""
        block = self._file.read(size)
        self._hash.update(block)
        return block

    def digest(self) -> str:
        """Of all that was read."""
        return self._hash.hexdigest()


def write(settings: Settings, path: Path) -> str:
    """Make a backup, and say what is in it. Raises RunError where there is nothing, or no room for it."""
    if settings.database is None and not (settings.data_dir / "server.db").is_file():
        raise RunError(
            "no server has worked in this data folder", value=str(settings.data_dir), remedy="Set --data-dir"
        )
    if path.exists():
        raise RunError("there is a file of this name", value=str(path), remedy="Choose another name for the backup")
    aside = path.with_name(f".{path.name}.writing")
    database = Database(settings.database_url)
    try:
        with os.fdopen(os.open(aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                told = _fill(Writer(tar), database, settings.data_dir.absolute())
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        aside.rename(path)
        sync_folder(path.absolute().parent)
    except OSError as error:
        remedy = "Look at the folder's permissions and at the free disk space"
        raise RunError(f"the backup failed: {error.strerror or error}", value=str(path), remedy=remedy) from error
    finally:
        database.close()
        aside.unlink(missing_ok=True)
    return f"{path}: {told}, {size:,} bytes. Keep it as safe as the data folder: it holds the server's secret."


def _fill(writer: Writer, database: Database, data: Path) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        names = database.look(lambda connection: _dump(connection, Path(scratch)))
        writer.json(ABOUT, {"format": FORMAT, "made_at": time.time(), **names.pop("about")})
        for table in metadata.sorted_tables:
            writer.file(f"tables/{table.name}.jsonl", Path(scratch) / table.name)
    gone: list[str] = []
    if (data / "secret").is_file():
        writer.file("data/secret", data / "secret")
    for id in names["files"]:
        try:
            writer.file(f"data/files/{place(id)}", data / "files" / place(id))
        except FileNotFoundError:  # deleted since the snapshot
            gone.append(id)
    folders: set[str] = set()
    for below in names["folders"]:
        for path in _within(data / below):
            try:
                writer.file(f"data/{path.relative_to(data)}", path)
            except FileNotFoundError:
                if not path.parent.exists():  # such as a checkpoint that is no longer needed
                    folders.add(str(path.parent.relative_to(data)))
    told = {"hashes": dict(writer.hashes), "links": writer.links, "gone": gone, "gone_folders": sorted(folders)}
    writer.json(LIST, told)
    return f"{len(names['files']) - len(gone)} files, {names['jobs']} jobs"


def _dump(connection: Connection, folder: Path) -> dict[str, Any]:
    """Write all tables as lines of JSON, and name what belongs to their rows."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    for table in metadata.sorted_tables:
        with (folder / table.name).open("w", encoding="utf-8") as file:
            for row in connection.execution_options(yield_per=500).execute(select(table)).mappings():
                file.write(json.dumps(dict(row), ensure_ascii=False) + "\n")
    ids = [id for table in (files, upload_parts) for id in connection.execute(select(table.c.id)).scalars()]
    made = list(connection.execute(select(jobs.c.id)).scalars())
    folders = [f"{part}/{id}" for id in made for part in ("jobs", "runs")]
    others = {PurePosixPath(path) for path in connection.execute(select(models.c.path)).scalars()}
    folders += sorted(str(path) for path in others if not any(path.is_relative_to(folder) for folder in folders))
    about = {"revision": revision, "database": connection.dialect.name}
    return {"about": about, "files": ids, "jobs": len(made), "folders": folders}


def _within(folder: Path) -> Iterator[Path]:
    """The files below a folder."""
    for where, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(where, name)
            if name not in SKIPPED and not name.endswith(".writing") and path.is_file() and not path.is_symlink():
                yield path
