"""`sharpen serve`: OpenAI's fine-tuning API on this machine, and what its operator does beside it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sharpen.cli import server_options

if TYPE_CHECKING:
    from sharpen.server.settings import Mapped, Settings


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen serve` is told."""
    parser.add_argument("--host", metavar="ADDRESS", help="the address it listens on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, metavar="N", help="its port (default: 8000; 0: any free one)")
    server_options.arguments(parser)
    parser.add_argument("--no-auth", action="store_true", help="ask for no keys; on the loopback address only")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--check", action="store_true", help="look over what a server here needs, and end")
    instead.add_argument("--backup", type=Path, metavar="FILE", help="write database, files and runs to a tar, and end")
    instead.add_argument(
        "--restore", type=Path, metavar="FILE", help="fill an empty data folder from a backup, and end"
    )
    instead.add_argument("--import", dest="imported", type=Path, metavar="RUN", help="show a run as a job, and end")
    parser.add_argument("--project", default="default", help="whose job an imported run is (default: default)")


def serve(options: Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C, or do what the options ask for instead. Raises ConfigError and RunError."""
    settings = server_options.settings(options)
    if options.check:
        from sharpen.cli import serve_check

        return serve_check.check(settings)
    server_options.made(settings.data_dir)
    if options.backup is not None:
        from sharpen.server import backup

        print(backup.write(settings, options.backup))
    elif options.restore is not None:
        from sharpen.server import restoring
        from sharpen.server.lock import Lock

        with Lock(settings.data_dir):
            print(restoring.restore(settings, options.restore))
    elif options.imported is not None:
        print(f"{_import(settings, options.imported, options.project)} is this run, in project {options.project}.")
    else:
        _serve(settings)
    return 0


def _import(settings: Settings, run: Path, project: str) -> str:
    """The id of the job that a run has become."""
    from sharpen.server import app
    from sharpen.server.audit import audit
    from sharpen.server.keys import Caller
    from sharpen.server.supervisor.adopt import import_run

    server = app.create(settings).state.server
    try:
        job: str = import_run(server, run, project)
        operator = Caller(project, "operator", frozenset())
        server.db.change(lambda connection: audit(connection, operator, "job.import", job))
    finally:
        server.storage.close()
        server.db.close()
    return job


def _serve(settings: Settings) -> None:
    from sharpen.server import listen, logs
    from sharpen.server.lock import Lock

    logs.begin()
    with Lock(settings.data_dir), listen.bound(settings) as socket:
        settings = settings.model_copy(update={"port": socket.getsockname()[1]})
        listen.run(settings, socket, lambda keys: print("\n".join(_greeting(settings, keys)), flush=True))


def _greeting(settings: Settings, keys: int) -> Iterator[str]:
    """What an operator wants to know first."""
    from sharpen.server import names
    from sharpen.server.database import shown
    from sharpen.server.listen import address

    yield f"sharpen serves OpenAI's API at {address(settings)}"
    yield f"  data      {settings.data_dir.absolute()}"
    if settings.database:
        yield f"  database  {shown(settings.database)}"
    mapped = [_said(name, to) for name, to in settings.models.items()]
    here = ", ".join([*mapped, *names.house()])
    yield f"  models    {here or 'none: `sharpen models pull`, or `models:` in --config'}"
    if settings.judges:
        yield f"  judges    {', '.join(_said(name, to) for name, to in settings.judges.items())}"
    if not settings.auth:
        yield "  keys      nobody is asked for one: whoever can log in to this machine can use it"
    else:
        folder = f" --data-dir {settings.data_dir}" if settings.data_dir != Path("sharpen-data") else ""
        yield f"  keys      {keys or f'none yet: sharpen keys create{folder}'}"
    key = "…" if settings.auth else "none"
    yield f'  clients   OpenAI(base_url="{address(settings)}", api_key="{key}")'
    yield "Ctrl-C ends it; jobs write a checkpoint, and go on when it is started again."


def _said(name: str, to: Mapped) -> str:
    return f"{name} → {getattr(to, 'local', None) or getattr(to, 'base_url', '')}"
