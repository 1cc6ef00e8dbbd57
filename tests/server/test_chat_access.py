"""Who may ask which model, and delete it; a fake worker answers, so that this is about the server alone."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, select, update

from sharpen.server.app import create
from sharpen.server.core import Server
from sharpen.server.grading import tokens
from sharpen.server.keys import Scope, create_key
from sharpen.server.serving import link
from sharpen.server.settings import Settings
from sharpen.server.tables import audit, jobs, models

SAY = [{"role": "user", "content": "hello"}]
FAKE = (sys.executable, "-S", str(Path(__file__).parent / "fake_worker.py"))


class Lab:
    """The application without HTTP, on a loop of its own."""

    def __init__(self, folder: Path) -> None:
        for name in ("base", "judge"):
            (folder / name).mkdir()
        settings = {
            "data_dir": folder / "data",
            "models": {"small": str(folder / "base")},
            "judges": {"gpt-4o": str(folder / "judge"), "gpt-5": {"base_url": "http://127.0.0.1:9", "model": "x"}},
            "limits": {"chat_queue": 3},
        }
        self.app = create(Settings.model_validate(settings))
        self.server: Server = self.app.state.server
        self.loop = asyncio.new_event_loop()
        self.run(self.server.workers.start())

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def write(self, change: Any) -> Any:
        return self.run(self.server.db.write(change))

    def key(self, scopes: Sequence[Scope] = ("read", "write", "chat"), project: str = "a") -> str:
        found: str = self.write(lambda connection: create_key(connection, project, "test", tuple(scopes), None))
        return found

    async def _ask(self, key: str, method: str, path: str, body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        content = None if body is None else json.dumps(body)  # with escapes for what is no text
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, content=content, headers=headers)

    def ask(self, key: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        response = self.run(self._ask(key, method, path, body))
        return response.status_code, response.json()

    def chat(self, key: str, model: str, **more: Any) -> tuple[int, Any]:
        body = {"model": model, "messages": SAY, "max_tokens": 2} | more
        return self.ask(key, "POST", "/v1/chat/completions", body)

    def tune(self, project: str = "a") -> Path:
        path = self.server.settings.data_dir / "runs/ftjob-1/models/sft"
        path.mkdir(parents=True)
        (path / "model.safetensors").write_bytes(b"weights")
        row = {"id": "ft:small:org::1", "project": project, "created_at": 5, "job_id": "ftjob-1"}
        row |= {"path": "runs/ftjob-1/models/sft", "base": "small", "parameters": 9}
        self.write(lambda connection: connection.execute(insert(models).values(row)))
        return path


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setattr(link, "COMMAND", FAKE)
    lab = Lab(tmp_path)
    yield lab
    lab.run(lab.server.workers.stop())
    lab.server.db.close()
    lab.loop.close()


def test_chat_needs_its_scope(lab: Lab) -> None:
    assert lab.chat("sk-wrong", "small")[0] == 401
    assert lab.chat(lab.key(["read", "write"]), "small")[0] == 403
    status, found = lab.chat(lab.key(["chat"]), "small")
    assert status == 200 and found["choices"][0]["message"]["content"] == "0 1 "


def test_a_judges_token_opens_its_judges_alone_and_nothing_else_opens_them(lab: Lab) -> None:
    token = tokens.issue(lab.server.secret, "ftjob-1", "a", ["judge:gpt-4o"], time.time() + 60)
    assert lab.chat(token, "judge:gpt-4o")[0] == 200
    for name in ("small", "gpt-4o", "judge:gpt-5", "judge:small"):
        assert lab.chat(token, name)[0] == 404
    assert lab.ask(token, "GET", "/v1/models")[0] == 403
    for name in ("judge:gpt-4o", "gpt-4o"):
        assert lab.chat(lab.key(), name)[1]["error"]["code"] == "model_not_found"
    late = tokens.issue(lab.server.secret, "ftjob-1", "a", ["judge:gpt-4o"], time.time() - 1)
    assert lab.chat(late, "judge:gpt-4o")[0] == 401


def test_a_tuned_model_answers_is_listed_and_is_another_projects_secret(lab: Lab) -> None:
    lab.tune()
    mine, theirs = lab.key(), lab.key(project="b")
    name = "ft:small:org::1"
    assert lab.chat(mine, name)[0] == 200 and lab.chat(theirs, name)[0] == 404
    shown = lab.ask(mine, "GET", f"/v1/models/{name}")[1]
    assert (shown["created"], shown["owned_by"], shown["sharpen"]["base"]) == (5, "sharpen", "small")
    assert lab.ask(mine, "GET", "/v1/models")[1]["data"][0] == shown
    assert name not in str(lab.ask(theirs, "GET", "/v1/models")[1])
    for method in ("GET", "DELETE"):
        assert lab.ask(theirs, method, f"/v1/models/{name}")[0] == 404


def test_deleting_frees_the_disk_and_is_written_down(lab: Lab) -> None:
    path = lab.tune()
    key, name = lab.key(), "ft:small:org::1"
    assert lab.chat(key, name)[0] == 200
    assert lab.ask(lab.key(["read", "chat"]), "DELETE", f"/v1/models/{name}")[0] == 403
    assert lab.ask(key, "DELETE", f"/v1/models/{name}") == (200, {"id": name, "object": "model", "deleted": True})
    assert not path.exists() and lab.server.workers.loaded() == {}
    assert lab.chat(key, name)[0] == 404
    rows = lab.server.db.look(lambda connection: connection.execute(select(audit)).all())
    assert [(row.action, row.object, row.project) for row in rows if row.action == "model.delete"] == [
        ("model.delete", name, "a")
    ]


def test_what_a_job_needs_is_not_deleted(lab: Lab) -> None:
    path = lab.tune()
    key, name = lab.key(), "ft:small:org::1"
    job: dict[str, Any] = {column.name: None for column in jobs.c}
    job |= {"id": "ftjob-2", "project": "a", "created_at": 1, "status": "queued", "model": name, "serves": {}}
    job |= {"seed": 1, "method": {}, "hyperparameters": {}, "training_file": "file-1", "result_files": []}
    job |= {"warnings": [], "body_hash": "", "wanted": "run", "judges": [], "attempts": 0, "not_before": 0}
    job |= {"progress": {}, "seconds": 0, "detail": {}, "attempt": 0, "made_at": 1.0, "facts": {}}
    lab.write(lambda connection: connection.execute(insert(jobs).values(job)))
    status, found = lab.ask(key, "DELETE", f"/v1/models/{name}")
    assert status == 409 and "ftjob-2" in found["error"]["message"] and path.exists()
    lab.write(lambda connection: connection.execute(update(jobs).values(status="failed")))
    assert lab.ask(key, "DELETE", f"/v1/models/{name}")[0] == 200


def test_too_many_at_once_are_told_when_to_come_back(lab: Lab) -> None:
    status, found = lab.chat(lab.key(), "small", n=4)
    assert (status, found["error"]["type"], found["error"]["code"]) == (429, "rate_limit_error", "model_busy")


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"messages": [{"role": "user", "content": "x", "name": "\udfff"}]},
        {"tools": [{"type": "function", "function": {"name": "f", "description": "\ud800"}}]},
        {"stop": "\ud800"},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": "x"}}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [7]}]},
        {"messages": ["x"]},
        {"messages": [{"role": "user", "content": [7]}]},
        {"messages": [{"role": "user", "content": "x", "colour": "red"}]},
        {"seed": 2**70},
        {"temperature": "hot"},
        {"response_format": {}},
        {"max_tokens": 3, "max_completion_tokens": 4},
    ],
)
def test_no_body_is_a_500(lab: Lab, body: dict[str, Any]) -> None:
    status, found = lab.chat(lab.key(), "small", **body)
    assert status == 400 and found["error"]["message"]
