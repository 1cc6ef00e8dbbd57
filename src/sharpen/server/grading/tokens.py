"""Signed tokens: what a job or a grader asks a judge on this same server with.

A token says whom it was made for, which models it opens and until when; nothing is kept of it. It is sent as an API
key, opens chat with these models and nothing else, and is worth nothing without the server's own secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

from sharpen.errors import RunError
from sharpen.server.keys import SIGNED, Caller

PREFIX = SIGNED
VARIABLE = "SHARPEN_JUDGE_TOKEN"
"""The environment variable in which a process of the server's finds its token."""

LENGTH = 32
"""Bytes of the secret."""
LONGEST = 4_096
"""Characters of a token that is looked at."""


def secret(data_dir: Path) -> bytes:
    """The secret that this server signs with, in `data_dir/secret`; made once, whoever asks first.

    Raises RunError where it cannot be read or made, or is none.
    """
    path = data_dir / "secret"
    try:
        found = _read(path) or _made(path)
    except OSError as error:
        raise RunError(
            f"the server's secret cannot be used: {error.strerror}",
            value=str(path),
            remedy="Look at who owns the data folder",
        ) from error
    if len(found) != LENGTH:
        raise RunError(
            f"the server's secret has {LENGTH} bytes, this one has {len(found)}",
            value=str(path),
            remedy="Restore it from the backup, or delete it: a new one is made, and jobs' judges get new tokens",
        )
    return found


def issue(key: bytes, owner: str, project: str, models: Iterable[str], expires: float) -> str:
    """A token for `owner`, a job's id say, that opens `models` until `expires`, seconds since 1970."""
    said = json.dumps([owner, project, sorted(models), int(expires)], separators=(",", ":")).encode()
    return f"{PREFIX}{_text(said)}.{_text(_signature(key, said))}"


def read(key: bytes, token: str) -> Caller | None:
    """Who calls with a token; None: it is forged, cut off, or has expired."""
    body, dot, signature = token.removeprefix(PREFIX).partition(".")
    if not token.startswith(PREFIX) or not dot or len(token) > LONGEST:
        return None
    try:
        said, signed = _bytes(body), _bytes(signature)
    except (binascii.Error, ValueError):
        return None
    if not hmac.compare_digest(_signature(key, said), signed):
        return None
    _, project, models, expires = json.loads(said)
    if expires <= time.time():
        return None
    return Caller(project, "judge", frozenset({"chat"}), frozenset(models))


def _signature(key: bytes, said: bytes) -> bytes:
    return hmac.new(key, PREFIX.encode() + said, hashlib.sha256).digest()


def _text(plain: bytes) -> str:
    return base64.urlsafe_b64encode(plain).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    """The bytes that a text stands for, if it is how they are written. Raises ValueError."""
    plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _text(plain) != text:
        raise ValueError("written in another way")
    return plain


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _made(path: Path) -> bytes:
    """A new secret, or that of another process which was first: a link is made whole, and only where there is none."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(file, "wb") as out:
            out.write(secrets.token_bytes(LENGTH))
            out.flush()
            os.fsync(out.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_bytes()
