"""Requests made from the server's own OpenAPI document, good ones and bad: none is answered with 5xx."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from bench.server.process import MODEL, Process
from tests.tiny import tiny_model

ROW = {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann."}]}
Ids = dict[str, str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Its trainers only wait."""
    folder = tmp_path_factory.mktemp("schemathesis")
    made = Process(folder / "server", str(tiny_model(folder / "model", num_hidden_layers=1)), cores=2)
    with made:
        yield made
    made.remove()


@pytest.fixture(scope="module")
def ids(server: Process) -> Ids:
    """Of objects that are there, by the names of parameters."""
    with _client(server) as client:
        sent = client.post("/files", files={"file": ("r.jsonl", json.dumps(ROW) * 1)}, data={"purpose": "fine-tune"})
        file = sent.json()["id"]
        job = client.post("/fine_tuning/jobs", json={"model": MODEL, "training_file": file}).json()["id"]
        told = {"filename": "r.jsonl", "purpose": "fine-tune", "bytes": 8, "mime_type": "text/jsonl"}
        upload = client.post("/uploads", json=told).json()["id"]
    return {"file_id": file, "training_file": file, "fine_tuning_job_id": job, "upload_id": upload, "model": MODEL}


def test_no_route_answers_5xx(server: Process, ids: Ids) -> None:
    _explore(server, ids, examples=8)


@pytest.mark.long
def test_no_route_answers_5xx_to_many(server: Process, ids: Ids) -> None:
    _explore(server, ids, examples=150)


def _explore(server: Process, ids: Ids, examples: int) -> None:
    """Ask every route so often."""
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    operations: list[Any] = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]
    for operation in operations:
        _ask(server, ids, operation, examples)
    with _client(server) as client:
        assert client.get("/models").status_code == 200
    asked = {operation.label for operation in operations}
    assert {"POST /v1/fine_tuning/jobs", "POST /v1/files", "POST /v1/chat/completions"} <= asked
    assert "Traceback" not in server.log()


def _ask(server: Process, ids: Ids, operation: Any, examples: int) -> None:
    """Every second time with ids that are there."""
    turns = itertools.count()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        if next(turns) % 2:
            _fill(case, ids)
        response = case.call(headers={"Authorization": f"Bearer {server.key}"}, timeout=60)
        assert response.status_code < 500, f"{case.as_curl_command()}\n{response.text}\n{server.log()[-2000:]}"

    ask()


def _fill(case: Any, ids: Ids) -> None:
    for place in (case.path_parameters, case.body):
        if isinstance(place, dict):
            place |= {name: id for name, id in ids.items() if name in place}


def _client(server: Process) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.key}"}, timeout=60)
