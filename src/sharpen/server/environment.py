"""What processes of the server's get of its environment: no keys."""

from __future__ import annotations

import os
from collections.abc import Sequence

KEPT = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SHARPEN_HOME", "XDG_CACHE_HOME", "HF_HOME", "PYTHONPATH"),
    *("LD_LIBRARY_PATH", "NUMBA_CACHE_DIR", "VIRTUAL_ENV"),
)


def inherited(threads: int, more: Sequence[str] = ()) -> dict[str, str]:
    """The variables of KEPT and `more` that are set, and the number of threads."""
    found = {name: value for name in (*KEPT, *more) if (value := os.environ.get(name))}
    return {**found, "OMP_NUM_THREADS": str(threads)}
