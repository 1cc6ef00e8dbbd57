"""Ids that the server makes: nothing that reaches a disk or a query is a client's."""

from __future__ import annotations

import re
import secrets
import string

ALPHABET = string.ascii_letters + string.digits
LENGTH = 24

ID = re.compile(rf"[a-z_]+-[A-Za-z0-9]{{{LENGTH}}}")


def new(kind: str) -> str:
    """A fresh id such as `ftjob-…`: 24 letters and digits (143 bits) that cannot be guessed."""
    return f"{kind}-{''.join(secrets.choice(ALPHABET) for _ in range(LENGTH))}"
