"""Requests that are sent again make no second job, also when they overtake one another."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import func, select, update

from sharpen.server.tables import jobs
from tests.server.jobs_lab import MODEL, ROWS, Lab

JOBS = "/v1/fine_tuning/jobs"
REPLAYED = "Idempotent-Replayed"


@pytest.fixture
def body(lab: Lab) -> dict[str, Any]:
    """A body that no other test sends."""
    return {"model": MODEL, "training_file": lab.file(ROWS)}


def count(lab: Lab, body: dict[str, Any]) -> int:
    query = select(func.count()).select_from(jobs).where(jobs.c.training_file == body["training_file"])
    return lab.server.db.look(lambda connection: connection.execute(query).scalar_one())


def test_a_key_names_its_job_for_good(lab: Lab, body: dict[str, Any]) -> None:
    first = lab.ask("POST", JOBS, body, {"Idempotency-Key": "a"})
    again = lab.ask("POST", JOBS, body, {"Idempotency-Key": "a"})
    assert first.json()["id"] == again.json()["id"] and count(lab, body) == 1
    assert REPLAYED not in first.headers and again.headers[REPLAYED] == "true"
    other = lab.ask("POST", JOBS, body, {"Idempotency-Key": "b"})
    assert other.json()["id"] != first.json()["id"]


def test_a_key_with_another_body_is_refused(lab: Lab, body: dict[str, Any]) -> None:
    lab.ask("POST", JOBS, body, {"Idempotency-Key": "c"})
    answer = lab.ask("POST", JOBS, {**body, "seed": 1}, {"Idempotency-Key": "c"})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "idempotency_key_reused"
    assert count(lab, body) == 1


def test_another_project_may_have_the_same_key(lab: Lab, body: dict[str, Any]) -> None:
    lab.ask("POST", JOBS, body, {"Idempotency-Key": "d"})
    theirs = {"model": MODEL, "training_file": lab.file(ROWS, project="theirs")}
    answer = lab.ask("POST", JOBS, theirs, {"Idempotency-Key": "d"}, key=lab.new_key("theirs"))
    assert answer.status_code == 200 and REPLAYED not in answer.headers


def test_a_key_has_a_length(lab: Lab, body: dict[str, Any]) -> None:
    assert lab.ask("POST", JOBS, body, {"Idempotency-Key": "k" * 256}).status_code == 400


def test_the_sdk_s_retry_finds_the_first_job(lab: Lab, body: dict[str, Any]) -> None:
    first = lab.ask("POST", JOBS, body, {"x-stainless-retry-count": "0"})
    again = lab.ask("POST", JOBS, body, {"x-stainless-retry-count": "1"})
    assert first.json()["id"] == again.json()["id"] and again.headers[REPLAYED] == "true"
    assert count(lab, body) == 1


def test_a_new_request_with_the_same_body_is_a_new_job(lab: Lab, body: dict[str, Any]) -> None:
    one, two = (lab.ask("POST", JOBS, body, {"x-stainless-retry-count": "0"}).json()["id"] for _ in range(2))
    assert one != two
    retry = lab.ask("POST", JOBS, body, {"x-stainless-retry-count": "2"}).json()["id"]
    assert retry == two  # the request that was lost is the latest


def test_a_retry_of_a_request_that_never_came_makes_the_job(lab: Lab, body: dict[str, Any]) -> None:
    first = lab.ask("POST", JOBS, body, {"x-stainless-retry-count": "1"})
    again = lab.ask("POST", JOBS, body, {"x-stainless-retry-count": "2"})
    assert REPLAYED not in first.headers and first.json()["id"] == again.json()["id"]


def test_another_key_s_request_and_one_of_an_hour_ago_are_no_retries(lab: Lab, body: dict[str, Any]) -> None:
    first = lab.ask("POST", JOBS, body).json()["id"]
    retry = {"x-stainless-retry-count": "1"}
    assert lab.ask("POST", JOBS, body, retry, key=lab.new_key()).json()["id"] != first
    older = update(jobs).where(jobs.c.id == first).values(made_at=jobs.c.made_at - 15 * 60 - 1)
    lab.server.db.change(lambda connection: connection.execute(older))
    assert lab.ask("POST", JOBS, body, retry).json()["id"] != first


@pytest.mark.parametrize("headers", [{"Idempotency-Key": "once"}, {}])
def test_any_crowd_of_attempts_makes_one_job(lab: Lab, body: dict[str, Any], headers: dict[str, str]) -> None:
    """Attempt 0 and its retries all under way at once, in any order."""
    order = [0, *range(1, 12)]
    random.Random(3).shuffle(order)

    async def crowd() -> list[str]:
        async with AsyncClient(transport=ASGITransport(lab.app), base_url="http://127.0.0.1") as client:
            base = {"Authorization": f"Bearer {lab.key}", **headers}
            asked = [
                client.post(JOBS, json=body, headers={**base, "x-stainless-retry-count": str(attempt)})
                for attempt in order
            ]
            return [answer.json()["id"] for answer in await asyncio.gather(*asked)]

    assert len(set(asyncio.run(crowd()))) == 1 and count(lab, body) == 1


def test_two_servers_on_one_database_make_one_job(lab: Lab, body: dict[str, Any]) -> None:
    settings = lab.server.settings
    other = Lab(settings.data_dir.parent, database=settings.database)

    async def crowd() -> list[str]:
        asked = []
        async with (
            AsyncClient(transport=ASGITransport(lab.app), base_url="http://127.0.0.1") as one,
            AsyncClient(transport=ASGITransport(other.app), base_url="http://127.0.0.1") as two,
        ):
            headers = {"Authorization": f"Bearer {lab.key}", "Idempotency-Key": "shared"}
            for client in (one, two) * 5:
                asked.append(client.post(JOBS, json=body, headers=headers))
            return [answer.json()["id"] for answer in await asyncio.gather(*asked)]

    assert len(set(asyncio.run(crowd()))) == 1 and count(lab, body) == 1
    other.close()


def test_many_different_requests_at_once_make_as_many_jobs(lab: Lab, body: dict[str, Any]) -> None:
    async def crowd() -> list[str]:
        async with AsyncClient(transport=ASGITransport(lab.app), base_url="http://127.0.0.1") as client:
            base = {"Authorization": f"Bearer {lab.key}"}
            asked = [client.post(JOBS, json={**body, "seed": n}, headers=base) for n in range(40)]
            return [answer.json()["id"] for answer in await asyncio.gather(*asked)]

    assert len(set(asyncio.run(crowd()))) == 40 == count(lab, body)
