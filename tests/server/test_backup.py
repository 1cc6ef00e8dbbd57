"""What a backup holds comes back, on either database; what is no whole backup is refused, and leaves nothing."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy import insert, select

from sharpen.errors import RunError
from sharpen.server import backup
from sharpen.server.backup import write
from sharpen.server.database import Database
from sharpen.server.restoring import restore
from sharpen.server.settings import Settings
from sharpen.server.supervisor.place import Place
from sharpen.server.tables import audit, files, jobs, metadata
from tests.server.jobs_lab import MODEL, ROWS, Lab


@pytest.fixture
def lab(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """With files, jobs, and a run that has a checkpoint under two names."""
    monkeypatch.setattr(backup, "SMALL", 2**10)
    made = Lab(tmp_path, database=database_url)
    made.run(script)
    place = Place(made.server.settings.data_dir, rows(made.server.db)["jobs"][0]["id"])
    place.make()
    (place.run / "stages/sft").mkdir(parents=True)
    (place.run / "stages/sft/weights").write_bytes(os.urandom(backup.SMALL + 7))
    place.kept.mkdir()
    os.link(place.run / "stages/sft/weights", place.kept / "weights")
    (place.run / "metrics.jsonl").write_text('{"step": 1}\n')
    for path in (place.lock, place.pid, place.run / ".lock"):
        path.write_text("12")
    yield made
    made.close()


async def script(client: openai.AsyncOpenAI) -> None:
    for name in ("first", "zweite ä"):
        text = "".join(f"{json.dumps(row)}\n" for row in ROWS).encode()
        file = await client.files.create(file=(f"{name}.jsonl", text), purpose="fine-tune")
        await client.fine_tuning.jobs.create(model=MODEL, training_file=file.id, metadata={"who": "Åsa"})


def rows(database: Database) -> dict[str, list[dict[str, Any]]]:
    """All that a database has."""

    def look(connection: Any) -> dict[str, list[dict[str, Any]]]:
        return {
            table.name: [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()]
            for table in metadata.sorted_tables
        }

    return database.look(look)


def tree(folder: Path) -> dict[str, bytes]:
    """The files below a folder that a backup is of."""
    left = {"lock", "pid", ".lock"}
    parts = [path for part in ("files", "runs", "jobs") for path in (folder / part).rglob("*")]
    found = {
        str(path.relative_to(folder)): path.read_bytes() for path in parts if path.is_file() and path.name not in left
    }
    return found | {"secret": (folder / "secret").read_bytes()}


def test_all_comes_back(lab: Lab, tmp_path: Path) -> None:
    told = write(lab.server.settings, tmp_path / "saved.tar")
    assert "2 files, 2 jobs" in told and (tmp_path / "saved.tar").stat().st_mode & 0o777 == 0o600
    target = Settings(data_dir=tmp_path / "new")
    target.data_dir.mkdir()
    restore(target, tmp_path / "saved.tar")
    database = Database(target.database_url)
    assert rows(database) == rows(lab.server.db)
    database.close()
    assert tree(target.data_dir) == tree(lab.server.settings.data_dir)
    assert not [path for path in target.data_dir.rglob("*") if path.name in ("lock", "pid", ".lock", ".restoring")]
    linked = list(target.data_dir.rglob("weights"))
    assert len(linked) == 2 and linked[0].samefile(linked[1])

    again = Lab(tmp_path, database=target.database_url, data_dir=str(target.data_dir))
    again.key = lab.key

    async def look(client: openai.AsyncOpenAI) -> int:
        for file in (await client.files.list()).data:
            assert (await client.files.content(file.id)).text.count("\n") == len(ROWS)
        await client.fine_tuning.jobs.create(model=MODEL, training_file=file.id)  # counters go on where they were
        return len((await client.fine_tuning.jobs.list()).data)

    assert again.run(look) == 3
    again.close()


def test_what_sqlite_had_postgresql_takes(postgresql_url: str, tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.run(script)
    write(lab.server.settings, tmp_path / "saved.tar")
    target = Settings(data_dir=tmp_path / "new", database=postgresql_url)
    target.data_dir.mkdir()
    restore(target, tmp_path / "saved.tar")
    database = Database(postgresql_url)
    assert rows(database) == rows(lab.server.db)
    lab.close()
    row = {"at": 0.0, "project": "p", "key_id": "k", "action": "a", "object": "o", "request_id": "", "detail": {}}
    database.change(lambda connection: connection.execute(insert(audit).values(row)))
    database.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data folder and a backup of it."""
    folder = tmp_path_factory.mktemp("house")
    lab = Lab(folder)
    lab.run(script)
    write(lab.server.settings, folder / "saved.tar")
    lab.close()
    return folder


@pytest.fixture
def saved(house: Path, tmp_path: Path) -> Path:
    """A backup that a test may harm."""
    return Path(shutil.copy(house / "saved.tar", tmp_path))


@pytest.fixture
def target(tmp_path: Path) -> Settings:
    made = Settings(data_dir=tmp_path / "new")
    made.data_dir.mkdir()
    return made


def test_a_file_that_is_deleted_meanwhile_is_left_out_with_its_row(tmp_path: Path, target: Settings) -> None:
    lab = Lab(tmp_path)
    lab.run(script)
    first = rows(lab.server.db)["files"][0]["id"]
    asyncio.run(lab.server.storage.delete(first))  # as if between the rows and the files
    write(lab.server.settings, tmp_path / "saved.tar")
    lab.close()
    restore(target, tmp_path / "saved.tar")
    database = Database(target.database_url)
    ids = database.look(lambda connection: connection.execute(select(files.c.id)).scalars().all())
    assert len(ids) == 1 and first not in ids
    assert len(database.look(lambda connection: connection.execute(select(jobs)).all())) == 2
    database.close()


@pytest.mark.parametrize("place", [b"about.json", b"data/secret", b"Who is 7?", b"list.json", b'"gone"'])
def test_one_that_was_cut_short_is_refused_and_leaves_nothing(place: bytes, saved: Path, target: Settings) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: content.rindex(place)])
    with pytest.raises(RunError, match="no backup"):
        restore(target, saved)
    assert not list(target.data_dir.iterdir())


def test_one_in_which_a_byte_has_changed_is_refused(saved: Path, target: Settings) -> None:
    content = bytearray(saved.read_bytes())
    place = content.find(b"Who is 7?")
    content[place] = ord("X")
    saved.write_bytes(content)
    with pytest.raises(RunError, match="is not what it was"):
        restore(target, saved)
    assert not list(target.data_dir.iterdir())


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "data/../../outside", "other", "tables/none.jsonl"])
def test_one_that_would_write_elsewhere_is_refused(name: str, saved: Path, target: Settings) -> None:
    with tarfile.open(saved, "a") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(RunError, match="it has a member"):
        restore(target, saved)
    assert not list(target.data_dir.iterdir()) and not (target.data_dir.parent / "outside").exists()


def test_links_are_no_members(saved: Path, target: Settings) -> None:
    entry = tarfile.TarInfo("data/files/link")
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(saved, "a") as tar:
        tar.addfile(entry)
    with pytest.raises(RunError, match="it has a member"):
        restore(target, saved)


def test_nothing_is_overwritten(saved: Path, target: Settings, house: Path) -> None:
    full = Settings(data_dir=house / "data")
    before = tree(full.data_dir)
    with pytest.raises(RunError, match="empty data folder"):
        restore(full, saved)
    with pytest.raises(RunError, match="a file of this name"):
        write(full, saved)
    with pytest.raises(RunError, match="empty database"):
        restore(target.model_copy(update={"database": full.database_url}), saved)
    assert tree(full.data_dir) == before and not list(target.data_dir.iterdir())


def test_a_folder_in_which_no_server_has_worked_is_not_backed_up(target: Settings, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no server has worked"):
        write(target, tmp_path / "saved.tar")
    assert not list(target.data_dir.iterdir()) and not (tmp_path / "saved.tar").exists()
