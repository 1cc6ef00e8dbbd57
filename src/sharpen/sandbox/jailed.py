"""One worker process in a jail: our own code at work on foreign data. Asked as `process.WorkerProcess` is. Blocking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from sharpen.errors import GraderError
from sharpen.sandbox import plan
from sharpen.sandbox.jail import Jail
from sharpen.sandbox.outcome import Limits, Outcome
from sharpen.sandbox.run import Run

LIMITS = Limits(memory=8 << 30, disk=64 << 20)
"""Of a worker: several libraries of mathematics have to fit."""


class JailedWorker(Jail):
    """A run that stays, and does jobs; one that was killed is forked anew, its libraries loaded already."""

    def __init__(self, preload: Sequence[str]) -> None:
        """Start the jail. Raises SandboxUnavailable when the system refuses."""
        self._run: Run | None = None
        self._payload = b""
        self._limit = 0.0
        super().__init__(plan.trusted_blueprint(plan.isolation(), preload))

    def prepare(self, payload: bytes, limit: float) -> None:
        """Call the pickled `(factory, arguments)` in the jail, and wait up to `limit` seconds for it.

        Raises GraderError when that fails, with the worker's words.
        """
        self._payload, self._limit = payload, limit
        try:
            self._open()
        except GraderError:
            self.kill()
            raise

    def ask(self, job: Any, time_limit: float) -> Outcome:
        """The outcome of one job; a worker that hangs or dies is killed. Answers are plain values."""
        try:
            frame = cloudpickle.dumps(job)
        except Exception as error:
            return Outcome("exception", detail=f"the job cannot be pickled: {error}")
        return self._open().ask(frame, time_limit)

    def kill(self) -> None:
        """End all of it, and close the files. Only for the thread that asks, or after it."""
        if self._run:
            self._run.kill()
        super().kill()

    def _open(self) -> Run:
        if self._run and not self._run.ended:
            return self._run
        if self._run:
            self._run.kill()
        self._run = self.start(LIMITS)
        self._run.send(self._payload)
        built = self._run.loaded(self._limit)
        if built.kind != "value":
            raise GraderError(f"a worker process could not start: {built.detail}")
        return self._run
