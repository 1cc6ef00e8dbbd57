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
    number = secrets.randbits(8 * LENGTH)  # 49 bits more than are needed, so that no letter is likelier than another
    letters = []
    for _ in range(LENGTH):
        number, place = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[place])
    return f"{kind}-{''.join(letters)}"
