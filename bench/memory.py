"""Peak memory of a process tree, for both sides of a benchmark; needs the standard library only."""

from __future__ import annotations

import itertools
import os
import resource
import threading
from pathlib import Path


class Watch(threading.Thread):
    """The largest proportional set size of this process and its descendants, looked at once a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self._finished = threading.Event()

    def run(self) -> None:
        while not self._finished.wait(1.0):  # rarer than this misses peaks, more often slows the work down
            self.sample()

    def sample(self) -> None:
        self.bytes = max(self.bytes, tree_bytes(os.getpid()))

    def peaks(self) -> dict[str, int]:
        """`max_rss` misses no peak of this process; `proportional_tree` has its children too."""
        max_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"max_rss": max_rss, "proportional_tree": self.bytes}

    def stop(self) -> None:
        self._finished.set()
        self.join()
        self.sample()


def tree_bytes(pid: int) -> int:
    """Proportional set size of a process and its descendants; one that has just ended counts nothing."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    own = next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
    return own + sum(tree_bytes(int(child)) for child in itertools.chain(*children))
