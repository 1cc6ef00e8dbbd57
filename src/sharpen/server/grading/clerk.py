"""Grading for clients, in a process of its own: begun when first needed, ended when idle, begun anew when it dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sharpen.server.errors import APIError, invalid
from sharpen.server.settings import External, Settings

QUEUE = 32
"""Requests that wait or are graded; beyond them clients are told to come again."""
SHARE = 16
"""Of them, those of one project."""
SECONDS = 150.0
"""For one request: a grader's two minutes, and as much as it takes to build it."""
RETRY_AFTER = 5
"""Seconds."""
LARGEST = 64 << 20
"""Bytes of an answer."""


class Lost(Exception):
    """The process gave no answer: `kind` is `timeout` or `crashed`."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class Clerk:
    """The process, and who waits for it."""

    def __init__(self, settings: Settings, seconds: float = SECONDS) -> None:
        self._settings = settings
        self._seconds = seconds
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting: Counter[str] = Counter()
        self._idle: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Nothing: it begins when it is first needed."""

    async def stop(self) -> None:
        """End the process."""
        self._rest()
        await self._kill()

    async def grade(self, request: Mapping[str, Any], project: str) -> dict[str, Any]:
        """The process's answer. Raises Lost; APIError 429 where too many wait, and 503 without a sandbox."""
        if self._waiting.total() >= QUEUE or self._waiting[project] >= SHARE:
            raise APIError(
                429,
                "Too many graders are run at the moment. Try again in a few seconds.",
                code="rate_limit_exceeded",
                headers={"retry-after": str(RETRY_AFTER)},
            )
        try:
            line = json.dumps(request).encode() + b"\n"
        except RecursionError:
            raise invalid("The item is nested too deep.", "item") from None
        self._waiting[project] += 1
        try:
            async with self._turn:
                self._rest()
                answer = await self._ask(line)
                self._idle = asyncio.get_running_loop().call_later(self._settings.idle_seconds, self._end)
        finally:
            self._waiting[project] -= 1
            self._waiting += Counter()  # without projects that wait for nothing
        if "unavailable" in answer:
            raise APIError(503, answer["unavailable"], code="sandbox_unavailable")
        return answer

    async def _ask(self, line: bytes) -> dict[str, Any]:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await self._begin()
        assert process.stdin and process.stdout
        try:
            async with asyncio.timeout(self._seconds):
                process.stdin.write(line)
                await process.stdin.drain()
                said = await process.stdout.readline()
        except TimeoutError:
            await self._kill()
            raise Lost("timeout", f"no grade within {self._seconds:g} s") from None
        except (OSError, ValueError):
            said = b""
        except asyncio.CancelledError:
            await asyncio.shield(self._kill())  # its answer would be taken for the next one's
            raise
        if not said.endswith(b"\n"):
            await self._kill()
            raise Lost("crashed", "the process that grades has died")
        answer: dict[str, Any] = json.loads(said)
        return answer

    async def _begin(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sharpen.server.grading.clerk_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # what foreign graders provoke there is no log of ours
            env=environment(self._settings),
            limit=LARGEST,
            start_new_session=True,
        )

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    def _rest(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _end(self) -> None:
        """It has been idle: without input it ends by itself."""
        if not self._turn.locked() and self._process and self._process.stdin:
            self._process.stdin.close()
            self._process = None


def environment(settings: Settings) -> dict[str, str]:
    """The server's, without the secrets that grading does not need: those of webhooks and of models that are served."""
    served = {mapped.api_key_env for mapped in settings.models.values() if isinstance(mapped, External)}
    judges = {mapped.api_key_env for mapped in settings.judges.values() if isinstance(mapped, External)}
    hidden = {webhook.secret_env for webhook in settings.webhooks} | (served - judges)
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**kept, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
