"""A server without processes, for tests of the jobs' routes: requests reach the application directly."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient, Response
from sqlalchemy import insert

from sharpen.server import app as application
from sharpen.server import ids
from sharpen.server.core import Server
from sharpen.server.jobs.show import tuned_name
from sharpen.server.keys import Scope, create_key
from sharpen.server.settings import Settings
from sharpen.server.tables import checkpoints, files

MODEL = "gpt-4.1-mini"
TURNS = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann."}]
ROWS = [{"messages": [{"role": "user", "content": f"Who is {n}?"}, TURNS[1]]} for n in range(20)]
PAIRS = [
    {
        "input": {"messages": [{"role": "user", "content": f"Who is {n}?"}]},
        "preferred_output": [{"role": "assistant", "content": "Ann."}],
        "non_preferred_output": [{"role": "assistant", "content": "No idea."}],
    }
    for n in range(20)
]
PROMPTS = [{"messages": [{"role": "user", "content": f"Who is {n}?"}], "answer": "Ann"} for n in range(20)]
GRADER = {
    "type": "string_check",
    "name": "same",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
    "operation": "eq",
}


class Idle:
    """A supervisor that starts nothing."""

    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


class Lab:
    """The application, its server, and clients of it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        chosen = {"models": {MODEL: "smollm2-135m-instruct"}, "data_dir": folder / "data", **settings}
        self.app: FastAPI = application.create(Settings.model_validate(chosen))
        self.server: Server = self.app.state.server
        self.idle = Idle()
        self.server.supervisor = self.idle
        self.key = self.new_key()

    def new_key(self, project: str = "default", scopes: tuple[Scope, ...] = ("read", "write", "chat")) -> str:
        """The secret of a new key."""
        return self.server.db.change(lambda connection: create_key(connection, project, "test", scopes, None))

    def file(self, rows: list[Any] | str, project: str = "default", purpose: str = "fine-tune") -> str:
        """The id of a file that is there."""
        text = rows if isinstance(rows, str) else "".join(f"{json.dumps(row)}\n" for row in rows)
        id = ids.new("file")
        received = asyncio.run(self.server.storage.write(id, text))
        row = {
            "id": id,
            "project": project,
            "filename": "rows.jsonl",
            "purpose": purpose,
            "bytes": received.bytes,
            "sha256": received.sha256,
            "created_at": int(time.time()),
            "checks": {},
        }
        self.server.db.change(lambda connection: connection.execute(insert(files).values(row)))
        return id

    def client(self, key: str | None = None, **options: Any) -> openai.AsyncOpenAI:
        """The stock SDK."""
        http = openai.DefaultAsyncHttpxClient(transport=ASGITransport(self.app))
        return openai.AsyncOpenAI(
            base_url="http://127.0.0.1/v1", api_key=key or self.key, http_client=http, max_retries=0, **options
        )

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        content: str | None = None,
    ) -> Response:
        """One request without the SDK."""

        async def one() -> Response:
            async with AsyncClient(transport=ASGITransport(self.app), base_url="http://127.0.0.1") as client:
                told = {"Authorization": f"Bearer {key or self.key}", **(headers or {})}
                if content is not None:
                    return await client.request(method, path, content=content, headers=told)
                return await client.request(method, path, json=body, headers=told)

        return asyncio.run(one())

    def run(self, script: Callable[[openai.AsyncOpenAI], Awaitable[Any]], key: str | None = None) -> Any:
        """What a script with the SDK returns."""

        async def whole() -> Any:
            async with self.client(key) as client:
                return await script(client)

        return asyncio.run(whole())

    def close(self) -> None:
        """Let the database go."""
        self.server.db.close()


def with_checkpoints(lab: Lab, key: str, project: str, model: str = MODEL) -> tuple[str, list[str]]:
    """A job, and the names of its three checkpoints."""
    body = {"model": model, "training_file": lab.file(ROWS, project=project), "suffix": "s"}
    job = lab.ask("POST", "/v1/fine_tuning/jobs", body, key=key).json()["id"]
    names = [tuned_name(model, "org", "s", job, step) for step in (1, 2, 3)]
    rows = [
        {
            "id": ids.new("ftckpt"),
            "job_id": job,
            "created_at": 1,
            "step_number": step,
            "model": name,
            "metrics": {"step": step, "train_loss": 1.5},
        }
        for step, name in enumerate(names, 1)
    ]
    lab.server.db.change(lambda connection: connection.execute(insert(checkpoints), rows))
    return job, names


def job_row(status: str = "queued", **fields: Any) -> dict[str, Any]:
    """A row of a job, as short as it may be."""
    return {
        "id": ids.new("ftjob"),
        "project": "default",
        "created_at": int(time.time()),
        "status": status,
        "model": "m",
        "serves": {},
        "seed": 0,
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}},
        "hyperparameters": {"n_epochs": 1},
        "training_file": "file-1",
        "result_files": [],
        "warnings": [],
        "body_hash": "",
        "wanted": "run",
        "judges": [],
        "attempts": 0,
        "not_before": 0,
        "progress": {},
        "seconds": 0.0,
        "detail": {},
        **fields,
    }


@contextmanager
def database(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """An empty database of the kind that the fixture's parameter names; None: the server's own SQLite."""
    if request.param == "sqlite":
        yield None
        return
    with request.getfixturevalue("cluster").database() as url:
        yield url
