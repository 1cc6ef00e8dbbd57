"""Webhooks: signed so that the stock SDK takes them, sent until they arrive, and to no address of a private network."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy import select, update

from sharpen.server.database import Database
from sharpen.server.settings import Settings
from sharpen.server.supervisor import webhooks
from sharpen.server.supervisor.webhooks import Refused, Sender, resolved
from sharpen.server.tables import deliveries
from tests.server.supervisor_lab import Shop

SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes of a test secret").decode()
JOB = "ftjob-abcdefghijklmnopqrstuvwx"


class Receiver(BaseHTTPRequestHandler):
    """Answers with the next of its statuses, and keeps what it was sent."""

    statuses: list[int]
    heard: list[tuple[dict[str, str], bytes]]

    def do_POST(self) -> None:
        """Take a word."""
        body = self.rfile.read(int(self.headers["content-length"]))
        self.heard.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.statuses.pop(0) if self.statuses else 200)
        self.send_header("location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def receiving(*statuses: int) -> Iterator[tuple[str, type[Receiver]]]:
    kind = type("Here", (Receiver,), {"statuses": list(statuses), "heard": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", kind
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    found = Database(f"sqlite:///{tmp_path / 'server.db'}")
    yield found
    found.close()


def told(url: str, *events: str) -> Settings:
    hook = {"url": url, "secret_env": "HOOK_SECRET", **({"events": events} if events else {})}
    return Settings.model_validate({"webhooks": [hook]})


def rows(db: Database) -> list[Any]:
    return list(db.look(lambda connection: connection.execute(select(deliveries)).all()))


def test_the_stock_sdk_unwraps_what_is_sent(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    db.change(lambda connection: webhooks.note(connection, JOB, "succeeded"))
    with receiving() as (url, receiver):
        asyncio.run(Sender(told(url), db).send())
    [(headers, body)] = receiver.heard
    event = openai.OpenAI(api_key="none", webhook_secret=SECRET).webhooks.unwrap(body, headers)
    assert event.type == "fine_tuning.job.succeeded"
    assert event.data.id == JOB
    assert event.id.startswith("evt_")
    with pytest.raises(openai.InvalidWebhookSignatureError):
        openai.OpenAI(api_key="none", webhook_secret=SECRET).webhooks.unwrap(body + b" ", headers)
    [row] = rows(db)
    assert row.delivered and SECRET not in str(row)


def test_what_does_not_arrive_is_sent_again_under_the_same_id_by_the_next_server_too(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    db.change(lambda connection: webhooks.note(connection, JOB, "failed"))
    with receiving(500, 302, 204) as (url, receiver):
        for _ in range(4):
            asyncio.run(Sender(told(url), db, first=0).send())
    assert len(receiver.heard) == 3, "a redirect is not followed, and is no arrival"
    assert len({headers["webhook-id"] for headers, _ in receiver.heard}) == 1
    assert rows(db)[0].attempts == 3 and rows(db)[0].last == "status 204"


def test_a_failed_attempt_waits_before_the_next(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    db.change(lambda connection: webhooks.note(connection, JOB, "failed"))
    with receiving(503) as (url, receiver):
        for _ in range(3):
            asyncio.run(Sender(told(url), db).send())
    assert len(receiver.heard) == 1


def test_after_a_day_it_is_given_up(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    db.change(lambda connection: webhooks.note(connection, JOB, "failed"))
    payload = json.loads(rows(db)[0].payload)
    old = json.dumps({**payload, "created_at": payload["created_at"] - webhooks.DAY - 1})
    db.change(lambda connection: connection.execute(update(deliveries).values(payload=old)))
    with receiving(500, 500) as (url, receiver):
        for _ in range(2):
            asyncio.run(Sender(told(url), db, first=0).send())
    assert len(receiver.heard) == 1


def test_only_the_events_are_told_that_are_asked_for(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    for status in ("succeeded", "failed", "cancelled"):
        db.change(lambda connection, status=status: webhooks.note(connection, JOB, status))  # type: ignore[misc]
    with receiving() as (url, receiver):
        asyncio.run(Sender(told(url, "fine_tuning.job.cancelled"), db).send())
    assert [json.loads(body)["type"] for _, body in receiver.heard] == ["fine_tuning.job.cancelled"]


def test_where_nobody_has_asked_nothing_stays(db: Database) -> None:
    db.change(lambda connection: webhooks.note(connection, JOB, "failed"))
    asyncio.run(Sender(Settings(), db).send())
    assert not rows(db)


def test_without_its_secret_nothing_is_sent(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOOK_SECRET", raising=False)
    db.change(lambda connection: webhooks.note(connection, JOB, "failed"))
    with receiving() as (url, receiver):
        asyncio.run(Sender(told(url), db).send())
    assert not receiver.heard
    assert "HOOK_SECRET is not set" in rows(db)[0].last


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "https://169.254.169.254/hook",
        "https://[::ffff:169.254.169.254]/hook",
        "https://2852039166/hook",
        "https://10.0.0.7/hook",
        "https://192.168.1.4/hook",
        "https://[fd00::1]/hook",
        "https://0.0.0.0/hook",
        "https://user:word@1.1.1.1/hook",
        "https://metadata.google.internal/hook",
        "ftp://127.0.0.1/hook",
    ],
)
def test_an_address_that_is_no_public_one_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        asyncio.run(resolved(url))


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "::1", "100.64.0.1"])
def test_a_public_name_that_means_a_private_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def name_server(*_: object, **__: object) -> list[Any]:
        return [(0, 0, 0, "", ("93.184.216.34", 443)), (0, 0, 0, "", (address, 443))]

    async def script() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", name_server)
        with pytest.raises(Refused):
            await resolved("https://hooks.example.com/x")

    asyncio.run(script())


def test_the_end_of_a_job_and_its_word_are_written_together(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    job = shop.job()
    shop.wants(job, "cancel")
    [row] = rows(shop.server.db)
    assert json.loads(row.payload)["data"] == {"id": job}
    assert json.loads(row.payload)["type"] == "fine_tuning.job.cancelled"
    shop.close()
