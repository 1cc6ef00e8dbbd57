"""What the server writes: lines of JSON, one a request, and never a secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sharpen.server import logs
from tests.server.jobs_lab import Lab

CANARY = "C4n4ryC4n4ryC4n4ry"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is written while a test runs; afterwards logging is as it was."""
    root, house = logging.getLogger(), logging.getLogger("sharpen")
    before = root.handlers[:], root.level, house.level
    written = io.StringIO()
    logs.begin(stream=written)
    yield written
    logging.captureWarnings(False)
    root.handlers[:], root.level, house.level = before
    house.setLevel(before[2])


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_is_shown_words_and_no_polls(lines: io.StringIO) -> None:
    shown = Terminal()
    logs.begin(stream=shown)
    asked = {"route": "/v1/fine_tuning/jobs", "ms": 12.4}
    logs.request(method="GET", status=200, **asked)
    logs.request(method="GET", status=404, **asked)
    logs.request(method="POST", status=200, **asked)
    logging.getLogger("sharpen.server.test").warning("the key sk-%s", CANARY)
    told = [line.split("  ", 1)[1] for line in shown.getvalue().splitlines()]
    assert told == [
        "GET /v1/fine_tuning/jobs 404 12 ms",
        "POST /v1/fine_tuning/jobs 200 12 ms",
        "warning: the key [hidden]",
    ]


def read(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


@pytest.mark.parametrize(
    "text",
    [
        f"sk-{CANARY}",
        f"the key sk-proj-{CANARY}_-x was sent",
        f"skj-eyJhIjoxfQ.{CANARY}",
        f"whsec_{CANARY}+/aa==",
        f"hf_{CANARY}",
        f"Authorization: Bearer {CANARY}",
        f"authorization={CANARY}",
        f"{{'authorization': 'Basic {CANARY}'}}",
        f"(b'authorization', b'Bearer {CANARY}')",
        f'{{"api-key": "{CANARY}"}}',
        f"api_key={CANARY}&x=1",
        f"postgresql+psycopg://ann:{CANARY}@db/sharpen",
        f"password={CANARY} host=db",
    ],
)
def test_no_secret_is_written_however_it_is_said(text: str, lines: io.StringIO) -> None:
    logger = logging.getLogger("sharpen.server.test")
    logger.info(text)
    logger.info("this: %s", text)
    logger.warning("that", extra={"fields": {"plain": text, "deep": {"list": [text, (text,)]}}})
    try:
        raise ValueError(text)
    except ValueError:
        logger.exception("failed")
    logging.getLogger("some.library").error(text)
    assert len(read(lines)) == 5
    assert CANARY not in lines.getvalue()
    assert logs.HIDDEN in lines.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "/v1/fine_tuning/jobs/{id}",
        "https://host:8000/v1",
        "task-1234567",
        "the basics",
        "a risk-free model",
        "x@y.example",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert logs.hide(text) == text


def test_a_line_for_each_request_says_who_asked_for_what_and_no_more(tmp_path: Path, lines: io.StringIO) -> None:
    lab = Lab(tmp_path)
    answer = lab.ask("GET", "/v1/files/file-abc?after=C4n4ry", headers={"x-request-id": "mine"})
    lab.ask("GET", "/v1/files", key=f"sk-{CANARY}")
    lab.close()
    found, refused = (line for line in read(lines) if line["logger"] == "sharpen.server.requests")
    assert answer.headers["x-request-id"] == "mine"
    assert found["request_id"] == "mine" and found["project"] == "default" and found["key"].startswith("key-")
    assert (found["method"], found["route"], found["status"]) == ("GET", "/v1/files/{file_id}", 404)
    assert found["bytes"] == len(answer.content) and found["ms"] > 0
    assert refused["status"] == 401 and refused["project"] is None
    assert lab.key not in lines.getvalue() and "C4n4ry" not in lines.getvalue()


def test_what_is_said_while_a_request_is_answered_bears_its_id(tmp_path: Path, lines: io.StringIO) -> None:
    lab = Lab(tmp_path)

    @lab.app.get("/fails")
    async def fails() -> None:
        logging.getLogger("sharpen.server.test").warning("look")

    lab.app.router.routes.insert(0, lab.app.router.routes.pop())
    lab.ask("GET", "/fails", headers={"x-request-id": "mine"})
    lab.close()
    (said,) = (line for line in read(lines) if line["message"] == "look")
    assert said["request_id"] == "mine"
