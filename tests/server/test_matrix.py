"""Every route with no key, a wrong one, another project's and one that may only read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute
from sqlalchemy import insert

from sharpen.server import ids
from sharpen.server.app import ROUTERS
from sharpen.server.tables import checkpoints, models
from tests.server.jobs_lab import MODEL, ROWS, Lab

ROUTES = [
    (method, route.path)
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in sorted(route.methods or ())
]

OPEN = {("GET", "/healthz"), ("HEAD", "/healthz")}
"""Those that ask for no key."""

ADMIN = {("GET", "/metrics")}

ASKING = [one for one in ROUTES if one not in OPEN and one[1] != "/{path:path}"]

TUNED = "ft:gpt-4.1-mini:sharpen:mine:abc"
BODIES: dict[str, Any] = {
    "/v1/fine_tuning/checkpoints/{checkpoint:path}/permissions": {"project_ids": ["third"]},
    "/v1/uploads/{upload_id}/complete": {"part_ids": ["part_none"]},
    "/v1/chat/completions": {"model": TUNED, "messages": [{"role": "user", "content": "Who?"}]},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, dict[str, str]]]:
    """A server on which the project `default` has one of everything, and the ids of it all."""
    lab = Lab(tmp_path_factory.mktemp("matrix"))
    file = lab.file(ROWS)
    job = lab.ask("POST", "/v1/fine_tuning/jobs", {"model": MODEL, "training_file": file}).json()["id"]
    upload = {"filename": "a", "purpose": "fine-tune", "bytes": 9, "mime_type": "text/jsonl"}
    BODIES["/v1/fine_tuning/jobs"] = {"model": MODEL, "training_file": file, "suffix": "again"}
    BODIES["/v1/uploads"] = upload
    now = int(time.time())
    row = {"id": TUNED, "project": "default", "created_at": now, "job_id": job, "path": "runs/x", "base": MODEL}
    step = {"id": ids.new("ftckpt"), "job_id": job, "created_at": now, "step_number": 1, "metrics": {}}
    lab.server.db.change(lambda connection: connection.execute(insert(models).values(row)))
    lab.server.db.change(
        lambda connection: connection.execute(insert(checkpoints).values({**step, "model": f"{TUNED}:ckpt-step-1"}))
    )
    made = {
        "file_id": file,
        "fine_tuning_job_id": job,
        "upload_id": lab.ask("POST", "/v1/uploads", upload).json()["id"],
        "checkpoint:path": TUNED,
        "id:path": TUNED,
    }
    granted = lab.ask("POST", filled("/v1/fine_tuning/checkpoints/{checkpoint:path}/permissions", made), GRANT)
    made["permission_id"] = granted.json()["data"][0]["id"]
    yield lab, made
    lab.close()


GRANT = BODIES["/v1/fine_tuning/checkpoints/{checkpoint:path}/permissions"]


def filled(path: str, made: dict[str, str]) -> str:
    for name, value in made.items():
        path = path.replace(f"{{{name}}}", value)
    assert "{" not in path, f"{path}: the fixture makes no such object; add one"
    return path


def body_of(method: str, path: str) -> Any:
    return None if method in ("GET", "DELETE") else BODIES.get(path, {})


@pytest.mark.parametrize(("method", "path"), ASKING)
@pytest.mark.parametrize("sent", [{}, {"Authorization": "Bearer sk-wrong"}, {"api-key": "sk-wrong"}])
def test_no_key_and_a_wrong_one_open_nothing(
    site: tuple[Lab, dict[str, str]], method: str, path: str, sent: dict[str, str]
) -> None:
    lab, made = site
    headers = {"Authorization": "", **sent}
    found = lab.ask(method, filled(path, made), body_of(method, path), headers=headers)
    assert (found.status_code, found.json()["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(("method", "path"), ASKING)
def test_a_key_that_may_only_read_changes_nothing(site: tuple[Lab, dict[str, str]], method: str, path: str) -> None:
    lab, made = site
    found = lab.ask(method, filled(path, made), body_of(method, path), key=lab.new_key(scopes=("read",)))
    if method == "GET" and (method, path) not in ADMIN:
        assert found.status_code == 200
    else:
        assert (found.status_code, found.json()["error"]["code"]) == (403, "insufficient_permissions")


@pytest.mark.parametrize(("method", "path"), [one for one in ASKING if "{" in one[1] or "chat" in one[1]])
def test_what_another_project_has_is_not_there(site: tuple[Lab, dict[str, str]], method: str, path: str) -> None:
    lab, made = site
    stranger = lab.new_key("stranger")
    found = lab.ask(method, filled(path, made), body_of(method, path), key=stranger)
    never = lab.ask(method, filled(path, {name: f"{value[:-1]}0" for name, value in made.items()}),
                    body_of(method, path), key=stranger)  # fmt: skip
    assert found.status_code == never.status_code == 404
    said, other = found.json()["error"], never.json()["error"]
    assert {**said, "message": ""} == {**other, "message": ""}, "the same as of an id that never was"


@pytest.mark.parametrize("path", sorted({path for method, path in ASKING if method == "GET" and "{" not in path}))
def test_lists_of_another_project_are_empty(site: tuple[Lab, dict[str, str]], path: str) -> None:
    lab, made = site
    found = lab.ask("GET", path, key=lab.new_key("stranger", ("read", "admin")))
    assert found.status_code == 200
    assert not any(value in found.text for value in made.values())


def test_a_file_of_another_project_trains_nothing(site: tuple[Lab, dict[str, str]]) -> None:
    lab, made = site
    body = {"model": MODEL, "training_file": made["file_id"]}
    found = lab.ask("POST", "/v1/fine_tuning/jobs", body, key=lab.new_key("stranger"))
    assert (found.status_code, found.json()["error"]["param"]) == (400, "training_file")
