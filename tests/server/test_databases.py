"""The main flows on both databases, with no process that trains: keys, files, jobs, lists, events, the audit log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy import Connection, Row, func, select

from sharpen.server.database import Database
from sharpen.server.tables import audit, events, files, jobs, keys
from tests.server.jobs_lab import MODEL, ROWS, Lab

TOGETHER = 24


@pytest.fixture
def lab(database_url: str, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path, database=database_url)
    yield made
    made.close()


def rows(lab: Lab, table: Any) -> list[Row[Any]]:
    return list(lab.server.db.look(lambda connection: connection.execute(select(table)).all()))


async def uploaded(client: openai.AsyncOpenAI) -> str:
    text = "".join(f"{json.dumps(row)}\n" for row in ROWS).encode()
    return (await client.files.create(file=("rows.jsonl", text), purpose="fine-tune")).id


def test_from_a_file_to_a_cancelled_job(lab: Lab) -> None:
    async def script(client: openai.AsyncOpenAI) -> None:
        file = await uploaded(client)
        assert (await client.files.content(file)).text.count("\n") == len(ROWS)
        job = await client.fine_tuning.jobs.create(model=MODEL, training_file=file, metadata={"who": "Ann"})
        found = await client.fine_tuning.jobs.retrieve(job.id)
        assert found.training_file == file and found.metadata == {"who": "Ann"}
        cancelled = await client.fine_tuning.jobs.cancel(job.id)
        assert cancelled.status == "cancelled"
        told = await client.fine_tuning.jobs.list_events(job.id)
        assert "cancel" in told.data[0].message.lower() and len(told.data) >= 2
        with pytest.raises(openai.BadRequestError):
            await client.fine_tuning.jobs.cancel(job.id)
        await client.files.delete(file)

    lab.run(script)
    noted = [(row.action, row.project) for row in rows(lab, audit)]
    assert noted == [(name, "default") for name in ("file.create", "job.create", "job.cancel", "file.delete")]
    (key,) = rows(lab, keys)
    assert {row.key_id for row in rows(lab, audit)} == {key.id} and all(row.request_id for row in rows(lab, audit))
    assert lab.key not in repr([rows(lab, table) for table in (keys, audit, jobs, events, files)])


def test_a_request_that_is_sent_again_at_the_same_time_makes_one_job(lab: Lab) -> None:
    async def script(client: openai.AsyncOpenAI) -> set[str]:
        file = await uploaded(client)
        headers = {"Idempotency-Key": "same"}
        again = [
            client.fine_tuning.jobs.create(model=MODEL, training_file=file, extra_headers=headers)
            for _ in range(TOGETHER)
        ]
        return {job.id for job in await asyncio.gather(*again)}

    assert len(lab.run(script)) == 1
    (job,) = rows(lab, jobs)
    assert [row.action for row in rows(lab, audit)].count("job.create") == 1
    assert len({row.id for row in rows(lab, events)}) == len(rows(lab, events))
    assert {row.job_id for row in rows(lab, events)} == {job.id}


def test_pages_show_every_job_once_also_while_others_come(lab: Lab) -> None:
    async def script(client: openai.AsyncOpenAI) -> tuple[list[str], list[str]]:
        file = await uploaded(client)

        async def make() -> str:
            return (await client.fine_tuning.jobs.create(model=MODEL, training_file=file)).id

        made = await asyncio.gather(*(make() for _ in range(TOGETHER)))
        listed = []
        async for job in client.fine_tuning.jobs.list(limit=5):
            listed.append(job.id)
            if len(listed) % 5 == 0:
                await make()
        return made, listed

    made, listed = lab.run(script)
    assert len(set(made)) == TOGETHER
    assert sorted(listed) == sorted(made)


def test_projects_do_not_see_each_other(lab: Lab) -> None:
    async def mine(client: openai.AsyncOpenAI) -> tuple[str, str]:
        file = await uploaded(client)
        return file, (await client.fine_tuning.jobs.create(model=MODEL, training_file=file)).id

    file, job = lab.run(mine)

    async def theirs(client: openai.AsyncOpenAI) -> None:
        assert not (await client.files.list()).data and not (await client.fine_tuning.jobs.list()).data
        for call in (client.files.retrieve(file), client.fine_tuning.jobs.retrieve(job), client.files.delete(file)):
            with pytest.raises(openai.NotFoundError):
                await call
        with pytest.raises((openai.NotFoundError, openai.BadRequestError)):
            await client.fine_tuning.jobs.create(model=MODEL, training_file=file)

    lab.run(theirs, key=lab.new_key("theirs"))


def test_what_was_acknowledged_is_there_after_a_restart(lab: Lab, database_url: str) -> None:
    async def script(client: openai.AsyncOpenAI) -> list[str]:
        file = await uploaded(client)
        return [(await client.fine_tuning.jobs.create(model=MODEL, training_file=file)).id for _ in range(3)]

    made = lab.run(script)
    again = Database(database_url)  # while the first is still open, as after a kill
    found = again.look(lambda connection: connection.execute(select(jobs.c.id)).scalars().all())
    again.close()
    assert sorted(found) == sorted(made)


def test_a_change_that_fails_takes_nothing_with_it(lab: Lab) -> None:
    def count(connection: Connection) -> int:
        return connection.execute(select(func.count()).select_from(audit)).scalar_one()

    def note(connection: Connection, action: str) -> None:
        row = {
            "at": 0.0,
            "project": "p",
            "key_id": "k",
            "action": action,
            "object": "o",
            "request_id": "",
            "detail": {},
        }
        connection.execute(audit.insert().values(row))
        if action == "bad":
            connection.execute(audit.insert().values({**row, "seq": 1, "action": None}))

    async def several() -> list[Any]:
        changes = [
            lab.server.db.write(partial(note, action=action)) for action in ("good", "bad", "good", "bad", "good")
        ]
        return await asyncio.gather(*changes, return_exceptions=True)

    results = asyncio.run(several())
    assert [isinstance(result, Exception) for result in results] == [False, True, False, True, False]
    assert lab.server.db.look(count) == 3
