"""Workers are started when asked, ended when idle or in the way, and what they die of is told to nobody twice."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from sharpen.server.errors import APIError
from sharpen.server.names import Served
from sharpen.server.serving import link, workers
from sharpen.server.serving.pieces import Ask, Done, Said, Started
from sharpen.server.serving.workers import Workers
from sharpen.server.settings import Limits, Settings
from sharpen.server.supervisor.cores import Cores

FAKE = (sys.executable, "-S", str(Path(__file__).parent / "fake_worker.py"))


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "COMMAND", FAKE)


def served(name: str = "one") -> Served:
    return Served(name, "local", f"/models/{name}")


def ask(text: str = "hello", n: int = 1, max_tokens: int = 3) -> Ask:
    return Ask([{"role": "user", "content": text}], n=n, max_tokens=max_tokens)


async def text(pool: Workers, request: Ask, name: str = "one") -> str:
    found = ""
    async with aclosing(pool.generate(served(name), request)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Said):
                found += piece.delta.get("content", "")
    return found


async def refused(pool: Workers, request: Ask, name: str = "one") -> APIError:
    with pytest.raises(APIError) as caught:
        await text(pool, request, name)
    return caught.value


def with_workers(work: Callable[[Workers], Awaitable[None]], cores: int = 2, **settings: object) -> Cores:
    budget = Cores(cores)

    async def run() -> None:
        pool = Workers(Settings.model_validate(settings), budget)
        await pool.start()
        try:
            await asyncio.wait_for(work(pool), 20)
        finally:
            await pool.stop()

    asyncio.run(run())
    return budget


def test_a_worker_answers_many_requests_and_is_one_process() -> None:
    async def work(pool: Workers) -> None:
        assert await asyncio.gather(*(text(pool, ask()) for _ in range(8))) == ["0 1 2 "] * 8
        assert pool.loaded() == {"one": 0} and pool.cores.free == 1
        pieces = [piece async for piece in pool.generate(served(), ask(n=2))]
        assert isinstance(pieces[0], Started) and isinstance(pieces[-1], Done)

    assert with_workers(work).free == 2, "cores are given back at the end"


def test_who_leaves_early_is_cancelled() -> None:
    async def work(pool: Workers) -> None:
        async with aclosing(pool.generate(served(), ask("slowly", max_tokens=10_000))) as pieces:
            async for piece in pieces:
                if isinstance(piece, Said):
                    break
        assert pool.loaded() == {"one": 0}
        assert await text(pool, ask("cancelled?")) == "0"

    with_workers(work)


def test_a_crash_is_told_and_the_next_request_starts_anew() -> None:
    async def work(pool: Workers) -> None:
        other = asyncio.create_task(refused(pool, ask("slowly", max_tokens=10_000)))
        await asyncio.sleep(0.3)
        error = await refused(pool, ask("die"))
        for told in (error, await other):
            assert (told.status, told.body["code"], told.headers["Retry-After"]) == (503, "model_crashed", "2")
        assert await text(pool, ask()) == "0 1 2 "
        await refused(pool, ask("die"))
        again = await refused(pool, ask())
        assert again.status == 503 and "has crashed 2 times" in str(again) and "Retry-After" in again.headers

    with_workers(work)


def test_a_model_that_cannot_be_loaded_is_a_503_without_paths() -> None:
    async def work(pool: Workers) -> None:
        error = await refused(pool, ask(), "unable")
        assert (error.status, error.body["code"]) == (503, "model_unavailable")
        assert "/models" not in str(error) and pool.cores.free == 2

    with_workers(work)


def test_idle_models_are_unloaded() -> None:
    async def work(pool: Workers) -> None:
        await text(pool, ask())
        for _ in range(100):
            if not pool.loaded():
                break
            await asyncio.sleep(0.05)
        assert not pool.loaded() and pool.cores.free == 2
        assert await text(pool, ask()) == "0 1 2 "

    with_workers(work, idle_seconds=0.2)


def test_the_model_longest_idle_makes_room_but_no_pinned_or_busy_one() -> None:
    async def work(pool: Workers) -> None:
        for name in ("one", "two", "three"):
            await text(pool, ask(), name)
        assert set(pool.loaded()) == {"two", "three"}
        assert await pool.pin(served("two"), "ftjob-1")
        assert await pool.pin(Served("far", "external"), "ftjob-1"), "what runs elsewhere needs no cores"
        slow = asyncio.create_task(text(pool, ask("slowly", max_tokens=10_000), "three"))
        await asyncio.sleep(0.1)
        error = await refused(pool, ask(), "one")
        assert (error.status, error.headers["Retry-After"]) == (503, "10")
        assert not await pool.pin(served("four"), "ftjob-2")
        await pool.unpin("ftjob-1")
        assert await text(pool, ask(), "one") == "0 1 2 "
        assert set(pool.loaded()) == {"one", "three"}
        slow.cancel()

    with_workers(work)


def test_a_pin_holds_cores_before_the_model_is_loaded() -> None:
    async def work(pool: Workers) -> None:
        assert await pool.pin(served(), "ftjob-1")
        assert pool.cores.free == 1 and not pool.loaded() and pool.pinned("/models/one")
        assert await text(pool, ask()) == "0 1 2 "
        await pool.unpin("ftjob-1")
        assert not pool.pinned("/models/one")

    with_workers(work)


def test_idle_models_make_room_for_a_job() -> None:
    async def work(pool: Workers) -> None:
        await text(pool, ask(), "one")
        await text(pool, ask(), "two")
        await pool.make_room(3)
        assert set(pool.loaded()) == {"one", "two"}, "that would not do"
        await pool.make_room(1)
        assert set(pool.loaded()) == {"two"} and pool.cores.free == 1

    with_workers(work)


def test_where_too_many_wait_the_next_is_told_when_to_come_back() -> None:
    async def work(pool: Workers) -> None:
        slow = asyncio.create_task(text(pool, ask("slowly", n=3, max_tokens=10_000)))
        await asyncio.sleep(0.3)
        error = await refused(pool, ask(n=2))
        assert (error.status, error.body["code"], error.headers["Retry-After"]) == (429, "model_busy", "2")
        assert await text(pool, ask()) == "0 1 2 ", "another server or model is not concerned"
        slow.cancel()

    with_workers(work, limits=Limits(chat_queue=4))


def test_without_memory_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_free", lambda: 1000)

    async def work(pool: Workers) -> None:
        assert (await refused(pool, ask())).status == 503

    with_workers(work)


def test_who_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "SILENT", 0.2)
    monkeypatch.setattr(workers, "LOOKS", 0.1)

    async def work(pool: Workers) -> None:
        await text(pool, ask())
        place = next(iter(pool._places.values()))
        assert place.link
        place.link.process.send_signal(19)  # SIGSTOP
        assert (await refused(pool, ask())).body["code"] == "model_crashed"

    with_workers(work)


def test_a_worker_gets_no_keys_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    async def work(pool: Workers) -> None:
        await text(pool, ask())
        place = next(iter(pool._places.values()))
        assert place.link
        environment = Path(f"/proc/{place.link.process.pid}/environ").read_bytes()
        assert b"OMP_NUM_THREADS=1" in environment and b"sk-secret" not in environment

    with_workers(work)
