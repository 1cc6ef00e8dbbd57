"""Work that is asked to stop, and ends where nothing is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StopFlag:
    """Set by a signal; looked at after every step."""

    def __init__(self) -> None:
        self.cause = ""

    def set(self, cause: str) -> None:
        """Ask the work to stop after the step under way."""
        self.cause = cause


@contextmanager
def stopping(stop: StopFlag, told: Callable[[], None] = lambda: None) -> Iterator[None]:
    """SIGINT and SIGTERM ask the work to stop, and `told` is called; a second SIGINT interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: object) -> None:
        if stop.cause and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set(signal.Signals(number).name)
        told()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
