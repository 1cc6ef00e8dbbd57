"""Files through the stock SDK and byte by byte, over a live server."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings, strategies
from sqlalchemy import insert, select, update

from sharpen.server import filing, ids
from sharpen.server import storage as storage_module
from sharpen.server.housekeeping import Housekeeping
from sharpen.server.storage import Storage
from sharpen.server.tables import audit, files, jobs
from tests.server.files_lab import EDGE, END, FILE, PURPOSE, ROW, TYPE, House, house, part, wait
from tests.server.jobs_lab import job_row


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with ExitStack() as stack:
        url = None
        if request.param == "postgresql":
            url = stack.enter_context(request.getfixturevalue("cluster").database())
        yield stack.enter_context(house(tmp_path_factory.mktemp("files"), database=url))


def error_of(response: httpx2.Response, status: int = 400) -> dict[str, Any]:
    assert response.status_code == status, response.text
    told: dict[str, Any] = response.json()["error"]
    return told


def test_a_file_goes_up_is_shown_read_and_deleted(lab: House) -> None:
    client = lab.client()
    data = (ROW + "\n").encode() * 3
    made = client.files.create(file=("train.jsonl", data), purpose="fine-tune")
    assert (made.object, made.bytes, made.filename, made.purpose) == ("file", len(data), "train.jsonl", "fine-tune")
    assert made.status == "processed" and made.expires_at is None and abs(made.created_at - time.time()) < 60
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).read() == data
    assert lab.server.storage.path(made.id).read_bytes() == data
    row = lab.server.db.look(lambda connection: connection.execute(select(files).where(files.c.id == made.id)).one())
    assert row.sha256 == sha256(data).hexdigest()
    gone = client.files.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "file", True)
    for again in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            again(made.id)
    assert made.id not in lab.on_disk()
    actions = lab.server.db.look(
        lambda connection: (
            connection.execute(select(audit.c.action).where(audit.c.object == made.id).order_by(audit.c.seq))
            .scalars()
            .all()
        )
    )
    assert actions == ["file.create", "file.delete"]


def test_lists_are_paged_and_filtered_by_purpose(lab: House) -> None:
    client = lab.client(lab.new_key("pages"))
    made = [client.files.create(file=(f"{n}.txt", b"x"), purpose="evals" if n % 2 else "batch") for n in range(5)]
    by_age = [file.id for file in sorted(made, key=lambda file: (file.created_at, file.id))]
    assert [file.id for file in client.files.list(order="asc")] == by_age
    assert [file.id for file in client.files.list(limit=2)] == by_age[::-1]
    assert {file.id for file in client.files.list(purpose="evals")} == {made[1].id, made[3].id}
    assert [file.id for file in client.files.list(order="asc", after=by_age[3])] == by_age[4:]
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.list(after="file-none")
    assert refused.value.param == "after"
    for limit in (0, 10_001):
        with pytest.raises(openai.BadRequestError):
            client.files.list(limit=limit)


def test_another_project_sees_nothing_of_a_file(lab: House) -> None:
    made = lab.client().files.create(file=("a.jsonl", ROW.encode()), purpose="fine-tune")
    other = lab.client(lab.new_key("other"))
    for ask in (other.files.retrieve, other.files.content, other.files.delete):
        with pytest.raises(openai.NotFoundError) as refused:
            ask(made.id)
        assert refused.value.code == "file_not_found"
    assert made.id not in [file.id for file in other.files.list()]
    assert lab.client().files.retrieve(made.id) == made


def test_a_key_that_only_reads_may_not_upload(lab: House) -> None:
    client = lab.client(lab.new_key(scopes=("read",)))
    with pytest.raises(openai.PermissionDeniedError):
        client.files.create(file=("a.jsonl", b"x"), purpose="fine-tune")
    assert len(client.files.list(limit=1).data) == 1


@pytest.mark.parametrize("path", ["file-none", "file-" + "x" * 24, "%00", "..%2f..%2fserver.db", "é" * 90])
def test_ids_that_are_none_are_not_found(lab: House, path: str) -> None:
    for method, end in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        assert lab.ask(method, f"/v1/files/{path}{end}").status_code == 404


def test_fields_come_in_any_order_and_in_pieces(lab: House) -> None:
    for whole in (PURPOSE + FILE + END, FILE + PURPOSE + END):
        pieces = iter([whole[at : at + 1] for at in range(len(whole))])
        made = lab.ask("POST", "/v1/files", content=pieces, headers=TYPE).json()
        assert lab.server.storage.path(made["id"]).read_bytes() == ROW.encode()


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (PURPOSE + FILE, None, "invalid_multipart_body"),
        (PURPOSE + FILE[:-20], None, "invalid_multipart_body"),
        (b"", None, "invalid_multipart_body"),
        (b"\xff\x00nothing of a form", None, "invalid_multipart_body"),
        (f"--{EDGE}\r\nno header\r\n\r\n".encode() + END, None, "invalid_multipart_body"),
        (f"--{EDGE}\r\nContent-Type: text/plain\r\n\r\nx\r\n".encode() + END, None, "invalid_multipart_body"),
        (PURPOSE + END, "file", "missing_required_parameter"),
        (FILE + END, "purpose", "missing_required_parameter"),
        (PURPOSE + FILE + FILE + END, "file", "invalid_value"),
        (PURPOSE + PURPOSE + FILE + END, "purpose", "invalid_value"),
        (PURPOSE + part("file", b"@train.jsonl") + END, "file", "invalid_value"),
        (part("purpose", b"fun") + FILE + END, "purpose", "invalid_value"),
        (part("purpose", b"fine-tune-results") + FILE + END, "purpose", "invalid_value"),
        (part("purpose", b"x" * 20_000) + FILE + END, "purpose", "invalid_value"),
        (part("colour", b"red") + PURPOSE + FILE + END, "colour", "unknown_parameter"),
        (PURPOSE + part("file", b"x", "..") + END, None, None),
        (PURPOSE + part("file", b"x", "") + END, "file", "invalid_value"),
        (part("expires_after[anchor]", b"now") + PURPOSE + FILE + END, "expires_after.anchor", "invalid_value"),
        (
            part("expires_after[anchor]", b"created_at") + part("expires_after[seconds]", b"5") + PURPOSE + FILE + END,
            "expires_after.seconds",
            "invalid_value",
        ),
    ],
)
def test_a_broken_form_is_refused_and_leaves_nothing(
    lab: House, body: bytes, param: str | None, code: str | None
) -> None:
    before = lab.on_disk()
    response = lab.ask("POST", "/v1/files", content=body, headers=TYPE)
    if code is None:  # a name that is one, if a strange one: it never reaches the disk
        assert response.json()["filename"] == ".." and lab.on_disk() - before == {response.json()["id"]}
        return
    told = error_of(response)
    assert (told["param"], told["code"]) == (param, code)
    assert lab.on_disk() == before


@settings(max_examples=60, deadline=None, derandomize=True)
@given(at=strategies.integers(0, 300), cut=strategies.integers(0, 30), more=strategies.binary(max_size=12))
def test_no_damage_to_a_form_is_the_servers_fault(lab: House, at: int, cut: int, more: bytes) -> None:
    whole = PURPOSE + FILE + END
    damaged = whole[:at] + more + whole[at + cut :]
    before = lab.on_disk()
    response = lab.ask("POST", "/v1/files", content=damaged, headers=TYPE)
    assert response.status_code in (200, 400), response.text
    assert lab.on_disk() - before == ({response.json()["id"]} if response.status_code == 200 else set())


@pytest.mark.parametrize("size", [1, 1_000, 2**18, 2**18 + 1, 2**20 + 7])
def test_bytes_that_look_like_the_forms_edge_are_kept(lab: House, size: int) -> None:
    """Boundaries that are almost there, wherever the pieces of the body end."""
    almost = f"\r\n--{EDGE}\r\r\n--{EDGE[:-1]}\r\n-".encode()
    data = (almost * (size // len(almost) + 1))[:size]
    body = PURPOSE + part("file", data, "odd") + END
    pieces = iter([body[at : at + 4_093] for at in range(0, len(body), 4_093)])
    made = lab.ask("POST", "/v1/files", content=pieces, headers=TYPE).json()
    assert lab.server.storage.path(made["id"]).read_bytes() == data


def test_an_empty_file_is_taken_and_a_part_of_one_is_sent(lab: House) -> None:
    client = lab.client()
    empty = client.files.create(file=("empty", b""), purpose="evals")
    assert empty.bytes == 0 and client.files.content(empty.id).read() == b""
    made = client.files.create(file=("digits", b"0123456789"), purpose="evals")
    response = lab.ask("GET", f"/v1/files/{made.id}/content", headers={"Range": "bytes=2-4"})
    assert (response.status_code, response.content) == (206, b"234")


@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data", "multipart/form-data; boundary=", "", f"x; boundary={EDGE}"]
)
def test_a_body_that_is_no_form_is_refused(lab: House, kind: str) -> None:
    response = lab.ask("POST", "/v1/files", content=PURPOSE + FILE + END, headers={"Content-Type": kind})
    assert error_of(response)["code"] == "invalid_content_type"


def test_a_name_keeps_its_letters_but_no_folders(lab: House) -> None:
    client = lab.client()
    assert client.files.create(file=("../../etc/žluť.jsonl", b"x"), purpose="evals").filename == "žluť.jsonl"
    assert client.files.create(file=("C:\\data\\a.jsonl", b"x"), purpose="evals").filename == "a.jsonl"
    assert len(client.files.create(file=("n" * 400, b"x"), purpose="evals").filename) == filing.NAME
    text = client.files.content(client.files.create(file=("žluť.jsonl", b"x"), purpose="evals").id)
    assert "attachment" in text.response.headers["content-disposition"]


def test_a_file_that_is_too_large_is_refused_by_its_length_and_by_its_bytes(tmp_path: Path) -> None:
    with house(tmp_path, limits={"file_bytes": 1_000}) as small:
        for content in (
            PURPOSE + part("file", b"x" * 100_000, "a") + END,
            iter([PURPOSE, part("file", b"x" * 1_001, "a"), END]),
        ):
            told = error_of(small.ask("POST", "/v1/files", content=content, headers=TYPE), 413)
            assert (told["code"], told["param"]) == ("file_too_large", "file")
        assert small.client().files.create(file=("a", b"x" * 1_000), purpose="evals").bytes == 1_000
        assert len(small.on_disk()) == 1


def test_a_full_disk_is_said_so_and_leaves_nothing(lab: House, monkeypatch: pytest.MonkeyPatch) -> None:
    before = lab.on_disk()
    monkeypatch.setattr(storage_module, "RESERVE", 2**62)
    response = lab.ask("POST", "/v1/files", content=PURPOSE + FILE + END, headers=TYPE)
    assert error_of(response, 503)["code"] == "insufficient_storage"
    assert int(response.headers["Retry-After"]) > 0
    assert lab.on_disk() == before


def test_a_client_that_vanishes_leaves_nothing(lab: House) -> None:
    before = lab.on_disk()
    host, port = lab.base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        head = (
            f"POST /v1/files HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {lab.key}\r\nContent-Length: 9000000\r\n"
        )
        line.sendall(
            f"{head}Content-Type: {TYPE['Content-Type']}\r\n\r\n".encode() + PURPOSE + FILE[:-2] + b"x" * 3_000_000
        )
        wait(lambda: lab.on_disk() > before)
    wait(lambda: lab.on_disk() == before)


def test_a_file_expires_for_everyone_and_then_leaves_the_disk(lab: House) -> None:
    client = lab.client(lab.new_key("expiry"))
    made = client.files.create(
        file=("a", b"x"), purpose="evals", expires_after={"anchor": "created_at", "seconds": 3_600}
    )
    assert made.expires_at == made.created_at + 3_600
    assert client.files.create(file=("b", b"x"), purpose="batch").expires_at is not None
    past = update(files).where(files.c.id == made.id).values(expires_at=int(time.time()) - 1)
    lab.server.db.change(lambda connection: connection.execute(past))
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)
    assert made.id not in [file.id for file in client.files.list()]
    asyncio.run(Housekeeping(lab.server.storage, lab.server.db).clean())
    assert made.id not in lab.on_disk()


def test_a_start_removes_what_a_crash_left_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    with house(tmp_path) as first:
        kept = first.client().files.create(file=("a", b"kept"), purpose="evals").id
    storage = Storage(tmp_path / "files")
    unfinished = storage.incoming(100)
    orphan = ids.new("file")
    asyncio.run(unfinished.write(b"half"))
    asyncio.run(storage.write(orphan, "in its place, but without a row"))
    asyncio.run(storage.mark([kept]))  # as a deletion that did not get as far as the row
    with house(tmp_path) as second:
        assert second.on_disk() == {kept}
        assert second.client().files.content(kept).read() == b"kept"


def test_a_file_that_an_unfinished_job_uses_stays(lab: House) -> None:
    client = lab.client()
    made = client.files.create(file=("a.jsonl", ROW.encode()), purpose="fine-tune")
    job = job_row("running", training_file=made.id)
    lab.server.db.change(lambda connection: connection.execute(insert(jobs).values(job)))
    with pytest.raises(openai.ConflictError) as refused:
        client.files.delete(made.id)
    assert refused.value.code == "file_in_use"
    assert client.files.content(made.id).read() == ROW.encode()
    done = update(jobs).where(jobs.c.id == job["id"]).values(status="succeeded")
    lab.server.db.change(lambda connection: connection.execute(done))
    assert client.files.delete(made.id).deleted
