"""The application: routes, and the parts that work beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from sharpen.server import errors
from sharpen.server.core import Server
from sharpen.server.database import Database
from sharpen.server.grading import tokens
from sharpen.server.grading.clerk import Clerk
from sharpen.server.guards.azure import Azure
from sharpen.server.guards.bodies import Bodies
from sharpen.server.guards.hosts import Hosts
from sharpen.server.guards.rates import Rates
from sharpen.server.guards.requests import Requests
from sharpen.server.housekeeping import Housekeeping
from sharpen.server.keys import Keys
from sharpen.server.looks import Looks
from sharpen.server.metrics import Metrics
from sharpen.server.routes import chat, files, graders, health, jobs, models, other, permissions, uploads
from sharpen.server.serving.external import External
from sharpen.server.serving.workers import Workers
from sharpen.server.settings import Settings
from sharpen.server.storage import Storage
from sharpen.server.supervisor.cores import Cores
from sharpen.server.supervisor.supervisor import Supervisor

ROUTERS: Sequence[APIRouter] = (
    files.router,
    uploads.router,
    graders.router,
    jobs.router,
    permissions.router,
    models.router,
    chat.router,
    health.router,
    other.router,  # takes what is left
)


def create(settings: Settings) -> FastAPI:
    """The application. Raises RunError where its folder or database cannot be used."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    server = Server(settings, Database(settings.database_url))
    server.secret = tokens.secret(settings.data_dir)
    server.keys = Keys(server.db, partial(tokens.read, server.secret))
    server.storage = Storage(settings.data_dir / "files")
    server.looks = Looks()
    server.metrics = Metrics()
    server.parts.append(Housekeeping(server.storage, server.db))
    server.clerk = Clerk(settings)
    server.parts.append(server.clerk)
    server.cores = Cores(settings.cores)
    server.workers = Workers(settings, server.cores)
    server.external = External()
    server.supervisor = Supervisor(server)
    server.parts += [server.workers, server.external, server.supervisor]

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for part in server.parts:
            await part.start()
        try:
            yield
        finally:
            for part in reversed(server.parts):
                await part.stop()
            server.db.close()

    app = FastAPI(title="sharpen", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.server = server
    app.add_exception_handler(errors.APIError, errors.api_error)
    app.add_exception_handler(HTTPException, errors.http_error)
    app.add_exception_handler(RequestValidationError, errors.validation_error)
    app.state.routes = [route for router in ROUTERS for route in router.routes]
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(Bodies, most=settings.limits.body_bytes)  # the last one added comes first
    app.add_middleware(Rates, server=server)
    app.add_middleware(Azure)
    app.add_middleware(Hosts, settings=settings)
    app.add_middleware(Requests, server=server)
    return app
