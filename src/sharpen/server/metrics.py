"""Figures for Prometheus: requests as they pass, jobs and workers as they stand when it asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from sqlalchemy import Connection, func, select

from sharpen.server.states import Status
from sharpen.server.tables import jobs

SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
"""Bounds of the histogram of times."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "sharpen_requests", "Requests answered", ("route", "method", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "sharpen_request_seconds",
            "Time to the end of an answer",
            ("route",),
            registry=self._registry,
            buckets=SECONDS,
        )
        self._jobs = Gauge("sharpen_jobs", "Jobs", ("status",), registry=self._registry)
        self._workers = Gauge("sharpen_workers", "Model workers", registry=self._registry)
        self._cores = Gauge("sharpen_cores_taken", "Threads of jobs and workers", registry=self._registry)

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request. `route` is a pattern, never a client's path."""
        self._requests.labels(route, method if method in METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self, jobs: Mapping[str, int], workers: int, cores: int) -> bytes:
        """All of it, as Prometheus reads it."""
        for status in get_args(Status):
            self._jobs.labels(status).set(jobs.get(status, 0))
        self._workers.set(workers)
        self._cores.set(cores)
        return generate_latest(self._registry)


def count_jobs(connection: Connection) -> dict[str, int]:
    """How many jobs are in each state."""
    rows = connection.execute(select(jobs.c.status, func.count()).group_by(jobs.c.status))
    return {status: count for status, count in rows}
