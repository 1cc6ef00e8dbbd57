"""`sharpen keys`: API keys of the server, made, listed and revoked."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import TYPE_CHECKING, Any

from sharpen.cli import server_options
from sharpen.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from sharpen.server.keys import Scope

PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
SCOPES: tuple[Scope, ...] = ("read", "write", "chat", "admin")
USUAL = "read,write,chat"


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen keys` is told."""
    actions = parser.add_subparsers(dest="what", required=True, title="actions", metavar="create|list|revoke")
    create = actions.add_parser("create", help="a new key; its secret is printed once, alone on standard output")
    create.add_argument("--project", default="default", help="whose objects it opens (default: default)")
    create.add_argument("--name", default="", help="a name for people")
    create.add_argument(
        "--scope",
        type=_scopes,
        default=USUAL,
        help=f"some of {', '.join(SCOPES)} (default: {USUAL})",
        metavar="SCOPE,…",
    )
    create.add_argument("--days", type=float, metavar="D", help="days until it expires (default: never)")
    listing = actions.add_parser("list", help="all keys, without their secrets")
    listing.add_argument("--json", action="store_true", help="print a JSON list")
    revoke = actions.add_parser("revoke", help="a key opens nothing any more")
    revoke.add_argument("id", metavar="ID", help="a key's id, as `sharpen keys list` shows it")
    for action in (create, listing, revoke):
        server_options.arguments(action)


def keys(options: Namespace) -> int:
    """Create, list or revoke. Raises ConfigError."""
    settings = server_options.settings(options)
    if options.what == "create":
        _check(options)
    database = server_options.database(settings)
    try:
        if options.what == "create":
            scopes = options.scope if isinstance(options.scope, tuple) else _scopes(options.scope)
            secret, told = database.change(lambda connection: _create(connection, options, scopes))
            print(told, file=sys.stderr)
            print(secret)
        elif options.what == "revoke":
            print(database.change(lambda connection: _revoke(connection, options.id)))
        else:
            _list(database.look(_rows), as_json=options.json)
    finally:
        database.close()
    return 0


def _scopes(text: str) -> tuple[Scope, ...]:
    said = text.split(",")
    if unknown := set(said) - set(SCOPES):
        raise ArgumentTypeError(f"no such scope: {', '.join(sorted(unknown))}; there are {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in said)


def _check(options: Namespace) -> None:
    if not PROJECT.fullmatch(options.project):
        remedy = "Use letters, digits, '.', '_' and '-', 64 at most"
        raise ConfigError("a project's name is a short word", path="--project", value=options.project, remedy=remedy)
    if len(options.name) > 128:
        raise ConfigError("a key's name has 128 characters at most", path="--name", value=len(options.name))
    if options.days is not None and not 0 < options.days < 36_500:
        raise ConfigError(
            "a key lives for more than no days, and for 100 years at most", path="--days", value=options.days
        )


def _create(connection: Connection, options: Namespace, scopes: tuple[Scope, ...]) -> tuple[str, str]:
    """The secret, and what is said of it."""
    from sqlalchemy import select

    from sharpen.server.keys import create_key
    from sharpen.server.tables import keys as table

    secret = create_key(connection, options.project, options.name, scopes, options.days)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    row = connection.execute(select(table).where(table.c.hash == digest)).one()
    _note(connection, options.project, "key.create", row.id, scopes=list(scopes), expires_at=row.expires_at)
    until = f"until {_day(row.expires_at)}" if row.expires_at else "until it is revoked"
    return secret, f"{row.id} of project {row.project} ({', '.join(scopes)}), {until}. The secret is shown this once:"


def _revoke(connection: Connection, id: str) -> str:
    from sqlalchemy import select, update

    from sharpen.server.tables import keys as table

    row = connection.execute(select(table).where(table.c.id == id)).first() if id.isprintable() else None
    if row is None:
        raise ConfigError("there is no such key", path="ID", value=id, remedy="`sharpen keys list` shows all")
    if row.revoked_at is not None:
        return f"{row.id} was revoked on {_day(row.revoked_at)} already."
    connection.execute(update(table).where(table.c.id == id).values(revoked_at=int(time.time())))
    _note(connection, row.project, "key.revoke", row.id)
    return f"{row.id} of project {row.project} is revoked; a running server knows within two seconds."


def _note(connection: Connection, project: str, action: str, id: str, **detail: object) -> None:
    """For the audit log: the operator did it, at the command line."""
    from sharpen.server.audit import audit
    from sharpen.server.keys import Caller

    audit(connection, Caller(project, "operator", frozenset()), action, id, **detail)


def _rows(connection: Connection) -> list[Row[Any]]:
    from sqlalchemy import select

    from sharpen.server.tables import keys as table

    return list(connection.execute(select(table).order_by(table.c.created_at, table.c.id)))


def _list(rows: list[Row[Any]], *, as_json: bool) -> None:
    if as_json:
        names = ("id", "project", "name", "hint", "scopes", "created_at", "expires_at", "revoked_at")
        shown = [{**{name: getattr(row, name) for name in names}, "state": _state(row)} for row in rows]
        print(json.dumps(shown, indent=2))
        return
    if not rows:
        print("There are no keys. Make one: sharpen keys create")
        return
    lines = [("ID", "PROJECT", "SCOPES", "SECRET", "MADE", "STATE", "NAME")]
    lines += [
        (row.id, row.project, ",".join(row.scopes), row.hint, _day(row.created_at), _state(row), row.name)
        for row in rows
    ]
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    for line in lines:
        print("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip())


def _state(row: Row[Any]) -> str:
    if row.revoked_at is not None:
        return "revoked"
    if row.expires_at is None:
        return "good"
    return "expired" if row.expires_at <= time.time() else f"good until {_day(row.expires_at)}"


def _day(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))
