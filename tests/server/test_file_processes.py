"""Files and the server as a process: what a kill leaves, and how much memory a large file takes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from tests.server.files_lab import END, PURPOSE, ROW, TYPE, house, part, wait

SERVER = """
import sys, uvicorn
from pathlib import Path
from sharpen.server import app
from sharpen.server.keys import create_key
from sharpen.server.settings import Settings
made = app.create(Settings(data_dir=Path(sys.argv[1]), port=0))
key = made.state.server.db.change(lambda c: create_key(c, "default", "test", ("read", "write"), None))
class Told(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(key, self.servers[0].sockets[0].getsockname()[1], flush=True)
Told(uvicorn.Config(made, port=0, log_level="warning")).run()
"""


@contextmanager
def process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str, dict[str, str]]]:
    """A server in a process of its own: the process, the address of its files, and the headers of a request."""
    started = subprocess.Popen([sys.executable, "-c", SERVER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    try:
        key, port = started.stdout.readline().split()
        yield started, f"http://127.0.0.1:{port}/v1/files", {"Authorization": f"Bearer {key}", **TYPE}
    finally:
        started.kill()
        started.wait()


def test_a_killed_server_has_lost_no_file_that_it_acknowledged(tmp_path: Path) -> None:
    kept: dict[str, bytes] = {}

    def send(base: str, headers: dict[str, str], name: str) -> None:
        with httpx2.Client() as client, suppress(httpx2.HTTPError):
            for number in range(1_000):
                data = f"{name} {number} ".encode() * (1 + 40_000 * (number % 2))
                made = client.post(base, content=PURPOSE + part("file", data, "a") + END, headers=headers)
                kept[made.json()["id"]] = data

    for turn in range(2):
        with process(tmp_path) as (server, base, headers), ThreadPoolExecutor(4) as pool:
            for name in "abcd":
                pool.submit(send, base, headers, f"{name}{turn}")
            wait(lambda turn=turn: len(kept) > 25 * (turn + 1))
            server.kill()
    with house(tmp_path) as again:
        client = again.client()
        assert kept.keys() <= {file.id for file in client.files.list()}
        assert all(again.server.storage.path(id).read_bytes() == data for id, data in kept.items())
        assert again.on_disk() == {file.id for file in client.files.list()}


def peak(folder: Path, size: int) -> tuple[int, int]:
    """KiB that a server's process took at most, to receive and to send a file of `size` bytes; and its size there."""
    block = ((ROW + "\n") * (2**20 // (len(ROW) + 1))).encode()
    blocks = size // len(block)

    def body() -> Iterator[bytes]:
        yield PURPOSE + part("file", b"", "large.jsonl")[:-2]
        for _ in range(blocks):
            yield block
        yield b"\r\n" + END

    with process(folder) as (server, base, headers):
        made = httpx2.post(base, content=body(), headers=headers, timeout=600)
        assert made.status_code == 200, made.text
        assert made.json()["bytes"] == blocks * len(block)
        seen = 0
        with httpx2.stream("GET", f"{base}/{made.json()['id']}/content", headers=headers, timeout=600) as answer:
            for piece in answer.iter_bytes():
                seen += len(piece)
        status = Path(f"/proc/{server.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]), seen


def test_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    took, seen = peak(tmp_path, 200 * 2**20)
    assert seen > 199 * 2**20
    print(f"{took / 2**10:.0f} MiB")
    assert took < 128 * 2**10


@pytest.mark.long
def test_eight_gibibytes_take_little_memory(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    if disk.f_bavail * disk.f_frsize < 12 * 2**30:
        pytest.skip("the disk has less than 12 GiB free")
    took, seen = peak(tmp_path, 8 * 2**30)
    assert seen > 8 * 2**30 - 2**21
    print(f"{took / 2**10:.0f} MiB")
    assert took < 128 * 2**10
