"""What is told of jobs: events as they come, checkpoints, permissions, and the audit log."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote

import openai
import pytest
from sqlalchemy import select, update

from sharpen.server.jobs.change import add_event, move
from sharpen.server.jobs.show import tuned_name
from sharpen.server.jobs.stream import stream
from sharpen.server.tables import audit, jobs
from tests.server.jobs_lab import ROWS, Lab, with_checkpoints

JOBS = "/v1/fine_tuning/jobs"


def test_events_are_streamed_until_the_job_ends_and_from_where_a_client_left(lab: Lab) -> None:
    job = lab.ask("POST", JOBS, {"model": "smollm2-135m-instruct", "training_file": lab.file(ROWS)}).json()["id"]

    async def live() -> list[str]:
        found = []
        async for piece in stream(lab.server, job, 0):
            found.append(piece)
            if len(found) == 3:
                await lab.server.db.write(lambda connection: add_event(connection, job, "later", data={"step": 1}))
                await lab.server.db.write(lambda connection: move(connection, job, "cancelled"))
        return found

    pieces = asyncio.run(live())
    assert pieces[-1] == "data: [DONE]\n\n"
    told = [json.loads(piece.split("data: ", 1)[1]) for piece in pieces[:-1]]
    assert [event["message"] for event in told][-2:] == ["later", "Fine-tuning job cancelled"]
    assert told[-2]["data"] == {"step": 1} and len(told) == 5
    whole = lab.ask("GET", f"{JOBS}/{job}/events?stream=true")
    assert whole.headers["content-type"].startswith("text/event-stream") and whole.text == "".join(pieces)
    rest = lab.ask("GET", f"{JOBS}/{job}/events?stream=true", headers={"Last-Event-ID": told[2]["id"]})
    assert rest.text == "".join(pieces[3:])
    gone = lab.ask("GET", f"{JOBS}/{job}/events?stream=true", headers={"Last-Event-ID": "ftevent-none"})
    assert gone.status_code == 400


def test_checkpoints_are_listed_the_newest_first(lab: Lab) -> None:
    job, names = with_checkpoints(lab, lab.key, "default")

    async def script(client: openai.AsyncOpenAI) -> None:
        page = await client.fine_tuning.jobs.checkpoints.list(job, limit=2)
        assert [found.step_number for found in page.data] == [3, 2] and page.has_more
        found = page.data[0]
        assert found.fine_tuned_model_checkpoint == names[2] and found.fine_tuning_job_id == job
        assert found.metrics.train_loss == 1.5
        assert len([one async for one in client.fine_tuning.jobs.checkpoints.list(job, limit=2)]) == 3

    lab.run(script)


def test_permissions_are_given_listed_and_taken_back(lab: Lab) -> None:
    key = lab.new_key("giver")
    _, (name, *_) = with_checkpoints(lab, key, "giver")

    async def script(client: openai.AsyncOpenAI) -> None:
        permissions = client.fine_tuning.checkpoints.permissions
        given = (await permissions.create(name, project_ids=["p1", "p2", "p1"])).data
        assert [one.project_id for one in given] == ["p1", "p2"]
        again = (await permissions.create(name, project_ids=["p1"])).data
        assert again[0].id == given[0].id
        assert {one.id async for one in permissions.list(name, limit=1)} == {one.id for one in given}
        assert [one.project_id for one in (await permissions.list(name, project_id="p2")).data] == ["p2"]
        gone = await permissions.delete(given[0].id, fine_tuned_model_checkpoint=name)
        assert gone.deleted and gone.id == given[0].id
        with pytest.raises(openai.NotFoundError):
            await permissions.delete(given[0].id, fine_tuned_model_checkpoint=name)
        assert [one.id for one in (await permissions.list(name)).data] == [given[1].id]

    lab.run(script, key)
    place = f"/v1/fine_tuning/checkpoints/{quote(name, safe='')}/permissions"
    assert len(lab.ask("GET", place, key=key).json()["data"]) == 1
    assert lab.ask("GET", place).status_code == 404  # the other project's, as if it were not there
    assert lab.ask("POST", place, {"project_ids": ["x"]}).status_code == 404
    assert lab.ask("POST", place, {"project_ids": []}, key=key).status_code == 400


def test_every_change_is_in_the_audit_log(lab: Lab) -> None:
    key = lab.new_key("audited")
    job, (name, *_) = with_checkpoints(lab, key, "audited")
    for action in ("pause", "pause", "resume", "cancel"):  # what is refused is no change
        lab.ask("POST", f"{JOBS}/{job}/{action}", key=key)
    place = f"/v1/fine_tuning/checkpoints/{name}/permissions"
    given = lab.ask("POST", place, {"project_ids": ["p"]}, key=key).json()["data"][0]["id"]
    lab.ask("DELETE", f"{place}/{given}", key=key)
    query = select(audit.c.action, audit.c.object).where(audit.c.project == "audited").order_by(audit.c.seq)
    assert [tuple(row) for row in lab.server.db.look(lambda connection: connection.execute(query).all())] == [
        ("job.create", job),
        ("job.pause", job),
        ("job.resume", job),
        ("job.cancel", job),
        ("permission.create", given),
        ("permission.delete", given),
    ]


def test_a_tuned_model_s_name_has_its_base_also_when_it_was_tuned_before() -> None:
    first = tuned_name("gpt-4.1-mini", "org", None, "ftjob-abc")
    assert first == "ft:gpt-4.1-mini:org::abc"
    assert tuned_name(first, "org", "again", "ftjob-def", 7) == "ft:gpt-4.1-mini:org:again:def:ckpt-step-7"


def test_no_event_and_no_answer_tells_where_things_lie(lab: Lab) -> None:
    lab.server.db.change(lambda connection: connection.execute(update(jobs).values(not_before=0)))
    text = lab.ask("GET", JOBS).text
    assert str(lab.server.settings.data_dir) not in text
