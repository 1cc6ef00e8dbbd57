"""Worker processes against hangs, crashes, noise, forks, and the death of their parent."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from sharpen.errors import GraderError
from sharpen.sandbox.workers import Outcome, WorkerPool

SOURCE = str(Path(__file__).parents[2] / "src")


def calling() -> Callable[[Any], Any]:
    """A worker whose jobs are functions to call."""
    return lambda job: job()


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(calling, size=1) as pool:
        yield pool


def outcomes(pool: WorkerPool, *jobs: Callable[[], Any], time_limit: float = 20.0) -> list[Outcome]:
    return asyncio.run(pool.map(jobs, time_limit))


def alive(pid: int) -> bool:
    return bool(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def wait_until(condition: Callable[[], bool]) -> bool:
    for _ in range(200):
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_outcomes_keep_the_order_of_the_jobs_though_later_ones_finish_first() -> None:
    def job(number: int) -> Callable[[], int]:
        def run() -> int:
            time.sleep(0.3 if number == 0 else 0)
            return number

        return run

    def who() -> int:
        time.sleep(0.1)
        return os.getpid()

    with WorkerPool(calling, size=2) as two:
        found = outcomes(two, *[job(number) for number in range(20)])
        workers = outcomes(two, *[who] * 4)
    assert [outcome.value for outcome in found] == list(range(20))
    assert len({outcome.value for outcome in workers}) == 2


def test_a_hanging_job_is_killed_and_the_rest_goes_on(pool: WorkerPool) -> None:
    first = outcomes(pool, os.getpid)[0].value
    hung, after = outcomes(pool, lambda: time.sleep(60), os.getpid, time_limit=0.5)
    assert (hung.kind, hung.detail) == ("timeout", "timed out after 0.5 s")
    assert after.kind == "value"
    assert after.value != first
    assert not psutil.pid_exists(first), "neither running nor a zombie"


def test_a_job_hanging_in_c_with_the_interpreters_lock_is_killed(pool: WorkerPool) -> None:
    hung, after = outcomes(pool, lambda: ctypes.PyDLL(None).sleep(60), lambda: 1, time_limit=0.5)
    assert (hung.kind, after.value) == ("timeout", 1)


def test_what_a_hung_job_started_dies_with_it(pool: WorkerPool, tmp_path: Path) -> None:
    note = tmp_path / "pid"

    def start_and_hang() -> None:
        note.write_text(str(subprocess.Popen(["sleep", "60"]).pid))
        time.sleep(60)

    assert outcomes(pool, start_and_hang, time_limit=0.7)[0].kind == "timeout"
    assert wait_until(lambda: not alive(int(note.read_text())))


def test_a_job_that_exits_or_segfaults_has_crashed_and_its_last_words_are_kept(pool: WorkerPool) -> None:
    def exits() -> None:
        print("my last words", flush=True)
        os._exit(3)

    left, fell, after = outcomes(pool, exits, lambda: ctypes.string_at(0), lambda: "fine")
    assert (left.kind, fell.kind, after.value) == ("crashed", "crashed", "fine")
    assert "exit status 3" in left.detail
    assert "my last words" in left.detail
    assert "SIGSEGV" in fell.detail


def test_noise_on_both_outputs_does_not_reach_the_protocol(pool: WorkerPool, capfd: pytest.CaptureFixture[str]) -> None:
    def noisy() -> int:
        for descriptor in (1, 2):
            os.write(descriptor, b"\x00\xff garbage " * 100_000)
        print("more")
        return 7

    assert [outcome.value for outcome in outcomes(pool, noisy, noisy)] == [7, 7]
    assert capfd.readouterr() == ("", "")


def test_exceptions_come_back_as_text_and_leave_the_worker_alive(pool: WorkerPool) -> None:
    def fails() -> None:
        raise ValueError("seen: 5")

    before, failed, quits, after = outcomes(pool, os.getpid, fails, lambda: sys.exit(4), os.getpid)
    assert failed.kind == quits.kind == "exception"
    assert "ValueError: seen: 5" in failed.detail
    assert Path(__file__).name in failed.detail
    assert "SystemExit: 4" in quits.detail
    assert before.value == after.value


def test_what_cannot_travel_is_an_exception_of_its_own_job(pool: WorkerPool) -> None:
    lock = threading.Lock()
    there, back, after = outcomes(pool, lambda: lock, lambda: threading.Lock(), lambda: 1)
    assert there.kind == back.kind == "exception"
    assert after.value == 1


def test_large_jobs_and_answers_pass_whole(pool: WorkerPool) -> None:
    blob = os.urandom(5_000_000)
    assert outcomes(pool, lambda: blob[::-1])[0].value == blob[::-1]


def test_jobs_run_in_the_main_thread_with_one_thread_for_arithmetic(pool: WorkerPool) -> None:
    def look() -> tuple[bool, str | None]:
        signal.alarm(0)
        return threading.current_thread() is threading.main_thread(), os.environ.get("OMP_NUM_THREADS")

    assert outcomes(pool, look)[0].value == (True, "1")


def test_a_slow_start_is_not_counted_against_the_first_job() -> None:
    def slow() -> Callable[[Any], Any]:
        time.sleep(1.5)
        return lambda job: job + 1

    with WorkerPool(slow, size=1) as slow_pool:
        assert asyncio.run(slow_pool.map([1], 1.0)) == [Outcome("value", 2)]


def test_a_worker_that_died_while_idle_is_replaced_without_blame(pool: WorkerPool) -> None:
    os.kill(outcomes(pool, os.getpid)[0].value, signal.SIGKILL)
    time.sleep(0.2)
    assert outcomes(pool, lambda: 1)[0].value == 1


def test_a_failing_factory_is_one_clear_error() -> None:
    def broken() -> Callable[[Any], Any]:
        raise RuntimeError("no such verifier")

    def dies() -> Callable[[Any], Any]:
        os.write(2, b"linker trouble")
        os._exit(9)

    def hangs() -> Callable[[Any], Any]:
        time.sleep(60)
        raise AssertionError

    for factory, words in (
        (broken, "no such verifier"),
        (dies, "linker trouble"),
        (hangs, "not ready after 1 s"),
    ):
        limit = 1.0 if factory is hangs else 60.0
        with WorkerPool(factory, size=1, start_limit=limit) as bad, pytest.raises(GraderError, match=words):
            asyncio.run(bad.map([1, 2, 3], 1.0))


def _is_worker(process: Any) -> bool:
    try:
        return "sharpen.sandbox.worker" in process.cmdline()
    except psutil.Error:  # another test's, that has just ended
        return False


def test_start_starts_all_workers_once() -> None:
    with WorkerPool(calling, size=2) as two:

        async def children() -> list[int]:
            await two.start()
            await two.start()
            return [child.pid for child in psutil.Process().children() if _is_worker(child)]

        started = asyncio.run(children())
        assert {outcome.value for outcome in outcomes(two, *[os.getpid] * 8)} <= set(started)
        assert len(started) >= 2
    assert not any(psutil.pid_exists(pid) for pid in started[-2:])


def test_a_cancelled_map_returns_at_once_and_the_pool_still_works() -> None:
    async def cancelled(pool: WorkerPool) -> None:
        await asyncio.wait_for(pool.map([lambda: time.sleep(1.5)] * 3, 20), timeout=0.5)

    with WorkerPool(calling, size=1) as one:
        outcomes(one, os.getpid)
        with pytest.raises(TimeoutError):
            asyncio.run(cancelled(one))
        assert outcomes(one, lambda: 1)[0].value == 1


def test_closing_ends_a_map_under_way_without_blaming_its_jobs() -> None:
    pool = WorkerPool(calling, size=1)
    outcomes(pool, os.getpid)
    threading.Timer(0.4, pool.close).start()
    with pytest.raises((GraderError, asyncio.CancelledError)):
        outcomes(pool, lambda: time.sleep(60), lambda: 1, time_limit=60)
    with pytest.raises(GraderError, match="closed"):
        outcomes(pool, lambda: 1)


def test_several_event_loops_in_several_threads_share_a_pool(pool: WorkerPool) -> None:
    found: dict[int, Any] = {}

    def ask(number: int) -> None:
        found[number] = outcomes(pool, lambda: number)[0].value

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: number for number in range(4)}


def test_a_forked_copy_of_the_parent_has_workers_of_its_own(pool: WorkerPool) -> None:
    ours = outcomes(pool, os.getpid)[0].value
    child = os.fork()
    if child == 0:
        status = 1
        try:
            theirs = outcomes(pool, os.getpid)[0].value
            pool.close()
            status = 0 if theirs != ours else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert outcomes(pool, os.getpid)[0].value == ours


SCRIPT = """
import asyncio, os, sys
from sharpen.sandbox.workers import WorkerPool
note = sys.argv[1] if len(sys.argv) > 1 else ""
class Local:
    value = 5
def factory():
    return lambda job: job()
def hang():
    import ctypes
    open(note, "w").write(str(os.getpid()))
    ctypes.PyDLL(None).sleep(600)
pool = WorkerPool(factory, size=1)
print(asyncio.run(pool.map([lambda: Local.value], 20))[0].value, flush=True)
if note:
    asyncio.run(pool.map([hang], 600))
"""


def interpreter(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCE},
    )


def test_code_typed_into_an_interpreter_reaches_the_workers_and_exit_is_clean() -> None:
    answer, complaints = interpreter().communicate(SCRIPT, timeout=60)
    assert (answer.strip(), complaints) == ("5", "")


def test_workers_die_when_their_parent_is_killed_even_while_hung_in_c(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    parent = interpreter(str(note))
    assert parent.stdin
    parent.stdin.write(SCRIPT)
    parent.stdin.close()
    try:
        assert wait_until(lambda: note.exists() and note.read_text() != "")
        worker = int(note.read_text())
        assert alive(worker)
    finally:
        parent.kill()
        parent.wait()
        for stream in (parent.stdout, parent.stderr):
            assert stream
            stream.close()
    assert wait_until(lambda: not alive(worker))
