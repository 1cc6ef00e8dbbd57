"""The server's log: one JSON object a line, and no secret in any of them."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import IO, Any

from sharpen.server.audit import request_id

SECRETS = re.compile(
    r"""
    (?P<name> \b(?:proxy-)?authorization["']?\s*[:=]\s*["']?(?:(?:bearer|basic)\s+)?
            | \bapi[-_]?key["']?\s*[:=]\s*["']?
            | \b(?:password|passwd|secret)["']?\s*[:=]\s*["']?
            | \b(?:bearer|basic)\s+
            | ://[^\s/:@"']*: (?=[^\s/@]+@)
    ) [^\s"',;@]+
    | \b(?:skj?-|whsec_|hf_)[\w+/=.-]{6,}
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Keys, signed tokens, webhooks' secrets, values of headers that carry such, and passwords in addresses."""

HIDDEN = "[hidden]"

requests = logging.getLogger("sharpen.server.requests")


def request(**fields: Any) -> None:
    """Tell of a request that was answered: its id, project, key, method, route, status, time and bytes."""
    requests.info("request", extra={"fields": fields})


def hide(text: str) -> str:
    """The text without what looks like a secret."""
    return SECRETS.sub(lambda found: f"{found['name'] or ''}{HIDDEN}", text)


class Lines(logging.Formatter):
    """A record as one line of JSON. Nothing is written that does not pass here, so secrets are taken out here."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; tracebacks are in it as text."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said: dict[str, Any] = {"time": time, "level": record.levelname.lower(), "logger": record.name}
        said["message"] = record.getMessage()
        if id := request_id.get():
            said["request_id"] = id
        said |= getattr(record, "fields", {})
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(_clean(said), ensure_ascii=False)


class Words(logging.Formatter):
    """A record as a line for people: what a terminal is shown. Requests that went well and change nothing are not."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with its traceback below."""
        said = record.getMessage()
        if fields := getattr(record, "fields", None):
            said = "{method} {route} {status} {ms:.0f} ms".format(**fields)
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return hide(f"{time}  {level}{said}{trace}")

    @staticmethod
    def told(record: logging.LogRecord) -> bool:
        """Whether a record is shown: clients that look after their jobs ask once a second."""
        fields = getattr(record, "fields", {})
        return not (fields.get("method") == "GET" and fields.get("status", 0) < 400)


def begin(level: int = logging.INFO, stream: IO[str] | None = None) -> None:
    """Write what the server, uvicorn and all libraries say to a stream (stderr): JSON, or to a terminal words."""
    handler = logging.StreamHandler(stream or sys.stderr)
    if handler.stream.isatty():
        handler.setFormatter(Words())
        handler.addFilter(Words.told)
    else:
        handler.setFormatter(Lines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    logging.getLogger("sharpen").setLevel(level)


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _clean(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float) else hide(str(value))
