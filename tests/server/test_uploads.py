"""Uploads in parts, through the stock SDK and byte by byte, over a live server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import md5
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Upload
from sqlalchemy import select, update

from sharpen.server.housekeeping import Housekeeping
from sharpen.server.routes import uploads as routes
from sharpen.server.tables import upload_parts, uploads
from tests.server.files_lab import House, house

DATA = b"".join(f"row {n}\n".encode() for n in range(2_000))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with ExitStack() as stack:
        url = None
        if request.param == "postgresql":
            url = stack.enter_context(request.getfixturevalue("cluster").database())
        yield stack.enter_context(house(tmp_path_factory.mktemp("uploads"), database=url))


def begin(client: openai.OpenAI, size: int = len(DATA), **more: Any) -> Upload:
    return client.uploads.create(bytes=size, filename="a.jsonl", mime_type="text/jsonl", purpose="fine-tune", **more)


def test_the_sdk_sends_a_file_in_parts(lab: House, tmp_path: Path) -> None:
    client = lab.client()
    path = tmp_path / "large.jsonl"
    path.write_bytes(DATA)
    done = client.uploads.upload_file_chunked(
        file=path, mime_type="text/jsonl", purpose="fine-tune", part_size=5_000, md5=md5(DATA).hexdigest()
    )
    assert (done.status, done.bytes, done.filename, done.purpose) == (
        "completed",
        len(DATA),
        "large.jsonl",
        "fine-tune",
    )
    assert done.file is not None
    assert client.files.retrieve(done.file.id) == done.file
    assert client.files.content(done.file.id).read() == DATA
    rows = select(upload_parts).where(upload_parts.c.upload_id == done.id)
    assert lab.server.db.look(lambda connection: connection.execute(rows).all()) == []
    assert not any(name.startswith("part-") for name in lab.on_disk())


def test_parts_come_side_by_side_and_the_order_of_their_ids_counts(lab: House) -> None:
    client = lab.client()
    upload = begin(client)
    assert upload.status == "pending" and upload.expires_at == upload.created_at + 3_600 and upload.file is None
    pieces = [DATA[at : at + 4_000] for at in range(0, len(DATA), 4_000)]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda piece: client.uploads.parts.create(upload.id, data=piece), reversed(pieces)))
    assert {part.object for part in made} == {"upload.part"} and {part.upload_id for part in made} == {upload.id}
    done = client.uploads.complete(upload.id, part_ids=[part.id for part in reversed(made)])
    assert done.file is not None and client.files.content(done.file.id).read() == DATA


def test_a_part_sent_again_and_an_upload_completed_again_do_no_harm(lab: House) -> None:
    client = lab.client()
    upload = begin(client, 6)
    first = [client.uploads.parts.create(upload.id, data=b"abc") for _ in range(2)]
    last = client.uploads.parts.create(upload.id, data=b"def")
    ids = [first[1].id, last.id]
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: client.uploads.complete(upload.id, part_ids=ids), range(4)))
    assert done[0].file is not None and all(one == done[0] for one in done)
    assert client.files.content(done[0].file.id).read() == b"abcdef"
    assert not any(name.startswith("part-") for name in lab.on_disk())
    for late in (
        lambda: client.uploads.parts.create(upload.id, data=b"x"),
        lambda: client.uploads.cancel(upload.id),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            late()
        assert refused.value.code == "upload_completed"


def test_what_does_not_match_is_refused_and_can_be_mended(lab: House) -> None:
    client = lab.client()
    upload = begin(client, 6)
    good = client.uploads.parts.create(upload.id, data=b"abcdef").id
    short = client.uploads.parts.create(upload.id, data=b"abc").id
    for part_ids, sum_, code, param in (
        ([short], openai.omit, "upload_size_mismatch", "part_ids"),
        (["part-none"], openai.omit, "part_not_found", "part_ids[0]"),
        ([good], md5(b"other").hexdigest(), "checksum_mismatch", "md5"),
        ([good], "no md5", "invalid_value", "md5"),
        ([], openai.omit, "invalid_value", "part_ids"),
    ):
        before = lab.on_disk()
        with pytest.raises(openai.BadRequestError) as refused:
            client.uploads.complete(upload.id, part_ids=part_ids, md5=sum_)
        assert (refused.value.code, refused.value.param) == (code, param)
        assert lab.on_disk() == before
    assert client.uploads.complete(upload.id, part_ids=[good], md5=md5(b"abcdef").hexdigest().upper()).file


def test_parts_beyond_what_was_said_are_refused(lab: House) -> None:
    client = lab.client()
    upload = begin(client, 5)
    before = lab.on_disk()
    with pytest.raises(openai.BadRequestError) as refused:
        client.uploads.parts.create(upload.id, data=b"abcdef")
    assert refused.value.code == "upload_too_large"
    assert lab.on_disk() == before


def test_a_part_that_is_too_large_is_refused(lab: House, monkeypatch: pytest.MonkeyPatch) -> None:
    client = lab.client()
    upload = begin(client)
    monkeypatch.setattr(routes, "PART", 1_000)
    with pytest.raises(openai.APIStatusError) as refused:
        client.uploads.parts.create(upload.id, data=b"x" * 1_001)
    assert (refused.value.status_code, refused.value.code, refused.value.param) == (413, "file_too_large", "data")


def test_parts_outlive_a_restart(tmp_path: Path) -> None:
    with house(tmp_path) as first:
        upload = begin(first.client(), 6)
        parts = [first.client().uploads.parts.create(upload.id, data=data).id for data in (b"abc", b"def")]
    with house(tmp_path) as second:
        assert second.on_disk() == set(parts)
        done = second.client().uploads.complete(upload.id, part_ids=parts)
        assert done.file is not None and second.client().files.content(done.file.id).read() == b"abcdef"
        assert second.on_disk() == {done.file.id}


def test_a_cancelled_upload_loses_its_parts(lab: House) -> None:
    client = lab.client()
    upload = begin(client, 3)
    part = client.uploads.parts.create(upload.id, data=b"abc").id
    assert part in lab.on_disk()
    for _ in range(2):
        assert client.uploads.cancel(upload.id).status == "cancelled"
    assert part not in lab.on_disk()
    with pytest.raises(openai.BadRequestError) as refused:
        client.uploads.complete(upload.id, part_ids=[part])
    assert refused.value.code == "upload_cancelled"


def test_an_upload_that_nobody_finished_expires(lab: House) -> None:
    client = lab.client()
    upload = begin(client, 3)
    part = client.uploads.parts.create(upload.id, data=b"abc").id
    past = update(uploads).where(uploads.c.id == upload.id).values(expires_at=int(time.time()) - 1)
    lab.server.db.change(lambda connection: connection.execute(past))
    for late in (
        lambda: client.uploads.parts.create(upload.id, data=b"x"),
        lambda: client.uploads.complete(upload.id, part_ids=[part]),
        lambda: client.uploads.cancel(upload.id),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            late()
        assert refused.value.code == "upload_expired"
    asyncio.run(Housekeeping(lab.server.storage, lab.server.db).clean())
    assert part not in lab.on_disk()


def test_the_file_of_an_upload_expires_as_asked(lab: House) -> None:
    client = lab.client()
    upload = begin(client, 3, expires_after={"anchor": "created_at", "seconds": 7_200})
    part = client.uploads.parts.create(upload.id, data=b"abc").id
    done = client.uploads.complete(upload.id, part_ids=[part]).file
    assert done is not None and done.expires_at == done.created_at + 7_200


def test_another_project_finds_no_upload(lab: House) -> None:
    upload = begin(lab.client(), 3)
    other = lab.client(lab.new_key("other"))
    for ask in (
        lambda: other.uploads.parts.create(upload.id, data=b"abc"),
        lambda: other.uploads.complete(upload.id, part_ids=["part-x"]),
        lambda: other.uploads.cancel(upload.id),
    ):
        with pytest.raises(openai.NotFoundError) as refused:
            ask()
        assert refused.value.code == "upload_not_found"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"bytes": 0}, "bytes"),
        ({"bytes": "3"}, "bytes"),
        ({"bytes": 2**40}, "bytes"),
        ({"purpose": "fun"}, "purpose"),
        ({"filename": "/"}, "filename"),
        ({"filename": "a\x00"}, "filename"),
        ({"filename": "\ud800"}, "filename"),
        ({"mime_type": ""}, "mime_type"),
        ({"colour": "red"}, "colour"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds"),
    ],
)
def test_an_upload_that_cannot_be_is_refused(lab: House, change: dict[str, Any], param: str) -> None:
    body = {"bytes": 3, "filename": "a", "mime_type": "text/plain", "purpose": "fine-tune", **change}
    response = lab.ask("POST", "/v1/uploads", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert response.status_code == 400 and response.json()["error"]["param"] == param, response.text
