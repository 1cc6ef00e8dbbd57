"""What `sharpen serve` bears: creations at once, slow connections, kill -9, streams of chat.

    python -m bench.server [--parts creates,slow,kills,chat] [--short] [--out bench/server.json]

Load generator and server share the machine. The database of `creates` is SQLite, and then PostgreSQL, a cluster of the
bench's own with its usual durability, where its programs are on this machine. `--short` is a smoke test of the bench
itself, whose figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import tables
from bench.common import BUSY, machine
from bench.server import chat, creates, kills, slow
from bench.server.process import Process
from tests.server import postgres

RATE = 120.0
"""Creations a second that are offered in the steady parts."""

PARTS = ("creates", "slow", "kills", "chat")


def main() -> None:
    """Measure what the options ask for; each part is merged into the file as it comes."""
    options = _options()
    load = os.getloadavg()[0]
    if load > BUSY:
        print(f"warning: this machine is busy (load average {load:.1f}): these times mean little", file=sys.stderr)
    old = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    command = shlex.join(["python", "-m", "bench.server", *sys.argv[1:]])
    document: dict[str, Any] = {
        "command": [*(one for one in old.get("command", []) if one != command), command],
        "machine": machine(),
        "ours": old.get("ours", {}),
    }
    for name, measure in _parts(options).items():
        folder = Path(tempfile.mkdtemp(prefix="bench-server-", dir=options.folder))
        before = os.getloadavg()[0]
        try:
            figures = measure(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        document["ours"][name] = {**figures, "load_average_before": before}
        print(f"{name}: {json.dumps(figures)}", file=sys.stderr)
        if options.out:
            options.out.write_text(json.dumps(document, indent=1) + "\n")
    print(tables.server(document))


def _parts(options: argparse.Namespace) -> dict[str, Callable[[Path], dict[str, Any]]]:
    short, model = options.short, options.model
    threads = os.cpu_count() or 1

    def created(folder: Path, rate: float | None = None, **settings: Any) -> dict[str, Any]:
        server = Process(folder, model, **settings)
        return creates.measure(server, clients=8 if short else 256, each=4 if short else 20, rate=rate)

    def chatted(folder: Path, threads: int) -> dict[str, Any]:
        server = Process(folder, model, worker_threads=threads, cores=os.cpu_count())
        size = {"streams": 4, "each": 1, "tokens": 8} if short else {"streams": 32, "each": 4, "tokens": 128}
        return chat.measure(server, model, **size, threads=threads)

    parts: dict[str, Callable[[Path], dict[str, Any]]] = {}
    for part in options.parts:
        if part == "creates":
            parts["creates, sqlite"] = created
            parts["creates, sqlite, steady"] = lambda folder: created(folder, RATE)
            if (programs := postgres.programs()) and not short:
                parts["creates, postgresql"] = lambda folder: _on_postgresql(programs, created, folder, None)
                parts["creates, postgresql, steady"] = lambda folder: _on_postgresql(programs, created, folder, RATE)
        elif part == "slow":
            parts["slow"] = lambda folder: slow.measure(
                Process(folder, model), connections=30 if short else 2000, seconds=1.0 if short else 40.0
            )
        elif part == "kills":
            parts["kills"] = lambda folder: kills.measure(
                Process(folder, model), kills=3 if short else 100, writers=8 if short else 16
            )
        else:
            parts["chat"] = lambda folder: chatted(folder, 1)  # what `worker_threads` is when nobody sets it
            if threads > 1 and not short:
                parts["chat, all threads"] = lambda folder: chatted(folder, threads)
    return parts


def _on_postgresql(programs: Path, created: Callable[..., dict[str, Any]], folder: Path, rate: float | None) -> Any:
    with postgres.Cluster(programs, settings=()) as cluster, cluster.database() as url:
        return created(folder, rate, database=url)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=_chosen, default=list(PARTS), metavar=",".join(PARTS))
    parser.add_argument("--short", action="store_true", help="seconds in place of minutes")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="an alias or folder")
    parser.add_argument("--folder", type=Path, help="where the servers' data is meanwhile; default: a temporary one")
    parser.add_argument("--out", type=Path, help="JSON file that each part is merged into")
    return parser.parse_args()


def _chosen(text: str) -> list[str]:
    found = text.split(",")
    if unknown := set(found) - set(PARTS):
        raise argparse.ArgumentTypeError(f"no such part: {', '.join(sorted(unknown))}")
    return found


if __name__ == "__main__":
    main()
