"""A hub on this machine: an HTTP server that answers as huggingface.co does, with its error codes and headers."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLDER = "fedcba9876543210fedcba9876543210fedcba98"
TOKEN = "hf_the_secret_token"


class Hub:
    """Models by name: `org/tiny` is open, `org/gated` and `org/private` want the token, `org/down` is out of order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gated = "manual"
        self.granted: set[str] = set()
        self.main = COMMIT
        self.cut_after: int | None = None
        """The next download of the weights breaks off after so many bytes."""
        self.stalls = False
        """It does not break off but says no more."""
        self.stalled = threading.Event()
        self.ranges: list[str] = []
        """The Range headers that were asked for."""
        self.requests: list[str] = []
        self.size: int | None = None
        """What the listing says the weights have, where that is not the truth."""

    def files(self) -> dict[str, bytes]:
        """What the model's repository holds."""
        found = {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}
        return {**found, "pytorch_model.bin": b"pickled", "original/consolidated.safetensors": b"a second copy"}


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """The address of a server that answers for the hub inside this block."""
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed break their connections off."""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, _, _ = self.path.partition("?")
        self.hub.requests.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            self._api(found[1], found[2] or "revision", found[3] or "main")
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(found[1], found[2], found[3])
        else:
            self._say(404, {"error": "no such page"})

    def _api(self, repo: str, what: str, revision: str) -> None:
        if not self._known(repo, revision):
            return
        files = self.hub.files()
        sizes = {name: len(content) for name, content in files.items()}
        if self.hub.size is not None:
            sizes["model.safetensors"] = self.hub.size
        if what == "tree":
            self._say(200, [{"type": "file", "path": n, "size": sizes[n], "oid": _oid(files[n])} for n in files])
            return
        siblings = [{"rfilename": name, "size": sizes[name], "blobId": _oid(files[name])} for name in files]
        facts = {"id": repo, "private": False, "gated": self.hub.gated if repo == "org/gated" else False}
        self._say(
            200, {**facts, "sha": self._commit(revision), "siblings": siblings, "cardData": {"license": "apache-2.0"}}
        )

    def _file(self, repo: str, revision: str, name: str) -> None:
        if not self._known(repo, revision):
            return
        if repo == "org/gated" and self._token() not in self.hub.granted:
            words = "Access to model org/gated is restricted."
            self._say(403 if self._token() else 401, {"error": words}, code="GatedRepo", message=words)
            return
        content = self.hub.files()[name]
        headers = {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": self._commit(revision), "Accept-Ranges": "bytes"}
        first = 0
        if asked := self.headers.get("Range"):
            self.hub.ranges.append(asked)
            first = int(asked.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self._send(206 if asked else 200, content[first:], headers, weights=name == "model.safetensors")

    def _known(self, repo: str, revision: str) -> bool:
        """Whether there is such a model and revision for this asker; else it has been told."""
        if repo == "org/down":
            self._say(503, {"error": "out of order"})
        elif repo == "org/refused":
            self._say(401, {"error": "no"}, message="Invalid credentials in Authorization header")
        elif repo not in ("org/tiny", "org/gated") and not (repo == "org/private" and self._token()):
            self._say(404 if self._token() else 401, {"error": "Repository not found"}, code="RepoNotFound")
        elif revision not in ("main", "v1", COMMIT, OLDER):
            self._say(404, {"error": f"Invalid rev id: {revision}"}, code="RevisionNotFound")
        else:
            return True
        return False

    def _commit(self, revision: str) -> str:
        return {"main": self.hub.main, "v1": OLDER}.get(revision, revision)

    def _token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _say(self, status: int, content: Any, *, code: str = "", message: str = "") -> None:
        marks = {"X-Error-Code": code, "X-Error-Message": message}
        self._send(status, json.dumps(content).encode(), {name: mark for name, mark in marks.items() if mark})

    def _send(self, status: int, content: bytes, headers: dict[str, str], weights: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if weights and self.hub.cut_after is not None:
            self.wfile.write(content[: self.hub.cut_after])
            self.wfile.flush()
            self.hub.cut_after = None
            self.hub.stalled.set()
            if self.hub.stalls:
                threading.Event().wait(30)
            self.close_connection = True
            return
        self.wfile.write(content)


def _oid(content: bytes) -> str:
    """A file's name in git."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
