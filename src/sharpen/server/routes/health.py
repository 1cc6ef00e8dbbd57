"""/healthz and /metrics: whether the server works, and how much."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import Connection, text

from sharpen.server import metrics
from sharpen.server.access import allowed
from sharpen.server.core import server_of
from sharpen.server.keys import Caller

router = APIRouter()

PATIENCE = 3.0
"""Seconds within which the database must answer."""


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def health(request: Request) -> JSONResponse:
    """200 while the server answers and its database takes a transaction, else 503; no key is asked for."""
    try:
        await asyncio.wait_for(server_of(request).db.write(_answers), PATIENCE)
    except Exception:  # whatever is wrong with the database: the log of other requests tells
        return JSONResponse({"status": "failing", "database": "failing"}, 503)
    return JSONResponse({"status": "ok", "database": "ok"})


@router.get("/metrics")
async def figures(request: Request, caller: Annotated[Caller, Depends(allowed("admin"))]) -> Response:
    """Prometheus's text."""
    server = server_of(request)
    jobs = await server.db.read(metrics.count_jobs)
    workers, cores = len(server.workers.loaded()), server.cores.total - server.cores.free
    return Response(server.metrics.text(jobs, workers, cores), media_type=CONTENT_TYPE_LATEST)


def _answers(connection: Connection) -> None:
    connection.execute(text("SELECT 1"))
