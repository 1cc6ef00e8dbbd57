"""What an attack is, and how its success is judged from outside."""

from __future__ import annotations

import errno
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sharpen.sandbox.outcome import Limits, Outcome

SMALL = Limits(seconds=5, memory=256 << 20, disk=1 << 20, output=64 << 10, answer=64 << 10, files=64, threads=16)
HASTY = Limits(seconds=0.3, memory=256 << 20, disk=1 << 20, output=64 << 10, answer=64 << 10, files=64, threads=16)
"""For attacks that do not end by themselves."""
ROOMY = Limits(seconds=2, memory=1 << 30, disk=1 << 20, output=1 << 20, files=64, threads=16)
"""With the answer's own default limit."""

PATIENCE = 3.0
"""Seconds after its time limit within which a run must have come back."""
GROWTH = 50 << 20
"""Bytes that the parent's memory may grow by."""

REFUSALS = (-errno.EPERM, -errno.EACCES, -errno.ENOSYS)

PRELUDE = """
import ctypes, mmap, os, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = libc.syscall(ctypes.c_long(number), *words)
    return -ctypes.get_errno() if result < 0 else result

kept = []

def machine(code):
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(bytes.fromhex(code.replace(" ", "")))
    kept.append(memory)
    return ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))

def excerpts(texts):
    return [text[text.find("token:") :][:40] for text in texts if "token:" in text]
"""
"""The head of every attack: system calls by their number, machine code, and what in texts may be the secret."""

ITSELF = "it has no meaning outside a jail: it attacks the jail's own harness and protocol"


@dataclass(frozen=True)
class Seen:
    """What was to be seen from outside when a program had run."""

    outcome: Outcome
    limits: Limits
    token: str
    """The secret."""
    seconds: float = 0.0
    killed: bool = False
    """A control that had not ended when its time was up."""
    changed: bool = False
    """Something in the host's folder is not what it was."""
    contacted: bool = False
    """A listener of the host was spoken to."""
    disturbed: bool = False
    """A process of the host was signalled, or ended, or given other priorities."""
    left: bool = False
    """A process lives on after the run."""
    grown: int = 0
    """Bytes by which the parent's memory had grown at most."""
    host: str = ""
    """The machine's name."""


Judge = Callable[[Seen], bool]


@dataclass(frozen=True)
class Attack:
    """A program that defines `attack(bait)`, and when it has won."""

    name: str
    source: str
    won: Judge
    limits: Limits = SMALL
    no_control: str = ""
    """Why it cannot be shown to win where there are no walls."""
    privileged: bool = False
    """Without walls too it wins only as root."""
    reduced: str = ""
    """Why it may win in the reduced tier."""


def attack(name: str, body: str, won: Judge, setup: str = "", **options: Any) -> Attack:
    """An attack whose function has this body, after the prelude and a setup of its own."""
    function = "def attack(bait):\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ")
    return Attack(name, f"{PRELUDE}\n{textwrap.dedent(setup).strip()}\n\n{function}\n", won, **options)


def told(seen: Seen) -> bool:
    """The secret came out."""
    outcome = seen.outcome
    return seen.token in f"{outcome.value!r}{outcome.stdout}{outcome.stderr}{outcome.detail}"


def says(text: str) -> Judge:
    """This text of the host came out."""
    return lambda seen: text in f"{seen.outcome.value!r}{seen.outcome.stdout}"


def changed(seen: Seen) -> bool:
    """The host's files changed."""
    return seen.changed


def contacted(seen: Seen) -> bool:
    """A listener of the host was reached."""
    return seen.contacted


def disturbed(seen: Seen) -> bool:
    """A process of the host was reached."""
    return seen.disturbed


def left(seen: Seen) -> bool:
    """A process outlived the run."""
    return seen.left


def accomplished(seen: Seen) -> bool:
    """The call did what it is for: the program got no negative number, and no exception."""
    value = seen.outcome.value
    return seen.outcome.kind == "value" and not (isinstance(value, int) and value < 0)


def looked_at(seen: Seen) -> bool:
    """The kernel looked at the call: what came back is not a refusal to do so."""
    return seen.outcome.kind == "value" and seen.outcome.value not in REFUSALS


def more_than(most: int) -> Judge:
    """The program got more than it may have, by its own count."""

    def judge(seen: Seen) -> bool:
        value = seen.outcome.value
        return seen.outcome.kind == "value" and isinstance(value, int) and value > most

    return judge


def hung(seen: Seen) -> bool:
    """It was not stopped in time, or made the parent swell."""
    return seen.killed or seen.seconds > seen.limits.seconds + PATIENCE or seen.grown > GROWTH


def flooded(seen: Seen) -> bool:
    """More came out than may."""
    outcome = seen.outcome
    printed, answered = len(outcome.stdout) + len(outcome.stderr), len(repr(outcome.value))
    return hung(seen) or (outcome.kind == "value" and (printed > seen.limits.output or answered > seen.limits.answer))


def enchanted(seen: Seen) -> bool:
    """Something came out that is not plain data, or the parent did not come back in time."""
    return hung(seen) or not _plain(seen.outcome.value)


def _plain(value: Any) -> bool:
    if type(value) is dict:
        return all(_plain(key) and _plain(inner) for key, inner in value.items())
    if type(value) in (list, tuple, set, frozenset):
        return all(_plain(inner) for inner in value)
    return value is None or type(value) in (bool, int, float, complex, str, bytes)
