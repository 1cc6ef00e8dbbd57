"""What may be asked of a jail, and what may come of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal[
    "value", "exception", "timeout", "oom", "output_limit", "disk_limit", "denied", "exit", "crashed", "asks"
]
"""`value`: it answered. `exception`: it raised. `timeout`: too slow. `oom`: out of memory. `output_limit`: it printed,
or answered, too much. `disk_limit`: it wrote too much. `denied`: it raised because something is not allowed. `exit`:
it left without an answer. `crashed`: it was ended by a signal, or broke the protocol. `asks`: it goes on when it has
been told the outcome of a call of another program, which `value` names."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: its value, or in `detail` why there is none; and what a program printed."""

    kind: Kind
    value: Any = None
    detail: str = ""
    stdout: str = ""
    stderr: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use; the defaults are those of OpenAI's sandbox for Python graders, where it has them."""

    seconds: float = 120.0
    memory: int = 2 << 30  # bytes of address space, threads and all
    disk: int = 1 << 30  # bytes below its working directory; 0: it can write nowhere
    output: int = 1 << 20  # bytes to standard output and error together
    answer: int = 8 << 20  # bytes of an answer
    files: int = 256  # open at once
    threads: int = 64
