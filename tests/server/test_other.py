"""Paths that are not the API's own: health, figures, what OpenAI has besides, and what nobody has."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Connection

from tests.server.jobs_lab import MODEL, ROWS, Lab

SDK = Path(openai.__file__).parent / "resources"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("other"))
    yield made
    made.close()


# Health and figures


def test_health_needs_no_key_and_fails_with_the_database(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = lab.ask("GET", "/healthz", headers={"Authorization": ""})
    assert (healthy.status_code, healthy.json()) == (200, {"status": "ok", "database": "ok"})
    assert lab.ask("HEAD", "/healthz").status_code == 200

    async def broken(look: Callable[[Connection], Any]) -> Any:
        raise OSError("postgresql://ann:secret@db is away")

    monkeypatch.setattr(lab.server.db, "write", broken)
    failing = lab.ask("GET", "/healthz")
    assert failing.status_code == 503 and failing.json() == {"status": "failing", "database": "failing"}


def test_figures_are_for_admins_and_count_requests_and_jobs(lab: Lab) -> None:
    assert lab.ask("GET", "/metrics").status_code == 403
    assert lab.ask("GET", "/metrics", key="sk-wrong").status_code == 401
    admin = lab.new_key(scopes=("admin",))
    before = figures(lab, admin)
    lab.ask("POST", "/v1/fine_tuning/jobs", {"model": MODEL, "training_file": lab.file(ROWS)})
    for n in range(3):
        lab.ask("GET", f"/v1/files/file-{n}")
        lab.ask("GET", f"/v1/no/{n}")
    after = figures(lab, admin)

    def grown(name: str, **labels: str) -> float:
        key = (name, frozenset(labels.items()))
        return after.get(key, 0.0) - before.get(key, 0.0)

    assert grown("sharpen_requests_total", route="/v1/files/{file_id}", method="GET", status="404") == 3
    assert grown("sharpen_requests_total", route="/v1/fine_tuning/jobs", method="POST", status="200") == 1
    assert grown("sharpen_request_seconds_count", route="/v1/files/{file_id}") == 3
    assert sum(grown("sharpen_jobs", status=status) for status in ("validating_files", "queued")) == 1
    assert not [name for name, labels in after if any("/v1/no/" in value or "file-" in value for _, value in labels)]


def figures(lab: Lab, key: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """As Prometheus's own parser reads them."""
    text = lab.ask("GET", "/metrics", key=key).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


# Everything else


def sdk_paths() -> set[str]:
    """The first words of all paths in the source of the stock SDK."""
    text = "".join(path.read_text("utf-8") for path in SDK.rglob("*.py"))
    return {
        found.split("/")[0] for found in re.findall(r'(?:path_template\(\s*|self\._\w+\(\s*)f?"/([a-z_]+[^"]*)"', text)
    }


def test_every_path_of_the_sdk_is_served_or_said_not_to_be(lab: Lab) -> None:
    words = sdk_paths()
    assert {"responses", "embeddings", "files", "vector_stores"} <= words
    for word in words - {"files", "uploads", "fine_tuning", "models", "chat"}:
        for path in (f"/v1/{word}", f"/v1/{word}/x/y"):
            answer = lab.ask("POST", path, {"model": MODEL})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_supported"), path
            assert "chat/completions" in answer.json()["error"]["message"]


def test_the_sdk_understands_what_is_not_here(lab: Lab) -> None:
    async def script(client: openai.AsyncOpenAI) -> None:
        calls: list[Awaitable[Any]] = [
            client.responses.create(model=MODEL, input="hi"),
            client.embeddings.create(model=MODEL, input="hi"),
            client.completions.create(model=MODEL, prompt="hi"),
            client.images.generate(model=MODEL, prompt="hi"),
            client.audio.speech.create(model=MODEL, input="hi", voice="alloy"),
            client.moderations.create(input="hi"),
            client.batches.create(completion_window="24h", endpoint="/v1/embeddings", input_file_id="file-a"),
            client.vector_stores.create(),
            client.evals.retrieve("eval_a"),
            client.containers.create(name="a"),
            client.chat.completions.retrieve("chatcmpl-a"),
        ]
        for call in calls:
            with pytest.raises(openai.NotFoundError) as refused:
                await call
            assert refused.value.code == "not_supported" and refused.value.type == "invalid_request_error"

    lab.run(script)


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v2/files", "/v1/files/", "/v1/file", "/v1//files", "/v1/fine_tuning/x"]
)
def test_a_path_that_nobody_has_is_unknown(path: str, lab: Lab) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = lab.ask(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
        assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/files", "GET, POST"),
        ("PATCH", "/v1/files/file-a", "DELETE, GET"),
        ("GET", "/v1/chat/completions", "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/fine_tuning/jobs/ftjob-a/cancel", "POST"),
        ("POST", "/metrics", "GET"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
def test_a_method_that_a_path_has_not_is_told_those_that_it_has(method: str, path: str, allowed: str, lab: Lab) -> None:
    answer = lab.ask(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json()["error"]["code"] == "method_not_allowed"
