"""Inside a jail: our own code at work on foreign data.

The first frame holds a pickled factory; what it returns is called with the job of every further frame. Jobs come
pickled, from us; answers leave as plain values, and nothing else does.
"""

from __future__ import annotations

import pickle
import socket
from collections.abc import Callable
from typing import Any

from sharpen.sandbox.harness import Answer, answer, classify, receive


def serve(channel: socket.socket) -> None:
    """Build the worker, and do its jobs."""
    work: list[Callable[[Any], Any]] = []

    def build() -> None:
        factory, arguments = pickle.loads(receive(channel))
        work.append(factory(*arguments))

    answer(channel, 0, _attempt(build))
    number = 0
    while True:
        pickled = receive(channel)
        number += 1
        answer(channel, number, _attempt(lambda: work[0](pickle.loads(pickled))))  # noqa: B023 (called at once)


def _attempt(function: Callable[[], Any]) -> Answer:
    from sharpen.sandbox.worker import describe

    try:
        return "value", function()
    except (Exception, SystemExit) as error:
        kind = classify(error)
        return kind if kind == "oom" else "exception", describe(error)
