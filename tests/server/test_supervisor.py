"""Jobs as processes: followed, stopped, started anew, adopted; with a fake trainer that writes a real run's files."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from sharpen.server.supervisor.process import Held, Trainer, held
from sharpen.server.tables import checkpoints, files, models
from tests.server.supervisor_lab import Shop, at_work, fake


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    found = Shop(tmp_path)
    yield found
    found.close()


def test_a_job_runs_to_its_end_and_leaves_a_model_a_table_and_its_last_checkpoints(shop: Shop) -> None:
    job = shop.job(suffix="mine")

    async def script() -> None:
        async with at_work(shop.supervisor(fake(8))):
            await shop.until(job, "succeeded")

    asyncio.run(script())
    row = shop.row(job)
    assert row.fine_tuned_model == f"ft:gpt-4.1-mini:sharpen:mine:{job.removeprefix('ftjob-')}"
    assert (row.trained_tokens, row.pid, row.progress["step"]) == (8 * 7, None, 8)
    model = shop.server.db.look(lambda connection: connection.execute(select(models)).one())
    assert (model.id, model.path) == (row.fine_tuned_model, f"runs/{job}/models/sft")
    found = shop.server.db.look(lambda connection: connection.execute(select(checkpoints)).all())
    assert [one.step_number for one in found] == [4, 6, 8]
    assert all((shop.place(job).kept / f"step-{step:05d}/adapter_config.json").is_file() for step in (4, 6, 8))
    assert not list(shop.place(job).kept.glob("*/trainer.safetensors"))
    assert found[0].model == f"{row.fine_tuned_model}:ckpt-step-4"
    assert found[0].metrics["train_loss"] == 1 / 4
    file = shop.server.db.look(
        lambda connection: connection.execute(select(files).where(files.c.id == row.result_files[0])).one()
    )
    assert file.purpose == "fine-tune-results"
    lines = list(csv.DictReader(io.StringIO(shop.server.storage.path(file.id).read_text())))
    assert [line["step"] for line in lines] == [str(step) for step in range(1, 9)]
    assert list(lines[0]) == ["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"]
    assert [told.data["step"] for told in shop.told(job) if told.type == "metrics"] == list(range(1, 9))
    assert shop.messages(job)[-1] == "The job has successfully completed"


def test_a_job_runs_to_its_end_on_either_database(tmp_path: Path, database_url: str) -> None:
    shop = Shop(tmp_path, database=database_url)
    job, other = shop.job(), shop.job("other")

    async def script() -> None:
        async with at_work(shop.supervisor(fake(3, 0.0))):
            await shop.until(job, "succeeded")
            await shop.until(other, "succeeded")

    asyncio.run(script())
    assert [told.data["step"] for told in shop.told(job) if told.type == "metrics"] == [1, 2, 3]
    shop.close()


def test_a_process_that_is_killed_goes_on_from_its_checkpoint_and_no_event_comes_twice(shop: Shop) -> None:
    job = shop.job()

    async def script() -> None:
        async with at_work(shop.supervisor(fake(6, 0.02, "crash"))):
            await shop.until(job, "succeeded")

    asyncio.run(script())
    assert shop.starts(job) == 2
    steps = [told.data["step"] for told in shop.told(job) if told.type == "metrics"]
    assert steps == [1, 2, 3, 4, 5, 6], "step 3 was done twice, and is told once"
    assert any("signal 9" in message for message in shop.messages(job))


def test_a_job_that_never_gets_on_fails_with_its_last_words_and_no_key(shop: Shop) -> None:
    job = shop.job()

    async def script() -> None:
        async with at_work(shop.supervisor(fake(6, 0.0, "quick-death"))):
            await shop.until(job, "failed")

    asyncio.run(script())
    row = shop.row(job)
    assert shop.starts(job) == shop.server.settings.max_attempts == 5
    assert row.error["code"] == "crash_loop"
    assert "loading with [key]" in row.error["message"]
    assert row.detail["state"] == "crash_loop"


def test_a_job_that_dies_after_each_step_that_is_no_new_one_fails(shop: Shop) -> None:
    job = shop.job()

    async def script() -> None:
        async with at_work(shop.supervisor(fake(6, 0.0, "crash-always"))):
            await shop.until(job, "failed")

    asyncio.run(script())
    assert shop.starts(job) == 6, "the first start got on by a step; the five after it did not"


def test_a_job_that_writes_nothing_is_started_anew(tmp_path: Path) -> None:
    shop = Shop(tmp_path, stalled_minutes=0.005)
    job = shop.job()

    async def script() -> None:
        async with at_work(shop.supervisor(fake(3, 0.0, "hang"))):
            await shop.until(job, "succeeded")

    asyncio.run(script())
    assert shop.starts(job) == 2
    assert any("written nothing" in message for message in shop.messages(job))
    shop.close()


def test_a_paused_job_has_a_checkpoint_and_goes_on_when_it_is_resumed(shop: Shop) -> None:
    job = shop.job()

    async def script() -> None:
        async with at_work(shop.supervisor(fake(12, 0.05))) as supervisor:
            await shop.when(job, lambda row: row.progress.get("step", 0) >= 1)
            shop.wants(job, "pause")
            supervisor.wake()
            row = await shop.until(job, "paused")
            assert row.progress["step"] < 12 and row.detail["state"] is None
            assert not held(shop.place(job).lock)
            shop.wants(job, "resume")
            supervisor.wake()
            await shop.until(job, "succeeded")

    asyncio.run(script())
    assert shop.starts(job) == 2
    assert [told.data["step"] for told in shop.told(job) if told.type == "metrics"] == list(range(1, 13))


def test_a_cancelled_job_ends_even_if_it_does_not_listen(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpen.server.supervisor.supervisor.CANCELLED", 0.1)
    job = shop.job()

    async def script() -> None:
        async with at_work(shop.supervisor(fake(10_000, 0.01, "deaf"))) as supervisor:
            await shop.when(job, lambda row: bool(row.progress))
            shop.wants(job, "cancel")
            supervisor.wake()
            await shop.until(job, "cancelled")
            assert not held(shop.place(job).lock)

    asyncio.run(script())
    assert shop.server.cores.free == shop.server.cores.total


def test_a_budget_that_is_used_up_pauses_the_job_and_counts_again_when_it_is_resumed(shop: Shop) -> None:
    job = shop.job(metadata={"budget_minutes": "0.006"})

    async def script() -> None:
        async with at_work(shop.supervisor(fake(20, 0.05))) as supervisor:
            first = await shop.until(job, "paused")
            assert "budget of 0.006 minutes is used up" in shop.messages(job)[-1]
            shop.wants(job, "resume")
            supervisor.wake()
            second = await shop.when(job, lambda row: row.status == "paused" and row.seconds > first.seconds)
            assert second.progress["step"] > first.progress["step"]

    asyncio.run(script())


def test_a_run_that_pauses_itself_is_paused_and_its_cause_is_an_error_event(shop: Shop) -> None:
    job = shop.job()

    async def script() -> None:
        async with at_work(shop.supervisor(fake(3, 0.0, "guard"))):
            await shop.until(job, "paused")

    asyncio.run(script())
    last = shop.told(job)[-1]
    assert last.level == "error"
    assert "the grader failed on 3 of 4 completions" in last.message


@pytest.mark.parametrize(("manner", "said"), [("refuse", "the recipe is not one Write another"), ("fail", "too long")])
def test_a_fault_of_the_job_fails_at_once_with_the_runs_own_words(shop: Shop, manner: str, said: str) -> None:
    job = shop.job()

    async def script() -> None:
        async with at_work(shop.supervisor(fake(3, 0.0, manner))):
            await shop.until(job, "failed")

    asyncio.run(script())
    row = shop.row(job)
    assert shop.starts(job) == 1
    assert said in row.error["message"] and "Traceback" not in row.error["message"]


def test_a_process_that_died_while_no_server_was_there_goes_on(shop: Shop) -> None:
    job = shop.job()

    async def script() -> None:
        first = shop.supervisor(fake(20, 0.02))
        await first.tick()
        await asyncio.sleep(0.3)
        trainer = Trainer.adopted(shop.place(job))
        assert trainer and trainer.pid and first._lead
        os.killpg(trainer.pid, signal.SIGKILL)
        first._lead.close()
        shop.server.cores.give(f"job:{job}")
        async with at_work(shop.supervisor(fake(20, 0.0))):
            await shop.until(job, "succeeded")

    asyncio.run(script())
    assert shop.starts(job) == 2
    assert [told.data["step"] for told in shop.told(job) if told.type == "metrics"] == list(range(1, 21))


def test_a_stopping_server_has_its_jobs_checkpoint_and_the_next_one_goes_on(shop: Shop) -> None:
    job = shop.job()

    async def script() -> None:
        async with at_work(shop.supervisor(fake(16, 0.05))):
            await shop.when(job, lambda row: row.progress.get("step", 0) >= 2)
        row = shop.row(job)
        assert (row.status, row.attempts, row.not_before) == ("queued", 0, 0)
        assert not held(shop.place(job).lock)
        async with at_work(shop.supervisor(fake(16, 0.0))):
            await shop.until(job, "succeeded")

    asyncio.run(script())
    assert shop.starts(job) == 2


def test_a_process_that_is_not_done_when_the_server_stops_lives_on(shop: Shop) -> None:
    job = shop.job()

    async def script() -> None:
        async with at_work(shop.supervisor(fake(40, 0.02, "deaf"), patience=0.1)):
            await shop.when(job, lambda row: bool(row.progress))
        assert shop.row(job).status == "running"
        assert held(shop.place(job).lock)
        shop.server.cores.give(f"job:{job}")
        async with at_work(shop.supervisor(fake(40, 0.02, "deaf"))):
            await shop.until(job, "succeeded")

    asyncio.run(script())
    assert shop.starts(job) == 1


@pytest.mark.long
def test_the_trainer_outlives_a_server_that_is_killed_and_the_next_one_takes_it_up(shop: Shop) -> None:
    job = shop.job()
    data = shop.server.settings.data_dir
    server = f"""
import asyncio
from pathlib import Path
from sharpen.server import app
from sharpen.server.settings import Settings
from sharpen.server.supervisor.supervisor import Supervisor
from tests.server.supervisor_lab import fake
server = app.create(Settings(data_dir=Path({str(data)!r}))).state.server
async def main():
    await Supervisor(server, fake(60, 0.02), poll=0.03).start()
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", server]) as process:
        ends = time.monotonic() + 30
        while not shop.row(job).progress:
            assert time.monotonic() < ends and process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert held(shop.place(job).lock)

    async def script() -> None:
        async with at_work(shop.supervisor(fake(60, 0.02))):
            await shop.until(job, "succeeded")

    asyncio.run(script())
    assert shop.starts(job) == 1
    assert [told.data["step"] for told in shop.told(job) if told.type == "metrics"] == list(range(1, 61))


def test_of_two_servers_on_one_folder_only_one_supervises(shop: Shop) -> None:
    job = shop.job()

    async def script() -> None:
        async with at_work(shop.supervisor(fake(5))), at_work(shop.supervisor(fake(5))):
            await shop.until(job, "succeeded")

    asyncio.run(script())
    assert shop.starts(job) == 1


def test_a_job_never_has_two_processes(shop: Shop) -> None:
    place = shop.place("ftjob-abcdefghijklmnopqrstuvwx")
    first = Trainer.start(place, ["/bin/sleep", "60"], os.environ)
    with pytest.raises(Held):
        Trainer.start(place, ["/bin/sleep", "60"], os.environ)
    adopted = Trainer.adopted(place)
    assert adopted and adopted.alive()
    first.kill()
    while first.alive():
        pass
    assert Trainer.adopted(place) is None and first.code == -signal.SIGKILL


def test_what_a_process_leaves_behind_is_ended_with_it(shop: Shop) -> None:
    place = shop.place("ftjob-abcdefghijklmnopqrstuvwx")
    code = "import os, sys, time; os.fork() or time.sleep(600); sys.exit(3)"  # the child has the lock too
    trainer = Trainer.start(place, [sys.executable, "-c", code], os.environ)
    ends = time.monotonic() + 20
    while trainer.alive():
        assert time.monotonic() < ends
        time.sleep(0.01)
    assert trainer.code == 3 and not held(place.lock)


def test_large_files_are_checked_before_their_job_is_queued(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpen.server.jobs.files.AT_ONCE", 10)
    job = shop.job()
    assert shop.row(job).status == "validating_files"

    async def script() -> None:
        async with at_work(shop.supervisor(fake())):
            await shop.until(job, "succeeded")

    asyncio.run(script())
