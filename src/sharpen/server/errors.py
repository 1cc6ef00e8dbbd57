"""Errors as OpenAI's API writes them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sharpen.errors import ConfigError, DataError, SharpenError

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 503: "server_error"}
"""By status; other 4xx are `invalid_request_error`, other 5xx `server_error`."""


class APIError(Exception):
    """What a client is told: a status, a sentence, a `code` for programs and the `param` at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """`more` is added to the error's object, such as `{"line": 3}`."""
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
        self.body = {"message": message, "type": kind, "param": param, "code": code, **(more or {})}


def invalid(message: str, param: str | None = None, code: str = "invalid_value", **more: Any) -> APIError:
    """400: the request cannot be what it is."""
    return APIError(400, message, code=code, param=param, more=more)


def missing(what: str, id: str, param: str = "id") -> APIError:
    """404: no such object, or one of another project."""
    code = f"{what.replace(' ', '_').replace('-', '_')}_not_found"
    return APIError(404, f"No {what} with the id {id[:80]!r} is here.", code=code, param=param)


def of(error: SharpenError, param: str | None = None) -> APIError:
    """400 for an error of the house: its paragraph, and its place where it has one."""
    if isinstance(error, DataError):
        more = {name: value for name in ("line", "field") if (value := getattr(error, name))}
        return APIError(400, str(error), code="invalid_file_format", param=param, more=more)
    if isinstance(error, ConfigError) and error.path:
        param = f"{param}.{error.path}" if param else error.path
    return APIError(400, str(error), code="invalid_value", param=param)


async def api_error(request: Request, error: Exception) -> JSONResponse:
    """The response to an APIError."""
    assert isinstance(error, APIError)
    return JSONResponse({"error": error.body}, error.status, error.headers)


async def http_error(request: Request, error: Exception) -> JSONResponse:
    """The response to what starlette refuses, such as a method that a path has not."""
    assert isinstance(error, HTTPException)
    told = APIError(error.status_code, str(error.detail), headers=error.headers)
    return await api_error(request, told)


async def validation_error(request: Request, error: Exception) -> JSONResponse:
    """400, with the first fault of a body or query and its place."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:]) or None
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    seen = "" if first["type"] in ("missing", "json_invalid") else f" (got {first.get('input')!r:.120})"
    return await api_error(request, invalid(f"{place or 'the body'}: {first['msg']}{seen}", place, code))
