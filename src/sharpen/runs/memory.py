"""How much memory is in use: by this process, and by all it has started."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self


def peak_memory() -> int:
    """The most memory this process has held, in bytes; 0 where the system does not say (Windows)."""
    if os.name == "nt":
        return 0
    import resource  # Unix only

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def tree_bytes(pid: int) -> int:
    """Proportional set size of a process and its descendants: what they share counts once. 0 where /proc has none.

    A process that has just ended counts nothing.
    """
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return 0
    own = next((int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return own + sum(tree_bytes(int(child)) for some in children for child in some)


class Watch:
    """Looks at the process tree's memory every now and then, on a thread of its own, while it is entered.

    A peak that comes and goes between two looks is missed. Where the system has no proportional set sizes, the
    peak is that of this process alone, over all of its life.
    """

    def __init__(self, seconds: float = 0.5) -> None:
        self._seconds = seconds
        self._most = 0
        self._looking = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def take(self) -> int:
        """The most bytes since the last time, the present ones among them."""
        with self._looking:
            most, self._most = max(self._most, tree_bytes(os.getpid())), 0
        return most or peak_memory()

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            with self._looking:
                self._most = max(self._most, tree_bytes(os.getpid()))
