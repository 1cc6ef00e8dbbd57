"""Which job starts, and with what: its threads, its judges, its turn."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import Row

from sharpen.server.core import Server
from sharpen.server.grading import tokens
from sharpen.server.supervisor.launch import Launch, prepared
from sharpen.server.supervisor.place import Place
from tests.server.jobs_lab import PROMPTS
from tests.server.supervisor_lab import Shop, at_work, fake


def test_a_job_that_can_never_have_its_threads_fails_and_says_so(tmp_path: Path) -> None:
    shop = Shop(tmp_path, cores=2, job_threads=3)
    job = shop.job()

    async def script() -> None:
        async with at_work(shop.supervisor(fake())):
            await shop.until(job, "failed")

    asyncio.run(script())
    assert shop.row(job).error["code"] == "not_enough_cores"
    assert "3 threads" in shop.row(job).error["message"]
    shop.close()


def test_projects_take_turns_and_the_slots_and_cores_are_never_exceeded(tmp_path: Path) -> None:
    shop = Shop(tmp_path, cores=3, job_threads=1, job_slots=2)
    mine = [shop.job() for _ in range(4)]
    theirs = shop.job("other")
    most: list[int] = []

    async def script() -> None:
        async with at_work(shop.supervisor(fake(2, 0.03))) as supervisor:
            await shop.until(theirs, "running", "succeeded")
            assert sum(shop.row(job).status != "queued" for job in mine) <= 2, "it was the last to come, not to go"
            while any(shop.row(job).status != "succeeded" for job in (*mine, theirs)):
                most.append(len(supervisor.running()))
                assert shop.server.cores.free >= 1
                await asyncio.sleep(0.02)

    asyncio.run(script())
    assert max(most) <= 2
    shop.close()


def judged(tmp_path: Path, **settings: Any) -> Shop:
    (tmp_path / "judge").mkdir()
    return Shop(tmp_path, judges={"gpt-4o": str(tmp_path / "judge")}, **settings)


def judged_job(shop: Shop) -> str:
    grader = {
        "type": "score_model",
        "name": "judge",
        "model": "gpt-4o",
        "input": [{"role": "user", "content": "Rate {{ sample.output_text }}"}],
        "range": [0, 1],
    }
    body = {"grader": grader, "hyperparameters": {"n_epochs": 1}}
    return shop.job(training_file=shop.file(PROMPTS), method={"type": "reinforcement", "reinforcement": body})


def test_a_job_and_its_judge_are_admitted_together_and_its_token_opens_that_judge_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "whsec_of-the-server")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-server")
    shop = judged(tmp_path, cores=2, job_threads=1)
    job = judged_job(shop)
    folder = str(tmp_path / "judge")

    async def script() -> None:
        async with at_work(shop.supervisor(fake(10, 0.05))):
            await shop.when(job, lambda row: bool(row.progress))
            assert shop.server.cores.free == 0 and shop.server.workers.pinned(folder)
            await shop.until(job, "succeeded")

    asyncio.run(script())
    assert shop.server.cores.free == 2 and not shop.server.workers.pinned(folder)
    given = json.loads((shop.place(job).run.parent / f"{job}.env").read_text())
    caller = tokens.read(shop.server.secret, given["SHARPEN_JUDGE_TOKEN"])
    assert caller and caller.models == frozenset({"judge:gpt-4o"}) and caller.scopes == {"chat"}
    assert given["OMP_NUM_THREADS"] == "1"
    assert not {"HOOK_SECRET", "OPENAI_API_KEY"} & set(given)
    recipe = yaml.safe_load(shop.place(job).recipe.read_text())
    assert recipe["stages"][0]["grader"]["base_url"] == "http://127.0.0.1:8000/v1"
    assert given["SHARPEN_JUDGE_TOKEN"] not in shop.place(job).recipe.read_text()
    shop.close()


def test_a_job_whose_judge_finds_no_core_waits_and_takes_nothing(tmp_path: Path) -> None:
    shop = judged(tmp_path, cores=2, job_threads=1)
    job = judged_job(shop)
    assert shop.server.cores.take("another", 1)

    async def script() -> None:
        async with at_work(shop.supervisor(fake())) as supervisor:
            await asyncio.sleep(0.3)
            assert shop.row(job).status == "queued" and shop.server.cores.free == 1
            shop.server.cores.give("another")
            supervisor.wake()
            await shop.until(job, "succeeded")

    asyncio.run(script())
    assert sum("waits for cores" in message for message in shop.messages(job)) == 1
    shop.close()


def test_a_job_that_cannot_be_prepared_through_our_fault_fails_after_some_attempts_and_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(tmp_path)
    first, second = shop.job(), shop.job()

    async def faulty(server: Server, row: Row[Any], place: Place) -> Launch:
        if row.id == first:
            raise KeyError("rows")
        return await prepared(server, row, place)

    monkeypatch.setattr("sharpen.server.supervisor.supervisor.prepared", faulty)

    async def script() -> None:
        async with at_work(shop.supervisor(fake())):
            await shop.until(first, "failed")
            await shop.until(second, "succeeded")

    asyncio.run(script())
    assert shop.row(first).error["code"] == "server_error"
    assert shop.server.cores.free == shop.server.cores.total


def test_a_job_with_a_judge_that_can_never_fit_fails(tmp_path: Path) -> None:
    shop = judged(tmp_path, cores=1, job_threads=1)
    job = judged_job(shop)

    async def script() -> None:
        async with at_work(shop.supervisor(fake())):
            await shop.until(job, "failed")

    asyncio.run(script())
    assert "need 2 threads together" in shop.row(job).error["message"]
    shop.close()
