"""What stands before the routes: names, pages, rates, sizes, Azure's paths and the ids of requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from openai import AzureOpenAI
from starlette.types import Receive, Scope, Send

from sharpen.server.app import create
from sharpen.server.guards.azure import Azure
from sharpen.server.guards.bodies import Bodies
from sharpen.server.guards.hosts import Hosts
from sharpen.server.guards.rates import Bucket, Rates
from sharpen.server.keys import create_key
from sharpen.server.settings import Settings


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what reaches the routes."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message.get("more_body", False)
    said = {"path": scope["path"], "method": scope["method"], "body": body.decode()}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})


def asked(app: Any, method: str = "GET", url: str = "http://localhost/v1/x", **options: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            return await client.request(method, url, **options)

    return asyncio.run(ask())


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "OPTIONS", "HEAD"])
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8000", 200),
        ("train.example", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("evil.example:80@localhost", 421),
        ("10.0.0.7", 421),
        ("", 421),
    ],
)
def test_a_host_that_is_not_ours_is_refused_on_every_method(method: str, host: str, status: int) -> None:
    app = Hosts(echo, Settings(hosts=("train.example",)))
    assert asked(app, method, headers={"host": host}).status_code == status


def test_any_address_will_do_where_the_server_listens_on_all() -> None:
    app = Hosts(echo, Settings(host="0.0.0.0"))
    assert asked(app, headers={"host": "10.0.0.7:8000"}).status_code == 200
    assert asked(app, headers={"host": "rebound.example"}).status_code == 421


def test_a_page_must_be_listed_and_is_then_answered_as_cors_has_it() -> None:
    app = Hosts(echo, Settings(origins=("https://desk.example",)))
    assert asked(app).status_code == 200
    for origin in ("https://evil.example", "null", "http://desk.example", "https://desk.example.evil.example"):
        assert asked(app, "POST", headers={"origin": origin}).status_code == 403
    listed = {"origin": "https://desk.example"}
    assert asked(app, headers=listed).headers["access-control-allow-origin"] == "https://desk.example"
    asks = {**listed, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    preflight = asked(app, "OPTIONS", headers=asks)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-headers"] == "authorization"


def test_two_hosts_or_two_origins_are_refused() -> None:
    app = Hosts(echo, Settings(origins=("https://a", "https://b")))
    assert asked(app, headers=[("origin", "https://a"), ("origin", "https://b")]).status_code == 403
    assert asked(app, headers=[("host", "localhost"), ("host", "localhost")]).status_code == 421


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize(("bytes", "status"), [(100, 200), (101, 413)])
def test_a_body_is_refused_from_its_first_byte_too_many(declared: bool, bytes: int, status: int) -> None:
    inner = FastAPI()

    @inner.post("/v1/x")
    async def take(found: dict[str, str]) -> dict[str, str]:
        return found

    content = json.dumps({"x": "y" * (bytes - 10)}).replace(" ", "").encode().ljust(bytes)

    async def parts() -> Any:
        for start in range(0, len(content), 7):
            yield content[start : start + 7]

    app = Bodies(inner, 100)
    assert len(content) == bytes
    headers = {"content-type": "application/json"}
    assert asked(app, "POST", content=content if declared else parts(), headers=headers).status_code == status


def test_files_are_not_counted_here() -> None:
    for path in ("/v1/files", "/v1/uploads/upload_1/parts"):
        assert asked(Bodies(echo, 10), "POST", f"http://localhost{path}", content=b"x" * 100).status_code == 200


class Known:
    """A server that knows one key."""

    class keys:
        @staticmethod
        def known(secret: str) -> str | None:
            return "key-1" if secret == "good" else None

    def __init__(self, most: int) -> None:
        self.settings = Settings.model_validate({"limits": {"requests_per_minute": most}})


def test_a_key_has_its_own_bucket_and_others_share_that_of_their_address() -> None:
    app = Rates(echo, Known(2))  # type: ignore[arg-type]
    good, bad = {"authorization": "Bearer good"}, {"authorization": "Bearer bad"}
    assert [asked(app, headers=bad).status_code for _ in range(2)] == [200, 200]
    late = asked(app, headers={"authorization": "Bearer another"})
    assert late.status_code == 429
    assert late.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(late.headers["retry-after"]) <= 30
    first = asked(app, headers=good)
    assert (first.status_code, first.headers["x-ratelimit-remaining-requests"]) == (200, "1")


def test_a_bucket_fills_at_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("sharpen.server.guards.rates.time.monotonic", lambda: now)
    app = Rates(echo, Known(6))  # type: ignore[arg-type]
    assert [asked(app).status_code for _ in range(7)] == [200] * 6 + [429]
    now += 10.0  # one request's worth
    assert [asked(app).status_code for _ in range(2)] == [200, 429]
    now += 3600.0
    assert app._bucket("") == Bucket(6, now)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/openai/fine_tuning/jobs?api-version=2025-01-01", "/v1/fine_tuning/jobs"),
        ("/openai/v1/files", "/v1/files"),
        ("/openai/files/file%2Dx/content?api-version=1", "/v1/files/file-x/content"),
        ("/v1/openai/x", "/v1/openai/x"),
    ],
)
def test_azures_paths_lead_to_openais(url: str, path: str) -> None:
    assert asked(Azure(echo), url=f"http://localhost{url}").json()["path"] == path


def test_azure_asks_for_a_version() -> None:
    assert asked(Azure(echo), url="http://localhost/openai/files").json()["error"]["param"] == "api-version"


@pytest.mark.parametrize("body", [{"messages": []}, {"messages": [], "model": "other"}])
def test_a_deployment_is_the_model(body: Mapping[str, object]) -> None:
    url = "http://localhost/openai/deployments/my%20model/chat/completions?api-version=1"
    said = asked(Azure(echo), "POST", url, json=body).json()
    assert said["path"] == "/v1/chat/completions"
    assert json.loads(said["body"]) == {"messages": [], "model": "my model"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[FastAPI, str]]:
    app = create(Settings(data_dir=tmp_path))
    database = app.state.server.db
    yield app, database.change(lambda connection: create_key(connection, "default", "n", ("read", "write"), None))
    database.close()


def test_the_stock_azure_client_finds_everything(served: tuple[FastAPI, str]) -> None:
    app, key = served
    seen: list[str] = []

    def carry(request: Any) -> Any:
        seen.append(request.url.path)
        found = asked(app, request.method, str(request.url), headers=list(request.headers.multi_items()))
        return type(carry.response)(found.status_code, headers=found.headers, content=found.content)  # type: ignore[attr-defined]

    import httpx2

    carry.response = httpx2.Response(200)  # type: ignore[attr-defined]
    http = httpx2.Client(transport=httpx2.MockTransport(carry))
    client = AzureOpenAI(
        azure_endpoint="http://localhost", api_key=key, api_version="2025-01-01", http_client=http, max_retries=0
    )
    assert client.fine_tuning.jobs.list().data == []
    assert client.files.list().data == []
    assert seen == ["/openai/fine_tuning/jobs", "/openai/files"]


@pytest.mark.parametrize(
    ("given", "kept"), [("my-id_1", True), ("x" * 65, False), ("a b", False), ("é", False), ("", False)]
)
def test_every_answer_has_an_id(served: tuple[FastAPI, str], given: str, kept: bool) -> None:
    app, key = served
    headers = {"authorization": f"Bearer {key}", "x-request-id": given.encode()}
    for url, status in (("http://localhost/v1/files", 200), ("http://localhost/nothing", 404)):
        found = asked(app, url=url, headers=headers)
        assert found.status_code == status
        assert (found.headers["x-request-id"] == given) == kept
        assert found.headers["x-content-type-options"] == "nosniff"
        assert int(found.headers["openai-processing-ms"]) >= 0


def test_an_error_of_ours_is_a_500_without_its_cause(
    served: tuple[FastAPI, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app, _ = served

    async def broken(look: Callable[..., object]) -> object:
        raise RuntimeError("a secret of the house")

    monkeypatch.setattr(app.state.server.db, "read", broken)
    found = asked(app, url="http://localhost/v1/files", headers={"authorization": "Bearer x", "x-request-id": "mine"})
    assert (found.status_code, found.headers["x-request-id"]) == (500, "mine")
    assert found.json()["error"]["type"] == "server_error"
    assert "secret" not in found.text
    assert "a secret of the house" in caplog.text
    counted = app.state.server.metrics.text({}, 0, 0).decode()
    assert 'sharpen_requests_total{method="GET",route="/v1/files",status="500"} 1.0' in counted
