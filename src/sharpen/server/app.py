"""The application: routes, and the parts that work beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from sharpen.server import errors
from sharpen.server.access import Keys
from sharpen.server.core import Server
from sharpen.server.database import Database
from sharpen.server.settings import Settings

ROUTERS: Sequence[APIRouter] = ()


def create(settings: Settings) -> FastAPI:
    """The application. Raises RunError where its folder or database cannot be used."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    server = Server(settings, Database(settings.database_url))
    server.keys = Keys(server.db)

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
    for router in ROUTERS:
        app.include_router(router)
    return app
