"""Exports to the hub: a server on this machine answers as the hub does when a repository is made and files are sent."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from sharpen.cli.main import main
from tests.export.worlds import byte_model

TOKEN = "hf_the_secret_token"
NOWHERE = "http://127.0.0.1:9"  # the port of `discard`: nothing listens


class Hub:
    """Who asked for what, and the files that were sent; `refuses` is the status of its answer to a new repository."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.tokens: set[str] = set()
        self.refuses = 0


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.hub.refuses:
            self._say(404, {"error": "Repository not found"})
            return
        self._say(200, {"id": "org/tiny", "siblings": [], "sha": "0" * 40, "private": True})

    def do_PUT(self) -> None:
        self.hub.blobs[self.path.rpartition("/")[2]] = self._body()
        self._say(200, {})

    def do_POST(self) -> None:
        self.hub.tokens.add((self.headers.get("Authorization") or "").removeprefix("Bearer "))
        body, here = self._body(), f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            if self.hub.refuses:
                self._say(self.hub.refuses, {"error": "You don't have the rights to create a model under org"})
                return
            self.hub.made.append(json.loads(body))
            self._say(200, {"url": f"{here}/org/tiny", "name": "org/tiny"})
        elif "/preupload/" in self.path:
            asked = [entry["path"] for entry in json.loads(body)["files"]]
            kinds = [{"path": path, "uploadMode": "lfs" if path.endswith(_LARGE) else "regular"} for path in asked]
            self._say(200, {"files": [{**kind, "shouldIgnore": False} for kind in kinds]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            sent = [{**entry, "actions": {"upload": {"href": f"{here}/put/{entry['oid']}"}}} for entry in objects]
            self._say(200, {"transfer": "basic", "objects": sent})
        elif "/commit/" in self.path:
            self._commit([json.loads(line) for line in body.splitlines()])
            self._say(200, {"commitUrl": f"{here}/org/tiny/commit/1", "commitOid": "1", "success": True})
        else:
            self._say(200, {})

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        import base64

        for line in lines:
            if line["key"] == "file":
                self.hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                self.hub.files[line["value"]["path"]] = self.hub.blobs[line["value"]["oid"]]

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _say(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


_LARGE = (".safetensors", ".gguf")


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    made = Hub()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with serving(made) as address:
        _point_to(address, monkeypatch)
        yield made


def _point_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import hf_api

    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(hf_api.api, "endpoint", address)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_model(tmp_path_factory.mktemp("push") / "tiny", num_hidden_layers=1)


def pushed(model: Path, out: Path, *more: str, repo: str = "org/tiny") -> int:
    return main(["export", str(model), "--to", "merged", "--out", str(out), "--push", repo, *more])


@pytest.mark.parametrize("public", [False, True])
def test_a_proven_export_is_sent_whole_and_private_by_default(
    public: bool, hub: Hub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pushed(model, tmp_path / "out", *(["--public"] if public else [])) == 0
    assert [entry["visibility"] for entry in hub.made] == ["public" if public else "private"]
    for path in (tmp_path / "out").iterdir():
        assert hashlib.sha256(hub.files[path.name]).digest() == hashlib.sha256(path.read_bytes()).digest(), path
    assert hub.tokens == {TOKEN}
    told = capsys.readouterr()
    assert "Hub      http" in told.out and TOKEN not in told.out + told.err


def test_what_was_not_proven_is_not_sent(
    hub: Hub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpen.export import files

    write = files.whole

    def spoil(source: Any, folder: Path) -> None:
        write(source, folder)
        (folder / "chat_template.jinja").write_text("{{ messages }}")

    monkeypatch.setattr(files, "whole", spoil)
    assert pushed(model, tmp_path / "out") == 2
    assert not hub.made and not hub.files and not (tmp_path / "out").exists()


def test_a_refusal_says_what_to_do_and_leaves_the_export(
    hub: Hub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.refuses = 403
    assert pushed(model, tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "the hub refused" in told and "may write" in told and str(tmp_path / "out") in told and TOKEN not in told
    assert (tmp_path / "out/proof.json").is_file()


@pytest.mark.parametrize(
    ("change", "repo", "said"),
    [
        ({"token": None}, "org/tiny", "there is none"),
        ({"offline": True}, "org/tiny", "HF_HUB_OFFLINE is set"),
        ({}, "tiny", "Write org/name"),
    ],
)
def test_what_cannot_be_sent_is_known_before_the_work(
    change: dict[str, Any],
    repo: str,
    said: str,
    hub: Hub,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "token" in change:
        monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", bool(change.get("offline")))
    assert pushed(model, tmp_path / "out", repo=repo) == 2
    told = capsys.readouterr()
    assert said in told.err and "Writing" not in told.out
    assert not (tmp_path / "out").exists() and not hub.made


def test_a_hub_that_cannot_be_reached_is_said(
    hub: Hub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _point_to(NOWHERE, monkeypatch)
    assert pushed(model, tmp_path / "out") == 2
    assert "cannot be reached" in capsys.readouterr().err
