"""Inside a jail: a data set's own test program, which calls the program under test in *another* jail through us.

The one frame is `{"source", "functions"}`. The source sees these functions, the first also as `candidate`; a call of
one leaves as an answer of kind `asks`, and the next frame, `(kind, value, detail)`, says what came of it. After the
source, its `check(candidate)` is called where it has one. The last answer says whether all went well.
"""

from __future__ import annotations

import builtins
import socket
import types
from functools import partial
from typing import Any

from sharpen.sandbox import values
from sharpen.sandbox.harness import answer, attempt, receive, reopen


class ProgramFailed(Exception):
    """The program under test raised an exception of its own."""


def serve(channel: socket.socket) -> None:
    """Run the checks."""
    order = receive(channel)
    number = 0

    def call(function: str, /, *arguments: Any, **named: Any) -> Any:
        nonlocal number
        asked: Any = (function, list(arguments), named)
        try:
            values.dumps(asked)
        except (TypeError, ValueError):  # not the program's fault: None says so
            asked = None
        answer(channel, number, ("asks", asked))
        number += 1
        kind, value, detail = receive(channel)
        if kind == "value":
            return value
        raise _as_raised(detail)

    def run() -> None:
        checks = types.ModuleType("checks")
        functions = {name: partial(call, name) for name in order["functions"]}
        candidate = functions[order["functions"][0]]
        checks.__dict__.update({"candidate": candidate, **functions})
        exec(compile(order["source"], "<program>", "exec", dont_inherit=True), checks.__dict__)
        check = checks.__dict__.get("check")
        if callable(check):
            check(candidate)

    reopen()
    found = attempt(run)
    answer(channel, number, found)
    receive(channel)  # stay until we are ended: a dead run would be asked why


def _as_raised(detail: str) -> Exception:
    """What the program raised, so far as it is one of Python's own exceptions; checks may expect it."""
    name = detail.partition(":")[0].partition(" ")[0]
    kind = getattr(builtins, name, None)
    try:
        if isinstance(kind, type) and issubclass(kind, Exception):
            return kind(detail)
    except TypeError:  # those of Unicode, and groups, need more than a message
        pass
    return ProgramFailed(detail)
